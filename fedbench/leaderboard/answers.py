"""A board in a line or two: the strongest attack, and the worst attack of a defense or the best of several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fedbench.leaderboard.board import Board
from fedbench.leaderboard.ranking_defenses import DefenseRow
from fedbench.leaderboard.sheets import hit_cut, number
from fedbench.leaderboard.tracks import TARGETED, UNTARGETED, VISUAL
from fedbench.texts import count

SWING = 10.0
"""So many points above its exposure at the end the highest of an attack is said, too."""


def answers(board: Board, defended: bool = False) -> list[str]:
    """What somebody who narrowed the records down by ``--only`` asks for, a sentence a line; empty where nothing is ranked.

    Args:
        board: of the records that are left. defended: whether the question is what attacks do under a defense.
    """
    data = board.data
    out = [
        _of_attacks(data.get(key, ()), words, measured)
        for key, words, measured in (
            ("attacks", "Strongest attack without a defense", lambda row: _mean(row["er"], f"ER@{board.k}")),
            (
                "untargeted_attacks",
                "Strongest untargeted attack without a defense",
                lambda row: _mean(row["loss"], f"HR@{hit_cut(board.k)} loss %"),
            ),
            (
                "visual_attacks",
                "Strongest attack on images without a defense",
                lambda row: _mean(row["er"], f"ER@{board.k}"),
            ),
            ("demotion_attacks", "Strongest demotion without a defense", lambda row: _mean(row["dr"], f"DR@{board.k}")),
        )
    ]
    out += [_of_panel(panel) for panel in data.get("doses", {}).get("panels", ())]
    defenses = [row for row in board.defenses if row.goal in (TARGETED.panel, VISUAL.panel)]
    names = {row.defense.partition(" (")[0] for row in defenses}
    kinds = [[row] for row in defenses] if defended and len(names) == 1 else [defenses]  # of one defense every variant
    under = [_of_defenses(rows, board.k) for rows in kinds]
    under += [
        _untargeted(row, hit_cut(board.k)) for row in board.defenses if row.goal == UNTARGETED.panel and row.worst
    ]
    if defended:
        asked = [line for line in under if line] or ["No attack under such a defense has a run beside its twins."]
        return [*asked, *(line for line in out if line)]
    return [line for line in (*out, under[0]) if line]


def _untargeted(row: DefenseRow, h: int) -> str:
    """Of a defense that has a worst attack."""
    assert row.worst is not None
    attack, taken = row.worst
    return f"Under {row.defense} the untargeted attack that takes most is {attack}, {number(taken)} % of HR@{h}."


def _mean(estimate: Mapping[str, float] | None, what: str) -> str:
    return "" if estimate is None else f"{what} {number(estimate['mean'])}"


def _of_attacks(rows: Sequence[Mapping[str, Any]], words: str, measured: Any) -> str:
    if not rows:
        return ""
    first, *others = rows
    text = f"{words}: {first['attack']}"
    value = measured(first)
    text += f", {value}" if value else ""
    ranked = [row for row in others if row["rank"] is not None]
    if first["rank"] is not None and ranked:
        text += f"; {first['beats']} of the other {count(len(ranked), 'ranked attack')} told apart from it"
    return f"{text}."


def _of_panel(panel: Mapping[str, Any]) -> str:
    curves = panel["curves"]
    if not curves:
        return ""
    first, ranked = curves[0], [curve for curve in curves[1:] if curve["rank"] is not None]
    text = f"Fewest malicious clients on {panel['name']}: {first['attack']}, {first['half']['text']}"
    if first["rank"] is not None and ranked:
        text += f"; {first['beats']} of the other {count(len(ranked), 'ranked attack')} told apart from it"
    return f"{text}."


def _of_defenses(rows: Sequence[DefenseRow], k: int) -> str:
    if not rows:
        return ""
    first = rows[0]
    if len(rows) == 1:
        if not first.worst:
            return ""
        attack, kept = first.worst
        worst = f"The worst attack of {first.defense}, of {first.attacks}, is {attack}, ER@{k} {number(kept)}"
        if first.worst_peak is not None and first.worst_peak >= kept + SWING:
            worst += f" at the end, {number(first.worst_peak)} at its highest"
        known = first.worst_adaptive
        adaptive = f"; of those that know it, {known[0]}, {number(known[1])}" if known else ""
        alone = ", on one seed" if len({run.rpartition("-s")[2] for run in first.runs}) == 1 else ""
        return f"{worst}{adaptive}{alone}."
    least = min((row for row in rows if row.worst), key=lambda row: row.worst[1] if row.worst else 0.0, default=None)
    ranked = next((row for row in rows if row.rank is not None), None)
    text = "No defense has a rank"
    if ranked is not None:
        text = f"Best defense by reduction less cost: {ranked.defense}, {number(ranked.net, signed=True)} points"
    if least is not None and least.worst is not None:
        attack, kept = least.worst
        text += f"; the one whose worst attack keeps least: {least.defense}, ER@{k} {number(kept)} ({attack})"
    return f"{text}."
