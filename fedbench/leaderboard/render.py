"""The leaderboard as Markdown, as tables on a screen, and as plain data."""

from __future__ import annotations

import dataclasses
import html
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from fedbench.leaderboard.database import Database
from fedbench.leaderboard.ranking import (
    AttackRow,
    CellRow,
    DefenseRow,
    Estimate,
    attack_cells,
    rank_attacks,
    rank_defenses,
)


@dataclass(frozen=True)
class Sheet:
    """A table: a title, headings, rows of text, and the run ids behind each row."""

    title: str
    headings: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    runs: dict[str, list[str]] = field(default_factory=dict)
    wide: bool = False
    """Whether it is left out on a screen."""


@dataclass(frozen=True)
class Board:
    """A whole leaderboard, ready to be shown: notes say how it was made, warnings what is lacking."""

    k: int
    count: int
    datasets: str
    sheets: list[Sheet]
    notes: list[str]
    warnings: list[str]
    data: dict[str, Any]


def make_board(database: Database) -> Board:
    """Rank what the database holds."""
    k = database.k
    (head,) = database.rows("select count(*) n, string_agg(distinct dataset, ', ' order by dataset) d from runs")
    models = [row["model"] for row in database.rows("select distinct model from attacks order by model")]
    overall = rank_attacks(database)
    sheets: list[Sheet] = []
    data: dict[str, Any] = {"k": k, "records": head["n"], "attacks": _plain(overall)}
    if overall:
        sheets.append(_attack_sheet(f"Attacks by ER@{k}, without a defense", overall, k))
    by_model: dict[str, list[AttackRow]] = {}
    for model in models if len(models) > 1 else []:
        by_model[model] = rank_attacks(database, model=model)
        sheets.append(_attack_sheet(f"Attacks on {model}", by_model[model], k))
    data["attacks_by_model"] = {model: _plain(rows) for model, rows in by_model.items()}
    cells = attack_cells(database)
    data["cells"] = _plain(cells)
    sheets += _cell_sheets(cells, k)
    defenses = rank_defenses(database)
    data["defenses"] = _plain(defenses)
    if defenses:
        sheets.append(_defense_sheet(defenses, k))
    for defense in [row["defense"] for row in database.rows("select distinct defense from defenses order by defense")]:
        against = rank_attacks(database, defense)
        data.setdefault("attacks_under", {})[defense] = _plain(against)
        sheets.append(dataclasses.replace(_attack_sheet(f"Attacks under {defense}", against, k), wide=True))
    warnings = _warnings(database, overall)
    data["warnings"] = warnings
    return Board(k, head["n"], head["d"], sheets, _notes(database, defenses), warnings, data)


def headline(board: Board) -> str:
    """What the board is about, in a line."""
    runs = "1 run" if board.count == 1 else f"{board.count:,} runs"
    return f"{runs} on {board.datasets}; ER@{board.k} and HR@{hit_cut(board.k)} in percent, intervals 95 %"


def hit_cut(k: int) -> int:
    """The K of HR@K beside ER@K: hit ratios are measured up to 20."""
    return min(k, 20)


def markdown(board: Board) -> str:
    """The board as a Markdown document; names are escaped."""
    out = [
        "# Leaderboard",
        "",
        f"{escape(headline(board))}.",
        "",
    ]
    for sheet in board.sheets:
        out += [f"## {escape(sheet.title)}", ""]
        out.append("| " + " | ".join(map(escape, sheet.headings)) + " |")
        out.append("|" + "---|" * len(sheet.headings))
        out += ["| " + " | ".join(map(escape, row)) + " |" for row in sheet.rows]
        out.append("")
        if sheet.runs:
            out += ["<details><summary>Runs behind each row</summary>", ""]
            for name, runs in sheet.runs.items():
                out.append(f"- {escape(name)} ({len(runs)}): {' '.join(_short(run) for run in runs)}")
            out += ["", "</details>", ""]
    out += ["## How to read this", "", *(f"- {escape(note)}" for note in board.notes), ""]
    if board.warnings:
        out += ["## What is lacking", "", *(f"- {escape(warning)}" for warning in board.warnings), ""]
    out += [
        "<details><summary>Queries behind the tables</summary>",
        "",
        "```sql",
        *_QUERIES,
        "```",
        "",
        "</details>",
        "",
    ]
    return "\n".join(out)


_QUERIES = (
    "-- views of `fedbench sql`; the rankings average over seeds, then over scenarios",
    "select * from attacks where defense = 'none' and attack_goal = 'promote' order by run_id;",
    "select * from defenses order by run_id;",
)


def _attack_sheet(title: str, rows: Sequence[AttackRow], k: int) -> Sheet:
    headings = (
        "rank", "attack", f"ER@{k}", "peak", "tail", f"HR@{hit_cut(k)} change", "knows", "first", "scenarios",
        "runs", "diverged", "failed", "missing",
    )  # fmt: skip
    lines = [
        (
            str(row.rank or "-"),
            row.attack,
            _estimate(row.er),
            _number(row.peak),
            _number(row.tail),
            _estimate(row.hr_change, signed=True),
            row.knowledge,
            str(row.first),
            str(row.scenarios),
            str(len(row.runs)),
            str(row.diverged),
            str(row.failed),
            str(len(row.missing)),
        )
        for row in rows
    ]
    return Sheet(title, headings, lines, {row.attack: row.runs for row in rows})


