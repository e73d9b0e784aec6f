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


def exposed(places: Sequence[str], cutoff: int, among: npt.NDArray[np.bool_]) -> float | None:
    """ER@K among some of the users: the share of those who count to whom a target is shown, mean over the targets.

    Args:
        places: of the targets. cutoff: K. among: bool [N], which users.

    Returns:
        A fraction in [0, 1]; None where nobody of them counts for a target.
    """
    shares = []
    for each in places:
        users = counted(each) & among
        if not users.any():
            return None
        shares.append(float((shown_to(each, cutoff) & users).sum() / users.sum()))
    return sum(shares) / len(shares) if shares else None


def by_subgroup(places: Sequence[str] | None, users: Sequence[int], lengths: Sequence[int]) -> dict[str, float | None]:
    """ER@K inside and outside of a subgroup as ``er_in_K`` and ``er_out_K``; all None without ``places``.

    Args:
        places: of the targets. users: ids of the subgroup. lengths: every K.
    """
    out: dict[str, float | None] = {}
    for k in lengths:
        inside, outside = None, None
        if places:
            among = np.isin(np.arange(len(places[0])), users)
            inside, outside = exposed(places, k, among), exposed(places, k, ~among)
        out |= {f"er_in_{k}": inside, f"er_out_{k}": outside}
    return out


def _codes(places: str) -> npt.NDArray[np.uint8]:
    return np.frombuffer(places.encode("ascii", "replace"), np.uint8)
