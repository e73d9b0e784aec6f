"""Mixing: uploads become averages of several before a robust rule sees them, so that honest ones lie closer together."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from pydantic import Field

from fedbench.defenses.robust import RobustAggregation
from fedbench.entries.cards import Parameters
from fedbench.federation.defense import Defense, ServerView
from fedbench.federation.updates import Updates


class MixingParameters(Parameters):
    """Parameters of every mixing."""

    scope: Literal["item", "client"] | None = Field(
        None,
        description="what is mixed: rows of an item, or whole updates; None: as the rule in the same chain sees them,"
        " rows without one",
    )


class Mixing(Defense):
    """Base of what mixes uploads before a rule: ``a+krum`` is Krum of what the mixing a makes.

    Scopes are those of the rules (see ``robust.py``): the rows of each item by themselves and each dense tensor by itself,
    or whole updates. The sum of what comes out stands for the sum of what came in. Uploads with a number that is not finite
    are left out. Where the server averages by numbers of samples, so do averages of whole updates.
    """

    params: MixingParameters

    def __init__(self, params: Parameters) -> None:
        super().__init__(params)
        self.scope = self.params.scope or "item"

    def joined(self, parts: Sequence[Defense]) -> None:
        rules = [part.params.scope for part in parts if isinstance(part, RobustAggregation)]
        self.scope = self.params.scope or (rules[-1] if rules else "item")

    def filter(self, updates: Updates, server: ServerView) -> Updates:
        updates = updates.settled()
        usable = updates.usable()
        if not bool(usable.all()):
            updates = updates.keep(usable)
        updates = updates.relative()
        if not len(updates.clients):
            return updates
        # As in the rules, a negative number of samples would turn a mean around.
        updates = replace(updates, weights=updates.weights.nan_to_num(0, 0, 0).clamp(min=0))
        return self.over_clients(updates, server) if self.scope == "client" else self.over_items(updates, server)

    @abstractmethod
    def over_items(self, updates: Updates, server: ServerView) -> Updates:
        """Item scope. What is common to all uploads has share 1 in each, before and after."""

    @abstractmethod
    def over_clients(self, updates: Updates, server: ServerView) -> Updates:
        """Client scope; numbers of samples are no less than 0."""
