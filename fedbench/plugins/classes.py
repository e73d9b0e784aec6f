"""A class made an entry as it is: written in a notebook, or imported from a module of one's own."""

from __future__ import annotations

from typing import Any

from fedbench.errors import UserError
from fedbench.plugins.card_rules import Kind, check_card
from fedbench.plugins.files import loaded_files, registry_of, taken_by

_GIVEN: dict[tuple[Kind, str], type[Any]] = {}


def class_name(cls: type[Any], kind: Kind) -> str:
    """The name on the card of ``cls``, under which it is an entry of this process from now on.

    A class of the same name that was given before gives way to it, as a cell of a notebook that is run again does. Worker
    processes know nothing of it: for many runs at once give a file.

    Raises:
        UserError: it is no such class, its card is missing or malformed, or its name is taken by another entry.
    """
    registry, where = registry_of(kind), f"{cls.__module__}.{cls.__qualname__}"
    if not issubclass(cls, registry.base):
        raise UserError(f"{kind} = {where} is not derived from fedbench.{registry.base.__name__}.")
    name = check_card(kind, cls, where)
    if name in registry.names() and registry.get(name) is cls:
        return name
    taken = taken_by(kind, name)
    if not taken and any((each.kind, each.name) == (kind, name) for each in loaded_files()):
        taken = "a file that was loaded"
    if taken:
        raise UserError(f"{where}: the name {name!r} on the card is taken by {taken}; give yours another.")
    if (kind, name) in _GIVEN:
        registry.remove(name)
    registry.add(name, cls)
    _GIVEN[kind, name] = cls
    return name


def forget_classes() -> None:
    """Take all of them out of the registries again, for tests."""
    for kind, name in _GIVEN:
        registry_of(kind).remove(name)
    _GIVEN.clear()
