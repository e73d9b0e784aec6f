"""What all rankings share: scenarios that can be compared, names of entries, means with intervals, places.

All numbers here are percent (points for differences).
"""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from operator import itemgetter
from typing import Any, TypeVar

import numpy as np
from scipy import special

from fedbench.leaderboard.database import Database, Row
from fedbench.leaderboard.paired import ByScenario, aligned, spread

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
    """A mean with its 95 % interval; the interval is None where one seed says nothing of the spread. n: number of seeds."""

    mean: float
    low: float | None
    high: float | None
    n: int


def clustered(values: ByScenario) -> Estimate:
    """Mean over scenarios of the mean over seeds, with a 95 % t interval for other seeds on these scenarios.

    The seeds are the units, as in the tests (:func:`~fedbench.leaderboard.paired.spread`). How often it covers the mean, in
    real runs: ``leaderboard/null/README.md``.
    """
    array = aligned({"": values})[""]
    mean = math.fsum(np.nanmean(array, axis=1)) / len(array)
    found, count = spread([array]), array.shape[1]
    if found is None:
        return Estimate(mean, None, None, count)
    half = float(special.stdtrit(found[1], 0.975)) * found[0]
    return Estimate(mean, mean - half, mean + half, count)


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
        rows, cells = database.rows(query), dict[str, dict[str, Cell]]()
        for row in rows:
            scenario = row["scenario_id"]
            if scenario not in cells:
                bounded = row | {"target": f"{row['target']}, {within(row)}"} if within(row) else row
                cells[scenario] = {name: cell_of(bounded, columns) for name, columns in _CELLS.items()}
            row |= cells[scenario]
        return rows

    return database.kept(query, rows_with_cells)


def within(row: Row) -> str:
    """The bound of the images that a run's attack shows, as ``eps 4``; empty where there is none."""
    eps = row.get("eps")
    return "" if eps is None else f"eps {eps:g}"


def hit_ratio(rows: Iterable[Row]) -> float | None:
    """Mean HR@K in percent over scenarios of the mean over seeds, of all runs that have a result: none is left to one that
    diverged.
    """
    by_cell: dict[Cell, list[float]] = defaultdict(list)
    for row in rows:
        value = 0.0 if row["status"] == "diverged" else row["hr"]
        if value is not None and row["status"] != "failed":
            by_cell[row["facing"]].append(100 * value)
    return mean_of(map(mean_of, by_cell.values()))


def unverified(rows: Sequence[Row], kind: str) -> bool:
    """Whether an entry does not come with fedbench, and ran in process: there its code could have reached the results.

    Args:
        rows: the runs of one entry. kind: ``"attack"`` or ``"defense"``.
    """
    if all(row["isolation"] != "none" for row in rows):
        return False  # null: of a schema before isolation, which no bundle can have
    from fedbench.plugins import KINDS, taken_by  # it imports torch, which nothing else here needs

    (known,) = (each for each in KINDS if each == kind)
    return not all(taken_by(known, part) for part in str(rows[0][kind]).split("+"))


def cell_of(row: Row, columns: tuple[str, ...] = CELL) -> Cell:
    """The values of ``columns``, to compare rows by."""
    cell: Cell = itemgetter(*columns)(row)
    return cell


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


def lacking_seeds(ran: Mapping[str, Mapping[Cell, set[int]]], words: Callable[[Cell], str]) -> dict[str, list[str]]:
    """The seeds that each entry lacks in its own cells, of those that at least half of the entries of the cell ran there.

    Args:
        ran: the seeds of every entry in each of its cells. words: a cell for people.

    Returns:
        Of every entry, ``seeds 1, 2 of`` each such cell, sorted.
    """
    having: dict[Cell, list[set[int]]] = defaultdict(list)
    for own in ran.values():
        for cell, seeds in own.items():
            having[cell].append(seeds)
    usual = {
        cell: {seed for seed, count in Counter(chain.from_iterable(sets)).items() if 2 * count >= len(sets)}
        for cell, sets in having.items()
    }
    return {
        name: sorted(
            f"{'seed' if len(lacks) == 1 else 'seeds'} {', '.join(map(str, sorted(lacks)))} of {words(cell)}"
            for cell, seeds in own.items()
            if (lacks := usual[cell] - seeds)
        )
        for name, own in ran.items()
    }


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
    found: set[Cell] = set(map(itemgetter(kind, params, "dataset", "model", "protocol"), rows))
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
