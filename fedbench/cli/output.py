"""What the commands share: tables, numbers and durations as people read them."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import typer

from fedbench.texts import count as count
from fedbench.texts import finite

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

LONGEST = 48
"""Characters of a cell of a table that is cut to the screen."""


def console(err: bool = False) -> Console:
    """A console on stdout (or stderr) that prints text as it is; wide where no terminal sets the width."""
    from fedbench.cli.screen import Screen

    stream = sys.stderr if err else sys.stdout
    return Screen(stderr=err, highlight=False, markup=False, emoji=False, width=None if stream.isatty() else 160)


def table(headings: Sequence[str], rows: Iterable[Sequence[Any]], right: Iterable[str] = ()) -> Table:
    """A plain table; the columns named in ``right`` are aligned to the right."""
    from rich.table import Table

    out = Table(box=None, header_style="bold", pad_edge=False)
    for heading in headings:
        out.add_column(heading, justify="right" if heading in set(right) else "left", overflow="fold")
    for row in rows:
        out.add_row(*map(str, row))
    return out


@dataclass(frozen=True)
class Fitted:
    """What a screen has room for, and what to say of the rest."""

    headings: list[str]
    rows: list[list[str]]
    note: str


def fitted(names: Sequence[str], rows: Sequence[Sequence[Any]], width: int) -> Fitted:
    """Rows for a screen: as they are where they fit; a few wide ones turned, one line a column; of many, the first columns.

    Cells are cut to :data:`LONGEST` characters only where rows do not fit as they are. No column is left out where the names
    of all fit: cells are folded then. The note names what was done.
    """
    whole = [["" if value is None else str(value) for value in row] for row in rows]
    if len(names) == 1 or _total(names, whole) <= width:
        return Fitted(list(names), whole, "")
    cells = [[_short(text) for text in row] for row in whole]
    ways = "--csv or --json gives everything"
    cut = f"Long values are cut; {ways}." if cells != whole else ""
    if _total(names, cells) <= width:
        return Fitted(list(names), cells, cut)
    turned = ["column", *(f"row {n}" for n in range(1, len(cells) + 1))]
    lines = [[name, *(row[n] for row in cells)] for n, name in enumerate(names)]
    if cells and _total(turned, lines) <= width:
        return Fitted(turned, lines, cut)
    if _total(names, []) <= width:
        return Fitted(list(names), cells, cut)
    kept = 1
    while _total(names[: kept + 1], [row[: kept + 1] for row in cells]) <= width:
        kept += 1
    note = f"{kept} of {len(names)} columns fit; name those that you want, or {ways}."
    return Fitted(list(names[:kept]), [row[:kept] for row in cells], note)


def narrowed(
    headings: Sequence[str],
    rows: Sequence[Sequence[str]],
    width: int,
    spare: Sequence[str],
    dropped: Iterable[str] = (),
) -> tuple[list[str], list[list[str]]]:
    """Headings and rows for a screen of ``width`` characters, every row on a line if that can be.

    The columns ``dropped`` are left out, and as many of ``spare`` as it takes, the first ones first.
    """
    left = set(headings) - set(dropped)
    for heading in (None, *spare):
        left.discard(str(heading))
        kept = [n for n, each in enumerate(headings) if each in left]
        names, cells = [headings[n] for n in kept], [[row[n] for n in kept] for row in rows]
        if _total(names, cells) <= width:
            break
    return names, cells


def _total(names: Sequence[str], rows: Sequence[Sequence[str]]) -> int:
    """Characters of a line of the table, with gaps of 2."""
    lines = ([line for text in column for line in text.splitlines()] for column in zip(names, *rows, strict=True))
    return sum(max(map(len, each)) + 2 for each in lines) - 2


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else f"{' '.join(text.split())[: LONGEST - 3]}..."


def facts(rows: Iterable[tuple[str, Any]]) -> Table:
    """Names and values, one a line; empty values are left out."""
    from rich.table import Table

    out = Table(box=None, show_header=False, pad_edge=False)
    out.add_column(style="bold", no_wrap=True)
    out.add_column(overflow="fold")
    for name, value in rows:
        if value not in (None, "", []):
            out.add_row(name, str(value))
    return out


def print_json(value: Any) -> None:
    """Indented JSON on stdout, strict: null for a number that is none."""
    typer.echo(json.dumps(finite(value), indent=2, default=str, allow_nan=False))


def duration(seconds: float) -> str:
    """``4.2 s``, ``3 min 20 s``, ``2 h 05 min``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def parse_time(text: str, option: str) -> float:
    """Seconds of ``90s``, ``15m``, ``1h``, ``1h30m``, as an option gives them."""
    import re

    from fedbench.errors import UserError

    parts = re.fullmatch(r"(?:([0-9]{1,5})h)?(?:([0-9]{1,5})m)?(?:([0-9]{1,6})s)?", text, re.ASCII)
    values = [int(each or 0) for each in parts.groups()] if parts else []
    seconds = sum(n * unit for n, unit in zip(values, (3600, 60, 1), strict=False))
    if seconds < 1:
        raise UserError(f"{option} {text!r} must be a time such as 90s, 15m, 1h or 1h30m.")
    return float(seconds)


def percent(value: float | None, digits: int = 1) -> str:
    """``57.2 %`` of a fraction; a dash for None."""
    return "-" if value is None else f"{100 * value:.{digits}f} %"
