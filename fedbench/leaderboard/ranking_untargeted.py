"""Untargeted attacks ranked by the share of HR@K that they take, and that share for each dataset, model and ratio.

All numbers here are percent: of the clean twin's HR@K (NDCG@K) for losses, of users for HR@K itself.
"""

from __future__ import annotations

from dataclasses import dataclass

from fedbench.leaderboard.database import Database, Row
from fedbench.leaderboard.ranking import Estimate, load
from fedbench.leaderboard.ranking_attacks import RatioCell, Standing, attack_entries, by_cell, placed, ratio_groups
from fedbench.leaderboard.scenarios import scenario_estimate, scenario_mean, scenarios
from fedbench.leaderboard.separation import Ranking


@dataclass(frozen=True, kw_only=True)
class UntargetedAttackRow(Standing):
    """An attack that degrades.

    Attributes:
        loss: relative loss of HR@K, ``100 (1 - attacked / clean)`` against the clean twin of the same seed, where training
            is best on validation items (without any, at the end); over scenarios and seeds; it is ranked by the mean.
        ndcg_loss: likewise of NDCG@K. loss_end: of HR@K at the end of training. hr, clean_hr: what the loss is made of.
        unpaired: runs whose clean twin has no score.
    """

    loss: Estimate | None
    ndcg_loss: Estimate | None
    loss_end: float | None
    hr: float | None
    clean_hr: float | None
    unpaired: int


@dataclass(frozen=True, kw_only=True)
class UntargetedCellRow(RatioCell):
    """Relative loss of HR@K, and the HR@K that is left."""

    loss: Estimate
    hr: float


def rank_untargeted(database: Database, model: str | None = None) -> Ranking[UntargetedAttackRow]:
    """Untargeted attacks without a defense, best first; those that miss scenarios come last, without a rank.

    Compared are the scenarios that at least half of the attacks ran and that have clean twins. A run that diverged has
    earned nothing, 0 %, which counts in every mean and so in the order: a server that finds its model not to be finite
    knows that it is attacked, and goes back to one that is. (If it earned the whole HR@K, one upload that is too large
    would beat every method that degrades unseen.) A run below popularity has earned what it took: that is the aim.

    Args:
        database: the records. model: only this one; None: all.
    """
    entries = attack_entries(_undefended(database, model), _paired)
    found = []
    for entry, own in entries.rows.items():
        pairs = scenarios(row for row in own if _paired(row))
        found.append(
            UntargetedAttackRow(
                **entries.standing(entry),
                loss=scenario_estimate(pairs, "hr_loss"),
                ndcg_loss=scenario_estimate(pairs, "ndcg_loss"),
                loss_end=scenario_mean(pairs, "hr_loss_end"),
                hr=scenario_mean(pairs, "hr"),
                clean_hr=scenario_mean(pairs, "clean_hr"),
                unpaired=sum(row["status"] != "failed" and not _paired(row) for row in own),
            )
        )
    values = {
        entry: by_cell([row for row in own if _paired(row)], lambda row: 100 * row["hr_loss"])
        for entry, own in entries.rows.items()
    }
    return placed(found, {row.attack: row.loss.mean for row in found if row.loss is not None}, values)


def untargeted_cells(database: Database) -> list[UntargetedCellRow]:
    """Relative loss of HR@K by every untargeted attack for each dataset, model and ratio."""
    out = []
    for place, group in ratio_groups(_undefended(database), _paired):
        loss, hr = scenario_estimate(scenarios(group), "hr_loss"), scenario_mean(scenarios(group), "hr")
        assert loss is not None
        assert hr is not None
        out.append(UntargetedCellRow(**place, loss=loss, hr=hr))
    return out


def _undefended(database: Database, model: str | None = None) -> list[Row]:
    rows = load(database, "select * from untargeted_attacks where defense = 'none' order by run_id")
    return [row for row in rows if model is None or row["model"] == model]


def _paired(row: Row) -> bool:
    return row["hr_loss"] is not None
