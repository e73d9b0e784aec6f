"""RFA: the geometric median."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field

from fedbench.defenses.robust import ScopeParameters, WeightingRule
from fedbench.entries.cards import DefenseCard, DefenseFamily


class GeometricMedian(WeightingRule):
    """``c * argmin_z sum_i |z - x_i|`` by the smoothed Weiszfeld algorithm (Pillutla et al. 2022, algorithm 2).

    From the mean on, ``z <- sum_i b_i x_i / sum_i b_i`` with ``b_i = 1 / max(nu, |z - x_i|)``. z is always a weighted mean of
    the gradients, so all distances follow from their inner products. Up to half of the gradients can be arbitrary. Where the
    server takes means by numbers of samples, these multiply the final weights [ours; the paper has them within the b_i].
    """

    card = DefenseCard(
        name="rfa",
        title="RFA, the geometric median",
        paper="Pillutla et al., IEEE Transactions on Signal Processing 2022",
        family=DefenseFamily.AGGREGATION,
        notes="General federated learning; not measured on recommenders before. Times the number of gradients.",
    )

    class Params(ScopeParameters):
        """Parameters."""

        scope: Literal["item", "client"] = Field(
            "client", description="rule over whole updates [paper], or over an item's rows"
        )
        iterations: int = Field(3, ge=1, description="steps of the algorithm [paper: 3 are enough]")
        smoothing: float = Field(1e-6, gt=0, description="nu, the least distance [paper: 1e-6]")

    params: GeometricMedian.Params

    def factors(self, gram: torch.Tensor, there: torch.Tensor, count: torch.Tensor, f: torch.Tensor) -> torch.Tensor:
        norms = gram.diagonal(dim1=1, dim2=2)
        weights = there.to(gram.dtype) / count[:, None]
        for _ in range(self.params.iterations):
            towards = torch.bmm(gram, weights[:, :, None]).squeeze(2)
            square = norms - 2 * towards + (weights * towards).sum(1, keepdim=True)
            near = there / square.clamp(min=0).sqrt().clamp(min=self.params.smoothing)
            weights = near / near.sum(1, keepdim=True)
        return weights * count[:, None]
