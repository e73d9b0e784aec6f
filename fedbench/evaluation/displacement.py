"""Who is shown a target, as a record keeps it, and how many of them no longer are when an attack demotes it.

Where a target stands in a list is one character for each genuine user, by id: ``0`` to ``t`` the places of the longest list
that is measured, 0 being the first, ``-`` a place beyond it, ``.`` for users who do not count (compromised, or who have the
target already).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

PLACES = "0123456789abcdefghijklmnopqrst"
BEYOND, UNCOUNTED = "-", "."
SYMBOLS = frozenset(PLACES + BEYOND + UNCOUNTED)
_CODES = np.frombuffer((PLACES + BEYOND + UNCOUNTED).encode(), np.uint8)


def places_text(rank: npt.NDArray[np.int64], counted: npt.NDArray[np.bool_]) -> str:
    """One target's ranks, int64 [N] from 0, as text; ``counted``, bool [N]: of whom they count."""
    return _CODES[np.where(counted, rank.clip(max=len(PLACES)), len(PLACES) + 1)].tobytes().decode()


def shown_to(places: str, cutoff: int) -> npt.NDArray[np.bool_]:
    """Who has the target in the first ``cutoff`` places: bool [N]."""
    return np.isin(_codes(places), _CODES[:cutoff])


def counted(places: str) -> npt.NDArray[np.bool_]:
    """Which users count: bool [N]."""
    return _codes(places) != ord(UNCOUNTED)


def displacement_ratio(clean: Sequence[str], attacked: Sequence[str], cutoff: int) -> float | None:
    """DR@K: of the users who would have been shown a target, the share who no longer are; mean over the targets.

    ``DR_t@K = |{u : rank_ut < K in the clean run and not in the attacked one}| / |{u : rank_ut < K in the clean run}|`` over
    the users who count in both runs; targets that the clean run shows to none of them have no part in the mean.

    Args:
        clean, attacked: places of the same targets in the same order, as :func:`places_text` gives them. cutoff: K.

    Returns:
        A fraction in [0, 1]; None where nobody would have been shown any target, or the two are not of the same users and
        targets.
    """
    if len(clean) != len(attacked) or any(len(a) != len(b) for a, b in zip(clean, attacked, strict=True)):
        return None
    shares = []
    for before, after in zip(clean, attacked, strict=True):
        shown = shown_to(before, cutoff) & counted(after)
        if shown.any():
            shares.append(float((shown & ~shown_to(after, cutoff)).sum() / shown.sum()))
    return sum(shares) / len(shares) if shares else None


def _codes(places: str) -> npt.NDArray[np.uint8]:
    return np.frombuffer(places.encode("ascii", "replace"), np.uint8)
