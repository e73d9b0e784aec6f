from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedbench.evaluation.displacement import (
    PLACES,
    SYMBOLS,
    by_subgroup,
    counted,
    displacement_ratio,
    places_text,
    shown_to,
)

USERS = st.lists(st.sampled_from(sorted(SYMBOLS)), min_size=1, max_size=12).map("".join)


def test_places_by_hand() -> None:
    rank, counts = np.array([0, 9, 10, 29, 30, 99, 3]), np.array([True] * 6 + [False])
    text = places_text(rank, counts)
    assert text == "09at--."
    assert shown_to(text, 10).tolist() == [True, True, False, False, False, False, False]
    assert shown_to(text, 30).tolist() == [True] * 4 + [False] * 3
    assert counted(text).tolist() == counts.tolist()


def test_the_share_that_no_longer_is_shown_a_target_by_hand() -> None:
    """At K = 5 the first target is shown to users 0 to 3; user 3 does not count in the attacked run, user 1 lost it.
    The second is shown to user 4 alone, who keeps it, and the third to nobody.
    """
    clean = ["0124-", "----2", "99999"]
    attacked = ["4-0.0", "00004", "00000"]
    assert displacement_ratio(clean, attacked, 5) == pytest.approx((1 / 3 + 0) / 2)
    # At K = 10 the third is shown to everybody, and stays so.
    assert displacement_ratio(clean, attacked, 10) == pytest.approx((1 / 3 + 0 + 0) / 3)
    assert displacement_ratio(clean[2:], attacked[2:], 5) is None


def test_exposure_inside_and_outside_of_a_subgroup_by_hand() -> None:
    """Of users 0 to 3 two are inside, of whom one does not count for the second target; at K = 10 user 3 sees the first."""
    found = by_subgroup(["0-29", "0.-4"], [0, 1], (5, 10))
    inside = (1 / 2 + 1) / 2
    assert found == {
        "er_in_5": inside,
        "er_out_5": (1 / 2 + 1 / 2) / 2,
        "er_in_10": inside,
        "er_out_10": (1 + 1 / 2) / 2,
    }
    assert by_subgroup(["0-.."], [2, 3], (5,)) == {"er_in_5": None, "er_out_5": 0.5}
    assert by_subgroup(None, [2, 3], (5,)) == {"er_in_5": None, "er_out_5": None}


@given(st.data(), st.sampled_from([5, 10, 20, 30]))
@settings(max_examples=30, deadline=None)
def test_both_sides_make_the_whole(data: st.DataObject, cutoff: int) -> None:
    places = data.draw(USERS)
    users = data.draw(st.sets(st.integers(0, len(places) - 1)))
    found = by_subgroup([places], sorted(users), (cutoff,))
    counts = counted(places)
    sides = ((f"er_in_{cutoff}", users), (f"er_out_{cutoff}", set(range(len(places))) - users))
    hits = sum((found[name] or 0) * sum(bool(counts[u]) for u in side) for name, side in sides)
    assert hits == pytest.approx(int(shown_to(places, cutoff).sum()))


def test_other_users_or_targets_are_no_twin() -> None:
    assert displacement_ratio(["01"], ["012"], 5) is None
    assert displacement_ratio(["01"], ["01", "10"], 5) is None
    assert displacement_ratio([], [], 5) is None


@settings(max_examples=50, deadline=None)
@given(st.data(), st.sampled_from([5, 10, 20, 30]))
def test_it_agrees_with_a_loop_over_users(data: st.DataObject, cutoff: int) -> None:
    clean = data.draw(st.lists(USERS, min_size=1, max_size=3).filter(lambda texts: len({*map(len, texts)}) == 1))
    attacked = ["".join(data.draw(st.sampled_from(sorted(SYMBOLS))) for _ in each) for each in clean]
    shares = []
    for before, after in zip(clean, attacked, strict=True):
        had = [(a, b) for a, b in zip(before, after, strict=True) if a in PLACES[:cutoff] and b != "."]
        if had:
            shares.append(sum(b not in PLACES[:cutoff] for _, b in had) / len(had))
    expected = sum(shares) / len(shares) if shares else None
    found = displacement_ratio(clean, attacked, cutoff)
    assert found == (None if expected is None else pytest.approx(expected))
    assert displacement_ratio(clean, clean, cutoff) in (0.0, None)
    assert found is None or 0 <= found <= 1
