"""What is said below a table, and intervals as text."""

from __future__ import annotations

import numpy as np
import pytest

from fedbench.leaderboard.paired import paired_difference
from fedbench.leaderboard.ranking import Estimate
from fedbench.leaderboard.separation import separate
from fedbench.leaderboard.sheets import caption, change, share


def below(a: list[list[float]], b: list[list[float]]) -> str:
    """The caption of a table of two entries with these values."""
    values = {"a": np.array(a), "b": np.array(b)}
    scores = {name: float(np.nanmean(each)) for name, each in values.items()}
    return caption(separate(scores, lambda one, other: paired_difference(values[one], values[other]), values))


def test_single_runs_are_not_said_to_vary_little() -> None:
    text = below([[30.0]], [[10.0]])
    assert "0 of 1 pairs are told apart; nothing can be tested: single runs do not show how far seeds differ; " in text
    assert "the runs do not vary" not in text


def test_runs_that_do_not_vary_give_no_smallest_difference() -> None:
    text = below([[30.0, 30.0]], [[10.0, 10.0]])
    assert "0 of 1 pairs are told apart; no smallest difference can be given: the runs do not vary." in text


@pytest.mark.parametrize(("other", "said"), [([5.0, np.nan], True), ([5.0, 6.0], False)])
def test_pairs_with_a_single_common_seed_are_counted(other: list[float], said: bool) -> None:
    text = below([[30.0, 31.0], [9.0, 9.0]], [[10.0, 12.0], other])
    assert text.startswith("a rank such as 1-4 says which places are open to it; beats: how many it is")
    assert ("1 pair has scenarios with a single common seed" in text) is said


def test_intervals_end_where_nothing_is_possible() -> None:
    wide = Estimate(45.2, -126.6, 117.5, 3)
    assert share(wide) == "45.2 [0.0, 100.0]"
    assert change(wide) == "+45.2 [-126.6, +100.0]", "an attack may more than double what it attacks"
