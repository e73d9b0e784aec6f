"""From a parsed table to a split: leave-one-out (the last or a random one), 4:1, or as published. Pure functions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from fedbench.data.records import (
    INTERACTIONS,
    Duplicates,
    Int64,
    Interactions,
    Ints,
    Pairs,
    Report,
    Split,
    Table,
    fingerprint,
)
from fedbench.data.streams import stream

LEAVE_ONE_OUT = "leave-one-out"
FOUR_TO_ONE = "4:1"
LEAVE_ONE_OUT_VALIDATION = "leave-one-out-validation"
LEAVE_ONE_OUT_RANDOM = "leave-one-out-random"
MADE = (LEAVE_ONE_OUT, FOUR_TO_ONE, LEAVE_ONE_OUT_VALIDATION, LEAVE_ONE_OUT_RANDOM)
"""The splits that we make of unsplit interactions; every other split is published."""


def slot_of(split: str) -> str:
    """The slot whose table a split is made from: that of the unsplit interactions, or the published split's own."""
    return INTERACTIONS if split in MADE else split


def leave_one_out(table: Table, seed: int) -> tuple[Interactions, Interactions, str]:
    """Train rows, test rows and a sentence: the last row of every user with at least two rows is held out.

    "Last" is by time where the table is ordered (rows of equal time: the later one in the file); otherwise one row
    of the user is drawn uniformly from the stream (``seed``, "leave-one-out"). A user with a single row keeps it.

    Split ``leave-one-out-random`` is this one of the same table without its order. What is held out is then as popular as
    what is left: on ML-1M recommending by popularity has a HR@10 of 7.9 % by full ranking, and 3.6 by the last items.
    """
    rows = table.parts["all"]
    counts, position = _positions(rows.user, table.num_users)
    if table.ordered:
        chosen: Ints = counts - 1
        method = f"leave-one-out: the latest interaction of each user is the test item ({table.order})"
    else:
        chosen = _drawn(seed, LEAVE_ONE_OUT, counts)
        method = f"leave-one-out: a random interaction of each user is the test item, seed {seed} ({table.order})"
    held = (position == chosen[rows.user]) & (counts[rows.user] >= 2)
    return Interactions(rows.user[~held], rows.item[~held]), Interactions(rows.user[held], rows.item[held]), method


def leave_one_out_validation(table: Table, seed: int) -> tuple[Interactions, Interactions, Interactions, str]:
    """Train, validation and test rows and a sentence: of every user the last row is test, the one before validation.

    The protocol of sequential recommenders (Kang and McAuley, SASRec, ICDM 2018, section IV.A) and of Yu et al.
    (AAAI 2023). A user with two rows has a test row and no validation row, one with a single row keeps it. The test
    rows are those of :func:`leave_one_out` for the same table and seed. Where the table is not ordered, the validation
    row is drawn uniformly from the user's other rows, from the stream (``seed``, "leave-one-out-validation").

    Train rows keep the order of the table: by user, and inside a user oldest first where the table is ordered, in the
    order of the file otherwise.
    """
    rows = table.parts["all"]
    counts, position = _positions(rows.user, table.num_users)
    if table.ordered:
        last: Ints = counts - 1
        before: Ints = counts - 2
        method = (
            "leave-one-out with validation: the latest interaction of each user is the test item, the one before the "
            f"validation item ({table.order}); train is in that order"
        )
    else:
        last = _drawn(seed, LEAVE_ONE_OUT, counts)
        before = _drawn(seed, LEAVE_ONE_OUT_VALIDATION, counts - 1)
        before = before + (before >= last)
        method = (
            "leave-one-out with validation: two random interactions of each user are the test and the validation "
            f"item, seed {seed} ({table.order}); train is in the order of the file, not of time"
        )
    count = counts[rows.user]
    test = (position == last[rows.user]) & (count >= 2)
    valid = (position == before[rows.user]) & (count >= 3)
    train, held, tested = (Interactions(rows.user[mask], rows.item[mask]) for mask in (~(test | valid), valid, test))
    return train, held, tested, method


