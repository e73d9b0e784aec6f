"""Commands that only read names and parameters answer without waiting for torch."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from types import ModuleType
from typing import Any

from fedbench.without_torch import MODULES, stand_in_for_torch


class _Nothing:
    """No object is of this class."""


class _Deferred(ModuleType):
    """Stands for a module until one of its attributes is used; then, and ever after, hands out the real one's.

    ``importlib.util.LazyLoader`` will not do: already a second ``import torch`` makes it load the module.
    """

    def __getattr__(self, name: str) -> Any:
        if name == "Tensor" and str(sys._getframe(1).f_globals.get("__name__")).startswith("scipy."):
            return _Nothing  # SciPy asks of all that it is given whether it is one: nothing is, as long as torch waits
        for module in MODULES:
            if isinstance(sys.modules.get(module), _Deferred):
                del sys.modules[module]
        return getattr(importlib.import_module(self.__name__), name)


def defer_torch() -> None:
    """Let ``import torch`` cost nothing until something of it is used.

    The modules of attacks, defenses and models import torch at their top, and their cards and parameters do not need
    it. Importing it takes more than a second; after this call it happens at the first use of an attribute, if ever.
    """
    if "torch" in sys.modules:
        return
    spec = importlib.util.find_spec("torch")
    if spec is None:
        stand_in_for_torch()
        return
    for name in MODULES:
        module = _Deferred(name)
        module.__spec__, module.__file__, module.__loader__ = spec, spec.origin, spec.loader
        sys.modules[name] = module
        parent, _, own = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], own, module)
