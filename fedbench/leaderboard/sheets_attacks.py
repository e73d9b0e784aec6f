"""The tables of attacks: ranks of each track, and what they reach by dataset, model and ratio."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from fedbench.leaderboard.ranking_attacks import AttackRow, RatioCell, Standing
from fedbench.leaderboard.ranking_demotion import DemotionAttackRow
from fedbench.leaderboard.ranking_untargeted import UntargetedAttackRow
from fedbench.leaderboard.ranking_visual import VisualAttackRow
from fedbench.leaderboard.separation import Ranking
from fedbench.leaderboard.sheets import (
    LOST,
    POINTS,
    Sheet,
    caption,
    doubt,
    doubts,
    estimate,
    hit_cut,
    number,
    place,
    standing,
)

C = TypeVar("C", bound=RatioCell)


def attack_sheet(title: str, rows: Ranking[AttackRow], k: int) -> Sheet:
    """Attacks by exposure; runs without a clean twin are counted where there are any."""
    unpaired = any(row.unpaired for row in rows)
    headings = (
        "rank", "attack", f"ER@{k}", f"HR@{hit_cut(k)}", "beats", "mean rank", "peak", "tail",
        f"HR@{hit_cut(k)} change", "knows", "first", "scenarios", "runs", "broken", "failed",
        *(("without twin",) if unpaired else ()), "missing", *doubts(rows),
    )  # fmt: skip
    lines = [
        (
            place(row),
            row.attack,
            estimate(row.er),
            number(row.hr),
            *standing(row),
            number(row.peak),
            number(row.tail),
            estimate(row.hr_change, POINTS),
            row.knowledge,
            str(row.first),
            *_counted(row),
            *((str(row.unpaired),) if unpaired else ()),
            str(len(row.missing)),
            *doubt(row, rows),
        )
        for row in rows
    ]
    runs = {row.attack: row.runs for row in rows}
    spare = ("broken", "scenarios", "first", "mean rank", "runs", "knows")
    told = rows.separation
    return Sheet(title, headings, lines, runs, spare=spare, caption=caption(told), told=told)


def untargeted_sheet(title: str, rows: Ranking[UntargetedAttackRow], k: int) -> Sheet:
    """Untargeted attacks by relative loss."""
    h = hit_cut(k)
    headings = (
        "rank", "attack", f"HR@{h} loss %", "beats", "mean rank", f"NDCG@{h} loss %", "loss at the end %", f"HR@{h}",
        f"clean HR@{h}", "knows", "scenarios", "runs", "broken", "failed", "without twin", "missing", *doubts(rows),
    )  # fmt: skip
    lines = [
        (
            place(row),
            row.attack,
            estimate(row.loss, LOST),
            *standing(row),
            estimate(row.ndcg_loss, LOST),
            number(row.loss_end, signed=True),
            number(row.hr, digits=2),
            number(row.clean_hr, digits=2),
            row.knowledge,
            *_counted(row),
            str(row.unpaired),
            str(len(row.missing)),
            *doubt(row, rows),
        )
        for row in rows
    ]
    runs = {row.attack: row.runs for row in rows}
    spare = ("broken", "runs", "scenarios", "mean rank", f"clean HR@{h}", "knows", f"HR@{h}", "loss at the end %")
    told = rows.separation
    return Sheet(title, headings, lines, runs, spare=spare, caption=caption(told), told=told)


def visual_sheet(title: str, rows: Ranking[VisualAttackRow], k: int) -> Sheet:
    """Attacks where images are read, by exposure, and what their images look like."""
    unpaired = any(row.unpaired for row in rows)
    headings = (
        "rank", "attack", f"ER@{k}", f"HR@{hit_cut(k)}", "beats", "mean rank", "peak", "tail", "NDCG@20 loss %",
        "max change", "PSNR dB", "cosine", "knows", "first", "scenarios", "runs", "broken", "failed",
        *(("without twin",) if unpaired else ()), "missing", *doubts(rows),
    )  # fmt: skip
    lines = [
        (
            place(row),
            row.attack,
            estimate(row.er),
            number(row.hr),
            *standing(row),
            number(row.peak),
            number(row.tail),
            estimate(row.ndcg_loss, LOST),
            number(row.change),
            number(row.psnr),
            number(row.cosine, digits=2),
            row.knowledge,
            str(row.first),
            *_counted(row),
            *((str(row.unpaired),) if unpaired else ()),
            str(len(row.missing)),
            *doubt(row, rows),
        )
        for row in rows
    ]
    runs = {row.attack: row.runs for row in rows}
    spare = ("broken", "scenarios", "first", "mean rank", "runs", "max change", "tail", "knows", "PSNR dB", "cosine")
    told = rows.separation
    return Sheet(title, headings, lines, runs, spare=spare, caption=caption(told), told=told)


def demotion_sheet(title: str, rows: Ranking[DemotionAttackRow], k: int) -> Sheet:
    """Attacks that demote, by the share of users who no longer are shown a target."""
    h = hit_cut(k)
    headings = (
        "rank", "attack", f"DR@{k}", f"HR@{h}", "beats", "mean rank", f"ER@{k}", f"clean ER@{k}", f"HR@{h} change", "knows",
        "scenarios", "runs", "broken", "failed", "without twin", "missing", *doubts(rows),
    )  # fmt: skip
    lines = [
        (
            place(row),
            row.attack,
            estimate(row.dr),
            number(row.hr),
            *standing(row),
            number(row.er),
            number(row.clean_er),
            estimate(row.hr_change, POINTS),
            row.knowledge,
            *_counted(row),
            str(row.unpaired),
            str(len(row.missing)),
            *doubt(row, rows),
        )
        for row in rows
    ]
    runs = {row.attack: row.runs for row in rows}
    spare = ("broken", "scenarios", "mean rank", "runs", "knows", f"clean ER@{k}")
    told = rows.separation
    return Sheet(title, headings, lines, runs, spare=spare, caption=caption(told), told=told)


def _counted(row: Standing) -> tuple[str, ...]:
    return str(row.scenarios), str(len(row.runs)), str(row.broken), str(row.failed)


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
