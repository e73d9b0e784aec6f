"""The server: what it does with the uploads when no defense decides otherwise, and its step."""

from __future__ import annotations

from dataclasses import replace

import torch

from fedbench.federation.updates import Updates
from fedbench.models.base import PublicParams


def clip_rows(updates: Updates, bound: float) -> Updates:
    """Every uploaded row r as ``r * min(1, bound / |r|)`` (ICDE'22 code: the server's ``grad_limit``)."""
    return replace(updates, rows=tuple(block.scaled(clip_factor(block.norms(), bound)) for block in updates.rows))


def clip_factor(norms: torch.Tensor, bound: float) -> torch.Tensor:
    """``min(1, bound / norm)``, 1 for a norm of 0."""
    return (bound / norms.clamp(min=torch.finfo(norms.dtype).tiny)).clamp(max=1.0)


def aggregate(updates: Updates, params: PublicParams, rule: str) -> PublicParams:
    """The cohort's gradient: the sum of its clients' gradients, or the mean over all n clients.

    Args:
        updates: what arrived (after filters). params: for the shapes. rule: ``"sum"`` or ``"mean"``.
    """
    num_items, size = params.items.shape
    items = updates.sum_rows(num_items, size)
    dense = dict(updates.dense.total()) if params.dense else {}
    if rule == "mean":
        share = 1.0 / max(len(updates.clients), 1)
        items = items * share
        dense = {name: value * share for name, value in dense.items()}
    return PublicParams(items, dense)


def step(params: PublicParams, gradient: PublicParams, learning_rate: float) -> PublicParams:
    """One step of gradient descent on the public parameters."""
    return PublicParams(
        torch.sub(params.items, gradient.items, alpha=learning_rate),
        {name: torch.sub(value, gradient.dense[name], alpha=learning_rate) for name, value in params.dense.items()},
    )
