"""Bucketing: uploads are averaged in random buckets."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
from pydantic import Field

from fedbench.defenses.mixing import Mixing, MixingParameters
from fedbench.entries.cards import DefenseCard, DefenseFamily
from fedbench.federation.defense import ServerView
from fedbench.federation.rows import FullRows, by_item, coalesced, occurrences
from fedbench.federation.updates import Common, DenseGradients, Updates


class Bucketing(Mixing):
    """``y_b`` = mean of the x_i in bucket b: c uploads in random order, cut into buckets of s, for a rule to follow
    (Karimireddy et al. 2022, algorithm 1).

    A rule that assumes a share of malicious clients assumes s times as much of the buckets, for f clients can spoil f of
    them. By item every item has an order of its own, and ceil(c / s) rows. Under a protocol that sums gradients a bucket is
    uploaded as what it stands for, ``c / ceil(c / s)`` times its mean (``short``: s times), which bounds on norms after it
    see; with s = 1 nothing is changed.
    """

    card = DefenseCard(
        name="bucketing",
        title="Bucketing",
        paper="Karimireddy et al., ICLR 2022",
        family=DefenseFamily.AGGREGATION,
        notes="A first step for a robust rule: bucketing+krum. Alone it changes the sum by little.",
    )

    class Params(MixingParameters):
        """Parameters."""

        size: int = Field(2, ge=1, description="s, uploads in a bucket [paper: 2]")
        last: Literal["mean", "short"] = Field(
            "mean", description="the last bucket, when it has fewer than s: their mean [code], or their sum / s [paper]"
        )

    params: Bucketing.Params

    def over_items(self, updates: Updates, server: ServerView) -> Updates:
        rows = updates.all_rows()
        rows = rows.take(_shuffled(len(rows.item), server.generator, rows.item.device))
        order, starts = by_item(rows.item, len(server.params.items))
        item = rows.item.index_select(0, order)
        place = torch.arange(len(item), device=item.device) - starts.index_select(0, item)
        count = occurrences(item, len(starts))
        s = self.params.size
        buckets = (count + s - 1) // s
        bucket = place // s
        first = (buckets.cumsum(0) - buckets).index_select(0, item) + bucket
        own = count.index_select(0, item)
        factor = self._factor(own, buckets.index_select(0, item), (own - bucket * s).clamp(max=s))
        if server.aggregation != "sum":  # which the rule, or the server, divides by the number of buckets
            n = len(updates.clients)
            factor = factor * (-(-n // s) / n)
        total = int(buckets.sum())
        values = rows.values.new_zeros(total, rows.values.shape[1])
        values.index_add_(0, first, rows.values.index_select(0, order) * factor[:, None])
        new = torch.zeros(2, total, dtype=torch.int64, device=item.device)
        new[:, first] = torch.stack([bucket, item])
        return replace(self._bucketed(updates, server, False), rows=(FullRows(new[0], new[1], values),))

    def over_clients(self, updates: Updates, server: ServerView) -> Updates:
        return self._bucketed(updates, server, True)

    def _bucketed(self, updates: Updates, server: ServerView, whole: bool) -> Updates:
        """Buckets of clients, with what is in them; ``whole``: with their rows, too."""
        n, s, device = len(updates.clients), self.params.size, updates.clients.device
        count = -(-n // s)
        bucket = torch.empty_like(updates.clients)
        bucket[_shuffled(n, server.generator, device)] = torch.arange(n, device=device) // s
        weights = updates.weights.new_zeros(count).index_add_(0, bucket, updates.weights)
        filled = occurrences(bucket, count).index_select(0, bucket)
        factor = self._factor(torch.full_like(filled, n), torch.full_like(filled, count), filled)
        if server.aggregation != "sum":
            factor = factor * (count / n)
        if whole and server.aggregation == "weighted":
            mean = updates.weights / weights.index_select(0, bucket).clamp(min=torch.finfo(weights.dtype).tiny)
            factor = factor * filled * mean

        def gathered(value: torch.Tensor) -> torch.Tensor:
            scaled = value * factor.view(-1, *[1] * (value.dim() - 1))
            return value.new_zeros(count, *value.shape[1:]).index_add_(0, bucket, scaled)

        rows: tuple[FullRows, ...] = ()
        if whole:
            own = updates.scaled(factor).all_rows()
            merged = FullRows(bucket.index_select(0, own.client), own.item, own.values)
            rows = (coalesced(merged, len(server.params.items)),)
        common = updates.common
        if common is not None:
            times = n / count if server.aggregation == "sum" else 1.0
            common = Common(common.gradient * times, torch.ones_like(weights))
        return Updates(
            updates.clients.new_full((count,), 2**62).scatter_reduce_(0, bucket, updates.clients, "amin"),
            rows,
            DenseGradients.of({name: gathered(value) for name, value in updates.dense.stacked().items()}),
            weights,
            common,
            mixed=s * (updates.mixed or 1),
        )

    def _factor(self, count: torch.Tensor, buckets: torch.Tensor, filled: torch.Tensor) -> torch.Tensor:
        """What each of ``count`` uploads is multiplied by in a bucket of ``filled``, where gradients are summed."""
        if self.params.last == "short":
            return torch.ones_like(filled, dtype=torch.float32)
        return count / (buckets * filled)


def _shuffled(count: int, generator: torch.Generator, device: torch.device) -> torch.Tensor:
    return torch.randperm(count, generator=generator, device=generator.device).to(device, non_blocking=True)
