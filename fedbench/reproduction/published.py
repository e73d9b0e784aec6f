"""Published values beside what our runs give."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scipy import stats

from fedbench.leaderboard.database import Row
from fedbench.scenarios.suite import Expected
from fedbench.scenarios.suite_file import DEGRADATION, ONSET, SECONDS, is_degradation, is_share

EVERYBODY = 0.99
"""The ER@K from which on a target is shown to all."""
NEAR = {"hr": 2.0, "er": 10.0, "degradation": 5.0, "ndcg_degradation": 5.0}
"""Points within which a mean agrees with a published value that has no tolerance of its own; other metrics as HR. Of what is
no share: a tenth of the published value."""


NOT_HERE = "not here"
"""Begins the verdict on a value that cannot be run here."""


@dataclass(frozen=True)
class Cell:
    """A published value and what our runs give.

    Attributes:
        published, mean, low, high: percent, or of a metric that is no share its own unit; low and high bound one new run
            with 95 % (None: fewer than two runs).
        n: runs with a score. verdict: what :func:`verdict` says, or without a score ``diverged``, ``without twin``,
            ``never`` (the epoch of an onset that no run had), ``not run``, or ``not here: ...``.
    """

    expected: Expected
    label: str
    published: float
    mean: float | None
    low: float | None
    high: float | None
    n: int
    verdict: str


def prediction_interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float] | None:
    """Bounds for one new run: ``mean +- t_(n-1) s sqrt(1 + 1/n)``; None for fewer than two values."""
    n = len(values)
    if n < 2:
        return None
    half = float(stats.t.ppf((1 + level) / 2, n - 1)) * statistics.stdev(values) * math.sqrt(1 + 1 / n)
    mean = statistics.fmean(values)
    return mean - half, mean + half


def verdict(expected: Expected, values: Sequence[float]) -> str:
    """Whether our runs, in percent, agree with a published value.

    With a band: when the mean lies in it. Otherwise when the published value lies within :data:`NEAR` of the mean, or
    within the value's own ``near`` where it has one. One that is farther off but in the 95 % prediction interval is not
    told apart: it may be one run of ours, which vary too much to say more.

    Returns:
        ``agrees``, ``agrees (band)``, ``not told apart`` or ``differs``.
    """
    mean, unit = statistics.fmean(values), unit_of(expected)
    published = unit * expected.value
    if expected.band is not None:
        inside = unit * expected.band[0] - 1e-9 <= mean <= unit * expected.band[1] + 1e-9
        return "agrees (band)" if inside else "differs"
    if expected.near is not None:
        near = unit * expected.near + 1e-9
    elif not is_share(expected.metric):
        near = published / 10
    else:
        name = expected.metric.rpartition("_")[0]
        near = NEAR.get(name, NEAR.get(name.partition("_")[0], NEAR["hr"]))
    if abs(mean - published) <= near:
        return "agrees"
    bounds = prediction_interval(values)
    return "not told apart" if bounds is not None and bounds[0] <= published <= bounds[1] else "differs"


def unit_of(expected: Expected) -> float:
    """What a metric is multiplied by to be shown: 100, percent, where it is a share."""
    return 100.0 if is_share(expected.metric) else 1.0


def cell_of(expected: Expected, rows: Sequence[Row], runs: Mapping[str, Sequence[Row]]) -> Cell:
    """A published value, compared.

    Args:
        expected: the value. rows: the runs that it is about. runs: all runs of each scenario, for their twins.
    """
    where = {key: value for key, value in expected.where.items() if not (key == "defense" and value == "none")}
    label = " ".join(str(value) for value in where.values() if not isinstance(value, dict | list))
    ended, unit = [row for row in rows if row["status"] == "ok"], unit_of(expected)
    values = [unit * value for row in ended if (value := _value(expected, row, runs)) is not None]
    if not values or (len(values) < len(ended) and expected.metric.endswith(ONSET)):
        state = "diverged" if any(row["status"] == "diverged" for row in rows) else "not run"
        if ended and (is_degradation(expected.metric) or expected.metric == SECONDS):
            state = "without twin"
        if ended and expected.metric.endswith(ONSET):
            state = f"never in {len(ended) - len(values)} of {len(ended)}"
        if expected.absent:
            state = f"{NOT_HERE}: {expected.absent}"
        return Cell(expected, label, unit * expected.value, None, None, None, 0, state)
    low, high = prediction_interval(values) or (None, None)
    return Cell(
        expected,
        label,
        unit * expected.value,
        statistics.fmean(values),
        low,
        high,
        len(values),
        verdict(expected, values),
    )


def _value(expected: Expected, row: Row, runs: Mapping[str, Sequence[Row]]) -> float | None:
    """What a run has of a published value.

    A degradation is relative to the run of the same seed without attack and defense; the seconds of a defense are those of a
    round beyond the undefended twin's.
    """
    name, _, k = expected.metric.rpartition("_")
    if expected.metric.endswith(ONSET):
        return _onset(name, row)
    if expected.metric == SECONDS:
        seconds = [_round_seconds(each) for each in (row, _twin(row, "undefended_id", runs))]
        return None if seconds[1] is None or seconds[0] is None else seconds[0] - seconds[1]
    if name not in DEGRADATION:
        return _statistic(expected, expected.metric, row)
    twin, metric = _twin(row, "baseline_id", runs), f"{DEGRADATION[name]}_{k}"
    attacked, clean = (None if each is None else _statistic(expected, metric, each) for each in (row, twin))
    return 1 - attacked / clean if attacked is not None and clean else None


def _twin(row: Row, which: str, runs: Mapping[str, Sequence[Row]]) -> Row | None:
    """The finished run of the same seed of a twin, ``"baseline_id"`` or ``"undefended_id"``."""
    twins = (each for each in runs.get(row[which], ()) if each["seed"] == row["seed"] and each["status"] == "ok")
    return next(twins, None)


def _round_seconds(row: Row | None) -> float | None:
    return row["seconds_train"] / row["rounds"] if row is not None and row["rounds"] else None


def _onset(metric: str, row: Row) -> float | None:
    """The first measured epoch, counted from the attack's start, in which a metric reaches :data:`EVERYBODY`."""
    start = json.loads(row["protocol_params"])["attack_start"]
    reached = [point["epoch"] for point in row["curve"] if (point[metric] or 0.0) >= EVERYBODY]
    return min(reached) - start + 1.0 if reached else None


def _statistic(expected: Expected, metric: str, row: Row) -> float | None:
    """The statistic of a run's metric that a published value is about."""
    epoch = row["best_epoch"] if expected.statistic == "best-validation" else None
    epoch = epoch if expected.at_epoch is None else expected.at_epoch
    if epoch is not None:
        return next((point[metric] for point in row["curve"] if point["epoch"] == epoch), None)
    if expected.statistic == "best-validation":
        return None
    if expected.statistic == "end":
        value: float | None = row[metric]
        return value
    points = [(point["epoch"], point[metric]) for point in row["curve"] if point[metric] is not None]
    if expected.statistic == "tail":
        points = [point for point in points if point[0] > 0.75 * row["epochs_planned"]]
        return statistics.fmean(value for _, value in points) if points else None
    return max((value for _, value in points), default=None)
