"""FoolsGold: clients whose uploads point the same way count less."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field

from fedbench.defenses.robust import ScopeParameters, WeightingRule
from fedbench.entries.cards import DefenseCard, DefenseFamily


class FoolsGold(WeightingRule):
    """``sum_i a_i x_i``, with a factor a_i from 0 to 1 that is small where another gradient is similar (Fung et al. 2020,
    algorithm 1).

    With the cosines s_ik and ``m_i = max_k s_ik``: ``s_ik <- s_ik m_i / m_k`` where ``m_k > m_i`` (pardoning),
    ``a_i = 1 - max_k s_ik`` cut to [0, 1], divided by its maximum, then ``a_i <- kappa (ln(a_i / (1 - a_i)) + 0.5)`` cut to
    [0, 1].

    Deviation: the cosines are those of the round's uploads; the original sums each client's uploads over all rounds,
    which a server that samples a cohort rarely holds and which costs N M d memory. Zero gradients are similar to nobody.
    """

    card = DefenseCard(
        name="foolsgold",
        title="FoolsGold",
        paper="Fung et al., RAID 2020",
        family=DefenseFamily.AGGREGATION,
        notes="Made against sybils, which injected clients are. General federated learning; not measured on recommenders"
        " before. Without memory of earlier rounds.",
    )

    class Params(ScopeParameters):
        """Parameters."""

        scope: Literal["item", "client"] = Field(
            "client", description="rule over whole updates [paper], or over an item's rows"
        )
        confidence: float = Field(1.0, gt=0, description="kappa, steepness of the logit [paper: 1]")

    params: FoolsGold.Params

    def factors(self, gram: torch.Tensor, there: torch.Tensor, count: torch.Tensor, f: torch.Tensor) -> torch.Tensor:
        lengths = gram.diagonal(dim1=1, dim2=2).clamp(min=0).sqrt()
        inverse = torch.where(lengths > 0, 1 / lengths, 0.0)
        cosines = gram * inverse[:, :, None] * inverse[:, None, :]
        others = there[:, :, None] & there[:, None, :]
        others.diagonal(dim1=1, dim2=2).fill_(False)
        cosines = cosines.masked_fill_(~others, 0.0).clamp_(-1.0, 1.0)
        most = cosines.amax(2).clamp_(min=torch.finfo(gram.dtype).eps)
        pardon = (most[:, :, None] / most[:, None, :]).clamp_(max=1.0)
        value = (1 - (cosines * pardon).amax(2)).clamp_(0.0, 1.0).masked_fill_(~there, 0.0)
        best = value.amax(1, keepdim=True)
        value = torch.where(best > 0, value / best.clamp(min=torch.finfo(gram.dtype).tiny), 0.0).clamp_(max=0.99)
        return (self.params.confidence * (torch.log(value / (1 - value)) + 0.5)).clamp_(0.0, 1.0)
