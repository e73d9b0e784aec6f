"""Ranking metrics: exposure, hit ratio, NDCG, recall and precision, without sampling noise.

A rank is the number of competitors that score at least as high as the measured item: ties count against it, so an
untrained model whose scores are all equal has ER = HR = 0. All results are fractions in [0, 1], float64.
"""

from __future__ import annotations

import functools

import torch

CUTOFFS = (5, 10, 20)
EXPOSURE_CUTOFFS = (5, 10, 20, 30)


def exposure_ratio(rank: torch.Tensor, counted: torch.Tensor, users: torch.Tensor | int, cutoff: int) -> torch.Tensor:
    """ER@K: the share of users who find the target in their top K of unseen items, mean over the targets.

    ``ER_t@K = |{u in U_t : rank_ut < K}| / |U_t|``, macro average over t (ICDE'24, eq. 3; IJCAI'22, section 3).

    Args:
        rank: [n, T], the target's rank among the user's unseen items. counted: bool [n, T], whether u is in U_t.
        users: the denominators, [T] or one number.
        cutoff: K.

    Returns:
        A scalar; NaN when a denominator is 0.
    """
    return ((hits(rank, cutoff) * counted).sum(0) / users).mean()


def hits(rank: torch.Tensor, cutoff: int) -> torch.Tensor:
    """1 where the item is in the top ``cutoff``, else 0: float64, shaped as ``rank``, in which 0 is best.

    Its mean over users with one held-out item each is HR@K by full ranking. A rank between two places counts as the lower.
    """
    return (rank <= cutoff - 1).double()


def discounted_gain(rank: torch.Tensor, cutoff: int) -> torch.Tensor:
    """``1 / log2(2 + rank)`` inside the top ``cutoff``, else 0: NDCG@K of one relevant item. Shaped as ``rank``."""
    return hits(rank, cutoff) / torch.log2(2.0 + rank.double())


def sampled_rank_distribution(above: torch.Tensor, pool: torch.Tensor, negatives: int, places: int) -> torch.Tensor:
    """Chance of each rank among the held-out item and a sample of negatives, exactly.

    A sample without repetition of n = ``negatives`` out of P = ``pool`` items holds x of the b = ``above`` items that
    score at least as high as the held-out one with hypergeometric chance::

        P[X = x] = C(b, x) C(P - b, n - x) / C(P, n)

    When the pool is smaller than the sample, all of it is taken: n = min(negatives, P). Within 1e-12 of the exact
    fractions.

    Args:
        above, pool: int64 [n], 0 <= above <= pool. negatives: sample size. places: how many ranks, from 0.

    Returns:
        float64 [n, places].
    """
    size = torch.minimum(pool, torch.full_like(pool, negatives))[:, None]
    x = torch.arange(places, device=pool.device)[None]
    above, rest = above[:, None], (pool - above)[:, None]
    missing = size - x
    possible = (x <= above) & (missing >= 0) & (missing <= rest)
    log_choose = _log_choose(negatives, places, pool.device).index_select(0, size.squeeze(1))
    x, missing = torch.where(possible, x, 0), torch.where(possible, missing, 0)
    falling = _log_falling_factorial(int(pool.max()) if len(pool) else 0, max(negatives, places), pool.device)
    # C(b, x) C(P - b, n - x) / C(P, n) in falling factorials: b^(x) (P - b)^(n - x) / P^(n) times C(n, x).
    logs = falling(above, x) + falling(rest, missing) - falling(pool[:, None], size) + log_choose
    return torch.where(possible, logs.exp(), 0.0)


