"""The leaderboard as Markdown."""

from __future__ import annotations

import html
import re

from fedbench.leaderboard.board import Board
from fedbench.leaderboard.findings import Finding
from fedbench.leaderboard.sheets import hit_cut
from fedbench.leaderboard.tracks import DEMOTION, TARGETED, VISUAL, Track
from fedbench.texts import count, visible


def headline(board: Board) -> str:
    """What the board is about, in a line."""
    runs = "1 run" if board.count == 1 else f"{board.count:,} runs"
    h = hit_cut(board.k)
    measures = f"ER@{board.k} and HR@{h}" if TARGETED in board.tracks else f"HR@{h} and NDCG@{h}"
    if board.tracks == [VISUAL]:
        measures = f"ER@{board.k} and NDCG@20"
    if board.tracks == [DEMOTION]:
        measures = f"DR@{board.k} and HR@{h}"
    limit = f" (hit ratios are measured up to K = {h})" if h < board.k else ""
    return f"{runs} on {board.datasets}; {measures} in percent{limit}, intervals 95 %"


def finding_line(found: Finding) -> str:
    """A finding as an item of a Markdown list; below it its numbers, its counter-example and its basis."""
    basis = f"({found.basis}; {count(len(found.runs), 'run')})"
    return f"- **{escape(found.text)}**<br>{escape(f'{beside(found)} {basis}'.strip())}"


def beside(found: Finding) -> str:
    """What is to be read with a finding: its numbers, and what speaks against it; empty where there is neither."""
    against = f"But {found.counter}." if found.counter else ""
    return " ".join(filter(None, (found.detail, against)))


def markdown(board: Board) -> str:
    """The board as a Markdown document; names are escaped."""
    out = [
        "# Leaderboard",
        "",
        f"{escape(headline(board))}.",
        "",
    ]
    if board.findings:
        out += ["## Findings", "", *(finding_line(found) for found in board.findings), ""]
    for sheet in board.sheets:
        out += [f"## {escape(sheet.title)}", ""]
        out.append("| " + " | ".join(map(escape, sheet.headings)) + " |")
        out.append("|" + "---|" * len(sheet.headings))
        out += ["| " + " | ".join(map(escape, row)) + " |" for row in sheet.rows]
        out += ["", f"{escape(sheet.caption)}", ""] if sheet.caption else [""]
        if sheet.runs:
            out += ["<details><summary>Runs behind each row</summary>", ""]
            for name, runs in sheet.runs.items():
                out.append(f"- {escape(name)} ({len(runs)}): {escape(' '.join(_short(run) for run in runs))}")
            out += ["", "</details>", ""]
    out += ["## How to read this", "", *(f"- {escape(note)}" for note in board.notes), ""]
    if board.warnings:
        out += ["## What is lacking", "", *(f"- {escape(warning)}" for warning in board.warnings), ""]
    out += [
        "<details><summary>Queries behind the tables</summary>",
        "",
        "```sql",
        "-- views of `fedbench sql`; the rankings average over seeds, then over scenarios",
        *(query for track in board.tracks for query in _queries(track)),
        "```",
        "",
        "</details>",
        "",
    ]
    return "\n".join(out)


def _queries(track: Track) -> tuple[str, str]:
    where = f"attack_goal = '{track.goal}' order by run_id;"
    return (
        f"select * from {track.attacks} where defense = 'none' and {where}",
        f"select * from {track.defenses} where {where}",
    )


def _short(run: str) -> str:
    scenario, _, seed = run.rpartition("-")
    return f"{scenario[:8]}-{seed}"


def escape(text: str) -> str:
    """Text that Markdown and HTML take literally, on one line, with nothing in it that cannot be seen."""
    seen = visible(" ".join(text.splitlines()))
    return re.sub(r"([\\`*_~#$\[\]|])", r"\\\1", html.escape(seen, quote=False))
