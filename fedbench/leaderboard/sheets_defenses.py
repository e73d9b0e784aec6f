"""The tables of defenses: ranks, the best of them against each attack, and attack by defense."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from fedbench.leaderboard.ranking_defenses import DefenseRow, VisualDefenseRow
from fedbench.leaderboard.separation import Ranking
from fedbench.leaderboard.sheets import (
    ANY,
    LOST,
    POINTS,
    Sheet,
    beside,
    caption,
    doubt,
    doubts,
    estimate,
    hit_cut,
    number,
    place,
    standing,
)
from fedbench.leaderboard.tracks import DEMOTION, TARGETED, VISUAL, Track
from fedbench.leaderboard.under_defenses import Left, UnderRow, family_order

DETECTION = ("clean cosine", "least clean cosine", "AUC", "recall at no false alarm %", "flagged %", "false alarms %")
"""Columns of defenses of images."""


def defense_sheet(
    title: str,
    rows: Ranking[DefenseRow],
    k: int,
    listed: Iterable[str] = (),
    track: Track = TARGETED,
    untried: Sequence[str] = (),
) -> Sheet:
    """Defenses by what they prevent and cost.

    Args:
        title, rows, k: of the table. listed: runs that another table names; rows with only those do not name them again.
        track: of the rows. untried: attacks of which no row says anything, which the caption names.
    """
    if track.exposes:
        cost = "NDCG@20 loss %" if track == VISUAL else f"HR@{hit_cut(k)} loss"
        shown = track.measured(k)
        prevented, loss, left, least = f"{shown} reduction", f"{cost}, clean", f"{shown} left", "least prevented"
        attacked: tuple[str, ...] = (f"{cost}, attacked",)
    else:
        prevented, loss, left, least = "recovered %", "cost %", f"HR@{hit_cut(k)} loss left %", "least recovered"
        attacked = ()
    told = any(row.worst_adaptive for row in rows)
    worst = ("worst fixed", "worst adaptive") if told else ("worst attack",)
    lost = POINTS if track in (TARGETED, DEMOTION) else LOST
    headings = (
        "rank", "defense", "family", prevented, loss, *attacked, "net", "beats", "mean rank", "front", left,
        f"HR@{hit_cut(k)}",
        *(("at peak",) if track.peak else ()), *(("net at the end", "left at the end %") if track.left_end else ()),
        *worst, least, *(DETECTION if track == VISUAL else ()), "ms a round", "knows", "assumes",
        "scenarios", "runs", "broken", "broken clean", "failed", "without twin", "missing", *doubts(rows),
    )  # fmt: skip
    lines = [
        (
            place(row),
            row.defense,
            row.family or "-",
            estimate(row.reduction, POINTS if track.exposes else ANY),
            estimate(row.loss, lost),
            *((estimate(row.loss_attacked, lost),) if attacked else ()),
            number(row.net, signed=True),
            *standing(row),
            "-" if row.front is None else "yes" if row.front else "no",
            number(row.er),
            number(row.hr),
            *((number(row.peak),) if track.peak else ()),
            *((number(row.net_end, signed=True), number(row.er_end)) if track.left_end else ()),
            *(f"{each[0]} {number(each[1])}" if each else "-" for each in _worst(row, len(worst))),
            f"{row.least[0]} {number(row.least[1], signed=True)}" if row.least else "-",
            *_detection(row),
            number(row.cost, signed=True),
            row.knowledge or "none",
            row.assumes or "-",
            str(row.scenarios),
            str(len(row.runs)),
            str(row.broken),
            str(row.clean_broken),
            str(row.failed),
            str(row.unpaired),
            str(len(row.missing)),
            *doubt(row, rows),
        )
        for row in rows
    ]
    known = set(listed)
    runs = {row.defense: row.runs for row in rows if not known.issuperset(row.runs)}
    spare = (
        least,
        "broken",
        "runs",
        "scenarios",
        "mean rank",
        "knows",
        "ms a round",
        "at peak",
        "left at the end %",
        "family",
        *worst,
        "front",
        left,
        "net at the end",
        *(DETECTION if track == VISUAL else ()),
    )
    unit = "points" if track.exposes else "% of the baseline"
    text = caption(rows.separation, unit)
    if attacked:
        text = f"net: reduction minus the larger of the two losses. {text}".rstrip()
    if untried:
        text = f"{text} Tried under none of these defenses, so not in this table: {', '.join(untried)}.".lstrip()
    return Sheet(title, headings, lines, runs, spare=spare, caption=text, told=rows.separation)


def _worst(row: DefenseRow, columns: int) -> tuple[tuple[str, float] | None, ...]:
    """The worst attack, or, in two columns, the worst of those that do not know the defense and of those that do."""
    return (row.worst,) if columns == 1 else (row.worst_fixed, row.worst_adaptive)


def _detection(row: DefenseRow) -> tuple[str, ...]:
    """The columns :data:`DETECTION`; none of a defense in another track."""
    if not isinstance(row, VisualDefenseRow):
        return ()
    two = (row.similarity, row.least_similarity, row.auc)
    shares = (row.recall_zero_fp, row.recall, row.false_alarms)
    return *(number(value, digits=2) for value in two), *(number(value) for value in shares)


def under_sheet(title: str, rows: Sequence[UnderRow], k: int, track: Track = TARGETED) -> Sheet:
    """What is left of each attack under the best defense, and under the best of each family."""
    families = family_order(family for row in rows for family in row.families)
    h, shown = hit_cut(k), track.measured(k)
    cost = "its cost, NDCG@20 %" if track == VISUAL else f"its cost, HR@{h}"
    headings = (
        "attack", f"{shown} undefended", f"HR@{h} undefended", f"{shown} under the best", f"HR@{h} under the best",
        "best defense", cost,
        *(f"best {family}" for family in families), "scenarios", "defenses", "left out",
    )  # fmt: skip
    lines = [
        (
            row.attack,
            estimate(row.er),
            number(row.hr),
            estimate(row.best.er if row.best else None),
            number(row.best.hr if row.best else None),
            row.best.defense if row.best else "-",
            number(row.best.loss if row.best else None, signed=True),
            *(_named(row.families.get(family)) for family in families),
            str(row.scenarios),
            str(len(row.under)),
            str(len(row.apart)),
        )
        for row in rows
    ]
    best = [f"best {family}" for family in families]
    spare = ("defenses", "scenarios", *reversed(best), cost)
    return Sheet(title, headings, lines, text=frozenset({"attack", "best defense", *best}), spare=spare)


def matrix_sheet(title: str, rows: Sequence[UnderRow], defenses: Sequence[str]) -> Sheet:
    """What is left of every attack under every defense (mean ER@K, or relative loss), and in brackets the HR@K, over the same
    scenarios within a row.

    Args:
        title, rows: of the table. defenses: the columns, in order.
    """

    def both(each: UnderRow | Left | None) -> str:
        return "-" if each is None else beside(number(each.er.mean), each.hr)

    lines = [(row.attack, both(row), *(both(row.under.get(name)) for name in defenses)) for row in rows]
    return Sheet(title, ("attack", "none", *defenses), lines, wide=True)


def _named(left: Left | None) -> str:
    return "-" if left is None else f"{beside(number(left.er.mean), left.hr)} {left.defense}"
