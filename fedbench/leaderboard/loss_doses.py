"""How many malicious clients take a tenth, and half, of HR@K: untargeted attacks that ran at several doses."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fedbench.leaderboard.database import Database, Row
from fedbench.leaderboard.dose_curves import LEAST_DOSES, PANEL, common_ladder, panel_names
from fedbench.leaderboard.doses import (
    Dose,
    DoseEstimate,
    half_exposure,
    logarithms,
    mean_bound,
    median_dose,
    response_at,
)
from fedbench.leaderboard.paired import ByScenario
from fedbench.leaderboard.ranking import Estimate, cell_of, clustered, grouped, load
from fedbench.leaderboard.ranking_attacks import Standing, attack_entries, placed
from fedbench.leaderboard.separation import Ranking

TENTH, HALF = 10.0, 50.0
"""Percent of HR@K that are lost."""


@dataclass(frozen=True, kw_only=True)
class LossDoseRow(Standing):
    """An untargeted attack at several doses on one panel.

    Attributes:
        tenth, half: the dose that takes a tenth, or half, of the clean twin's HR@K; the median over seeds.
        mean_dose: geometric mean over seeds of the doses that take a tenth, a bound counting as the dose that it names: by it
            attacks are ranked and compared. bound: whether it is more or less (:func:`~.doses.mean_bound`).
        loss: relative loss of HR@K in percent, mean over the doses of the ladder. seeds: those that have its both ends.
    """

    tenth: DoseEstimate
    half: DoseEstimate
    mean_dose: float
    bound: str
    loss: Estimate
    seeds: list[int]


@dataclass(frozen=True)
class LossPanel:
    """The untargeted attacks on one dataset and model, without a defense.

    Attributes:
        name: ``ml-1m mf``. users: of the dataset. ladder: (share of malicious clients as asked for, clients).
        ranking: of the attacks.
    """

    name: str
    users: int
    ladder: Sequence[tuple[float, int]]
    ranking: Ranking[LossDoseRow]


def loss_panels(database: Database) -> list[LossPanel]:
    """Every dataset and model on which at least half of the untargeted attacks ran at :data:`LEAST_DOSES` doses or more."""
    found = load(database, "select * from untargeted_attacks where defense = 'none' order by run_id")
    rows = [row for row in found if row["hr_loss"] is not None]
    groups = [
        [row for row in own if row["num_malicious"] in ladder]
        for own in grouped(rows, lambda row: cell_of(row, PANEL))
        if len(ladder := common_ladder(own)) >= LEAST_DOSES
    ]
    names = panel_names([cell_of(own[0], PANEL) for own in groups])
    return sorted((_panel(name, own) for name, own in zip(names, groups, strict=True)), key=lambda panel: panel.name)


def _panel(name: str, rows: Sequence[Row]) -> LossPanel:
    asked = {row["num_malicious"]: row["malicious_ratio"] for row in rows}
    ladder = sorted(asked)
    return LossPanel(
        name, rows[0]["num_users"], [(asked[clients], clients) for clients in ladder], _ranking(rows, ladder)
    )


def _ranking(rows: Sequence[Row], ladder: Sequence[int]) -> Ranking[LossDoseRow]:
    entries = attack_entries(rows, lambda row: True)
    found, scores, values = [], {}, dict[str, ByScenario]()
    for name, own in entries.rows.items():
        curves = _curves(own, ladder)
        if not curves:
            continue
        users = own[0]["num_users"]
        tenth = {seed: _dose(curve, users, TENTH) for seed, curve in curves.items()}
        logs = logarithms(tenth)
        found.append(
            LossDoseRow(
                **entries.standing(name),
                tenth=median_dose(list(tenth.values())),
                half=median_dose([_dose(curve, users, HALF) for curve in curves.values()]),
                mean_dose=10 ** statistics.fmean(logs.values()),
                bound=mean_bound(tenth.values()),
                loss=clustered({name: {seed: _mean_loss(curve, ladder) for seed, curve in curves.items()}}),
                seeds=sorted(curves),
            )
        )
        scores[name] = -math.log10(found[-1].mean_dose)
        values[name] = {"": {seed: -value for seed, value in logs.items()}}
    return placed(found, scores, values)


def _curves(rows: Sequence[Row], ladder: Sequence[int]) -> dict[int, dict[int, float]]:
    """By seed: clients -> loss of HR@K in percent, of the seeds that have both ends of the ladder."""
    found: dict[int, dict[int, float]] = {}
    for row in sorted(rows, key=lambda row: row["num_malicious"]):
        found.setdefault(row["seed"], {})[row["num_malicious"]] = 100 * row["hr_loss"]
    return {seed: curve for seed, curve in found.items() if {ladder[0], ladder[-1]} <= set(curve)}


def _dose(curve: Mapping[int, float], users: int, level: float) -> Dose:
    return half_exposure([clients / users for clients in curve], list(curve.values()), level)


def _mean_loss(curve: Mapping[int, float], ladder: Sequence[int]) -> float:
    """Mean over the ladder; a dose that was not run has what the isotonic response says between its neighbours."""
    guessed = response_at(list(curve), list(curve.values()), ladder)
    return statistics.fmean(curve.get(clients, float(guess)) for clients, guess in zip(ladder, guessed, strict=True))
