"""Which runs are repeated, and what that tells of the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from itertools import combinations

import pytest

from fedbench.submission.draw import chance, drawn, repeat_within, told
from fedbench.submission.records import Row

ROWS: list[Row] = [{"run_id": f"{n:02d}-s0"} for n in range(12)]


@pytest.mark.parametrize(("runs", "repeated", "forged"), [(5, 2, 1), (6, 3, 2), (6, 5, 2), (4, 4, 1), (4, 0, 2)])
def test_the_chance_by_counting_all_draws(runs: int, repeated: int, forged: int) -> None:
    draws = list(combinations(range(runs), repeated))
    hit = sum(any(run < forged for run in draw) for draw in draws)
    assert chance(runs, repeated, forged) == Fraction(hit, len(draws))


def test_the_chance_in_words() -> None:
    assert chance(60, 3, 1) == Fraction(1, 20)
    assert told(60, 3) == "of forged runs, the draw would have hit 1 with 5.0 %, 3 with 14.4 %, 10 with 42.7 %"
    assert told(60, 60) == "all runs were repeated, so any forged run would have been found"
    assert "1 with 99.9 %, 3 with 100.0 %" in told(10_000, 9_999)  # rounded down: of 3, one is certain to be hit
    assert told(2, 1) == "of forged runs, the draw would have hit 1 with 50.0 %"


def test_forged_runs_are_drawn_as_often_as_stated() -> None:
    """3 of 12 runs forged, 4 repeated: in 2,000 draws as many hits as the chance says, within 4 standard deviations."""
    forged, p = {"00-s0", "05-s0", "11-s0"}, float(chance(12, 4, 3))
    hits = sum(any(row["run_id"] in forged for row in drawn(ROWS, seed)[0][:4]) for seed in range(2000))
    assert abs(hits - 2000 * p) < 4 * (2000 * p * (1 - p)) ** 0.5


def test_all_runs_are_drawn_alike_whatever_they_say_of_themselves() -> None:
    first = Counter(drawn(ROWS, seed)[0][0]["run_id"] for seed in range(1200))
    assert set(first) == {row["run_id"] for row in ROWS}
    assert 60 < min(first.values()) < max(first.values()) < 150
    told = [row | {"device": "cuda", "attack": "none", "seconds_total": 1e6} for row in ROWS]
    assert [row["run_id"] for row in drawn(told[::-1], 7)[0]] == [row["run_id"] for row in drawn(ROWS, 7)[0]]


def test_what_is_repeated_in_any_case_comes_first() -> None:
    order, sure = drawn(ROWS, 3, {"04-s0", "08-s0"})
    assert sure == 2
    assert [row["run_id"] for row in order[:2]] == ["04-s0", "08-s0"]
    assert sorted(row["run_id"] for row in order) == [row["run_id"] for row in ROWS]


class Clock:
    """Time passes by what is repeated, and nothing else."""

    def __init__(self, seconds: float, refuse_after: int = 1000) -> None:
        self.now, self.seconds, self.left = 0.0, seconds, refuse_after
        self.batches: list[int] = []
        self.said: list[tuple[int, float]] = []

    def repeat(self, rows: Sequence[Row]) -> bool:
        self.batches.append(len(rows))
        self.now += len(rows) * self.seconds
        self.left -= len(rows)
        return self.left > 0

    def run(self, budget: float, least: int = 0, jobs: int = 1) -> int:
        return repeat_within(
            ROWS, least, budget, jobs, self.repeat, lambda *told: self.said.append(told), lambda: self.now
        )


def test_all_runs_are_repeated_when_they_fit() -> None:
    clock = Clock(10)
    assert clock.run(120) == 12
    assert clock.said == [(12, 120.0)]
    assert sum(clock.batches) == 12


def test_else_as_many_as_fit_by_what_the_first_took_here() -> None:
    clock = Clock(10)
    assert clock.run(55) == 5
    assert clock.said == [(5, 50.0)]
    assert clock.now == 50
    assert Clock(10).run(1) == 1  # one at least


def test_what_must_be_repeated_is_whatever_it_takes() -> None:
    assert Clock(10).run(1, least=4) == 4
    assert Clock(10).run(1e9, least=4, jobs=5) == 12


def test_nothing_more_is_repeated_once_the_bundle_is_refused() -> None:
    clock = Clock(10, refuse_after=2)
    assert clock.run(1000) < 12
    assert clock.left <= 0
