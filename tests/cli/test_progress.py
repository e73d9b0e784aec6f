"""The time that a suite still needs."""

from __future__ import annotations

import pytest

from fedbench.cli.progress import TimeLeft
from fedbench.runs.execution import Outcome, Plan, Run
from fedbench.scenarios.scenario import Scenario

RUNS = [Run(Scenario("longtail-small", "mf"), seed) for seed in range(6)]
"""The first four have records of their kind, the last two have none."""


def left(ended: list[tuple[int, str, float]], jobs: int = 1) -> str:
    """What is told after some of the runs, each expected to take 10 seconds where that is known."""
    seconds = {run: 10.0 if run.seed < 4 else None for run in RUNS}
    time_left = TimeLeft(Plan(RUNS, [], {}, seconds), jobs)
    for seed, status, took in ended:
        time_left.finished(RUNS[seed], Outcome(status, None, took, {}))
    return str(time_left)


@pytest.mark.parametrize(
    ("ended", "jobs", "told"),
    [
        ([], 1, "time left unknown"),
        ([(0, "failed", 0.1)], 1, "time left unknown"),
        # Three of 10 s and two like those that ended.
        ([(0, "ok", 10.0)], 1, "about 50.0 s left"),
        # Three times slower than expected, and so is the rest.
        ([(0, "ok", 40.0), (1, "ok", 20.0), (5, "ok", 6.0)], 1, "about 1 min 22 s left"),
        ([(0, "ok", 40.0), (1, "ok", 20.0), (5, "ok", 6.0)], 2, "about 41.0 s left"),
        ([(4, "ok", 30.0), (5, "ok", 50.0)], 1, "about 40.0 s left"),
    ],
    ids=["nothing", "a failure", "as expected", "slower", "two at a time", "unknown kinds"],
)
def test_the_rest_follows_the_runs_that_ended(ended: list[tuple[int, str, float]], jobs: int, told: str) -> None:
    assert left(ended, jobs) == told
