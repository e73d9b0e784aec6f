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
    t = torch.where(f > 0, f - 1 if published else f + 1, 0)
    quota = count - 2 * f
    steps = int(quota.max())
    # With one neighbour to count, the two nearest tie, and only looking at it itself finds them equal to the last bit.
    single_from = steps if published else int((count - f - 3).masked_fill(f > 2, steps).min())
    others = there[:, :, None] & there[:, None, :]
    others.diagonal(dim1=1, dim2=2).fill_(False)
    # -1 is below every distance: what does not count is never among the farthest.
    distances = distances.masked_fill(~others, -1.0)
    far, threshold = _farthest(distances, t[:, None].expand(b, c))
    # One table, so that a winner leaves both at once: its score becomes infinite, and it no longer takes part.
    state = torch.stack([distances.clamp(min=0).sum(2, dtype=torch.float64) - far, threshold.double()])
    state[1].masked_fill_((t == 0)[:, None], torch.inf)
    state.masked_fill_(~there, torch.inf)
    score, threshold = state
    # Flat views: winners are addressed by (item, gradient) as one number.
    rows, far_of, state_of = distances.view(b * c, c), far.view(-1), state.view(2, -1)
    base = torch.arange(b, device=distances.device) * c
    winners = []
    for taken in range(steps):
        asked = score
        if taken >= single_from:
            asked = _nearest_instead(score, distances, count - taken - f <= 3)
        winner = asked.argmin(1)
        winners.append(winner)
        place = base + winner
        state_of.index_fill_(1, place, torch.inf)
        gone = rows.index_select(0, place).view(b, c)
        score -= gone
        hit = (gone >= threshold).view(-1).nonzero().squeeze(1)
        if len(hit):
            item = hit // c
            rest = rows.index_select(0, hit).masked_fill_(score.index_select(0, item).isinf(), -1.0)
            before = far_of.index_select(0, hit)
            now, edge = _farthest(rest, t.index_select(0, item))
            far_of.index_copy_(0, hit, now)
            state_of[0].index_add_(0, hit, before - now)
            state_of[1].index_copy_(0, hit, edge.double())
    order = torch.stack(winners, dim=1)
    counted = torch.arange(steps, device=order.device) < quota[:, None]
    return torch.zeros(b, c, dtype=torch.int64, device=order.device).scatter_add_(1, order, counted.long()) > 0


def _farthest(distances: torch.Tensor, t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Sum (float64) and smallest of the ``t`` largest values along the last dimension, where -1 stands for none."""
    ordered = sort_last(distances)
    c = ordered.shape[-1]
    place = torch.arange(c, device=ordered.device)
    counted = place >= c - t.unsqueeze(-1)
    total = torch.where(counted, ordered, 0.0).clamp_(min=0).sum(-1, dtype=torch.float64)
    smallest = ordered.gather(-1, (c - t).clamp(max=c - 1).unsqueeze(-1)).squeeze(-1)
    return total, smallest


def _nearest_instead(score: torch.Tensor, distances: torch.Tensor, few: torch.Tensor) -> torch.Tensor:
    """The scores with those of the items ``few``, bool [B], replaced by the distance to the nearest other.

    At most five gradients are left of such an item: f is 1 or 2, and f + 3 or fewer are left.
    """
    which = few.nonzero().squeeze(1)
    if not len(which):
        return score
    own_score = score.index_select(0, which)
    alive, index = own_score.isfinite().to(torch.int8).topk(min(5, score.shape[1]), dim=1)
    c = distances.shape[2]
    pair = (which * c * c)[:, None, None] + index[:, :, None] * c + index[:, None, :]
    own = distances.view(-1).index_select(0, pair.flatten()).view(pair.shape)
    counted = (alive[:, None, :] > 0) & (own >= 0)
    nearest = torch.where(counted, own, torch.inf).amin(2).to(score.dtype)
    replaced = own_score.scatter_(1, index, torch.where(alive > 0, nearest, torch.inf))
    return score.index_copy(0, which, replaced)
