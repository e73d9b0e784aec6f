"""Tables as people have them: CSV in its dialects, with a header or without, and RecBole's ``.inter``.

The first lines of a file tell its separator, its quotes, and which column is what: by the header where there is one, else
by their number. What was taken for what is said in a note. The lines themselves are cut by ``columns``.
"""

from __future__ import annotations

import codecs
import csv
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from fedbench.data.columns import NUMBER, Columns, Layout, read_columns, zoned
from fedbench.data.interactions import table_of_columns
from fedbench.data.records import Table
from fedbench.errors import DataError

USER = (
    *("userid", "user", "uid", "reviewerid", "customerid", "customer", "visitorid", "memberid", "member"),
    *("username", "playerid", "accountid", "usersha1"),
)
ITEM = (
    *("itemid", "item", "iid", "movieid", "movie", "artistid", "parentasin", "asin", "productid", "product", "isbn"),
    *("bookid", "businessid", "trackid", "songid", "song", "gameid", "venueid", "locationid", "poiid", "animeid"),
    *("recipeid", "beerid", "articleid", "newsid", "appid", "storyid"),
)
RATING = (
    *("rating", "ratings", "stars", "overall", "score", "bookrating", "weight", "plays", "playcount", "playcounts"),
    *("count", "preference", "hours"),
)
TIME = (
    *("timestamp", "time", "ts", "unixreviewtime", "unixtime", "datetime", "date", "utctime", "createdat", "ratedat"),
)
"""What columns and keys are called, without capitals and signs; of several in one header the first one counts."""

EXAMPLE = "user_id,item_id,rating,timestamp"
_SEPARATORS = ("\t", "::", ";", ",", "|", " ")
_SAMPLE = 1 << 20
_LINES = 200
_TIMELIKE = 1e8
"""Numbers from here on (March 1973 in seconds) are taken for times where no header says what they are."""
_REVIEWER, _ASIN = re.compile(r"A[0-9A-Z]{9,}"), re.compile(r"B[0-9A-Z]{9}|[0-9]{9}[0-9X]")


@dataclass(frozen=True)
class Sniffed:
    """What the first lines of a table say.

    Attributes:
        separator: a blank stands for any blanks and tabs. quoted: whether fields may stand in double quotes.
        header: names of the columns, None without. first: how many lines come before the first row. rows: the first ones.
    """

    separator: str
    quoted: bool
    header: tuple[str, ...] | None
    first: int
    rows: tuple[tuple[str, ...], ...]

    @property
    def width(self) -> int:
        """Number of columns."""
        if self.header is not None:
            return len(self.header)
        return Counter(map(len, self.rows)).most_common(1)[0][0]

    @property
    def ends_in_times(self) -> bool:
        """Whether the last of three or four columns can only be times."""
        last = self.column(self.width - 1)
        return self.width in (3, 4) and bool(last) and _numeric(last) and _late(last)

    def column(self, place: int) -> list[str]:
        """The first values of a column."""
        return [row[place] for row in self.rows if len(row) == self.width]


def plain_text(data: bytes, where: str) -> bytes:
    """A file's text as UTF-8 without a byte order mark, as the readers expect it.

    Raises:
        DataError: a file in UTF-16 that is damaged.
    """
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        try:
            return data.decode("utf-16").encode()
        except UnicodeDecodeError as error:
            raise DataError(f"{where}: not UTF-16 text ({error.reason}); save it as UTF-8.") from None
    return data.removeprefix(codecs.BOM_UTF8)


def first_lines(data: bytes) -> list[str]:
    """The first lines of a file, at most 200, without their ends."""
    lines = data[:_SAMPLE].decode("utf-8", "replace").splitlines() if len(data) <= _SAMPLE else []
    if not lines:
        lines = data[:_SAMPLE].rpartition(b"\n")[0].decode("utf-8", "replace").splitlines()
    return lines[:_LINES]


def sniff(data: bytes) -> Sniffed | None:
    """Separator, quotes and header of a table; None when no separator cuts its first lines into as many columns each."""
    lines = first_lines(data)
    first = next((k for k, line in enumerate(lines) if line.strip()), len(lines))
    given = re.fullmatch(r"sep=(.)", lines[first].strip()) if first < len(lines) else None
    if given:
        first += 1
    found = [_cut(lines, first, each) for each in ([given[1]] if given else _SEPARATORS)]
    return max(
        (each for each in found if each is not None),
        key=lambda each: (each.header is not None and None not in _places(each.header)[:2], each.width),
        default=None,
    )


