"""Attacks that demote, ranked by the share of users who would have been shown a target and no longer are.

All numbers here are percent (points for differences).
"""

from __future__ import annotations

from dataclasses import dataclass

from fedbench.leaderboard.database import Database, Row
from fedbench.leaderboard.ranking import Estimate, hit_ratio, load
from fedbench.leaderboard.ranking_attacks import RatioCell, Standing, attack_entries, by_cell, placed, ratio_groups
from fedbench.leaderboard.scenarios import scenario_estimate, scenario_mean, scenarios
from fedbench.leaderboard.separation import Ranking


@dataclass(frozen=True, kw_only=True)
class DemotionAttackRow(Standing):
    """An attack that demotes.

    Attributes:
        dr: DR@K over scenarios and seeds, by whose mean it is ranked; 0 in a run that is broken. er, clean_er: ER@K of its
            runs, and of their clean twins. hr: HR@K under the attack, 0 in a run that diverged. hr_change: against the clean
            twin. All but ``hr`` are over the runs that have a DR@K.
        unpaired: runs without one: no clean twin says whom it shows the targets to, or it shows none to anybody.
    """

    dr: Estimate | None
    er: float | None
    clean_er: float | None
    hr: float | None
    hr_change: Estimate | None
    unpaired: int


@dataclass(frozen=True, kw_only=True)
class DemotionCellRow(RatioCell):
    """Mean DR@K, and mean HR@K where it was measured."""

    dr: Estimate
    hr: float | None


def rank_demotion(database: Database, model: str | None = None) -> Ranking[DemotionAttackRow]:
    """Attacks that demote without a defense, best first; those that miss scenarios come last, without a rank.

    Compared are the scenarios that at least half of the attacks ran and where the clean twins show the targets to somebody. A
    broken run counts as 0: who ruins a recommender demotes nothing.

    Args:
        database: the records. model: only this one; None: all.
    """
    entries = attack_entries(_undefended(database, model), _paired)
    found = []
    for entry, own in entries.rows.items():
        pairs = scenarios(row for row in own if _paired(row))
        ended = scenarios(row for row in own if _paired(row) and row["status"] == "ok")
        found.append(
            DemotionAttackRow(
                **entries.standing(entry),
                dr=scenario_estimate(pairs, "dr_earned"),
                er=scenario_mean(ended, "er"),
                clean_er=scenario_mean(pairs, "clean_er"),
                hr=hit_ratio(own),
                hr_change=scenario_estimate(ended, "hr_change"),
                unpaired=sum(row["status"] != "failed" and not _paired(row) for row in own),
            )
        )
    values = {
        entry: by_cell([row for row in own if _paired(row)], lambda row: 100 * row["dr_earned"])
        for entry, own in entries.rows.items()
    }
    return placed(found, {row.attack: row.dr.mean for row in found if row.dr is not None}, values)


def demotion_cells(database: Database) -> list[DemotionCellRow]:
    """DR@K by every attack that demotes for each dataset, model and ratio."""
    out = []
    for place, group in ratio_groups(_undefended(database), _paired):
        dr = scenario_estimate(scenarios(group), "dr_earned")
        assert dr is not None
        out.append(DemotionCellRow(**place, dr=dr, hr=hit_ratio(group)))
    return out


def _undefended(database: Database, model: str | None = None) -> list[Row]:
    rows = load(database, "select * from demotion_attacks where defense = 'none' order by run_id")
    return [row for row in rows if model is None or row["model"] == model]


def _paired(row: Row) -> bool:
    return row["dr_earned"] is not None
