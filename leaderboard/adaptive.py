"""Each defense under its worst fixed and its worst adaptive attack: ``python leaderboard/adaptive.py``.

ER@10 at the end on ML-100K in the scenarios of the suite `adaptive`, in percent, mean over seeds and the seeds in brackets.
Worst is who has the highest mean of those with as many seeds as any; runs of older versions of an attack do not count.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fedbench.leaderboard import Database
from fedbench.leaderboard.ranking import entry_names

RESULTS = Path(__file__).with_name("results")
MODELS = ("mf", "ncf")
WRAPPER = "adaptive"


def table(records: Sequence[Path]) -> str:
    """As Markdown."""
    database = Database(records, 10, (), WRAPPER)
    rows = database.rows(
        "select model, dataset, protocol, defense, defense_params, attack, attack_params, seed, er from headline"
        " where not superseded and attack <> 'none' and status = 'ok' and er is not null order by model, seed"
    )
    names = entry_names(rows, "defense")
    found: dict[tuple[str, str, bool], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        defense = names[row["defense"], row["defense_params"]]
        found[defense, row["model"], row["attack"] == WRAPPER][_attack(row)].append(100 * row["er"])
    heads = [f"{model.upper()}: worst {kind}" for model in MODELS for kind in ("fixed", "adaptive")]
    lines = ["| defense | " + " | ".join(heads) + " |", "|---" * (1 + len(heads)) + "|"]
    for defense in sorted({each[0] for each in found}):
        cells = [_worst(found[defense, model, adaptive]) for model in MODELS for adaptive in (False, True)]
        lines.append(f"| `{defense}` | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _attack(row: dict[str, Any]) -> str:
    """Of the wrapper the attack that it wraps."""
    return str(json.loads(row["attack_params"])["attack"]) if row["attack"] == WRAPPER else str(row["attack"])


def _worst(attacks: dict[str, list[float]]) -> str:
    """The attack with the highest mean, of those with most seeds; all its seeds."""
    if not attacks:
        return "-"
    most = max(map(len, attacks.values()))
    mean, name = max((sum(found) / most, name) for name, found in attacks.items() if len(found) == most)
    return f"{mean:.1f} `{name}` ({', '.join(f'{value:.0f}' for value in attacks[name])})"


if __name__ == "__main__":
    sys.stdout.write(table([RESULTS]) + "\n")