def _cut(lines: Sequence[str], first: int, separator: str) -> Sniffed | None:
    """The lines from ``first`` on, cut at a separator; None when that does not make a table of them."""
    quoted = (
        len(separator) == 1 and separator != " " and any(re.search(f'(^|{re.escape(separator)})"', x) for x in lines)
    )
    table: list[tuple[int, tuple[str, ...]]] = []
    for number, line in enumerate(lines[first:], start=first):
        if not line.strip():
            continue
        try:
            fields = split_line(line, separator, quoted)
        except csv.Error:
            return None
        names = tuple(map(_plain, fields))
        if line.startswith(("#", "%")) and not (set(names) & set(USER) and set(names) & set(ITEM)):
            continue
        table.append((number, tuple(fields)))
    if not table:
        return None
    width, count = Counter(len(fields) for _, fields in table).most_common(1)[0]
    if width < 2 or 2 * count < len(table):
        return None
    start, head = table[0]
    header = head if _is_header(head, [fields for _, fields in table[1:]]) else None
    rows = table if header is None else table[1:]
    first = start + 1 if header is not None else start
    return Sniffed(separator, quoted, header, first, tuple(fields for _, fields in rows))


def split_line(line: str, separator: str, quoted: bool) -> list[str]:
    """The fields of one line."""
    if separator == " ":
        return line.split()
    return next(csv.reader([line], delimiter=separator, strict=True), []) if quoted else line.split(separator)


def _is_header(head: Sequence[str], rows: Sequence[Sequence[str]]) -> bool:
    """Whether a first line names columns: it holds no number, and names that we know or text where numbers follow."""
    if any(NUMBER.fullmatch(field) for field in head):
        return False
    known = {_plain(field) for field in head} & {*USER, *ITEM}
    below = [row for row in rows if len(row) == len(head)]
    numeric = any(all(NUMBER.fullmatch(row[place]) for row in below) for place in range(len(head)))
    return bool(known) or (bool(below) and numeric and len(below) > 1)


def _plain(name: str) -> str:
    """A column's name as the lists above have it: without RecBole's type, capitals and signs."""
    return re.sub(r"[^a-z0-9]", "", name.partition(":")[0].lower())


def chosen(names: Iterable[str]) -> tuple[str | None, str | None, str | None, str | None]:
    """Which of these names stand for user, item, rating and time."""
    plain: dict[str, str] = {}
    for name in names:
        plain.setdefault(_plain(name), name)

    def one(known: Sequence[str]) -> str | None:
        return next((plain[each] for each in known if each in plain), None)

    user, item, rating, time = map(one, (USER, ITEM, RATING, TIME))
    if user is not None and item is None:
        others = [name for key, name in plain.items() if key.endswith("id") and name != user]
        item = others[0] if len(others) == 1 else None
    return user, item, rating, time


def _places(header: Sequence[str]) -> list[int | None]:
    return [None if name is None else list(header).index(name) for name in chosen(header)]


def read_table(data: bytes, where: str, skip_malformed: bool = False) -> Table:
    """A table of interactions, one a line.

    Args:
        data: the whole file, decompressed, UTF-8. where: its name for messages.
        skip_malformed: leave out malformed lines and count them, instead of refusing the file.

    Raises:
        DataError: nothing tells which columns are meant, or a line is malformed.
    """
    columns, note = table_columns(data, where, skip_malformed)
    return table_of_columns(columns, (note, *rating_notes(columns)))


def table_columns(data: bytes, where: str, skip_malformed: bool) -> tuple[Columns, str]:
    """The columns of a table, and a note of what was taken for what; arguments and errors as of :func:`read_table`."""
    sniffed = sniff(data)
    if sniffed is None:
        raise DataError(
            f"{where}: no separator (tab, comma, ;, |, ::, blank) cuts the first lines into as many columns each;"
            f" expected a table such as {EXAMPLE}."
        )
    layout, note = layout_of(sniffed, where)
    return read_columns(_rows(data, sniffed), layout, where, skip_malformed=skip_malformed), note


