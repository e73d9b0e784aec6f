"""Attacks ranked by exposure, and their exposure for each dataset, model and malicious ratio.

All numbers here are percent (points for differences).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from fedbench.entries.cards import Goal
from fedbench.leaderboard.database import Database, Row
from fedbench.leaderboard.dose_curves import without_doses
from fedbench.leaderboard.paired import ByScenario, aligned, paired_difference
from fedbench.leaderboard.ranking import (
    Cell,
    Estimate,
    clustered,
    common,
    entry_names,
    grouped,
    hit_ratio,
    lacking_seeds,
    load,
    mean_of,
    say,
    unverified,
)
from fedbench.leaderboard.separation import Ranking, separate

S = TypeVar("S", bound="Standing")
A = TypeVar("A", bound="AttackRow")


@dataclass(frozen=True, kw_only=True)
class Standing:
    """What every attack on the leaderboard has, in either track.

    Attributes:
        rank, last_rank: the first and the last that its runs leave open, see
            :func:`~fedbench.leaderboard.paired.rank_intervals`; None when a scenario of the comparison is missing.
        beats: how many attacks it is significantly better than. average_rank: over scenarios. Both are None without a
            rank. runs: ids behind the numbers.
        scenarios: how many of the comparison. diverged, failed: runs that did not end well. broken: runs that diverged, or
            whose HR@10 at the end fell below that of recommending by popularity. refused: uploads of its runs that were
            refused. warned: runs that carry a warning. unverified: it does not come with fedbench and has runs in process,
            so that it has no rank.
        missing: scenarios of the comparison that it lacks. apart: how many it has beyond the comparison. lacking: seeds
            that it lacks in its scenarios of the comparison, of those that at least half of the attacks there ran.
    """

    attack: str
    knowledge: str
    rank: int | None = None
    last_rank: int | None = None
    beats: int | None = None
    average_rank: float | None = None
    runs: list[str]
    scenarios: int
    diverged: int
    failed: int
    broken: int
    refused: int
    warned: int
    unverified: bool
    missing: list[str]
    apart: int
    lacking: list[str]


@dataclass(frozen=True, kw_only=True)
class AttackRow(Standing):
    """An attack that promotes.

    Attributes:
        er: ER@K over scenarios and seeds, by whose mean it is ranked; 0 in a run that is broken. hr: HR@K under the attack,
            0 in a run that diverged. peak, tail: mean ER@K at its highest, and over the last quarter of training, of the runs
            that are not broken. hr_change: against the clean twin, of the runs that ended well.
        unpaired: runs that ended well and have no clean twin, so that they have no part in ``hr_change``.
        first: in how many (dataset, model) pairs it has all scenarios and no other attack that has them a higher mean.
    """

    er: Estimate | None
    hr: float | None
    peak: float | None
    tail: float | None
    hr_change: Estimate | None
    unpaired: int
    first: int


@dataclass(frozen=True, kw_only=True)
class RatioCell:
    """One attack on one dataset, model and malicious ratio, and the runs behind its numbers."""

    dataset: str
    model: str
    malicious_ratio: float
    attack: str
    runs: list[str]


@dataclass(frozen=True, kw_only=True)
class CellRow(RatioCell):
    """Mean ER@K, and mean HR@K where it was measured."""

    er: Estimate
    hr: float | None


@dataclass(frozen=True)
class Entries:
    """The attacks of a table, and what they are compared on.

    Attributes:
        rows: runs of each attack, by its name; of those that have a result, only the ones that are compared.
        cells: scenarios of which each has a result. compared: those that at least half of the attacks have.
        knowledge: what each attack knows. lacking: seeds that each lacks, see
            :func:`~fedbench.leaderboard.ranking.lacking_seeds`.
    """

    rows: dict[str, list[Row]]
    cells: dict[str, set[Cell]]
    compared: set[Cell]
    knowledge: dict[str, str]
    lacking: dict[str, list[str]]

    def standing(self, name: str) -> dict[str, Any]:
        """The fields of :class:`Standing` but for the rank."""
        own, cells = self.rows[name], self.cells[name]
        return {
            "attack": name,
            "knowledge": self.knowledge[name] or "none",
            "runs": [row["run_id"] for row in own],
            "scenarios": len(cells & self.compared),
            "diverged": sum(row["status"] == "diverged" for row in own),
            "failed": sum(row["status"] == "failed" for row in own),
            "broken": sum(row["broken"] for row in own),
            "refused": sum(row["refused_uploads"] or 0 for row in own),
            "warned": sum(bool(row["warnings"]) for row in own),
            "unverified": unverified(own, "attack"),
            "missing": sorted({say(cell) for cell in self.compared - cells}),
            "apart": len(cells - self.compared),
            "lacking": self.lacking[name],
        }


def attack_entries(rows: Sequence[Row], counts: Callable[[Row], bool]) -> Entries:
    """Runs by attack, and the scenarios that at least half of the attacks ran.

    Args:
        rows: of one of the views of attacks. counts: whether a run is a result for its scenario.
    """
    names = entry_names(rows)
    by_entry = {_name(group[0], names): group for group in grouped(rows, lambda row: _name(row, names))}
    cells = {entry: {row["cell"] for row in own if counts(row)} for entry, own in by_entry.items()}
    compared = common(cells)
    kept = {
        entry: [row for row in own if not counts(row) or row["cell"] in compared] for entry, own in by_entry.items()
    }
    ran = {
        entry: {
            group[0]["cell"]: {row["seed"] for row in group}
            for group in grouped([row for row in own if counts(row) and row["cell"] in compared], _cell)
        }
        for entry, own in by_entry.items()
    }
    knowledge = {entry: own[0]["knowledge"] for entry, own in by_entry.items()}
    return Entries(kept, cells, compared, knowledge, lacking_seeds(ran, say))


def _cell(row: Row) -> Cell:
    cell: Cell = row["cell"]
    return cell


def _name(row: Row, names: Mapping[Cell, str]) -> str:
    return names[row["attack"], row["attack_params"]]


def placed(rows: Iterable[S], scores: Mapping[str, float], values: Mapping[str, ByScenario]) -> Ranking[S]:
    """Attacks with their ranks, the highest score first; those that lack a scenario or a score come last, without one.

    Args:
        rows, scores: of the attacks, by name. values: percent of each in every scenario and seed.
    """
    found = sorted(
        rows,
        key=lambda row: (not _ranked(row, scores), -scores.get(row.attack, -math.inf), row.attack),
    )
    ranked = [row.attack for row in found if _ranked(row, scores)]
    arrays = aligned({name: values[name] for name in ranked})
    told = separate(
        {name: scores[name] for name in ranked},
        lambda one, other: paired_difference(arrays[one], arrays[other]),
        arrays,
    )
    return Ranking([replace(row, **told.standing(row.attack)) for row in found], told)


def _ranked(row: Standing, scores: Mapping[str, float]) -> bool:
    return row.attack in scores and not row.missing and not row.unverified


def rank_attacks(database: Database, defense: str = "none", model: str | None = None) -> Ranking[AttackRow]:
    """Attacks under ``defense``, best first; those that miss scenarios come last, without a rank.

    Compared are the scenarios that at least half of the attacks ran: all that have a rank have it from the same ones,
    and what few attacks ran (a dataset of their own) neither helps nor harms. The order is by the mean over scenarios of
    the mean over seeds, in which a broken run counts as no exposure: who ruins a recommender promotes nothing.

    Args:
        database: the records. defense: under which the attacks are compared. model: only this one; None: all.
    """
    rows = [
        row
        for row in _rows(database, defense)
        if row["attack_goal"] == Goal.PROMOTE and (model is None or row["model"] == model)
    ]
    return by_exposure(rows, lambda fields, _: AttackRow(**fields))


def by_exposure(rows: Sequence[Row], make: Callable[[dict[str, Any], Sequence[Row]], A]) -> Ranking[A]:
    """Attacks by exposure, as :func:`rank_attacks` says.

    Args:
        rows: attacked runs that are compared. make: a row of the table, of the fields of :class:`AttackRow` and of the
            attack's runs that have a score.
    """
    entries = attack_entries(rows, lambda row: row["status"] != "failed")
    first = _first_places(entries.rows, entries.compared)
    found = []
    for entry, own in entries.rows.items():
        scored = [row for row in own if row["status"] == "ok" and row["er"] is not None]
        whole = grouped([row for row in scored if not row["broken"]], _cell)
        changes = by_cell([row for row in scored if row["hr_change"] is not None], lambda row: 100 * row["hr_change"])
        fields = {
            **entries.standing(entry),
            "er": _estimate(own),
            "hr": hit_ratio(own),
            "peak": mean_of(mean_of(100 * row["er_peak"] for row in group) for group in whole),
            "tail": mean_of(
                mean_of(100 * row["er_tail"] for row in group if row["er_tail"] is not None) for group in whole
            ),
            "hr_change": clustered(changes) if changes else None,
            "unpaired": sum(row["clean_hr"] is None for row in scored),
            "first": first[entry],
        }
        found.append(make(fields, scored))
    scores = {entry: _mean(own) for entry, own in entries.rows.items() if entries.cells[entry]}
    return placed(found, scores, {entry: _exposures(own) for entry, own in entries.rows.items()})


def attack_cells(database: Database, defense: str = "none") -> list[CellRow]:
    """ER@K and HR@K of every attack that promotes, for each dataset, model and ratio."""
    rows = [row for row in _rows(database, defense) if row["attack_goal"] == Goal.PROMOTE]
    out = []
    for place, group in ratio_groups(rows, shows):
        values = exposure(group)
        out.append(CellRow(**place, er=values, hr=hit_ratio(group)))
    return out


def exposure(rows: Sequence[Row]) -> Estimate:
    """Mean ER@K in percent over scenarios and seeds; each run counts, one without a score, and a broken one, as 0."""
    return clustered(by_cell(rows, _exposure))


def _rows(database: Database, defense: str) -> list[Row]:
    undefended = without_doses(database, load(database, "select * from attacks where defense = 'none' order by run_id"))
    if defense == "none":
        return undefended
    defended = load(database, "select * from attacks where defense <> 'none' order by run_id")
    return [row for row in defended if row["defense"] == defense]


def ratio_groups(
    rows: Sequence[Row], counts: Callable[[Row], bool], more: tuple[str, ...] = ()
) -> list[tuple[dict[str, Any], list[Row]]]:
    """The runs of each attack on each dataset, model and ratio that have a result, after the fields of :class:`RatioCell`.

    Args:
        rows: of a view of attacks. counts: whether a run is a result. more: columns that part the cells further.
    """
    names = entry_names(rows)
    place = ("dataset", "model", "malicious_ratio", *more)
    groups = grouped(
        [row for row in rows if counts(row)], lambda row: (*(row[key] for key in place), _name(row, names))
    )
    return [
        (
            {key: own[0][key] for key in place}
            | {"attack": _name(own[0], names), "runs": [row["run_id"] for row in own]},
            own,
        )
        for own in groups
    ]


def _first_places(by_entry: Mapping[str, Sequence[Row]], compared: Iterable[Cell]) -> Counter[str]:
    """In how many (dataset, model) pairs each entry has the highest mean, of those with all the pair's scenarios."""
    first: Counter[str] = Counter()
    for cells in map(set, grouped(compared, lambda cell: cell[:2])):
        means = {}
        for entry, own in by_entry.items():
            rows = [row for row in own if row["status"] != "failed" and row["cell"] in cells]
            if {row["cell"] for row in rows} == cells:
                means[entry] = _mean(rows)
        first.update(entry for entry, mean in means.items() if mean == max(means.values()) > 0)
    return first


