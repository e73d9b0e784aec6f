"""What the server does with uploads by itself: clips their rows where the protocol says so, and adds them up."""

from __future__ import annotations

from dataclasses import replace

import torch

from fedbench.federation.model import PublicParams
from fedbench.federation.rows import FullRows, Rows
from fedbench.federation.updates import Updates


def clip_rows(updates: Updates, bound: float) -> Updates:
    """Every uploaded row r as ``r * min(1, bound / |r|)`` (ICDE'22 code: the server's ``grad_limit``)."""
    updates = updates.explicit()
    return replace(updates, rows=tuple(_clipped_rows(block, bound) for block in updates.rows))


def _clipped_rows(block: Rows, bound: float) -> Rows:
    norms = block.norms()
    if not norms.is_cuda and bool(norms.isfinite().all()):  # for that a GPU would have to be waited for
        return block.scaled(clip_factor(norms, bound))
    return FullRows(block.client, block.item, clipped(block.grad(), bound))


def clipped(values: torch.Tensor, bound: float) -> torch.Tensor:
    """Vectors x [..., d] as ``x * min(1, bound / |x|)``, also where ``|x|^2`` is beyond float32; 0 where x is not finite."""
    norms = values.norm(dim=-1, keepdim=True)
    plain = values * clip_factor(norms, bound)
    if not norms.is_cuda and bool(norms.isfinite().all()):
        return plain
    finite = torch.where(values.isfinite().all(-1, keepdim=True), values, 0.0)
    direction = finite / finite.abs().amax(-1, keepdim=True).clamp(min=torch.finfo(values.dtype).tiny)
    # The norm of a direction whose largest part is 1 is 1 at least.
    return torch.where(
        norms.isfinite(), plain, direction * (bound / direction.norm(dim=-1, keepdim=True).clamp(min=1.0))
    )


def clip_factor(norms: torch.Tensor, bound: float) -> torch.Tensor:
    """``min(1, bound / norm)``, 1 for a norm of 0."""
    return (bound / norms.clamp(min=torch.finfo(norms.dtype).tiny)).clamp(max=1.0)


def aggregate(updates: Updates, params: PublicParams, rule: str) -> PublicParams:
    """The cohort's gradient: the sum of its clients' gradients, or a mean over all n clients.

    Args:
        updates: what arrived (after filters). params: for the shapes.
        rule: ``"sum"``, ``"mean"``, or ``"weighted"``, the mean weighted by the clients' numbers of samples.
    """
    if rule == "weighted":
        updates = updates.scaled(updates.weights / updates.weights.sum().clamp(min=torch.finfo(torch.float32).tiny))
    num_items, size = params.items.shape
    items = updates.sum_rows(num_items, size)
    dense = dict(updates.dense.total()) if params.dense else {}
    if rule == "mean":
        share = 1.0 / max(len(updates.clients), 1)
        items = items * share
        dense = {name: value * share for name, value in dense.items()}
    return PublicParams(items, dense)
