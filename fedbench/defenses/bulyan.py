"""Bulyan: repeated Krum, then a trimmed mean around the median of what was selected."""

from __future__ import annotations

from dataclasses import replace

import torch

from fedbench.cards import DefenseCard, DefenseFamily
from fedbench.defenses.coordinates import Column
from fedbench.defenses.grouped import RowsByItem
from fedbench.defenses.iterated_krum import select
from fedbench.defenses.krum import KrumParameters
from fedbench.defenses.robust import (
    ASSUMES_SHARE,
    GIVEN,
    RobustAggregation,
    assumed,
    client_gram,
    square_distances,
)
from fedbench.federation.updates import Updates
from fedbench.models.base import PublicParams


class Bulyan(RobustAggregation):
    """Select ``c - 2 f`` gradients by repeated Krum; then, of each coordinate, ``c`` times the mean of the ``c - 4 f`` selected
    values nearest to their median (El Mhamdi et al. 2018, section 4).

    With c < 4 f + 3 the sum. ``icde24-code``: distances are not squared, a score sums the c - f smallest, and the result
    stands for the c - 2 f gradients that were selected.
    """

    card = DefenseCard(
        name="bulyan",
        title="Bulyan",
        paper="El Mhamdi et al., ICML 2018; by item as in ICDE 2024",
        family=DefenseFamily.AGGREGATION,
        knowledge=frozenset({GIVEN}),
        assumes=ASSUMES_SHARE,
        notes="By item f = floor(c share) is 0 for items with fewer than 1 / share rows: there it is the sum.",
    )

    class Params(KrumParameters):
        """Parameters."""

    params: Bulyan.Params

    def over_items(self, updates: Updates, empty: PublicParams, share: float) -> PublicParams:
        items = updates.sum_rows(*empty.items.shape)
        dense = dict(updates.dense.total())
        if share > 0:
            # Fewer than 1 / share rows: f = 0, all are selected and none is trimmed.
            least = max(7, int(1 / share))
            for group in RowsByItem(updates, len(items)).groups(pairwise=True, at_least=least):
                f = assumed(group.count, share)
                acts = ((f > 0) & (group.count >= 4 * f + 3)).nonzero().squeeze(1)
                if len(acts):
                    count, f, values, there = group.count[acts], f[acts], group.values[acts], group.there[acts]
                    items[group.item[acts]] = self._bulyan(values, there, count, f)
            for name, value in updates.dense.stacked().items():
                n = len(value)
                f = assumed(items.new_tensor([n], dtype=torch.int64), share)
                if int(f) > 0 and n >= 4 * int(f) + 3:
                    there = torch.ones(1, n, dtype=torch.bool, device=value.device)
                    found = self._bulyan(value.reshape(1, n, -1), there, f.new_tensor([n]), f)
                    dense[name] = found.view(value.shape[1:])
        return PublicParams(items, dense)

    def over_clients(self, updates: Updates, empty: PublicParams, f: int) -> PublicParams:
        n = len(updates.clients)
        if f == 0 or n < 4 * f + 3:
            return PublicParams(updates.sum_rows(*empty.items.shape), dict(updates.dense.total()))
        order = torch.argsort(updates.clients)
        gram = client_gram(updates, len(empty.items)).index_select(0, order).index_select(1, order)
        there = torch.ones(1, n, dtype=torch.bool, device=gram.device)
        count, assumed_attackers = torch.tensor([[n], [f]], device=gram.device)
        chosen = torch.empty_like(there[0])
        distances = square_distances(gram[None])
        chosen[order] = select(distances, there, count, assumed_attackers, self.params.variant)[0]
        kept = updates.keep(chosen)
        left = n - 2 * f
        times = left if self.params.variant == "icde24-code" else n
        for group in RowsByItem(kept, len(empty.items)).groups():
            everybody = torch.full_like(group.count, left)
            column = Column.of(group.values, group.there, group.count, everybody)
            mean = column.mean_nearest_to_median(everybody - 2 * f)
            empty.items.index_copy_(0, group.item, mean * times)
        dense = {}
        for name, value in kept.dense.stacked().items():
            flat = value.reshape(1, left, -1)
            everybody = count.new_tensor([left])
            column = Column.of(flat, torch.ones_like(flat[:, :, 0], dtype=torch.bool), everybody, everybody)
            dense[name] = (column.mean_nearest_to_median(everybody - 2 * f) * times).view(value.shape[1:])
        return replace(empty, dense=dense)

    def _bulyan(self, values: torch.Tensor, there: torch.Tensor, count: torch.Tensor, f: torch.Tensor) -> torch.Tensor:
        """float32 [B, d]: the rule for B items (or tensors) with padded gradients [B, C, d]."""
        variant = self.params.variant
        distances = square_distances(torch.bmm(values, values.transpose(1, 2)))
        chosen = select(distances, there, count, f, variant)
        left = count - 2 * f
        mean = Column.of(values, chosen, left, left).mean_nearest_to_median(left - 2 * f)
        return mean * (left if variant == "icde24-code" else count)[:, None]
