"""The checksum of a record: SHA-256 over its values, whatever file they lie in.

A file's pages have checksums of their own, but its footer, which says where each page lies and what it means, has none; and
a packed file, a bundle and a copy of a copy must tell the same of one record.

Records are read by the hundred thousand, so the bytes of many are laid out at once, column by column.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Ints = npt.NDArray[np.int64]

_BYTES = pa.large_binary()
_AT_ONCE = 2048
"""Rows whose bytes are laid out together."""


def checksums(table: pa.Table) -> list[str]:
    """The SHA-256 of every row: over the columns by name, of each its name and its value.

    Nulls are left out, and so are columns and fields of points in which a row has nothing but nulls: what a later schema
    adds does not change the checksum of an earlier record. Numbers count as their little-endian bytes, all else as JSON;
    a list of structs as its length, and then each field like a column, with a byte for each value that is 0 where it is null.

    Args:
        table: any columns; none of them is the checksum itself.
    """
    digests = []
    for batch in table.combine_chunks().to_batches(max_chunksize=_AT_ONCE):
        one_each = _Spans(np.arange(len(batch) + 1))
        names = sorted(batch.schema.names)
        pieces = [piece for name in names for piece in _pieces(name, batch.column(name), one_each)]
        columns = [pa.array([b""] * len(batch), _BYTES)]
        for alike, several in itertools.groupby(pieces, lambda piece: isinstance(piece, _Alike)):
            own = list(several)
            columns += [_block(own)] if alike else own
        _, ends, data = pc.binary_join_element_wise(*columns, pa.scalar(b"", _BYTES), null_handling="skip").buffers()
        places, laid = np.frombuffer(ends, np.int64).tolist(), memoryview(data or b"")
        digests += [hashlib.sha256(laid[a:b]).hexdigest() for a, b in itertools.pairwise(places)]
    return digests


@dataclass(frozen=True)
class _Spans:
    """Which values of an array each row has: those from ``ends[i]`` to ``ends[i + 1]``."""

    ends: Ints

    @cached_property
    def lengths(self) -> tuple[list[int], Ints]:
        """How many values a row may have, and the place in that list of each row's own number."""
        found, codes = np.unique(np.diff(self.ends), return_inverse=True)
        return found.tolist(), codes

    def rows_with(self, there: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """Which rows have a value that is there."""
        before = np.concatenate([[0], np.cumsum(there)])[self.ends]
        return before[1:] > before[:-1]

    def cut(self, values: npt.NDArray[np.generic]) -> pa.Array:
        """The bytes of each row's values."""
        places = pa.py_buffer(self.ends * values.itemsize)
        return pa.Array.from_buffers(_BYTES, len(self.ends) - 1, [None, places, pa.py_buffer(values)])


@dataclass(frozen=True)
class _Alike:
    """Numbers of which every row has as many and no null; ``values``: [rows, numbers]."""

    head: bytes
    values: npt.NDArray[np.generic]


def _block(parts: Sequence[_Alike]) -> pa.Array:
    """What rows have of several such columns, one after the other: of equal length, so that whole columns are copied."""
    row = b"".join(part.head + bytes(part.values[0].nbytes) + b"\1" * part.values.shape[1] for part in parts)
    laid = np.empty((len(parts[0].values), len(row)), np.uint8)
    laid[:] = np.frombuffer(row, np.uint8)
    place = 0
    for head, values in ((part.head, part.values) for part in parts):
        place += len(head)
        np.ndarray(values.shape, values.dtype, laid.data, place, (len(row), values.itemsize))[:] = values
        place += values[0].nbytes + values.shape[1]
    return _Spans(np.arange(len(laid) + 1) * len(row)).cut(laid)


def _pieces(name: str, array: pa.Array, one_each: _Spans) -> Iterator[pa.Array | _Alike]:
    """What rows have of a column or of each of its fields, one after the other; null where they have nothing."""
    kind = array.type
    if array.null_count == len(array):
        return
    if pa.types.is_list(kind) and pa.types.is_struct(kind.value_type):
        yield from _numbers(name, array.value_lengths(), one_each)
        spans = _Spans(_ends(array))
        fields = zip(kind.value_type.names, array.flatten().flatten(), strict=True)
        for field, values in sorted(fields, key=lambda each: each[0]):
            if values.null_count < len(values):
                yield from _numbers(f"{name}.{field}", values, spans)
    elif pa.types.is_primitive(kind):
        yield from _numbers(name, array, one_each)
    else:
        yield _texts(name, array)


def _texts(name: str, array: pa.Array) -> pa.Array:
    """``name=LENGTH:JSON`` of every value; equal ones are made once."""
    coded = _json(array)
    made = [b"%b=%d:%b" % (name.encode(), len(text), text) for text in coded.dictionary.to_pylist()]
    return pa.array(made, _BYTES).take(coded.indices)


def _json(array: pa.Array) -> pa.DictionaryArray:
    """The JSON of every value; null where it is null."""
    kind = array.type
    if pa.types.is_string(kind) or pa.types.is_integer(kind):
        coded = array.dictionary_encode()
        texts = pa.array([json.dumps(value).encode() for value in coded.dictionary.to_pylist()], pa.binary())
        return pa.DictionaryArray.from_arrays(coded.indices, texts)
    if pa.types.is_list(kind):
        values = _json(array.flatten()).dictionary_decode().fill_null(b"null")
        joined = pc.binary_join(pa.ListArray.from_arrays(pa.array(_ends(array), pa.int32()), values), b", ")
        texts = pc.binary_join_element_wise(b"[", joined, b"]", b"")
        return pc.if_else(array.is_valid(), texts, None).dictionary_encode()
    texts = [None if value is None else json.dumps(value).encode() for value in array.to_pylist()]
    return pa.array(texts, pa.binary()).dictionary_encode()


def _numbers(name: str, array: pa.Array, spans: _Spans) -> list[pa.Array | _Alike]:
    """``name=LENGTH:``, the bytes of each row's values, and which of them are there; null where none is."""
    if pa.types.is_timestamp(array.type):
        array = array.cast(pa.int64())
    filled = array.fill_null(False if pa.types.is_boolean(array.type) else 0) if array.null_count else array
    values = np.ascontiguousarray(filled.to_numpy(zero_copy_only=False))
    lengths, codes = spans.lengths
    heads = [f"{name}={n * (values.itemsize + 1)}:".encode() for n in lengths]
    if len(lengths) == 1 and not array.null_count:
        return [_Alike(heads[0], values.reshape(len(codes), -1))] if lengths[0] else []
    there = array.is_valid().to_numpy(zero_copy_only=False)
    pieces = [pa.array(heads, _BYTES).take(pa.array(codes)), spans.cut(values), spans.cut(there)]
    return [pc.if_else(spans.rows_with(there), piece, None) for piece in pieces]


def _ends(lists: pa.Array) -> Ints:
    """Where the values of each list begin in all of them, and where the last ends; a null has none."""
    return np.concatenate([[0], np.cumsum(lists.value_lengths().fill_null(0).to_numpy())])
