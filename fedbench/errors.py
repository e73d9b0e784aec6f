"""The named exceptions of fedbench. Every message is one line: what is wrong, where, and what instead."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class FedbenchError(Exception):
    """Base of all errors that fedbench raises on purpose."""

    exit_code = 1


class UserError(FedbenchError):
    """Raised when what a user asked for cannot be done as asked: a wrong name, key, value, file or combination."""

    exit_code = 2


class DataError(UserError):
    """Raised when a dataset is missing, malformed, or fails its checksum."""


class ResultsError(UserError):
    """Raised when results cannot be read or written where the user pointed."""


class ThreatModelViolation(FedbenchError):
    """Raised when an attack reaches for something that its card does not declare."""


class Diverged(FedbenchError):
    """Raised inside a run when a parameter is no longer finite; the run ends with status ``diverged``."""


def unknown(kind: str, name: str, known: Iterable[str], hint: str = "") -> UserError:
    """The error for a name that is not in a list: names the close matches, or everything when there are none.

    Args:
        kind: what was looked up, for example ``"attack"``.
        name: the name that was not found.
        known: the names that exist.
        hint: a closing sentence, for example which command lists them.
    """
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.6)
    # Of a name and variants of it that are further off the name will do.
    close = [each for place, each in enumerate(near) if not any(each.startswith(f"{x}-") for x in near[:place])]
    close = close or [each for each in names if name in each.split("_")][:3]  # `ratio` of malicious_ratio
    close = close or [each for each in names if name == "".join(word[:1] for word in each.split("_"))]  # `lr`
    if close:
        instead = f"Did you mean {' or '.join(repr(c) for c in close)}?"
    else:
        instead = f"Known: {', '.join(names)}." if names else "None are known."
    return UserError(" ".join(part for part in (f"Unknown {kind} {name!r}.", instead, hint) if part))


def missing_extra(extra: str, what: str) -> UserError:
    """The error for something that needs packages of an extra which is not installed.

    Args:
        extra: its name in ``pyproject.toml``. what: what needs it, such as ``"defense 'jpeg'"``.
    """
    return UserError(
        f"{what} needs packages that are not installed: pip install '.[{extra}]' in a checkout of fedbench."
    )
