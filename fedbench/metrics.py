"""Ranking metrics: exposure, hit ratio, NDCG, recall and precision, without sampling noise.

A rank is the number of competitors that score at least as high as the measured item: ties count against it, so an
untrained model whose scores are all equal has ER = HR = 0. All results are fractions in [0, 1].
"""

from __future__ import annotations

import torch

CUTOFFS = (5, 10, 20)
EXPOSURE_CUTOFFS = (5, 10, 20, 30)


def hits(rank: torch.Tensor, cutoff: int) -> torch.Tensor:
    """1 where the item is in the top ``cutoff``, else 0: float64 [n]. rank: int64 [n], 0 is best."""
    return (rank < cutoff).double()


def discounted_gain(rank: torch.Tensor, cutoff: int) -> torch.Tensor:
    """``1 / log2(2 + rank)`` inside the top ``cutoff``, else 0: NDCG@K of one relevant item. float64 [n]."""
    return hits(rank, cutoff) / torch.log2(2.0 + rank.double())


def sampled_rank_distribution(above: torch.Tensor, pool: torch.Tensor, negatives: int, places: int) -> torch.Tensor:
    """Chance of each rank among the held-out item and a sample of negatives, exactly.

    ``P[X = x]``, X ~ Hypergeometric(pool, above, negatives): a sample without repetition of ``negatives`` out of
    ``pool`` items holds x of the ``above`` items that score at least as high. When the pool is smaller than the sample,
    all of it is taken.

    Args:
        above, pool: int64 [n]. negatives: sample size. places: how many ranks, from 0.

    Returns:
        float64 [n, places].
    """
    count = torch.minimum(pool, torch.full_like(pool, negatives))[:, None]
    top = int(pool.max()) + 2 if len(pool) else 2
    log_factorial = torch.lgamma(torch.arange(top, dtype=torch.float64, device=pool.device) + 1.0)
    x = torch.arange(places, device=pool.device)[None]
    above, rest = above[:, None], (pool - above)[:, None]
    missing = count - x
    possible = (x <= above) & (missing >= 0) & (missing <= rest)

    def log_choose(n: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
        k = torch.where(possible, k, 0)
        return log_factorial[n] - log_factorial[k] - log_factorial[n - k]

    ones = torch.ones_like(x)
    logs = log_choose(above, x * ones) + log_choose(rest, missing) - log_choose(pool[:, None], count * ones)
    return torch.where(possible, logs.exp(), 0.0)


def expected_hits(distribution: torch.Tensor, cutoff: int) -> torch.Tensor:
    """HR@K against sampled negatives in expectation: ``P[X <= K - 1]``, for a distribution float64 [n, >= K]; [n]."""
    return distribution[:, :cutoff].sum(1)


def expected_gain(distribution: torch.Tensor, cutoff: int) -> torch.Tensor:
    """NDCG@K against sampled negatives in expectation: ``sum over x < K of P[X = x] / log2(2 + x)``. Returns [n]."""
    x = torch.arange(cutoff, dtype=torch.float64, device=distribution.device)
    return distribution[:, :cutoff] @ torch.log2(2.0 + x).reciprocal()


def ideal_gain(relevant: torch.Tensor, cutoff: int) -> torch.Tensor:
    """DCG@K of a perfect list: ``sum over r < min(K, relevant) of 1 / log2(2 + r)``, for relevant int64 [n]; [n]."""
    gains = torch.log2(2.0 + torch.arange(cutoff, dtype=torch.float64, device=relevant.device)).reciprocal().cumsum(0)
    return gains[relevant.clamp(1, cutoff) - 1]
