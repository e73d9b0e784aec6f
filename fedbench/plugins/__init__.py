"""Entries from a file or a class of one's own: how they are loaded, what its card must be, and how a new one begins."""

from __future__ import annotations

from fedbench.plugins.card_rules import KINDS, Kind, check_card
from fedbench.plugins.files import (
    Given,
    Loaded,
    forget,
    given,
    is_file,
    load_file,
    load_given,
    loaded_files,
    module_source,
    named,
    register_class,
    registry_of,
    taken_by,
)

__all__ = [
    "KINDS",
    "Given",
    "Kind",
    "Loaded",
    "check_card",
    "forget",
    "given",
    "is_file",
    "load_file",
    "load_given",
    "loaded_files",
    "module_source",
    "named",
    "register_class",
    "registry_of",
    "taken_by",
]
