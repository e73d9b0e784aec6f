from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fedbench.leaderboard.paired import Values, holm, paired_difference
from fedbench.leaderboard.separation import Separation, separate

NUMBERS = st.one_of(st.integers(-8, 8).map(float), st.just(float("nan")))


@st.composite
def tables(draw: st.DrawFn) -> dict[str, Values]:
    """Two to five entries over up to four scenarios and three seeds, with gaps and many equal values."""
    shape = draw(st.tuples(st.integers(1, 4), st.integers(1, 3)))
    return {name: draw(arrays(float, shape, elements=NUMBERS)) for name in "abcde"[: draw(st.integers(2, 5))]}


def told(values: dict[str, Values], scores: dict[str, float]) -> Separation:
    return separate(scores, lambda one, other: paired_difference(values[one], values[other]), values)


def scores_of(values: dict[str, Values]) -> dict[str, float]:
    return {name: float(np.nansum(each)) for name, each in values.items()}


@given(tables(), st.randoms(use_true_random=False))
def test_order_and_labels_do_not_matter(values: dict[str, Values], random: object) -> None:
    scores, shape = scores_of(values), values["a"].shape
    rows, columns = list(range(shape[0])), list(range(shape[1]))
    names = list(values)
    for each in (rows, columns, names):
        random.shuffle(each)  # type: ignore[attr-defined]
    shuffled = {name: values[name][rows][:, columns] for name in names}
    one, other = told(values, scores), told(shuffled, {name: scores[name] for name in names})
    assert one.ranks == other.ranks
    assert one.beats == other.beats
    assert one.average_ranks == pytest.approx(other.average_ranks)
    assert one.resolution == pytest.approx(other.resolution)


@given(tables(), st.integers(-50, 50), st.integers(0, 3))
def test_a_constant_in_a_scenario_changes_nothing(values: dict[str, Values], constant: int, scenario: int) -> None:
    scores = scores_of(values)
    moved = {name: each.copy() for name, each in values.items()}
    for each in moved.values():
        each[scenario % len(each)] += constant
    one, other = told(values, scores), told(moved, scores)
    assert (one.ranks, one.beats, one.average_ranks) == (other.ranks, other.beats, other.average_ranks)
    assert one.resolution == pytest.approx(other.resolution)


@given(tables())
def test_a_difference_has_an_opposite(values: dict[str, Values]) -> None:
    one, other = paired_difference(values["a"], values["b"]), paired_difference(values["b"], values["a"])
    assert (one.p, one.se, one.df, one.runs) == (other.p, other.se, other.df, other.runs)
    if one.estimate is not None and other.estimate is not None:
        assert one.estimate == -other.estimate
    if one.p is not None and one.low is not None and one.high is not None and one.se:
        assert 0 <= one.p <= 1
        assert (one.p < 0.05) == (one.low > 0 or one.high < 0)


@given(tables())
def test_ranks_count_what_is_better_and_what_is_worse(values: dict[str, Values]) -> None:
    found = told(values, scores_of(values))
    for name, (first, last) in found.ranks.items():
        assert last == len(values) - len(found.beats[name])
        assert first == 1 + sum(name in beaten for beaten in found.beats.values())
    for (one, other), (difference, p) in found.pairs.items():
        if difference.p is None or p > 0.05:
            assert other not in found.beats[one]
            assert one not in found.beats[other]


@given(st.lists(st.floats(0, 1), max_size=12))
def test_holm_keeps_the_order_and_begins_with_bonferroni(pvalues: list[float]) -> None:
    adjusted = holm(pvalues)
    for p, q in zip(pvalues, adjusted, strict=True):
        assert p <= q <= 1
    order = np.argsort(pvalues, kind="stable")
    assert all(np.diff(np.array(adjusted)[order]) >= 0)
    assert not adjusted or min(adjusted) == min(1.0, min(pvalues) * len(pvalues))
