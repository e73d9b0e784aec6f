"""Newer defenses, and personal item tables, on ML-100K: ``python leaderboard/entries.py``.

ER@10 and HR@10 at the end in percent, mean over the seeds that all have, and each seed in brackets where there are several.
†: recommends worse than popularity, on any of them; ‡: of some the numbers were no longer finite.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fedbench.leaderboard import Database

RESULTS = Path(__file__).with_name("results")
DEFENSES = ("none", "centered-clipping", "nnm+median", "bucketing+krum", "flame", "guardcq")
ATTACKS = ("explicit-boost", "a-hum", "pieck-uea", "poisonfrs")
TABLES = ("mf", "pfedrec")
Rows = list[dict[str, Any]]
SHARE = 0.02


def defenses(records: Sequence[Path]) -> str:
    """Defenses of `core-defenses` at 2 %, by model: ER@10 under each attack, and HR@10 without one; as Markdown."""
    found = _values(records, "core-defenses", f"dataset = 'ml-100k' and malicious_ratio in (0, {SHARE})", "defense")
    lines = _head("model", "defense", *(f"`{attack}`" for attack in ATTACKS), "HR@10 without an attack")
    for model in ("mf", "ncf"):
        for defense in DEFENSES:
            clean, *attacked = (_common(found, model, defense, attack) for attack in ("none", *ATTACKS))
            cells = (*(_cell(each, "er") for each in attacked), _cell(clean, "hr"))
            lines.append(f"| {model} | `{defense}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def _common(found: Mapping[tuple[Any, ...], Rows], model: str, defense: str, attack: str) -> Rows:
    """The runs of a cell whose seeds all defenses have under this attack."""
    seeds = [{row["seed"] for row in found.get((model, each, attack), ())} for each in DEFENSES]
    return [row for row in found.get((model, defense, attack), ()) if row["seed"] in set.intersection(*seeds)]


def personalisation(records: Sequence[Path]) -> str:
    """The suite `personalisation`: ER@10 of PFedRec beside MF under each attack and share; as Markdown."""
    found = _values(records, "personalisation", "true", "malicious_ratio")
    lines = _head("attack", "malicious", *(f"`{model}`: ER@10 | HR@10" for model in TABLES))
    shares = sorted({(attack, share) for _, share, attack in found}, key=lambda each: (each[0] != "none", each))
    for attack, share in shares:
        own = [found.get((model, share, attack)) for model in TABLES]
        cells = [f"{_cell(each, 'er')} | {_cell(each, 'hr')}" for each in own]
        lines.append(f"| `{attack}` | {100 * share:g} % | {' | '.join(cells)} |")
    return "\n".join(lines)


def _values(records: Sequence[Path], suite: str, where: str, by: str) -> dict[tuple[Any, ...], Rows]:
    """Runs by model, ``by`` and attack, in the order of their seeds."""
    rows = Database(records, 10, (), suite).rows(
        "select model, defense, malicious_ratio, attack, seed, status, er, hr, broken from headline"
        f" where not superseded and status <> 'failed' and {where} order by seed"
    )
    found: dict[tuple[Any, ...], Rows] = {}
    for row in rows:
        found.setdefault((row["model"], row[by], row["attack"]), []).append(row)
    return found


def _cell(rows: Rows | None, column: str) -> str:
    if not rows:
        return "-"
    finite = [row for row in rows if row["status"] == "ok"]
    marks = ("†" if any(row["broken"] for row in finite) else "") + ("‡" if len(finite) < len(rows) else "")
    values = [100 * row[column] for row in finite]
    mean = f"{statistics.fmean(values):.1f}" if values else ""
    each = f"({', '.join(f'{value:.0f}' for value in values)})" if len(values) > 1 else ""
    return " ".join(filter(None, (mean, each, marks)))


def _head(*headings: str) -> list[str]:
    head = f"| {' | '.join(headings)} |"
    return [head, "|---" * (head.count("|") - 1) + "|"]


if __name__ == "__main__":
    sys.stdout.write(f"{defenses([RESULTS])}\n\n{personalisation([RESULTS])}\n")