def four_to_one(table: Table, seed: int) -> tuple[Interactions, Interactions, str]:
    """Train rows, test rows and a sentence: of a user's n rows, floor(n / 5) drawn uniformly are held out."""
    rows = table.parts["all"]
    counts, _ = _positions(rows.user, table.num_users)
    order = np.lexsort((stream(seed, FOUR_TO_ONE).random(len(rows)), rows.user))
    starts = np.cumsum(counts) - counts
    rank = np.empty(len(rows), dtype=np.int64)
    rank[order] = np.arange(len(rows)) - starts[rows.user[order]]
    held = rank < counts[rows.user] // 5
    method = f"4:1: one fifth of each user's interactions, rounded down, drawn at random with seed {seed}, is the test"
    return Interactions(rows.user[~held], rows.item[~held]), Interactions(rows.user[held], rows.item[held]), method


def make_split(dataset: str, split: str, table: Table, *, duplicates: Duplicates, seed: int) -> Split:
    """Divide ``table`` and count, or remove, what should not be there.

    With ``duplicates="drop"`` every (user, item) pair occurs once: repeats are removed from each part (before
    splitting where we split: the first occurrence stays), a test row whose pair is in train or validation is removed
    from the test, a validation row whose pair is in train from the validation, and published attacker-visible
    samples keep only training pairs. With ``"keep"`` nothing is removed; the counts are the same.

    All parts are sorted by (user, item), but for train of ``leave-one-out-validation``, which stays in the order of
    the table (see :attr:`Split.train`).
    """
    found = 0
    public: dict[str, Interactions] = {}
    valid: Interactions | None = None
    if "all" in table.parts:
        rows_in = len(table.parts["all"])
        first = _first_occurrences(table.parts["all"], table.num_items)
        found = 0 if first is None else rows_in - int(first.sum())
        if first is not None and duplicates == "drop":
            rows = table.parts["all"]
            table = replace(table, parts={"all": Interactions(rows.user[first], rows.item[first])})
        if split == LEAVE_ONE_OUT_VALIDATION:
            train, valid, test, method = leave_one_out_validation(table, seed)
        else:
            if split == LEAVE_ONE_OUT_RANDOM:
                table = replace(table, ordered=False, order="whatever their times")
            divide = four_to_one if split == FOUR_TO_ONE else leave_one_out
            train, test, method = divide(table, seed)
    else:
        train, test, valid = table.parts["train"], table.parts["test"], table.parts.get("valid")
        public = {name.partition(":")[2]: rows for name, rows in table.parts.items() if name.startswith("public:")}
        rows_in = len(train) + len(test) + (0 if valid is None else len(valid))
        method = f"as published ({table.order})"

    size = table.num_items
    train_keys = _keys(train, size)
    train_once = _distinct(train_keys)
    test_keys = _keys(test, size)
    valid_keys = None if valid is None else _keys(valid, size)
    if "train" in table.parts:
        found = len(train_keys) - len(train_once)
    valid_leaks = 0 if valid_keys is None else int(_member(valid_keys, train_once).sum())
    seen = train_once if valid_keys is None else np.union1d(train_once, valid_keys)
    leaked = _member(test_keys, seen)
    heldout_keys = [keys for keys in (test_keys, valid_keys) if keys is not None]
    heldout_duplicates = sum(len(keys) - len(_distinct(keys)) for keys in heldout_keys)
    leak_count = int(leaked.sum()) + valid_leaks

    public_keys = {share: _keys(rows, size) for share, rows in public.items()}
    outside = sum(int((~_member(keys, train_once)).sum()) for keys in public_keys.values())
    if duplicates == "drop":
        train_keys = train_once
        test_keys = _distinct(test_keys[~leaked])
        if valid_keys is not None:
            valid_keys = _distinct(valid_keys[~_member(valid_keys, train_once)])
        public_keys = {share: _distinct(keys[_member(keys, train_once)]) for share, keys in public_keys.items()}

    kept = len(train_keys) + len(test_keys) + (0 if valid_keys is None else len(valid_keys))
    train_pairs, test_pairs = _pairs(train_keys, size), _pairs(test_keys, size)
    if split == LEAVE_ONE_OUT_VALIDATION:
        # Nothing is left to remove here: with "drop" no pair of the table repeats any more.
        train_pairs = Pairs(user=train.user.astype(np.int64), item=train.item.astype(np.int64))
    valid_pairs = None if valid_keys is None else _pairs(valid_keys, size)
    public_pairs = {share: _pairs(public_keys[share], size) for share in sorted(public_keys)}
    report = Report(
        method=method,
        duplicates=duplicates,
        rows=rows_in,
        train_duplicates=found,
        heldout_duplicates=heldout_duplicates,
        leaked=leak_count,
        removed=rows_in - kept,
        public_outside_train=outside,
        users_without_train=_absent(train_pairs.user, table.num_users),
        users_without_test=_absent(test_pairs.user, table.num_users),
        items_without_train=_absent(train_pairs.item, table.num_items),
        malformed=table.malformed,
        notes=table.notes,
    )
    digest = fingerprint(table.num_users, table.num_items, train_pairs, test_pairs, valid_pairs, public_pairs)
    return Split(
        dataset=dataset,
        split=split,
        num_users=table.num_users,
        num_items=table.num_items,
        train=train_pairs,
        test=test_pairs,
        valid=valid_pairs,
        public=public_pairs,
        report=report,
        fingerprint=digest,
    )


