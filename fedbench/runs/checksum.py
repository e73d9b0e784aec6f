"""The checksum of a record: SHA-256 over its values, whatever file they lie in.

A file's pages have checksums of their own, but its footer, which says where each page lies and what it means, has none; and
a packed file, a bundle and a copy of a copy must tell the same of one record.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Ints = npt.NDArray[np.int64]


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
        columns = [
            pieces
            for name in sorted(batch.schema.names)
            for leaf, array, ends in _leaves(name, batch.column(name))
            for pieces in [_texts(leaf, array) if ends is None else _spans(leaf, array, ends)]
        ]
        rows = map(b"".join, zip(*columns, strict=True)) if columns else [b""] * len(batch)
        digests += [hashlib.sha256(row).hexdigest() for row in rows]
    return digests


def _leaves(name: str, array: pa.Array) -> Iterator[tuple[str, pa.Array, Ints | None]]:
    """Name, values and where those of every row end, of a column or each of its fields; None: they are no numbers."""
    kind = array.type
    if array.null_count == len(array):
        return
    single = np.arange(len(array) + 1)
    if pa.types.is_list(kind) and pa.types.is_struct(kind.value_type):
        lengths = array.value_lengths()
        yield name, lengths, single
        ends = np.concatenate([[0], np.cumsum(lengths.fill_null(0).to_numpy())])
        fields = zip(kind.value_type.names, array.flatten().flatten(), strict=True)
        for field, values in sorted(fields, key=lambda each: each[0]):
            if values.null_count < len(values):
                yield f"{name}.{field}", values, ends
    else:
        yield name, array, single if pa.types.is_primitive(kind) else None


def _texts(name: str, array: pa.Array) -> list[bytes]:
    """``name=LENGTH:JSON`` of every value, empty for null; equal texts are made once."""
    coded = array.dictionary_encode() if pa.types.is_string(array.type) else None
    values = array.to_pylist() if coded is None else coded.dictionary.to_pylist()
    made = [_piece(name, json.dumps(value).encode()) if value is not None else b"" for value in values]
    return made if coded is None else [b"" if code is None else made[code] for code in coded.indices.to_pylist()]


def _spans(name: str, array: pa.Array, ends: Ints) -> list[bytes]:
    """``name=LENGTH:BYTES`` of the numbers ``ends[i]`` to ``ends[i + 1]`` and of which are there; empty if none is."""
    there = np.ones(len(array), bool)
    if pa.types.is_timestamp(array.type):
        array = array.cast(pa.int64())
    if array.null_count:
        there = array.is_valid().to_numpy(zero_copy_only=False)
        array = array.fill_null(False if pa.types.is_boolean(array.type) else 0)
    numbers = array.to_numpy(zero_copy_only=False)
    data, mask, width = numbers.tobytes(), there.tobytes(), numbers.itemsize
    counts = np.concatenate([[0], np.cumsum(there)])[ends]
    bounds = zip(ends[:-1].tolist(), ends[1:].tolist(), (counts[1:] > counts[:-1]).tolist(), strict=True)
    heads = {n: f"{name}={n * (width + 1)}:".encode() for n in set(np.diff(ends).tolist())}
    return [heads[b - a] + data[a * width : b * width] + mask[a:b] if some else b"" for a, b, some in bounds]


def _piece(name: str, value: bytes) -> bytes:
    return b"%b=%d:%b" % (name.encode(), len(value), value)
