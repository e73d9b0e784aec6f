"""FoolsGold: clients whose uploads point the same way count less."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field, model_validator

from fedbench.defenses.robust import ScopeParameters, WeightingRule
from fedbench.entries.cards import LATER, DefenseCard, DefenseFamily, Parameters
from fedbench.errors import UserError
from fedbench.federation.model import PublicParams
from fedbench.federation.updates import Updates

MOST = 4 << 30
"""Bytes that the sums of all clients may take."""


class FoolsGold(WeightingRule):
    """``sum_i a_i x_i``, with a factor a_i from 0 to 1 that is small where another gradient is similar (Fung et al. 2020,
    algorithm 1).

    With the cosines s_ik and ``m_i = max_k s_ik``: ``s_ik <- s_ik m_i / m_k`` where ``m_k > m_i`` (pardoning),
    ``a_i = 1 - max_k s_ik`` cut to [0, 1], divided by its maximum, then ``a_i <- kappa (ln(a_i / (1 - a_i)) + 0.5)`` cut to
    [0, 1].

    The original compares what each client has uploaded in all rounds so far, summed: ``memory``, over whole updates. It
    costs the server (M d + dense) numbers for each client that it has seen, 4 GiB at most. By default the cosines are
    those of the round's uploads alone. Zero gradients are similar to nobody.
    """

    card = DefenseCard(
        name="foolsgold",
        title="FoolsGold",
        paper="Fung et al., RAID 2020",
        family=DefenseFamily.AGGREGATION,
        notes="Made against sybils, which injected clients are. General federated learning; not measured on recommenders"
        " before.",
    )

    class Params(ScopeParameters):
        """Parameters."""

        scope: Literal["item", "client"] = Field(
            "client", description="rule over whole updates [paper], or over an item's rows"
        )
        confidence: float = Field(1.0, gt=0, description="kappa, steepness of the logit [paper: 1]")
        memory: bool = Field(
            False, description="compare sums over all rounds so far [paper: yes]", json_schema_extra=LATER
        )

        @model_validator(mode="after")
        def _whole_updates(self) -> FoolsGold.Params:
            if self.memory and self.scope != "client":
                raise ValueError("memory is of whole updates: it needs scope = 'client'")
            return self

    params: FoolsGold.Params

    def __init__(self, params: Parameters) -> None:
        super().__init__(params)
        self._places: dict[int, int] = {}
        self._sums: PublicParams | None = None

    def gram(self, updates: Updates, empty: PublicParams) -> torch.Tensor:
        if not self.params.memory:
            return super().gram(updates, empty)
        ids = updates.clients.tolist()
        places = torch.tensor(
            [self._places.setdefault(each, len(self._places)) for each in ids], device=updates.clients.device
        )
        sums = self._room(empty)
        for block in updates.rows:
            sums.items.index_put_((places[block.client], block.item), block.grad(), accumulate=True)
        for name, value in updates.dense.stacked().items():
            sums.dense[name].index_add_(0, places, value)
        gram = torch.zeros(len(ids), len(ids), dtype=torch.float64, device=places.device)
        ordered = places[torch.argsort(updates.clients)]
        for value in (sums.items, *sums.dense.values()):
            own = value.index_select(0, ordered).flatten(1)
            gram += own @ own.T
        return gram

    def _room(self, empty: PublicParams) -> PublicParams:
        """The sums, with a place for every client that has been seen."""
        before, wanted = self._sums, len(self._places)
        if before is not None and len(before.items) >= wanted:
            return before
        count = max(wanted, 0 if before is None else 2 * len(before.items))
        size = sum(value.nbytes for value in (empty.items, *empty.dense.values()))
        if wanted * size > MOST:
            raise UserError(
                f"defense 'foolsgold' with memory = true: the sums of {wanted:,} clients take more than {MOST >> 30} GiB;"
                " use memory = false."
            )
        count = min(count, MOST // size)

        def grown(value: torch.Tensor, like: torch.Tensor | None) -> torch.Tensor:
            room = value.new_zeros(count, *value.shape)
            if like is not None:
                room[: len(like)] = like
            return room

        self._sums = PublicParams(
            grown(empty.items, None if before is None else before.items),
            {name: grown(value, None if before is None else before.dense[name]) for name, value in empty.dense.items()},
        )
        return self._sums

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
