"""The contract of a dataset, as checks that anyone can run."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fedbench.data.contributed import Dataset
from fedbench.data.records import Split, Table
from fedbench.data.splits import MADE, make_split
from fedbench.testing.finding import (
    ITSELF,
    Budget,
    Finding,
    Stop,
    Trials,
    check_global_state,
    check_identity,
    check_memory,
    global_state,
    measured,
    source_file,
)

MINUTES = 10
"""So many minutes a table may take."""


def check_dataset(cls: type[Dataset], budget: Budget | None = None) -> Iterator[Finding]:
    """Every check of a dataset, one after the other: its table, and each split that is made of it.

    Args:
        cls: the dataset's class; it need not be registered. budget: of memory, for one call of ``table``.
    """
    findings = list(check_identity("dataset", cls))
    yield from findings
    if not all(each.ok for each in findings):
        return
    trials = Trials(source_file(cls))
    made: list[Table] = []
    seconds, extra = 0.0, None
    with trials.trial("table") as trial:
        before = global_state()
        seconds, extra = measured(lambda: made.append(cls().table()))
        check_global_state(before, "table()")
        _check_table(made[0])
    yield trials.ran(trial, "fedbench.data.records.Table says what a table holds.")
    yield trials.generators_kept()
    if trials.broken:
        return
    table = made[0]
    yield _check_ids(table)
    yield _check_duplicates(table)
    yield _check_counts(cls, table)
    yield _check_deterministic(cls, table)
    with trials.trial("splits") as trial:
        for split in MADE:
            _check_split(make_split(cls.card.name, split, table, duplicates="drop", seed=0))
    yield trials.ran(trial, "Leave out users with a single item; protocols split the data in all these ways.")
    slow = seconds > 60 * MINUTES
    todo = "Keep what was made in a file, and read that." if slow else ""
    yield Finding("time", "failed" if slow else "ok", f"{seconds:.1f} s; at most {60 * MINUTES} s", todo)
    yield check_memory(extra, budget or Budget(bytes=8 << 30))


def _check_table(table: object) -> None:
    if not isinstance(table, Table):
        raise Stop(ITSELF, f"table() returned {type(table).__name__} instead of Table")
    if set(table.parts) != {"all"}:
        raise Stop(ITSELF, f"parts has {sorted(table.parts)} instead of 'all' alone; splits are made of it")
    rows = table.parts["all"]
    for name, ids, size in (("user", rows.user, table.num_users), ("item", rows.item, table.num_items)):
        if not isinstance(ids, np.ndarray) or ids.ndim != 1 or not np.issubdtype(ids.dtype, np.integer):
            raise Stop(ITSELF, f"{name} must be an array of integers with one dimension")
        if not len(ids) or ids.min() < 0 or ids.max() >= size:
            raise Stop(ITSELF, f"{name} ids must be within 0 to {size - 1}, and there must be some")
    if len(rows.user) != len(rows.item):
        raise Stop(ITSELF, f"there are {len(rows.user)} users and {len(rows.item)} items; rows are pairs")
    if (np.diff(rows.user) < 0).any():
        raise Stop(ITSELF, "rows must be grouped by user, ascending")


def _check_ids(table: Table) -> Finding:
    rows = table.parts["all"]
    absent = [
        f"{size - len(np.unique(ids))} of {size} {name} ids"
        for name, ids, size in (("user", rows.user, table.num_users), ("item", rows.item, table.num_items))
        if len(np.unique(ids)) < size
    ]
    if absent:
        todo = "Number users and items from 0 without gaps: np.unique(ids, return_inverse=True)[1]."
        return Finding("dense ids", "failed", f"{' and '.join(absent)} have no interaction", todo)
    return Finding("dense ids", "ok", "every user and item occurs")


def _check_duplicates(table: Table) -> Finding:
    rows = table.parts["all"]
    pairs = rows.user.astype(np.int64) * table.num_items + rows.item
    twice = len(pairs) - len(np.unique(pairs))
    if twice:
        todo = "Keep the first of each (user, item); the order of the others stays."
        return Finding("duplicates", "failed", f"{twice} rows repeat a (user, item)", todo)
    return Finding("duplicates", "ok", "no (user, item) occurs twice")


def _check_counts(cls: type[Dataset], table: Table) -> Finding:
    card = cls.card
    told = (card.users, card.items, card.interactions)
    found = (table.num_users, table.num_items, len(table.parts["all"]))
    names = ("users", "items", "interactions")
    wrong = [f"{name} = {a}, the table has {b}" for name, a, b in zip(names, told, found, strict=True) if a != b]
    if wrong:
        return Finding("counts", "failed", f"card: {'; '.join(wrong)}", "Put the numbers of the table on the card.")
    return Finding("counts", "ok", "{:,} users, {:,} items, {:,} interactions".format(*found))


def _check_deterministic(cls: type[Dataset], table: Table) -> Finding:
    again = cls().table().parts["all"]
    rows = table.parts["all"]
    if np.array_equal(rows.user, again.user) and np.array_equal(rows.item, again.item):
        return Finding("deterministic", "ok", "a second call gives the same table")
    todo = "Draw from numpy.random.default_rng(a fixed seed), and rely on no order of a set or a folder."
    return Finding("deterministic", "failed", "a second call gave another table", todo)


def _check_split(split: Split) -> None:
    if split.report.users_without_train:
        raise Stop(ITSELF, f"{split.split}: {split.report.users_without_train} users have nothing to train on")
    if split.report.users_without_test == split.num_users or not len(split.test):
        raise Stop(ITSELF, f"{split.split}: no user has a test item")
