"""Times that are written as text: which form a column has, and its values as seconds.

Arrow reads ISO 8601; DuckDB reads the forms that spreadsheets and web sites write.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import pyarrow as pa
import pyarrow.compute as pc

_CLOCKS = ("", " %H:%M:%S", " %H:%M", " %I:%M:%S %p", " %I:%M %p")
_DAYS = (
    *("%m/%d/%Y", "%d/%m/%Y", "%d.%m.%Y", "%d-%m-%Y", "%m-%d-%Y", "%Y/%m/%d", "%Y.%m.%d"),
    *("%m %d, %Y", "%b %d, %Y", "%B %d, %Y", "%d %b %Y", "%d %B %Y", "%d-%b-%Y", "%B %d %Y"),
)
_FORMS = (
    *(day + clock for clock in _CLOCKS for day in _DAYS),
    *("Posted %B %d, %Y.", "Posted %B %d, %Y", "Posted %d %B, %Y.", "Posted %d %B %Y."),
    *("%a %b %d %H:%M:%S %z %Y", "%a, %d %b %Y %H:%M:%S %z", "%a, %d %b %Y %H:%M:%S GMT", "%a %b %d %H:%M:%S %Y"),
    "%d/%b/%Y:%H:%M:%S %z",
)
"""Forms of DuckDB's ``strptime`` that are tried where a time is not of ISO 8601."""

_CAST = "as DuckDB casts"
"""Stands for what DuckDB reads without a form: dates of ISO 8601 with nanoseconds, or UTC behind them."""


@dataclass(frozen=True)
class Dates:
    """How the times of a column are written."""

    form: str = ""
    """As ``strptime`` of DuckDB has it; empty: ISO 8601."""
    zoned: bool = False
    """Whether a time of ISO 8601 names its zone."""


def dates_of(sample: Sequence[str]) -> Dates | None:
    """The form of most values of a sample; None where they are no dates.

    Raises:
        ValueError: days and months could be either, and the orders differ.
    """
    texts = [text for text in sample if text]
    if not texts:
        return None
    marks = [_zone(text) for text in texts]
    if 2 * sum(mark is not None for mark in marks) >= len(marks):
        dates = Dates(zoned=bool(next(mark for mark in marks if mark is not None)))
        return dates if _is_read_by_arrow(texts, dates) else Dates(_CAST)
    if not all(any(sign.isdigit() for sign in text) and len(text) >= 8 for text in texts[:10]):
        return None
    tried = (*_FORMS, _CAST)
    found = dict(zip(tried, _read(pa.array(texts), tried), strict=True))
    most = max(map(_known, found.values()))
    best = [form for form, values in found.items() if _known(values) == most]
    if 2 * most < len(texts):
        return None
    if any(not found[form].equals(found[best[0]]) for form in best):
        raise ValueError(f"{texts[0]!r} may have the day first or the month")
    return Dates(best[0])


def _is_read_by_arrow(texts: Sequence[str], dates: Dates) -> bool:
    """Whether Arrow reads what Python takes for ISO 8601, of those values that are."""
    try:
        seconds_of(pa.chunked_array([[text for text in texts if _zone(text) is dates.zoned]]), dates)
    except pa.ArrowInvalid:
        return False
    return True


def seconds_of(column: pa.ChunkedArray, dates: Dates) -> pa.ChunkedArray:
    """Seconds since 1970, float64 [n], null where a value is not of the form.

    Raises:
        pyarrow.ArrowInvalid: of ISO 8601, where a value is not of the form.
    """
    if dates.form:
        return pa.chunked_array(_read(column, [dates.form]), pa.float64())
    stamp = pc.cast(pc.cast(column, pa.timestamp("us", "UTC" if dates.zoned else None)), pa.int64())
    return pc.divide(pc.cast(stamp, pa.float64()), 1e6)


def fits(text: str, dates: Dates) -> bool:
    """Whether one value is of the form."""
    if dates.form:
        return bool(_known(_read(pa.array([text]), [dates.form])[0]))
    return _zone(text) is dates.zoned


def example(dates: Dates) -> str:
    """The form, as a message shows it."""
    return dates.form if dates.form not in ("", _CAST) else f"2010-10-19T23:55:27{'Z' if dates.zoned else ''}"


def _known(values: pa.Array) -> int:
    return len(values) - values.null_count


def _read(column: pa.Array | pa.ChunkedArray, forms: Sequence[str]) -> list[pa.Array]:
    """Seconds since 1970 of texts, by each of some forms, null where they are not of it: float64 [n] each."""
    import duckdb

    stamps = ["try_cast(t as timestamptz)" if form == _CAST else f"try_strptime(t, '{form}')" for form in forms]
    asked = ", ".join(f"cast(epoch({stamp}) as double) as f{place}" for place, stamp in enumerate(stamps))
    with duckdb.connect() as connection:
        connection.execute("set timezone = 'UTC'")
        connection.register("given", pa.table({"t": column, "n": pa.array(range(len(column)), pa.int64())}))
        answer = connection.sql(f"select {asked} from given order by n").to_arrow_table()
    return [column.combine_chunks() for column in answer.columns]


def _zone(text: str) -> bool | None:
    """Whether a date of ISO 8601 names its zone; None: it is no such date."""
    try:
        return datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        return None