def _positions(user: Ints, num_users: int) -> tuple[Int64, Int64]:
    """Rows per user [num_users], and for every row its place among the rows of its user [n]; rows grouped by user."""
    counts = np.bincount(user, minlength=num_users).astype(np.int64)
    starts = np.cumsum(counts) - counts
    return counts, np.arange(len(user)) - starts[user]


def _drawn(seed: int, purpose: str, counts: Int64) -> Int64:
    """For every user one of its places 0 .. counts - 1, uniformly; -1 where there is none. int64 [num_users]."""
    draws = stream(seed, purpose).random(len(counts))
    return np.minimum((draws * counts).astype(np.int64), counts - 1)


def _keys(rows: Interactions, num_items: int) -> Int64:
    """One int64 per row that orders rows by (user, item), sorted."""
    keys: Int64 = rows.user.astype(np.int64)
    keys *= num_items
    keys += rows.item
    keys.sort()
    return keys


def _distinct(keys: Int64) -> Int64:
    """``keys`` (sorted) without repeats; the array itself when there are none."""
    fresh = np.ones(len(keys), dtype=bool)
    np.not_equal(keys[1:], keys[:-1], out=fresh[1:])
    return keys if bool(fresh.all()) else keys[fresh]


def _member(keys: Int64, among: Int64) -> npt.NDArray[np.bool_]:
    """For every key whether it is in ``among`` (sorted)."""
    if len(among) == 0:
        return np.zeros(len(keys), dtype=bool)
    place = np.minimum(np.searchsorted(among, keys), len(among) - 1)
    found: npt.NDArray[np.bool_] = among[place] == keys
    return found


def _first_occurrences(rows: Interactions, num_items: int) -> npt.NDArray[np.bool_] | None:
    """Mask of the rows whose pair did not occur in an earlier row; None when no pair repeats."""
    keys = _keys(rows, num_items)
    if len(_distinct(keys)) == len(keys):
        return None
    unsorted = rows.user.astype(np.int64) * num_items + rows.item
    order = np.argsort(unsorted, kind="stable")
    fresh = np.ones(len(keys), dtype=bool)
    np.not_equal(unsorted[order[1:]], unsorted[order[:-1]], out=fresh[1:])
    mask = np.zeros(len(keys), dtype=bool)
    mask[order[fresh]] = True
    return mask


def _pairs(keys: Int64, num_items: int) -> Pairs:
    user = keys // max(num_items, 1)
    return Pairs(user=user, item=keys - user * num_items)


def _absent(present: Int64, size: int) -> int:
    """How many of the indices 0 .. size-1 do not occur."""
    return int(size - np.count_nonzero(np.bincount(present, minlength=size)))
