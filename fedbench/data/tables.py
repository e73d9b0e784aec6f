"""Tables as people have them: CSV in its dialects, with a header or without, and RecBole's ``.inter``.

Which column is what is told, or guessed: by the header where there is one, else by what the columns hold. What was
taken for what is said in a note. The lines themselves are cut by ``columns``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from fedbench.data.columns import Columns, Layout, read_columns
from fedbench.data.dates import Dates, dates_of
from fedbench.data.interactions import table_of_columns
from fedbench.data.names import ROLES, UNTOLD, Picks, chosen, missing
from fedbench.data.records import Table
from fedbench.data.sniffing import Sniffed, dated, late, numeric, sniff
from fedbench.errors import DataError

EXAMPLE = "user_id,item_id,rating,timestamp"
_REVIEWER, _ASIN = re.compile(r"A[0-9A-Z]+"), re.compile(r"B[0-9A-Z]+|[0-9]{9}[0-9X]")
_SHA1, _UUID = re.compile(r"[0-9a-f]{40}"), re.compile(r"([0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12})?")
_TYPE = re.compile(r".+:(token|float|token_seq|float_seq)")
_NO_RATING = re.compile(r"length|_len|num|lat|lon|price|age")
_EVENTS = {"purchase", "play"}
"""What Steam's list says of a row: that the game was bought, or for how many hours it was played."""


@dataclass(frozen=True)
class _Places:
    """The columns of the roles, by place; kind: the column of Steam's events."""

    user: int
    item: int
    rating: int | None
    time: int | None
    kind: int | None = None


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


def table_columns(data: bytes, where: str, skip_malformed: bool, picks: Picks = UNTOLD) -> tuple[Columns, str]:
    """The columns of a table, and a note of what was taken for what; arguments and errors as of :func:`read_table`.

    ``picks``: what somebody says of the columns.
    """
    named = [
        said for role in ROLES if (said := getattr(picks, role)) and not said.isdigit() and not picks.without(role)
    ]
    sniffed = sniff(data, named)
    if sniffed is None:
        raise DataError(
            f"{where}: no separator (tab, comma, ;, |, ::, blank) cuts the first lines into as many columns each, at"
            f" least two; expected a table such as {EXAMPLE}."
        )
    layout, note = layout_of(sniffed, where, picks)
    rows = _rows(data, sniffed)
    ways = [layout]
    if b'"' in rows and len(layout.separator) == 1:
        plain, quoted = replace(layout, quoted=False, escaped=False), replace(layout, quoted=True)
        told = layout.quoted or any(field.startswith('"') for row in sniffed.rows for field in row)
        ways = [layout, *(each for each in (plain, quoted, replace(quoted, escaped=True)) if each != layout)]
        if not told and layout.separator != "\t":  # titles with a comma may come far below the first lines
            ways = [quoted, replace(quoted, escaped=True), plain]
    columns = _read(rows, ways, where, skip_malformed)
    if columns.kind is not None and "rating" in columns.numbers:
        bought = np.asarray(columns.kind.to_pylist(), dtype=object) == "purchase"
        columns = replace(columns, numbers={"rating": np.where(bought, 0.0, columns.numbers["rating"])}, kind=None)
    return columns, note


def _read(rows: bytes, ways: Sequence[Layout], where: str, skip_malformed: bool) -> Columns:
    """The columns by the first way of quoting that fits all lines, or the one with the fewest malformed lines."""
    best: Columns | None = None
    first: DataError | None = None
    for way in ways:
        try:
            columns = read_columns(rows, way, where, skip_malformed=skip_malformed)
        except DataError as error:
            first = first or error
            continue
        if not columns.malformed:
            return columns
        best = columns if best is None or columns.malformed < best.malformed else best
    if best is None:
        assert first is not None
        raise first
    return best


