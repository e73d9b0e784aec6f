"""ClusterAttack: item embeddings are driven into a few clusters, so that users can no longer tell the items apart."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Self

import torch
from pydantic import Field, model_validator

from fedbench.attacks.own_data import random_profiles
from fedbench.defenses.union import Union, contrastive
from fedbench.entries.cards import AttackCard, Channel, Goal, Knowledge, Parameters
from fedbench.federation.attack import Attack
from fedbench.federation.rows import FullRows, Rows, SharedRows, coalesced, occurrences
from fedbench.federation.updates import Updates
from fedbench.federation.view import AttackerView, Profiles

EPSILON = 1e-8
"""Added to a row's norm before it divides [code]."""
SHIFT = 1e-4
"""Lloyd's algorithm ends when the matrix of centroids moves by less (Frobenius norm) [code]."""
ITERATIONS = 300
"""The most that Lloyd's algorithm takes; the code has no limit."""


class ClusterAttack(Attack):
    """Untargeted attack by poisonous item embeddings (Yu et al., AAAI 2023, section 3).

    Once in every round that samples a malicious client:

    1. Norms: the attacker's clients collude. S of them compute their honest uploads at the current parameters; mu and sigma
       are mean and standard deviation of the norms of all S M item rows, untouched ones included (0, or ``lambda |v_j|``
       where everybody's loss holds an L2 term on all parameters).
    2. k-means of the item embeddings into K clusters, from K distinct random rows, anew in every round.
    3. ``L = (1/K) sum_j |v_j - c_a(j)|^2`` with centroids held constant: rows ``G_j = 2 (v_j - c_a(j)) / K``. The paper has
       no 1/K [code], which makes a difference only where rows are clipped.
    4. K follows the course of L (Algorithm 1), from the next attacked round on.

    Each sampled client then sends every row with a norm of its own, ``b_j = mu + l_j sigma``, ``l_j ~ U[0, 3]``: rescaled to
    it, up as well as down [code], or clipped [paper, equation 3]. Items that are their cluster's centroid have no gradient
    and get none. Dense gradients and the number of samples are honest; the rows hold no L2 term.

    A row looks like an honest one, a whole upload does not: it has all M rows, and on ML-1M its norm is about the largest
    among the honest.
    """

    card = AttackCard(
        name="cluster-attack",
        title="ClusterAttack",
        paper="Yu et al., AAAI 2023",
        goal=Goal.DEGRADE,
        channel=Channel.GRADIENT,
        knowledge=frozenset({Knowledge.OWN_DATA}),
        notes="Rows are rescaled to their bound, as the code does; the paper clips. Injected clients get random profiles,"
        " which is our choice: the paper's are compromised.",
    )

    class Params(Parameters):
        """Parameters."""

        initial_clusters: int = Field(2, ge=1, description="K of the first attacked round [paper: ML-1M 2, Gowalla 8]")
        min_clusters: int = Field(1, ge=1, description="the least K [paper: 1]")
        max_clusters: int = Field(50, ge=1, description="the largest K [paper: 50]")
        patience: float = Field(
            100, gt=0, description="R: rises of the loss beyond its falls, or the reverse, that change K [paper: 100]"
        )
        threshold_growth: float = Field(
            0.0, ge=0, description="R is multiplied by 1 + this at each change of K [paper: constant; code: undefined]"
        )
        decay: float = Field(
            0.999, ge=0, lt=1, description="beta of the moving average of the loss [code; not in the paper]"
        )
        rounding: Literal["round", "floor"] = Field("round", description="of a new K [round: code; floor: paper]")
        colluding: int = Field(50, ge=1, description="S, clients behind mu and sigma; all when fewer [code: 50]")
        spread: float = Field(3.0, ge=0, description="l is drawn from U[0, this] for every row [paper: 3]")
        norm: Literal["rescale", "clip"] = Field(
            "rescale", description="rows get their bound as norm [code], or are clipped to it [paper, eq. 3]"
        )
        profile_size: int = Field(30, ge=1, description="positives of an injected client's profile [ours; as RA: 30]")

        @model_validator(mode="after")
        def _in_range(self) -> Self:
            if not self.min_clusters <= self.initial_clusters <= self.max_clusters:
                raise ValueError(
                    f"initial_clusters = {self.initial_clusters} is not between"
                    f" min_clusters = {self.min_clusters} and max_clusters = {self.max_clusters}"
                )
            return self

    params: ClusterAttack.Params

    def start(self, view: AttackerView) -> None:
        """Streams of their own for bounds, k-means and what a variant draws: none depends on how much another draws."""
        p = self.params
        self.clusters = AdaptiveClusters(
            p.initial_clusters,
            p.min_clusters,
            p.max_clusters,
            p.patience,
            p.threshold_growth,
            p.decay,
            round if p.rounding == "round" else math.floor,
        )
        seeds = torch.randint(2**62, (3,), generator=view.generator, device=view.device).tolist()
        self._bounds, self._seeding, self._contrast = (
            torch.Generator(device=view.device).manual_seed(seed) for seed in seeds
        )

    def profiles(self, view: AttackerView) -> Profiles:
        return random_profiles(view, self.params.profile_size)

    def craft(self, view: AttackerView) -> Updates:
        p, items = self.params, view.params.items
        # Statistics first: the honest step moves the clients' own embeddings under gradient descent.
        mean, deviation = norm_statistics(view.colluding(p.colluding), len(items))
        honest = view.honest().updates
        count = min(self.clusters.count, len(items))
        labels, centroids = k_means(items, count, self._seeding)
        offset = items - centroids.index_select(0, labels)
        # The one number that a round fetches from the device besides k-means' own: K decides the shapes of the next one.
        self.clusters.advance(float(offset.square().sum()) / count)
        drawn = torch.rand(len(view.clients), len(items), generator=self._bounds, device=items.device)
        bounds = mean + p.spread * drawn * deviation
        rows = self._rows(view, offset * (2 / count), bounds)
        return Updates(view.clients, rows, honest.dense, honest.weights)

    def _rows(self, view: AttackerView, gradient: torch.Tensor, bounds: torch.Tensor) -> tuple[Rows, ...]:
        """The item rows of the sampled clients.

        Args:
            gradient: float32 [M, d], the G_j. bounds: float32 [m, M].
        """
        factor = self._factor(gradient.norm(dim=1), bounds)
        return (shared_rows(torch.ones_like(bounds, dtype=torch.bool), factor, gradient),)

    def _factor(self, norms: torch.Tensor, bounds: torch.Tensor) -> torch.Tensor:
        """What a row of norm ``norms`` is multiplied by, given its bound."""
        if self.params.norm == "rescale":
            return bounds / (norms + EPSILON)
        return (bounds / norms.clamp(min=torch.finfo(norms.dtype).tiny)).clamp(max=1.0)


