"""The cluster that HDBSCAN finds when a cluster must hold more than half of the points."""

from __future__ import annotations

import numpy as np
import torch


def densest_majority(distances: torch.Tensor, there: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
    """Bool [B, C]: of each set of points, those that HDBSCAN labels as the one cluster.

    HDBSCAN (Campello et al. 2013) with ``min_cluster_size = c // 2 + 1``, ``min_samples = 1`` and one cluster allowed, as
    FLAME sets it, reduces to the tree of single linkage. A point's core distance is that to its nearest other one, so
    mutual reachability is the distance itself. No two clusters of more than half fit into one, so no split of the tree
    makes two: the root is the only cluster, smaller branches fall off it, and labelled are the points that are still
    in it where it falls to pieces. With h the smallest distance at which points no farther apart than h hang together
    more than half in number, these are what hangs together at h. There is always such a set, and only one.

    Prim's algorithm finds h without the tree: in the order in which it takes the points, what hangs together at h stands
    side by side, split where the edge to the next point is longer than h. So h is the least over all runs of c // 2 edges
    of their longest edge. All sets at once, in C small steps on the host.

    Args:
        distances: float64 [B, C, C], symmetric; below 0 counts as 0. there: bool [B, C], False behind the first ``count``.
        count: int64 [B], 2 or more.
    """
    apart = distances.clamp(min=0).masked_fill(~there[:, None, :], torch.inf).cpu().numpy()
    c = count.cpu().numpy()[:, None]
    b, width, _ = apart.shape
    sets = np.arange(b)
    order = np.zeros((b, width), dtype=np.int64)
    edge = np.full((b, width), np.inf)
    taken = np.zeros((b, width))
    taken[:, 0] = np.inf
    nearest = apart[:, 0].copy()
    for step in range(1, width):
        reach = nearest + taken
        point = reach.argmin(1)
        order[:, step], edge[:, step] = point, reach[sets, point]
        taken[sets, point] = np.inf
        np.minimum(nearest, apart[sets, point], out=nearest)
    # Edge k leads to the k-th point. Every run of c // 2 edges reaches into the first c // 2 of them, or follows on them.
    place, half = np.arange(width), c // 2
    order = np.where(place < c, order, place)
    behind = np.maximum.accumulate(np.where((place > 0) & (place <= half), edge, 0)[:, ::-1], axis=1)[:, ::-1]
    ahead = np.maximum.accumulate(np.where(place > half, edge, 0), axis=1)
    last = place + half - 1
    longest = np.maximum(behind, np.take_along_axis(ahead, np.minimum(last, width - 1), axis=1))
    longest[(place < 1) | (last > c - 1)] = np.inf
    first = longest.argmin(1)
    runs = (edge > longest[sets, first][:, None]).cumsum(1)
    together = (runs == runs[sets, first][:, None]) & (place < c)
    kept = np.zeros((b, width), dtype=bool)
    np.put_along_axis(kept, order, together, axis=1)
    return torch.from_numpy(kept).to(distances.device, non_blocking=True) & there
