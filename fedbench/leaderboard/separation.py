"""A table whose entries are told apart as far as their runs allow: shared ranks and what goes with them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any, Generic, TypeVar, overload

import numpy as np

from fedbench.leaderboard.paired import ALPHA, Difference, Values, average_ranks, holm, rank_intervals, resolution

R = TypeVar("R")


@dataclass(frozen=True)
class Separation:
    """What the runs of a table say of its ranked entries.

    Attributes:
        ranks: first and last of those that are open to each, see :func:`~fedbench.leaderboard.paired.rank_intervals`.
        beats: the entries that each is significantly better than (Holm over all pairs, 5 %), best first.
        average_ranks: over scenarios. scenarios: how many that are. resolution: smallest difference that can be resolved.
        pairs: of each two, the one with the higher score first: the difference and Holm's adjusted p.
    """

    ranks: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    beats: Mapping[str, Sequence[str]] = field(default_factory=dict)
    average_ranks: Mapping[str, float] = field(default_factory=dict)
    scenarios: int = 0
    resolution: float | None = None
    pairs: Mapping[tuple[str, str], tuple[Difference, float]] = field(default_factory=dict)

    def standing(self, name: str) -> dict[str, Any]:
        """What a row says of its place: ``rank``, ``last_rank``, ``beats`` and ``average_rank``; nothing without a rank."""
        if name not in self.ranks:
            return {}
        first, last = self.ranks[name]
        beats, average = len(self.beats[name]), self.average_ranks.get(name)
        return {"rank": first, "last_rank": last, "beats": beats, "average_rank": average}


@dataclass(frozen=True)
class Ranking(Sequence[R], Generic[R]):
    """The rows of a table, in order, and what separates them."""

    rows: Sequence[R]
    separation: Separation

    @overload
    def __getitem__(self, index: int) -> R: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[R]: ...
    def __getitem__(self, index: int | slice) -> R | Sequence[R]:
        return self.rows[index]

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[R]:
        return iter(self.rows)


def separate(
    scores: Mapping[str, float], difference: Callable[[str, str], Difference], values: Mapping[str, Values]
) -> Separation:
    """Compare each two entries of a table.

    A pair that cannot be tested (no variation to be seen) counts as p = 1.

    Args:
        scores: of every entry that has a rank; they decide the order. difference: of two entries by name, the first minus
            the second. values: float64 [scenarios, seeds] of every entry, for the average ranks; scenarios that one of
            them lacks do not count.
    """
    order = sorted(scores, key=lambda name: (-scores[name], name))
    pairs = list(combinations(order, 2))
    differences = [difference(one, other) for one, other in pairs]
    adjusted = holm([1.0 if each.p is None else each.p for each in differences])
    place = {name: n for n, name in enumerate(order)}
    better = np.zeros((len(order), len(order)), bool)
    for (one, other), each, p in zip(pairs, differences, adjusted, strict=True):
        if p <= ALPHA and each.estimate:
            above, below = (one, other) if each.estimate > 0 else (other, one)
            better[place[above], place[below]] = True
    means = np.stack([_means(values[name]) for name in order], axis=1) if order else np.zeros((0, 0))
    means = means[~np.isnan(means).any(1)]
    return Separation(
        ranks=dict(zip(order, rank_intervals(better), strict=True)),
        beats={name: [other for other in order if better[place[name], place[other]]] for name in order},
        average_ranks=dict(zip(order, average_ranks(means), strict=False)),
        scenarios=len(means),
        resolution=resolution(differences),
        pairs={pair: (each, p) for pair, each, p in zip(pairs, differences, adjusted, strict=True)},
    )


def _means(values: Values) -> Values:
    """Mean over seeds [scenarios]; not a number where there is no run."""
    there = ~np.isnan(values)
    count = there.sum(1)
    sums = np.where(there, values, 0.0).sum(1)
    return np.where(count > 0, sums / np.maximum(count, 1), math.nan)
