"""Fields of a scenario that take an entry as a name, a file or a class, and hold its name."""

from __future__ import annotations

from os import PathLike, fspath
from pathlib import Path
from typing import Any, overload

from fedbench.errors import UserError
from fedbench.plugins import Kind, class_name, is_file, load_file

Given = str | PathLike[str] | type[Any]
"""``"pieck-uea"``, ``"./my_attack.py"`` or ``MyAttack``; of defenses also several names or files joined by ``+``."""


class EntryField:
    """A descriptor for a frozen dataclass: whatever is given becomes the name of an entry.

    Args:
        kind: of the entry. default: a name; None: the field must be given.
    """

    def __init__(self, kind: Kind, default: str | None = None) -> None:
        self._kind, self._default = kind, default

    @overload
    def __get__(self, instance: None, owner: type) -> str: ...
    @overload
    def __get__(self, instance: object, owner: type) -> str: ...
    def __get__(self, instance: object | None, owner: type) -> str:
        if instance is not None:
            return str(vars(instance)[f"_{self._kind}"])
        if self._default is None:
            raise AttributeError(self._kind)  # which tells dataclasses that there is no default
        return self._default

    def __set__(self, instance: object, value: Given) -> None:
        vars(instance)[f"_{self._kind}"] = entry_name(value, self._kind)


def entry_name(given: object, kind: Kind) -> str:
    """The name of an entry: a file is loaded, a class is registered, and a name is taken as it is.

    Raises:
        UserError: what is given is none of these, or a file or class that is no such entry.
    """
    if isinstance(given, type):
        return class_name(given, kind)
    if not isinstance(given, str | PathLike):
        raise UserError(f"scenario: {kind} = {given!r} must be a string, a file or a class.")
    text = fspath(given)
    if kind == "defense" and not Path(text).is_file():
        return "+".join(load_file(part, kind).name if is_file(part) else part for part in text.split("+"))
    return load_file(text, kind).name if is_file(text) else text
