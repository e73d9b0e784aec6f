"""Clients: how their negatives are drawn, their training rows, and the batch that a cohort of them forms.

A client's rows never change between two drawings of negatives, so repeats of an item are merged once: a row holds
how often the item occurs (``weight``) and how often as a positive (``positive``). The cross-entropy gradient of a row
is then ``(weight * sigma(s) - positive) / |D_u|``, exactly the sum over its repeats.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch

from fedbench.federation.batch import Batch
from fedbench.federation.rows import occurrences

BLOCK = 2**21
"""Interactions whose clients are laid out at a time."""


@dataclass(frozen=True)
class TrainingRows:
    """The rows of all C clients, in the order of the table of users.

    Attributes:
        starts: int64 [C + 1]. item: int64 [R]. weight, positive: float32 [R]. size: float32 [C].
        pair_starts: int64 [C + 1]. pair_positive, pair_negative: int64 [Q], row positions relative to the client's
            first row; only kept for pairwise losses.
    """

    starts: torch.Tensor
    item: torch.Tensor
    weight: torch.Tensor
    positive: torch.Tensor
    size: torch.Tensor
    pair_starts: torch.Tensor | None = None
    pair_positive: torch.Tensor | None = None
    pair_negative: torch.Tensor | None = None

    @classmethod
    def build(
        cls,
        user: torch.Tensor,
        item: torch.Tensor,
        negative: torch.Tensor,
        num_clients: int,
        num_items: int,
        pairwise: bool = False,
    ) -> TrainingRows:
        """Merge repeats and lay the rows out client by client.

        Args:
            user: int64 [P], the client of each positive, ascending. item: int64 [P].
            negative: int64 [P, q], the negatives drawn for each positive.
            num_clients: C. num_items: M.
            pairwise: keep the (positive, negative) pairs too.
        """
        blocks = _blocks(user, num_clients)
        if len(blocks) == 1:
            return cls._merged(user, item, negative, num_clients, num_items, pairwise)
        parts = [
            cls._merged(user[rows] - first, item[rows], negative[rows], last - first, num_items, pairwise)
            for first, last, rows in blocks
        ]
        joined: dict[str, Any] = {each.name: _joined(each.name, parts) for each in fields(cls)}
        return cls(**joined)

    @classmethod
    def _merged(
        cls,
        user: torch.Tensor,
        item: torch.Tensor,
        negative: torch.Tensor,
        num_clients: int,
        num_items: int,
        pairwise: bool,
    ) -> TrainingRows:
        """The same for a block of clients, by one sort of its rows."""
        q = negative.shape[1]
        key_positive = user * num_items + item
        key_negative = (user[:, None] * num_items + negative).reshape(-1)
        key, place, count = torch.unique(
            torch.cat([key_positive, key_negative]), return_inverse=True, return_counts=True
        )
        positive = torch.zeros(len(key), device=user.device)
        positive.index_add_(0, place[: len(user)], torch.ones(len(user), device=user.device))
        owner = key // num_items
        bounds = torch.arange(num_clients + 1, device=user.device)
        starts = torch.searchsorted(owner, bounds)
        samples = torch.bincount(user, minlength=num_clients) * (1 + q)
        rows = cls(starts, key % num_items, count.float(), positive, samples.float())
        if not pairwise:
            return rows
        first = starts[user].repeat_interleave(q)
        return replace(
            rows,
            pair_starts=torch.searchsorted(user, bounds) * q,
            pair_positive=place[: len(user)].repeat_interleave(q) - first,
            pair_negative=place[len(user) :] - first,
        )

    @functools.cached_property
    def _host_starts(self) -> torch.Tensor:
        return self.starts.cpu()

    def at_most(self, clients: torch.Tensor, count: int) -> int:
        """How many rows ``clients``, int64 [n] on the CPU, have together, if each has ``count`` at most."""
        length = self._host_starts[clients + 1] - self._host_starts[clients]
        return int(length.clamp(max=count).sum())

    @functools.cached_property
    def _host_pair_starts(self) -> torch.Tensor:
        assert self.pair_starts is not None
        return self.pair_starts.cpu()

    def select(self, clients: torch.Tensor) -> Batch:
        """The batch of ``clients``, int64 [n] on the CPU, where sizes are known: nothing is fetched from a device."""
        host_clients, clients = clients, clients.to(self.starts.device, non_blocking=True)
        index, starts, client = ragged(self.starts, self._host_starts, host_clients)
        batch = Batch(
            clients,
            starts,
            client,
            self.item.index_select(0, index),
            self.weight.index_select(0, index),
            self.positive.index_select(0, index),
            self.size.index_select(0, clients),
        )
        if self.pair_starts is None or self.pair_positive is None or self.pair_negative is None:
            return batch
        pair, _, owner = ragged(self.pair_starts, self._host_pair_starts, host_clients)
        first = starts.index_select(0, owner)
        return replace(
            batch,
            pair_positive=self.pair_positive.index_select(0, pair) + first,
            pair_negative=self.pair_negative.index_select(0, pair) + first,
        )


def _joined(name: str, parts: Sequence[TrainingRows]) -> torch.Tensor | None:
    """One field of the rows of all clients, out of those of blocks of them; positions are told from the first row on."""
    values = [getattr(part, name) for part in parts]
    if values[0] is None or not name.endswith("starts"):
        return None if values[0] is None else torch.cat(values)
    before = torch.stack([value[-1] for value in values]).cumsum(0)
    return torch.cat([values[0], *(value[1:] + shift for value, shift in zip(values[1:], before, strict=False))])


def _blocks(user: torch.Tensor, num_clients: int) -> list[tuple[int, int, slice]]:
    """Clients cut where each block has about :data:`BLOCK` interactions: first, last + 1, and their rows of ``user``.

    Sorting block by block takes a fraction of the memory, and reads what is in the cache.

    Args:
        user: int64 [P], ascending. num_clients: C.
    """
    if len(user) <= BLOCK:
        return [(0, num_clients, slice(None))]
    cuts = range(BLOCK, len(user), BLOCK)
    firsts = sorted({0, *(int(user[cut]) for cut in cuts)})
    places = torch.searchsorted(user, torch.tensor([*firsts, num_clients], device=user.device)).tolist()
    ends = [*firsts[1:], num_clients]
    return [(first, last, slice(a, b)) for first, last, a, b in zip(firsts, ends, places[:-1], places[1:], strict=True)]


def ragged(
    starts: torch.Tensor, host_starts: torch.Tensor, which: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Positions of the segments ``which`` of a segmented array, one after the other.

    Args:
        starts: int64 [C + 1], where each segment begins. host_starts: the same on the CPU.
        which: int64 [n], on the CPU.

    Returns:
        index int64 [R] into the array, new starts int64 [n + 1], and owner int64 [R], 0 to n - 1.
    """
    begin = host_starts[which]
    length = host_starts[which + 1] - begin
    new_starts = torch.cat([length.new_zeros(1), length.cumsum(0)])
    total = int(new_starts[-1])
    shift = (begin - new_starts[:-1]).to(starts.device, non_blocking=True)
    owner = torch.repeat_interleave(length.to(starts.device, non_blocking=True), output_size=total)
    index = torch.arange(total, device=starts.device) + shift.index_select(0, owner)
    return index, new_starts.to(starts.device, non_blocking=True), owner


