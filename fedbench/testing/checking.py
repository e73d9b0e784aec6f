"""The checks of an entry of any kind."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from fedbench.plugins import Kind
from fedbench.testing.attacks import check_attack
from fedbench.testing.datasets import check_dataset
from fedbench.testing.defenses import check_defense
from fedbench.testing.finding import Finding
from fedbench.testing.models import check_model

_CHECKS: dict[Kind, Callable[[Any], Iterator[Finding]]] = {
    "attack": check_attack,
    "defense": check_defense,
    "model": check_model,
    "dataset": check_dataset,
}


def check_entry(kind: Kind, cls: type[Any]) -> Iterator[Finding]:
    """Every check of an entry, one after the other, as they are made.

    Args:
        kind: what the class is. cls: an attack, a defense, a model or a dataset.
    """
    return _CHECKS[kind](cls)
