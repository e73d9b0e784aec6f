"""The run records of a bundle: read with the project's own schema, and every column that can be recomputed, recomputed."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from fedbench.runs.record import schema
from fedbench.submission.report import Check, brief, some

MOST_ROWS = 20_000
MOST_BYTES = 1 << 29
"""Bytes that the records may take once they are read."""

MOST_MEMORY = 1 << 32
"""Bytes of address space that reading them may take; allocators reserve a gigabyte at a time."""

Row = dict[str, Any]

OPTIONAL = frozenset({"error", "suite", "peak_gpu_bytes", "git_commit", "git_dirty", "best_epoch"})
"""Columns that may be null; so may metrics, and what an earlier version of the schema did not have."""


def read_records(data: bytes, check: Check) -> list[Row]:
    """The rows of ``records.parquet``; empty, with a reason, when it is not exactly the form that fedbench writes."""
    try:
        with _memory_limit(MOST_MEMORY):
            file = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)
            _judge(file, check)
            return [] if check.reasons else file.read(use_threads=False).to_pylist()
    except (pa.ArrowException, OSError, ValueError, TypeError, KeyError, MemoryError, OverflowError) as error:
        check.refuse(f"records.parquet: cannot be read: {str(error) or type(error).__name__}.")
    return []


def _judge(file: pq.ParquetFile, check: Check) -> None:
    """The form, by what the file says of itself: columns, types, and the size that it unpacks to."""
    expected = schema()
    found = file.schema_arrow
    if found.names != expected.names:
        lacking = [name for name in expected.names if name not in found.names]
        foreign = [name for name in found.names if name not in expected.names]
        what = [
            f"{word} {some([brief(name) for name in names])}"
            for word, names in (("lacks", lacking), ("has", foreign))
            if names
        ]
        check.refuse(f"records.parquet: not the columns of a record: {' and '.join(what) or 'another order'}.")
        return
    for name in expected.names:
        if found.field(name).type != expected.field(name).type:
            check.refuse(
                f"records.parquet: column {name} is {found.field(name).type}, not {expected.field(name).type}."
            )
    metadata = file.metadata
    if metadata.num_rows > MOST_ROWS:
        check.refuse(f"records.parquet: {metadata.num_rows:,} rows (at most {MOST_ROWS:,}).")
    if metadata.num_row_groups > MOST_ROWS:
        check.refuse(f"records.parquet: {metadata.num_row_groups:,} row groups.")
        return
    total = 0
    for group in range(metadata.num_row_groups):
        row_group = metadata.row_group(group)
        for number in range(row_group.num_columns):
            column = row_group.column(number)
            total += column.total_uncompressed_size
            # A dictionary, or a chain of prefixes, lets a few bytes stand for many long texts.
            if column.has_dictionary_page or not set(column.encodings) <= {"PLAIN", "RLE"}:
                check.refuse(f"records.parquet: column {column.path_in_schema} is not stored plainly.")
                return
    if total > MOST_BYTES:
        check.refuse(f"records.parquet: it unpacks to {total:,} bytes (at most {MOST_BYTES:,}).")


@contextlib.contextmanager
def _memory_limit(more: int) -> Iterator[None]:
    """On Linux, let this process take at most so many bytes beyond what it has: metadata can lie about sizes."""
    if not sys.platform.startswith("linux"):
        yield
        return
    import resource

    with open("/proc/self/statm", encoding="ascii") as pages:
        now = int(pages.read().split()[0]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    limits = [now + more, *(each for each in (soft, hard) if each != resource.RLIM_INFINITY)]
    resource.setrlimit(resource.RLIMIT_AS, (min(limits), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def written(rows: Sequence[Row]) -> bytes:
    """The rows, sorted by run, as the bytes of ``records.parquet``."""
    table = pa.Table.from_pylist(sorted(rows, key=lambda row: row["run_id"]), schema=schema())
    out = io.BytesIO()
    pq.write_table(
        table, out, compression="zstd", write_statistics=False, use_dictionary=False, write_page_checksum=True
    )
    return out.getvalue()
