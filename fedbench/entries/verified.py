"""Which entries an author of their paper has said to be the method of the paper: ``verified.toml``.

It is a list beside the entries, and not on their cards, which whoever writes an entry writes himself.
"""

from __future__ import annotations

import datetime
import functools
import tomllib
from dataclasses import dataclass
from importlib import resources


@dataclass(frozen=True)
class Verified:
    """What an author said. version: of the card then. statement: an address. date: of the statement."""

    version: int
    by: str
    statement: str
    date: datetime.date


@functools.cache
def statements() -> dict[str, dict[str, Verified]]:
    """By kind (``attacks``, ``defenses``, ``models``) and name."""
    found = tomllib.loads(resources.files("fedbench.entries").joinpath("verified.toml").read_text(encoding="utf-8"))
    return {kind: {name: Verified(**said) for name, said in own.items()} for kind, own in found.items()}


def verified_by(kind: str, name: str, version: int) -> str:
    """Who verified an entry, for people: of what version, when it is not the one that runs; empty: nobody.

    Args:
        kind: ``attacks``, ``defenses`` or ``models``. name, version: of the card.
    """
    said = statements().get(kind, {}).get(name)
    if said is None:
        return ""
    of = "" if said.version == version else f"version {said.version} only, "
    return f"{of}{said.by}, {said.date}, {said.statement}"
