"""The leaderboard: DuckDB over the records of runs, rankings with intervals, and how they are shown."""

from __future__ import annotations

from fedbench.leaderboard.database import Database
from fedbench.leaderboard.ranking import AttackRow, CellRow, DefenseRow, rank_attacks, rank_defenses

__all__ = ["AttackRow", "CellRow", "Database", "DefenseRow", "rank_attacks", "rank_defenses"]
