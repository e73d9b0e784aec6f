"""The formats of a single file of interactions: how each is recognised, and its reader."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa

from fedbench.data.checkins import checkin_columns
from fedbench.data.columns import ML_1M, ML_100K, TRIPLES, Columns, Layout, read_columns
from fedbench.data.files import read_whole
from fedbench.data.lists import bare_lists, is_indexed, looks_like_lists, read_lists, read_named_lists
from fedbench.data.names import UNTOLD, Picks, is_known
from fedbench.data.parquets import MAGIC, parquet_columns
from fedbench.data.sniffing import Sniffed, first_lines, plain_text, sniff
from fedbench.data.tables import EXAMPLE, layout_of, table_columns
from fedbench.data.upstream import json_columns
from fedbench.errors import DataError, UserError

Reader = Callable[[bytes, str, bool, Picks], tuple[Columns, str]]


def _columns(layout: Layout) -> Reader:
    def reader(data: bytes, where: str, skip: bool, picks: Picks) -> tuple[Columns, str]:
        return read_columns(data, layout, where, skip_malformed=skip), ""

    return reader


def _lists(data: bytes, where: str, skip: bool, picks: Picks) -> tuple[Columns, str]:
    data = bare_lists(data)
    if not is_indexed(data):
        user, item = read_named_lists(data)
        return Columns(user, item, {}, None, 0), "read lists: user item item ..."
    rows, malformed = read_lists(data, where, skip_malformed=skip)
    user, item = (pa.array(column).cast(pa.string()) for column in (rows.user, rows.item))
    return Columns(user, item, {}, None, malformed), "read lists: user item item ..."


FORMATS: dict[str, tuple[str, Reader]] = {
    "ml-100k": ("u.data: user, item, rating, timestamp separated by tabs", _columns(ML_100K)),
    "ml-1m": ("ratings.dat: user::movie::rating::timestamp", _columns(ML_1M)),
    "json": (
        "objects, one a line or one list of all, also in Python's notation (Amazon, Yelp, Steam)",
        lambda data, where, skip, picks: json_columns(data, where, picks, skip_malformed=skip),
    ),
    "gowalla": (
        "SNAP check-ins: user, time, latitude, longitude, location; dataset gowalla: those of NGCF's lists",
        lambda data, where, skip, picks: (
            checkin_columns(data, where, skip_malformed=skip),
            "read user column 1, item column 5, time column 2",
        ),
    ),
    "inter": ("RecBole's .inter", table_columns),
    "triples": ("user, item, timestamp separated by tabs", _columns(TRIPLES)),
    "lists": ("'user item item ...' or 'user item' lines with any ids", _lists),
    "table": ("CSV in any dialect, best with a header such as user_id,item_id,rating,timestamp", table_columns),
    "parquet": ("a parquet file with named columns", parquet_columns),
}
"""What each is, and its reader (content, name for messages, skip malformed lines, what was said of the columns)."""

ALIASES = {"amazon": "json", "yelp": "json", "jsonl": "json", "csv": "table", "tsv": "table", "recbole": "inter"}
"""Other names of formats."""

_NAMEABLE = {"table", "inter", "json", "parquet"}
"""Formats whose columns somebody may name."""

_KNOWN_FILES = {"u.data": "ml-100k", "ratings.dat": "ml-1m"}

_FOREIGN = (
    (b"PK\x03\x04", "a zip archive or a spreadsheet; save its table as CSV, with a header such as " + EXAMPLE),
    (b"\xd0\xcf\x11\xe0", "an old spreadsheet; save its table as CSV, with a header such as " + EXAMPLE),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive; unpack it and name the file or folder"),
    (b"Rar!", "a rar archive; unpack it and name the file or folder"),
    (b"SQLite format 3", "a database; export its table as CSV"),
    (b"\x89HDF", "an HDF5 file; save its table as CSV or parquet"),
    (b"ARROW1", "an Arrow file; save its table as parquet"),
    (b"\x93NUMPY", "a NumPy file; save its table as CSV or parquet"),
)
"""First bytes of containers that are not read, and what to do."""


def content(path: Path) -> tuple[bytes, str]:
    """The text of a file as UTF-8 (or the bytes of a parquet file), and a note of its encoding.

    Raises:
        DataError: it cannot be read, or is a container that is not read.
    """
    data = read_whole(path)
    for magic, what in _FOREIGN:
        if data.startswith(magic):
            raise DataError(f"{path}: {what}.")
    if data[257:262] == b"ustar":
        raise DataError(f"{path}: a tar archive inside another file; unpack it and name the file or folder.")
    return (data, "") if data.startswith(MAGIC) else plain_text(data, str(path))


def read(
    data: bytes, filename: str, where: str, layout: str, skip: bool, picks: Picks
) -> tuple[Columns, str, tuple[str, ...]]:
    """The columns of a file's content, the format it was in, and notes.

    Args:
        data: the whole content. filename: without folder. where: its name for messages.
        layout: one of :data:`FORMATS`, or ``auto``. skip: leave out malformed lines.
        picks: what was said of the columns.

    Raises:
        DataError: it is not of the format, or of none. UserError: columns of a format that has none were named.
    """
    if layout == "auto":
        layout = detect(data, filename, where, picks)
    if picks and layout not in _NAMEABLE:
        if layout in ("ml-100k", "ml-1m", "triples"):
            layout = "table"
        else:
            raise UserError(
                f"{where}: format {layout} has no columns to name; leave out --user, --item, --rating and --time, or say"
                " --format table."
            )
    columns, note = FORMATS[layout][1](data, where, skip, picks)
    return columns, layout, (note,) if note else ()


def detect(data: bytes, filename: str, where: str, picks: Picks = UNTOLD) -> str:
    """The format of a file, by its name and its first lines; raises :class:`DataError` when it is none of ours."""
    if data.startswith(MAGIC):
        return "parquet"
    lines = first_lines(data)
    line = next((line.strip() for line in lines if line.strip()), "")
    tabs = line.split("\t")
    known = _KNOWN_FILES.get(filename, "")
    if known and not picks and not is_known(re.split("\t|::", line)):
        fits = len(tabs) == 4 if known == "ml-100k" else line.count("::") == 3
        if fits or sniff(data) is None:
            return known
    if line.startswith(("{", "[")):
        return "json"
    if any(re.fullmatch(r"[^:]+:(token|float)(_seq)?", column) for column in tabs):
        return "inter"
    if line.count("::") == 3 and not is_known(line.split("::")):
        return "ml-1m"
    if len(tabs) == 5 and re.fullmatch(r"\d{4}-\d\d-\d\dT.*Z", tabs[1]):
        return "gowalla"
    sniffed = sniff(data)
    tells = sniffed is not None and (sniffed.ends_in_times or (is_known(sniffed.header or ()) and sniffed.whole))
    if not picks and not tells and looks_like_lists(lines):
        return "lists"
    if sniffed is None:
        if not line:
            raise DataError(f"{where}: empty, it holds no interaction.")
        if all(len(re.split(r"[\s,;|]|::", each.strip())) == 1 for each in lines):
            raise DataError(f"{where}: one column only; interactions need two at least, such as {EXAMPLE}.")
        known = ", ".join(FORMATS)
        raise DataError(f"{where}: the format is not recognised; name it with --format ({known}), or bring {EXAMPLE}.")
    return "table" if picks else _bare(sniffed, line, where)


def _bare(sniffed: Sniffed, line: str, where: str) -> str:
    """The name of a plain table of numbers separated by tabs, where it has one."""
    if sniffed.header is None and sniffed.separator == "\t" and line.replace("\t", "").replace(".", "").isdigit():
        found, _ = layout_of(sniffed, where)
        for name, layout in (("ml-100k", ML_100K), ("triples", TRIPLES)):
            if (found.user, found.item, found.time, found.numbers) == (0, 1, layout.time, layout.numbers):
                return name
    return "table"


def check_format(layout: str, others: Sequence[str]) -> str:
    """The format of this name; raises :class:`UserError` for one that is none."""
    layout = ALIASES.get(layout, layout)
    if layout not in (*others, *FORMATS):
        raise UserError(f"Unknown format {layout!r}. Known: {', '.join((*others, *FORMATS))}.")
    return layout
