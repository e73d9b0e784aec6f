"""Rankings with intervals: attacks by exposure, defenses by what they prevent and what they cost.

All numbers here are percent (points for differences).
"""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np
from scipy import stats

from fedbench.leaderboard.database import Database, Row

T = TypeVar("T")

CELL = (
    "dataset", "model", "protocol", "malicious_ratio", "target", "num_targets", "defense_params", "split",
    "protocol_params", "model_params",
)  # fmt: skip
"""What must be equal for attacks to be comparable."""
CLEAN_CELL = ("dataset", "model", "protocol", "defense_params", "split", "protocol_params", "model_params")
"""What decides HR@K without an attack: the target does not."""


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
    half = float(stats.t.ppf((1 + level) / 2, n - 1)) * s / math.sqrt(n)
    return Estimate(mean, mean - half, mean + half, n)


def clustered(groups: Sequence[Sequence[float]], resamples: int = 2000) -> Estimate:
    """Mean over scenarios of the mean over seeds, with a 95 % interval over both.

    One scenario: the t interval over its seeds. Several: the percentile interval of a hierarchical bootstrap, which draws
    scenarios with replacement and, for each draw, seeds of that scenario with replacement (fixed stream, so that equal
    records give equal intervals).

    Args:
        groups: the values of each scenario's seeds. resamples: of the bootstrap.
    """
    if len(groups) == 1:
        return interval(groups[0])
    mean = math.fsum(math.fsum(group) / len(group) for group in groups) / len(groups)
    rng = np.random.default_rng(0)
    count = len(groups)
    means = np.empty((count, resamples))
    for row, group in zip(means, groups, strict=True):
        values = np.asarray(group)
        row[:] = values[rng.integers(0, len(values), (resamples, len(values)))].mean(1)
    drawn = means[rng.integers(0, count, (resamples, count)), rng.integers(0, resamples, (resamples, count))].mean(1)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Estimate(mean, float(low), float(high), count)


@dataclass(frozen=True)
class AttackRow:
    """An attack on the leaderboard.

    Attributes:
        rank: place by mean ER@K, None when a scenario of the comparison is missing. er: over scenarios and seeds.
        peak, tail: mean ER@K at its highest, and over the last quarter of training. hr_change: against the clean twin.
        first: in how many (dataset, model) pairs it has all scenarios and no other attack that has them a higher mean.
        runs: ids behind the numbers. scenarios: how many of the comparison. diverged, failed: runs without a score.
        missing: scenarios of the comparison that it lacks. apart: how many it has beyond the comparison.
    """

    attack: str
    knowledge: str
    rank: int | None
    er: Estimate | None
    peak: float | None
    tail: float | None
    hr_change: Estimate | None
    first: int
    runs: list[str]
    scenarios: int
    diverged: int
    failed: int
    missing: list[str] = field(default_factory=list)
    apart: int = 0


@dataclass(frozen=True)
class CellRow:
    """Mean ER@K and HR@K of one attack on one dataset, model and malicious ratio, and the runs behind them."""

    dataset: str
    model: str
    malicious_ratio: float
    attack: str
    er: Estimate
    hr: float
    runs: list[str]


@dataclass(frozen=True)
class DefenseRow:
    """A defense on the leaderboard.

    Attributes:
        reduction: ER@K of the undefended twin minus its own. loss: HR@K without any attack and defense minus HR@K with
            the defense alone. net: reduction minus loss. worst: the attack that keeps the highest mean ER@K, and that ER@K.
    """

    defense: str
    reduction: Estimate
    loss: Estimate | None
    net: float | None
    er: float
    worst: tuple[str, float]
    runs: list[str]
    scenarios: int
    diverged: int
    failed: int
    unpaired: int