class ContrastiveClusterAttack(ClusterAttack):
    """ClusterAttack by an attacker who knows that the server runs UNION's filter (Yu et al., AAAI 2023, section 5.3).

    Each malicious client adds ``alpha`` times the gradient of UNION's contrastive loss on its own items, as an honest client
    would, to the rows ``G_j`` before they get their norms: :func:`fedbench.defenses.union.contrastive`. K follows the
    clustering loss alone [ours]. Not in the released code. The paper does not define the scale of one term against the other:
    its contrastive loss sums over a client's anchors and its clustering loss over all items; UNION's code averages over
    anchors, and ``cl_reduction`` chooses.
    """

    card = AttackCard(
        name="cluster-attack-cl",
        title="ClusterAttack with UNION's contrastive task",
        paper="Yu et al., AAAI 2023",
        goal=Goal.DEGRADE,
        channel=Channel.GRADIENT,
        knowledge=frozenset({Knowledge.OWN_DATA}),
        notes="Adaptive attacker against `union`; written from the paper's text, no code was released.",
    )

    class Params(ClusterAttack.Params):
        """Parameters."""

        alpha: float = Field(1.0, ge=0, description="weight of the contrastive loss [paper: 1]")
        negatives: int = Field(15, ge=1, description="P, its negatives for every anchor [paper: 15]")
        dropout: float = Field(0.2, ge=0, lt=1, description="of anchors and candidates, as UNION's [UNION's code: 0.2]")
        cl_reduction: Literal["mean", "sum"] = Field(
            "mean", description="over a client's anchors [mean: UNION's code; sum: paper, eq. 4]"
        )

    params: ContrastiveClusterAttack.Params

    def _rows(self, view: AttackerView, gradient: torch.Tensor, bounds: torch.Tensor) -> tuple[Rows, ...]:
        p, batch = self.params, view.own_batch
        if not p.alpha or not len(batch.item):
            return super()._rows(view, gradient, bounds)
        num_items = bounds.shape[1]
        added = contrastive(
            view.params.items,
            batch,
            Union.Params(alpha=p.alpha, negatives=p.negatives, dropout=p.dropout, reduction=p.cl_reduction),
            self._contrast,
        )
        assert added.rows is not None
        assert added.extra is not None
        extra = added.extra
        own = coalesced(
            FullRows(
                torch.cat([batch.client, extra.client]),
                torch.cat([batch.item, extra.item]),
                torch.cat([added.rows, extra.values]),
            ),
            num_items,
        )
        values = own.values + gradient.index_select(0, own.item)
        factor = self._factor(values.norm(dim=1), bounds[own.client, own.item])
        touched = torch.zeros_like(bounds, dtype=torch.bool)
        touched[own.client, own.item] = True
        rest = shared_rows(~touched, self._factor(gradient.norm(dim=1), bounds), gradient)
        return rest, FullRows(own.client, own.item, values * factor[:, None])


