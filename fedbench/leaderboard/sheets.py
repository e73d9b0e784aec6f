"""The tables of the leaderboard: what they are, and how numbers, places and doubts stand in them.

Those of attacks are in ``sheets_attacks``, those of defenses in ``sheets_defenses``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from fedbench.leaderboard.ranking import Estimate
from fedbench.leaderboard.ranking_attacks import Standing
from fedbench.leaderboard.ranking_defenses import DefenseRow
from fedbench.leaderboard.separation import Separation


@dataclass(frozen=True)
class Sheet:
    """A table: a title, headings, rows of text, and the run ids behind each row."""

    title: str
    headings: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    runs: dict[str, list[str]] = field(default_factory=dict)
    wide: bool = False
    """Whether it is left out on a screen."""
    text: frozenset[str] = frozenset(
        {"attack", "knows", "defense", "family", "assumes", "worst attack", "least prevented", "least recovered"}
        | {"worst fixed", "worst adaptive"}
    )
    """Headings of the columns that hold words: they are set flush left."""
    spare: tuple[str, ...] = ()
    """Headings of the columns that a narrow screen does without, the first ones first."""
    caption: str = ""
    """What is said below the table."""
    told: Separation | None = None
    """What separates its rows, where they are ranked."""


SHARE, POINTS, LOST, ANY = (0.0, 100.0), (-100.0, 100.0), (-math.inf, 100.0), (-math.inf, math.inf)
"""What is possible, in percent: of a share, of a difference of two, of what is lost of the whole, of what is brought back."""
NEVER_ON_A_SCREEN = frozenset({"failed", "missing", "without twin", "left out", "assumes", "broken clean"})


def columns_that_fit(sheet: Sheet, width: int) -> list[int]:
    """Which columns of a sheet a screen shows: as many as have room, by what the sheet can spare.

    Words may be broken over lines of 20 characters, numbers not.
    """
    need = {}
    for column, heading in enumerate(sheet.headings):
        if heading not in NEVER_ON_A_SCREEN:
            longest = max((len(row[column]) for row in sheet.rows), default=0)
            words = max(min(longest, 20), *map(len, heading.split()))
            need[heading] = 2 + (words if heading in sheet.text else max(longest, len(heading)))
    for heading in sheet.spare:
        if sum(need.values()) - 2 > width:
            need.pop(heading, None)
    return [column for column, heading in enumerate(sheet.headings) if heading in need]


def hit_cut(k: int) -> int:
    """The K of HR@K beside ER@K: hit ratios are measured up to 20."""
    return min(k, 20)


def rank_text(rank: int | None, last: int | None) -> str:
    """Ranks from the first to the last that is open: ``3``, or ``1-4``; ``-`` without a rank."""
    return "-" if rank is None else str(rank) if rank == last else f"{rank}-{last}"


def caption(told: Separation, unit: str = "points") -> str:
    """What the runs of a table can tell apart; empty for fewer than two ranked entries.

    Args:
        told: of the table. unit: of their scores.
    """
    count = len(told.ranks)
    if count < 2:
        return ""
    read = "a rank such as 1-4 says which places are open to it; beats: how many it is significantly better than"
    pairs = f"{sum(map(len, told.beats.values()))} of {count * (count - 1) // 2} pairs are told apart"
    found = [difference for difference, _ in told.pairs.values()]
    if all(each.p is None for each in found):
        finest = "nothing can be tested: single runs do not show how far seeds differ; run more seeds"
    elif told.resolution is None:
        finest = "no smallest difference can be given: the runs do not vary"
    else:
        # Exposure, and what is lost of quality, end at 100.
        shown = f"{told.resolution:.1f}" if told.resolution <= 100 else "above 100"
        finest = f"smallest difference that can be resolved: {shown} {unit}"
    text = f"{read}. {pairs}; {finest}."
    if lone := sum(each.lone > 0 for each in found):
        noun = "1 pair has" if lone == 1 else f"{lone} pairs have"
        text += f" {noun} scenarios with a single common seed, which do not count beside others with several."
    return text


def standing(row: Standing | DefenseRow) -> tuple[str, str]:
    """The cells "beats" and "mean rank"."""
    return "-" if row.beats is None else str(row.beats), number(row.average_rank)


def place(row: Standing | DefenseRow) -> str:
    """The cell "rank": :func:`rank_text`, or that the entry is not verified."""
    return "unverified" if row.unverified else rank_text(row.rank, row.last_rank)


def doubts(rows: Sequence[Standing] | Sequence[DefenseRow]) -> tuple[str, ...]:
    """Headings of the columns of :func:`doubt`: those of what there is."""
    refused, warned = any(row.refused for row in rows), any(row.warned for row in rows)
    return *(("refused uploads",) if refused else ()), *(("warned",) if warned else ())


def doubt(row: Standing | DefenseRow, rows: Sequence[Standing] | Sequence[DefenseRow]) -> tuple[str, ...]:
    """The cells below :func:`doubts`."""
    shown = {"refused uploads": row.refused, "warned": row.warned}
    return tuple(str(shown[heading]) for heading in doubts(rows))


def beside(text: str, hr: float | None) -> str:
    """A number with the HR@K beside it: ``41.2 (HR 55.0)``."""
    return text if hr is None else f"{text} (HR {number(hr)})"


def share(value: Estimate) -> str:
    """An estimate between 0 and 100 %."""
    return estimate(value)


def change(value: Estimate) -> str:
    """An estimate of what is lost of 100 %, with its sign."""
    return estimate(value, LOST)


def estimate(value: Estimate | None, within: tuple[float, float] = SHARE) -> str:
    """``41.2 [30.5, 52.0]``, with signs where it may be negative; the bounds are cut to what is possible."""
    if value is None:
        return "-"
    least, most = within
    signed = least < 0
    if value.low is None or value.high is None:
        return number(value.mean, signed)
    low, high = max(value.low, least), min(value.high, most)
    return f"{number(value.mean, signed)} [{number(low, signed)}, {number(high, signed)}]"


def number(value: float | None, signed: bool = False, digits: int = 1) -> str:
    """``41.2``; ``-`` of none."""
    if value is None:
        return "-"
    return f"{value:{'+' if signed else ''}.{digits}f}"
