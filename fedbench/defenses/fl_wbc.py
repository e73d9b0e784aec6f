"""FL-WBC: honest clients add noise where their gradient hardly changed, so that poison does not stay there."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
from pydantic import Field

from fedbench.entries.cards import DefenseCard, DefenseFamily, Parameters
from fedbench.federation.batch import Batch
from fedbench.federation.defense import Defense, ServerView
from fedbench.federation.model import LocalStep, PublicParams
from fedbench.federation.rows import FullRows
from fedbench.federation.updates import DenseGradients

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

    State: the gradients of every client's last participation, one row for each (client, item) of it; memory is at most
    twice the training rows times d. With ``rows="all"`` every honest client uploads all M rows, so a round of n clients
    holds [n M, d] numbers; untouched rows count as a gradient of 0.
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
        (protocol icde24, touched rows, seeds 0 to 2). Protocol aaai23 has its own, by the same rule on ML-1M (HR@5, seed 0):
        2e-4 on mf (3,000 rounds; costs 2 %, 5e-4 14 %) and 1e-3 on sasrec (1,000 rounds; 9 %, 2e-3 21 %).
        """

        scale: float | None = Field(
            None,
            gt=0,
            description=f"s, scale of the noise; None: {MF_SCALE:g} for models without dense parameters (mf), else"
            f" {NCF_SCALE:g} (of ncf) [ours]",
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
                noisy = flat - masked_noise(flat - last.recall(batch.clients, batch.clients), scale, server.generator)
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
        before = last.recall(batch.clients, batch.clients.index_select(0, sent.client) * num_items + sent.item)
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

    Keys are ``client * width + item``, float32 rows of any length belong to them. Each client's stand together, sorted by
    key, in a table that is filled from the front and made anew, without what was replaced, when it is full: a
    participation costs no more than its own rows, however many others there are.
    """

    def __init__(self, width: int) -> None:
        self.width = width
        self.used = 0
        self.starts = self.lengths = torch.zeros(0, dtype=torch.int64)
        self.keys: torch.Tensor | None = None
        self.values: torch.Tensor | None = None

    def recall(self, clients: torch.Tensor, keys: torch.Tensor) -> torch.Tensor | float:
        """float32 [R, k]: the rows of ``keys``, int64 [R], of ``clients``, int64 [n]; zero where there is none."""
        if self.values is None:
            return 0.0
        place, found, _ = self._find(clients, keys)
        return self.values.index_select(0, place).mul_(found[:, None]) if len(place) else 0.0

    def replace(self, clients: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Forget all rows of ``clients``, int64 [n], and keep ``values`` [R, k] with ``keys`` [R] in their place."""
        if self.values is not None:
            place, found, stored = self._find(clients, keys)
            if len(place) == stored == len(keys) and bool(found.all()):
                # The same rows as last time, as always when negatives are drawn once: written over where they are.
                self.values.index_copy_(0, place, values)
                return
        if not len(clients):
            return
        keys, order = torch.sort(keys)
        values = values.index_select(0, order)
        known, needed = len(self.starts), int(clients.max()) + 1
        if needed > known:
            fresh = clients.new_zeros(needed - known)
            self.starts = torch.cat([self.starts.to(clients.device), fresh])
            self.lengths = torch.cat([self.lengths.to(clients.device), fresh])
        self.lengths.index_fill_(0, clients, 0)
        count = torch.bincount(keys // self.width, minlength=len(self.starts)).index_select(0, clients)
        own_keys, own_values = self._room(keys, values)
        # Sorted by key, clients follow one another by id.
        ascending = torch.argsort(clients)
        ends = count.index_select(0, ascending).cumsum(0)
        first = torch.empty_like(ends).index_copy_(0, ascending, ends) - count
        self.starts.index_copy_(0, clients, self.used + first)
        self.lengths.index_copy_(0, clients, count)
        own_keys[self.used : self.used + len(keys)] = keys
        own_values[self.used : self.used + len(keys)] = values
        self.used += len(keys)

    def _room(self, keys: torch.Tensor, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The tables of keys and of values, with room for those given behind the first ``used``."""
        if self.keys is None or self.values is None or self.used + len(keys) > len(self.keys):
            live = self._places(torch.arange(len(self.starts), device=keys.device))
            capacity = 2 * (len(live) + len(keys))
            larger_keys, larger = keys.new_empty(capacity), values.new_empty(capacity, values.shape[1])
            if self.keys is not None and self.values is not None:
                torch.index_select(self.keys, 0, live, out=larger_keys[: len(live)])
                torch.index_select(self.values, 0, live, out=larger[: len(live)])
            self.starts = self.lengths.cumsum(0) - self.lengths
            self.keys, self.values, self.used = larger_keys, larger, len(live)
        return self.keys, self.values

    def _places(self, clients: torch.Tensor) -> torch.Tensor:
        """int64: where the rows of known ``clients``, int64 [n] ascending, are, in the order of their keys."""
        length = self.lengths.index_select(0, clients)
        shift = self.starts.index_select(0, clients) - (length.cumsum(0) - length)
        shift = shift.repeat_interleave(length)
        return torch.arange(len(shift), device=shift.device) + shift

    def _find(self, clients: torch.Tensor, keys: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, int]:
        """The place of every key and whether it is there, int64 and bool [R], and how many rows ``clients`` have.

        Both are empty if they have none.
        """
        assert self.keys is not None
        known = torch.sort(clients[clients < len(self.starts)]).values
        places = self._places(known)
        if not len(places):
            return places, places > 0, 0
        stored = self.keys.index_select(0, places)
        spot = torch.searchsorted(stored, keys).clamp_(max=len(stored) - 1)
        return places.index_select(0, spot), stored.index_select(0, spot) == keys, len(places)
