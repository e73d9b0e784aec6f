"""How metrics went over the training of a group of scenarios."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fedbench.leaderboard.database import Row
from fedbench.leaderboard.ranking import Estimate, clustered, mean_of
from fedbench.scenarios.suite import Planned


@dataclass(frozen=True)
class Curve:
    """How ER@K and HR@K went over training, mean over the runs of a scenario (or of several targets).

    Attributes:
        label: what it is of. epochs: of the evaluations. er, hr: percent. end: interval over targets and seeds.
        peak, tail: means over runs. n, scenarios: how many. failed, diverged: runs without a score.
    """

    label: str
    dataset: str
    model: str
    attack: str
    epochs: list[int]
    er: list[float]
    hr: list[float | None]
    end: Estimate | None
    median: float | None
    peak: float | None
    tail: float | None
    n: int
    scenarios: int
    diverged: int
    failed: int


def curve_of(
    key: tuple[str, str, str, str, float, str], planned: Sequence[Planned], runs: Mapping[str, Sequence[Row]], k: int
) -> Curve:
    """The curve of scenarios that differ in their targets only.

    Args:
        key: variant, dataset, model, attack, malicious ratio and defense. planned: the scenarios. runs: those of each.
        k: length of the lists; HR is of 20 at most.
    """
    variant, dataset, model, attack, ratio, defense = key
    every = [[row for row in runs.get(p.scenario.id, []) if row["seed"] in p.seeds] for p in planned]
    scored = [[row for row in own if row["status"] == "ok" and row["curve"]] for own in every]
    scored = [own for own in scored if own]
    flat = [row for own in scored for row in own]
    exposed = [own for own in ([row for row in own if row["er"] is not None] for own in scored) if own]
    shown = [row for own in exposed for row in own]
    by_epoch: dict[int, list[tuple[float | None, float | None]]] = {}
    for row in flat:
        hr = f"hr_full_{min(k, 20)}" if row["ranking"] == "full" else f"hr_{min(k, 20)}"
        for point in row["curve"]:
            by_epoch.setdefault(point["epoch"], []).append((_times100(point[f"er_{k}"]), _times100(point[hr])))
    epochs = sorted(epoch for epoch, points in by_epoch.items() if len(points) == len(flat))
    ers, hrs = ([[pair[n] for pair in by_epoch[epoch]] for epoch in epochs] for n in (0, 1))
    name = " ".join(
        part
        for part in (variant, dataset, model, attack, f"{100 * ratio:g} %", "" if defense == "none" else defense)
        if part
    )
    return Curve(
        name,
        dataset,
        model,
        attack,
        epochs,
        [value for values in ers if (value := mean_of(values)) is not None],
        [mean_of(values) for values in hrs],
        clustered({own[0]["scenario_id"]: {row["seed"]: 100 * row["er"] for row in own} for own in exposed})
        if shown
        else None,
        statistics.median(100 * row["er"] for row in shown) if shown else None,
        mean_of(_times100(row["er_peak"]) for row in shown),
        mean_of(_times100(row["er_tail"]) for row in shown),
        len(flat),
        len(planned),
        sum(row["status"] == "diverged" for own in every for row in own),
        sum(row["status"] == "failed" for own in every for row in own),
    )


def _times100(value: float | None) -> float | None:
    return None if value is None else 100 * value