def shows(row: Row) -> bool:
    """Whether a run says how much an attack exposes: one that diverged does, too."""
    return row["status"] == "diverged" or (row["status"] == "ok" and row["er"] is not None)


def _exposure(row: Row) -> float:
    """ER@K in percent; 0 of a run without a score, and of a broken one."""
    return 100 * row["er_earned"] if row["status"] == "ok" and row["er_earned"] is not None else 0.0


def by_cell(rows: Iterable[Row], value: Callable[[Row], float]) -> dict[Cell, dict[int, float]]:
    """What ``value`` says of each run, by scenario and seed."""
    out: dict[Cell, dict[int, float]] = {}
    for row in rows:
        out.setdefault(row["cell"], {})[row["seed"]] = value(row)
    return out


def _exposures(rows: Sequence[Row]) -> dict[Cell, dict[int, float]]:
    """ER@K in percent by scenario and seed, of the runs that did not fail."""
    return by_cell([row for row in rows if row["status"] != "failed"], _exposure)


def _mean(rows: Sequence[Row]) -> float:
    """Mean over scenarios of the mean ER@K, 0 without any."""
    return mean_of(mean_of(own.values()) for own in _exposures(rows).values()) or 0.0


def _estimate(rows: Sequence[Row]) -> Estimate | None:
    """As :func:`_mean`, with an interval; None where no run says anything."""
    return clustered(_exposures(rows)) if any(map(shows, rows)) else None
