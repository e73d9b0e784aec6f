"""What every defense is: a card, parameters, and the hooks that it overrides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch

from fedbench.entries.cards import DefenseCard, NoParameters, Parameters, declared, plain_card
from fedbench.federation.batch import Batch
from fedbench.federation.model import LocalStep, PublicParams, Recommender
from fedbench.federation.optimizers import ServerOptimizer
from fedbench.federation.rows import FullRows
from fedbench.federation.updates import Updates

OnFlag = Literal["use-purified", "keep-original", "drop"]


@dataclass
class Notes:
    """What defenses say of a round whose diagnostics are kept. They write here and read nothing.

    Attributes:
        filtered: name of each part of a chain, with what its filter received and left.
        left_out: name of each rule over whole updates that chooses clients, with those whose updates it leaves out: int64.
        uniformity: clients int64 [n] and d_i float64 [n], where UNION estimates it.
    """

    filtered: list[tuple[str, Updates, Updates]] = field(default_factory=list)
    left_out: list[tuple[str, torch.Tensor]] = field(default_factory=list)
    uniformity: tuple[torch.Tensor, torch.Tensor] | None = None


@dataclass(frozen=True)
class ServerView:
    """What the server may use.

    Attributes:
        params: the public parameters that the round's clients received.
        learning_rate: the server's. aggregation: ``"sum"``, ``"mean"`` or ``"weighted"``, by numbers of samples.
        malicious_ratio: the scenario's true share of malicious clients; only a defense whose card declares knowledge
            ``malicious_ratio`` receives it, others get None.
        epoch: from 1. round: from 0, over the whole run.
        generator: the defense's own random stream.
        optimizer: how the server steps, with its state; None: gradient descent.
        notes: where a defense may note what it did, in rounds whose diagnostics are kept.
        model: the recommender's structure; None only where a view is made by hand, or to a defense in a process of its own
            when the model is not one of fedbench's.
    """

    params: PublicParams
    learning_rate: float
    aggregation: str
    malicious_ratio: float | None
    epoch: int
    round: int
    generator: torch.Generator
    optimizer: ServerOptimizer | None = None
    notes: Notes | None = None
    model: Recommender | None = None


@dataclass(frozen=True)
class ClientRegularization:
    """What a client-side defense adds to the gradients of honest clients.

    Attributes:
        rows: float32 [R, d], aligned with the batch's rows; None: nothing.
        users: float32 [n, d], aligned with the batch's clients; None: nothing.
        extra: rows of any items, ``client`` being an index into the batch's clients; None: nothing.
    """

    rows: torch.Tensor | None = None
    users: torch.Tensor | None = None
    extra: FullRows | None = None


class Defense:
    """Base of all defenses. A run makes one instance; it overrides only the hooks that it is about."""

    card: DefenseCard
    on_flag: OnFlag = "use-purified"
    """What features a flagged image gets: its purified version's, those of the item's original image, or zeros."""
    keeps_params: bool = True
    """Whether it may hold on to the tensors of ``server.params`` after a round. Where not, the server may change the rows of
    few items in place, in large tables, instead of writing all of them anew."""

    class Params(NoParameters):
        """Replaced by each defense: its parameters, each with its source."""

    def __init__(self, params: Parameters) -> None:
        self.params = params

    def fresh(self) -> Defense:
        """Another of the same parameters, with no memory: what an attacker can make who knows the defense."""
        return type(self)(self.params)

    def joined(self, parts: Sequence[Defense]) -> None:
        """Before a run, when it is one of the ``parts`` of a chain."""

    def regularize(
        self, params: PublicParams, users: torch.Tensor, batch: Batch, server: ServerView
    ) -> ClientRegularization | None:
        """Client side: what the honest clients of ``batch`` add to their gradients, or None."""
        return None

    def client_update(
        self, local: LocalStep, params: PublicParams, users: torch.Tensor, batch: Batch, server: ServerView
    ) -> LocalStep:
        """Client side: what the honest clients of ``batch`` send and apply to themselves, given their gradients.

        Called after :meth:`regularize`; ``local`` holds what it added.
        """
        return local

    def purify(self, pixels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Server side: the images, uint8 [k, 3, H, W], as they go to the extractor; all at first, then each replaced one.

        ``generator`` is a stream for these images alone; the one for all images is the same in every run, and on the CPU
        wherever they are: draw on ``generator.device``.
        """
        return pixels

    def see_images(self, pixels: torch.Tensor) -> None:
        """Server side: all images before the first epoch, uint8 [n, 3, H, W], for a purifier that must know them."""

    def flags(self, similarity: torch.Tensor, known_clean: bool) -> torch.Tensor | None:
        """Server side: which images it takes for adversarial, bool [k]; None: it does not look.

        Args:
            similarity: float32 [k], ``cos(phi(x), phi(purify(x)))`` of each.
            known_clean: whether they are of images before the first epoch, which nobody has tampered with: to set a
                threshold. Half of the images serve for it, the other half tells how many clean ones are flagged.
        """
        return None

    def warnings(self) -> Sequence[str]:
        """After a run: one line each of what it could not do as it is meant to, such as with too few clients."""
        return ()

    def filter(self, updates: Updates, server: ServerView) -> Updates:
        """Drops or clips clients or rows."""
        return updates

    def aggregate(self, updates: Updates, server: ServerView) -> PublicParams | None:
        """One gradient for the public parameters; None: the server's own sum or mean.

        ``updates.rejected`` may name clients that a filter has dropped: unless a rule means to look at their uploads, it
        begins with ``updates.settled()``.
        """
        return None


def card_of(defense: Defense) -> DefenseCard:
    """The card of a defense as its class declared it when it was first read; of a chain, which has none, the one it made."""
    cls = type(defense)
    return declared(cls, DefenseCard) if hasattr(cls, "card") else plain_card(defense.card, DefenseCard, cls.__name__)
