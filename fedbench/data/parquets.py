"""Interactions in parquet files of other programs: columns by name, as tables have them."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fedbench.data.columns import Columns, Float64
from fedbench.data.dates import dates_of, seconds_of
from fedbench.data.names import ROLES, UNTOLD, Picks, chosen, missing
from fedbench.errors import DataError

MAGIC = b"PAR1"
_FIRST = 200


def parquet_columns(data: bytes, where: str, skip_malformed: bool, picks: Picks = UNTOLD) -> tuple[Columns, str]:
    """The columns of a parquet file, and a note of what was taken for what.

    Args:
        data: the whole file. where: its name for messages.
        skip_malformed: leave out rows without a user, an item or a time, and count them.
        picks: what somebody says of the columns.

    Raises:
        DataError: it is damaged, nothing tells which columns are meant, or rows are incomplete.
    """
    try:
        file = pq.ParquetFile(io.BytesIO(data))
        header = file.schema_arrow.names
        places = {role: picks.place(role, header, len(header), where) for role in ROLES}
        found = {
            role: None if picks.without(role) else name if places[role] is None else header[places[role] or 0]
            for role, name in chosen(header).items()
        }
        user, item, rating, time = (found[role] for role in ROLES)
        if user is None or item is None:
            raise missing(where, "user" if user is None else "item", header)
        table = file.read(columns=list({name: None for name in found.values() if name is not None}))
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{where}: damaged parquet file ({str(error).splitlines()[0]}); get it again.") from None
    users, items = (_ids(table.column(name), f"{where}: {name!r}") for name in (user, item))
    ratings = None if rating is None else _numbers(table.column(rating))
    times = None if time is None else _times(table.column(time), f"{where}: {time!r}")
    known = np.asarray(pc.and_(pc.is_valid(users), pc.is_valid(items)))
    if times is not None:
        known &= np.isfinite(times)
    rows = np.flatnonzero(known)
    if len(rows) < len(known) and not skip_malformed:
        row = int(np.flatnonzero(~known)[0]) + 1
        raise DataError(f"{where}: row {row} has no user, item or time; fill it, or leave such out: --skip-malformed.")
    columns = Columns(users, items, {} if ratings is None else {"rating": ratings}, times, len(known) - len(rows))
    taken = ", ".join(f"{role} {name!r}" for role, name in found.items() if name is not None)
    return columns if len(rows) == len(known) else columns.take(rows), f"read {taken}"


def _ids(column: pa.ChunkedArray, what: str) -> pa.Array:
    """Ids as text [n]; whole numbers that were stored as floats without their point."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        column = pc.cast(column, kind.value_type)
    if pa.types.is_floating(column.type):
        with contextlib.suppress(pa.ArrowInvalid):  # other than whole numbers: as they are written
            column = pc.cast(column, pa.int64())
    try:
        return pc.cast(column, pa.string()).combine_chunks()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise DataError(f"{what} holds {column.type}, which is no id; name another column.") from None


def _numbers(column: pa.ChunkedArray) -> Float64 | None:
    """Numbers [n], nan where empty; None where the column holds none."""
    try:
        return np.asarray(pc.fill_null(pc.cast(column, pa.float64()), float("nan")).combine_chunks(), np.float64)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return None


def _times(column: pa.ChunkedArray, what: str) -> Float64:
    """Seconds (or what unit numbers have) [n], nan where empty."""
    if pa.types.is_dictionary(column.type):
        column = pc.cast(column, column.type.value_type)
    if pa.types.is_temporal(column.type):
        column = pc.cast(column, pa.timestamp("us", getattr(column.type, "tz", None)))
        column = pc.divide(pc.cast(pc.cast(column, pa.int64()), pa.float64()), 1e6)
    elif pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        column = pc.cast(column, pa.string())
        try:
            dates = dates_of([text for text in column.slice(0, _FIRST).to_pylist() if text])
            column = pc.cast(column, pa.float64()) if dates is None else seconds_of(column, dates)
        except (pa.ArrowInvalid, ValueError) as error:
            raise DataError(f"{what}: times cannot be read ({str(error).splitlines()[0]}); say --time none.") from None
    found = _numbers(column)
    if found is None:
        raise DataError(f"{what} holds {column.type}, which is no time; say --time none.")
    return found
