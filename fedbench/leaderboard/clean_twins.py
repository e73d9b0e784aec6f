"""What defenses cost without an attack: their clean twins beside the baseline."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from fedbench.leaderboard.database import Row
from fedbench.leaderboard.ranking import Cell, Estimate, clustered, grouped, mean_of
from fedbench.leaderboard.tracks import Track


def clean_losses(rows: Sequence[Row], column: str) -> dict[tuple[Cell, int], float]:
    """HR@K without attack and defense minus HR@K with the defense alone, in percent, by place and seed.

    Attacks, ratios and targets share their clean twins: each pair of clean runs counts once. A defense that is given the
    share of attackers has a clean twin for each share: they have the seed, and so the baseline, in common, and their mean
    is one value.
    """
    twins = {
        (row["clean"], row["seed"], row["clean_params"]): 100 * row[column] for row in rows if row[column] is not None
    }
    losses: dict[tuple[Cell, int], list[float]] = {}
    for (place, seed, _), loss in twins.items():
        losses.setdefault((place, seed), []).append(loss)
    return {key: statistics.fmean(own) for key, own in losses.items()}


def quality_loss(rows: Sequence[Row], column: str) -> Estimate | None:
    """:func:`clean_losses` over places and seeds, as ``column`` has them."""
    losses = clean_losses(rows, column)
    return clustered(losses) if losses else None


def mean_loss(rows: Sequence[Row], column: str) -> float | None:
    """The mean of :func:`quality_loss` alone."""
    return mean_of(statistics.fmean(own) for own in _by_place(rows, column))


def _by_place(rows: Sequence[Row], column: str) -> list[list[float]]:
    pairs = grouped(clean_losses(rows, column).items(), lambda pair: pair[0][0])
    return [[value for _, value in own] for own in pairs]


def unjudged(rows: Sequence[Row], track: Track) -> set[tuple[Cell, float | None]]:
    """The places of ``rows`` that lack a clean twin of one defense, and the share that it lacks there.

    A defense that is given the share of attackers (its clean twin states one, it does not) needs a twin for every
    malicious ratio; for another defense the share is None.
    """
    given = any(row["clean_params"] not in (None, row["defense_params"]) for row in rows)
    pairs = {(row["clean"], row["malicious_ratio"] if given else None, row[track.loss] is not None) for row in rows}
    return {(place, share) for place, share, _ in pairs} - {(place, share) for place, share, judged in pairs if judged}
