"""The two tracks of the leaderboard: attacks with a target, and attacks without one; they are never ranked together."""

from __future__ import annotations

from dataclasses import dataclass

from fedbench.cards import Goal


@dataclass(frozen=True)
class Track:
    """What the attacks of one goal, and defenses against them, are measured by: views and columns of the database.

    Attributes:
        goal: of the attacks. defenses: the view of defended runs.
        prevented: what a defense prevents of an attack. loss: what it costs without one. left: what the attack still does.
        undefended: what it does without a defense. peak: the most it did during training, None where that is not measured.
    """

    goal: Goal
    defenses: str
    prevented: str
    loss: str
    left: str
    undefended: str
    peak: str | None


TARGETED = Track(Goal.PROMOTE, "defenses", "er_reduction", "hr_loss", "er_defended", "er_undefended", "er_peak")
"""Exposure of the targets, in points of ER@K; costs in points of HR@K."""
UNTARGETED = Track(Goal.DEGRADE, "untargeted_defenses", "hr_recovered", "hr_cost", "hr_left", "hr_lost", None)
"""Lost quality; everything in percent of the baseline's HR@K."""
