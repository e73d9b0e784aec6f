"""What the first lines of a table say: separator, quotes, header, rows."""

from __future__ import annotations

import codecs
import csv
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from fedbench.data.columns import NUMBER
from fedbench.data.dates import dates_of
from fedbench.data.names import chosen, is_known
from fedbench.errors import DataError

_SEPARATORS = ("\t", "::", ";", ",", "|", " ")
_SAMPLE = 1 << 20
_LINES = 200
_TIMELIKE = 1e8
"""Numbers from here on (March 1973 in seconds) are taken for times where no header says what they are."""


@dataclass(frozen=True)
class Sniffed:
    """What the first lines of a table say.

    Attributes:
        separator: a blank stands for any blanks and tabs. quoted: whether fields may stand in double quotes.
        escaped: whether a backslash there takes the next sign as it is. spaced: whether a blank follows separators.
        header: names of the columns, None without. first: how many lines come before the first row. rows: the first ones.
    """

    separator: str
    quoted: bool
    escaped: bool
    spaced: bool
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
    def whole(self) -> bool:
        """Whether every row has as many fields."""
        return all(len(row) == self.width for row in self.rows)

    @property
    def ends_in_times(self) -> bool:
        """Whether the last of three or four columns can only be times."""
        last = self.column(self.width - 1)
        return self.width in (3, 4) and bool(last) and numeric(last) and late(last)

    def column(self, place: int) -> list[str]:
        """The first values of a column."""
        return [row[place] for row in self.rows if len(row) == self.width]


def plain_text(data: bytes, where: str) -> tuple[bytes, str]:
    """A file's text as UTF-8 without a byte order mark, and a note of its encoding where that is another.

    Raises:
        DataError: a file in UTF-16 that is damaged, or one that is no text.
    """
    start = data[:4096]
    odd, even = _zeros(start[1::2]), _zeros(start[::2])
    wide = "" if odd == even else "utf-16-le" if odd else "utf-16-be"
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or wide:
        try:
            marked = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
            return data.decode("utf-16" if marked else wide).encode(), ""
        except UnicodeDecodeError as error:
            raise DataError(f"{where}: not UTF-16 text ({error.reason}); save it as UTF-8.") from None
    if b"\0" in start:
        raise DataError(f"{where}: no text but binary data; save its table as CSV or parquet.")
    data = data.removeprefix(codecs.BOM_UTF8)
    if data.isascii():
        return data, ""
    try:
        data.decode()
    except UnicodeDecodeError as error:
        if len(data) - error.start < 4 and error.end == len(data):
            return data, ""  # cut off in the middle of a character: the line is named when it is read
        return data.decode("latin-1").encode(), "the text is not UTF-8 and was read as Latin-1"
    return data, ""


def _zeros(half: bytes) -> bool:
    return len(half) > 8 and 10 * half.count(0) > 9 * len(half)


def first_lines(data: bytes) -> list[str]:
    """The first lines of a file, at most 200, without their ends."""
    sample = data[:_SAMPLE]
    if len(data) > _SAMPLE:
        sample = sample.rpartition(b"\n")[0] or sample.rpartition(b"\r")[0] or sample
    lines = sample.decode("utf-8", "replace").replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return (lines if lines[-1] else lines[:-1])[:_LINES]


def sniff(data: bytes, named: Sequence[str] = ()) -> Sniffed | None:
    """Separator, quotes and header of a table; None when no separator cuts its first lines into as many columns each.

    ``named``: what somebody says columns are called; a first line that has all of these is a header.
    """
    lines = first_lines(data)
    first = next((k for k, line in enumerate(lines) if line.strip()), len(lines))
    given = re.fullmatch(r"sep=(.)", lines[first].strip()) if first < len(lines) else None
    if given:
        first += 1
    found = [_cut(lines, first, each, named) for each in ([given[1]] if given else _SEPARATORS)]
    return max((each for each in found if each is not None), key=_surety, default=None)


def _surety(each: Sniffed) -> tuple[bool, bool, bool, int]:
    """Whether the header names users and items, every line has as many fields, blanks mean something else, and width."""
    return _names_both(each.header or ()), each.whole, each.separator != " ", each.width


