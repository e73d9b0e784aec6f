"""How much a suite may ask for. What is above these limits is taken for a slip, and refused before it costs anything."""

from __future__ import annotations

import datetime
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fedbench.errors import UserError
from fedbench.texts import count, hidden, visible

MOST_SCENARIOS = 10_000
"""Combinations of a suite's matrices, half as many again as the largest that comes along has; each takes a millisecond."""
MOST_RUNS = 200_000
"""Runs of a suite: at ten seconds each, three weeks of computing."""
MOST_SEEDS = 10_000
"""Seeds of a scenario."""
SEED_LIMIT = 2**31
"""Seeds lie below it, as in the names of files and in records they have at most ten digits."""
MOST_RULES = 1_000
"""Entries of each kind that are compared with every scenario: overrides, exclusions, expected values."""
LARGEST_FILE = 1 << 20
"""Bytes of a suite file, a hundred times those of the largest that comes along."""
DEEPEST = 16
"""Tables and lists inside one another; a suite needs six."""
LONGEST_NAME = 100
"""Characters of a suite's name, which is part of the names of files (255 bytes in most file systems)."""
LONGEST_TEXT = 10_000
"""Characters of a text."""


def read_file(path: Path, shown: str) -> str:
    """The text of a suite file, without a byte order mark; raises :class:`UserError` when it cannot be, or is too large."""
    try:
        with path.open("rb") as stream:
            data = stream.read(LARGEST_FILE + 1)
        if len(data) > LARGEST_FILE:
            raise UserError(f"{shown}: more than {LARGEST_FILE:,} bytes; that is no suite file.")
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{shown}: not UTF-8 text ({error.reason} at byte {error.start}).") from None
    except OSError as error:
        raise UserError(f"{visible(shown, 200)}: cannot be read: {error.strerror or error}.") from None


def check_values(data: Mapping[str, Any]) -> None:
    """Raise :class:`UserError` for a value that no suite can mean, before anything is made of it."""
    for problem in _problems(data, "", 0):
        raise UserError(problem)


def _problems(value: Any, place: str, depth: int) -> Iterator[str]:
    where = f"{place}: " if place else ""
    if depth > DEEPEST:
        yield f"{where}nested more than {DEEPEST} levels deep."
    elif isinstance(value, Mapping):
        for key, each in value.items():
            if len(key) > LONGEST_NAME or hidden(key):
                yield f"{where}key {visible(key, 40)!r} is too long or has characters that cannot be seen."
            yield from _problems(each, place or key, depth + 1)
    elif isinstance(value, list):
        for each in value:
            yield from _problems(each, place, depth + 1)
    elif isinstance(value, int) and abs(value) >= 2**63:
        yield f"{where}a whole number of more than 18 digits."
    elif isinstance(value, float) and not math.isfinite(value):
        yield f"{where}{value} is no number."
    elif isinstance(value, str):
        if len(value) > LONGEST_TEXT:
            yield f"{where}a text of {count(len(value), 'character')}; at most {LONGEST_TEXT:,}."
        if unseen := hidden(value, allowed="\n\t"):
            yield f"{where}a text holds {unseen}, which cannot be seen."
    elif isinstance(value, datetime.date | datetime.time):
        yield f"{where}{value} is a date, which no key takes; write it in quotes."


def check_size(cells: int, file: str) -> None:
    """Raise :class:`UserError` when matrices have too many combinations."""
    if cells > MOST_SCENARIOS:
        raise UserError(
            f"{file}: the matrix has {_number(cells)} combinations; at most {MOST_SCENARIOS:,} in one suite (exclusions are"
            " not counted). Split it into several suites."
        )


def check_runs(runs: int, suite: str) -> None:
    """Raise :class:`UserError` when scenarios times seeds are too many."""
    if runs > MOST_RUNS:
        raise UserError(f"suite {suite!r} has {_number(runs)} runs; at most {MOST_RUNS:,}: take fewer seeds.")


def _number(value: int) -> str:
    return f"{value:,}" if value < 10**18 else "more than 10^18"
