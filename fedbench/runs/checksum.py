"""The checksum of a record: SHA-256 over its values, whatever file they lie in.

A file's pages have checksums of their own, but its footer, which says where each page lies and what it means, has none; and
a packed file, a bundle and a copy of a copy must tell the same of one record.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa


def checksums(table: pa.Table) -> list[str]:
    """The SHA-256 of every row: over the columns by name, of each its name and its value.

    Nulls are left out, and so are columns and fields of points in which a row has nothing but nulls: what a later schema
    adds does not change the checksum of an earlier record. Numbers count as their little-endian bytes, all else as JSON;
    a list of structs as its length, and then each field like a column, with a byte for each value that is 0 where it is null.

    Args:
        table: any columns; none of them is the checksum itself.
    """
    digests = []
    for batch in table.combine_chunks().to_batches():
        rows = [hashlib.sha256() for _ in range(len(batch))]
        for name in sorted(batch.schema.names):
            for leaf, pieces in _leaves(name, batch.column(name)):
                head = f"{leaf}=".encode()
                for row, piece in zip(rows, pieces, strict=True):
                    if piece is not None:
                        row.update(b"%b%d:%b" % (head, len(piece), piece))
        digests += [row.hexdigest() for row in rows]
    return digests


def _leaves(name: str, array: pa.Array) -> Iterator[tuple[str, list[bytes | None]]]:
    """Name and bytes of every row, None for nothing but nulls, of a column or of each of its fields."""
    kind = array.type
    if array.null_count == len(array):
        return
    if pa.types.is_list(kind) and pa.types.is_struct(kind.value_type):
        lengths = array.value_lengths()
        yield name, _spans(lengths, np.arange(len(array) + 1))
        ends = np.concatenate([[0], np.cumsum(lengths.fill_null(0).to_numpy())])
        fields = zip(kind.value_type.names, array.flatten().flatten(), strict=True)
        for field, values in sorted(fields, key=lambda each: each[0]):
            if values.null_count < len(values):
                yield f"{name}.{field}", _spans(values, ends)
    elif pa.types.is_primitive(kind):
        yield name, _spans(array, np.arange(len(array) + 1))
    else:
        yield name, [None if value is None else json.dumps(value).encode() for value in array.to_pylist()]


def _spans(array: pa.Array, ends: np.ndarray[Any, Any]) -> list[bytes | None]:
    """The bytes of the numbers ``ends[i]`` to ``ends[i + 1]``, and which of them are there, for every i."""
    there = np.ones(len(array), bool)
    if pa.types.is_timestamp(array.type):
        array = array.cast(pa.int64())
    if array.null_count:
        there = array.is_valid().to_numpy(zero_copy_only=False)
        array = array.fill_null(False if pa.types.is_boolean(array.type) else 0)
    numbers = array.to_numpy(zero_copy_only=False)
    data, mask, width = numbers.tobytes(), there.tobytes(), numbers.itemsize
    bounds = zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True)
    whole = [(data[a * width : b * width], mask[a:b]) for a, b in bounds]
    return [values + valid if any(valid) else None for values, valid in whole]