def rank_attacks(database: Database, defense: str = "none", model: str | None = None) -> list[AttackRow]:
    """Attacks under ``defense``, best first; those that miss scenarios come last, without a rank.

    Compared are the scenarios that at least half of the attacks ran: all that have a rank have it from the same ones,
    and what few attacks ran (a dataset of their own) neither helps nor harms. The order is by the mean over scenarios,
    in which a scenario that only diverged counts as no exposure: a broken model shows nobody anything. The mean that is
    shown is over the runs that have a score.

    Args:
        database: the records. defense: under which the attacks are compared. model: only this one; None: all.
    """
    query = "select * from attacks where defense = ? and attack_goal = 'promote'"
    rows = database.rows(query + " and (? is null or model = ?) order by run_id", [defense, model, model])
    names = entry_names(rows)
    by_entry = {names[group[0]["run_id"]]: group for group in _grouped(rows, lambda row: names[row["run_id"]])}
    knowledge = {entry: own[0]["knowledge"] for entry, own in by_entry.items()}
    cells = {entry: {_cell(row) for row in own if row["status"] != "failed"} for entry, own in by_entry.items()}
    ran = Counter(cell for own in cells.values() for cell in own)
    compared = {cell for cell, attacks in ran.items() if 2 * attacks >= len(cells)}
    by_entry = {
        entry: [row for row in own if row["status"] == "failed" or _cell(row) in compared]
        for entry, own in by_entry.items()
    }
    first = _first_places(by_entry, compared)
    found = []
    for entry, own in by_entry.items():
        scored = [row for row in own if row["status"] == "ok" and row["er"] is not None]
        by_cell = _grouped(scored, _cell)
        changes = _grouped([row for row in scored if row["hr_change"] is not None], _cell)
        found.append(
            AttackRow(
                entry,
                knowledge[entry] or "none",
                None,
                clustered([[100 * row["er"] for row in group] for group in by_cell]) if by_cell else None,
                _mean(_mean(100 * row["er_peak"] for row in group) for group in by_cell),
                _mean(_mean(100 * row["er_tail"] for row in group if row["er_tail"] is not None) for group in by_cell),
                clustered([[100 * row["hr_change"] for row in group] for group in changes]) if changes else None,
                first[entry],
                [row["run_id"] for row in own],
                len(cells[entry] & compared),
                sum(row["status"] == "diverged" for row in own),
                sum(row["status"] == "failed" for row in own),
                sorted({_say(cell) for cell in compared - cells[entry]}),
                len(cells[entry] - compared),
            )
        )
    order = {row.attack: _with_diverged(by_entry[row.attack]) for row in found}
    found.sort(key=lambda row: (bool(row.missing), -order[row.attack], row.attack))
    places = {
        row.attack: 1 + sum(order[other.attack] > order[row.attack] for other in found if not other.missing)
        for row in found
        if not row.missing
    }
    return [replace(row, rank=places.get(row.attack)) for row in found]


def attack_cells(database: Database, defense: str = "none") -> list[CellRow]:
    """ER@K and HR@K of every attack for each dataset, model and ratio."""
    rows = database.rows("select * from attacks where defense = ? order by run_id", [defense])
    names = entry_names(rows)
    scored = [row for row in rows if row["status"] == "ok" and row["er"] is not None]
    out = []
    for group in _grouped(scored, lambda r: (r["dataset"], r["model"], r["malicious_ratio"], names[r["run_id"]])):
        one = group[0]
        values = clustered([[100 * row["er"] for row in cell] for cell in _grouped(group, _cell)])
        hr = _mean(100 * row["hr"] for row in group)
        assert hr is not None
        runs = [row["run_id"] for row in group]
        place = (one["dataset"], one["model"], one["malicious_ratio"], names[one["run_id"]])
        out.append(CellRow(*place, values, hr, runs))
    return out


def rank_defenses(database: Database) -> list[DefenseRow]:
    """Defenses by ER@K reduction minus HR@K loss, best first."""
    rows = database.rows("select * from defenses order by run_id")
    names = entry_names(rows, "defense")
    found = []
    for own in _grouped(rows, lambda row: names[row["run_id"]]):
        paired = [row for row in own if row["status"] == "ok" and row["er_reduction"] is not None]
        if not paired:
            continue
        by_cell = _grouped(paired, lambda row: (row["attack"], row["attack_params"], *_cell(row)))
        reduction = clustered([[100 * row["er_reduction"] for row in group] for group in by_cell])
        # Attacks, ratios and targets share their clean twins: each pair of clean runs counts once.
        losses = {(_cell(row, CLEAN_CELL), row["seed"]): row["hr_loss"] for row in own if row["hr_loss"] is not None}
        by_clean = _grouped(list(losses.items()), lambda item: item[0][0])
        loss = clustered([[100 * value for _, value in group] for group in by_clean]) if by_clean else None
        by_attack = {
            group[0]["attack"]: _mean(100 * r["er_defended"] for r in group) or 0.0
            for group in _grouped(paired, lambda row: row["attack"])
        }
        worst = max(by_attack.items(), key=lambda item: item[1])
        found.append(
            DefenseRow(
                names[own[0]["run_id"]],
                reduction,
                loss,
                None if loss is None else reduction.mean - loss.mean,
                _mean(100 * row["er_defended"] for row in paired) or 0.0,
                worst,
                [row["run_id"] for row in own],
                len({row["scenario_id"] for row in own}),
                sum(row["status"] == "diverged" for row in own),
                sum(row["status"] == "failed" for row in own),
                sum(row["status"] == "ok" for row in own) - len(paired),
            )
        )
    return sorted(found, key=lambda row: -(row.net if row.net is not None else row.reduction.mean))


