"""From the files of a published split to its table. Indices stay as they are in the files."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fedbench.data.columns import TRIPLES, read_columns
from fedbench.data.lists import read_lists
from fedbench.data.records import Interactions, Ints, Table
from fedbench.errors import DataError


def published_table(
    files: Mapping[str, tuple[str, bytes]],
    layout: str,
    order: str,
    *,
    num_users: int = 0,
    num_items: int = 0,
    skip_malformed: bool = False,
) -> Table:
    """Read the parts of a published split.

    Args:
        files: part name (``train``, ``test``, ``valid``, ``public:<share>``) -> (name for messages, content).
        layout: ``lists`` (``user item item ...``) or ``triples`` (user, item, timestamp separated by tabs).
        order: where the split comes from, for the report.
        num_users: size of the index space where the source is known to need more than the largest index + 1.
        num_items: likewise.
        skip_malformed: count malformed lines instead of refusing the file.

    Raises:
        DataError: a malformed line, or a part without any interaction.
    """
    parts: dict[str, Interactions] = {}
    malformed = 0
    for part, (where, data) in files.items():
        if layout == "lists":
            rows, skipped = read_lists(data, where, skip_malformed=skip_malformed)
        else:
            rows, skipped = _triples(data, where, skip_malformed)
        if len(rows) == 0 and not part.startswith("public:"):
            raise DataError(f"{where}: the file holds no interaction.")
        parts[part] = rows
        malformed += skipped
    users = max(int(rows.user.max(initial=-1)) + 1 for rows in parts.values())
    items = max(int(rows.item.max(initial=-1)) + 1 for rows in parts.values())
    return Table(
        parts=parts,
        num_users=max(users, num_users),
        num_items=max(items, num_items),
        ordered=False,
        order=order,
        malformed=malformed,
    )


def _triples(data: bytes, where: str, skip_malformed: bool) -> tuple[Interactions, int]:
    columns = read_columns(data, TRIPLES, where, skip_malformed=skip_malformed)
    user = _indices(columns.user, f"{where}: user")
    item = _indices(columns.item, f"{where}: item")
    if columns.time is not None:
        arranged = np.lexsort((columns.time, user))
        user, item = user[arranged], item[arranged]
    return Interactions(user, item), columns.malformed


def _indices(ids: pa.Array, what: str) -> Ints:
    """Text to int32 indices."""
    try:
        values: Ints = np.asarray(pc.cast(ids, pa.int32()))
    except pa.ArrowInvalid as error:
        raise DataError(f"{what} ids must be 0-based indices: {str(error).splitlines()[0]}.") from error
    if values.min(initial=0) < 0:
        raise DataError(f"{what} ids must be 0-based indices, found {int(values.min())}.")
    return values
