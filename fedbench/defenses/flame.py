"""FLAME: the densest majority of the updated models, clipped to the median length, averaged, with noise."""

from __future__ import annotations

from dataclasses import replace

import torch
from pydantic import Field

from fedbench.defenses.grouped import RowsByItem
from fedbench.defenses.majority import densest_majority
from fedbench.defenses.robust import (
    RobustAggregation,
    ScopeParameters,
    client_gram,
    flat_dense,
    products,
    weighted_sum,
)
from fedbench.entries.cards import DefenseCard, DefenseFamily
from fedbench.federation.defense import Notes, ServerView
from fedbench.federation.model import PublicParams
from fedbench.federation.updates import Updates

TINY = 1e-10
"""Comes to norms before they divide [code]."""
FEW = 2
"""Of so many gradients the mean is taken [code]."""


class Flame(RobustAggregation):
    """``c`` times ``mean of x_i min(1, s / |x_i|) over i in K, plus N(0, (noise s)^2)`` in every coordinate
    (Nguyen et al. 2022, algorithm 1; by item as the code of PoisonFRS has it, Zhang et al. 2024).

    s is the (lower) median of the c lengths. K is the cluster that HDBSCAN finds among the models as each client would have
    them, ``v - lr x_i`` with the server's learning rate, by cosine distance, when a cluster must hold more than half of
    them (see ``majority.py``). By item v is the item's row, and of one or two rows the mean is taken as it is; dense tensors
    have clusters of their own. Over whole updates v is the whole model, and numbers of samples weigh the mean where the
    server averages by them. What is common to all uploads is left out of lengths and distances, and added.
    """

    card = DefenseCard(
        name="flame",
        title="FLAME",
        paper="Nguyen et al., USENIX Security 2022; by item as in Yin et al., WWW 2024 (PoisonFRS)",
        family=DefenseFamily.AGGREGATION,
        notes="Made against backdoors. A majority that is malicious, as on a cold item, is what it keeps. Times the number of"
        " gradients, the noise too.",
    )

    class Params(ScopeParameters):
        """Parameters."""

        noise: float = Field(
            0.01, ge=0, description="deviation of the noise, in median lengths [PoisonFRS' code; FLAME's paper: 0.001]"
        )

    params: Flame.Params
    chooses = True

    def aggregate(self, updates: Updates, server: ServerView) -> PublicParams:
        self._server = server
        return super().aggregate(updates, server)

    def over_items(self, updates: Updates, empty: PublicParams, share: float) -> PublicParams:
        params = self._server.params
        for group in RowsByItem(updates, len(empty.items)).groups(pairwise=True, cells=2**21):
            rows = params.items.index_select(0, group.item)
            typical = self._typical(rows, group.values, group.there, group.count)
            empty.items.index_copy_(0, group.item, typical * group.count[:, None])
        dense, n = {}, len(updates.clients)
        for name, flat in flat_dense(updates).items():
            there = torch.ones(1, n, dtype=torch.bool, device=flat.device)
            count = torch.full((1,), n, device=flat.device)
            typical = self._typical(params.dense[name].view(1, -1), flat[None], there, count)
            dense[name] = typical.view_as(params.dense[name]) * n
        return replace(empty, dense=dense)

    def _typical(
        self, models: torch.Tensor, values: torch.Tensor, there: torch.Tensor, count: torch.Tensor
    ) -> torch.Tensor:
        """float32 [B, d]: the rule for B models [B, d] with padded gradients [B, C, d], 0 where not ``there``."""
        if values.shape[1] <= FEW:
            return values.sum(1) / count[:, None]
        norms = values.norm(dim=2)
        median = _median(norms, there, count)
        moved = models[:, None].double() - self._server.learning_rate * values.double()
        moved /= moved.norm(dim=2, keepdim=True) + TINY
        kept = densest_majority(1 - torch.bmm(moved, moved.transpose(1, 2)), there, count)
        factors = kept * _clip(norms, median[:, None]) / kept.sum(1, keepdim=True)
        return torch.bmm(factors[:, None], values).squeeze(1) + self._noise(models) * median[:, None]

    def over_clients(
        self, updates: Updates, empty: PublicParams, f: int, weights: torch.Tensor | None, notes: Notes | None
    ) -> PublicParams:
        n = len(updates.clients)
        kept, factors = torch.ones_like(updates.weights, dtype=torch.bool), torch.ones_like(updates.weights)
        median = factors.new_zeros(())
        if n > FEW:
            there = torch.ones(1, n, dtype=torch.bool, device=kept.device)
            count = torch.full((1,), n, device=kept.device)
            distances = self._model_distances(updates, empty)[None]
            kept = densest_majority(distances, there, count)[0][torch.argsort(torch.argsort(updates.clients))]
            norms = updates.square_norms().sqrt()
            median = _median(norms[None], there, count)[0]
            factors = kept * _clip(norms, median)
        if notes is not None:
            notes.left_out.append((self.card.name, updates.clients[~kept]))
        if weights is not None:
            factors, kept = factors * weights, kept * weights
        mean = weighted_sum(updates, factors / kept.sum().clamp(min=1e-30), empty)
        return PublicParams(
            n * (mean.items + self._noise(mean.items) * median),
            {name: n * (value + self._noise(value) * median) for name, value in mean.dense.items()},
        )

    def _model_distances(self, updates: Updates, empty: PublicParams) -> torch.Tensor:
        """float64 [n, n]: cosine distances of the clients' models ``v - lr x_i``, by ascending client id.

        From inner products, so that no model is laid out: what is rounded in those of v with x_i cancels.
        """
        rate, server = self._server.learning_rate, self._server.params
        model = PublicParams(server.items, {name: server.dense[name] for name in empty.dense})
        own = sum(each.double().square().sum() for each in (model.items, *model.dense.values()))
        along = products(updates, model).index_select(0, torch.argsort(updates.clients))
        inner = own - rate * (along[:, None] + along) + rate**2 * client_gram(updates, len(model.items))
        norms = inner.diagonal().clamp(min=0).sqrt() + TINY
        return 1 - inner / norms / norms[:, None]

    def _noise(self, like: torch.Tensor) -> torch.Tensor:
        """Standard normal numbers in the shape of ``like``, times the parameter."""
        generator = self._server.generator
        drawn = torch.randn(like.shape, generator=generator, device=generator.device, dtype=like.dtype)
        return self.params.noise * drawn.to(like.device)


def _median(norms: torch.Tensor, there: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
    """float32 [B]: the lower median of those ``there``, of [B, C]."""
    ordered = norms.masked_fill(~there, torch.inf).sort(dim=1).values
    return ordered.gather(1, (count[:, None] - 1) // 2).squeeze(1)


def _clip(norms: torch.Tensor, bound: torch.Tensor) -> torch.Tensor:
    return (bound / (norms + TINY)).clamp(max=1.0)
