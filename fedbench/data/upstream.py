"""Reviews in JSON, as Amazon, Yelp and Steam distribute theirs: one object a line, or one list of all."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa

from fedbench.data.columns import Columns
from fedbench.data.interactions import table_of_columns
from fedbench.data.records import Table
from fedbench.data.tables import chosen, rating_notes
from fedbench.errors import DataError


def json_table(data: bytes, where: str, *, skip_malformed: bool = False) -> Table:
    """Objects with a user, an item and, if any, a time and a rating, by the names that their keys have.

    Also "loose" JSON, which is Python's notation (the Amazon files of 2014, Steam). Times are numbers, or dates such as
    2010-10-19. Whether there are times and ratings is told by the first object.

    Raises:
        DataError: a line is not such an object; the message is ``file:line: what``.
    """
    names: tuple[str | None, ...] | None = None
    users: list[str] = []
    items: list[str] = []
    times: list[float] = []
    ratings: list[float] = []
    malformed = 0
    for number, review in _objects(data, where):
        try:
            if not isinstance(review, dict):
                raise ValueError(review if isinstance(review, str) else "not an object")
            if names is None:
                names = chosen(map(str, review))
            user, item, rating, time = names
            if user is None or item is None:
                raise DataError(
                    f"{where}:{number}: no key of the review names the {'user' if user is None else 'item'}; it has:"
                    f" {', '.join(map(str, review))}. Call it {'user' if user is None else 'item'}_id."
                )
            found = _identifier(review[user]), _identifier(review[item])
            seconds = None if time is None else _seconds(review[time])
            if rating is not None:
                ratings.append(float(review[rating]) if isinstance(review.get(rating), int | float | str) else np.nan)
        except KeyError as error:
            problem = f"the review has no {error.args[0]!r}"
        except (ValueError, TypeError, OverflowError) as error:
            problem = f"not a JSON review ({error})"
        else:
            users.append(found[0])
            items.append(found[1])
            if seconds is not None:
                times.append(seconds)
            continue
        if not skip_malformed:
            raise DataError(f"{where}:{number}: {problem}")
        malformed += 1
    columns = Columns(
        pa.array(users, pa.string()),
        pa.array(items, pa.string()),
        {"rating": np.array(ratings, np.float64)} if ratings and np.isfinite(ratings).all() else {},
        np.array(times, np.float64) if names is None or names[3] is not None else None,
        malformed,
    )
    taken = zip(("user", "item", "rating", "time"), names or (), strict=False)
    note = "read " + ", ".join(f"{what} {name!r}" for what, name in taken if name is not None)
    return table_of_columns(columns, (note, *rating_notes(columns)) if names else ())


def _objects(data: bytes, where: str) -> Iterator[tuple[int, Any]]:
    """Line number (of a list: place) and what stands there; text where it is no JSON, saying why."""
    if data.lstrip().startswith(b"["):
        try:
            yield from enumerate(json.loads(data), start=1)
            return
        except (ValueError, RecursionError) as error:
            if b"\n" not in data.strip():
                raise DataError(f"{where}: not a JSON list of reviews ({str(error)[:100]}).") from None
    for number, line in enumerate(data.splitlines(), start=1):
        if line.strip():
            yield number, _object(line)


def _object(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        try:
            return ast.literal_eval(line.decode("utf-8", "replace").strip()) if b"'" in line else str(error)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            return str(error)


def _identifier(value: Any) -> str:
    """A text or a whole number as text."""
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise ValueError(f"{value!r} is no id of a user or item")
    return str(value)


def _seconds(value: Any) -> float:
    """A number, or a date, as a number of seconds."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"{value!r} is no time")
    try:
        seconds = float(value)
    except ValueError:
        stamp = datetime.fromisoformat(str(value))
        seconds = (stamp if stamp.tzinfo else stamp.replace(tzinfo=UTC)).timestamp()
    if not np.isfinite(seconds):
        raise ValueError(f"{value!r} is no time")
    return seconds
