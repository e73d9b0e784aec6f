"""The leaderboard: DuckDB over the records of runs, rankings with intervals, and how they are shown."""

from __future__ import annotations

from fedbench.leaderboard.database import Database
from fedbench.leaderboard.ranking_attacks import AttackRow, CellRow, rank_attacks
from fedbench.leaderboard.ranking_defenses import DefenseRow, VisualDefenseRow, rank_defenses
from fedbench.leaderboard.ranking_demotion import DemotionAttackRow, rank_demotion
from fedbench.leaderboard.ranking_untargeted import UntargetedAttackRow, rank_untargeted
from fedbench.leaderboard.ranking_visual import VisualAttackRow, VisualCellRow, rank_visual
from fedbench.leaderboard.tracks import DEMOTION, TARGETED, TRACKS, UNTARGETED, VISUAL, Track
from fedbench.leaderboard.under_defenses import UnderRow, attacks_under_defenses

__all__ = [
    "DEMOTION",
    "TARGETED",
    "TRACKS",
    "UNTARGETED",
    "VISUAL",
    "AttackRow",
    "CellRow",
    "Database",
    "DefenseRow",
    "DemotionAttackRow",
    "Track",
    "UnderRow",
    "UntargetedAttackRow",
    "VisualAttackRow",
    "VisualCellRow",
    "VisualDefenseRow",
    "attacks_under_defenses",
    "rank_attacks",
    "rank_defenses",
    "rank_demotion",
    "rank_untargeted",
    "rank_visual",
]
