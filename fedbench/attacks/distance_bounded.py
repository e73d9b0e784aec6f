"""Min-Max and Min-Sum: as far from the honest mean as honest uploads are from each other, whatever the server's rule is."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

import torch
from pydantic import Field

from fedbench.attacks.clean_statistics import CleanStatistics, Spread, clean_statistics
from fedbench.attacks.statistical import ColludingAttack
from fedbench.defenses.robust import client_gram, square_distances
from fedbench.entries.cards import AttackCard, Channel, Goal, Knowledge
from fedbench.federation.updates import Updates
from fedbench.federation.view import AttackerView


class DistanceBounded(ColludingAttack):
    """``mu + gamma p``, the same for every client, with the largest gamma that a bound on distances allows.

    Shejwalkar and Houmansadr (NDSS 2021, section IV-C), the attacks that know no rule of the server: mu is the mean of S
    honest uploads x_i of the attacker's own clients (their case of unknown benign gradients), p a direction away from it,
    and distances are over whole uploads, items and dense parameters together. What all x_i have in common is in mu and in
    p, and cancels in distances.

    The published code searches gamma by steps of 10, 5, 2.5, ...: it cannot pass 20, and stops within 1e-5, which is much
    where p is long. Both bounds are quadratic in gamma and hold at 0, so the largest gamma is a root, which is computed here.
    Gamma is 0 for a single client, who then sends its honest upload, and where p is 0.
    """

    class Params(ColludingAttack.Params):
        """Parameters."""

        direction: Literal["std", "unit", "sign"] = Field(
            "std",
            description="p: minus the standard deviation by coordinate, minus mu made a unit vector, or minus the signs of mu"
            " [original: all three; its code's default: unit]",
        )

    params: DistanceBounded.Params

    def made_of(self, view: AttackerView, clean: Updates) -> tuple[torch.Tensor, Mapping[str, torch.Tensor]]:
        seen = clean_statistics(clean, view.num_items)
        items, dense = perturbation(seen, self.params.direction)
        gamma = self.largest(*offsets(clean, items, dense))

        def moved(part: Spread, way: torch.Tensor) -> torch.Tensor:
            return (part.mean + gamma * way.double()).float()

        return moved(seen.items, items), {name: moved(each, dense[name]) for name, each in seen.dense.items()}

    @abstractmethod
    def largest(self, apart: torch.Tensor, along: torch.Tensor, length: torch.Tensor) -> torch.Tensor:
        """The largest gamma that the bound allows, a float64 scalar.

        Args:
            apart: float64 [S, S], ``|x_i - x_k|^2``. along: float64 [S], ``p (x_i - mu)``. length: float64, ``|p|^2``.
        """


class MinMax(DistanceBounded):
    """No honest upload is farther from the malicious one than two honest ones are from each other.

    ``max_i |x_i - (mu + gamma p)| <= D = max_ik |x_i - x_k|``. With ``a_i = |x_i - mu|^2`` and ``b_i = p (x_i - mu)``,
    ``gamma = min_i (b_i + sqrt(b_i^2 + |p|^2 (D^2 - a_i))) / |p|^2``.
    """

    card = AttackCard(
        name="min-max",
        title="Min-Max",
        paper="Shejwalkar and Houmansadr, NDSS 2021",
        goal=Goal.DEGRADE,
        channel=Channel.GRADIENT,
        knowledge=frozenset({Knowledge.OWN_DATA}),
        notes="Gamma is computed, not searched for. One malicious client in all sends its honest gradient.",
    )

    def largest(self, apart: torch.Tensor, along: torch.Tensor, length: torch.Tensor) -> torch.Tensor:
        room = (apart.max() - from_mean(apart)).clamp(min=0)
        return ratio(along + (along.square() + length * room).sqrt(), length).min()


class MinSum(DistanceBounded):
    """The squared distances of the malicious upload to all honest ones add up to no more than those of an honest one do.

    ``sum_i |x_i - (mu + gamma p)|^2 <= max_k sum_i |x_i - x_k|^2`` (paper), or ``min_k`` (code). Since mu is the mean, that
    is ``gamma |p| <= max_k |x_k - mu|``: the malicious upload is as far from the mean as the farthest (nearest) honest one.
    """

    card = AttackCard(
        name="min-sum",
        title="Min-Sum",
        paper="Shejwalkar and Houmansadr, NDSS 2021",
        goal=Goal.DEGRADE,
        channel=Channel.GRADIENT,
        knowledge=frozenset({Knowledge.OWN_DATA}),
        notes="Gamma is computed, not searched for. One malicious client in all sends its honest gradient.",
    )

    class Params(DistanceBounded.Params):
        """Parameters."""

        bound: Literal["largest", "smallest"] = Field(
            "largest", description="of the honest sums of squared distances [largest: paper; smallest: code]"
        )

    params: MinSum.Params

    def largest(self, apart: torch.Tensor, along: torch.Tensor, length: torch.Tensor) -> torch.Tensor:
        square = from_mean(apart)
        return ratio(square.max() if self.params.bound == "largest" else square.min(), length).sqrt()


def perturbation(seen: CleanStatistics, direction: str) -> tuple[torch.Tensor, Mapping[str, torch.Tensor]]:
    """p, as the parameter ``direction`` has it: float32 [M, d], and name -> float32 [*shape]."""
    parts = [seen.items, *seen.dense.values()]
    length = torch.stack([each.mean.double().square().sum() for each in parts]).sum().sqrt()

    def one(part: Spread) -> torch.Tensor:
        if direction == "std":
            return -part.std
        if direction == "sign":
            return -part.mean.sign()
        return -ratio(part.mean.double(), length).float()

    return one(seen.items), {name: one(each) for name, each in seen.dense.items()}


def offsets(
    clean: Updates, items: torch.Tensor, dense: Mapping[str, torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """``|x_i - x_k|^2`` [S, S], ``p (x_i - mu)`` [S] and ``|p|^2``, float64, of S uploads and a direction p.

    No upload is laid out over all items.

    Args:
        clean: the uploads x_i, whose order is kept. items: float32 [M, d], p of the items. dense: name -> float32 [*shape].
    """
    clean = replace(clean.relative(), common=None)
    # By place, so that the Gram matrix is in the order of what follows.
    clean = replace(clean, clients=torch.arange(len(clean.clients), device=clean.clients.device))
    apart = square_distances(client_gram(clean, len(items))[None])[0]
    rows = clean.all_rows()
    along = torch.zeros(len(clean.clients), dtype=torch.float64, device=items.device)
    if len(rows.item):
        products = (rows.values.double() * items.index_select(0, rows.item).double()).sum(1)
        along.index_add_(0, rows.client, products)
    for name, value in clean.dense.stacked().items():
        along += value.flatten(1).double() @ dense[name].flatten().double()
    length = torch.stack([part.double().square().sum() for part in (items, *dense.values())]).sum()
    return apart, along - along.mean(), length


def from_mean(apart: torch.Tensor) -> torch.Tensor:
    """``|x_i - mu|^2``, float64 [S], from ``|x_i - x_k|^2``: their mean less half the mean of all."""
    return (apart.mean(1) - apart.mean() / 2).clamp(min=0)


def ratio(value: torch.Tensor, length: torch.Tensor) -> torch.Tensor:
    """``value / length``, and 0 where the length is 0."""
    return torch.where(length > 0, value / length.clamp(min=torch.finfo(length.dtype).tiny), 0)
