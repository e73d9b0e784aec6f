"""Reviews in JSON, as Amazon, Yelp and Steam distribute theirs: one object a line, or one list of all.

Which keys are meant is told, or guessed by their names in the first objects. Strict JSON is read by Arrow; what Arrow
refuses, lists, Python's notation and objects with a list inside are read one by one.
"""

from __future__ import annotations

import ast
import io
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pajson

from fedbench.data.columns import Columns
from fedbench.data.dates import dates_of, seconds_of
from fedbench.data.interactions import table_of_columns
from fedbench.data.names import ITEM, ROLES, UNTOLD, Picks, chosen, missing, plain
from fedbench.data.records import Table
from fedbench.data.tables import rating_notes
from fedbench.errors import DataError

_FIRST = 200
_LONGEST_LINE = 64 << 20


@dataclass(frozen=True)
class _Keys:
    """The key of each role; inside: the key of the list that holds the items, where each object has such a list."""

    user: str
    item: str
    rating: str | None
    time: str | None
    inside: str | None = None

    def of(self, role: str) -> str | None:
        """The key of a role, as a note shows it."""
        key = getattr(self, role)
        return f"{self.inside}.{key}" if key is not None and self.inside is not None and role != "user" else key


def json_table(data: bytes, where: str, *, skip_malformed: bool = False) -> Table:
    """The table of :func:`json_columns`."""
    columns, note = json_columns(data, where, skip_malformed=skip_malformed)
    return table_of_columns(columns, (note, *rating_notes(columns)) if note else ())


def json_columns(
    data: bytes,
    where: str,
    picks: Picks = UNTOLD,
    *,
    skip_malformed: bool = False,
) -> tuple[Columns, str]:
    """Objects with a user, an item and, if any, a time and a rating, and a note of what was taken for what.

    Also "loose" JSON, which is Python's notation (the Amazon files of 2014, Steam), and objects of a user with a list
    of items (the Australian users of Steam). Times are numbers, or dates such as 2010-10-19.

    Raises:
        DataError: a line is not such an object; the message is ``file:line: what``.
    """
    first = [each for each in islice(_objects(data, where), _FIRST) if isinstance(each[1], dict)]
    keys = _keys(first, where, picks)
    if keys is None:
        return _one_by_one(data, where, None, skip_malformed), ""
    note = "read " + ", ".join(f"{role} {keys.of(role)!r}" for role in ROLES if keys.of(role) is not None)
    fast = None if keys.inside else _by_arrow(data, keys, [each for _, each in first])
    return fast or _one_by_one(data, where, keys, skip_malformed), note


def _keys(first: list[tuple[int, dict[str, Any]]], where: str, picks: Picks) -> _Keys | None:
    """The keys of the roles, by the first objects; of several for a role the one that all objects have is preferred."""
    if not first:
        return None
    counts = Counter(str(key) for _, each in first for key, value in each.items() if not isinstance(value, list | dict))
    often = [key for key, count in counts.items() if count == len(first)]
    names = {role: name or chosen(counts)[role] for role, name in chosen(often).items()}
    inside, nested = None, None
    for key in dict.fromkeys(str(key) for _, each in first for key in each):
        inner = next((each[key] for _, each in first if isinstance(each.get(key), list) and each[key]), None)
        if inner is None or not isinstance(inner[0], dict):
            continue
        found = chosen(map(str, inner[0]))
        if found["item"] is not None and plain(names["item"] or "") not in set(ITEM):
            inside, nested = key, inner[0]
            names = {**found, "user": names["user"] or found["user"]}
            break
    known = [*counts, *(nested or ())]
    for role in ROLES:
        said = getattr(picks, role)
        if picks.without(role):
            names[role] = None
        elif said is not None:
            picks.place(role, known, 0, where)
            names[role] = said
    for role in ("user", "item"):
        if names[role] is None:
            keys = dict.fromkeys(str(key) for _, each in first for key in each)
            raise missing(f"{where}:{first[0][0]}", role, keys, "no key of the review is called like one")
    assert names["user"] is not None
    assert names["item"] is not None
    return _Keys(names["user"], names["item"], names["rating"], names["time"], inside)


