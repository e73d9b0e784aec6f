"""What defenses cost without an attack: their clean twins beside the baseline."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence

from fedbench.leaderboard.ranking import Cell, Estimate, clustered, mean_of
from fedbench.leaderboard.scenarios import Scenario
from fedbench.leaderboard.tracks import Track


def clean_losses(scenarios: Sequence[Scenario], column: str) -> dict[Cell, dict[int, float]]:
    """HR@K without attack and defense minus HR@K with the defense alone, in percent, by place and seed.

    Attacks, ratios and targets share their clean twins: each pair of clean runs counts once. A defense that is given the
    share of attackers has a clean twin for each share: they have the seed, and so the baseline, in common, and their mean
    is one value.
    """
    twins: dict[tuple[Cell, str | None], dict[int, float]] = {}
    for each in scenarios:
        if losses := each.values(column):
            twins.setdefault((each.clean, each.clean_params), {}).update(losses)
    places: dict[Cell, dict[int, list[float]]] = {}
    for (place, _), losses in twins.items():
        for seed, loss in losses.items():
            places.setdefault(place, {}).setdefault(seed, []).append(loss)
    return {place: {seed: statistics.fmean(own) for seed, own in seeds.items()} for place, seeds in places.items()}


def quality_loss(scenarios: Sequence[Scenario], column: str) -> Estimate | None:
    """:func:`clean_losses` over places and seeds, as ``column`` has them."""
    losses = clean_losses(scenarios, column)
    return clustered(losses) if losses else None


def mean_loss(scenarios: Sequence[Scenario], column: str) -> float | None:
    """The mean of :func:`quality_loss` alone."""
    return mean_of(statistics.fmean(own.values()) for own in clean_losses(scenarios, column).values())


def largest_mean_loss(scenarios: Sequence[Scenario], column: str) -> float | None:
    """The largest that :func:`mean_loss` becomes when any one seed is left out; itself where there is one seed."""
    places = clean_losses(scenarios, column).values()
    seeds = {seed for own in places for seed in own}
    if len(seeds) < 2:
        return mean_loss(scenarios, column)
    return max(_mean_without(places, seed) for seed in seeds)


def _mean_without(places: Iterable[Mapping[int, float]], seed: int) -> float:
    rest = [[loss for other, loss in own.items() if other != seed] for own in places]
    return statistics.fmean(statistics.fmean(own) for own in rest if own)


def unjudged(scenarios: Sequence[Scenario], track: Track) -> set[tuple[Cell, float | None]]:
    """The places of ``scenarios`` that lack a clean twin of one defense, and the share that it lacks there.

    A defense that is given the share of attackers (its clean twin states one, it does not) needs a twin for every
    malicious ratio; for another defense the share is None.
    """
    given = any(each.clean_params not in (None, each.first["defense_params"]) for each in scenarios)
    judged: dict[tuple[Cell, float | None], bool] = {}
    for each in scenarios:
        key = each.clean, each.first["malicious_ratio"] if given else None
        judged[key] = judged.get(key, False) or bool(each.values(track.loss))
    return {key for key, found in judged.items() if not found}
