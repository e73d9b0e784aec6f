"""What every recommender offers to the engine, to attacks and to the evaluation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch

from fedbench.entries.cards import ModelCard, NoParameters, Parameters
from fedbench.federation.batch import Batch
from fedbench.federation.losses import Loss
from fedbench.federation.rows import Rows
from fedbench.federation.updates import DenseGradients

LARGEST_SIZE = 4096
"""Numbers of an embedding or a layer at most, 64 times those of the papers: more is a slip that fills the memory."""


@dataclass(frozen=True)
class PublicParams:
    """The public parameters.

    Attributes:
        items: float32 [M, d], the item embeddings.
        dense: name -> tensor, every other public parameter.
        features: float32 [M, F], what the images in force look like to the extractor: public, and not trained; None in
            models that read none, and in gradients.
    """

    items: torch.Tensor
    dense: Mapping[str, torch.Tensor]
    features: torch.Tensor | None = None

    def described(self, ids: torch.Tensor) -> torch.Tensor:
        """float32 [..., d], or [..., d + F]: what :meth:`Recommender.logits` takes of the items ``ids``, int64 [...].

        Their embeddings; in models that read features, each followed by its features.
        """
        # Along one dimension a fifth of the time.
        embeddings = self.items.index_select(0, ids) if ids.ndim == 1 else self.items[ids]
        return embeddings if self.features is None else torch.cat([embeddings, self.features[ids]], dim=-1)

    def finite(self) -> bool:
        """Whether no value is NaN or infinite."""
        return all(bool(torch.isfinite(value).all()) for value in (self.items, *self.dense.values()))


@dataclass(frozen=True)
class LocalStep:
    """The gradients of one local step of n clients, each of its own loss.

    Attributes:
        rows: gradients of item embeddings, one row for each (client, item).
        dense: gradients of the dense parameters.
        users: float32 [n, d], gradients of the private user embeddings.
    """

    rows: tuple[Rows, ...]
    dense: DenseGradients
    users: torch.Tensor


@dataclass(frozen=True)
class Histories:
    """The interactions of n users in the order of time, one user after the other.

    Attributes:
        starts: int64 [n + 1], where each user's begin. item: int64 [P].
    """

    starts: torch.Tensor
    item: torch.Tensor

    @classmethod
    def of(cls, user: torch.Tensor, item: torch.Tensor, count: int) -> Histories:
        """Those of the users 0 to ``count`` - 1: ``user`` and ``item`` int64 [P], sorted by user."""
        return cls(torch.searchsorted(user, torch.arange(count + 1, device=user.device)), item)


class Recommender(ABC):
    """A model that scores (user, item); it has no state of its own: parameters are passed in."""

    card: ClassVar[ModelCard]
    reads_sequences: ClassVar[bool] = False
    """Whether the order of a client's pairs matters to it, and what it reads at each of them."""
    reads_features: ClassVar[bool] = False
    """Whether it reads features of item images (``PublicParams.features``) beside item embeddings."""
    inner_products: ClassVar[bool] = False
    """Whether :meth:`score_all` of this class is ``users @ params.items.T``; see :func:`scores_by_inner_products`."""
    personal: ClassVar[bool] = False
    """Whether each client ranks by an item table of its own: the one it has received, less the server's learning rate times
    the rows that it uploads, which are its gradient by items after the step of its private embedding."""

    class Params(NoParameters):
        """Replaced by each model: its hyper-parameters."""

    def __init__(self, params: Parameters) -> None:
        self.params = params

    @property
    @abstractmethod
    def embedding_size(self) -> int:
        """The length d of item and user embeddings."""

    @abstractmethod
    def init_params(self, num_items: int, generator: torch.Generator) -> PublicParams:
        """Fresh public parameters, drawn on the CPU. Names of biases begin with b: no L2 term or noise touches them."""

    def init_feature_params(self, num_features: int, generator: torch.Generator) -> Mapping[str, torch.Tensor]:
        """Fresh dense parameters that depend on F, such as the projection [d, F] of features, drawn on the CPU.

        Asked for in models that read features; the others have none.
        """
        return {}

    @abstractmethod
    def init_users(self, count: int, generator: torch.Generator) -> torch.Tensor:
        """float32 [count, d]: fresh private user embeddings, drawn on the CPU."""

    @abstractmethod
    def logits(self, dense: Mapping[str, torch.Tensor], users: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        """The logit of each aligned (user, item) pair, differentiable in all arguments.

        Args:
            dense: the dense parameters, each of its own shape or with the same leading batch dimensions ``[B...]``
                as the first dimensions of ``users``: then each batch entry has parameters of its own.
            users: float32 [B..., r, d].
            items: float32 [B..., r, d], or broadcastable to ``users``; in models that read features [B..., r, d + F], as
                :meth:`PublicParams.described` gives them.

        Returns:
            float32 [B..., r].
        """

    @abstractmethod
    def score_all(self, params: PublicParams, users: torch.Tensor) -> torch.Tensor:
        """float32 [B, M]: the logit of every item for each of the ``users`` [B, d]."""

    def represent(self, params: PublicParams, users: torch.Tensor, histories: Histories) -> torch.Tensor:
        """float32 [n, d]: what :meth:`score_all` takes for n users; their embeddings, unless a model makes it otherwise.

        Args:
            params: the public parameters. users: float32 [n, ...], what the table of users holds of them.
            histories: what they have interacted with so far.
        """
        return users

    def samples(self, batch: Batch) -> torch.Tensor:
        """float32 [n]: the number of training samples behind each client's gradient, by which servers may weight."""
        return batch.size

    @abstractmethod
    def local_step(
        self,
        params: PublicParams,
        users: torch.Tensor,
        batch: Batch,
        loss: Loss,
        generator: torch.Generator | None = None,
    ) -> LocalStep:
        """The gradients of every client's own loss at the received parameters.

        Args:
            params: the public parameters as received.
            users: float32 [n, d], the clients' own embeddings.
            batch: their training rows.
            loss: a function of the logits.
            generator: of dropout, in models that have it; None: no dropout.
        """


def scores_by_inner_products(model: Recommender) -> bool:
    """Whether scores are ``users @ params.items.T``, so that bounds may tell which items need none.

    As the class says that defines ``score_all``: one that overrides it is not taken at the word of its base.
    """
    owner = next(cls for cls in type(model).__mro__ if "score_all" in vars(cls))
    return bool(vars(owner).get("inner_products", False))
