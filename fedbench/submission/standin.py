"""A class that stands for an entry whose code has not been run: its card and parameters, as the bundle states them.

With it a scenario finds its id, its twins and all columns of its records as with the real class. The re-run compares
those with what the real class gives.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from fedbench.attacks import ATTACKS
from fedbench.defenses import DEFENSES
from fedbench.errors import UserError
from fedbench.federation.attack import Attack
from fedbench.federation.defense import Defense
from fedbench.plugins.card_data import AttackData, CardData, declared_parameters
from fedbench.scenarios.scenario import forget_scenarios
from fedbench.submission.report import Check


def stand_in(data: CardData, check: Check) -> type[Any] | None:
    """A class with the card and the parameters of ``data``; None, with a reason, when its parameters cannot be."""
    try:
        params = declared_parameters(data)
    except UserError as error:
        check.refuse(f"card.json: {error}")
        return None
    base: type[Any] = Attack if isinstance(data, AttackData) else Defense
    return type(data.class_name, (base,), {"card": data.card(), "Params": params, "__module__": __name__})


@contextlib.contextmanager
def standing_in(kind: str, name: str, cls: type[Any] | None) -> Iterator[None]:
    """Let scenarios find ``cls`` under ``name``, and afterwards what they found before; None: as it is."""
    if cls is None:
        yield
        return
    registry: Any = ATTACKS if kind == "attack" else DEFENSES
    forget_scenarios()
    try:
        with registry.lent(name, cls):
            yield
    finally:
        forget_scenarios()
