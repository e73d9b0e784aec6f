"""Pairs of a user and an item, such as all that are seen: by user, and where they stand in a block of scores.

A pair is one number, ``user * M + item``, and a set of them is these numbers in ascending order.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from fedbench.federation.clients import ragged


@dataclass(frozen=True)
class Pairs:
    """Distinct (user, item) pairs by user; ``block`` gives a chunk's as flat positions in its score block."""

    keys: torch.Tensor
    starts: torch.Tensor
    host_starts: torch.Tensor
    item: torch.Tensor
    length: torch.Tensor
    num_items: int
    kept: dict[int, tuple[torch.Tensor, torch.Tensor]] = field(default_factory=dict)

    @classmethod
    def of(cls, keys: torch.Tensor, num_users: int, num_items: int) -> Pairs:
        starts = torch.searchsorted(keys, torch.arange(num_users + 1, device=keys.device) * num_items)
        return cls(keys, starts, starts.cpu(), keys % num_items, starts[1:] - starts[:-1], num_items)

    def block(self, block: slice) -> tuple[torch.Tensor, torch.Tensor]:
        """Flat positions int64 [p] in the chunk's [b, M] scores, and the chunk's row of each."""
        if block.start in self.kept:
            return self.kept[block.start]
        index, _, owner = ragged(self.starts, self.host_starts, torch.arange(block.start, block.stop))
        return owner * self.num_items + self.item.index_select(0, index), owner

    def keep(self, blocks: list[slice]) -> None:
        """Remember the positions of these chunks."""
        self.kept.update({block.start: self.block(block) for block in blocks})


@dataclass(frozen=True)
class Seen:
    """Scores [p] of the seen items of b users, whose each is, and where each user's end: int64 [b]."""

    score: torch.Tensor
    owner: torch.Tensor
    ends: torch.Tensor

    @classmethod
    def of(cls, scores: torch.Tensor, pairs: Pairs, block: slice) -> Seen:
        positions, owner = pairs.block(block)
        ends = pairs.starts[block.start + 1 : block.stop + 1] - pairs.starts[block.start]
        return cls(scores.view(-1).index_select(0, positions), owner, ends)

    def as_high(self, level: torch.Tensor, strictly: bool = False) -> torch.Tensor:
        """float32 [b]: how many of a user's seen items score at least ``level`` [b, 1], or higher."""
        own = level.squeeze(1).index_select(0, self.owner)
        high = self.score > own if strictly else self.score >= own
        total = high.cumsum(0, dtype=torch.int32)
        upto = torch.cat([total.new_zeros(1), total]).index_select(0, self.ends)
        return upto.diff(prepend=upto.new_zeros(1)).float()


def distinct(keys: torch.Tensor) -> torch.Tensor:
    """``keys``, int64 [n], ascending and without repeats; as splits have them mostly, which takes no sort."""
    if bool((keys[1:] > keys[:-1]).all()):
        return keys
    distinct: torch.Tensor = torch.unique(keys)
    return distinct


def is_in(keys: torch.Tensor, among: torch.Tensor) -> torch.Tensor:
    """Bool, of the shape of ``keys``: which are in ``among``, int64 [n], ascending."""
    if not len(among):
        return torch.zeros_like(keys, dtype=torch.bool)
    return among[torch.searchsorted(among, keys).clamp(max=len(among) - 1)] == keys
