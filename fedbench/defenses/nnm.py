"""Nearest neighbour mixing: every upload becomes the mean of those nearest to it."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from pydantic import Field

from fedbench.defenses.coordinates import sort_last
from fedbench.defenses.grouped import RowsByItem
from fedbench.defenses.mixing import Mixing, MixingParameters
from fedbench.defenses.robust import (
    ASSUMES_SHARE,
    GIVEN,
    assumed,
    client_gram,
    dense_grams,
    flat_dense,
    square_distances,
)
from fedbench.entries.cards import DefenseCard, DefenseFamily
from fedbench.federation.defense import ServerView
from fedbench.federation.rows import FullRows
from fedbench.federation.updates import DenseGradients, Updates


class NearestNeighbourMixing(Mixing):
    """``y_i = 1 / (c - f) sum of x_k over the c - f nearest to x_i``, itself among them, for a rule to follow
    (Allouah et al. 2023, section 3.2).

    f as in the rules: floor(c share) by item, ceil(n share) over whole updates, at most (c - 1) / 2. Ties: the lowest client
    id. With f = 0 everybody gets the mean of all, and whatever rule follows is the sum. Mixed whole updates have a row for
    every item that anybody touched: float32 [n, M, d] in memory.
    """

    card = DefenseCard(
        name="nnm",
        title="Nearest neighbour mixing (NNM)",
        paper="Allouah et al., AISTATS 2023",
        family=DefenseFamily.AGGREGATION,
        knowledge=frozenset({GIVEN}),
        assumes=ASSUMES_SHARE,
        notes="A first step for a robust rule: nnm+median. By item f = floor(c share) is 0 for items with fewer than"
        " 1 / share rows: there it is the sum, whatever rule follows.",
    )

    class Params(MixingParameters):
        """Parameters."""

        assumed_ratio: float | None = Field(
            None,
            ge=0,
            lt=1,
            description="share of malicious clients that it assumes; None: the scenario's true ratio",
        )

    params: NearestNeighbourMixing.Params

    def _share(self, updates: Updates, server: ServerView) -> float:
        stated = self.params.assumed_ratio
        return (stated if stated is not None else server.malicious_ratio or 0.0) * (updates.mixed or 1)

    def over_items(self, updates: Updates, server: ServerView) -> Updates:
        share = self._share(updates, server)
        clients, items, values = [], [], []
        for group in RowsByItem(updates, len(server.params.items)).groups(pairwise=True):
            gram = torch.bmm(group.values, group.values.transpose(1, 2))
            near = nearest(square_distances(gram), group.there, group.count - assumed(group.count, share))
            mixed = torch.bmm(_mean(near.to(group.values.dtype)), group.values)
            real = group.there.flatten().nonzero().squeeze(1)
            clients.append(group.client.flatten().index_select(0, real))
            items.append(group.item[:, None].expand_as(group.client).flatten().index_select(0, real))
            values.append(mixed.flatten(0, 1).index_select(0, real))
        rows = (FullRows(torch.cat(clients), torch.cat(items), torch.cat(values)),) if clients else ()
        dense = dict(updates.dense.stacked())
        if dense:
            grams = dense_grams(flat_dense(updates))
            there = torch.ones_like(grams[:, :, 0], dtype=torch.bool)
            n = torch.full((len(grams),), grams.shape[1], device=grams.device)
            near = nearest(square_distances(grams), there, n - assumed(n, share))
            for (name, value), own in zip(dense.items(), near, strict=True):
                dense[name] = _applied(_mean(_as_sent(own, updates).to(value.dtype)), value)
        return replace(updates, rows=rows, dense=DenseGradients.of(dense), mixed=updates.mixed or 1)

    def over_clients(self, updates: Updates, server: ServerView) -> Updates:
        n = len(updates.clients)
        f = min(math.ceil(n * self._share(updates, server) - 1e-9), (n - 1) // 2)
        gram = client_gram(updates, len(server.params.items))
        there = torch.ones(1, n, dtype=torch.bool, device=gram.device)
        near = nearest(square_distances(gram[None]), there, torch.full((1,), n - f, device=gram.device))[0]
        means = _as_sent(near, updates).to(updates.weights.dtype)
        means = _mean(means * updates.weights if server.aggregation == "weighted" else means)
        dense = {name: _applied(means, value) for name, value in updates.dense.stacked().items()}
        rows = updates.all_rows()
        touched, place = torch.unique(rows.item, return_inverse=True)
        table = rows.values.new_zeros(n, len(touched), rows.values.shape[1])
        table[rows.client, place] = rows.values
        client = torch.arange(n, device=place.device).repeat_interleave(len(touched))
        mixed = FullRows(client, touched.repeat(n), _applied(means, table).flatten(0, 1))
        return replace(updates, rows=(mixed,), dense=DenseGradients.of(dense), mixed=updates.mixed or 1)


def nearest(distances: torch.Tensor, there: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
    """Bool [B, C, C]: which gradients k are among the ``keep``, int64 [B], nearest to i, of those ``there``, bool [B, C].

    Args:
        distances: float [B, C, C]. Ties at the cut: the lowest k.
    """
    distances = distances.masked_fill(~there[:, None, :], torch.inf)
    last = (keep - 1)[:, None, None].expand(-1, distances.shape[1], 1)
    cut = sort_last(distances).gather(2, last)
    inside, tied = distances < cut, distances == cut
    left = keep[:, None, None] - inside.sum(2, keepdim=True)
    return inside | (tied & (tied.cumsum(2) <= left))


def _mean(weights: torch.Tensor) -> torch.Tensor:
    """The same with rows that sum to 1."""
    return weights / weights.sum(-1, keepdim=True).clamp(min=torch.finfo(weights.dtype).tiny)


def _as_sent(near: torch.Tensor, updates: Updates) -> torch.Tensor:
    """[n, n] in the order of ``updates`` instead of by ascending client id."""
    place = torch.argsort(torch.argsort(updates.clients))
    return near.index_select(0, place).index_select(1, place)


def _applied(means: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Averages [n, *shape] of gradients [n, *shape]."""
    return (means @ values.flatten(1)).view_as(values)
