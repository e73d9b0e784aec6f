"""HiCS: clip every upload, keep a bank of what arrived, and apply only the largest of it, clipped once more."""

from __future__ import annotations

import math
from typing import Literal

import torch
from pydantic import Field, model_validator

from fedbench.defenses.norm_bound import clip_clients
from fedbench.entries.cards import LATER, DefenseCard, DefenseFamily, Parameters
from fedbench.federation.defense import Defense, ServerView
from fedbench.federation.model import PublicParams
from fedbench.federation.server import clip_factor, clip_rows, clipped
from fedbench.federation.updates import Updates

MF_CLIP, NCF_CLIP = 2e-4, 0.02


class HierarchicalClipping(Defense):
    """Hierarchical gradient clipping with sparsified updating (Yuan et al. 2023), as far as it is known.

    State: a bank ``B`` float32 [M, d], zero at first. In every round, with M items and n clients::

        (1) g   <- g min(1, c1 / |g|)                 for every uploaded row
        (2) B_j <- B_j + sum of the rows of item j    (divided by n where the server takes means,
                                                       weighted or not)
        (3) J    = the ceil(k M) items with the largest |B_j|; ties: the lowest item id
        (4) u_j  = B_j min(1, c2 / |B_j|)             for j in J, 0 elsewhere; c2 = mean of |B_j| over J
        (5) the gradient of the items is u; B_j <- 0  for j in J

    Gradients of dense parameters: (1) for every client and tensor (a whole matrix or bias is one vector), then their
    sum or mean; they have no bank.

    A second reading, ``unit = "client"``: in (1) g is a client's whole upload, item rows and dense gradients as one vector.
    A later abstract of the same group speaks of user-level clipping with sparsified updating.

    What is certain: that there are two levels of clipping, a bank, and sparse updates. No text or code of the paper was
    at hand; order, the choice of J, c2 and what becomes of the dense parameters are a reconstruction after its title,
    its abstract and SparseFed (Panda et al., AISTATS 2022: clip, accumulate, apply the largest k, forget what was
    applied). What level 2 cuts off is not given back to the bank. With c1 large, k = 1 and quantile = 1 this is the
    server's own sum or plain mean. Under Adam on the server the step is not sparse: other items move by their momentum.
    """

    card = DefenseCard(
        name="hics",
        title="HiCS: hierarchical gradient clipping with sparsified updating",
        paper="Yuan et al., SIGIR 2023 (Manipulating Federated Recommender Systems)",
        family=DefenseFamily.CLIPPING,
        notes="A reconstruction: the two levels of clipping, the bank and the sparse updates are certain, their exact"
        " form is not (after SparseFed, Panda et al. 2022). Its numbers say nothing of the paper's.",
    )

    class Params(Parameters):
        """Parameters.

        The defaults of ``clip`` are the smallest of 1, 2, 5 x 10^i that cost clean ML-100K less than 2 points of
        HR@10 (protocol icde24, k = 0.1, seeds 0 to 2); ``share`` hardly matters between 0.05 and 0.3.
        """

        clip: float | None = Field(
            None,
            gt=0,
            description=f"c1; None: {MF_CLIP:g} for models without dense parameters (mf), else {NCF_CLIP:g} (ncf) [ours]",
        )
        share: float = Field(0.1, gt=0, le=1, description="k, share of the items that a round updates [ours]")
        unit: Literal["row", "client"] = Field(
            "row",
            description="what (1) clips: each row, or a client's whole upload; the latter needs clip [not known]",
            json_schema_extra=LATER,
        )
        quantile: float | None = Field(
            None,
            ge=0,
            le=1,
            description="c2 as this quantile of the norms over the updated items; 1: not clipped again; None: their mean",
        )

        @model_validator(mode="after")
        def _bound_of_clients(self) -> HierarchicalClipping.Params:
            if self.unit == "client" and self.clip is None:
                raise ValueError("unit = 'client' needs clip: the bounds that None stands for are those of rows")
            return self

    params: HierarchicalClipping.Params

    def __init__(self, params: Parameters) -> None:
        super().__init__(params)
        self.bank: torch.Tensor | None = None

    def aggregate(self, updates: Updates, server: ServerView) -> PublicParams:
        updates = updates.settled()
        bound = self._bound(server)
        share = 1.0 if server.aggregation == "sum" else 1.0 / max(len(updates.clients), 1)
        num_items, size = server.params.items.shape
        whole = self.params.unit == "client"
        updates = clip_clients(updates, bound) if whole else clip_rows(updates, bound)
        total = updates.sum_rows(num_items, size)
        bank = total * share if self.bank is None else self.bank + total * share

        norms = bank.norm(dim=1)
        count = max(1, math.ceil(self.params.share * num_items - 1e-9))
        chosen = torch.sort(norms, descending=True, stable=True).indices[:count]
        largest = norms.index_select(0, chosen)
        taken = bank.index_select(0, chosen)
        factor = (self._second(largest) / largest.clamp(min=torch.finfo(norms.dtype).tiny)).clamp(max=1.0)
        applied = torch.zeros_like(bank).index_copy_(0, chosen, taken * factor[:, None])
        self.bank = bank.index_fill(0, chosen, 0.0)
        if whole:
            dense = {name: share * value for name, value in updates.dense.total().items()}
        else:
            dense = {name: share * _clipped_sum(value, bound) for name, value in updates.dense.stacked().items()}
        return PublicParams(applied, dense if server.params.dense else {})

    def _bound(self, server: ServerView) -> float:
        if self.params.clip is not None:
            return self.params.clip
        return NCF_CLIP if server.params.dense else MF_CLIP

    def _second(self, norms: torch.Tensor) -> torch.Tensor:
        """c2, a scalar, from the norms of the items that are updated."""
        return norms.mean() if self.params.quantile is None else torch.quantile(norms, self.params.quantile)


def _clipped_sum(value: torch.Tensor, bound: float) -> torch.Tensor:
    """The sum of gradients [n, *shape], each clipped as one vector."""
    norms = value.flatten(1).norm(dim=1)
    if bool(norms.isfinite().all()):
        return torch.tensordot(clip_factor(norms, bound), value, dims=1)
    return clipped(value.flatten(1), bound).sum(0).view(value.shape[1:])
