"""A class that stands for an entry whose code has not been run: its card and parameters, as the bundle states them.

With it a scenario finds its id, its twins and all columns of its records as with the real class. The re-run compares
those with what the real class gives.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, ConfigDict, create_model
from pydantic.fields import FieldInfo

from fedbench.attacks import ATTACKS
from fedbench.defenses import DEFENSES
from fedbench.entries.cards import LATER, Parameters
from fedbench.federation.attack import Attack
from fedbench.federation.defense import Defense
from fedbench.scenarios import suite
from fedbench.submission.manifest import AttackData, CardData
from fedbench.submission.report import Check


class _Declared(Parameters):
    model_config = ConfigDict(protected_namespaces=())


_TYPES: dict[str, Any] = {
    "float": float,
    "int": int,
    "bool": bool,
    "str": str,
    "float | None": float | None,
    "int | None": int | None,
    "str | None": str | None,
    "int | float": int | float,
}
"""Types as ``fedbench.entries.cards.parameter_docs`` names them; whole numbers for floats become floats, the rest stay."""


def stand_in(data: CardData, check: Check) -> type[Any] | None:
    """A class with the card and the parameters of ``data``; None, with a reason, when its parameters cannot be."""
    fields: dict[str, Any] = {}
    for each in data.parameters:
        if each.name in fields or hasattr(BaseModel, each.name):
            check.refuse(f"card.json: parameter {each.name!r} occurs twice or is a name of pydantic's.")
            return None
        extra = LATER if each.later else None
        fields[each.name] = (_TYPES.get(each.type, Any), FieldInfo(default=each.default, json_schema_extra=extra))
    params = create_model("Params", __base__=_Declared, **fields)
    base: type[Any] = Attack if isinstance(data, AttackData) else Defense
    return type(data.class_name, (base,), {"card": data.card(), "Params": params, "__module__": __name__})


@contextlib.contextmanager
def standing_in(kind: str, name: str, cls: type[Any] | None) -> Iterator[None]:
    """Let scenarios find ``cls`` under ``name``, and afterwards what they found before; None: as it is."""
    if cls is None:
        yield
        return
    registry: Any = ATTACKS if kind == "attack" else DEFENSES
    suite.forget_scenarios()
    try:
        with registry.lent(name, cls):
            yield
    finally:
        suite.forget_scenarios()
