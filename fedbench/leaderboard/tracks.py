"""The tracks of the leaderboard, by what attacks want and whether recommenders look at images: never ranked together."""

from __future__ import annotations

from dataclasses import dataclass

from fedbench.entries.cards import Goal


@dataclass(frozen=True)
class Track:
    """What the attacks of one goal, and defenses against them, are measured by: views and columns of the database.

    Attributes:
        goal: of the attacks. attacks: the view of attacked runs. defenses: that of defended ones.
        prevented: what a defense prevents of an attack. loss: what it costs without one. loss_attacked: what it costs under
            the attack, None where that is in ``prevented`` anyway. left: what the attack still does.
        undefended: what it does without a defense. peak: the most it did during training, None where that is not measured.
        prevented_end, loss_end, left_end: those three at the end of training, None where they are measured there anyway.
        measure: what attacks are measured by, as ``ER`` of ER@K; None: by loss of quality.
        prefix: of the titles of its tables. key: prefix of its entries in the plain data of the board.
        name: what a row of a defense says it is of, its ``goal``; empty for that of the attacks.
    """

    goal: Goal
    attacks: str
    defenses: str
    prevented: str
    loss: str
    left: str
    undefended: str
    peak: str | None
    loss_attacked: str | None = None
    prevented_end: str | None = None
    loss_end: str | None = None
    left_end: str | None = None
    measure: str | None = "ER"
    prefix: str = ""
    key: str = ""
    name: str = ""

    @property
    def panel(self) -> str:
        """What tells its defenses from those of other tracks."""
        return self.name or str(self.goal)

    @property
    def named(self) -> str:
        """The view by whose runs attacks are named: undefended ones are named along."""
        return "visual_attacks" if self.name else "attacks"

    @property
    def exposes(self) -> bool:
        """Whether it is about what users are shown, in points."""
        return self.measure is not None

    def measured(self, k: int) -> str:
        """What attacks are measured by in lists of length k: ``ER@10``; empty by loss of quality."""
        return f"{self.measure}@{k}" if self.measure else ""

    def title(self, text: str) -> str:
        """``text`` as the title of one of the track's tables."""
        return self.prefix + text if self.prefix else text[:1].upper() + text[1:]


TARGETED = Track(
    Goal.PROMOTE, "attacks", "defenses", "er_reduction", "hr_loss", "er_defended", "er_undefended", "er_peak",
    "hr_loss_attacked",
)  # fmt: skip
"""Exposure of the targets, in points of ER@K; costs in points of HR@K."""
UNTARGETED = Track(
    Goal.DEGRADE,
    "untargeted_attacks",
    "untargeted_defenses",
    "hr_recovered",
    "hr_cost",
    "hr_left",
    "hr_lost",
    None,
    None,
    "hr_recovered_end",
    "hr_cost_end",
    "hr_left_end",
    None,
    "Untargeted: ",
    "untargeted_",
)
"""Lost quality; everything in percent of the baseline's HR@K."""

VISUAL = Track(
    Goal.PROMOTE,
    "visual_attacks",
    "visual_defenses",
    "er_reduction",
    "ndcg_loss",
    "er_defended",
    "er_undefended",
    "er_peak",
    "ndcg_loss_attacked",
    prefix="Visual: ",
    key="visual_",
    name="visual",
)
"""Exposure of the targets where images are read, in points of ER@K; costs in percent of the baseline's NDCG@20. Attacks on
images are compared within equal bounds: eps is part of the scenario, and not of an attack's name."""

DEMOTION = Track(
    Goal.DEMOTE,
    "demotion_attacks",
    "demotion_defenses",
    "dr_reduction",
    "hr_loss",
    "dr_defended",
    "dr_undefended",
    None,
    "hr_loss_attacked",
    measure="DR",
    prefix="Demotion: ",
    key="demotion_",
)
"""Targets that are no longer shown, in points of DR@K; costs in points of HR@K."""
TRACKS = (TARGETED, UNTARGETED, VISUAL, DEMOTION)
