"""No attack: the clean run that every attack and defense is compared with."""

from __future__ import annotations

from fedbench.entries.cards import AttackCard, Channel, Goal
from fedbench.federation.attack import Attack


class NoAttack(Attack):
    """No malicious client at all: scenarios with this attack have a malicious ratio of 0."""

    card = AttackCard(
        name="none", title="No attack", paper="", goal=Goal.NONE, channel=Channel.NONE, notes="The clean twin."
    )
