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


def test_several_scenarios_are_one_draw_a_seed() -> None:
    """The paired t test over the means of the seeds, whatever moves them in one scenario and in the other."""
    part = array([1, 3, 8], [10, 14, 18], [-5, 0, 2])
    ours, scipy = contrast([part]), stats.ttest_1samp(part.mean(0), 0)
    low, high = scipy.confidence_interval(0.95)
    assert known(ours) == pytest.approx((part.mean(), stats.sem(part.mean(0)), 2, scipy.pvalue))
    assert (ours.low, ours.high, ours.scenarios, ours.runs) == (pytest.approx(low), pytest.approx(high), 3, 9)
    twice = contrast([np.concatenate([part, part])])
    assert known(twice) == pytest.approx(known(ours)), "the same scenarios again are no further proof"


def test_where_runs_are_missing_the_variance_is_that_of_seeds_that_move_all_scenarios_alike() -> None:
    """Seeds of variance 1 in both scenarios, two of three in the first: weights 5/12, 5/12 and 1/6 on them."""
    rng = np.random.default_rng(0)
    found = []
    for drawn in rng.normal(0, 1, (4000, 3)):
        found.append(known(contrast([array([drawn[0], drawn[1], NAN], list(drawn))])))
    estimates, errors, freedoms, ps = np.array(found).T
    assert (errors**2).mean() == pytest.approx(2 * (5 / 12) ** 2 + 1 / 36, rel=0.05)
    assert estimates.var() == pytest.approx(2 * (5 / 12) ** 2 + 1 / 36, rel=0.05)
    assert 1 < freedoms[0] < 2
    assert (ps <= 0.05).mean() <= 0.06


def test_parts_that_share_a_seed_share_its_draw() -> None:
    gains, costs = array([1.0, 4.0, 4.0], [2.0, 2.0, 8.0]), array([3.0, 8.0, 1.0])
    ours, scipy = contrast([gains, -costs]), stats.ttest_1samp(gains.mean(0) - costs[0], 0)
    assert known(ours) == pytest.approx((gains.mean() - 4, stats.sem(gains.mean(0) - costs[0]), 2, scipy.pvalue))
    assert (ours.scenarios, ours.runs) == (3, 9)


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


def test_without_two_seeds_anywhere_there_is_no_test() -> None:
    """Twelve scenarios of one seed share its draws: nothing shows how far seeds differ."""
    ours = paired_difference(array([3, NAN], [NAN, 5], [9, NAN]), array([1, 7], [4, 6], [5, NAN]))
    assert (ours.estimate, ours.se, ours.p, ours.low) == (pytest.approx(5 / 3), None, None, None)
    assert (ours.scenarios, ours.runs) == (3, 3)
    nothing = paired_difference(array([3, NAN]), array([NAN, 1]))
    assert (nothing.estimate, nothing.p, nothing.runs) == (None, None, 0)


def test_only_what_both_have_counts() -> None:
    a, b = array([1, 2, 3, 100], [NAN, NAN, NAN, 50]), array([0, 3, 1, NAN], [9, 9, 9, NAN])
    assert paired_difference(a, b) == paired_difference(a[:1, :3], b[:1, :3])


def test_without_variation_every_seed_is_a_draw_of_one_in_four() -> None:
    same = array([50, 50, 50], [0.1 + 0.2, 0.3, 0.3])
    ours = paired_difference(same, array([50, 50, 50], [0.3, 0.3, 0.3]))
    assert (ours.estimate, ours.p, ours.low, ours.high) == (0, 1, 0, 0)
    saturated = paired_difference(array([100] * 3, [100] * 3, [0] * 3), np.zeros((3, 3)))
    assert (saturated.estimate, saturated.p) == (pytest.approx(200 / 3), 2 / 4**3)
    assert contrast([array([1, 1], [-1, -1])]).p == 1
    assert contrast([array([3, 3]), array([4, 4])]).p == 2 / 4**2


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
    noise = rng.normal(0, 1, (300, 3, 8))
    level = 0.05 / 10
    need = float((stats.t.ppf(1 - level / 2, 7) + stats.t.ppf(0.8, 7)) / math.sqrt(24))
    assert resolution([contrast([each]) for each in noise[:10]]) == pytest.approx(need, rel=0.4)
    found = sum((contrast([each + need]).p or 1) <= level for each in noise)
    assert 215 <= found <= 275


def test_average_ranks_by_hand() -> None:
    """Ranks 1 2 3, 2 1 3, 1.5 1.5 3 and 1 3 2."""
    assert average_ranks(array([9, 5, 1], [5, 9, 1], [7, 7, 1], [9, 1, 5])) == [5.5 / 4, 7.5 / 4, 11 / 4]
    assert average_ranks(np.zeros((0, 3))) == []


def test_average_ranks_are_those_of_scipy() -> None:
    means = np.random.default_rng(0).integers(0, 4, (50, 6)).astype(float)
    assert average_ranks(means) == stats.rankdata(-means, axis=1).mean(0).tolist()


def test_values_are_laid_out_by_scenario_and_seed() -> None:
    arrays = aligned({"a": {"x": {1: 1.0}, "y": {0: 2.0}}, "b": {"x": {0: 3.0}, "z": {1: 4.0}}})
    np.testing.assert_array_equal(arrays["a"], [[NAN, 1], [2, NAN], [NAN, NAN]])
    np.testing.assert_array_equal(arrays["b"], [[3, NAN], [NAN, NAN], [NAN, 4]])
    np.testing.assert_array_equal(aligned({"a": {"x": {1: 1.0}}}, [1, 0, 5])["a"], [[NAN, 1, NAN]])


def told(values: dict[str, Values]) -> Separation:
    """What separates entries that are scored by their means."""
    scores = {name: float(each.mean()) for name, each in values.items()}
    return separate(scores, lambda one, other: paired_difference(values[one], values[other]), values)


def test_entries_that_cannot_be_tested_share_a_rank() -> None:
    found = told({"a": array([90.0]), "b": array([10.0]), "c": array([0.0])})
    assert found.ranks == dict.fromkeys("abc", (1, 3))
    assert found.beats == {"a": [], "b": [], "c": []}
    assert found.resolution is None
    assert found.average_ranks == {"a": 1, "b": 2, "c": 3}
    empty = separate({}, lambda one, other: contrast([]), {})
    assert (empty.ranks, empty.average_ranks, empty.scenarios) == ({}, {}, 0)


def test_equal_attacks_that_succeed_wholly_or_not_at_all_share_a_rank() -> None:
    """ER@K is often 0 or 100 %: three seeds that agree by chance must not pass for certainty."""
    rng = np.random.default_rng(21)
    for chance in (0.1, 0.5):
        for scenarios in (1, 4):
            shared = 0
            for _ in range(100):
                draw = 100.0 * (rng.random((2, scenarios, 3)) < chance)
                shared += not any(told({"x": draw[0], "y": draw[1]}).beats.values())
            assert shared >= 90, (chance, scenarios)
