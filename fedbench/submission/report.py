"""What the checks of a bundle found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from fedbench.texts import visible

LONGEST = 600
"""Characters of a reason that are shown."""
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
        self.reasons.append(visible(reason, LONGEST))

    def note(self, text: str) -> None:
        """Note something that is no reason to refuse."""
        self.notes.append(visible(text, LONGEST))


def brief(value: object) -> str:
    """A value of a stranger's in a reason: short."""
    return visible(repr(value), 80)


def some(names: Sequence[str]) -> str:
    """The first six names, and how many there are beyond them."""
    more = f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else ""
    return "; ".join(names[:SHOWN]) + more
