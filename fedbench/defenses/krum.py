"""Krum and Multi-Krum: the gradients that have the nearest neighbours."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field

from fedbench.defenses.coordinates import sort_last
from fedbench.defenses.iterated_krum import select
from fedbench.defenses.robust import ASSUMES_SHARE, GIVEN, ShareParameters, WeightingRule, square_distances
from fedbench.entries.cards import DefenseCard, DefenseFamily

Variant = Literal["definition", "icde24-code"]


class KrumParameters(ShareParameters):
    """Parameters of the Krum family."""

    variant: Variant = Field(
        "definition",
        description="squared distances to the c - f - 2 nearest [definition], or distances, c - f of them; for multi-krum"
        " and bulyan also repeated selection that stands for the c - 2 f selected [ICDE'24 code]",
    )


class Krum(WeightingRule):
    """``c * x_w``, where w has the lowest score: the sum of the squared distances to its c - f - 2 nearest others
    (Blanchard et al. 2017, section 4).

    ``icde24-code``: distances are not squared, and the c - f smallest are summed. At least one neighbour counts. Ties: the
    lowest client id. In item scope an item with two rows gets one of them twice.
    """

    card = DefenseCard(
        name="krum",
        title="Krum",
        paper="Blanchard et al., NeurIPS 2017; by item as in ICDE 2024",
        family=DefenseFamily.AGGREGATION,
        knowledge=frozenset({GIVEN}),
        assumes=ASSUMES_SHARE,
        notes="Times the number of gradients, so that the chosen one stands for their sum.",
    )

    class Params(KrumParameters):
        """Parameters."""

    params: Krum.Params
    chooses = True
    needs = (2, 3)

    def factors(self, gram: torch.Tensor, there: torch.Tensor, count: torch.Tensor, f: torch.Tensor) -> torch.Tensor:
        score = scores(gram, there, count, f, self.params.variant)
        chosen = torch.zeros_like(score).scatter_(1, score.argmin(1, keepdim=True), 1.0)
        return chosen * count[:, None]


class MultiKrum(WeightingRule):
    """``c`` times the mean of the c - f gradients with the lowest scores of Krum (Blanchard et al. 2017, section 6).

    ``icde24-code``: Krum is repeated c - 2 f times, each time without the winners so far, and the winners are summed; with
    c < 4 f + 3 the sum. Ties: the lowest client ids.

    After a filter that leaves rejected clients to look at (``union`` with ``order = "parallel"``), in client scope, the
    scores are over all clients, and whom either of the two drops is left out [AAAI'23 code]; if that is everybody, the
    filter's decision does not count.
    """

    card = DefenseCard(
        name="multi-krum",
        title="Multi-Krum",
        paper="Blanchard et al., NeurIPS 2017; by item as in ICDE 2024",
        family=DefenseFamily.AGGREGATION,
        knowledge=frozenset({GIVEN}),
        assumes=ASSUMES_SHARE,
        notes="Times the number of gradients. By item f = floor(c share) is 0 for items with fewer than 1 / share rows:"
        " there it is the sum.",
    )

    class Params(KrumParameters):
        """Parameters."""

    params: MultiKrum.Params
    sees_rejected = True
    chooses = True
    needs = (2, 3)

    def factors(self, gram: torch.Tensor, there: torch.Tensor, count: torch.Tensor, f: torch.Tensor) -> torch.Tensor:
        if not f.is_cuda and not bool((f > 0).any()):
            return torch.ones_like(gram[:, :, 0])
        if self.params.variant == "icde24-code":
            chosen = select(square_distances(gram), count, f, self.params.variant)
            return torch.where((count >= 4 * f + 3)[:, None], chosen.to(gram.dtype), 1.0)
        score = scores(gram, there, count, f, self.params.variant)
        place = torch.argsort(torch.argsort(score, dim=1, stable=True), dim=1)
        kept = count - f
        return (place < kept[:, None]) * (count / kept)[:, None].to(gram.dtype)


def scores(
    gram: torch.Tensor, there: torch.Tensor, count: torch.Tensor, f: torch.Tensor, variant: Variant
) -> torch.Tensor:
    """Float [B, C]: Krum's score of each gradient, infinite in padding."""
    distances = square_distances(gram)
    if variant == "icde24-code":
        distances = distances.sqrt_()
    nearest = neighbours(count, f, variant)
    ordered = sort_last(distances.masked_fill_(~there[:, None, :], torch.inf))
    # The distance to oneself, 0, comes first and adds nothing.
    counted = torch.arange(ordered.shape[2], device=gram.device) <= nearest[:, None, None]
    return torch.where(counted, ordered, 0.0).sum(2).masked_fill_(~there, torch.inf)


def neighbours(count: torch.Tensor, f: torch.Tensor, variant: Variant) -> torch.Tensor:
    """int64: how many nearest others a score sums up, of ``count - 1``."""
    if variant == "icde24-code":
        return torch.minimum(count - f, count - 1)
    return torch.minimum((count - f - 2).clamp(min=1), count - 1)
