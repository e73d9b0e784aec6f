"""Index lists, the format of the published splits: one line per user, ``user item item ...``, 0-based indices.

The same reader takes ``user item`` pairs, one per line (a list of one item). Columns are separated by blanks or tabs,
lines end in LF or CRLF. A user may come on several lines.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fedbench.data.records import Int64, Interactions
from fedbench.errors import DataError

LARGEST_INDEX = 2**31 - 2
"""Indices are stored as int32."""

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
