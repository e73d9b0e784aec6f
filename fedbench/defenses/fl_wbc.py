"""FL-WBC: honest clients add noise where their gradient hardly changed, so that poison does not stay there."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
from pydantic import Field

from fedbench.cards import DefenseCard, DefenseFamily, Parameters
from fedbench.defenses.base import Defense, ServerView
from fedbench.federation.clients import Batch
from fedbench.federation.updates import DenseGradients, FullRows
from fedbench.models.base import LocalStep, PublicParams

MF_SCALE, NCF_SCALE = 2e-3, 0.2


class WhiteBloodCells(Defense):
    """White blood cells for federated learning (Sun et al., NeurIPS 2021), for one local step a round.

    In every coordinate of what an honest client uploads, with g its gradient now and g' that of its previous
    participation (0 where there was none)::

        Y ~ Laplace(0, s);    g <- g - Y  where |g - g'| <= |Y|

    The original does this between the local batches of one round, ``w <- w + eta Y`` after the step ``w <- w - eta g``:
    the difference of consecutive gradients estimates the Hessian's action, and where that is small a poisoned parameter
    would not move back by itself. Our protocols have a single local step, so g' is that of the client's previous
    participation, as gradients without noise (the noise is no part of the Hessian). Weights only: dense parameters
    whose name starts with "b" are biases and left alone, and so is the private user embedding, which is not uploaded.
    The original's s = 0.4 was for image classifiers; here s must be of the order of the rows' entries.

    Splitting a client's data in two halves, the second at ``w - eta g_A``, would need parameters of each client's own in
    a model's local step, which takes one set for the whole cohort; it is left out.

    State: the gradients of every client's last participation, one row for each (client, item) of it; memory is linear in
    the training rows times d. With ``rows="all"`` every honest client uploads all M rows, so a round of n clients holds
    [n M, d] numbers; untouched rows count as a gradient of 0.
    """

    card = DefenseCard(
        name="fl-wbc",
        title="FL-WBC: noise where gradients do not change",
        paper="Sun et al., NeurIPS 2021",
        family=DefenseFamily.CLIENT_SIDE,
        notes="Needs honest clients to cooperate. The original compares local steps of one round; here a client compares"
        " its participations.",
    )

    class Params(Parameters):
        """Parameters.

        The defaults of ``scale`` are the largest of 1, 2, 5 x 10^i that cost clean ML-100K at most a tenth of HR@10
        (protocol icde24, touched rows, seeds 0 to 2).
        """

        scale: float | None = Field(
            None,
            gt=0,
            description=f"s, scale of the noise; None: {MF_SCALE:g} for models without dense parameters (mf), else"
            f" {NCF_SCALE:g} (ncf) [ours]",
        )
        rows: Literal["touched", "all"] = Field(
            "touched", description="item rows that get noise: those of the client's own training rows, or all M [ours]"
        )

    params: WhiteBloodCells.Params

    def __init__(self, params: Parameters) -> None:
        super().__init__(params)
        self._last: dict[str, _LastGradients] = {}

    def client_update(
        self, local: LocalStep, params: PublicParams, users: torch.Tensor, batch: Batch, server: ServerView
    ) -> LocalStep:
        if not len(batch.clients):
            return local
        scale = self.params.scale
        if scale is None:
            scale = NCF_SCALE if params.dense else MF_SCALE
        dense = dict(local.dense.stacked()) if params.dense else {}
        for name in sorted(dense):
            if not name.startswith("b"):
                last = self._last.setdefault(name, _LastGradients(1))
                flat = dense[name].flatten(1)
                noisy = flat - masked_noise(flat - last.recall(batch.clients), scale, server.generator)
                last.replace(batch.clients, batch.clients, flat)
                dense[name] = noisy.view_as(dense[name])
        rows = self._rows(local, batch, params.items.shape[0], scale, server.generator)
        return LocalStep((rows,), DenseGradients.of(dense) if dense else local.dense, local.users)

    def _rows(
        self, local: LocalStep, batch: Batch, num_items: int, scale: float, generator: torch.Generator
    ) -> FullRows:
        client = torch.cat([block.client for block in local.rows])
        item = torch.cat([block.item for block in local.rows])
        grad = torch.cat([block.grad() for block in local.rows])
        last = self._last.setdefault("items", _LastGradients(num_items))
        key = batch.clients.index_select(0, client) * num_items + item
        sent = FullRows(client, item, grad)
        if self.params.rows == "all":
            n = len(batch.clients)
            every = torch.arange(n * num_items, device=grad.device)
            full = grad.new_zeros(n * num_items, grad.shape[1]).index_copy_(0, client * num_items + item, grad)
            sent = FullRows(every // num_items, every % num_items, full)
        before = last.recall(batch.clients.index_select(0, sent.client) * num_items + sent.item)
        last.replace(batch.clients, key, grad)
        return replace(sent, values=sent.values - masked_noise(sent.values - before, scale, generator))


def masked_noise(change: torch.Tensor, scale: float, generator: torch.Generator) -> torch.Tensor:
    """``Y`` where ``|change| <= |Y|``, else 0, with Y ~ Laplace(0, scale) drawn for every entry.

    Args:
        change: float32, any shape. scale: s. generator: on the device of ``change``.
    """
    # One uniform number from -1 to 1 gives sign and magnitude. Kept off -1, where the logarithm is infinite: |Y| <= 16 s.
    uniform = torch.rand(change.shape, generator=generator, device=change.device)
    uniform = uniform.mul_(2).sub_(1).clamp_(min=2**-23 - 1)
    magnitude = uniform.abs().neg_().log1p_().mul_(-scale)
    return torch.copysign(magnitude, uniform).mul_(change.abs() <= magnitude)


class _LastGradients:
    """The gradients of every client's last participation, found by key.

    Keys are ``client * width + item``, float32 rows of any length belong to them, and both are held sorted by key.
    """

    def __init__(self, width: int) -> None:
        self.width = width
        self.keys: torch.Tensor | None = None
        self.values: torch.Tensor | None = None

    def recall(self, keys: torch.Tensor) -> torch.Tensor | float:
        """float32 [R, k]: the rows of ``keys``, int64 [R]; zero where there is none."""
        if self.keys is None or self.values is None or not len(self.keys):
            return 0.0
        place, found = self._find(keys)
        return self.values.index_select(0, place).mul_(found[:, None])

    def replace(self, clients: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Forget all rows of ``clients``, int64 [n], and keep ``values`` [R, k] with ``keys`` [R] in their place."""
        if self.keys is not None and self.values is not None and len(self.keys):
            place, found = self._find(keys)
            bounds = torch.stack([clients, clients + 1]) * self.width
            first, end = torch.searchsorted(self.keys, bounds)
            if bool(found.all() & ((end - first).sum() == len(keys))):
                # The same rows as last time, as always when negatives are drawn once: written over where they are.
                self.values.index_copy_(0, place, values)
                return
            others = torch.isin(self.keys // self.width, clients, invert=True).nonzero().squeeze(1)
            keys = torch.cat([self.keys.index_select(0, others), keys])
            values = torch.cat([self.values.index_select(0, others), values])
        self.keys, order = torch.sort(keys)
        self.values = values.index_select(0, order)

    def _find(self, keys: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        assert self.keys is not None
        place = torch.searchsorted(self.keys, keys).clamp_(max=len(self.keys) - 1)
        return place, self.keys.index_select(0, place) == keys
