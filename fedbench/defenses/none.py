"""No defense: the server sums (or averages) whatever arrives."""

from __future__ import annotations

from fedbench.entries.cards import DefenseCard
from fedbench.federation.defense import Defense


class NoDefense(Defense):
    """The undefended server."""

    card = DefenseCard(name="none", title="No defense", paper="", notes="The undefended twin.")
    keeps_params = False
