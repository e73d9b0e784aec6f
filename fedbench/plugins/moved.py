"""Where things were that files of attacks, defenses, models and datasets written for fedbench 0.1 import.

Such a file is loaded as before. ``fedbench`` itself has all of these names, and they stay there.
"""

from __future__ import annotations

import importlib
import sys

MODULES = {
    "fedbench.attacks.base": "fedbench.federation.attack",
    "fedbench.cards": "fedbench.entries.cards",
    "fedbench.defenses.base": "fedbench.federation.defense",
    "fedbench.mining": "fedbench.federation.mining",
    "fedbench.models.base": "fedbench.federation.model",
}
"""What was -> what is."""

NAMES = {
    ("fedbench.data", "Entry"): "DatasetCard",
    ("fedbench.data.records", "Rows"): "Interactions",
}
"""Module and what was called so in it -> what it is called now."""


def lead_to_moved() -> None:
    """Let the old names lead to what they meant."""
    for old, new in MODULES.items():
        sys.modules.setdefault(old, importlib.import_module(new))
    for (module, was), now in NAMES.items():
        there = importlib.import_module(module)
        setattr(there, was, getattr(there, now))
