"""What the checks of a bundle found, and how texts of strangers are looked at and shown."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

SHOWN = 6
"""Examples that a reason names before it counts the rest."""


@dataclass
class Check:
    """One step of the verification.

    Attributes:
        name: its name. reasons: why the bundle is refused; none: passed. notes: what does not speak against it, but
            should be known.
    """

    name: str
    reasons: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def refuse(self, reason: str) -> None:
        """Note a reason."""
        self.reasons.append(visible(reason))

    def note(self, text: str) -> None:
        """Note something that is no reason to refuse."""
        self.notes.append(visible(text))


def visible(text: str, most: int = 600) -> str:
    """The text on one line with every character to be seen: what steers a terminal, or reorders text, is spelt out."""
    spelt = "".join(each if each.isprintable() else each.encode("unicode_escape").decode("ascii") for each in text)
    return spelt if len(spelt) <= most else f"{spelt[: most - 4]} ..."


def brief(value: object) -> str:
    """A value of a stranger's in a reason: short."""
    return visible(repr(value), 80)


def some(names: Sequence[str]) -> str:
    """The first six names, and how many there are beyond them."""
    more = f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else ""
    return "; ".join(names[:SHOWN]) + more


def hidden(text: str, allowed: Iterable[str] = ()) -> str:
    """The first character that is not what it seems, as ``U+202E``, or nothing.

    Control characters, invisible and directional ones (which can make a name or a line of code read as another), lone
    surrogates, and separators that break lines.
    """
    for each in text:
        if unicodedata.category(each) in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp") and each not in allowed:
            return f"U+{ord(each):04X}"
    return ""
