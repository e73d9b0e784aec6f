"""Krum, repeated: the winner is taken out and the rest is scored anew, as Bulyan and the published Multi-Krum do it.

One choice depends on the one before, so this is a loop of many small steps over a whole group of items at once. It runs on
the host in numpy, where a small step costs a fraction of one in torch or of a kernel launch.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

Floats = npt.NDArray[np.floating]
Integers = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


def select(distances: torch.Tensor, count: torch.Tensor, f: torch.Tensor, variant: str) -> torch.Tensor:
    """The ``count - 2 f`` winners of Krum repeated on what is left, for every item of a group.

    With c' gradients left, a score is the sum over the c' - f - 2 nearest others, at least one (``definition``; squared
    distances), or over the c' - f nearest (``icde24-code``; distances): over all but the t farthest. When a winner leaves,
    it is taken off the sums in which it counted; gradients that had it among their t farthest are looked at anew.

    Args:
        distances: float [B, C, C], squared, symmetric; behind the first ``count`` of an item there is padding.
        count, f: int64 [B], ``count > 2 f``. variant: of Krum.

    Returns:
        bool [B, C].
    """
    published = variant == "icde24-code"
    counts, attackers = torch.stack([count, f]).cpu().numpy()
    there = np.arange(distances.shape[1]) < counts[:, None]
    own = (distances.sqrt() if published else distances).cpu().numpy()
    winners = _select(own, there, counts, attackers, published)
    return torch.from_numpy(winners).to(distances.device, non_blocking=True)


def _select(distances: Floats, there: Bools, count: Integers, f: Integers, published: bool) -> Bools:
    b, c = there.shape
    t = np.where(f > 0, f - 1 if published else f + 1, 0)
    quota = count - 2 * f
    # With one neighbour to count, the two nearest tie, and only looking at it itself finds them equal to the last bit.
    single_from = np.where(f > 2, c, c if published else count - f - 3)
    others = there[:, :, None] & there[:, None, :]
    others[:, np.arange(c), np.arange(c)] = False
    # -1 is below every distance: what does not count is never among the farthest.
    distances = np.where(others, distances, np.float32(-1))
    rows = distances.reshape(b * c, c)
    score, threshold = _without_farthest(rows, np.repeat(t, c))
    score[~there.ravel()] = np.inf
    threshold[np.repeat(t == 0, c) | ~there.ravel()] = np.inf
    by_item = score.reshape(b, c)
    base = np.arange(b) * c
    chosen = np.zeros((b, c), dtype=bool)
    items = np.arange(b)
    for taken in range(int(quota.max())):
        single = np.flatnonzero((taken >= single_from) & (taken < quota))
        winner = (_by_nearest(by_item, distances, single) if len(single) else by_item).argmin(1)
        chosen[items, winner] |= taken < quota
        place = base + winner
        score[place] = np.inf
        threshold[place] = np.inf
        gone = rows[place].ravel()
        among = gone >= threshold
        score -= np.where(among, 0, gone)
        hit = np.flatnonzero(among)
        if len(hit):
            item = hit // c
            rest = rows[hit]
            rest[np.isinf(by_item[item])] = -1
            score[hit], threshold[hit] = _without_farthest(rest, t[item])
    return chosen


def _without_farthest(rows: Floats, t: Integers) -> tuple[Floats, Floats]:
    """Sum (float64) of each row without its ``t`` largest values, and the smallest of these; -1 stands for none."""
    ordered = np.sort(rows, axis=1)
    c, most = ordered.shape[1], int(t.max())
    edge = ordered[np.arange(len(ordered)), np.minimum(c - t, c - 1)]
    np.maximum(ordered, 0, out=ordered)
    if most:
        ordered[:, c - most :][np.arange(most) >= most - t[:, None]] = 0
    return ordered.sum(1, dtype=np.float64), edge


def _by_nearest(score: Floats, distances: Floats, which: Integers) -> Floats:
    """The scores [B, C] with those of the items ``which`` replaced by the distance to the nearest other one left.

    At most five gradients are left of such an item: f is 1 or 2, and no more than f + 3 are left.
    """
    score = score.copy()
    left = np.isfinite(score[which])
    index = np.argsort(~left, axis=1, kind="stable")[:, :5]
    alive = np.take_along_axis(left, index, axis=1)
    own = distances[which[:, None, None], index[:, :, None], index[:, None, :]]
    nearest = np.where(alive[:, None, :] & (own >= 0), own, np.inf).min(2)
    score[which[:, None], index] = np.where(alive, nearest, np.inf)
    return score