class _LogFallingFactorial:
    """``log(a (a - 1) ... (a - k + 1))`` for 0 <= k <= a <= top and k <= span.

    Sums of logarithms within blocks of ``span``: a product of so few factors crosses at most one block's end. The
    difference of two log-factorials would do in principle, but those are so large that 1e-10 would be lost.
    """

    def __init__(self, top: int, span: int, device: torch.device) -> None:
        self.bits = max(span - 1, 1).bit_length()  # a block's length is a power of two: shifts are cheap, divisions not
        blocks = (top >> self.bits) + 1
        numbers = torch.arange(blocks << self.bits, dtype=torch.float64, device=device).clamp(min=1.0)
        within = numbers.log().view(blocks, -1).cumsum(1)
        self._total = within[:, -1].contiguous()
        self._within = within.flatten()

    def __call__(self, a: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
        low = a - k
        block = low >> self.bits
        crossed = torch.where(a >> self.bits > block, self._total[block], 0.0)
        return self._within[a] - self._within[low] + crossed


@functools.lru_cache(maxsize=8)
def _log_falling_factorial(top: int, span: int, device: torch.device) -> _LogFallingFactorial:
    """The table, made once: every evaluation of a run needs the same one."""
    return _LogFallingFactorial(top, span, device)


@functools.lru_cache(maxsize=8)
def _log_choose(most: int, places: int, device: torch.device) -> torch.Tensor:
    """``log C(n, x)`` for 0 <= n <= most and 0 <= x < places, 0 where x > n: float64 [most + 1, places]."""
    n, x = torch.arange(most + 1)[:, None], torch.arange(places)[None]
    falling = _LogFallingFactorial(max(most, places), max(most, places), torch.device("cpu"))
    within = torch.minimum(x, n)
    return torch.where(x <= n, falling(n.expand_as(within), within) - falling(within, within), 0.0).to(device)


def expected_hits(distribution: torch.Tensor, cutoff: int) -> torch.Tensor:
    """HR@K against sampled negatives in expectation: ``P[X <= K - 1]``, for a distribution float64 [n, >= K]; [n]."""
    return distribution[:, :cutoff].sum(1)


def expected_gain(distribution: torch.Tensor, cutoff: int) -> torch.Tensor:
    """NDCG@K against sampled negatives in expectation: ``sum over x < K of P[X = x] / log2(2 + x)``. Returns [n]."""
    return distribution[:, :cutoff] @ _discounts(cutoff, distribution.device)


def list_ranks(ahead: torch.Tensor, score: torch.Tensor, starts: torch.Tensor, owner: torch.Tensor) -> torch.Tensor:
    """Ranks of several held-out items of the same user: int64 [Q].

    Those of a user are ordered among themselves by score; ties among them need no rule, since any order gives the
    same list of hits and misses.

    Args:
        ahead: int64 [Q], for each held-out item how many unseen items that are not held out score at least as high.
        score: float [Q], of each held-out item.
        starts: int64 [n], where the items of each user begin. owner: int64 [Q], the user of each, ascending.
    """
    order = torch.argsort(score, descending=True, stable=True)
    order = order[torch.argsort(owner[order], stable=True)]
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order), device=order.device) - starts[owner]
    return ahead + place


def list_metrics(
    rank: torch.Tensor, owner: torch.Tensor, relevant: torch.Tensor, cutoff: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Recall@K, precision@K and NDCG@K of each user with several held-out items, float64 [n] each.

    ``recall = hits / relevant``, ``precision = hits / K``, ``NDCG = DCG / ideal DCG`` with gains ``1 / log2(2 + rank)``
    and the ideal over ``min(K, relevant)`` items (IJCAI'22, section 5.1: full ranking).

    Args:
        rank: [Q], of each held-out item. owner: int64 [Q], its user, 0 to n - 1.
        relevant: int64 [n], held-out items of each user; a user without any has recall and NDCG NaN.
        cutoff: K.
    """
    zeros = torch.zeros(len(relevant), dtype=torch.float64, device=rank.device)
    found = zeros.index_add(0, owner, hits(rank, cutoff))
    gain = zeros.index_add(0, owner, discounted_gain(rank, cutoff))
    ideal = torch.cat([zeros.new_zeros(1), _discounts(cutoff, rank.device).cumsum(0)])[relevant.clamp(max=cutoff)]
    return found / relevant, found / cutoff, gain / ideal


def _discounts(cutoff: int, device: torch.device) -> torch.Tensor:
    """``1 / log2(2 + r)`` for r = 0 ... cutoff - 1: float64 [cutoff]."""
    return torch.log2(2.0 + torch.arange(cutoff, dtype=torch.float64, device=device)).reciprocal()
