"""Draws that several attacks make, for all clients at once."""

from __future__ import annotations

import torch


def distinct(rows: int, count: int, population: int, generator: torch.Generator) -> torch.Tensor:
    """Uniform subsets of ``{0, ..., population - 1}``, one for each row, without replacement (Floyd's algorithm).

    Step i draws t from ``{0, ..., population - count + i}`` and takes it, or that upper end when t is already taken.
    Memory is ``rows x count``, whatever the population.

    Args:
        rows: how many subsets. count: size of each, at most ``population``.
        generator: on the device of the result.

    Returns:
        int64 [rows, count], in no particular (and not in uniformly random) order.

    Raises:
        ValueError: when ``count`` exceeds ``population``.
    """
    if not 0 <= count <= population:
        raise ValueError(f"{count} distinct numbers cannot be drawn from {population}.")
    uniform = torch.rand(rows, count, generator=generator, device=generator.device, dtype=torch.float64)
    last = torch.arange(population - count, population, device=generator.device)
    drawn = (uniform * (last + 1)).long()
    for step in range(1, count):
        taken = (drawn[:, :step] == drawn[:, step, None]).any(dim=1)
        drawn[:, step] = torch.where(taken, last[step], drawn[:, step])
    return drawn


def outside(taken: torch.Tensor, rank: torch.Tensor) -> torch.Tensor:
    """The numbers of given ranks among those that are not taken: ``r + #{i: p_i - i <= r}`` for sorted p.

    Args:
        taken: int64 [n, k], distinct in each row. rank: int64 [n, r], from 0.

    Returns:
        int64 [n, r]: entry (c, j) is the ``rank[c, j]``-th smallest natural number outside ``taken[c]``.
    """
    gaps = taken.sort(dim=1).values - torch.arange(taken.shape[1], device=taken.device)
    return rank + torch.searchsorted(gaps, rank.contiguous(), right=True)


def others(num_items: int, targets: torch.Tensor) -> torch.Tensor:
    """int64 [M - T]: all items but the targets, ascending."""
    keep = torch.ones(num_items, dtype=torch.bool, device=targets.device)
    keep[targets] = False
    return keep.nonzero().squeeze(1)
