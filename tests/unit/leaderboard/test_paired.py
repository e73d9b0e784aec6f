from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from fedbench.leaderboard.paired import (
    Difference,
    Values,
    aligned,
    average_ranks,
    contrast,
    holm,
    paired_difference,
    rank_intervals,
    resolution,
)
from fedbench.leaderboard.separation import Separation, separate

NAN = math.nan


def array(*rows: list[float]) -> Values:
    return np.array(rows, float)


def known(difference: Difference) -> tuple[float, float, float, float]:
    """Estimate, standard error, degrees of freedom and p of a pair that can be tested."""
    values = (difference.estimate, difference.se, difference.df, difference.p)
    assert all(value is not None for value in values)
    return values  # type: ignore[return-value]


def test_one_scenario_is_the_paired_t_test() -> None:
    a, b = array([3.0, 5.0, 9.0, 4.0]), array([1.0, 6.0, 5.0, 2.0])
    ours, scipy = paired_difference(a, b), stats.ttest_rel(a[0], b[0])
    low, high = scipy.confidence_interval(0.95)
    assert (ours.estimate, ours.df) == (1.75, 3)
    assert ours.p == pytest.approx(scipy.pvalue)
    assert (ours.low, ours.high) == (pytest.approx(low), pytest.approx(high))
    assert (ours.scenarios, ours.runs) == (1, 4)


def test_several_scenarios_are_strata() -> None:
    """Differences 1, 3 and 10, 14, 18: means 2 and 14, variances 2 and 16, of the means 1 and 16/3, quartered 1/4 and 4/3."""
    estimate, se, df, p = known(contrast([array([1, 3, NAN], [10, 14, 18])]))
    assert estimate == 8
    assert se == pytest.approx(math.sqrt(1 / 4 + 4 / 3))
    assert df == pytest.approx((1 / 4 + 4 / 3) ** 2 / (1 / 16 / 1 + 16 / 9 / 2))
    assert p == pytest.approx(2 * stats.t.sf(8 / se, df))


def test_scenarios_of_equal_spread_have_all_degrees_of_freedom() -> None:
    estimate, se, df, _ = known(contrast([array([-1, 0, 1], [4, 5, 6], [9, 10, 11], [-11, -10, -9])]))
    assert (estimate, se, df) == (1.25, pytest.approx(math.sqrt(4 / 3) / 4), pytest.approx(8))


def test_two_parts_add_their_variances_as_in_the_test_of_welch() -> None:
    a, b = array([1.0, 4.0, 4.0]), array([3.0, 8.0, 1.0, 2.0])
    ours, scipy = contrast([a, -b]), stats.ttest_ind(a[0], b[0], equal_var=False)
    estimate, _, df, p = known(ours)
    assert (estimate, df, p) == (pytest.approx(-0.5), pytest.approx(scipy.df), pytest.approx(scipy.pvalue))
    assert (ours.scenarios, ours.runs) == (2, 7)


def test_a_scenario_with_one_seed_does_not_count_beside_others_with_several() -> None:
    several = array([0, 2, NAN], [-3, 0, 3])
    with_one = contrast([array([0, 2, NAN], [-3, 0, 3], [NAN, 60, NAN])])
    assert with_one == replace(contrast([several]), lone=1)
    assert (with_one.estimate, with_one.scenarios, with_one.runs) == (0.5, 2, 5)
    both = contrast([several, array([5, NAN, NAN], [7, NAN, NAN])])
    assert (both.scenarios, both.lone) == (4, 0), "each part by itself"


def test_a_loud_scenario_with_one_seed_borrows_no_calm() -> None:
    """Equal entries: a scenario with noise of 1 and three seeds, and one with noise of 10 and a single seed."""
    rng = np.random.default_rng(5)
    quiet, loud = rng.normal(0, 1, (400, 3)), rng.normal(0, 10, 400)
    found = sum(
        (contrast([array(list(one), [other, NAN, NAN])]).p or 1) <= 0.05 for one, other in zip(quiet, loud, strict=True)
    )
    assert found <= 32, "5 % of 400 and three standard deviations"


