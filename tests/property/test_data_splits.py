"""What must hold for every table, whatever its rows."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fedbench.data.records import Interactions, Pairs, Table
from fedbench.data.splits import make_split

USERS, ITEMS = 6, 9
Listed = list[tuple[int, int]]

pairs_lists = st.lists(st.tuples(st.integers(0, USERS - 1), st.integers(0, ITEMS - 1)), max_size=60)
sorted_names = st.sampled_from(["leave-one-out", "4:1"])
unsplit_names = st.sampled_from(["leave-one-out", "4:1", "leave-one-out-validation"])
duplicates = st.sampled_from(["drop", "keep"])


def rows(pairs: Listed) -> Interactions:
    array = np.array(pairs, dtype=np.int32).reshape(-1, 2)
    return Interactions(array[:, 0], array[:, 1])


def unsplit(pairs: Listed, ordered: bool) -> Table:
    """Grouped by user, as parsers hand tables over."""
    return Table({"all": rows(sorted(pairs, key=lambda pair: pair[0]))}, USERS, ITEMS, ordered, "generated")


def listed_rows(part: Interactions) -> Listed:
    return list(zip(part.user.tolist(), part.item.tolist(), strict=True))


def listed(pairs: Pairs) -> Listed:
    return list(zip(pairs.user.tolist(), pairs.item.tolist(), strict=True))


@given(pairs_lists, unsplit_names, st.booleans(), st.integers(0, 5))
def test_keep_partitions_the_rows(pairs: Listed, name: str, ordered: bool, seed: int) -> None:
    made = make_split("toy", name, unsplit(pairs, ordered), duplicates="keep", seed=seed)
    valid = [] if made.valid is None else listed(made.valid)
    assert Counter(listed(made.train)) + Counter(valid) + Counter(listed(made.test)) == Counter(pairs)
    assert made.report.removed == 0


@given(pairs_lists, sorted_names, st.booleans(), duplicates, st.integers(0, 5))
def test_parts_are_sorted(pairs: Listed, name: str, ordered: bool, policy: str, seed: int) -> None:
    made = make_split("toy", name, unsplit(pairs, ordered), duplicates=policy, seed=seed)  # type: ignore[arg-type]
    for part in (made.train, made.test):
        assert listed(part) == sorted(listed(part))


@given(pairs_lists, unsplit_names, st.booleans(), st.integers(0, 5))
def test_drop_partitions_the_distinct_pairs(pairs: Listed, name: str, ordered: bool, seed: int) -> None:
    made = make_split("toy", name, unsplit(pairs, ordered), duplicates="drop", seed=seed)
    valid = [] if made.valid is None else listed(made.valid)
    assert sorted(listed(made.train) + valid + listed(made.test)) == sorted(set(pairs))
    assert made.report.removed == made.report.train_duplicates == len(pairs) - len(set(pairs))
    assert made.report.leaked == 0


@given(pairs_lists, st.booleans(), duplicates, st.integers(0, 5))
def test_leave_one_out_holds_out_one_row_of_every_user_with_two(
    pairs: Listed, ordered: bool, policy: str, seed: int
) -> None:
    made = make_split("toy", "leave-one-out", unsplit(pairs, ordered), duplicates=policy, seed=seed)  # type: ignore[arg-type]
    counts = Counter(user for user, _ in (set(pairs) if policy == "drop" else pairs))
    assert sorted(made.test.user.tolist()) == sorted(user for user, n in counts.items() if n >= 2)
    assert set(made.train.user.tolist()) == set(counts)


def divided_slowly(pairs: Listed, policy: str, tested: dict[int, int], validated: dict[int, int]) -> list[Listed]:
    """Train, validation and test, row by row; ``tested`` and ``validated``: the places of the held-out rows by user."""
    kept: Listed = []
    for pair in pairs:
        if policy == "keep" or pair not in kept:
            kept.append(pair)
    parts: list[Listed] = [[], [], []]
    for user in range(USERS):
        mine = [pair for pair in kept if pair[0] == user]
        for place, pair in enumerate(mine):
            is_test = len(mine) >= 2 and place == tested.get(user, len(mine) - 1)
            is_valid = len(mine) >= 3 and place == validated.get(user, len(mine) - 2)
            parts[2 if is_test else 1 if is_valid else 0].append(pair)
    return parts


@given(pairs_lists, duplicates)
def test_leave_one_out_validation_is_the_plain_loop(pairs: Listed, policy: str) -> None:
    made = make_split("toy", "leave-one-out-validation", unsplit(pairs, True), duplicates=policy, seed=0)  # type: ignore[arg-type]
    assert made.valid is not None
    found = [listed(part) for part in (made.train, made.valid, made.test)]
    assert found == divided_slowly(pairs, policy, {}, {})


@given(pairs_lists, st.booleans(), duplicates, st.integers(0, 5))
def test_leave_one_out_validation_refines_leave_one_out(pairs: Listed, ordered: bool, policy: str, seed: int) -> None:
    source = unsplit(pairs, ordered)
    coarse = make_split("toy", "leave-one-out", source, duplicates="keep", seed=seed)
    fine = make_split("toy", "leave-one-out-validation", source, duplicates="keep", seed=seed)
    assert fine.valid is not None
    assert listed(fine.test) == listed(coarse.test)
    assert Counter(listed(fine.train)) + Counter(listed(fine.valid)) == Counter(listed(coarse.train))

    made = make_split("toy", "leave-one-out-validation", source, duplicates=policy, seed=seed)  # type: ignore[arg-type]
    assert made.valid is not None
    counts = Counter(user for user, _ in (set(pairs) if policy == "drop" else pairs))
    assert made.test.user.tolist() == sorted(user for user, n in counts.items() if n >= 2)
    assert made.valid.user.tolist() == sorted(user for user, n in counts.items() if n >= 3)
    assert set(made.train.user.tolist()) == set(counts)
    # What is left is a subsequence of the table, user by user.
    rest = iter(listed_rows(source.parts["all"]))
    assert all(pair in rest for pair in listed(made.train))


@given(pairs_lists, duplicates, st.integers(0, 5))
def test_four_to_one_holds_out_a_fifth_rounded_down(pairs: Listed, policy: str, seed: int) -> None:
    made = make_split("toy", "4:1", unsplit(pairs, True), duplicates=policy, seed=seed)  # type: ignore[arg-type]
    counts = Counter(user for user, _ in (set(pairs) if policy == "drop" else pairs))
    held = Counter(made.test.user.tolist())
    assert all(held[user] == n // 5 for user, n in counts.items())


published = st.fixed_dictionaries(
    {"train": pairs_lists, "test": pairs_lists}, optional={"valid": pairs_lists, "public:0.01": pairs_lists}
)


@given(published)
def test_published_split_does_not_leak_after_drop(parts: dict[str, Listed]) -> None:
    table = Table({name: rows(pairs) for name, pairs in parts.items()}, USERS, ITEMS, False, "generated")
    made = make_split("toy", "published", table, duplicates="drop", seed=0)
    train, test = set(listed(made.train)), listed(made.test)
    valid = [] if made.valid is None else listed(made.valid)
    assert train == set(parts["train"])
    everything = [*listed(made.train), *valid, *test]
    assert len(set(everything)) == len(everything)
    assert set(valid) == set(parts.get("valid", [])) - train
    assert set(test) == set(parts["test"]) - train - set(parts.get("valid", []))
    assert all(set(listed(pairs)) <= train for pairs in made.public.values())
    assert made.report.removed == sum(len(parts.get(name, [])) for name in ("train", "valid", "test")) - len(everything)


@given(published, st.randoms(use_true_random=False), duplicates)
def test_fingerprint_does_not_depend_on_the_order_of_rows(
    parts: dict[str, Listed], shuffler: object, policy: str
) -> None:
    def digest(content: dict[str, Listed]) -> str:
        table = Table({name: rows(pairs) for name, pairs in content.items()}, USERS, ITEMS, False, "generated")
        return make_split("toy", "published", table, duplicates=policy, seed=0).fingerprint  # type: ignore[arg-type]

    shuffled = {name: list(pairs) for name, pairs in reversed(parts.items())}
    for pairs in shuffled.values():
        shuffler.shuffle(pairs)  # type: ignore[attr-defined]
    assert digest(shuffled) == digest(parts)


@given(published, published)
def test_fingerprint_is_equal_only_for_equal_splits(one: dict[str, Listed], other: dict[str, Listed]) -> None:
    def made(content: dict[str, Listed]) -> tuple[str, object]:
        table = Table({name: rows(pairs) for name, pairs in content.items()}, USERS, ITEMS, False, "generated")
        split = make_split("toy", "published", table, duplicates="keep", seed=0)
        return split.fingerprint, {name: sorted(pairs) for name, pairs in content.items()}

    (left, left_content), (right, right_content) = made(one), made(other)
    assert (left == right) == (left_content == right_content)