def _cell_sheets(cells: Iterable[CellRow], k: int) -> list[Sheet]:
    """One table for each dataset and model: attack x malicious ratio."""
    groups: dict[tuple[str, str], dict[str, dict[float, CellRow]]] = {}
    for cell in cells:
        groups.setdefault((cell.dataset, cell.model), {}).setdefault(cell.attack, {})[cell.malicious_ratio] = cell
    sheets = []
    for (dataset, model), by_attack in sorted(groups.items()):
        ratios = sorted({ratio for own in by_attack.values() for ratio in own})
        rows = [
            (attack, *(_estimate(own[ratio].er) if ratio in own else "-" for ratio in ratios))
            for attack, own in sorted(by_attack.items())
        ]
        headings = ("attack", *(f"{100 * ratio:g} %" for ratio in ratios))
        runs = {
            attack: [run for cell in own.values() for run in cell.runs] for attack, own in sorted(by_attack.items())
        }
        sheets.append(Sheet(f"ER@{k} on {dataset}, {model}, by malicious ratio", headings, rows, runs))
    return sheets


def _defense_sheet(rows: Sequence[DefenseRow], k: int) -> Sheet:
    headings = (
        "defense", f"ER@{k} reduction", f"HR@{hit_cut(k)} loss", "net", f"ER@{k} left", "worst attack", "scenarios", "runs",
        "diverged", "failed", "without twin",
    )  # fmt: skip
    lines = [
        (
            row.defense,
            _estimate(row.reduction, signed=True),
            _estimate(row.loss, signed=True),
            _number(row.net, signed=True),
            _number(row.er),
            f"{row.worst[0]} {_number(row.worst[1])}",
            str(row.scenarios),
            str(len(row.runs)),
            str(row.diverged),
            str(row.failed),
            str(row.unpaired),
        )
        for row in rows
    ]
    title = f"Defenses by ER@{k} reduction minus HR@{hit_cut(k)} loss"
    return Sheet(title, headings, lines, {row.defense: row.runs for row in rows})


def _notes(database: Database, defenses: Sequence[DefenseRow]) -> list[str]:
    k, h = database.k, hit_cut(database.k)
    notes = [
        f"ER@{k}: share of users, who have not interacted with a target, to whom it is shown; mean over scenarios of the mean"
        " over seeds. The interval is that of a bootstrap over scenarios and their seeds, or the t interval over the seeds of"
        " a single scenario.",
        "peak and tail: the highest value of a run, and its mean over the last quarter of training; averaged likewise.",
        f"HR@{h} change: attacked run minus its clean twin of the same seed, in points.",
        "rank: by the mean in which a scenario that only diverged counts as no exposure; the mean shown is over runs with"
        " a score. Compared are the scenarios that at least half of the attacks ran; an attack that lacks one of them has no"
        " rank.",
        "first: (dataset, model) pairs of which it has all scenarios and no other such attack has a higher mean.",
    ]
    if defenses:
        notes.append(
            f"Defenses: ER@{k} of the undefended twin minus its own, over all attacked scenarios; HR@{h} without attack and"
            " defense minus HR with the defense alone; pairs of the same seed."
        )
    return notes


def _warnings(database: Database, attacks: Sequence[AttackRow]) -> list[str]:
    """What has no score, and why: scenarios that were not run, diverged and failed runs, damaged files."""
    out = []
    for row in attacks:
        if row.missing:
            shown = "; ".join(row.missing[:6]) + (f"; and {len(row.missing) - 6} more" if len(row.missing) > 6 else "")
            some = "1 scenario" if len(row.missing) == 1 else f"{len(row.missing)} scenarios"
            out.append(f"{row.attack} lacks {some}: {shown}.")
        if row.apart:
            some = "1 scenario" if row.apart == 1 else f"{row.apart} scenarios"
            out.append(f"{row.attack} ran {some} more, which fewer than half of the attacks ran: not compared.")
    bad = database.rows(
        "select status, attack, dataset, model, malicious_ratio, count(*) n, min(error) e from runs where status <> 'ok'"
        " group by all order by all"
    )
    for each in bad:
        first = (each["e"] or "").splitlines()[:1]
        out.append(
            f"{each['status']}: {each['n']} of {each['attack']} on {each['dataset']} {each['model']}"
            f" at {100 * each['malicious_ratio']:g} % ({''.join(first)})."
        )
    return out + [f"left out, no whole record: {name} ({reason})." for name, reason in database.found.damaged.items()]


def _estimate(value: Estimate | None, signed: bool = False) -> str:
    """``41.2 [30.5, 52.0]``; bounds of a share are cut to 0 and 100."""
    if value is None:
        return "-"
    if value.low is None or value.high is None:
        return _number(value.mean, signed)
    low, high = (value.low, value.high) if signed else (max(value.low, 0.0), min(value.high, 100.0))
    return f"{_number(value.mean, signed)} [{_number(low, signed)}, {_number(high, signed)}]"


def _number(value: float | None, signed: bool = False) -> str:
    if value is None:
        return "-"
    return f"{value:+.1f}" if signed else f"{value:.1f}"


def _short(run: str) -> str:
    scenario, _, seed = run.rpartition("-")
    return f"{scenario[:8]}-{seed}"


def escape(text: str) -> str:
    """Text that Markdown and HTML take literally."""
    return re.sub(r"([\\`*_\[\]|])", r"\\\1", html.escape(text, quote=False)).replace("\n", " ")


def _plain(rows: Iterable[Any]) -> list[dict[str, Any]]:
    return [dataclasses.asdict(row) for row in rows]