def test_without_two_seeds_anywhere_the_scenarios_are_the_units() -> None:
    a, b = array([3, NAN], [NAN, 5], [9, NAN]), array([1, 7], [4, 6], [5, NAN])
    ours, scipy = paired_difference(a, b), stats.ttest_rel([3, 5, 9], [1, 6, 5])
    assert (ours.df, ours.p) == (2, pytest.approx(scipy.pvalue))
    assert (ours.scenarios, ours.runs) == (3, 3)
    alone = paired_difference(array([3.0]), array([1.0]))
    assert (alone.estimate, alone.se, alone.p, alone.low) == (2, None, None, None)
    nothing = paired_difference(array([3, NAN]), array([NAN, 1]))
    assert (nothing.estimate, nothing.p, nothing.runs) == (None, None, 0)


def test_only_what_both_have_counts() -> None:
    a, b = array([1, 2, 3, 100], [NAN, NAN, NAN, 50]), array([0, 3, 1, NAN], [9, 9, 9, NAN])
    assert paired_difference(a, b) == paired_difference(a[:1, :3], b[:1, :3])


def test_without_variation_the_runs_are_coins() -> None:
    same = array([50, 50, 50], [0.1 + 0.2, 0.3, 0.3])
    ours = paired_difference(same, array([50, 50, 50], [0.3, 0.3, 0.3]))
    assert (ours.estimate, ours.p, ours.low, ours.high) == (0, 1, 0, 0)
    saturated = paired_difference(array([100] * 3, [100] * 3, [0] * 3), np.zeros((3, 3)))
    assert saturated.estimate == pytest.approx(200 / 3)
    assert saturated.p == 2.0**-4, "two scenarios differ; each has two seeds that agree with the first"
    assert contrast([array([5], [5], [5])]).p == 2.0**-2, "scenarios as units: two that agree with the first"
    assert contrast([array([1, 1], [-1, -1])]).p == 1
    assert contrast([array([3, NAN], [0, 0])]).p == 1, "the seeds that could vary say nothing of the one that differs"


@pytest.mark.parametrize("noise", [1e-6, 1e-2, 0.5])
def test_what_varies_a_little_makes_no_proof_of_saturated_runs(noise: float) -> None:
    """Two scenarios that agree in three seeds are four coins, and one that varies is two more at the most."""
    jitter = [noise, -noise, noise / 2]
    two = contrast([array([100] * 3, [100] * 3, jitter)])
    assert two.p == pytest.approx(2.0**-6)
    assert contrast([array([100] * 3, jitter)]).p == pytest.approx(2.0**-4)
    estimate, se, df, p = known(two)
    assert 2 * stats.t.sf(estimate / se, df) == pytest.approx(p), "p, standard error and interval say the same"
    calm = contrast([array([0] * 3, jitter)])
    assert calm.p == pytest.approx(contrast([array(jitter)]).p), "where both are at 0, nothing is saturated"
    parts = contrast([array(jitter), array([20], [20], [20])])
    assert parts.p == pytest.approx(2.0**-4), "three scenarios as units agree, too"


def test_equal_attacks_with_saturated_and_quiet_scenarios_share_a_rank() -> None:
    """Ten equal entries: two scenarios in which each seed is at 0 or 100 %, and one near 0 with noise of 0.1."""
    rng = np.random.default_rng(1)
    apart = 0
    for _ in range(40):
        draw = np.concatenate([100.0 * (rng.random((10, 2, 3)) < 0.5), np.abs(rng.normal(0, 0.1, (10, 1, 3)))], axis=1)
        apart += any(told({str(n): each for n, each in enumerate(draw)}).beats.values())
    assert apart <= 4


def test_the_degrees_of_freedom_are_those_of_the_scenarios_that_vary() -> None:
    _, _, df, _ = known(contrast([array([1, 2, 4], [0, 0, 0], [7, 7, 7])]))
    assert df == 2


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.4]) == pytest.approx([0.8, 0.8])
    assert holm([0.9, 0.8, 0.7]) == [1, 1, 1]
    assert holm([]) == []


