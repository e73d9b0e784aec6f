"""Attacks on recommenders that look at images, ranked by exposure within equal bounds, and what their images look like.

All numbers here are percent (points for differences), but for what is said of the images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fedbench.leaderboard.database import Database, Row
from fedbench.leaderboard.ranking import Estimate, cell_of, hit_ratio, load, mean_of
from fedbench.leaderboard.ranking_attacks import (
    AttackRow,
    RatioCell,
    by_exposure,
    exposure,
    ratio_groups,
    shows,
)
from fedbench.leaderboard.scenarios import scenario_estimate, scenario_mean, scenarios
from fedbench.leaderboard.separation import Ranking


@dataclass(frozen=True, kw_only=True)
class VisualAttackRow(AttackRow):
    """An attack that promotes where images are read.

    Attributes:
        ndcg_loss: share of the clean twin's NDCG@20 that it takes, over the runs that ended well.
        change, psnr, cosine: of the images that it showed last, means over runs: max |delta| in steps of 8-bit pixels,
            PSNR in dB against the originals, cosine of the features; None of an attack that shows none.
    """

    ndcg_loss: Estimate | None
    change: float | None
    psnr: float | None
    cosine: float | None


@dataclass(frozen=True, kw_only=True)
class VisualCellRow(RatioCell):
    """Mean ER@K, HR@K and NDCG@20, within a bound of the images; ``eps`` is None of an attack that shows none."""

    eps: float | None
    er: Estimate
    hr: float | None
    ndcg: float | None


def rank_visual(database: Database, model: str | None = None, eps: float | None = None) -> Ranking[VisualAttackRow]:
    """Attacks without a defense, best first; as :func:`~.ranking_attacks.rank_attacks`, on models that read images.

    The bound of the images is part of a scenario, so that attacks are compared within equal ones. An attack that shows no
    image has none, and with it no rank beside those that do.

    Args:
        database: the records. model: only this one; None: all. eps: images within this bound only, beside attacks that
            show none, which then are compared, too; None: all bounds.
    """
    rows = [row for row in _undefended(database) if model is None or row["model"] == model]
    if eps is not None:
        # Within one bound it tells nothing apart, and an attack without images is the same in any.
        rows = [row | {"cell": cell_of(row)} for row in rows if row["eps"] in (None, eps)]
    return by_exposure(rows, _row)


def visual_bounds(database: Database) -> list[float]:
    """The bounds of images that attacks without a defense had, in order; none where all had the same one."""
    found = {row["eps"] for row in _undefended(database)}
    return sorted(found - {None}) if len(found) > 1 else []


def visual_cells(database: Database) -> list[VisualCellRow]:
    """ER@K and NDCG@20 of every attack for each dataset, model, ratio and bound."""
    out = []
    for place, group in ratio_groups(_undefended(database), shows, ("eps",)):
        ndcg = mean_of(100 * row["ndcg"] for row in group if row["status"] == "ok" and row["ndcg"] is not None)
        out.append(VisualCellRow(**place, er=exposure(group), hr=hit_ratio(group), ndcg=ndcg))
    return out


def _row(fields: dict[str, Any], scored: Sequence[Row]) -> VisualAttackRow:
    ran = scenarios(scored)
    return VisualAttackRow(
        **fields,
        ndcg_loss=scenario_estimate(ran, "ndcg_loss"),
        change=scenario_mean(ran, "image_change", 1),
        psnr=scenario_mean(ran, "image_psnr", 1),
        cosine=scenario_mean(ran, "image_cosine", 1),
    )


def _undefended(database: Database) -> list[Row]:
    return load(database, "select * from visual_attacks where defense = 'none' order by run_id")
