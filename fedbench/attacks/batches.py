"""Training rows of pseudo-users: what an attacker feeds to the model's own local step."""

from __future__ import annotations

import torch

from fedbench.federation.batch import Batch


def regular_batch(item: torch.Tensor, positive: torch.Tensor) -> Batch:
    """A batch in which every one of n users has the same number r of samples.

    Args:
        item: int64 [n, r], rows of the item table that goes with the batch.
        positive: float32 [n, r], the labels.
    """
    n, r = item.shape
    index = torch.arange(n, device=item.device)
    return Batch(
        clients=index,
        starts=torch.arange(n + 1, device=item.device) * r,
        client=index.repeat_interleave(r),
        item=item.reshape(-1),
        weight=torch.ones_like(positive).reshape(-1),
        positive=positive.reshape(-1),
        size=positive.new_full((n,), float(r)),
    )