def layout_of(sniffed: Sniffed, where: str, picks: Picks = UNTOLD) -> tuple[Layout, str]:
    """How the lines are cut, and a note of what was taken for what.

    Raises:
        DataError: nothing tells.
        UserError: a column that somebody named is not there.
    """
    places = _places(sniffed, where, picks)
    if sniffed.header is None:
        names = [f"column {place + 1}" for place in range(sniffed.width)]
    else:
        names = [repr(name) for name in sniffed.header]
    numbers: list[tuple[int, str]] = []
    blank: tuple[int, ...] = ()
    decimal = "."
    rating, dates = places.rating, None
    if rating is not None:
        column = sniffed.column(rating)
        if not numeric(column) and sniffed.separator != "," and numeric(column, ","):
            decimal = ","
        if numeric(column, decimal):
            numbers.append((rating, "rating"))
            blank = (rating,)
        elif picks.rating is not None and column:
            raise DataError(f"{where}: rating {column[0]!r} of {names[rating]} is no number; say --rating none.")
        else:
            rating = None
    if places.time is not None:
        column = sniffed.column(places.time)
        if numeric(column, decimal) or not column:
            numbers.append((places.time, "timestamp"))
        else:
            dates = _dates(column, names[places.time], where)
    layout = Layout(
        sniffed.separator,
        sniffed.width,
        places.user,
        places.item,
        places.time,
        tuple(numbers),
        blank=blank,
        dates=dates,
        quoted=sniffed.quoted,
        escaped=sniffed.escaped,
        decimal=decimal,
        comments=True,
        kind=places.kind,
    )
    parts = {"user": places.user, "item": places.item, "rating": rating, "time": places.time}
    taken = ", ".join(f"{what} {names[place]}" for what, place in parts.items() if place is not None)
    return layout, f"taken for {taken}" if sniffed.header is None and not picks else f"read {taken}"


def _dates(column: Sequence[str], name: str, where: str) -> Dates:
    try:
        dates = dates_of(column)
    except ValueError as error:
        raise DataError(
            f"{where}: time {error} of {name}; write dates as 2010-10-19, or import without times: --time none."
        ) from None
    if dates is None:
        raise DataError(
            f"{where}: time {column[0]!r} of {name} is neither a number nor like 2010-10-19 23:55:27;"
            " convert it, or import without times: --time none."
        )
    return dates


def _places(sniffed: Sniffed, where: str, picks: Picks) -> _Places:
    """The columns of the roles: as told, else as guessed of those that are left.

    Raises:
        DataError: nothing tells where users and items are.
    """
    told = {role: picks.place(role, sniffed.header, sniffed.width, where) for role in ROLES}
    given = [place for place in told.values() if place is not None]
    for place in given:
        if given.count(place) > 1:
            both = " and ".join(f"--{role}" for role, each in told.items() if each == place)
            raise DataError(f"{where}: {both} name the same column; give each its own.")
    guess = _by_number(sniffed) if sniffed.header is None else _by_header(sniffed)
    kind = guess.pop("kind", None)
    for role in ROLES:
        if guess[role] in given or picks.without(role):
            guess[role] = None
    if sniffed.header is None and told["user"] is not None and told["item"] is not None:
        guess.update(_rest(sniffed, given))
    found = {role: guess[role] if told[role] is None else told[role] for role in ROLES}
    for role in ("rating", "time"):
        if picks.without(role):
            found[role] = None
    user, item = found["user"], found["item"]
    if user is None or item is None:
        if sniffed.header is not None:
            shown = f"{where}:{sniffed.first}"
            raise missing(shown, "user" if user is None else "item", (name for name in sniffed.header if name))
        first = sniffed.separator.join(sniffed.rows[0])
        raise DataError(
            f"{where}: {sniffed.width} columns and no header that tells what they are ({first[:60]}); say which:"
            f" --user 1 --item 2 (and --rating, --time), or put a first line above them such as {EXAMPLE}; --format lists,"
            " if each line is a user and all items of theirs."
        )
    return _Places(user, item, found["rating"], found["time"], kind)


def _by_header(sniffed: Sniffed) -> dict[str, int | None]:
    """By the names; of RecBole's typed names that say nothing, the first tokens are user and item."""
    header = sniffed.header or ()
    found = {role: None if name is None else list(header).index(name) for role, name in chosen(header).items()}
    if all(_TYPE.fullmatch(name) for name in header):
        free = [place for place, name in enumerate(header) if name.endswith(":token") and place not in found.values()]
        if found["time"] is None:
            needed = (found["user"], found["item"]).count(None)
            floats = [place for place, name in enumerate(header) if name.endswith(":float")]
            times = [
                each
                for each in (*floats, *free[needed:])
                if each not in found.values() and _is_time(sniffed.column(each))
            ]
            found["time"] = times[0] if times else None
        for role in ("user", "item"):
            if found[role] is None:
                free = [place for place in free if place not in found.values()]
                found[role] = free[0] if free else None
        if found["rating"] is None:
            floats = [place for place, name in enumerate(header) if name.endswith(":float")]
            floats = [place for place in floats if place not in found.values() and not _NO_RATING.search(header[place])]
            found["rating"] = floats[0] if len(floats) == 1 else None
    found["kind"] = next((place for place in range(len(header)) if _is_events(sniffed.column(place))), None)
    return found


