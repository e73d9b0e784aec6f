"""Whether numbers form one cluster or two: exact 1-D k-means and the gap statistic (Tibshirani et al. 2001)."""

from __future__ import annotations

import math

import torch


def dispersion(ordered: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Within-cluster sums of squares of the best single cluster and of the best two, exactly.

    In one dimension the best two clusters are a prefix and a suffix of the sorted values; prefix sums give all splits.

    Args:
        ordered: float64 [B, n], ascending, n >= 2.

    Returns:
        W_1 and W_2, float64 [B], and the size of the prefix, int64 [B] (the smallest of equal ones).
    """
    n = ordered.shape[1]
    x = ordered - ordered.mean(1, keepdim=True)
    sums, squares = x.cumsum(1), x.square().cumsum(1)
    k = torch.arange(1, n, device=x.device, dtype=x.dtype)
    left = squares[:, :-1] - sums[:, :-1].square() / k
    right = (squares[:, -1:] - squares[:, :-1]) - (sums[:, -1:] - sums[:, :-1]).square() / (n - k)
    both, split = (left + right).clamp(min=0).min(1)
    one = (squares[:, -1] - sums[:, -1].square() / n).clamp(min=0)
    return one, torch.minimum(both, one), split + 1


def two_clusters(
    values: torch.Tensor, references: int, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """The smaller of two clusters of ``values``, and whether the gap statistic says that there is more than one.

    ``gap_k = mean(log W_k*) - log W_k`` over ``references`` sets of as many uniform numbers; with ``s_2 = std(log W_2*)
    sqrt(1 + 1 / B)`` there is more than one cluster if ``gap_1 < gap_2 - s_2``. Values are scaled to [0, 1] first, the
    references are not [AAAI'23 code]; the same ones serve both k [code: others for each]. All equal: one cluster.

    Args:
        values: float64 [n], n >= 2. references: B. generator: of the reference sets.

    Returns:
        bool [n], the members of the smaller cluster (of equal ones, that with the smaller values; none when all values
        are equal), and a bool scalar.
    """
    n = len(values)
    low, high = values.min(), values.max()
    spread = high - low
    ordered, order = torch.sort((values - low) / torch.where(spread > 0, spread, 1.0))
    one, two, split = dispersion(ordered[None])
    drawn = torch.rand(references, n, generator=generator, device=generator.device, dtype=values.dtype)
    drawn_one, drawn_two, _ = dispersion(torch.sort(drawn.to(values.device), dim=1).values)
    log_two = drawn_two.log()
    gap_one = drawn_one.log().mean() - one[0].log()
    gap_two = log_two.mean() - two[0].log()
    deviation = log_two.std(correction=0) * math.sqrt(1 + 1 / references)
    rank = torch.empty_like(order).scatter_(0, order, torch.arange(n, device=order.device))
    prefix = rank < split[0]
    minor = torch.where(2 * split[0] <= n, prefix, ~prefix)
    return minor & (spread > 0), (gap_one < gap_two - deviation) & (spread > 0)
