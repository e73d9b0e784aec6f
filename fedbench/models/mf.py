"""Matrix factorisation: the logit is the inner product of user and item embedding, without bias."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import Literal

import torch
from pydantic import Field

from fedbench.entries.cards import LATER, ModelCard, Parameters
from fedbench.federation.batch import Batch
from fedbench.federation.losses import Loss
from fedbench.federation.model import LARGEST_SIZE, LocalStep, PublicParams, Recommender
from fedbench.federation.rows import FullRows, OuterRows, PiecedRows, Rows, occurrences
from fedbench.federation.updates import DenseGradients

# One notice a process about an API that does what it says here.
warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta", category=UserWarning)


class MatrixFactorization(Recommender):
    """``s_uj = u_u . v_j`` (Koren et al. 2009; federated: Ammad-ud-din et al. 2019).

    With ``e_uj = dL_u/ds_uj``, a client's own gradient is ``sum_j e_uj v_j`` and the row that it uploads for item j is
    ``e_uj u_u``: one scalar for each row times one vector, so the [R, d] rows are not made unless a defense reads them.

    With ``dropout`` p the embeddings are multiplied in training by masks of 0 and 1 / (1 - p), independent for every
    sample and coordinate: in each pair of the BPR loss one for the user, one for the positive, one for the negative
    (AAAI'23 code); for pointwise losses one for the user and one for the item of each distinct item of a client.
    """

    card = ModelCard(name="mf", title="Matrix factorisation", paper="Koren et al., Computer 2009")

    inner_products = True

    class Params(Parameters):
        """Hyper-parameters."""

        embedding_size: int = Field(32, ge=1, le=LARGEST_SIZE, description="d [ICDE'22 and ICDE'24 code: 32]")
        init_std: float = Field(
            0.01, gt=0, description="standard deviation of the initial embeddings [all three codes: 0.01]"
        )
        init: Literal["normal", "xavier"] = Field(
            "normal",
            description="N(0, init_std^2), or uniform within sqrt(6 / (rows + d)) for each table [AAAI'23 code]",
            json_schema_extra=LATER,
        )
        dropout: float = Field(
            0.0, ge=0, lt=1, description="share of looked-up coordinates left out in training", json_schema_extra=LATER
        )

    params: MatrixFactorization.Params

    @property
    def embedding_size(self) -> int:
        return self.params.embedding_size

    def init_params(self, num_items: int, generator: torch.Generator) -> PublicParams:
        return PublicParams(self._init(num_items, generator), {})

    def init_users(self, count: int, generator: torch.Generator) -> torch.Tensor:
        return self._init(count, generator)

    def _init(self, rows: int, generator: torch.Generator) -> torch.Tensor:
        d = self.embedding_size
        if self.params.init == "xavier":
            return xavier(rows, d, generator)
        return torch.randn(rows, d, generator=generator) * self.params.init_std

    def logits(self, dense: Mapping[str, torch.Tensor], users: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        return (users * items).sum(-1)

    def score_all(self, params: PublicParams, users: torch.Tensor) -> torch.Tensor:
        return users @ params.items.T

    def local_step(
        self,
        params: PublicParams,
        users: torch.Tensor,
        batch: Batch,
        loss: Loss,
        generator: torch.Generator | None = None,
    ) -> LocalStep:
        if self.params.dropout and generator is not None:
            return self._with_dropout(params.items, users, batch, loss, generator)
        logits = aligned_products(users, params.items, batch)
        own, uploaded = loss.derivative(logits, batch)
        user_grad = torch.nn.functional.embedding_bag(
            batch.item, params.items, batch.starts[:-1], mode="sum", per_sample_weights=own
        )
        rows: Rows = OuterRows(batch.client, batch.item, uploaded, batch.client, users)
        if loss.regularization:
            user_grad = user_grad + loss.regularization * users
            pull = loss.regularization * params.items.index_select(0, batch.item)
            rows = FullRows(batch.client, batch.item, rows.grad() + pull)
        return LocalStep((rows,), DenseGradients.of({}), user_grad)

    def _with_dropout(
        self, items: torch.Tensor, users: torch.Tensor, batch: Batch, loss: Loss, generator: torch.Generator
    ) -> LocalStep:
        d, p = self.embedding_size, self.params.dropout
        user_grad = loss.regularization * users if loss.regularization else torch.zeros_like(users)
        rows: Rows
        if batch.pair_positive is not None and batch.pair_negative is not None:
            plus, minus = batch.pair_positive, batch.pair_negative
            client = batch.client.index_select(0, plus)
            keep = kept_coordinates((3, len(plus), d), p, generator, items.device)
            # Masks of 0 and 1; every product of two masked vectors has the factor 1 / (1 - p)^2 instead.
            scale = (1 - p) ** -2
            difference = items.index_select(0, batch.item.index_select(0, plus)).mul_(keep[1])
            difference.addcmul_(items.index_select(0, batch.item.index_select(0, minus)), keep[2], value=-1)
            difference.mul_(keep[0])
            user = users.index_select(0, client)
            slope = scale * loss.slope(scale * torch.linalg.vecdot(user, difference), client, len(users))
            # Pairs stand client by client: one segment sum.
            count = occurrences(client, len(users))
            user_grad -= torch.nn.functional.embedding_bag(
                torch.arange(len(plus), device=items.device),
                difference,
                count.cumsum(0) - count,
                mode="sum",
                per_sample_weights=slope,
            )
            uploaded = keep[1:].mul_(user.mul_(keep[0])).view(-1, d)
            rows = PiecedRows(batch.client, batch.item, torch.cat([plus, minus]), torch.cat([-slope, slope]), uploaded)
        else:
            keep = kept_coordinates((2, len(batch.item), d), p, generator, items.device).mul_(1 / (1 - p))
            user = users.index_select(0, batch.client) * keep[0]
            item = items.index_select(0, batch.item) * keep[1]
            own, uploaded = loss.derivative((user * item).sum(1), batch)
            user_grad.index_add_(0, batch.client, item * keep[0] * own[:, None])
            rows = FullRows(batch.client, batch.item, user * keep[1] * uploaded[:, None])
        if loss.regularization:
            pull = loss.regularization * items.index_select(0, batch.item)
            rows = FullRows(batch.client, batch.item, rows.grad() + pull)
        return LocalStep((rows,), DenseGradients.of({}), user_grad)


def xavier(rows: int, columns: int, generator: torch.Generator) -> torch.Tensor:
    """float32 [rows, columns], uniform within ``sqrt(6 / (rows + columns))`` (Glorot and Bengio 2010, equation 16)."""
    bound: float = (6 / (rows + columns)) ** 0.5
    return (torch.rand(rows, columns, generator=generator) * 2 - 1) * bound


def kept_coordinates(
    shape: tuple[int, ...], p: float, generator: torch.Generator, device: torch.device
) -> torch.Tensor:
    """float32 ``shape`` = [..., d] on ``device``: 0 with probability p, else 1.

    An entry is kept if a random byte is at least ``256 p``, which is rounded up or down at random, once for each of the d
    coordinates and so that its mean is ``256 p``: a coordinate's rate over all draws is p, within one call it is up to
    1/256 beside it. Bytes take half the time of the 16-bit integers of :func:`dropout_masks`.
    """
    count = math.prod(shape)
    rounding = torch.rand(shape[-1], generator=generator, device=generator.device)
    least = (256 * p + rounding).floor_().sub_(128)
    bits = torch.empty(-(-count // 8), dtype=torch.int64, device=generator.device)
    bits.random_(-(2**63), None, generator=generator)
    kept = torch.empty(shape, device=generator.device)
    torch.ge(bits.view(torch.int8)[:count].view(shape), least.clamp(max=127).to(torch.int8), out=kept)
    if 256 * p > 255:
        kept *= least <= 127  # no byte is larger: such a coordinate is left out everywhere
    return kept.to(device)


def dropout_masks(shape: tuple[int, ...], p: float, generator: torch.Generator, device: torch.device) -> torch.Tensor:
    """float32 ``shape`` on ``device``: 0 with probability p (to within 2^-16), else 1 / (1 - p).

    Four entries come from one 64-bit draw.
    """
    count = math.prod(shape)
    bits = torch.empty(-(-count // 4), dtype=torch.int64, device=generator.device).random_(
        -(2**63), None, generator=generator
    )
    kept = torch.empty(shape, device=generator.device)
    # Written as floats at once: five times faster than comparing and converting.
    torch.ge(bits.view(torch.int16)[:count].view(shape), round(p * 2**16) - 2**15, out=kept)
    return kept.mul_(1 / (1 - p)).to(device)


def aligned_products(users: torch.Tensor, items: torch.Tensor, batch: Batch) -> torch.Tensor:
    """``u_client . v_item`` of every row of a batch: float32 [R].

    Args:
        users: float32 [n, d]. items: float32 [M, d]. batch: rows sorted by client.
    """
    if users.is_cuda or torch.backends.mkl.is_available():
        # One pass over both factors, without the two [R, d] gathers of the plain product below (5 times faster).
        pattern = torch.sparse_csr_tensor(
            batch.starts, batch.item, torch.zeros_like(batch.weight), (len(users), len(items)), check_invariants=False
        )
        return torch.sparse.sampled_addmm(pattern, users, items.T, beta=0.0).values()
    return (users.index_select(0, batch.client) * items.index_select(0, batch.item)).sum(1)