def entry_names(rows: Sequence[Row], kind: str = "attack") -> dict[str, str]:
    """Name on the leaderboard of each run id: the attack (or defense), with parameters that differ on one dataset and model.

    Args:
        rows: of the view ``attacks`` or ``defenses``. kind: ``"attack"`` or ``"defense"``.
    """
    names = {}
    for own in _grouped(rows, lambda row: row[kind]):
        parsed = {row["run_id"]: _flat(json.loads(row[f"{kind}_params"])) for row in own}
        varying: set[str] = set()
        for group in _grouped(own, lambda row: (row["dataset"], row["model"], row["protocol"])):
            values = [parsed[row["run_id"]] for row in group]
            keys = {key for each in values for key in each}
            varying |= {key for key in keys if len({json.dumps(each.get(key)) for each in values}) > 1}
        for run, each in parsed.items():
            extra = ", ".join(f"{key}={each.get(key)}" for key in sorted(varying))
            names[run] = f"{own[0][kind]} ({extra})" if extra else own[0][kind]
    return names


def _flat(params: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters by name; those of a chain's parts, when there are several, by ``part.name``."""
    if len(params) == 1 and isinstance(next(iter(params.values())), dict):
        return dict(next(iter(params.values())))
    out: dict[str, Any] = {}
    for name, value in params.items():
        out |= {f"{name}.{key}": each for key, each in value.items()} if isinstance(value, dict) else {name: value}
    return out


def _grouped(rows: Iterable[T], key: Callable[[T], Hashable]) -> list[list[T]]:
    groups: dict[Hashable, list[T]] = defaultdict(list)
    for row in rows:
        groups[key(row)].append(row)
    return list(groups.values())


def _cell(row: Row, columns: Iterable[str] = CELL) -> tuple[object, ...]:
    return tuple(row[column] for column in columns)


def _say(cell: tuple[object, ...]) -> str:
    dataset, model, protocol, ratio, target, count, *_ = cell
    return f"{dataset} {model} {protocol} {ratio:g} {target}" + (f" x{count}" if count not in (None, 1) else "")


def _first_places(by_entry: Mapping[str, Sequence[Row]], compared: Iterable[tuple[object, ...]]) -> Counter[str]:
    """In how many (dataset, model) pairs each entry has the highest mean, of those with all the pair's scenarios."""
    first: Counter[str] = Counter()
    for cells in map(set, _grouped(compared, lambda cell: cell[:2])):
        means = {}
        for entry, own in by_entry.items():
            rows = [row for row in own if row["status"] != "failed" and _cell(row) in cells]
            if {_cell(row) for row in rows} == cells:
                means[entry] = _with_diverged(rows)
        first.update(entry for entry, mean in means.items() if mean == max(means.values()) > 0)
    return first


def _mean(values: Iterable[float | None]) -> float | None:
    there = [value for value in values if value is not None]
    return math.fsum(there) / len(there) if there else None


def _with_diverged(rows: Sequence[Row]) -> float:
    """Mean over scenarios of the mean ER@K, where a scenario without any score counts as 0."""
    groups = _grouped([row for row in rows if row["status"] != "failed"], _cell)
    means = [_mean(row["er"] for row in group if row["status"] == "ok" and row["er"] is not None) for group in groups]
    return math.fsum(mean or 0.0 for mean in means) / max(len(means), 1)
