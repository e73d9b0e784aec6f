"""Tables with one interaction per line: MovieLens, CSV, index triples and RecBole's ``.inter``.

Every format names its separator and where the user, the item and, if any, the time are. Ids are text: they become
0-based indices by first appearance in the file, and the file's order decides between interactions of equal time.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from fedbench.data.dates import Dates, example, fits, seconds_of
from fedbench.errors import DataError

Float64 = npt.NDArray[np.float64]


_BLOCK = 1 << 20
"""Bytes, up to the next line end, that are looked at together when a file holds a malformed line."""
_LONGEST_RECORD = 100
"""Lines that a record with line ends in quotes may have."""
NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,2})?")


@dataclass(frozen=True)
class Layout:
    """How a line is cut. ``numbers`` are columns that must hold a number, by position, with their names."""

    separator: str
    width: int
    user: int
    item: int
    time: int | None
    numbers: tuple[tuple[int, str], ...] = ()
    header: bool = False
    blank: tuple[int, ...] = ()
    """Numbers that may be left empty, by position."""
    dates: Dates | None = None
    """How times are written that are text such as 2010-10-19T23:55:27Z instead of numbers."""
    quoted: bool = False
    """Whether fields may stand in double quotes, and then hold separators and line ends."""
    escaped: bool = False
    """Whether a backslash in such a field takes the next sign as it is."""
    decimal: str = "."
    """The sign between the digits of a number."""
    comments: bool = False
    """Whether lines that begin with # or % and do not fit are no rows."""
    kind: int | None = None
    """A column of text that says what sort of event a row is."""


ML_100K = Layout("\t", 4, 0, 1, 3, ((2, "rating"), (3, "timestamp")))
"""``u.data``: user, item, rating, timestamp."""
ML_1M = Layout("::", 4, 0, 1, 3, ((2, "rating"), (3, "timestamp")))
"""``ratings.dat``: user::movie::rating::timestamp."""
TRIPLES = Layout("\t", 3, 0, 1, 2, ((2, "timestamp"),))
"""user, item, timestamp."""
ML_1M_PARTIAL = Layout(",", 5, 0, 1, 3, ((2, "rating"), (3, "timestamp"), (4, "chron_pos")), True, (2, 3, 4))
"""ratings.dat with part of its timestamps, and each user's chronological positions from the SASRec file."""


@dataclass(frozen=True)
class Columns:
    """The columns of a file, by line. user, item: text; numbers: float64, NaN where empty."""

    user: pa.Array
    item: pa.Array
    numbers: dict[str, Float64]
    time: Float64 | None
    malformed: int
    kind: pa.Array | None = None
    """Text, where the layout names such a column."""

    def __len__(self) -> int:
        return len(self.user)

    def take(self, rows: npt.NDArray[np.integer]) -> Columns:
        """Some of the rows, by place."""
        places = pa.array(rows)
        return replace(
            self,
            user=self.user.take(places),
            item=self.item.take(places),
            numbers={name: values[rows] for name, values in self.numbers.items()},
            time=None if self.time is None else self.time[rows],
            kind=None if self.kind is None else self.kind.take(places),
        )


def read_columns(data: bytes, layout: Layout, where: str, *, skip_malformed: bool = False) -> Columns:
    """Cut a file into its columns.

    Args:
        data: the whole file, decompressed.
        layout: how a line is cut.
        where: the file's name for messages.
        skip_malformed: leave out malformed lines and count them, instead of refusing the file.

    Raises:
        DataError: a line has the wrong number of fields, an empty id or something that is not a number; the message
            is ``file:line: what``.
    """
    try:
        table = _parse(data, layout)
        malformed = 0
    except (pa.ArrowInvalid, pa.ArrowKeyError):
        table, malformed = _parse_by_block(data, layout, where, skip_malformed)
    numbers = {name: _floats(table, position) for position, name in layout.numbers}
    time = None if layout.time is None else _floats(table, layout.time)
    return Columns(
        user=table.column(f"f{layout.user}").combine_chunks(),
        item=table.column(f"f{layout.item}").combine_chunks(),
        numbers=numbers,
        time=time,
        malformed=malformed,
        kind=None if layout.kind is None else table.column(f"f{layout.kind}").combine_chunks(),
    )


def _parse(data: bytes, layout: Layout) -> pa.Table:
    """Cut with Arrow; raises ``pa.ArrowInvalid`` when a line does not fit, without saying which."""
    separator = layout.separator
    if len(separator) > 1:
        if b"\t" in data:
            raise pa.ArrowInvalid("a tab")
        data, separator = data.replace(separator.encode(), b"\t"), "\t"
    names = [f"f{position}" for position in range(layout.width)]
    types: dict[str, pa.DataType] = {name: pa.string() for name in names}
    types.update({f"f{position}": pa.float64() for position, _ in layout.numbers})
    used = {layout.user, layout.item, *(position for position, _ in layout.numbers)}
    used |= {position for position in (layout.time, layout.kind) if position is not None}
    wanted = [f"f{position}" for position in sorted(used)]
    if not data or data.isspace():
        if layout.dates is not None:
            types[f"f{layout.time}"] = pa.float64()
        return pa.table({name: pa.array([], types[name]) for name in wanted})
    table = pacsv.read_csv(
        io.BytesIO(data),
        read_options=pacsv.ReadOptions(
            column_names=names, skip_rows=int(layout.header), use_threads=False, block_size=1 << 24
        ),
        parse_options=pacsv.ParseOptions(
            delimiter=separator,
            quote_char='"' if layout.quoted else False,
            escape_char="\\" if layout.escaped else False,
            ignore_empty_lines=True,
            newlines_in_values=layout.quoted and b'"' in data,
        ),
        convert_options=pacsv.ConvertOptions(
            column_types=types,
            null_values=[""],
            strings_can_be_null=True,
            include_columns=wanted,
            decimal_point=layout.decimal,
        ),
    )
    required = {layout.user, layout.item, *(position for position, _ in layout.numbers)} - set(layout.blank)
    if layout.dates is not None and layout.time is not None:
        required.add(layout.time)
    if any(table.column(f"f{position}").null_count for position in required):
        raise pa.ArrowInvalid("an empty field")
    for position, _ in layout.numbers:
        if pc.any(pc.invert(pc.is_finite(table.column(f"f{position}")))).as_py():
            raise pa.ArrowInvalid("a number that is not finite")
    if layout.dates is not None and layout.time is not None:
        name = f"f{layout.time}"
        seconds = seconds_of(table.column(name), layout.dates)
        if seconds.null_count:
            raise pa.ArrowInvalid("a time of another form")
        table = table.set_column(wanted.index(name), name, seconds)
    return table


