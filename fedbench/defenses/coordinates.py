"""Order statistics of each coordinate over the gradients that a server received, zeros included.

In client scope most coordinates of most clients are zero, so these are counted and never stored: a column holds the
values that are there, sorted, and says how many zeros stand between the negative and the positive ones.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Column:
    """The values of B x d coordinates, each over ``population`` gradients of which ``count`` are stored.

    Attributes:
        values: float32 [B, d, C], ascending; infinite behind the first ``count``.
        count: int64 [B]. population: int64 [B], at least ``count``; the other gradients are zero there.
        filled: whether any population is above its count.
    """

    values: torch.Tensor
    count: torch.Tensor
    population: torch.Tensor
    filled: bool

    @classmethod
    def of(cls, values: torch.Tensor, count: torch.Tensor, population: torch.Tensor) -> Column:
        """From values [B, C, d], infinite in padding. Without zeros, pass ``count`` itself as the population."""
        return cls(sort_last(values.transpose(1, 2)), count, population, population is not count)

    @classmethod
    def whole(cls, gradients: torch.Tensor) -> Column:
        """The coordinates of n gradients that are all there, float32 [n, D]: B = 1 and d = D."""
        count = torch.full((1,), len(gradients), device=gradients.device)
        return cls(sort_last(gradients.T[None]), count, count, False)

    @functools.cached_property
    def zeros(self) -> torch.Tensor:
        """int64 [B, 1, 1]: how many zeros are not stored."""
        return (self.population - self.count)[:, None, None]

    @functools.cached_property
    def rank(self) -> torch.Tensor:
        """int64 [1 or B, 1 or d, C]: place of each stored value among the whole population, from 0."""
        place = torch.arange(self.values.shape[2], device=self.values.device)[None, None, :]
        return place + ~(self.values < 0) * self.zeros if self.filled else place

    def at(self, place: torch.Tensor) -> torch.Tensor:
        """float32 [B, d]: the value at ``place``, int64 [B], from 0 to population - 1."""
        return _order_statistic(self.values, place[:, None].expand(self.values.shape[:2]), self.zeros, self.filled)

    def median(self) -> torch.Tensor:
        """float32 [B, d]: the mean of the two middle values, or the middle one."""
        return (self.at((self.population - 1) // 2) + self.at(self.population // 2)) / 2

    def mean_between(self, low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
        """float32 [B, d]: the mean of the values at places ``low <= place < high``, int64 [B] each."""
        kept = (self.rank >= low[:, None, None]) & (self.rank < high[:, None, None])
        stored = torch.arange(self.values.shape[2], device=self.values.device) < self.count[:, None, None]
        total = torch.where(kept & stored, self.values, 0.0).sum(2)
        return total / (high - low)[:, None]

    def mean_nearest_to_median(self, keep: torch.Tensor) -> torch.Tensor:
        """float32 [B, d]: the mean of the ``keep``, int64 [B], values nearest to the median.

        Values tied at the cut share the places that are left, so the order of the clients does not matter.
        """
        median = self.median()[:, :, None]
        distance = (self.values - median).abs_()
        away = median.abs()
        cut = _order_statistic(
            sort_last(distance), (keep[:, None] - 1).expand(distance.shape[:2]), self.zeros, self.filled, away
        )[:, :, None]
        inside, edge = distance < cut, distance == cut
        nearer, tied = inside.sum(2), edge.sum(2)
        if self.filled:
            nearer += ((away < cut) * self.zeros).squeeze(2)
            tied += ((away == cut) * self.zeros).squeeze(2)
        total = torch.where(inside, self.values, 0.0).sum(2)
        at_edge = torch.where(edge, self.values, 0.0).sum(2)
        return (total + at_edge * ((keep[:, None] - nearer) / tied)) / keep[:, None]


def _order_statistic(
    ordered: torch.Tensor,
    place: torch.Tensor,
    zeros: torch.Tensor,
    filled: bool,
    extra: torch.Tensor | float = 0.0,
) -> torch.Tensor:
    """The value at ``place`` [B, d] of ``ordered`` [B, d, C] together with ``zeros`` [B, 1, 1] copies of ``extra``."""
    last = ordered.shape[2] - 1
    if not filled:
        return ordered.gather(2, place[:, :, None].clamp(max=last)).squeeze(2)
    before = (ordered < extra).sum(2)
    copies = zeros.squeeze(2)
    own = torch.where(place < before, place, place - copies).clamp(0, last)
    value = ordered.gather(2, own[:, :, None]).squeeze(2)
    among = (place >= before) & (place < before + copies)
    return torch.where(among, extra.expand_as(ordered)[:, :, 0] if isinstance(extra, torch.Tensor) else extra, value)


def sort_last(values: torch.Tensor) -> torch.Tensor:
    """A copy of ``values`` sorted along the last dimension. On a CPU numpy's sort is twenty times faster than torch's."""
    if values.is_cuda:
        return torch.sort(values, dim=-1).values
    array = values.numpy().copy(order="C")
    array.sort(axis=-1)
    return torch.from_numpy(array)
