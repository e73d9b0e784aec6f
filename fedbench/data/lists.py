"""Index lists, the format of the published splits: one line per user, ``user item item ...``, 0-based indices.

The same reader takes ``user item`` pairs, one per line (a list of one item). Columns are separated by blanks or tabs,
lines end in LF or CRLF. A user may come on several lines. Lists that somebody brings may have any ids, see
:func:`read_named_lists`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from fedbench.data.records import Int64, Interactions
from fedbench.errors import DataError

LARGEST_INDEX = 2**31 - 2
"""Indices are stored as int32."""

_SAMPLE = 1 << 20
_GAP = re.compile(r"[ \t]+|,")
_MARKED = re.compile(rb"(^|[\r\n])[ \t]*[#%][^\r\n]*")
_WORD = re.compile(r"[\w.:-]+")
_DIGITS = 10
"""An index of more digits than this is out of range."""


def read_lists(data: bytes, where: str, *, skip_malformed: bool = False) -> tuple[Interactions, int]:
    """The rows of a list file in the order of the file, and the number of malformed lines that were left out.

    Args:
        data: the whole file, decompressed.
        where: the file's name for messages.
        skip_malformed: leave out malformed lines and count them, instead of refusing the file.

    Raises:
        DataError: a token is not an index in 0 .. 2^31 - 2; the message is ``file:line: what``.
    """
    skipped = 0
    if not _is_clean(data):
        good: list[bytes] = []
        for number, line in enumerate(data.splitlines(), start=1):
            problem = _problem(line)
            if problem and not skip_malformed:
                raise DataError(f"{where}:{number}: {problem}")
            skipped += bool(problem)
            good.append(b"" if problem else line)
        data = b"\n".join(good)
    if not data.strip():
        return Interactions(np.empty(0, np.int32), np.empty(0, np.int32)), skipped
    values: Int64 = np.fromstring(data.decode("ascii"), dtype=np.int64, sep=" ")
    heads = _line_heads(np.frombuffer(data, dtype=np.uint8))
    user = values[heads][np.cumsum(heads) - 1]
    body = ~heads
    return Interactions(user[body].astype(np.int32), values[body].astype(np.int32)), skipped


def read_named_lists(data: bytes) -> tuple[pa.Array, pa.Array]:
    """The users and the items of the rows of a list file with any ids, as text, in the order of the file.

    ``data``: as of :func:`bare_lists`. A line with a user and no item has no row.
    """
    text = pa.array(data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").decode("utf-8", "replace").split("\n"))
    words = pc.ascii_split_whitespace(pc.ascii_trim_whitespace(text))
    lengths = np.asarray(pc.list_value_length(words))
    flat = words.flatten()
    starts = np.concatenate(([0], np.cumsum(lengths)[:-1])).astype(np.int64)
    head = np.zeros(len(flat), dtype=bool)
    head[starts[lengths > 0]] = True
    line = np.repeat(np.arange(len(lengths)), lengths)
    body = np.flatnonzero(~head)
    return flat.take(pa.array(starts[line[body]])), flat.take(pa.array(body))


def bare_lists(data: bytes) -> bytes:
    """Lists with blanks between their fields, and empty lines in place of comments and of a header."""
    data = data.replace(b",", b" ")
    if _MARKED.search(data):
        data = _MARKED.sub(rb"\1", data)
    first = next((line for line in data[:_SAMPLE].splitlines() if line.strip()), b"")
    return data.replace(first, b"", 1) if _is_heading(first.decode("utf-8", "replace"), data[:_SAMPLE]) else data


def _is_heading(line: str, data: bytes) -> bool:
    """Whether a first line has no digit, where all others have nothing but."""
    if not line or re.search("[0-9]", line):
        return False
    rest = data.partition(line.encode())[2].split()
    return bool(rest) and all(word.isdigit() for word in rest[:-1])


def looks_like_lists(lines: Sequence[str]) -> bool:
    """Whether the first lines of a file are lists of ids: user item item ..., or pairs with a blank between."""
    lines = bare_lists("\n".join(lines).encode()).decode().split("\n") if lines and "," not in lines[0] else lines
    cut = [_GAP.split(line.strip()) for line in lines if line.strip()]
    if not cut:
        return False
    words = [word for line in cut for word in line]
    indices = sum(word.isascii() and word.isdigit() for word in words)
    digits = all(map(str.isdigit, cut[0])) and 2 * indices > len(words)  # a line that is wrong is named when it is read
    if not digits and not (
        all(map(_WORD.fullmatch, words)) and 5 * sum(bool(re.search("[0-9]", word)) for word in words) >= 4 * len(words)
    ):
        return False
    widths = {len(line) for line in cut}
    users = len({line[0] for line in cut})
    if len(widths) == 1 and indices in (0, len(words)):
        width = max(widths)
        if width == 1 or not digits or any(sign in line for line in lines for sign in "\t,"):
            return False
        return width == 2 or users == len(cut) or width > 4
    return digits or users == len(cut)


def is_indexed(data: bytes) -> bool:
    """Whether most of the first words of a file are indices that can stay as they are."""
    words = data[:_SAMPLE].split()
    short = sum(word.isdigit() and (len(word) < _DIGITS or int(word) <= LARGEST_INDEX) for word in words)
    return 10 * short >= 9 * len(words)


def _is_clean(data: bytes) -> bool:
    """Whether the file holds nothing but blanks, line ends and numbers short enough to be indices."""
    if data.translate(None, b"0123456789 \t\r\n"):
        return False
    text = np.frombuffer(data, dtype=np.uint8)
    blank = np.flatnonzero(text <= ord(" "))
    gaps = np.diff(blank, prepend=-1, append=len(text)) - 1
    return bool(gaps.max(initial=0) < _DIGITS)


def _line_heads(text: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """For every token of the file, whether it is the first of its line."""
    solid = text > ord(" ")
    starts = np.flatnonzero(solid & ~np.concatenate(([False], solid[:-1])))
    line_of_token = np.searchsorted(np.flatnonzero(text == ord("\n")), starts)
    heads: npt.NDArray[np.bool_] = np.diff(line_of_token, prepend=-1) > 0
    return heads


def _problem(line: bytes) -> str:
    """What is wrong with one line, or an empty string."""
    for token in line.split():
        text = token.decode("utf-8", "replace")
        if not (token.isascii() and token.isdigit()):
            return f"{text!r} is not an index (expected 'user item item ...', 0-based integers)"
        if int(token) > LARGEST_INDEX:
            return f"index {text} is above {LARGEST_INDEX}"
    return ""
