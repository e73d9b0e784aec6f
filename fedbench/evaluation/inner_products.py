"""Ranks in large catalogues where a score is an inner product: only items whose length lets them matter are scored.

By Cauchy and Schwarz ``|u . v| <= |u| |v|``. With items in order of length, longest first, those beyond the first for which
``|u| |v_j| < |u . v|`` are all behind the measured item v if its score is positive, and all ahead of it if it is negative.
Users who need about as many items are taken together; whoever is behind as many items as matter is done.
"""

from __future__ import annotations

import torch

from fedbench.federation.clients import ragged

LARGE = 2**16
"""From so many items on a catalogue is large."""

_USERS, _ITEMS = 512, 2048
"""Scores made at a time: 4 MiB of them."""
_SLACK = 1e-5
"""Relative, of a bound: many times the rounding of an inner product of float32."""


def ranks(
    users: torch.Tensor,
    items: torch.Tensor,
    measured: torch.Tensor,
    starts: torch.Tensor,
    seen: torch.Tensor,
    most: torch.Tensor,
) -> torch.Tensor:
    """How many items that a user has not seen score at least as high as the measured one, which is not counted itself.

    Scores that are equal but for the rounding of float32 may come in either order.

    Args:
        users: float32 [n, d]. items: float32 [M, d], all finite. measured: int64 [n], one item for each user.
        starts: int64 [n + 1], where each user's begin in ``seen``, int64 [P], items without repeats.
        most: int64 [n], from how many on the number does not matter.

    Returns:
        int64 [n]; where it is at least ``most``, the true number is, too.
    """
    n, num_items = len(users), len(items)
    length = items.norm(dim=1)
    order = torch.argsort(length, descending=True, stable=True)
    place = torch.empty_like(order).scatter_(0, order, torch.arange(num_items, device=order.device))
    items, shortest_last = items.index_select(0, order), -length.index_select(0, order)
    own = place.index_select(0, measured)
    level = torch.linalg.vecdot(users, items.index_select(0, own))
    bound = level.abs() * (1 - _SLACK) / users.norm(dim=1).clamp(min=torch.finfo(torch.float32).tiny)
    needed = torch.searchsorted(shortest_last, -bound, right=True)
    result = torch.zeros(n, dtype=torch.int64, device=users.device)
    by_need = torch.argsort(needed)
    for first in range(0, n, _USERS):
        some = by_need[first : first + _USERS]
        # Whoever needs none is in a block with those who need some: to score more than needed changes nothing.
        result[some] = _ranks_of(
            users.index_select(0, some),
            items[: int(needed[some[-1]])],
            num_items,
            own.index_select(0, some),
            level.index_select(0, some)[:, None],
            *_seen(starts, place, seen, some),
            most.index_select(0, some),
        )
    return result


def _seen(
    starts: torch.Tensor, place: torch.Tensor, seen: torch.Tensor, some: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Of the seen items of some users: whose each is, 0 to len(some) - 1, and its place in order of length."""
    index, _, owner = ragged(starts, starts, some)
    return owner, place.index_select(0, seen.index_select(0, index))


def _ranks_of(
    users: torch.Tensor,
    items: torch.Tensor,
    num_items: int,
    own: torch.Tensor,
    level: torch.Tensor,
    owner: torch.Tensor,
    seen: torch.Tensor,
    most: torch.Tensor,
) -> torch.Tensor:
    """The same for a block of b users, of whom ``items`` are those to score: what is beyond them has a known side.

    Args:
        level: float32 [b, 1]. owner, seen: int64 [p], of the seen items.
    """
    scored = len(items)
    behind = (level.squeeze(1) < 0).long()
    known = owner.new_zeros(len(users))
    inside = seen < scored
    # The measured item may be a seen one, too: it is not counted, so it is not to be subtracted.
    other = seen != own.index_select(0, owner)
    owner_in, seen_in = owner[inside & other], seen[inside & other]
    high = torch.linalg.vecdot(users.index_select(0, owner_in), items.index_select(0, seen_in)) >= level.squeeze(
        1
    ).index_select(0, owner_in)
    known.index_add_(0, owner_in, high.long())
    outside = (num_items - scored) - torch.zeros_like(known).index_add_(0, owner, (~inside & other).long())
    ahead = behind * (outside - (own >= scored).long()) - known
    active = torch.arange(len(users), device=users.device)
    for start in range(0, scored, _ITEMS):
        part = items[start : start + _ITEMS]
        scores = users @ part.T
        column = own - start
        here = ((column >= 0) & (column < len(part))).nonzero().squeeze(1)
        scores[here, column[here]] = -torch.inf
        # Comparisons are written and summed as floats: faster than bools, and exact.
        ahead.index_add_(0, active, torch.ge(scores, level, out=scores).sum(1).long())
        left = ahead.index_select(0, active) < most
        if start + _ITEMS < scored and int(left.sum()) < len(active) // 2:
            users, own, level, most = users[left], own[left], level[left], most[left]
            active = active[left]
            if not len(active):
                break
    return ahead