def _by_arrow(data: bytes, keys: _Keys, first: list[dict[str, Any]]) -> Columns | None:
    """The columns of strict JSON whose values are all of the kinds that the first objects have; None: it is not that."""
    wanted = {keys.user: _kind(first, keys.user), keys.item: _kind(first, keys.item)}
    number = None if keys.rating is None else _kind(first, keys.rating, number=True)
    if keys.rating is not None and number == pa.float64():
        wanted[keys.rating] = number
    if keys.time is not None:
        wanted[keys.time] = _kind(first, keys.time, number=True)
    if None in wanted.values() or data.lstrip().startswith(b"["):
        return None
    try:
        table = pajson.read_json(
            io.BytesIO(data),
            read_options=pajson.ReadOptions(use_threads=False, block_size=_LONGEST_LINE),
            parse_options=pajson.ParseOptions(
                explicit_schema=pa.schema(list(wanted.items())), unexpected_field_behavior="ignore"
            ),
        )
        user, item = (pc.cast(table.column(key), pa.string()) for key in (keys.user, keys.item))
        if any(each.null_count or pc.any(pc.equal(each, "")).as_py() for each in (user, item)):
            return None
        time = None
        if keys.time is not None:
            seconds = table.column(keys.time)
            if seconds.type == pa.string():
                dates = dates_of(seconds.slice(0, _FIRST).to_pylist())
                if dates is None:
                    return None
                seconds = seconds_of(seconds, dates)
            time = np.asarray(seconds.combine_chunks(), np.float64)
            if seconds.null_count or not np.isfinite(time).all():
                return None
        ratings = {}
        if keys.rating in wanted and keys.rating is not None:
            ratings["rating"] = np.asarray(pc.fill_null(table.column(keys.rating), float("nan")), np.float64)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowKeyError, ValueError):
        return None
    return Columns(user.combine_chunks(), item.combine_chunks(), ratings, time, 0)


def _kind(first: list[dict[str, Any]], key: str, *, number: bool = False) -> pa.DataType | None:
    """Arrow's type of a key's values; None where they are of several kinds, or of none that is used."""
    kinds = {type(each.get(key)) for each in first}
    if number and kinds <= {int, float}:
        return pa.float64()
    if kinds == {str}:
        return pa.string()
    return pa.int64() if kinds == {int} else None


def _one_by_one(data: bytes, where: str, keys: _Keys | None, skip_malformed: bool) -> Columns:
    """The columns, object by object, with the place of each in errors."""
    users: list[str] = []
    items: list[str] = []
    times: list[Any] = []
    ratings: list[float] = []
    malformed = 0
    for number, review in _objects(data, where):
        try:
            if not isinstance(review, dict):
                raise ValueError(review if isinstance(review, str) else "not an object")
            assert keys is not None  # some object was among the first
            user = _identifier(review[keys.user])
            parts = [review] if keys.inside is None else _inner(review, keys.inside)
            found = [
                (_identifier(part[keys.item]), None if keys.time is None else _time(part[keys.time])) for part in parts
            ]
        except KeyError as error:
            problem = f"the review has no {error.args[0]!r}"
        except (ValueError, TypeError, OverflowError, AssertionError) as error:
            problem = f"not a JSON review ({error})"
        else:
            for part, (item, time) in zip(parts, found, strict=True):
                users.append(user)
                items.append(item)
                times.append(time)
                value = None if keys.rating is None else part.get(keys.rating)
                ratings.append(_number(value))
            continue
        if not skip_malformed:
            raise DataError(f"{where}:{number}: {problem}; mend it, or leave such out: --skip-malformed.")
        malformed += 1
    numbers = np.array(ratings, np.float64)
    return Columns(
        pa.array(users, pa.string()),
        pa.array(items, pa.string()),
        {"rating": numbers} if np.isfinite(numbers).any() else {},
        _seconds(times, where) if keys is None or keys.time is not None else None,
        malformed,
    )


