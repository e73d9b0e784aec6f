from __future__ import annotations

from itertools import permutations
from typing import Any

import numpy as np
import pytest

from fedbench.data.records import Interactions, Pairs, Split, Table
from fedbench.data.splits import MADE, make_split, slot_of


def rows(*pairs: tuple[int, int]) -> Interactions:
    user, item = zip(*pairs, strict=True)
    return Interactions(np.array(user, np.int32), np.array(item, np.int32))


def listed(pairs: Pairs | None) -> list[tuple[int, int]] | None:
    return None if pairs is None else list(zip(pairs.user.tolist(), pairs.item.tolist(), strict=True))


def table(parts: dict[str, Interactions], ordered: bool = True) -> Table:
    return Table(parts, num_users=4, num_items=6, ordered=ordered, order="test data")


def split(source: Table, name: str, **options: Any) -> Split:
    return make_split("toy", name, source, **{"duplicates": "drop", "seed": 0, **options})


UNSORTED = rows((0, 5), (0, 1), (0, 3), (0, 2), (1, 2), (2, 4), (2, 0))
UNSPLIT = rows((0, 5), (0, 1), (0, 3), (1, 2), (2, 0), (2, 4))


def test_leave_one_out_holds_out_the_latest() -> None:
    made = split(table({"all": UNSPLIT}), "leave-one-out")
    assert listed(made.test) == [(0, 3), (2, 4)]
    assert listed(made.train) == [(0, 1), (0, 5), (1, 2), (2, 0)]
    assert (made.report.users_without_train, made.report.users_without_test) == (1, 2)
    assert made.report.items_without_train == 2
    assert made.train.user.dtype == made.train.item.dtype == np.int64


def test_unordered_leave_one_out_is_drawn_from_the_seed() -> None:
    source = table({"all": UNSPLIT}, ordered=False)
    tests = {tuple(listed(split(source, "leave-one-out", seed=seed).test) or ()) for seed in range(60)}
    assert tests == {((0, i), (2, j)) for i in (5, 1, 3) for j in (0, 4)}
    again = split(source, "leave-one-out", seed=7)
    assert again.fingerprint == split(source, "leave-one-out", seed=7).fingerprint
    assert "random" in again.report.method
    assert "seed 7" in again.report.method


def test_leave_one_out_validation_keeps_train_in_order_of_time() -> None:
    made = split(table({"all": UNSORTED}), "leave-one-out-validation")
    assert listed(made.train) == [(0, 5), (0, 1), (1, 2), (2, 4)]
    assert listed(made.valid) == [(0, 3)]
    assert listed(made.test) == [(0, 2), (2, 0)]
    assert made.train.user.dtype == made.train.item.dtype == np.int64
    assert (made.report.users_without_train, made.report.users_without_test, made.report.removed) == (1, 2, 0)
    assert "train is in that order" in made.report.method
    swapped = rows((0, 1), (0, 5), (0, 3), (0, 2), (1, 2), (2, 4), (2, 0))
    assert split(table({"all": swapped}), "leave-one-out-validation").fingerprint != made.fingerprint
    assert split(table({"all": swapped}), "4:1").fingerprint == split(table({"all": UNSORTED}), "4:1").fingerprint


def test_leave_one_out_validation_with_repeats() -> None:
    source = table({"all": rows((0, 1), (0, 2), (0, 1), (0, 3), (0, 1), (1, 4), (1, 4), (1, 4))})
    dropped = split(source, "leave-one-out-validation")
    assert (listed(dropped.train), listed(dropped.valid), listed(dropped.test)) == (
        [(0, 1), (1, 4)],
        [(0, 2)],
        [(0, 3)],
    )
    assert (dropped.report.train_duplicates, dropped.report.leaked, dropped.report.removed) == (4, 0, 4)
    kept = split(source, "leave-one-out-validation", duplicates="keep")
    assert listed(kept.train) == [(0, 1), (0, 2), (0, 1), (1, 4)]
    assert (listed(kept.valid), listed(kept.test)) == ([(0, 3), (1, 4)], [(0, 1), (1, 4)])
    # User 0 tests an item of train, user 1 tests and validates one: three held-out rows.
    assert (kept.report.train_duplicates, kept.report.leaked, kept.report.removed) == (4, 3, 0)


def test_unordered_leave_one_out_validation_is_drawn_from_the_seed() -> None:
    source = table({"all": UNSPLIT}, ordered=False)
    found = set()
    for seed in range(80):
        made = split(source, "leave-one-out-validation", seed=seed)
        assert listed(made.test) == listed(split(source, "leave-one-out", seed=seed).test)
        assert made.valid is not None
        found.add((made.test.item[0], *made.valid.item.tolist(), *made.train.item[:1].tolist()))
        assert made.valid.user.tolist() == [0]
    assert found == set(permutations((5, 1, 3)))
    assert f"seed {seed}" in made.report.method
    assert "in the order of the file, not of time" in made.report.method


def test_unordered_train_stays_in_the_order_of_the_file() -> None:
    items = [5, 0, 4, 1, 3, 2]
    source = Table({"all": rows(*((0, item) for item in items))}, 1, 6, ordered=False, order="test data")
    made = split(source, "leave-one-out-validation", seed=3)
    left = [item for item in items if item not in (*made.test.item.tolist(), *made.valid.item.tolist())]  # type: ignore[union-attr]
    assert made.train.item.tolist() == left
    assert len(left) == 4


