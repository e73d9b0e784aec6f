"""One small generic registry: a name leads to a class, imported when it is first asked for.

Outside packages join through the entry-point groups ``fedbench.attacks``, ``fedbench.defenses``, ``fedbench.models`` and
``fedbench.datasets``; their names are ``package/name``. A plug-in that cannot be imported warns and the rest works.
Single files and classes join through :mod:`fedbench.plugins`.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import re
import warnings
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any, Generic, TypeVar

from fedbench.errors import UserError, unknown

T = TypeVar("T")


class Registry(Generic[T]):
    """Names and where the class of each is found.

    Args:
        kind: the word for one entry, used in messages: ``"attack"``.
        base: ``"module:Class"`` that every entry must subclass.
        builtin: name -> ``"module:Class"``.
        group: entry-point group through which outside packages join, or None.

    Attributes:
        failed: plug-ins that could not be loaded, and why; filled when names are first asked for.
    """

    def __init__(self, kind: str, base: str, builtin: dict[str, str], group: str | None = None) -> None:
        self.kind = kind
        self._base = base
        self._where: dict[str, str] = dict(builtin)
        self._builtin = frozenset(builtin)
        self._classes: dict[str, type[T]] = {}
        self._group = group
        self._scanned = group is None
        self.failed: dict[str, str] = {}

    def names(self) -> list[str]:
        """All names, sorted."""
        self._scan()
        return sorted({*self._where, *self._classes})

    def builtin(self, name: str) -> bool:
        """Whether ``name`` comes with fedbench."""
        return name in self._builtin

    def ours(self, cls: type) -> bool:
        """Whether ``cls`` is what comes with fedbench under one of its names."""
        return any(self._where[name] == f"{cls.__module__}:{cls.__qualname__}" for name in self._builtin)

    def get(self, name: str) -> type[T]:
        """The class called ``name``; raises :class:`UserError` with close matches when there is none."""
        self._scan()
        if name not in self._classes:
            if name not in self._where:
                raise unknown(self.kind, name, self.names(), f"See `fedbench list {self.kind}s`.")
            self._classes[name] = self._checked(name, _load(self._where[name]))
        return self._classes[name]

    def add(self, name: str, cls: type[T]) -> None:
        """Register ``cls`` under ``name``; a name can be taken only once."""
        if not re.fullmatch(r"[a-z0-9]+([._/-][a-z0-9]+)*", name):
            raise UserError(
                f"{self.kind} name {name!r} must be lower-case words joined by '-', such as 'my-{self.kind}'."
            )
        if name in self._classes or name in self._where:
            raise UserError(f"{self.kind} {name!r} is already registered at {self.origin(name)}.")
        self._classes[name] = self._checked(name, cls)

    def remove(self, name: str) -> None:
        """Forget a class that was added."""
        del self._classes[name]

    @contextlib.contextmanager
    def lent(self, name: str, cls: type[T]) -> Iterator[None]:
        """For a while ``name`` leads to ``cls``, whatever it led to before."""
        self._scan()  # or a plug-in of that name would be found taken, and be lost
        before = self._classes.get(name)
        self._classes[name] = self._checked(name, cls)
        try:
            yield
        finally:
            del self._classes[name]
            if before is not None:
                self._classes[name] = before

    def name_of(self, cls: type) -> str | None:
        """The name under which ``cls`` is an entry; None where it is none."""
        named = (name for name, each in self._classes.items() if each is cls)
        where = f"{cls.__module__}:{cls.__qualname__}"
        return next(named, next((name for name, each in self._where.items() if each == where), None))

    def origin(self, name: str) -> str:
        """``file:line`` of the class called ``name``, relative to the folder that holds its package.

        Of a class that is in no file, its module and name.
        """
        cls = self.get(name)
        try:
            line = inspect.getsourcelines(cls)[1]
        except (OSError, TypeError):
            return f"{cls.__module__}.{cls.__qualname__}"
        file = Path(inspect.getsourcefile(cls) or cls.__module__)
        root = file.parents[cls.__module__.count(".")] if len(file.parents) > cls.__module__.count(".") else file.parent
        return f"{file.relative_to(root)}:{line}"

    @property
    def base(self) -> type[T]:
        """The class that every entry derives from."""
        base: type[T] = _load(self._base)
        return base

    def _checked(self, name: str, cls: object) -> type[T]:
        if not (isinstance(cls, type) and issubclass(cls, self.base)):
            raise UserError(f"{self.kind} {name!r} is {cls!r}, which is not a subclass of {self._base}.")
        return cls

    def _scan(self) -> None:
        if self._scanned:
            return
        self._scanned = True
        assert self._group is not None
        for point in metadata.entry_points(group=self._group):
            package = point.dist.name if point.dist else point.module.partition(".")[0]
            name = f"{package}/{point.name}".lower()
            try:
                self.add(name, point.load())
            except Exception as error:  # a broken plug-in must not take the others down
                self.failed[name] = f"{type(error).__name__}: {error}"
                warnings.warn(f"plug-in {self.kind} {name!r} is left out: {error}", RuntimeWarning, stacklevel=3)


def _load(where: str) -> Any:
    module, _, attribute = where.partition(":")
    return getattr(importlib.import_module(module), attribute)