def sample_rows(batch: Batch, count: int, generator: torch.Generator, total: int | None = None) -> Batch:
    """Each client's uniform choice of ``min(count, its rows)`` rows without replacement (a local mini-batch).

    The loss is then the mean over the chosen rows' samples, so ``size`` becomes the sum of their weights.

    Args:
        batch: the rows. count: of each client. generator: of the choice.
        total: how many rows that are, which a GPU would have to be asked for; None: not known.
    """
    key = torch.rand(len(batch.client), generator=generator, device=generator.device)
    key = key.to(batch.client.device, non_blocking=True)
    order = torch.argsort(key)
    order = order[torch.argsort(batch.client[order], stable=True)]
    rank = torch.arange(len(order), device=order.device) - batch.starts[batch.client[order]]
    if total is None or not order.is_cuda:
        chosen = torch.sort(order[rank < count]).values
    else:
        chosen = torch.sort(torch.where(rank < count, order, len(order))).values[:total]
    client = batch.client[chosen]
    n = len(batch.clients)
    length = occurrences(client, n)
    weight = batch.weight[chosen]
    return Batch(
        batch.clients,
        torch.cat([length.new_zeros(1), length.cumsum(0)]),
        client,
        batch.item[chosen],
        weight,
        batch.positive[chosen],
        torch.zeros(n, device=weight.device).index_add_(0, client, weight),
    )


def draw_negatives(
    user: torch.Tensor,
    item: torch.Tensor,
    num_clients: int,
    num_items: int,
    q: int,
    generator: torch.Generator,
    also: tuple[torch.Tensor, torch.Tensor] | None = None,
) -> torch.Tensor:
    """Q negatives for each positive: uniform over the items outside the client's positives, with repetition.

    Exact, without rejection: the r-th item outside the sorted positives p_0 < p_1 < ... is ``r + #{i: p_i - i <= r}``.

    Args:
        user: int64 [P], ascending. item: int64 [P]; repeats are allowed.
        num_clients: C. num_items: M. q: negatives for each positive.
        generator: on any device; one on the CPU gives the same draws everywhere.
        also: clients and items, int64 [Q] each, that are no negatives either; None: nothing.

    Returns:
        int64 [P, q], on the device of ``user``. A client that has every item gets the positive itself.
    """
    blocks = _blocks(user, num_clients)
    if len(blocks) == 1:
        return _negatives(user, item, num_clients, num_items, q, generator, also)
    drawn = []
    for first, last, rows in blocks:
        too = None
        if also is not None:
            here = (also[0] >= first) & (also[0] < last)
            too = also[0][here] - first, also[1][here]
        drawn.append(_negatives(user[rows] - first, item[rows], last - first, num_items, q, generator, too))
    return torch.cat(drawn)


def _negatives(
    user: torch.Tensor,
    item: torch.Tensor,
    num_clients: int,
    num_items: int,
    q: int,
    generator: torch.Generator,
    also: tuple[torch.Tensor, torch.Tensor] | None,
) -> torch.Tensor:
    """The same for a block of clients, numbered from 0."""
    device = user.device
    taken = [user * num_items + item]
    if also is not None:
        taken.append(also[0].to(device) * num_items + also[1].to(device))
    key = torch.unique(torch.cat(taken))
    owner = key // num_items
    starts = torch.searchsorted(owner, torch.arange(num_clients + 1, device=device))
    degree = starts[1:] - starts[:-1]
    gaps = key - (torch.arange(len(key), device=device) - starts[owner])
    free = (num_items - degree).index_select(0, user)
    uniform = torch.rand(len(user), q, generator=generator, device=generator.device, dtype=torch.float64).to(device)
    r = torch.minimum((uniform * free[:, None]).long(), (free[:, None] - 1).clamp(min=0))
    below = torch.searchsorted(gaps, user[:, None] * num_items + r, right=True) - starts[user][:, None]
    return torch.where(free[:, None] > 0, r + below, item[:, None])