def matrix(count: int, better: list[tuple[int, int]]) -> np.ndarray[tuple[int, int], np.dtype[np.bool_]]:
    out = np.zeros((count, count), bool)
    for one, other in better:
        out[one, other] = True
    return out


def test_ranks_run_from_those_above_to_those_below() -> None:
    assert rank_intervals(matrix(3, [])) == [(1, 3), (1, 3), (1, 3)]
    assert rank_intervals(matrix(3, [(0, 1), (0, 2), (1, 2)])) == [(1, 1), (2, 2), (3, 3)]
    assert rank_intervals(matrix(3, [(0, 2), (1, 2)])) == [(1, 2), (1, 2), (3, 3)]
    assert rank_intervals(matrix(3, [(0, 2)])) == [(1, 2), (1, 3), (2, 3)], "a chain"
    assert rank_intervals(matrix(4, [(0, 1), (0, 2), (0, 3), (1, 3), (2, 3)])) == [(1, 1), (2, 3), (2, 3), (4, 4)]
    assert rank_intervals(matrix(0, [])) == []


def test_two_that_are_not_told_apart_share_ranks() -> None:
    """For every consistent table of four: an entry that is better than another is so than all that are worse than that."""
    pairs, tables = [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)], 0
    for chosen in itertools.product([False, True], repeat=len(pairs)):
        better = [pair for pair, on in zip(pairs, chosen, strict=True) if on]
        if any((i, k) not in better for i, j in better for other, k in better if other == j):
            continue
        tables += 1
        ranks = rank_intervals(matrix(4, better))
        for i, j in pairs:
            overlap = ranks[i][0] <= ranks[j][1] and ranks[j][0] <= ranks[i][1]
            assert overlap or (i, j) in better
            assert (i, j) not in better or (ranks[i][0] < ranks[j][0] and ranks[i][1] < ranks[j][1])
    assert tables == 40


def test_the_resolution_is_what_a_typical_pair_needs() -> None:
    pairs = [contrast([array([-1, 0, 1]) * size]) for size in (1, 2, 4)]
    level, power = stats.t.ppf(1 - 0.05 / 3 / 2, 2), stats.t.ppf(0.8, 2)
    assert resolution(pairs) == pytest.approx((level + power) * 2 / math.sqrt(3))
    assert resolution([*pairs[:1], contrast([array([1, 1])]), contrast([array([1])])]) == pytest.approx(
        (level + power) / math.sqrt(3)
    ), "pairs without variation do not count but as tests"
    assert resolution([]) is None


def test_a_difference_of_the_resolution_is_found_in_about_80_of_100() -> None:
    rng = np.random.default_rng(4)
    noise = rng.normal(0, 1, (300, 12, 3))
    level = 0.05 / 10
    need = float(np.median([(stats.t.ppf(1 - level / 2, 24) + stats.t.ppf(0.8, 24)) / math.sqrt(36)]))
    typical = resolution([contrast([each]) for each in noise[:10]])
    assert typical == pytest.approx(need, rel=0.25)
    found = sum((contrast([each + need]).p or 1) <= level for each in noise)
    assert 220 <= found <= 270


def test_average_ranks_by_hand() -> None:
    """Ranks 1 2 3, 2 1 3, 1.5 1.5 3 and 1 3 2; with Friedman's statistic corrected for the tie of two."""
    means = array([9, 5, 1], [5, 9, 1], [7, 7, 1], [9, 1, 5])
    ranks, p, _ = average_ranks(means)
    assert ranks == [5.5 / 4, 7.5 / 4, 11 / 4]
    plain = 12 / (4 * 3 * 4) * (5.5**2 + 7.5**2 + 11**2) - 3 * 4 * 4
    assert p == pytest.approx(stats.chi2.sf(plain / (1 - 6 / (4 * (27 - 3))), 2))
    assert p == pytest.approx(float(stats.friedmanchisquare(*means.T).pvalue))


