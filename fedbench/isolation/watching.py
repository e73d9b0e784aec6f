"""An attack's view that notes what is asked of it, and what was handed out and has been changed.

The same watch is kept by the checks of this process, and in every process of an isolated attack.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from fedbench.entries.cards import Knowledge
from fedbench.federation import view as view_module
from fedbench.federation.batch import Batch
from fedbench.federation.updates import Updates
from fedbench.federation.view import AttackerView, HonestStep

Tensors = list[tuple[str, torch.Tensor]]
_WITHIN = (view_module.__name__, __name__)
"""Modules that may read what is private in a view."""


@dataclass
class Notes:
    """What was seen of an attack.

    Attributes:
        used: knowledge that it asked for and has. reached: what it asked for and has not.
    """

    used: set[Knowledge] = field(default_factory=set)
    reached: list[str] = field(default_factory=list)


class Untouched:
    """Tensors that were handed out and must stay as they are."""

    def __init__(self) -> None:
        self._seen: dict[int, tuple[str, torch.Tensor, int, bool, torch.Tensor]] = {}

    def add(self, name: str, value: object) -> None:
        """Remember all tensors in ``value``."""
        for place, tensor in tensors_of(name, value):
            if id(tensor) not in self._seen:
                self._seen[id(tensor)] = place, tensor, tensor._version, tensor.requires_grad, tensor.detach().clone()

    def changed(self) -> str:
        """The name of one that is no longer what it was; empty: there is none."""
        for name, tensor, version, grad, copy in self._seen.values():
            same = torch.equal(tensor.nan_to_num(), copy.nan_to_num())
            if tensor._version != version or tensor.requires_grad != grad or not same:
                return name
        return ""


def tensors_of(name: str, value: object) -> Tensors:
    """All tensors in a value of tensors, dataclasses, mappings and sequences, with their places."""
    if isinstance(value, torch.Tensor):
        return [(name, value)]
    parts: list[tuple[str, object]] = []
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        parts = [(f"{name}.{each.name}", getattr(value, each.name)) for each in dataclasses.fields(value)]
    elif isinstance(value, Mapping):
        parts = [(f"{name}[{key!r}]", each) for key, each in value.items()]
    elif isinstance(value, list | tuple):
        parts = [(f"{name}[{index}]", each) for index, each in enumerate(value)]
    return [found for place, part in parts for found in tensors_of(place, part)]


class WatchedView(AttackerView):
    """A view that notes what is asked of it, and refuses what is private."""

    _notes: Notes
    _untouched: Untouched

    @classmethod
    def of(cls, view: AttackerView, notes: Notes, untouched: Untouched) -> WatchedView:
        """The same view, watched."""
        watched = cls.__new__(cls)
        watched.__dict__.update(view.__dict__)
        watched._notes, watched._untouched = notes, untouched
        return watched

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("_"):
            if name != "__class__" and sys._getframe(1).f_globals.get("__name__") not in _WITHIN:
                self._notes.reached.append(f"{name!r}, which is private to the view")
                self._refuse(f"reached for {name!r}, which is private to the view")
            return super().__getattribute__(name)
        value = super().__getattribute__(name)
        if name not in ("model", "generator"):
            self._untouched.add(f"view.{name}", value)
        return value

    def __getattr__(self, name: str) -> object:
        self._notes.reached.append(f"{name!r}, which no attacker is given")
        return super().__getattr__(name)

    def _needs(self, knowledge: Knowledge, name: str) -> None:
        if knowledge in self._card.knowledge:
            self._notes.used.add(knowledge)
        else:
            self._notes.reached.append(f"{name!r} (knowledge {knowledge.value!r}), which the card does not declare")
        super()._needs(knowledge, name)

    def honest(self) -> HonestStep:
        return self._handed("view.honest()", super().honest())

    def trained(self, batch: Batch, move: bool = False) -> Updates:
        return self._handed("view.trained()", super().trained(batch, move))

    def colluding(self, count: int) -> Updates:
        return self._handed("view.colluding()", super().colluding(count))

    def _handed(self, name: str, value: Any) -> Any:
        self._untouched.add(name, value)
        return value


def global_state() -> dict[str, Any]:
    """The states of the random generators that everybody shares."""
    import random

    import numpy as np

    name, keys, *rest = np.random.get_state(legacy=True)  # noqa: NPY002 - it is the legacy state that is watched
    return {
        "torch": torch.get_rng_state().numpy().tobytes(),
        "numpy": (name, keys.tobytes(), *rest),  # type: ignore[union-attr]
        "random": random.getstate(),
    }


def moved(before: dict[str, Any]) -> list[str]:
    """The shared generators that have moved since ``before``."""
    return [name for name, state in global_state().items() if state != before[name]]
