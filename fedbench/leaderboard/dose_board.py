"""The part of a board that is about doses: its tables, and the same as plain data."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any

from fedbench.leaderboard.database import Database
from fedbench.leaderboard.dose_curves import Curve, Point
from fedbench.leaderboard.doses import DoseEstimate
from fedbench.leaderboard.ranking import clustered
from fedbench.leaderboard.ranking_doses import DoseRow, Panel, PriceRow, dose_panels, rank_doses, rank_prices
from fedbench.leaderboard.sheets import Sheet
from fedbench.leaderboard.sheets_doses import overall_sheet, panel_sheet, price_sheet
from fedbench.texts import count

JUMP = 10.0
"""Points of ER@K: above, `fedbench run` asks for the dose between (:mod:`fedbench.runs.doses`)."""


def dose_sheets(database: Database) -> list[Sheet]:
    """All boards together where there are several, each board, and the defenses on each; empty without doses."""
    panels = dose_panels(database)
    overall = [overall_sheet(rank_doses(database), panels, database.k)] if len(panels) > 1 else []
    prices = rank_prices(database)
    names = list(dict.fromkeys(row.panel for row in prices))
    return [
        *overall,
        *(panel_sheet(panel, database.k) for panel in panels),
        *(price_sheet(name, [row for row in prices if row.panel == name], database.k) for name in names),
    ]


def dose_warnings(database: Database) -> list[str]:
    """Attacks that lack seeds of their board, or doses between which their exposure jumps."""
    out = []
    for panel in dose_panels(database):
        for row in panel.ranking:
            if row.lacking:
                seeds = ", ".join(map(str, row.lacking))
                out.append(f"{row.attack} lacks {count(len(row.lacking), 'seed')} ({seeds}) at doses on {panel.name}.")
            if row.curve is not None and (wide := [seed for seed in row.curve.seeds if _jumps(row.curve, seed)]):
                out.append(
                    f"{row.attack} lacks doses where its exposure jumps that others ran on {panel.name}:"
                    f" {'seed' if len(wide) == 1 else 'seeds'} {', '.join(map(str, wide))}."
                )
    return out


def _jumps(curve: Curve, seed: int) -> bool:
    """Whether there is a dose of the ladder between two neighbours of a seed's own that are more than :data:`JUMP` apart."""
    doses, exposures = curve.response(seed)
    steps = zip(itertools.pairwise(doses), itertools.pairwise(exposures), strict=True)
    return any(
        abs(above - below) > JUMP and any(low < clients / curve.users < high for clients in curve.ladder)
        for (low, high), (below, above) in steps
    )


def dose_data(database: Database) -> dict[str, Any]:
    """``doses`` and ``prices`` for the plain data of a board; empty without doses.

    Shares of clients are fractions, exposures percent.
    """
    panels = dose_panels(database)
    if not panels:
        return {}
    ladder = sorted({ratio for panel in panels for ratio, _ in panel.ladder})
    return {
        "doses": {"k": database.k, "ladder": ladder, "panels": [_panel(panel) for panel in panels]},
        "prices": [_price(row) for row in rank_prices(database)],
    }


def _panel(panel: Panel) -> dict[str, Any]:
    return {
        "name": panel.name,
        "dataset": panel.dataset,
        "model": panel.model,
        "users": panel.users,
        "ladder": [{"ratio": ratio, "clients": clients} for ratio, clients in panel.ladder],
        "told": panel.told,
        "far": panel.far,
        "apart": panel.apart,
        "pairs": panel.pairs,
        "curves": [_curve(row, row.curve) for row in panel.ranking if row.curve is not None],
    }


def _curve(row: DoseRow, curve: Curve) -> dict[str, Any]:
    filled = curve.filled()
    return {
        "attack": row.attack,
        "knowledge": row.knowledge,
        "rank": row.rank,
        "last_rank": row.last_rank,
        "beats": row.beats,
        "points": [_point(point, {seed: own[point.clients] for seed, own in filled.items()}) for point in curve.points],
        "half": _half(row.half),
        "area": {"mean": row.area.mean, "low": row.area.low, "high": row.area.high},
        "end": row.end,
        "peak": row.peak,
        "hr": row.hr,
        "seeds": curve.seeds,
        "lacking": list(row.lacking),
    }


def _point(point: Point, exposure: Mapping[int, float]) -> dict[str, Any]:
    found = clustered({"": exposure})
    return {
        "ratio": point.ratio,
        "clients": point.clients,
        "er": found.mean,
        "low": found.low,
        "high": found.high,
        "runs": list(point.runs),
    }


def _half(half: DoseEstimate | None) -> dict[str, Any] | None:
    if half is None:
        return None
    low, high = half.low, half.high
    return {
        "ratio": None if math.isinf(half.median.order) else half.median.share,
        "low": None if low is None or math.isinf(low.order) else low.share,
        "high": None if high is None or math.isinf(high.order) else high.share,
        "confidence": half.confidence,
        "text": str(half),
    }


def _price(row: PriceRow) -> dict[str, Any]:
    attack, factor = row.worst
    adaptive = row.worst_adaptive
    return {
        "panel": row.panel,
        "dataset": row.dataset,
        "model": row.model,
        "defense": row.defense,
        "factor": factor.value,
        "at_least": factor.bound == ">=",
        "text": f"x {factor}",
        "attack": attack,
        "adaptive": None
        if adaptive is None
        else {"attack": adaptive[0], "factor": adaptive[1].value, "text": f"x {adaptive[1]}"},
        "factors": {name: {"factor": value.value, "bound": value.bound} for name, value in row.factors.items()},
        "hr_loss": row.hr_loss,
        "runs": row.runs,
    }
