"""The code that computes a run: whether it is still what it was before the run's attack and defense were made."""

from __future__ import annotations

import operator
import sys
from collections.abc import Callable, Iterator
from functools import cached_property
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any

import torch

_WATCHED = (FunctionType, BuiltinFunctionType, type, classmethod, staticmethod, property, cached_property)

_COMPUTES = tuple(f"fedbench.{name}." for name in ("data", "defenses", "evaluation", "federation", "models", "runs"))
"""Where modules are that compute a run."""

Namespace = ModuleType | type[Any]


class Code:
    """Functions, classes and methods of the modules that compute a run, and what torch offers by name, as they are now.

    It finds what was replaced and is still replaced when it looks, before every measurement and at the end of a run. What an
    attack replaces and puts back in between, nothing in the same process can find.
    """

    def __init__(self) -> None:
        self._spaces = [_Space(space) for space in _namespaces()]

    def restore(self) -> str:
        """Put back what was replaced, and name the first of it; empty: nothing was."""
        changed = [name for space in self._spaces if not space.same() for name in space.restore()]
        return changed[0] if changed else ""


def _namespaces() -> Iterator[Namespace]:
    yield from (torch, torch.Tensor, torch.nn.functional)
    for module in [module for name, module in sorted(sys.modules.items()) if name.startswith(_COMPUTES)]:
        yield module
        yield from (
            each for each in vars(module).values() if _watched(each, type) and each.__module__ == module.__name__
        )


def _watched(value: object, kinds: Any = _WATCHED) -> bool:
    return issubclass(type(value), kinds)  # isinstance would ask the value, and load what torch loads on demand


class _Space:
    """The watched names of a module or a class."""

    def __init__(self, space: Namespace) -> None:
        content = vars(space)
        self._space, self._content, self._length = space, content, len(content)
        # Twice the first, so that there are always several and itemgetter gives a tuple.
        # Importing parts of torch replaces some of its functions written in Python, such as manual_seed.
        kinds = BuiltinFunctionType if space is torch else _WATCHED
        names = [name for name, value in content.items() if _watched(value, kinds)]
        self._names = names
        self._get: Callable[[Any], tuple[Any, ...]] | None = operator.itemgetter(names[0], *names) if names else None
        self._values = self._get(content) if self._get is not None else ()
        self._functions = [value for value in self._values if isinstance(value, FunctionType)]
        self._codes = [function.__code__ for function in self._functions]

    def same(self) -> bool:
        """Whether nothing is other than it was: quick, for it is asked often."""
        content = self._content
        if len(content) != self._length and self._added():
            return False
        try:
            there = self._get(content) if self._get is not None else ()
        except KeyError:
            return False
        return all(map(operator.is_, there, self._values)) and all(
            map(operator.is_, map(operator.attrgetter("__code__"), self._functions), self._codes)
        )

    def restore(self) -> list[str]:
        """Put back what was replaced; returns the names of it."""
        changed = self._added()
        for name in changed:
            delattr(self._space, name)
        for name, value in zip(self._names, self._values[1:], strict=True):
            if self._content.get(name) is not value:
                setattr(self._space, name, value)
                changed.append(name)
        for function, code in zip(self._functions, self._codes, strict=True):
            if function.__code__ is not code:
                function.__code__ = code
                changed.append(function.__name__)
        where = self._space.__name__ if isinstance(self._space, ModuleType) else _path(self._space)
        return [f"{where}.{name}" for name in changed]

    def _added(self) -> list[str]:
        """Names that would be found before others, such as those of builtins or of a base class; imports add modules."""
        known = set(self._names)
        return [
            name
            for name, value in self._content.items()
            if name not in known and _watched(value) and self._counts(name)
        ]

    def _counts(self, name: str) -> bool:
        # Torch completes itself on demand, and pydantic and others add what begins with underscores.
        return self._space is not torch and not name.startswith("_")


def _path(cls: type[Any]) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"
