"""Attacks that promote, turned round: they take the targets out of the lists of those who would be shown them.

Nothing of the kind has been published for federated recommenders, so every entry is an attack that promotes whose objective
has its sign changed (ours): targets are disliked instead of liked, fall behind instead of getting ahead, or are pulled to
the opposite of popular items. They stand in the files of the attacks that they are made of. Fake profiles cannot be turned
round: an implicit profile says what is liked, and of nothing that it is disliked.
"""

from __future__ import annotations

from dataclasses import replace

from fedbench.entries.cards import AttackCard, Goal
from fedbench.federation.attack import Attack


def turned_round(card: AttackCard, notes: str = "") -> AttackCard:
    """The card of the attack that demotes what the one with ``card`` promotes; it knows and needs the same."""
    return replace(
        card,
        name=f"{card.name}-demote",
        title=f"{card.title}, turned round",
        paper=f"fedbench, after {card.paper}",
        goal=Goal.DEMOTE,
        notes=notes or f"Not published: {card.name} with the sign of its objective changed.",
    )


def wish(attack: Attack) -> float:
    """1 for an attack that promotes its targets, -1 for one that demotes them: the sign of its objective."""
    return -1.0 if attack.card.goal == Goal.DEMOTE else 1.0
