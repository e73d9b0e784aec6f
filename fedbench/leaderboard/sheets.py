"""The tables of the leaderboard: what the rankings found, as text."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from fedbench.leaderboard.ranking import Estimate
from fedbench.leaderboard.ranking_attacks import AttackRow, RatioCell, Standing
from fedbench.leaderboard.ranking_defenses import DefenseRow, VisualDefenseRow
from fedbench.leaderboard.ranking_demotion import DemotionAttackRow
from fedbench.leaderboard.ranking_untargeted import UntargetedAttackRow
from fedbench.leaderboard.ranking_visual import VisualAttackRow
from fedbench.leaderboard.separation import Ranking, Separation
from fedbench.leaderboard.tracks import DEMOTION, TARGETED, VISUAL, Track
from fedbench.leaderboard.under_defenses import Left, UnderRow, family_order

C = TypeVar("C", bound=RatioCell)


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


SHARE, POINTS, LOST, ANY = (0.0, 100.0), (-100.0, 100.0), (-math.inf, 100.0), (-math.inf, math.inf)
"""What is possible, in percent: of a share, of a difference of two, of what is lost of the whole, of what is brought back."""
DETECTION = ("clean cosine", "least clean cosine", "AUC", "recall at no false alarm %", "flagged %", "false alarms %")
"""Columns of defenses of images."""
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


def attack_sheet(title: str, rows: Ranking[AttackRow], k: int) -> Sheet:
    """Attacks by exposure; runs without a clean twin are counted where there are any."""
    unpaired = any(row.unpaired for row in rows)
    headings = (
        "rank", "attack", f"ER@{k}", f"HR@{hit_cut(k)}", "beats", "mean rank", "peak", "tail",
        f"HR@{hit_cut(k)} change", "knows", "first", "scenarios", "runs", "broken", "failed",
        *(("without twin",) if unpaired else ()), "missing", *_doubts(rows),
    )  # fmt: skip
    lines = [
        (
            _place(row),
            row.attack,
            _estimate(row.er),
            _number(row.hr),
            *_standing(row),
            _number(row.peak),
            _number(row.tail),
            _estimate(row.hr_change, POINTS),
            row.knowledge,
            str(row.first),
            *_counted(row),
            *((str(row.unpaired),) if unpaired else ()),
            str(len(row.missing)),
            *_doubt(row, rows),
        )
        for row in rows
    ]
    runs = {row.attack: row.runs for row in rows}
    spare = ("broken", "scenarios", "first", "mean rank", "runs", "knows")
    return Sheet(title, headings, lines, runs, spare=spare, caption=caption(rows.separation))


def untargeted_sheet(title: str, rows: Ranking[UntargetedAttackRow], k: int) -> Sheet:
    """Untargeted attacks by relative loss."""
    h = hit_cut(k)
    headings = (
        "rank", "attack", f"HR@{h} loss %", "beats", "mean rank", f"NDCG@{h} loss %", "loss at the end %", f"HR@{h}",
        f"clean HR@{h}", "knows", "scenarios", "runs", "broken", "failed", "without twin", "missing", *_doubts(rows),
    )  # fmt: skip
    lines = [
        (
            _place(row),
            row.attack,
            _estimate(row.loss, LOST),
            *_standing(row),
            _estimate(row.ndcg_loss, LOST),
            _number(row.loss_end, signed=True),
            _number(row.hr, digits=2),
            _number(row.clean_hr, digits=2),
            row.knowledge,
            *_counted(row),
            str(row.unpaired),
            str(len(row.missing)),
            *_doubt(row, rows),
        )
        for row in rows
    ]
    runs = {row.attack: row.runs for row in rows}
    spare = ("broken", "runs", "scenarios", "mean rank", f"clean HR@{h}", "knows", f"HR@{h}", "loss at the end %")
    return Sheet(title, headings, lines, runs, spare=spare, caption=caption(rows.separation))


def visual_sheet(title: str, rows: Ranking[VisualAttackRow], k: int) -> Sheet:
    """Attacks where images are read, by exposure, and what their images look like."""
    unpaired = any(row.unpaired for row in rows)
    headings = (
        "rank", "attack", f"ER@{k}", f"HR@{hit_cut(k)}", "beats", "mean rank", "peak", "tail", "NDCG@20 loss %",
        "max change", "PSNR dB", "cosine", "knows", "first", "scenarios", "runs", "broken", "failed",
        *(("without twin",) if unpaired else ()), "missing", *_doubts(rows),
    )  # fmt: skip
    lines = [
        (
            _place(row),
            row.attack,
            _estimate(row.er),
            _number(row.hr),
            *_standing(row),
            _number(row.peak),
            _number(row.tail),
            _estimate(row.ndcg_loss, LOST),
            _number(row.change),
            _number(row.psnr),
            _number(row.cosine, digits=2),
            row.knowledge,
            str(row.first),
            *_counted(row),
            *((str(row.unpaired),) if unpaired else ()),
            str(len(row.missing)),
            *_doubt(row, rows),
        )
        for row in rows
    ]
    runs = {row.attack: row.runs for row in rows}
    spare = ("broken", "scenarios", "first", "mean rank", "runs", "max change", "tail", "knows", "PSNR dB", "cosine")
    return Sheet(title, headings, lines, runs, spare=spare, caption=caption(rows.separation))


def demotion_sheet(title: str, rows: Ranking[DemotionAttackRow], k: int) -> Sheet:
    """Attacks that demote, by the share of users who no longer are shown a target."""
    h = hit_cut(k)
    headings = (
        "rank", "attack", f"DR@{k}", f"HR@{h}", "beats", "mean rank", f"ER@{k}", f"clean ER@{k}", f"HR@{h} change", "knows",
        "scenarios", "runs", "broken", "failed", "without twin", "missing", *_doubts(rows),
    )  # fmt: skip
    lines = [
        (
            _place(row),
            row.attack,
            _estimate(row.dr),
            _number(row.hr),
            *_standing(row),
            _number(row.er),
            _number(row.clean_er),
            _estimate(row.hr_change, POINTS),
            row.knowledge,
            *_counted(row),
            str(row.unpaired),
            str(len(row.missing)),
            *_doubt(row, rows),
        )
        for row in rows
    ]
    runs = {row.attack: row.runs for row in rows}
    spare = ("broken", "scenarios", "mean rank", "runs", "knows", f"clean ER@{k}")
    return Sheet(title, headings, lines, runs, spare=spare, caption=caption(rows.separation))


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
    read = "rank 1-4: places 1 to 4 are open to it; beats: how many it is significantly better than"
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


def _standing(row: Standing | DefenseRow) -> tuple[str, str]:
    return "-" if row.beats is None else str(row.beats), _number(row.average_rank)


def _counted(row: Standing) -> tuple[str, ...]:
    return str(row.scenarios), str(len(row.runs)), str(row.broken), str(row.failed)


def _place(row: Standing | DefenseRow) -> str:
    return "unverified" if row.unverified else rank_text(row.rank, row.last_rank)


def _doubts(rows: Sequence[Standing] | Sequence[DefenseRow]) -> tuple[str, ...]:
    """Headings of the columns of :func:`_doubt`: those of what there is."""
    refused, warned = any(row.refused for row in rows), any(row.warned for row in rows)
    return *(("refused uploads",) if refused else ()), *(("warned",) if warned else ())


def _doubt(row: Standing | DefenseRow, rows: Sequence[Standing] | Sequence[DefenseRow]) -> tuple[str, ...]:
    shown = {"refused uploads": row.refused, "warned": row.warned}
    return tuple(str(shown[heading]) for heading in _doubts(rows))


def cell_sheets(
    cells: Iterable[C],
    value: Callable[[C], str],
    measure: str,
    column: Callable[[C], tuple[float, ...]] = lambda cell: (cell.malicious_ratio,),
    by: str = "malicious ratio",
) -> list[Sheet]:
    """One table for each dataset and model: attack x malicious ratio, or x what else tells cells apart.

    Args:
        cells: of one track. value: what a cell shows. measure: what that is, for the title.
        column: where a cell stands, the malicious ratio first, and then what else. by: what the columns are.
    """
    groups: dict[tuple[str, str], dict[str, dict[tuple[float, ...], C]]] = {}
    for cell in cells:
        groups.setdefault((cell.dataset, cell.model), {}).setdefault(cell.attack, {})[column(cell)] = cell
    sheets = []
    for (dataset, model), by_attack in sorted(groups.items()):
        ratios = sorted({ratio for own in by_attack.values() for ratio in own})
        rows = [
            (attack, *(value(own[ratio]) if ratio in own else "-" for ratio in ratios))
            for attack, own in sorted(by_attack.items())
        ]
        headings = ("attack", *(_column_words(*ratio) for ratio in ratios))
        runs = {
            attack: [run for cell in own.values() for run in cell.runs] for attack, own in sorted(by_attack.items())
        }
        sheets.append(Sheet(f"{measure} on {dataset}, {model}, by {by}", headings, rows, runs))
    return sheets


def _column_words(ratio: float, eps: float | None = None) -> str:
    """``5 %``; with a bound ``0.1 %, eps 4``, without images (a bound of 0) ``0.1 %, no image``."""
    share = f"{100 * ratio:g} %"
    return share if eps is None else f"{share}, eps {eps:g}" if eps else f"{share}, no image"


def defense_sheet(
    title: str, rows: Ranking[DefenseRow], k: int, listed: Iterable[str] = (), track: Track = TARGETED
) -> Sheet:
    """Defenses by what they prevent and cost.

    Args:
        title, rows, k: of the table. listed: runs that another table names; rows with only those do not name them again.
        track: of the rows.
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
        "scenarios", "runs", "broken", "broken clean", "failed", "without twin", "missing", *_doubts(rows),
    )  # fmt: skip
    lines = [
        (
            _place(row),
            row.defense,
            row.family or "-",
            _estimate(row.reduction, POINTS if track.exposes else ANY),
            _estimate(row.loss, lost),
            *((_estimate(row.loss_attacked, lost),) if attacked else ()),
            _number(row.net, signed=True),
            *_standing(row),
            "-" if row.front is None else "yes" if row.front else "no",
            _number(row.er),
            _number(row.hr),
            *((_number(row.peak),) if track.peak else ()),
            *((_number(row.net_end, signed=True), _number(row.er_end)) if track.left_end else ()),
            *(f"{each[0]} {_number(each[1])}" if each else "-" for each in _worst(row, len(worst))),
            f"{row.least[0]} {_number(row.least[1], signed=True)}" if row.least else "-",
            *_detection(row),
            _number(row.cost, signed=True),
            row.knowledge or "none",
            row.assumes or "-",
            str(row.scenarios),
            str(len(row.runs)),
            str(row.broken),
            str(row.clean_broken),
            str(row.failed),
            str(row.unpaired),
            str(len(row.missing)),
            *_doubt(row, rows),
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
    return Sheet(title, headings, lines, runs, spare=spare, caption=text)


def _worst(row: DefenseRow, columns: int) -> tuple[tuple[str, float] | None, ...]:
    """The worst attack, or, in two columns, the worst of those that do not know the defense and of those that do."""
    return (row.worst,) if columns == 1 else (row.worst_fixed, row.worst_adaptive)


def _detection(row: DefenseRow) -> tuple[str, ...]:
    """The columns :data:`DETECTION`; none of a defense in another track."""
    if not isinstance(row, VisualDefenseRow):
        return ()
    two = (row.similarity, row.least_similarity, row.auc)
    shares = (row.recall_zero_fp, row.recall, row.false_alarms)
    return *(_number(value, digits=2) for value in two), *(_number(value) for value in shares)


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
            _estimate(row.er),
            _number(row.hr),
            _estimate(row.best.er if row.best else None),
            _number(row.best.hr if row.best else None),
            row.best.defense if row.best else "-",
            _number(row.best.loss if row.best else None, signed=True),
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
        return "-" if each is None else beside(_number(each.er.mean), each.hr)

    lines = [(row.attack, both(row), *(both(row.under.get(name)) for name in defenses)) for row in rows]
    return Sheet(title, ("attack", "none", *defenses), lines, wide=True)


def _named(left: Left | None) -> str:
    return "-" if left is None else f"{beside(_number(left.er.mean), left.hr)} {left.defense}"


def beside(text: str, hr: float | None) -> str:
    """A number with the HR@K beside it: ``41.2 (HR 55.0)``."""
    return text if hr is None else f"{text} (HR {_number(hr)})"


def share(value: Estimate) -> str:
    """An estimate between 0 and 100 %."""
    return _estimate(value)


def change(value: Estimate) -> str:
    """An estimate of what is lost of 100 %, with its sign."""
    return _estimate(value, LOST)


def _estimate(value: Estimate | None, within: tuple[float, float] = SHARE) -> str:
    """``41.2 [30.5, 52.0]``, with signs where it may be negative; the bounds are cut to what is possible."""
    if value is None:
        return "-"
    least, most = within
    signed = least < 0
    if value.low is None or value.high is None:
        return _number(value.mean, signed)
    low, high = max(value.low, least), min(value.high, most)
    return f"{_number(value.mean, signed)} [{_number(low, signed)}, {_number(high, signed)}]"


def _number(value: float | None, signed: bool = False, digits: int = 1) -> str:
    if value is None:
        return "-"
    return f"{value:{'+' if signed else ''}.{digits}f}"
