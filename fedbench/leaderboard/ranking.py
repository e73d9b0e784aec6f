"""What all rankings share: scenarios that can be compared, names of entries, means with intervals, places.

All numbers here are percent (points for differences).
"""

from __future__ import annotations

import functools
import json
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from statistics import NormalDist
from typing import Any, TypeVar

import numpy as np
from scipy import stats

from fedbench.leaderboard.database import Database, Row

T = TypeVar("T")
Cell = tuple[object, ...]

PLACE = (
    "dataset", "model", "protocol", "malicious_ratio", "target", "num_targets", "split", "protocol_params", "model_params",
)  # fmt: skip
"""What must be equal for attacks and defenses to be comparable."""
CELL = (*PLACE, "defense_params")
"""What must be equal for attacks to be comparable under one defense."""
CLEAN_PLACE = ("dataset", "model", "protocol", "split", "protocol_params", "model_params")
"""What decides HR@K without an attack: the target does not."""

FACING = ("attack", "attack_params", *PLACE)
"""A scenario that defenses can be compared on: an attack in a place."""
_CELLS = {"cell": CELL, "clean": CLEAN_PLACE, "facing": FACING}


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95 % interval; the interval is None where one value says nothing of the spread."""

    mean: float
    low: float | None
    high: float | None
    n: int


def interval(values: Sequence[float], level: float = 0.95) -> Estimate:
    """Mean and t interval ``mean +- t_(n-1) s / sqrt(n)`` of independent values."""
    n = len(values)
    mean = math.fsum(values) / n
    if n < 2:
        return Estimate(mean, None, None, n)
    s = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    half = _t_quantile((1 + level) / 2, n - 1) * s / math.sqrt(n)
    return Estimate(mean, mean - half, mean + half, n)


def clustered(groups: Sequence[Sequence[float]], resamples: int = 2000) -> Estimate:
    """Mean over scenarios of the mean over seeds, with a 95 % interval over both.

    One scenario: the t interval over its seeds. Several: the interval of a hierarchical bootstrap, which draws scenarios
    with replacement and, for each draw, seeds of that scenario with replacement (fixed stream, so that equal records give
    equal intervals). The distances of its 2.5 and 97.5 percentiles from the mean are multiplied by
    ``t_(S-1) sqrt(S / (S - 1)) / z`` with the 97.5 % quantiles of t and the normal distribution: the percentiles alone
    know neither that the spread of ``S`` scenarios is estimated nor that drawn ones vary by ``(S - 1) / S`` too little
    (Hesterberg, "What teachers should know about the bootstrap", The American Statistician 69, 2015, who
    takes wider percentiles to the same end; of two scenarios there are none).

    Measured with normal scenarios and seeds, 400 simulations of each of six cases (1 or 3 seeds; the spread of scenarios
    30, 2 or 1/2 times that of seeds): 2 scenarios are covered in 92 to 100 % (by the percentiles alone in 48 to 83 %), 3
    and 4 in 93 to 100 % (72 to 91), 6 in 92 to 98 % (82 to 94), 12 in 93 to 98 % (89 to 96), 30 in 94 to 97 %.

    Args:
        groups: the values of each scenario's seeds. resamples: of the bootstrap.
    """
    if len(groups) == 1:
        return interval(groups[0])
    mean = math.fsum(math.fsum(group) / len(group) for group in groups) / len(groups)
    rng = np.random.default_rng(0)
    count = len(groups)
    # Of many scenarios, each is drawn a few times only: a store of fewer means will do.
    stored = max(100, min(resamples, 2 * resamples // count))
    means = np.empty((count, stored))
    for size in sorted({len(group) for group in groups}):
        same = [n for n, group in enumerate(groups) if len(group) == size]
        values = np.array([groups[n] for n in same])
        picked = rng.integers(0, size, (len(same), stored * size))
        means[same] = np.take_along_axis(values, picked, 1).reshape(len(same), stored, size).mean(2)
    drawn = means.ravel()[rng.integers(0, means.size, (resamples, count))].mean(1)
    low, high = np.percentile(drawn, [2.5, 97.5])
    wider = _t_quantile(0.975, count - 1) / NormalDist().inv_cdf(0.975) * math.sqrt(count / (count - 1))
    return Estimate(mean, mean - wider * (mean - float(low)), mean + wider * (float(high) - mean), count)


@functools.cache
def _t_quantile(level: float, df: int) -> float:
    return float(stats.t.ppf(level, df))


def mean_of(values: Iterable[float | None]) -> float | None:
    """The mean of what is not None; None when there is nothing."""
    there = [value for value in values if value is not None]
    return math.fsum(there) / len(there) if there else None


def grouped(rows: Iterable[T], key: Callable[[T], Hashable]) -> list[list[T]]:
    """Rows of equal key together, in the order of first occurrence."""
    groups: dict[Hashable, list[T]] = defaultdict(list)
    for row in rows:
        groups[key(row)].append(row)
    return list(groups.values())


def load(database: Database, query: str) -> list[Row]:
    """The rows of a query on one of the views, which is asked once.

    Beside its columns they have the cells that they are compared by: ``cell`` (:data:`CELL`), ``clean``
    (:data:`CLEAN_PLACE`) and ``facing`` (:data:`FACING`). In the visual track the bound of an attack's images is part of a
    cell: it stands with the target. They are shared: not to be changed.
    """

    def rows_with_cells() -> list[Row]:
        rows, same = database.rows(query), dict[Cell, Cell]()
        bounded = [row | {"target": f"{row['target']}, {within(row)}"} if within(row) else row for row in rows]
        for name, columns in _CELLS.items():
            for row, cell in zip(rows, map(itemgetter(*columns), bounded), strict=True):
                row[name] = same.setdefault(cell, cell)
        return rows

    return database.kept(query, rows_with_cells)


def within(row: Row) -> str:
    """The bound of the images that a run's attack shows, as ``eps 4``; empty where there is none."""
    eps = row.get("eps")
    return "" if eps is None else f"eps {eps:g}"


