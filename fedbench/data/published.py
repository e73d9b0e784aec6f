"""From the files of a published split to its table. Indices stay as they are in the files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fedbench.data.columns import TRIPLES, Columns, read_columns
from fedbench.data.formats import read
from fedbench.data.interactions import ids_by_appearance, index_by_appearance
from fedbench.data.lists import bare_lists, is_indexed, looks_like_lists, read_lists, read_named_lists
from fedbench.data.names import UNTOLD, Picks
from fedbench.data.parquets import MAGIC
from fedbench.data.records import Interactions, Ints, Table
from fedbench.data.sniffing import first_lines, sniff
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


def split_table(
    files: Mapping[str, tuple[str, bytes]],
    order: str,
    *,
    skip_malformed: bool = False,
    picks: Picks = UNTOLD,
    keep: bool = False,
) -> Table:
    """The parts of a split that somebody brings: lists, pairs, triples, tables, objects in JSON, or parquet.

    All parts are read alike. Indices stay as they are in the files where each of them occurs. Else they are numbered anew,
    in their order, and a note says so; ids that are text or have too many digits are numbered by first appearance.

    Args:
        files, order, skip_malformed: as of :func:`published_table`.
        picks: what was said of the columns.
        keep: leave indices as they are unless more than half of them would be of nobody.

    Raises:
        DataError: as :func:`published_table`. UserError: a column that was named is not there.
    """
    layout = "" if picks else _layout(files)
    if layout in ("lists", "named lists"):
        files = {part: (where, bare_lists(data)) for part, (where, data) in files.items()}
    if layout in ("lists", "triples"):
        return _dense(published_table(files, layout, order, skip_malformed=skip_malformed), keep)
    columns: dict[str, Columns] = {}
    notes: dict[str, None] = {}
    for part, (where, data) in files.items():
        told: tuple[str, ...]
        if layout == "named lists":
            table, told = Columns(*read_named_lists(data), {}, None, 0), ("read lists: user item item ...",)
        else:
            table, _, told = read(data, "", where, layout or "auto", skip_malformed, picks)
        if not len(table):
            raise DataError(f"{where}: the file holds no interaction.")
        columns[part] = table
        notes.update(dict.fromkeys(told))
    users, items = (
        pa.chunked_array([getattr(each, kind) for each in columns.values()]).combine_chunks()
        for kind in ("user", "item")
    )
    (user, num_users, _), (item, num_items, item_ids) = _numbered(users), _numbered(items)
    parts, start = {}, 0
    for part, each in columns.items():
        parts[part] = Interactions(user[start : start + len(each)], item[start : start + len(each)])
        start += len(each)
    malformed = sum(each.malformed for each in columns.values())
    return _dense(Table(parts, num_users, num_items, False, order, malformed, tuple(notes), item_ids), keep)


def _layout(files: Mapping[str, tuple[str, bytes]]) -> str:
    """How all parts are written: ``lists`` or ``triples`` of indices, ``named lists``, ``table``; empty: see each."""
    contents = [data for _, data in files.values()]
    if any(data.startswith(MAGIC) or data.lstrip()[:1] in (b"{", b"[") for data in contents):
        return ""
    sniffed = [sniff(data) for data in contents]
    lists = [looks_like_lists(first_lines(data)) for data in contents]
    plain = all(each is None or (each.header is None and each.separator in "\t ") for each in sniffed)
    pairs = [each is not None and each.header is None and each.width == 2 for each in sniffed]
    beside = any(lists) and all(alike or pair for alike, pair in zip(lists, pairs, strict=True))
    if not plain and not beside:
        return "table"
    widths = {0 if each is None else each.width for each in sniffed}
    tabs = all(each is not None and each.separator == "\t" for each in sniffed)
    rows = any(
        each is not None and each.separator == " " and each.width in (3, 4) and (each.ends_in_times or not alike)
        for each, alike in zip(sniffed, lists, strict=True)
    )
    indexed = all(map(is_indexed, contents))
    if rows or (tabs and widths == {4}) or (tabs and not indexed and max(widths) <= 4):
        return "table"
    if tabs and widths == {3}:
        return "triples"
    return "lists" if indexed else "named lists"


def _numbered(ids: pa.Array) -> tuple[Ints, int, tuple[str, ...] | None]:
    """Indices, how many, and the ids by index: None where these are the indices themselves."""
    try:
        index = _indices(ids, "")
        return index, int(index.max()) + 1, None
    except DataError:
        index, size = index_by_appearance(ids)
        return index, size, ids_by_appearance(ids)


def _dense(table: Table, keep: bool) -> Table:
    """The table, its users or items numbered anew where an index (``keep``: more than half of them) is of nobody."""
    parts = dict(table.parts)
    notes, item_ids, sizes = [*table.notes], table.item_ids, {"user": table.num_users, "item": table.num_items}
    for kind in ("user", "item"):
        known, place = np.unique(np.concatenate([getattr(rows, kind) for rows in parts.values()]), return_inverse=True)
        if sizes[kind] <= (2 if keep else 1) * len(known):
            continue
        notes.append(
            f"{kind}s are numbered anew, in their order: of the {sizes[kind]:,} indices up to the largest,"
            f" {len(known):,} occur"
        )
        start = 0
        for part, rows in parts.items():
            parts[part] = replace(rows, **{kind: place[start : start + len(rows)].astype(np.int32)})
            start += len(rows)
        sizes[kind] = len(known)
        if kind == "item":
            item_ids = tuple(map(str, known.tolist()))
    return replace(
        table, parts=parts, num_users=sizes["user"], num_items=sizes["item"], notes=tuple(notes), item_ids=item_ids
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
