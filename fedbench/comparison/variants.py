"""Names on the leaderboard that are one method with several parameters."""

from __future__ import annotations

from collections.abc import Sequence

from fedbench.leaderboard.database import Database
from fedbench.leaderboard.ranking import entry_names


def variants_of(database: Database, kind: str, names: Sequence[str]) -> list[str]:
    """What the methods called ``names`` are called with other parameters: ``krum (assumed_ratio=0.2)``.

    Args:
        database: the records. kind: ``attack`` or ``defense``. names: without parameters.
    """
    rows = database.rows(
        "select distinct attack, attack_params, defense, defense_params, dataset, model, protocol from quality"
        " where not superseded and attack <> 'none'"
    )
    known = set(entry_names(rows, kind).values())
    return sorted(each for each in known for name in names if each.startswith(f"{name} ("))
