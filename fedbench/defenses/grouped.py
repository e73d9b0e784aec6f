"""Uploaded rows item by item, in padded groups of items that have about equally many of them.

Robust rules look at the rows of one item at a time. Items are put into groups whose numbers of rows differ by a quarter
at most, so that a group is one dense tensor with little padding, and large groups are cut so that a piece stays in
the cache and memory is bounded. On a GPU, where a kernel costs more than padding does, groups are as few as that allows.
The numbers of rows of all items are read from the device once a round, to lay this out.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from fedbench.federation.rows import by_item
from fedbench.federation.updates import Updates

CELLS = 2**19
"""Values of a piece: 2 MiB of float32."""
CELLS_ON_GPU, PADDED_ON_GPU = 2**25, 2**22
"""On a GPU: values of a piece, 128 MiB, and of a group that holds items of very different numbers of rows. A kernel takes 5
microseconds to launch; in that time a GPU reads and writes about a million values."""


@dataclass(frozen=True)
class Group:
    """B items with at most C rows each.

    Attributes:
        item: int64 [B]. count: int64 [B], rows of each item, from 1 to C. sizes: the same on the CPU.
        client: int64 [B, C], index of each row's client, ascending by client id; padding repeats a client.
        values: float32 [B, C, d], the rows; padding holds what was asked for.
        there: bool [B, C], False for padding.
    """

    item: torch.Tensor
    count: torch.Tensor
    sizes: torch.Tensor
    client: torch.Tensor
    values: torch.Tensor
    there: torch.Tensor


class RowsByItem:
    """The rows of a round, sorted by item and, within an item, by client id.

    Args:
        updates: what arrived. num_items: M.
    """

    def __init__(self, updates: Updates, num_items: int) -> None:
        rows = updates.all_rows()
        n = len(updates.clients)
        place = torch.empty_like(updates.clients)
        place[torch.argsort(updates.clients)] = torch.arange(n, device=place.device)
        place = place.index_select(0, rows.client)
        if place.is_cuda:
            key, self._order = torch.sort(rows.item * n + place)
            starts = torch.searchsorted(key, torch.arange(num_items, device=key.device) * n)
        else:  # two stable sorts by small keys take half the time of one by (item, client)
            first, _ = by_item(place, max(n, 1))
            second, starts = by_item(rows.item.index_select(0, first), num_items)
            self._order = first.index_select(0, second)
        self._starts = starts
        self._client = rows.client
        self._values = rows.values
        self.counts = torch.diff(starts, append=starts.new_full((1,), len(rows.item)))

    def groups(
        self,
        padding: float = 0.0,
        pairwise: bool = False,
        at_least: int = 1,
        parts: int = 4,
        cells: int = CELLS,
    ) -> Iterator[Group]:
        """All items that have ``at_least`` so many rows (and one), group by group.

        Args:
            padding: the value of padding.
            pairwise: whether C x C numbers an item will be made: pieces are cut accordingly.
            at_least: the smallest count to look at.
            parts: groups between one power of two and the next; fewer groups have more padding. Not asked on a GPU.
            cells: the most values of a piece; not asked on a GPU.
        """
        on_gpu, d = self._starts.is_cuda, self._values.shape[1]
        counts = self.counts.cpu()
        order = torch.argsort(counts, stable=True)
        sizes = counts.index_select(0, order)
        order = order.to(self._starts.device, non_blocking=True)
        widths = _widths(int(sizes[-1]) if len(sizes) else 0, 1 if on_gpu else parts)
        least = torch.tensor([max(low, at_least, 1) for low, _ in widths], dtype=torch.int64)
        bounds = [*torch.searchsorted(sizes, least).tolist(), len(sizes)]
        spans = [(begin, end, high) for begin, end, (_, high) in zip(bounds[:-1], bounds[1:], widths, strict=True)]
        room = {high: high * max(d, high if pairwise else 1) for _, high in widths}
        if on_gpu:
            spans, cells = _joined(spans, room), CELLS_ON_GPU
        for begin, end, high in spans:
            step = max(1, cells // room[high])
            for start in range(begin, end, step):
                stop = min(start + step, end)
                yield self._group(order[start:stop], sizes[start:stop], high, padding)

    def _group(self, item: torch.Tensor, sizes: torch.Tensor, width: int, padding: float) -> Group:
        count = self.counts.index_select(0, item)
        place = torch.arange(width, device=item.device)
        there = place < count[:, None]
        padded = self._starts.index_select(0, item)[:, None] + torch.minimum(place, count[:, None] - 1)
        row = self._order.index_select(0, padded.flatten())
        values = self._values.index_select(0, row).view(len(item), width, -1)
        values.masked_fill_(~there[:, :, None], padding)
        return Group(item, count, sizes, self._client.index_select(0, row).view(len(item), width), values, there)


def _joined(spans: list[tuple[int, int, int]], room: dict[int, int]) -> list[tuple[int, int, int]]:
    """Neighbouring spans (first item, end, width) as one, the widest first, while it holds few values.

    Args:
        spans: by width. room: values of an item of each width.
    """
    found: list[tuple[int, int, int]] = []
    for begin, end, high in reversed(spans):
        if found and (found[-1][1] - begin) * room[found[-1][2]] <= PADDED_ON_GPU:
            found[-1] = (begin, *found[-1][1:])
        else:
            found.append((begin, end, high))
    return found[::-1]


@functools.cache
def _widths(most: int, parts: int) -> list[tuple[int, int]]:
    """Smallest and largest count of each group up to ``most``; with 4 parts 1, ..., 8, 9-10, 11-12, ..., 17-20, 21-24, ..."""
    found = []
    low = 1
    while low <= most:
        step = max(1, 2 ** (low - 1).bit_length() // (2 * parts))
        high = -(-low // step) * step
        found.append((low, min(high, most)))
        low = high + 1
    return found
