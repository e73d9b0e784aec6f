"""Bulyan: repeated Krum, then a trimmed mean around the median of what was selected."""

from __future__ import annotations

import math
from dataclasses import replace

import torch

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
    dense_grams,
    flat_dense,
    square_distances,
)
from fedbench.entries.cards import DefenseCard, DefenseFamily
from fedbench.federation.defense import Notes
from fedbench.federation.model import PublicParams
from fedbench.federation.updates import Updates


class Bulyan(RobustAggregation):
    """Repeated Krum selects ``c - 2 f`` gradients; the result is, for each coordinate, ``c`` times the mean of the
    ``c - 4 f`` selected values nearest to their median (El Mhamdi et al. 2018, section 4).

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
        notes="Times the number of gradients. By item f = floor(c share) is 0 for items with fewer than 1 / share rows:"
        " there it is the sum.",
    )

    class Params(KrumParameters):
        """Parameters."""

    params: Bulyan.Params
    chooses = True
    needs = (4, 3)

    def over_items(self, updates: Updates, empty: PublicParams, share: float) -> PublicParams:
        items = updates.sum_rows(*empty.items.shape)
        dense = dict(updates.dense.total())
        if math.floor(len(updates.clients) * share + 1e-9) > 0:
            # Fewer than 1 / share rows: f = 0, all are selected and none is trimmed.
            least = max(7, int(1 / share))
            for group in RowsByItem(updates, len(items)).groups(pairwise=True, at_least=least, parts=2, cells=2**21):
                f = assumed(group.sizes, share)
                acts = ((f > 0) & (group.sizes >= 4 * f + 3)).nonzero().squeeze(1)
                if len(acts):
                    own = acts.to(items.device, non_blocking=True)
                    items[group.item[own]] = self._bulyan(group.values[own], group.sizes[acts], f[acts])
            n = torch.full((len(dense),), len(updates.clients))
            f = assumed(n, share)
            if bool(((f > 0) & (n >= 4 * f + 3)).any()):
                dense |= self._bulyan_dense(updates, n, f)
        return PublicParams(items, dense)

    def over_clients(
        self, updates: Updates, empty: PublicParams, f: int, weights: torch.Tensor | None, notes: Notes | None
    ) -> PublicParams:
        n = len(updates.clients)
        if f == 0 or n < 4 * f + 3:
            return PublicParams(updates.sum_rows(*empty.items.shape), dict(updates.dense.total()))
        gram = client_gram(updates, len(empty.items))
        chosen = torch.empty(n, dtype=torch.bool, device=gram.device)
        count, assumed_attackers = torch.tensor([[n], [f]])
        winners = select(square_distances(gram[None]), count, assumed_attackers, self.params.variant)[0]
        chosen[torch.argsort(updates.clients)] = winners
        if notes is not None:
            notes.left_out.append((self.card.name, updates.clients[~chosen]))
        kept = updates.keep(chosen)
        left = n - 2 * f
        times = left if self.params.variant == "icde24-code" else n
        for group in RowsByItem(kept, len(empty.items)).groups(torch.inf):
            everybody = torch.full_like(group.count, left)
            column = Column.of(group.values, group.count, everybody)
            mean = column.mean_nearest_to_median(everybody - 2 * f)
            empty.items.index_copy_(0, group.item, mean * times)
        dense = {}
        for name, value in kept.dense.stacked().items():
            column = Column.whole(value.flatten(1))
            dense[name] = (column.mean_nearest_to_median(column.count - 2 * f) * times).view(value.shape[1:])
        return replace(empty, dense=dense)

    def _bulyan(self, values: torch.Tensor, count: torch.Tensor, f: torch.Tensor) -> torch.Tensor:
        """float32 [B, d]: the rule for B items with padded gradients [B, C, d]; ``count`` and ``f`` are on the CPU."""
        variant = self.params.variant
        chosen = select(square_distances(torch.bmm(values, values.transpose(1, 2))), count, f, variant)
        count, f = (each.to(values.device, non_blocking=True) for each in (count, f))
        left = count - 2 * f
        mean = Column.of(values.masked_fill(~chosen[:, :, None], torch.inf), left, left).mean_nearest_to_median(
            left - 2 * f
        )
        return mean * (left if variant == "icde24-code" else count)[:, None]

    def _bulyan_dense(self, updates: Updates, n: torch.Tensor, f: torch.Tensor) -> dict[str, torch.Tensor]:
        """The rule for each dense tensor: name -> float32 [*shape]."""
        variant = self.params.variant
        flat = flat_dense(updates)
        gram = dense_grams(flat)
        chosen = select(square_distances(gram), n, f, variant)
        trimmed = 2 * f[:1].to(gram.device, non_blocking=True)
        left = int(n[0] - 2 * f[0])
        result = {}
        for (name, value), winners in zip(flat.items(), chosen, strict=True):
            column = Column.whole(value[winners])
            mean = column.mean_nearest_to_median(column.count - trimmed)
            shape = updates.dense.stacked()[name].shape[1:]
            result[name] = (mean * (left if variant == "icde24-code" else int(n[0]))).view(shape)
        return result
