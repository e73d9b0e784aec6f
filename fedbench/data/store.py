"""Parsed tables as parquet files: columns user and item (int32), everything else in the file's metadata."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fedbench.data.home import cache_home, replacing
from fedbench.data.records import Dropped, Interactions, Table

PARSER_VERSION = 1
"""Part of every cache name: raise it when the same files would be parsed into another table."""

_KEY = b"fedbench"
_IDS = b"item_ids"
"""Ids of the items by index, JSON; tables that older versions stored are without."""
_WRITING: dict[str, Any] = {
    "compression": "zstd",
    "compression_level": 1,
    "use_dictionary": False,
    "write_page_checksum": True,
}


class DamagedError(Exception):
    """Raised when a parquet file is not one that :func:`write_table` finished."""


def write_table(path: Path, table: Table) -> None:
    """Write a table under a temporary name, then rename it; raises ``OSError`` when the folder cannot be written."""
    meta = {
        "version": PARSER_VERSION,
        "parts": [[name, len(rows)] for name, rows in table.parts.items()],
        "num_users": table.num_users,
        "num_items": table.num_items,
        "ordered": table.ordered,
        "order": table.order,
        "malformed": table.malformed,
        "notes": list(table.notes),
        "dropped": [asdict(each) for each in table.dropped],
    }
    metadata = {_KEY: json.dumps(meta).encode()}
    if table.item_ids is not None:
        metadata[_IDS] = json.dumps(table.item_ids, separators=(",", ":"), ensure_ascii=False).encode()
    schema = pa.schema([("user", pa.int32()), ("item", pa.int32())], metadata=metadata)
    with (
        replacing(path) as temporary,
        pq.ParquetWriter(temporary, schema, **_WRITING) as writer,
    ):
        for rows in table.parts.values():
            columns = [np.ascontiguousarray(column, dtype=np.int32) for column in (rows.user, rows.item)]
            writer.write_table(pa.table(columns, schema=schema), row_group_size=1 << 22)


def read_table(path: Path) -> Table:
    """Read what :func:`write_table` wrote; raises :class:`DamagedError` or ``FileNotFoundError`` otherwise."""
    try:
        stored = pq.read_table(path, use_threads=False, page_checksum_verification=True)
        meta = json.loads(stored.schema.metadata[_KEY])
        user, item = (stored.column(name).to_numpy() for name in ("user", "item"))
        parts: dict[str, Interactions] = {}
        start = 0
        for name, length in meta["parts"]:
            parts[name] = Interactions(user[start : start + length], item[start : start + length])
            start += length
        ids = stored.schema.metadata.get(_IDS)
        if start != len(user) or meta["version"] != PARSER_VERSION:
            raise DamagedError(f"{path} does not hold what its metadata says")
        return Table(
            parts=parts,
            num_users=meta["num_users"],
            num_items=meta["num_items"],
            ordered=meta["ordered"],
            order=meta["order"],
            malformed=meta["malformed"],
            notes=tuple(meta["notes"]),
            item_ids=None if ids is None else tuple(json.loads(ids)),
            dropped=tuple(Dropped(**each) for each in meta.get("dropped", ())),
        )
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
        raise DamagedError(f"{path} cannot be read: {str(error).splitlines()[0]}") from error


def cached(identity: str, build: Callable[[], Table], *, with_ids: bool = False) -> Table:
    """The table called ``identity`` from the cache, or built and then kept there.

    A damaged cache file is built again, and so is one without ids of items ``with_ids``; a cache that cannot be
    written is done without.
    """
    path = cache_home() / "parsed" / f"{identity}.parquet"
    with contextlib.suppress(FileNotFoundError, NotADirectoryError, PermissionError, DamagedError):
        kept = read_table(path)
        if kept.item_ids is not None or not with_ids:
            return kept
    table = build()
    with contextlib.suppress(OSError):
        write_table(path, table)
    return table
