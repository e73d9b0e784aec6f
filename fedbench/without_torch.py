"""Reading, ranking and rendering records where torch is not installed."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType
from typing import Any

from fedbench.errors import UserError

MODULES = ("torch", "torch.nn", "torch.nn.functional")
"""The modules of torch that are imported at the top of other modules."""
MISSING = "this needs torch, which is not installed: pip install torch (records are read and ranked without)."


class NeedsTorch(UserError, AttributeError):
    """Raised when something of torch is used that is not installed. Who only asks whether it is there is told no."""


class _Absent(ModuleType):
    """Stands for a module that is not there: it can be imported, and says so when something of it is used."""

    class Tensor:
        """No array is one: SciPy asks."""

    def __getattr__(self, name: str) -> Any:
        raise NeedsTorch(MISSING)


def stand_in_for_torch() -> None:
    """Let ``import torch`` pass where there is no torch; nothing happens where there is.

    Names and cards of entries are in modules that import torch at their top, and to read them does not take it.
    """
    if "torch" in sys.modules or importlib.util.find_spec("torch") is not None:
        return
    for name in MODULES:
        module = _Absent(name)
        module.__path__ = []
        sys.modules[name] = module
        parent, _, own = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], own, module)


def need_torch() -> None:
    """Raise :class:`NeedsTorch` where something stands in for torch, before anything is begun that will use it."""
    if isinstance(sys.modules.get("torch"), _Absent):
        raise NeedsTorch(MISSING)
