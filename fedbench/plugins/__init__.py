"""Entries from a file of one's own: how it is loaded, what its card must be, and how a new one begins."""

from __future__ import annotations

from fedbench.plugins.card_rules import KINDS, Kind, check_card
from fedbench.plugins.classes import class_name, forget_classes
from fedbench.plugins.files import (
    Given,
    Loaded,
    forget_files,
    given,
    is_file,
    load_file,
    load_given,
    loaded_files,
    module_source,
    named,
    registry_of,
    taken_by,
)

__all__ = [
    "KINDS",
    "Given",
    "Kind",
    "Loaded",
    "check_card",
    "class_name",
    "forget",
    "given",
    "is_file",
    "load_file",
    "load_given",
    "loaded_files",
    "module_source",
    "named",
    "registry_of",
    "taken_by",
]


def forget() -> None:
    """Take all files and classes out of the registries: what is edited can be loaded again under its name."""
    forget_files()
    forget_classes()