def _by_number(sniffed: Sniffed) -> dict[str, int | None]:
    """user, item; user, item, rating or time; user, item, rating, time; and the lists of Amazon, Steam and Last.fm."""
    width = sniffed.width
    column = sniffed.column
    roles: dict[str, int | None] = dict.fromkeys((*ROLES, "kind"))
    if width in (4, 5) and _is_events(column(2)) and numeric(column(3)):
        return {**roles, "user": 0, "item": 1, "rating": 3, "kind": 2}
    if (
        width == 6 and dated(column(1)) and not dated(column(2))
    ):  # Last.fm, 1K users: time, artist's id and name, track's
        return {**roles, "user": 0, "item": 3, "time": 1}
    if width == 4 and numeric(column(3)) and not numeric(column(2)) and not dated(column(2)):
        if all(map(_SHA1.fullmatch, column(0))) or all(map(_UUID.fullmatch, column(1))):  # Last.fm, 360K users
            return {**roles, "user": 0, "item": 2, "rating": 3}
        return roles
    if width == 3 and dated(column(0)) and not dated(column(2)):
        return {**roles, "time": 0, "user": 1, "item": 2}
    places = (1, 0) if _most(_ASIN, column(0)) and _most(_REVIEWER, column(1)) else (0, 1)
    rest = [place for place in range(2, width) if numeric(column(place)) or dated(column(place))]
    times = [place for place in rest if _is_time(column(place))]
    if width > 4 or len(rest) < width - 2 or len(times) > 1:
        return roles
    roles["user"], roles["item"] = places
    if width == 3:
        roles["time" if times else "rating"] = 2
    elif width == 4:
        roles["rating"], roles["time"] = (3, 2) if times == [2] else (2, 3)
    return roles


def _rest(sniffed: Sniffed, used: Sequence[int]) -> dict[str, int | None]:
    """Rating and time where the columns of users and items were told: what can only be one of them."""
    left = [place for place in range(sniffed.width) if place not in used]
    times = [place for place in left if _is_time(sniffed.column(place))]
    ratings = [place for place in left if place not in times and numeric(sniffed.column(place))]
    return {
        "rating": ratings[0] if len(ratings) == 1 and len(left) <= 2 else None,
        "time": times[0] if len(times) == 1 else None,
    }


def _is_time(column: Sequence[str]) -> bool:
    return late(column) if numeric(column) else bool(column) and dated(column)


def _is_events(column: Sequence[str]) -> bool:
    return bool(column) and {text.strip().lower() for text in column} <= _EVENTS


def _most(pattern: re.Pattern[str], column: Sequence[str]) -> bool:
    """Whether nine of ten are of a form."""
    return 10 * sum(pattern.fullmatch(text) is not None for text in column) >= 9 * len(column)


def _rows(data: bytes, sniffed: Sniffed) -> bytes:
    """The file with empty lines in place of what stands before its first row, so that lines keep their numbers."""
    rest = data
    for _ in range(sniffed.first):
        line = re.search(rb"\r\n|\n|\r", rest)
        rest = rest[line.end() :] if line else b""
    if sniffed.separator == " ":
        rest = re.sub(rb"[ \t]+", b" ", re.sub(rb"(?m)^[ \t]+|[ \t]+(?=\r?$)", b"", rest))
    elif sniffed.spaced:
        rest = re.sub(rb" *(" + re.escape(sniffed.separator.encode()) + rb") *", rb"\1", rest)
    return b"\n" * sniffed.first + rest


def rating_notes(columns: Columns) -> tuple[str, ...]:
    """That ratings are not read, where there are some that differ."""
    ratings = columns.numbers.get("rating")
    if ratings is None or not np.isfinite(ratings).any():
        return ()
    ratings = ratings[np.isfinite(ratings)]
    low, high = float(np.min(ratings)), float(np.max(ratings))
    if low == high:
        return ()
    below = 100 * float(np.mean(ratings < (low + high) / 2))
    return (f"ratings ({low:g} to {high:g}, {below:.0f} % below the middle) are not read: every row counts as a like",)