def test_the_critical_difference_is_that_of_the_paper() -> None:
    """Four classifiers on 14 data sets: 1.25 with q = 2.569; ten: q = 3.164 (Demšar 2006, section 3.2.2 and table 5)."""
    rng = np.random.default_rng(0)
    assert average_ranks(rng.random((14, 4)))[2] == pytest.approx(1.25, abs=5e-3)
    assert average_ranks(rng.random((6, 10)))[2] == pytest.approx(3.164 * math.sqrt(110 / 36), abs=2e-3)


def test_average_ranks_where_little_can_be_said() -> None:
    assert average_ranks(array([3, 3, 1])) == ([1.5, 1.5, 3], None, None)
    ranks, p, critical = average_ranks(array([1, 1, 1], [2, 2, 2]))
    assert (ranks, p) == ([2, 2, 2], 1)
    assert critical is not None
    two = average_ranks(array([1, 2], [1, 2]))
    assert two[:2] == ([2, 1], None)
    assert two[2] == pytest.approx(1.96 * math.sqrt(2 * 3 / 12), abs=1e-3)
    assert average_ranks(np.zeros((0, 3))) == ([], None, None)


def test_values_are_laid_out_by_scenario_and_seed() -> None:
    arrays = aligned({"a": {("x", 1): 1.0, ("y", 0): 2.0}, "b": {("x", 0): 3.0, ("z", 1): 4.0}})
    np.testing.assert_array_equal(arrays["a"], [[NAN, 1], [2, NAN], [NAN, NAN]])
    np.testing.assert_array_equal(arrays["b"], [[3, NAN], [NAN, NAN], [NAN, 4]])


def told(values: dict[str, Values]) -> Separation:
    """What separates entries that are scored by their means."""
    scores = {name: float(each.mean()) for name, each in values.items()}
    return separate(scores, lambda one, other: paired_difference(values[one], values[other]), values)


def test_entries_that_cannot_be_tested_share_a_rank() -> None:
    found = told({"a": array([90.0]), "b": array([10.0]), "c": array([0.0])})
    assert found.ranks == dict.fromkeys("abc", (1, 3))
    assert found.beats == {"a": [], "b": [], "c": []}
    assert (found.resolution, found.friedman) == (None, None)
    assert found.average_ranks == {"a": 1, "b": 2, "c": 3}
    empty = separate({}, lambda one, other: contrast([]), {})
    assert (empty.ranks, empty.average_ranks, empty.scenarios) == ({}, {}, 0)


@pytest.mark.parametrize("seeds", [3, 2, 1])
def test_two_equal_attacks_share_a_rank_in_95_of_100_leaderboards(seeds: int) -> None:
    """Twelve scenarios that differ in level and noise; seeds that move all alike; "x" and "y" are equal by construction."""
    rng = np.random.default_rng(20)
    shared, apart, boards = 0, 0, 100
    for _ in range(boards):
        level = rng.uniform(10, 60, (12, 1))
        noise = rng.uniform(0.2, 3, (12, 1))
        moved = rng.normal(0, 5, (12, seeds))
        true = {"best": 30.0, "x": 15.0, "y": 15.0, "worse": 9.0, "worst": -9.0}
        values = {name: level + mean + moved + noise * rng.normal(size=(12, seeds)) for name, mean in true.items()}
        found = told(values)
        shared += found.ranks["x"] == found.ranks["y"]
        apart += found.ranks["best"] == (1, 1) and found.ranks["worst"] == (5, 5)
    assert shared >= 95
    assert apart >= 95


def test_equal_attacks_that_succeed_wholly_or_not_at_all_share_a_rank() -> None:
    """ER@K is often 0 or 100 %: three seeds that agree by chance must not pass for certainty."""
    rng = np.random.default_rng(21)
    for chance in (0.1, 0.5):
        for scenarios in (1, 4, 12):
            shared = 0
            for _ in range(100):
                draw = 100.0 * (rng.random((2, scenarios, 3)) < chance)
                ranks = told({"x": draw[0], "y": draw[1], "none": np.full((scenarios, 3), -50.0)}).ranks
                shared += ranks["x"] == ranks["y"]
            assert shared >= 95, (chance, scenarios)