def _floats(table: pa.Table, position: int) -> Float64:
    column: Any = table.column(f"f{position}").combine_chunks()
    values: Float64 = np.asarray(pc.fill_null(column, float("nan")))
    return values


def _parse_by_block(data: bytes, layout: Layout, where: str, skip_malformed: bool) -> tuple[pa.Table, int]:
    """The table of the well-formed lines, and how many others there are; or the error that names the first.

    Only blocks that Arrow refuses are looked at line by line.
    """
    tables: list[pa.Table] = []
    malformed = lines = start = 0
    while start < len(data):
        end = _block_end(data, start, layout)
        block = data[start:end]
        try:
            tables.append(_parse(block, layout))
        except (pa.ArrowInvalid, pa.ArrowKeyError):
            kept, skipped = _sift(block, layout, where, lines, skip_malformed)
            try:
                tables.append(_parse(b"\n".join(kept), replace(layout, header=False)))
            except pa.ArrowInvalid as error:
                raise DataError(f"{where}: cannot be read ({str(error).splitlines()[0]}).") from error
            malformed += skipped
        lines += len(block.splitlines())
        layout = replace(layout, header=False)
        start = end
    return pa.concat_tables(tables), malformed


def _block_end(data: bytes, start: int, layout: Layout) -> int:
    """Where a block ends: at the end of a line, of one that does not stand in quotes where they are closed soon."""
    end = data.find(b"\n", start + _BLOCK) + 1 or len(data)
    if not layout.quoted:
        return end
    odd, last = data.count(b'"', start, end) % 2, end
    for _ in range(_LONGEST_RECORD):
        if not odd or last == len(data):
            return last
        following = data.find(b"\n", last) + 1 or len(data)
        odd, last = (odd + data.count(b'"', last, following)) % 2, following
    return end


def _records(block: bytes, quoted: bool) -> Iterator[tuple[int, bytes]]:
    """Number of the first line, and text, of every record: a line, or several where a quoted field holds line ends."""
    lines = block.splitlines()
    place = 0
    while place < len(lines):
        size, odd = 1, quoted and lines[place].count(b'"') % 2
        while odd and size < _LONGEST_RECORD and place + size < len(lines):
            odd = (odd + lines[place + size].count(b'"')) % 2
            size += 1
        size = 1 if odd else size
        yield place + 1, b"\n".join(lines[place : place + size])
        place += size


def _sift(block: bytes, layout: Layout, where: str, before: int, skip_malformed: bool) -> tuple[list[bytes], int]:
    """The well-formed lines without a header, and how many others there are; or the error that names the first.

    ``before``: how many lines of the file come before the block.
    """
    kept: list[bytes] = []
    malformed = 0
    for number, line in _records(block, layout.quoted):
        if not line.strip(b" ") or (layout.header and number == 1):
            continue
        problem = _problem(line, layout)
        if not problem:
            kept.append(line)
        elif layout.comments and line.lstrip().startswith((b"#", b"%")):
            continue
        elif skip_malformed:
            malformed += 1
        else:
            raise DataError(
                f"{where}:{before + number}: {problem}; mend the line, or leave such out: --skip-malformed."
            )
    return kept, malformed


def _problem(line: bytes, layout: Layout) -> str:
    """What is wrong with one line, or an empty string."""
    try:
        text = line.decode("utf-8")
        fields = split_record(text, layout)
    except UnicodeDecodeError:
        return "the line is not UTF-8 text"
    except csv.Error as error:
        return f"the line cannot be cut into fields ({error})"
    if len(fields) != layout.width:
        return f"{len(fields)} fields separated by {layout.separator!r}, expected {layout.width}"
    for position, name in ((layout.user, "user"), (layout.item, "item")):
        if not fields[position]:
            return f"the {name} id is empty"
        if "\t" in fields[position] and len(layout.separator) > 1:
            return f"the {name} id {fields[position]!r} holds a tab"
    for position, name in layout.numbers:
        text = fields[position]
        if not text and position in layout.blank:
            continue
        if not NUMBER.fullmatch(text.replace(layout.decimal, ".")):
            return f"{name} {text!r} is not a number"
    if layout.dates is not None and layout.time is not None and not fits(fields[layout.time], layout.dates):
        return f"time {fields[layout.time]!r} is not of the form {example(layout.dates)}"
    return ""


def split_record(text: str, layout: Layout) -> list[str]:
    """The fields of a record; raises ``csv.Error`` where it cannot be cut."""
    if not layout.quoted:
        return text.split(layout.separator)
    escape = "\\" if layout.escaped else None
    return next(csv.reader(io.StringIO(text, newline=""), delimiter=layout.separator, escapechar=escape), [])