def cell_of(row: Row, columns: tuple[str, ...] = CELL) -> Cell:
    """The values of ``columns``, to compare rows by."""
    return tuple(row[column] for column in columns)


def say(cell: Cell) -> str:
    """A cell of :data:`CELL` or :data:`PLACE` for people."""
    dataset, model, protocol, ratio, target, count, *_ = cell
    place = f"{dataset} {model} {protocol} {ratio:g}"
    if target == "none":
        return place
    return f"{place} {target}" + (f" x{count}" if count not in (None, 1) else "")


def common(ran: Mapping[str, set[Cell]]) -> set[Cell]:
    """The cells that at least half of the entries ran.

    All that have a rank have it from the same cells, and what few entries ran neither helps nor harms.

    Args:
        ran: the cells of every entry.
    """
    count = Counter(cell for own in ran.values() for cell in own)
    return {cell for cell, entries in count.items() if 2 * entries >= len(ran)}


def lacking_seeds(ran: Mapping[str, set[tuple[Cell, int]]], words: Callable[[Cell], str]) -> dict[str, list[str]]:
    """The seeds that each entry lacks in its own cells, of those that at least half of the entries of the cell ran there.

    Args:
        ran: cells and seeds of every entry. words: a cell for people.

    Returns:
        Of every entry, ``seeds 1, 2 of`` each such cell, sorted.
    """
    entries = Counter(cell for own in ran.values() for cell in {cell for cell, _ in own})
    count = Counter(run for own in ran.values() for run in own)
    usual = {run for run, having in count.items() if 2 * having >= entries[run[0]]}
    out: dict[str, list[str]] = {}
    for name, own in ran.items():
        cells = {cell for cell, _ in own}
        lacks = grouped(sorted(run for run in usual - own if run[0] in cells), itemgetter(0))
        out[name] = sorted(
            f"{'seed' if len(each) == 1 else 'seeds'} {', '.join(str(seed) for _, seed in each)} of {words(each[0][0])}"
            for each in lacks
        )
    return out


def entry_names(rows: Sequence[Row], kind: str = "attack") -> dict[Cell, str]:
    """Names on the leaderboard: the attack (or defense), with parameters that differ on one dataset and model.

    A parameter that is left to the method (null) is not named.

    Args:
        rows: of the view ``attacks`` or ``defenses``. kind: ``"attack"`` or ``"defense"``.

    Returns:
        The name of each (``kind``, ``kind_params``) of the rows.
    """
    names: dict[Cell, str] = {}
    params = f"{kind}_params"
    found = {cell_of(row, (kind, params, "dataset", "model", "protocol")) for row in rows}
    for own in grouped(found, lambda each: each[0]):
        parsed = {each[1]: _flat(json.loads(str(each[1]))) for each in own}
        varying: set[str] = set()
        for group in grouped(own, lambda each: each[2:]):
            values = [parsed[each[1]] for each in group]
            keys = {key for value in values for key in value}
            varying |= {key for key in keys if len({json.dumps(value.get(key)) for value in values}) > 1}
        entry = str(own[0][0])
        for text, value in parsed.items():
            extra = ", ".join(f"{key}={value[key]}" for key in sorted(varying) if value.get(key) is not None)
            names[entry, text] = f"{entry} ({extra})" if extra else entry
    return names


def _flat(params: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters by name; those of a chain's parts, when there are several, by ``part.name``."""
    if len(params) == 1 and isinstance(next(iter(params.values())), dict):
        return dict(next(iter(params.values())))
    out: dict[str, Any] = {}
    for name, value in params.items():
        out |= {f"{name}.{key}": each for key, each in value.items()} if isinstance(value, dict) else {name: value}
    return out