@dataclass
class AdaptiveClusters:
    """The number of clusters K, which follows the loss (Yu et al., AAAI 2023, Algorithm 1).

    Each attacked round moves an exponential average, ``e <- beta e + (1 - beta) L``, and compares its bias-corrected value
    ``e / (1 - beta^t)`` with the last one. When rises exceed falls by R, K grows to ``K + sqrt(K_max - K)`` (there are too
    few clusters for the loss to fall); when falls exceed rises by R, it shrinks to ``K - sqrt(K - K_min)``. The average and
    the counts then start anew. The paper rounds down, the code to the nearest integer.

    Attributes:
        count: K. least, largest: its range. threshold: R. growth: R is multiplied by 1 + this at a change. decay: beta.
        to_integer: rounding of a new K.
    """

    count: int
    least: int = 1
    largest: int = 50
    threshold: float = 100
    growth: float = 0.0
    decay: float = 0.999
    to_integer: Callable[[float], int] = round

    average: float = 0.0
    steps: int = 0
    last: float | None = None
    rises: int = 0
    falls: int = 0

    def advance(self, loss: float) -> None:
        """One attacked round with loss L: ``count`` is that of the next one."""
        self.steps += 1
        self.average = self.decay * self.average + (1 - self.decay) * loss
        smooth = self.average / (1 - self.decay**self.steps)
        if self.last is not None:
            self.rises += smooth > self.last
            self.falls += not smooth > self.last
        self.last = smooth
        balance = self.rises - self.falls
        if abs(balance) < self.threshold:
            return
        if balance > 0:
            self.count = min(self.to_integer(self.count + math.sqrt(self.largest - self.count)), self.largest)
        else:
            self.count = max(self.to_integer(self.count - math.sqrt(self.count - self.least)), self.least)
        self.rises = self.falls = self.steps = 0
        self.average, self.last = 0.0, None
        self.threshold *= 1 + self.growth


def shared_rows(mask: torch.Tensor, coef: torch.Tensor, table: torch.Tensor) -> SharedRows:
    """The rows where ``mask``, bool [m, M], is True.

    Args:
        coef: float32 [m, M]. table: float32 [M, d].
    """
    client, item = mask.nonzero(as_tuple=True)
    return SharedRows(client, item, coef[client, item], table)


def norm_statistics(updates: Updates, num_items: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation (n - 1 in the denominator; 0 for one row) of the norms of all n M rows.

    A client's row of an item that it does not touch is ``share_i`` times the common gradient's, or 0. Those are never made:
    their norms' sums are ``share_i`` times that of all items less that of the touched ones.

    Args:
        updates: uploads of n clients. num_items: M.

    Returns:
        Two float32 scalars, summed up in float64.
    """
    common = updates.common
    total = torch.zeros((), dtype=torch.float64, device=updates.weights.device)
    square = torch.zeros_like(total)
    if common is not None:
        share, base = common.share.abs(), common.gradient.norm(dim=1)
        total += share.double().sum() * base.double().sum()
        square += share.double().square().sum() * base.double().square().sum()
    for block in updates.rows:
        if common is None:
            norms = block.norms().double()
        else:
            own = common.share.index_select(0, block.client)[:, None]
            norms = torch.addcmul(block.grad(), common.gradient.index_select(0, block.item), own).norm(dim=1).double()
            untouched = share.double().index_select(0, block.client) * base.double().index_select(0, block.item)
            total -= untouched.sum()
            square -= untouched.square().sum()
        total += norms.sum()
        square += norms.square().sum()
    count = len(updates.clients) * num_items
    mean = total / max(count, 1)
    variance = (square - count * mean.square()).clamp(min=0) / max(count - 1, 1)
    return mean.float(), variance.sqrt().float()


def k_means(points: torch.Tensor, count: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Lloyd's algorithm from ``count`` distinct random points, until the centroids move by less than 1e-4 in all.

    A point goes to its nearest centroid (tie: the first), a centroid to the mean of its points; without any it stays.

    Args:
        points: float32 [M, d]. count: K, at most M. generator: on the device of the points.

    Returns:
        labels int64 [M], and centroids float32 [K, d]: means of the points so labelled.
    """
    seeds = torch.randperm(len(points), generator=generator, device=points.device)[:count]
    centroids = points.index_select(0, seeds)
    labels = seeds.new_zeros(len(points))
    for _ in range(ITERATIONS):
        # [K, M] and not [M, K]: up to 1.7 times as fast on a CPU.
        labels = torch.addmm(centroids.square().sum(1, keepdim=True), centroids, points.T, alpha=-2).min(0).indices
        size = occurrences(labels, count).to(points.dtype)[:, None]
        sums = torch.zeros_like(centroids).index_add_(0, labels, points)
        moved = torch.where(size > 0, sums / size.clamp(min=1), centroids)
        shift = (moved - centroids).norm()
        centroids = moved
        if shift < SHIFT:
            break
    return labels, centroids