def layout_of(sniffed: Sniffed, where: str) -> tuple[Layout, str]:
    """How the lines are cut, and a note of what was taken for what.

    Raises:
        DataError: nothing tells.
    """
    if sniffed.header is None:
        user, item, rating, time = _by_number(sniffed, where)
        names = [f"column {place + 1}" for place in range(sniffed.width)]
    else:
        user, item, rating, time = _by_header(sniffed.header, sniffed.first, where)
        names = [repr(name) for name in sniffed.header]
    numbers: list[tuple[int, str]] = []
    form: bool | None = None
    if rating is not None and _numeric(sniffed.column(rating)):
        numbers.append((rating, "rating"))
    if time is not None:
        column = sniffed.column(time)
        if _numeric(column):
            numbers.append((time, "timestamp"))
        elif _dates(column):
            form = next(zoned(text) for text in column if zoned(text) is not None)
        else:
            raise DataError(
                f"{where}: time {column[0]!r} of {names[time]} is neither a number nor like 2010-10-19 23:55:27;"
                " convert it, or take the column out to import without times."
            )
    layout = Layout(
        sniffed.separator,
        sniffed.width,
        user,
        item,
        time,
        tuple(numbers),
        iso_time=form is not None,
        zoned=form is not False,
        quoted=sniffed.quoted,
    )
    parts = {"user": user, "item": item, "rating": rating, "time": time}
    taken = ", ".join(f"{what} {names[place]}" for what, place in parts.items() if place is not None)
    return layout, f"taken for {taken}" if sniffed.header is None else f"read {taken}"


def _by_header(header: Sequence[str], line: int, where: str) -> tuple[int, int, int | None, int | None]:
    user, item, rating, time = _places(header)
    for what, place in (("user", user), ("item", item)):
        if place is None:
            raise DataError(
                f"{where}:{line}: the header names no column of {what}s; it has: {', '.join(header)}."
                f" Call that column {what}_id."
            )
    assert user is not None
    assert item is not None
    return user, item, rating, time


def _by_number(sniffed: Sniffed, where: str) -> tuple[int, int, int | None, int | None]:
    """user, item; user, item, rating or time; user, item, rating, time. Amazon lists its reviews of 2018 item first."""
    width = sniffed.width
    user, item = (1, 0) if _all(_ASIN, sniffed.column(0)) and _all(_REVIEWER, sniffed.column(1)) else (0, 1)
    rest = [place for place in range(2, width) if _numeric(sniffed.column(place)) or _dates(sniffed.column(place))]
    times = [place for place in rest if _dates(sniffed.column(place)) or _late(sniffed.column(place))]
    if width > 4 or len(rest) < width - 2 or len(times) > 1:
        raise DataError(
            f"{where}: {width} columns and no header that tells what they are; put a first line above them that names"
            f" them, such as {EXAMPLE} (other names are left out)."
        )
    if width < 4:
        return user, item, *((None, None) if width == 2 else (None, 2) if times else (2, None))
    return user, item, *((3, 2) if times == [2] else (2, 3))


def _numeric(column: Sequence[str]) -> bool:
    """Whether most are numbers; what is not is found, with its line, when all are read."""
    return 2 * sum(NUMBER.fullmatch(text) is not None for text in column) >= len(column)


def _dates(column: Sequence[str]) -> bool:
    return not _numeric(column) and 2 * sum(zoned(text) is not None for text in column) >= len(column)


def _late(column: Sequence[str]) -> bool:
    return all(float(text) >= _TIMELIKE for text in column if NUMBER.fullmatch(text))


def _all(pattern: re.Pattern[str], column: Sequence[str]) -> bool:
    return all(pattern.fullmatch(text) for text in column)


def _rows(data: bytes, sniffed: Sniffed) -> bytes:
    """The file with empty lines in place of what stands before its first row, so that lines keep their numbers."""
    rest = data
    for _ in range(sniffed.first):
        line = re.search(rb"\r\n|\n|\r", rest)
        rest = rest[line.end() :] if line else b""
    if sniffed.separator == " ":
        rest = re.sub(rb"[ \t]+", b" ", re.sub(rb"(?m)^[ \t]+|[ \t]+(?=\r?$)", b"", rest))
    return b"\n" * sniffed.first + rest


def rating_notes(columns: Columns) -> tuple[str, ...]:
    """That ratings are not read, where there are some that differ."""
    ratings = columns.numbers.get("rating")
    if ratings is None or not len(ratings):
        return ()
    low, high = float(np.min(ratings)), float(np.max(ratings))
    if low == high:
        return ()
    below = 100 * float(np.mean(ratings < (low + high) / 2))
    return (f"ratings ({low:g} to {high:g}, {below:.0f} % below the middle) are not read: every row counts as a like",)
