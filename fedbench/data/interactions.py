"""From columns of a file to the unsplit table: indices by first appearance, each user's rows oldest first."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fedbench.data.columns import Columns
from fedbench.data.records import Interactions, Ints, Table

Float64 = npt.NDArray[np.float64]
Int32 = npt.NDArray[np.int32]


def table_of_columns(columns: Columns, notes: tuple[str, ...] = ()) -> Table:
    """The unsplit table of a file; ordered by its time column, or by the file where it has none."""
    user, num_users = index_by_appearance(columns.user)
    item, num_items = index_by_appearance(columns.item)
    ordered = columns.time is not None
    order = "by timestamp, ties by file order" if ordered else "the source has no timestamps"
    table = unsplit(user, item, num_users, num_items, columns.time, order, malformed=columns.malformed, notes=notes)
    return replace(table, item_ids=ids_by_appearance(columns.item))


def ml_1m_partial_table(columns: Columns) -> Table:
    """MovieLens-1M from the file that lacks a fifth of the timestamps but knows the order.

    Inside a user, a row's time is its own timestamp where that is known, else the latest one known at an earlier or
    equal chronological position. Rows that have neither (137 of 1,000,209, all among the earliest 80 % of the
    interactions) come first. Equal times: by chronological position, then by file order.
    """
    user, num_users = index_by_appearance(columns.user)
    item, num_items = index_by_appearance(columns.item)
    time, position = columns.numbers["timestamp"], columns.numbers["chron_pos"]
    time = np.where(np.isnan(time), -1.0, time)
    position = np.where(np.isnan(position), -1.0, position)

    placed = np.flatnonzero(position >= 0)
    placed = placed[np.lexsort((position[placed], user[placed]))]
    span = float(time.max(initial=0.0)) + 2.0
    running = np.maximum.accumulate(user[placed] * span + time[placed] + 1.0)
    filled = time.copy()
    filled[placed] = running - user[placed] * span - 1.0

    arranged = np.lexsort((position, filled, user))
    order = "by timestamp where known, else by the known chronological position"
    table = unsplit(user[arranged], item[arranged], num_users, num_items, None, order, ordered=True)
    return replace(table, item_ids=ids_by_appearance(columns.item))


def unsplit(
    user: Ints,
    item: Ints,
    num_users: int,
    num_items: int,
    time: Float64 | None,
    order: str,
    *,
    ordered: bool | None = None,
    malformed: int = 0,
    notes: tuple[str, ...] = (),
) -> Table:
    """Group rows by user, oldest first, and wrap them up. Rows of equal time keep their order; so do all without."""
    arranged = np.argsort(user, kind="stable") if time is None else np.lexsort((time, user))
    rows = Interactions(user[arranged].astype(np.int32), item[arranged].astype(np.int32))
    known = time is not None if ordered is None else ordered
    return Table({"all": rows}, num_users, num_items, known, order, malformed, notes)


def reindexed_table(rows: Interactions, order: str) -> Table:
    """An unsplit, unordered table of rows whose ids are renumbered by first appearance."""
    user, num_users = index_by_appearance(pa.array(rows.user))
    item, num_items = index_by_appearance(pa.array(rows.item))
    table = unsplit(user, item, num_users, num_items, None, order)
    return replace(table, item_ids=ids_by_appearance(pa.array(rows.item)))


def union_table(table: Table, order: str, ordered: bool) -> Table:
    """Put the parts of a published split together again: train, then validation, then test of every user.

    ``ordered`` says whether that is known to be chronological.
    """
    parts = [table.parts[name] for name in ("train", "valid", "test") if name in table.parts]
    user = np.concatenate([rows.user for rows in parts])
    item = np.concatenate([rows.item for rows in parts])
    united = unsplit(
        user,
        item,
        table.num_users,
        table.num_items,
        None,
        order,
        ordered=ordered,
        malformed=table.malformed,
        notes=table.notes,
    )
    return replace(united, item_ids=table.item_ids)


def index_by_appearance(ids: pa.Array) -> tuple[Int32, int]:
    """Replace ids by 0, 1, 2, ... in the order in which they first appear, and count them."""
    encoded = ids.dictionary_encode()
    return np.asarray(encoded.indices, dtype=np.int32), len(encoded.dictionary)


def ids_by_appearance(ids: pa.Array) -> tuple[str, ...]:
    """The different ids as text, in the order of the indices of :func:`index_by_appearance`."""
    return tuple(map(str, ids.unique().to_pylist()))
