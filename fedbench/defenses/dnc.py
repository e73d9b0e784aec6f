"""Divide and conquer: outliers along the direction in which the gradients vary most."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field

from fedbench.defenses.robust import ASSUMES_SHARE, GIVEN, ShareParameters, WeightingRule
from fedbench.entries.cards import DefenseCard, DefenseFamily


class DivideAndConquer(WeightingRule):
    """``c`` times the mean of the gradients without the floor(b f) that lie farthest out along the top singular vector of the
    centred gradients (Shejwalkar and Houmansadr 2021, algorithm 2).

    Deviation: the original repeats this on random subsets of coordinates, to afford the singular vectors of long
    gradients, and keeps those never removed. Here the projections come exactly, over all coordinates, from the Gram
    matrix: they are its top eigenvector times the root of the eigenvalue. Ties: the lowest client id stays.
    """

    card = DefenseCard(
        name="dnc",
        title="Divide and conquer (DnC)",
        paper="Shejwalkar and Houmansadr, NDSS 2021",
        family=DefenseFamily.AGGREGATION,
        knowledge=frozenset({GIVEN}),
        assumes=ASSUMES_SHARE,
        notes="General federated learning; not measured on recommenders before. Times the number of gradients.",
    )

    class Params(ShareParameters):
        """Parameters."""

        scope: Literal["item", "client"] = Field(
            "client", description="rule over whole updates [paper], or over an item's rows"
        )
        filter_fraction: float = Field(1.0, gt=0, le=1, description="b, removed for each assumed attacker [paper: 1]")

    params: DivideAndConquer.Params
    chooses = True

    def factors(self, gram: torch.Tensor, there: torch.Tensor, count: torch.Tensor, f: torch.Tensor) -> torch.Tensor:
        factors = torch.ones_like(gram[:, :, 0])
        removed = torch.floor(self.params.filter_fraction * f + 1e-9).long()
        acts = (removed > 0).nonzero().squeeze(1)
        if not len(acts):
            return factors
        gram, there, count, removed = gram[acts].double(), there[acts], count[acts], removed[acts]
        mask = there.to(gram.dtype)
        mean = (gram.sum(2) / count[:, None]) * mask
        middle = mean.sum(1) / count
        centred = gram - mean[:, :, None] - mean[:, None, :] + middle[:, None, None]
        centred = centred * mask[:, :, None] * mask[:, None, :]
        top = torch.linalg.eigh(centred).eigenvectors[:, :, -1]
        outlying = top.square().masked_fill_(~there, -1.0)
        place = torch.argsort(torch.argsort(outlying, dim=1, stable=True), dim=1)
        width = there.shape[1]
        # Padding comes first, then the gradients that stay, then the outliers.
        kept = place < width - removed[:, None]
        factors[acts] = (kept * (count / (count - removed))[:, None]).to(factors.dtype)
        return factors