def _inner(review: dict[str, Any], key: str) -> list[dict[str, Any]]:
    found = review[key]
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise ValueError(f"{key!r} is no list of objects")
    return found


def _objects(data: bytes, where: str) -> Iterator[tuple[int, Any]]:
    """Line number (of a list: place) and what stands there; text where it is no JSON, saying why."""
    if data.lstrip().startswith(b"["):
        try:
            yield from enumerate(json.loads(data), start=1)
            return
        except (ValueError, RecursionError) as error:
            if b"\n" not in data.strip():
                raise DataError(f"{where}: not a JSON list of reviews ({str(error)[:100]}).") from None
    inside = _wrapped(data) or _stacked(data)
    if inside:
        yield from enumerate(inside, start=1)
        return
    for number, line in enumerate(io.BytesIO(data), start=1):
        if line.strip():
            yield number, _object(line)


def _wrapped(data: bytes) -> list[Any]:
    """The longest list in an object that is all of a file; empty where there is no such object."""
    line = data.lstrip().partition(b"\n")[0].strip()
    if line.endswith(b"}") and b"\n" in data.strip():
        return []  # the first of many objects
    try:
        whole = json.loads(data)
    except (ValueError, RecursionError):
        return []
    lists = [value for value in whole.values() if isinstance(value, list)] if isinstance(whole, dict) else []
    longest = max(lists, key=len, default=[])
    has_user = (
        chosen(str(key) for key, value in whole.items() if not isinstance(value, list))["user"] if lists else None
    )
    return longest if longest and isinstance(longest[0], dict) and has_user is None else []


def _stacked(data: bytes) -> list[Any]:
    """The objects of a file in which each takes several lines; empty where that is not so."""
    if data.lstrip().partition(b"\n")[0].strip() != b"{":
        return []
    text, place, found = data.decode("utf-8", "replace"), 0, []
    try:
        while start := re.compile(r"\S").search(text, place):
            value, place = json.JSONDecoder().raw_decode(text, start.start())
            found.append(value)
    except (ValueError, RecursionError):
        return []
    return found


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


def _number(value: Any) -> float:
    """A rating; nan for what is no number."""
    try:
        return float(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else np.nan
    except ValueError:
        return np.nan


def _time(value: Any) -> float | str:
    """A number of seconds; of a date that is not of ISO 8601 the text."""
    if isinstance(value, bool) or not isinstance(value, str | int | float) or value == "":
        raise ValueError(f"{value!r} is no time")
    try:
        seconds = float(value)
    except ValueError:
        try:
            stamp = datetime.fromisoformat(str(value))
        except ValueError:
            if not any(sign.isdigit() for sign in str(value)):
                raise
            return str(value)
        seconds = (stamp if stamp.tzinfo else stamp.replace(tzinfo=UTC)).timestamp()
    if not np.isfinite(seconds):
        raise ValueError(f"{value!r} is no time")
    return seconds


def _seconds(times: list[float | str], where: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Seconds of all times; float64 [n].

    Raises:
        DataError: some are text that no form of dates fits.
    """
    places = [place for place, time in enumerate(times) if isinstance(time, str)]
    seconds = np.array([np.nan if isinstance(time, str) else time for time in times], np.float64)
    if places:
        texts = [str(times[place]) for place in places]
        try:
            dates = dates_of(texts[:_FIRST])
            found = None if dates is None else seconds_of(pa.chunked_array([pa.array(texts)]), dates)
        except ValueError as error:
            raise DataError(f"{where}: time {error}; import without times: --time none.") from None
        known = np.zeros(len(texts), bool) if found is None else np.asarray(pc.is_valid(found.combine_chunks()))
        if found is None or not known.all():
            text = texts[int(np.flatnonzero(~known)[0])]
            raise DataError(
                f"{where}: time {text!r} is neither a number nor a date of the others' form; import without times:"
                " --time none."
            )
        seconds[places] = np.asarray(found.combine_chunks())
    return seconds
