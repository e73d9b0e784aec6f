"""Attacks ranked by exposure, and their exposure for each dataset, model and malicious ratio.

All numbers here are percent (points for differences).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from fedbench.leaderboard.database import Database, Row
from fedbench.leaderboard.ranking import (
    Cell,
    Estimate,
    cell_of,
    clustered,
    common,
    entry_names,
    grouped,
    mean_of,
    places,
    say,
)


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
    by_entry = {names[group[0]["run_id"]]: group for group in grouped(rows, lambda row: names[row["run_id"]])}
    knowledge = {entry: own[0]["knowledge"] for entry, own in by_entry.items()}
    cells = {entry: {cell_of(row) for row in own if row["status"] != "failed"} for entry, own in by_entry.items()}
    compared = common(cells)
    by_entry = {
        entry: [row for row in own if row["status"] == "failed" or cell_of(row) in compared]
        for entry, own in by_entry.items()
    }
    first = _first_places(by_entry, compared)
    found = []
    for entry, own in by_entry.items():
        scored = [row for row in own if row["status"] == "ok" and row["er"] is not None]
        by_cell = grouped(scored, cell_of)
        changes = grouped([row for row in scored if row["hr_change"] is not None], cell_of)
        found.append(
            AttackRow(
                entry,
                knowledge[entry] or "none",
                None,
                clustered([[100 * row["er"] for row in group] for group in by_cell]) if by_cell else None,
                mean_of(mean_of(100 * row["er_peak"] for row in group) for group in by_cell),
                mean_of(
                    mean_of(100 * row["er_tail"] for row in group if row["er_tail"] is not None) for group in by_cell
                ),
                clustered([[100 * row["hr_change"] for row in group] for group in changes]) if changes else None,
                first[entry],
                [row["run_id"] for row in own],
                len(cells[entry] & compared),
                sum(row["status"] == "diverged" for row in own),
                sum(row["status"] == "failed" for row in own),
                sorted({say(cell) for cell in compared - cells[entry]}),
                len(cells[entry] - compared),
            )
        )
    order = {row.attack: _with_diverged(by_entry[row.attack]) for row in found}
    found.sort(key=lambda row: (bool(row.missing), -order[row.attack], row.attack))
    ranks = places({row.attack: order[row.attack] for row in found if not row.missing})
    return [replace(row, rank=ranks.get(row.attack)) for row in found]


def attack_cells(database: Database, defense: str = "none") -> list[CellRow]:
    """ER@K and HR@K of every attack for each dataset, model and ratio."""
    rows = database.rows("select * from attacks where defense = ? order by run_id", [defense])
    names = entry_names(rows)
    scored = [row for row in rows if row["status"] == "ok" and row["er"] is not None]
    out = []
    for group in grouped(scored, lambda r: (r["dataset"], r["model"], r["malicious_ratio"], names[r["run_id"]])):
        one = group[0]
        values = clustered([[100 * row["er"] for row in cell] for cell in grouped(group, cell_of)])
        hr = mean_of(100 * row["hr"] for row in group)
        assert hr is not None
        runs = [row["run_id"] for row in group]
        place = (one["dataset"], one["model"], one["malicious_ratio"], names[one["run_id"]])
        out.append(CellRow(*place, values, hr, runs))
    return out


def _first_places(by_entry: Mapping[str, Sequence[Row]], compared: Iterable[Cell]) -> Counter[str]:
    """In how many (dataset, model) pairs each entry has the highest mean, of those with all the pair's scenarios."""
    first: Counter[str] = Counter()
    for cells in map(set, grouped(compared, lambda cell: cell[:2])):
        means = {}
        for entry, own in by_entry.items():
            rows = [row for row in own if row["status"] != "failed" and cell_of(row) in cells]
            if {cell_of(row) for row in rows} == cells:
                means[entry] = _with_diverged(rows)
        first.update(entry for entry, mean in means.items() if mean == max(means.values()) > 0)
    return first


def _with_diverged(rows: Sequence[Row]) -> float:
    """Mean over scenarios of the mean ER@K, where a scenario without any score counts as 0."""
    groups = grouped([row for row in rows if row["status"] != "failed"], cell_of)
    means = [mean_of(row["er"] for row in group if row["status"] == "ok" and row["er"] is not None) for group in groups]
    return math.fsum(mean or 0.0 for mean in means) / max(len(means), 1)
