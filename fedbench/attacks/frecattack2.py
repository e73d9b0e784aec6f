"""FRecAttack2: virtual users stand for the real ones, and are taught the opposite of what they like."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import Literal

import torch
from pydantic import Field

from fedbench.attacks.batches import looked_at, only, regular_batch
from fedbench.attacks.cluster_attack import k_means
from fedbench.attacks.own_data import random_profiles
from fedbench.defenses.score_trend import ScoreTrend, liking
from fedbench.entries.cards import AttackCard, Channel, Goal, Knowledge, Parameters
from fedbench.federation.attack import Attack
from fedbench.federation.batch import Batch
from fedbench.federation.losses import Loss
from fedbench.federation.model import PublicParams, Recommender
from fedbench.federation.rows import FullRows, occurrences
from fedbench.federation.updates import DenseGradients, Updates
from fedbench.federation.view import AttackerView, Profiles

CLUSTERS = range(2, 12)
"""Numbers of clusters that are tried [code]."""
RESTARTS = 10
"""k-means is run so often, and the run with the nearest centroids counts [code]."""
PIECE = 1024
"""Points whose distances to all others are made at once."""


class FRecAttack2(Attack):
    """Untargeted attack by the gradients of made-up users (Hao et al., CCS 2024; where users' embeddings are private).

    Each sampled client, on its own:

    1. Virtual users: n of them. ``independent`` (IndSH): ``N(p, sigma^2 I)`` around its own embedding p. ``colluding``
       (ColSH): the attacker's clients tell each other their embeddings, which k-means puts into 2 to 11 clusters, as many as
       give the largest mean silhouette; cluster i with a share s_i of them gives ``floor(s_i n)`` users,
       ``N(c_i, (sigma s_i / max s)^2 I)`` [code].
    2. Hard items: with the scores ``r_j = sum over virtual users of sigma(s(p, v_j))`` the first ``share`` of the items are
       its negatives, the last its positives. The ranking is by the change of r since the client's last participation while
       the model is young, and by r later: :class:`fedbench.defenses.score_trend.ScoreTrend`. The embeddings of then are
       scored with the perceptron and the virtual users of now [code].
    3. Upload: the gradients, by those items' rows and by the dense parameters, of the virtual users' mean cross-entropy. It
       counts as that many samples [code]. An item may be at both ends, as the ends are taken at different times.

    The clients' own embeddings p follow their own data as honest ones do, one step a participation. The code moves
    independent clients' 20 steps (``own_steps``), and those of all colluders one step in each of its epochs, of which there
    are ten to a pass over the users; it finds its clusters anew as often. Here that is once an epoch, among the embeddings
    that the attacker's clients had when they last took part, and in between whenever twice as many have taken part.

    Published for 16 clients a round, the mean weighted by numbers of samples, learning rate 0.005, 36 passes, HR@10 by full
    ranking of one random held-out item of each user [code]. Its FedMLP is ``ncf`` with d = 16 and hidden sizes 64, 32, 16, 8;
    its FedNCF is ``neumf``. Protocol ``ccs24`` and suite ``ccs24-table3`` have all this.

    The paper's other two settings, where users' embeddings are public under differential privacy, are of models of graphs
    that there are not here.
    """

    card = AttackCard(
        name="frecattack2",
        title="FRecAttack2",
        paper="Hao et al., CCS 2024",
        goal=Goal.DEGRADE,
        channel=Channel.GRADIENT,
        knowledge=frozenset({Knowledge.OWN_DATA}),
        invents_users=True,
        notes="Two of its four settings: private user embeddings, clients that act independently or collude.",
    )

    class Params(Parameters):
        """Parameters."""

        collusion: Literal["independent", "colluding"] = Field(
            "independent", description="whether clients tell each other their embeddings [paper: both, IndSH and ColSH]"
        )
        virtual_users: int = Field(100, ge=1, le=10_000, description="n, for each client [code: 100 on ML-1M; else 50]")
        sigma: float = Field(0.1, gt=0, description="standard deviation of virtual users [code: 0.1]")
        share: float = Field(0.1, gt=0, le=0.5, description="of the items at either end, hard ones [code: 0.1]")
        switch: Literal["patience", "majority"] = Field(
            "patience",
            description="when the ranking turns from changes to scores: guesses share no more items than before [code],"
            " or they seldom come to share more [README]",
        )
        patience: int = Field(6, ge=1, description="looks in vain before it turns [code: 6]")
        later_patience: int = Field(3, ge=1, description="looks in vain before guesses are taken anew [code: 3]")
        memory: int = Field(6, ge=1, description="M, looks of which a majority counts [not stated; ours: as patience]")
        own_steps: int | None = Field(
            None,
            ge=1,
            le=1_000,
            description="steps of plain descent on its own data that a client's p takes after a participation [code: 20"
            " independent, about 10 colluding]; None: as the protocol has it for an honest client [ours]",
        )
        profile_size: int = Field(30, ge=1, description="positives of an injected client's profile [ours; as RA: 30]")

    params: FRecAttack2.Params

    def start(self, view: AttackerView) -> None:
        shape = (view.num_malicious, view.embedding_size)
        self._embeddings = torch.zeros(shape, device=view.device)
        self._met = torch.zeros(shape[0], dtype=torch.bool, device=view.device)
        self._clusters: Clusters | None = None
        self._when = (0, 0)
        self._trends: dict[int, ScoreTrend] = {}

    def profiles(self, view: AttackerView) -> Profiles:
        return random_profiles(view, self.params.profile_size)

    def craft(self, view: AttackerView) -> Updates:
        p = self.params
        count = max(1, int(p.share * view.num_items + 1e-9))
        users = self._virtual(view)
        if p.own_steps is not None:
            self._embeddings[view.clients] = descended(view, self._embeddings[view.clients], p.own_steps)
        view.honest()  # what the federation holds of the clients follows their own data, whatever they make of it
        shown = looked_at(view.model, view.params)
        index, items, rows, dense = [], [], [], []
        # Client by client: each is a hundred users, whose gradients are cheapest where they are added up at once.
        for place, client in enumerate(view.clients.tolist()):
            if client not in self._trends:
                self._trends[client] = ScoreTrend(count, p.switch, p.patience, p.later_patience, p.memory)
            ends = self._trends[client].look(
                view.params.items, functools.partial(liking, view.model, shown, users[place])
            )
            item, values, other = taught(view.model, view.params, users[place], ends[1], ends[0])
            index.append(torch.full_like(item, place))
            items.append(item)
            rows.append(values)
            dense.append(other)
        upload = FullRows(torch.cat(index), torch.cat(items), torch.cat(rows))
        stacked = {name: torch.stack([each[name] for each in dense]) for name in view.params.dense}
        weights = upload.values.new_full((len(view.clients),), 2.0 * count)
        return Updates(view.clients, (upload,), DenseGradients.of(stacked), weights)

    def _virtual(self, view: AttackerView) -> torch.Tensor:
        """float32 [m, k, d]: the virtual users of each client."""
        p, fresh = self.params, view.own_users
        if p.own_steps is not None:
            fresh = torch.where(self._met[view.clients, None], self._embeddings[view.clients], fresh)
        self._embeddings[view.clients] = fresh
        self._met[view.clients] = True
        if p.collusion == "independent":
            shape = (len(fresh), p.virtual_users, fresh.shape[1])
            return fresh[:, None] + p.sigma * torch.randn(shape, generator=view.generator, device=view.device)
        known = self._embeddings[self._met]
        if self._clusters is None or view.epoch != self._when[0] or len(known) >= 2 * self._when[1]:
            self._clusters, self._when = clusters(known, view.generator), (view.epoch, len(known))
        center, spread = self._clusters.users(p.virtual_users, p.sigma)
        shape = (len(fresh), *center.shape)
        return center + spread[:, None] * torch.randn(shape, generator=view.generator, device=view.device)


def descended(view: AttackerView, users: torch.Tensor, steps: int) -> torch.Tensor:
    """float32 [m, d]: the ``users`` of the sampled clients after steps of descent on the cross-entropy of their own data."""
    batch = view.own_batch
    loss, batch = Taught(labels=batch.positive), replace(batch, positive=torch.zeros_like(batch.positive))
    for _ in range(steps):
        users = users - view.learning_rate * view.model.local_step(view.params, users, batch, loss).users
    return users


@dataclass(frozen=True)
class Taught(Loss):
    """Cross-entropy with labels that the batch does not say, float32 [R]: models of graphs see no graph of positives."""

    labels: torch.Tensor | None = None

    def derivative(self, logits: torch.Tensor, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        assert self.labels is not None
        return super().derivative(logits, replace(batch, positive=self.labels))


def taught(
    model: Recommender, params: PublicParams, users: torch.Tensor, liked: torch.Tensor, disliked: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
    """The gradient of the mean over users of ``-(1/r) [sum_liked log sigma(s) + sum_disliked log sigma(-s)]``.

    Args:
        params: the public parameters. users: float32 [n, d], constants.
        liked, disliked: bool [M], r items in all; one that is in both counts twice.

    Returns:
        the items int64 [k], their rows float32 [k, d], and name -> float32 [*shape].
    """
    n, item = len(users), (liked | disliked).nonzero().squeeze(1)
    labels, other = liked[item].to(users.dtype), disliked[item].to(users.dtype)
    places = torch.arange(len(item), device=item.device).expand(n, -1)
    batch = regular_batch(places, users.new_zeros(n, len(item)))
    batch = replace(batch, weight=(labels + other).repeat(n), size=(labels + other).sum().expand(n))
    step = model.local_step(only(params, item), users, batch, Taught(labels=labels.repeat(n)))
    rows = torch.stack([block.sum(len(item)) for block in step.rows]).sum(0) / n
    return item, rows, {name: value / n for name, value in step.dense.total().items()}


@dataclass(frozen=True)
class Clusters:
    """Clusters of embeddings: float32 [k, d], ``centers``, and int64 [k], ``sizes``."""

    centers: torch.Tensor
    sizes: torch.Tensor

    def users(self, count: int, sigma: float) -> tuple[torch.Tensor, torch.Tensor]:
        """The centers of ``count`` users or a few less, float32 [k, d], and their standard deviations, float32 [k].

        One of the largest cluster's, where each would have a fraction of a user [ours].
        """
        number = self.sizes * count // self.sizes.sum()
        number[self.sizes.argmax()] += number.sum() == 0
        spread = sigma * self.sizes / self.sizes.max()
        return self.centers.repeat_interleave(number, 0), spread.repeat_interleave(number)


def clusters(points: torch.Tensor, generator: torch.Generator) -> Clusters:
    """The clusters of ``points``, float32 [n, d], as many as have the largest mean silhouette; one of fewer than 3 points."""
    best, found = (
        -float("inf"),
        Clusters(points.mean(0, keepdim=True), torch.tensor([len(points)], device=points.device)),
    )
    for k in CLUSTERS:
        if k >= len(points):
            break
        runs = [k_means(points, k, generator) for _ in range(RESTARTS)]
        spread = torch.stack([(points - centers[labels]).square().sum() for labels, centers in runs])
        labels, centers = runs[int(spread.argmin())]
        value = float(silhouette(points, labels, k))
        if value > best:
            best, found = value, Clusters(centers, occurrences(labels, k))
    return found


def silhouette(points: torch.Tensor, labels: torch.Tensor, count: int) -> torch.Tensor:
    """The mean over points of ``(b - a) / max(a, b)`` (Rousseeuw 1987), a scalar; 0 of a point that is alone.

    a is its mean distance to the others of its cluster, b the least of those to another cluster's.

    Args:
        points: float32 [n, d]. labels: int64 [n]. count: k; clusters may be empty.
    """
    member = torch.nn.functional.one_hot(labels, count).to(points.dtype)
    size = member.sum(0)
    total = torch.cat([torch.cdist(piece, points) @ member for piece in points.split(PIECE)])
    own = labels[:, None]
    inside = total.gather(1, own).squeeze(1) / (size[labels] - 1).clamp(min=1)
    beside = (total / size).masked_fill(size == 0, torch.inf).scatter(1, own, torch.inf).amin(1)
    value = (beside - inside) / torch.maximum(inside, beside).clamp(min=torch.finfo(points.dtype).tiny)
    return torch.where((size[labels] > 1) & beside.isfinite(), value, 0.0).mean()