def _cut(lines: Sequence[str], first: int, separator: str, named: Sequence[str]) -> Sniffed | None:
    """The lines from ``first`` on, cut at a separator; None when that does not make a table of them."""
    ways = [(False, False)]
    if len(separator) == 1 and any(re.search(rf'(^|{re.escape(separator)})[ \t]*"', line) for line in lines):
        escapes = [(True, True)] if any('\\"' in line for line in lines) else []
        ways = [(True, False), *escapes, (False, False)]
    for quoted, escaped in ways:
        try:
            table, spaced = _fields(lines, first, separator, quoted, escaped)
        except csv.Error:
            continue
        if not table:
            continue
        width, count = Counter(len(fields) for _, fields in table).most_common(1)[0]
        if width < 2 or 2 * count < len(table):
            continue
        above = next((n for n, (_, fields) in enumerate(table) if len(fields) == width), 0)
        if above and _names_both(table[above][1]):  # a title, and what else exports write above the header
            table = table[above:]
        start, head = table[0]
        rows = [fields for _, fields in table[1:]]
        header = _header(head, rows, named)
        if header is None:
            return Sniffed(separator, quoted, escaped, spaced, None, start, (tuple(head), *map(tuple, rows)))
        return Sniffed(separator, quoted, escaped, spaced, header, start + 1, tuple(map(tuple, rows)))
    return None


def _fields(
    lines: Sequence[str], first: int, separator: str, quoted: bool, escaped: bool
) -> tuple[list[tuple[int, list[str]]], bool]:
    """Number of the last line, and fields, of every record that is no comment; whether a blank follows separators.

    Raises:
        csv.Error: quotes do not stand around fields.
    """
    marked = [line.lstrip().startswith(("#", "%")) for line in lines[first:] if line.strip()]
    comments = 2 * sum(marked) <= len(marked)
    wanted = [
        "" if comments and _is_comment(line, separator) else " ".join(line.split()) if separator == " " else line
        for line in lines[first:]
    ]
    spaced = separator in ";,|" and _follows(wanted, separator)
    if not quoted:
        cut = [(number, line.split(separator)) for number, line in enumerate(wanted, start=first) if line.strip()]
    else:
        escape = "\\" if escaped else None
        reader = csv.reader(
            (f"{line}\n" for line in wanted),
            delimiter=separator,
            escapechar=escape,
            strict=True,
            skipinitialspace=spaced,
        )
        cut = []
        try:
            for fields in reader:
                if fields and (len(fields) > 1 or fields[0].strip()):
                    cut.append((first + reader.line_num - 1, fields))
        except csv.Error:
            if len(cut) < _LINES // 2 or len(lines) < _LINES:  # the last of the first lines may be half a record
                raise
    if spaced:
        cut = [(number, [field.strip() for field in fields]) for number, fields in cut]
    return cut, spaced


def _is_comment(line: str, separator: str) -> bool:
    """Whether a line is a remark, and no header that begins with a #."""
    return line.lstrip().startswith(("#", "%")) and not _names_both(line.split(separator))


def _names_both(fields: Sequence[str]) -> bool:
    """Whether some field is called like users, and some other like items."""
    roles = chosen(fields)
    return len(fields) > 1 and roles["user"] is not None and roles["item"] is not None


def _follows(lines: Sequence[str], separator: str) -> bool:
    """Whether a blank follows nearly every separator."""
    all_of = sum(line.count(separator) for line in lines)
    return bool(all_of) and 10 * sum(line.count(f"{separator} ") for line in lines) >= 9 * all_of


def _header(head: Sequence[str], rows: Sequence[Sequence[str]], named: Sequence[str]) -> tuple[str, ...] | None:
    """The names of the columns, where the first line holds such, one for each field of the lines below."""
    if not (named and {*named} <= {*head}) and not _is_header(head, rows):
        return None
    width = Counter(map(len, rows)).most_common(1)[0][0] if rows else len(head)
    if width == len(head) + 1:  # R writes no name above the names of rows, others a separator at the end of rows
        trailing = not any(row[-1] for row in rows if len(row) == width)
        return (*head, "") if trailing else ("", *head)
    return tuple(head)


def _is_header(head: Sequence[str], rows: Sequence[Sequence[str]]) -> bool:
    """Whether a first line names columns: it holds no number, and names that we know or text where numbers follow."""
    if any(NUMBER.fullmatch(field) for field in head):
        return False
    below = [row for row in rows if len(row) in (len(head), len(head) + 1)]
    numbers = any(all(NUMBER.fullmatch(row[place]) for row in below) for place in range(len(head)))
    return is_known(head) or (bool(below) and numbers and len(below) > 1)


def numeric(column: Sequence[str], decimal: str = ".") -> bool:
    """Whether most are numbers; what is not is found, with its line, when all are read."""
    filled = [text.replace(decimal, ".") for text in column if text]
    return bool(filled) and 2 * sum(NUMBER.fullmatch(text) is not None for text in filled) >= len(filled)


def dated(column: Sequence[str]) -> bool:
    """Whether most are dates, of whatever form."""
    try:
        return not numeric(column) and dates_of(column) is not None
    except ValueError:
        return True


def late(column: Sequence[str]) -> bool:
    """Whether numbers can only be times."""
    return all(float(text) >= _TIMELIKE for text in column if NUMBER.fullmatch(text))