def test_four_to_one_rounds_down_and_keeps_small_users_whole() -> None:
    items = [(0, i) for i in range(4)] + [(1, i) for i in range(5)]
    made = make_split(
        "toy",
        "4:1",
        Table({"all": rows(*items)}, num_users=2, num_items=6, ordered=True, order=""),
        duplicates="drop",
        seed=3,
    )
    assert len(made.test) == 1
    assert made.test.user.tolist() == [1]


def test_drop_before_splitting_keeps_the_first_occurrence() -> None:
    source = table({"all": rows((0, 1), (0, 2), (0, 1), (1, 3), (1, 3))})
    dropped = split(source, "leave-one-out")
    assert (listed(dropped.train), listed(dropped.test)) == ([(0, 1), (1, 3)], [(0, 2)])
    assert (dropped.report.train_duplicates, dropped.report.leaked, dropped.report.removed) == (2, 0, 2)
    kept = split(source, "leave-one-out", duplicates="keep")
    assert (listed(kept.train), listed(kept.test)) == ([(0, 1), (0, 2), (1, 3)], [(0, 1), (1, 3)])
    assert (kept.report.train_duplicates, kept.report.leaked, kept.report.removed) == (2, 2, 0)


PUBLISHED = {
    "train": rows((0, 1), (0, 1), (0, 2), (1, 3), (2, 0)),
    "valid": rows((0, 2), (1, 4)),
    "test": rows((0, 1), (0, 3), (0, 3), (1, 4), (2, 5)),
    "public:0.01": rows((0, 2), (0, 2), (1, 5)),
}


def test_published_split_is_cleaned_and_counted() -> None:
    made = split(table(PUBLISHED), "published")
    assert listed(made.train) == [(0, 1), (0, 2), (1, 3), (2, 0)]
    assert listed(made.valid) == [(1, 4)]
    assert listed(made.test) == [(0, 3), (2, 5)]
    assert {share: listed(pairs) for share, pairs in made.public.items()} == {"0.01": [(0, 2)]}
    report = made.report
    assert (report.rows, report.train_duplicates, report.heldout_duplicates) == (12, 1, 1)
    assert (report.leaked, report.removed, report.public_outside_train) == (3, 5, 1)


def test_published_split_is_kept_as_it_is_on_request() -> None:
    made = split(table(PUBLISHED), "published", duplicates="keep")
    assert listed(made.train) == [(0, 1), (0, 1), (0, 2), (1, 3), (2, 0)]
    assert listed(made.valid) == [(0, 2), (1, 4)]
    assert listed(made.test) == [(0, 1), (0, 3), (0, 3), (1, 4), (2, 5)]
    assert {share: len(pairs) for share, pairs in made.public.items()} == {"0.01": 3}
    clean = split(table(PUBLISHED), "published").report
    counts = ("rows", "train_duplicates", "heldout_duplicates", "leaked", "public_outside_train")
    assert [getattr(made.report, name) for name in counts] == [getattr(clean, name) for name in counts]
    assert made.report.removed == 0


def test_fingerprint_tells_splits_apart() -> None:
    base = split(table(PUBLISHED), "published").fingerprint
    smaller = {name: part for name, part in PUBLISHED.items() if name != "valid"}
    swapped = {**PUBLISHED, "train": rows((0, 1), (0, 2), (1, 3), (2, 1))}
    wider = Table(PUBLISHED, num_users=4, num_items=7, ordered=False, order="")
    found = {base, *(split(each, "published").fingerprint for each in (table(smaller), table(swapped), wider))}
    assert len(found) == 4
    # The digest is part of the results: this value may only change together with a note on the leaderboard.
    assert base == "254b9d27641b2b3c8523527952c2666e7704a0628752a36b15114291e51899f1"


def test_random_leave_one_out_is_that_of_the_table_without_its_order() -> None:
    found = set()
    for seed in range(80):
        made = split(table({"all": UNSORTED}), "leave-one-out-random", seed=seed)
        same = split(table({"all": UNSORTED}, ordered=False), "leave-one-out", seed=seed)
        assert made.fingerprint == same.fingerprint
        assert f"a random interaction of each user is the test item, seed {seed} (whatever" in made.report.method
        found.add(made.test.item[0])
    assert len(found) > 1
    assert len({split(table({"all": UNSORTED}), "leave-one-out", seed=seed).fingerprint for seed in range(9)}) == 1


@pytest.mark.parametrize("name", MADE)
def test_no_interaction_at_all(name: str) -> None:
    nothing = Interactions(np.empty(0, np.int32), np.empty(0, np.int32))
    made = split(Table({"all": nothing}, 2, 3, False, ""), name)
    assert (len(made.train), len(made.test), made.report.users_without_train) == (0, 0, 2)


def test_slot_of_a_split() -> None:
    assert {slot_of(name) for name in MADE} == {"interactions"}
    assert slot_of("published-icde24") == "published-icde24"
    assert slot_of("interactions") == "interactions"
