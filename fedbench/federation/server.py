"""What the server does with uploads by itself: clips their rows where the protocol says so, and adds them up."""

from __future__ import annotations

from dataclasses import replace

import torch

from fedbench.federation.model import PublicParams
from fedbench.federation.optimizers import ServerOptimizer
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
    return _aggregate(_weighted(updates, rule), len(params.items), params, rule)


def _weighted(updates: Updates, rule: str) -> Updates:
    if rule != "weighted":
        return updates
    return updates.scaled(updates.weights / updates.weights.sum().clamp(min=torch.finfo(torch.float32).tiny))


def _aggregate(updates: Updates, num_items: int, params: PublicParams, rule: str) -> PublicParams:
    items = updates.sum_rows(num_items, params.items.shape[1])
    dense = dict(updates.dense.total()) if params.dense else {}
    if rule == "mean":
        share = 1.0 / max(len(updates.clients), 1)
        items = items * share
        dense = {name: value * share for name, value in dense.items()}
    return PublicParams(items, dense)


def step(updates: Updates, params: PublicParams, rule: str, optimizer: ServerOptimizer, in_place: bool) -> PublicParams:
    """The public parameters after the step that the cohort's gradient makes (see :func:`aggregate`).

    Args:
        updates: what arrived (after filters). params: before the step. rule: how gradients are added up. optimizer: how the
            server steps.
        in_place: whether the table of items may be changed where it is: the rows of the items that anybody sent, if these
            are few, and the optimizer leaves the others as they are. To the same bits.
    """
    few = updates.touched(len(params.items)) if in_place and optimizer.leaves_others else None
    if few is None:
        return optimizer.step(params, aggregate(updates, params, rule))
    ids, updates = few
    own = replace(params, items=params.items.index_select(0, ids))
    moved = optimizer.step(own, _aggregate(_weighted(updates, rule), len(ids), params, rule))
    if params.items.is_cuda:
        params.items.index_copy_(0, ids, moved.items)
    else:  # twice as fast
        params.items.numpy()[ids.numpy()] = moved.items.numpy()
    return replace(moved, items=params.items)
