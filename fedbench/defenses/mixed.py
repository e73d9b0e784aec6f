"""Mixed aggregation: mostly the geometric median, and a little of the mean."""

from __future__ import annotations

import torch
from pydantic import Field

from fedbench.defenses.rfa import GeometricMedian
from fedbench.entries.cards import DefenseCard, DefenseFamily


class MixedAggregation(GeometricMedian):
    """``c (a z + (1 - a) mean_i x_i)``, where z is the geometric median of :class:`GeometricMedian` and a = 0.7
    (Qin et al. 2024, the defense that they set against DV-FSR; "mixagg" in their code).

    The mean keeps what few clients send and a median drops; in return an attacker moves the result without limit, at
    1 - a of what it moves the mean. As in rfa, numbers of samples multiply the final weights where the server averages by
    them; in the authors' code they stand within the steps to the median, and the mean has none.
    """

    card = DefenseCard(
        name="mixed",
        title="Mixed aggregation: geometric median and mean",
        paper="Qin et al., 2024 (DV-FSR, arXiv 2409.07500)",
        family=DefenseFamily.AGGREGATION,
        notes="Made for sequential recommenders. What an attacker sends is weakened, not bounded. Times the number of"
        " gradients.",
    )

    class Params(GeometricMedian.Params):
        """Parameters."""

        median_share: float = Field(0.7, ge=0, le=1, description="a, the median's part [code]; 1: rfa, 0: the mean")
        iterations: int = Field(4, ge=1, description="steps of Weiszfeld's algorithm [code]")
        smoothing: float = Field(1e-5, gt=0, description="nu, the least distance [code]")

    params: MixedAggregation.Params

    def factors(self, gram: torch.Tensor, there: torch.Tensor, count: torch.Tensor, f: torch.Tensor) -> torch.Tensor:
        share = self.params.median_share
        return share * super().factors(gram, there, count, f) + (1 - share)
