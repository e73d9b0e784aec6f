"""Training rows of pseudo-users: what an attacker feeds to the model's own local step."""

from __future__ import annotations

import torch

from fedbench.federation.batch import Batch
from fedbench.federation.model import PublicParams, Recommender
from fedbench.models.visual import VisualParams


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


def only(params: PublicParams, ids: torch.Tensor) -> PublicParams:
    """The public parameters with the rows of the items ``ids``, int64 [r], alone, in that order."""
    features = None if params.features is None else params.features.index_select(0, ids)
    return PublicParams(params.items.index_select(0, ids), params.dense, features)


def described(params: PublicParams, rows: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """What the model's logits take of the items ``ids``, int64 [..., r], had they the embeddings ``rows``, [..., r, d].

    float32 [..., r, d], or [..., r, d + F] with the features of their images.
    """
    if params.features is None:
        return rows
    return torch.cat([rows, params.features[ids].expand(*rows.shape[:-1], -1)], dim=-1)


def looked_at(model: Recommender, params: PublicParams) -> PublicParams:
    """The same for the model's logits, with ``z_j = E phi_j`` in the place of features and the identity in that of E.

    For work with E fixed: each product with it then costs d columns and not F. Gradients by E are not those of E.
    Models other than fedbench's own visual ones are left as they are: they may do something else with E.
    """
    if params.features is None or not isinstance(model.params, VisualParams):
        return params
    e = params.dense["E"]
    return PublicParams(params.items, {**params.dense, "E": torch.eye(len(e), device=e.device)}, params.features @ e.T)
