"""Where modules were that files written for fedbench 0.1 import: such files, and bundles of them, load as before."""

from __future__ import annotations

import importlib
import sys

MOVED = {
    "fedbench.attacks.base": "fedbench.federation.attack",
    "fedbench.cards": "fedbench.entries.cards",
    "fedbench.defenses.base": "fedbench.federation.defense",
    "fedbench.mining": "fedbench.federation.mining",
    "fedbench.models.base": "fedbench.federation.model",
}
"""What contributors imported then -> where it is. ``fedbench`` itself has all of it, under names that stay."""


def lead_to_moved() -> None:
    """Let the old names of these modules lead to them."""
    for old, new in MOVED.items():
        sys.modules.setdefault(old, importlib.import_module(new))
