"""Krum, repeated: the winner is taken out and the rest is scored anew, as Bulyan and the published Multi-Krum do it."""

from __future__ import annotations

import torch

from fedbench.defenses.coordinates import sort_last


def select(
    distances: torch.Tensor, there: torch.Tensor, count: torch.Tensor, f: torch.Tensor, variant: str
) -> torch.Tensor:
    """The ``count - 2 f`` winners of Krum repeated on what is left, for every item of a group.

    With c' gradients left, a score is the sum over the c' - f - 2 nearest others, at least one (``definition``; squared
    distances), or over the c' - f nearest (``icde24-code``; distances). All others but few count, so what is kept up to
    date is the sum over all of them, and the sum over the t farthest that do not count; when a winner leaves, the latter
    changes only for gradients that had it among their t farthest, which are looked at anew.

    Args:
        distances: float [B, C, C], squared, symmetric. there: bool [B, C]. count, f: int64 [B], ``count > 2 f``.
        variant: of Krum.

    Returns:
        bool [B, C].
    """
    published = variant == "icde24-code"
    if published:
        distances = distances.sqrt()
    b, c = there.shape
    t = f - 1 if published else f + 1
    t = torch.where(f > 0, t, 0)
    columns = torch.arange(c, device=distances.device)
    others = there[:, :, None] & there[:, None, :] & (columns[:, None] != columns)
    # -1 is below every distance: what does not count is never among the farthest.
    distances = distances.masked_fill(~others, -1.0)
    total = torch.where(others, distances, 0.0).sum(2, dtype=torch.float64)
    far, threshold = _farthest(distances, t[:, None].expand(b, c))
    left, chosen = there.clone(), torch.zeros_like(there)
    quota = count - 2 * f
    items = torch.arange(b, device=distances.device)
    for taken in range(int(quota.max())):
        active = taken < quota
        score = (total - far).masked_fill_(~left, torch.inf)
        if not published:
            _nearest_instead(score, distances, left, active & (count - taken - f - 2 < 1))
        winner = score.argmin(1)
        chosen[items, winner] |= active
        left[items, winner] &= ~active
        gone = distances[items, :, winner]
        total -= gone
        hit = (left & active[:, None] & (gone >= threshold) & (t > 0)[:, None]).nonzero(as_tuple=True)
        if len(hit[0]):
            rest = distances[hit].masked_fill_(~left[hit[0]], -1.0)
            far[hit], threshold[hit] = _farthest(rest, t[hit[0]])
    return chosen


def _farthest(distances: torch.Tensor, t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Sum (float64) and smallest of the ``t`` largest values along the last dimension, where -1 stands for none."""
    ordered = sort_last(distances)
    c = ordered.shape[-1]
    place = torch.arange(c, device=ordered.device)
    counted = place >= c - t.unsqueeze(-1)
    total = torch.where(counted, ordered, 0.0).clamp_(min=0).sum(-1, dtype=torch.float64)
    smallest = ordered.gather(-1, (c - t).clamp(max=c - 1).unsqueeze(-1)).squeeze(-1)
    return total, smallest


def _nearest_instead(score: torch.Tensor, distances: torch.Tensor, left: torch.Tensor, few: torch.Tensor) -> None:
    """Score by the nearest other alone where so ``few``, bool [B], are left that no neighbour would count."""
    which = few.nonzero().squeeze(1)
    if len(which):
        alive = left[which]
        pair = alive[:, :, None] & alive[:, None, :] & (distances[which] >= 0)
        nearest = torch.where(pair, distances[which], torch.inf).amin(2).double()
        score[which] = torch.where(alive, nearest, torch.inf)
