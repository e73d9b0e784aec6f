"""Users that an attacker makes up: a profile, an embedding fitted to it, and the list that they would be shown.

What psmu and the attacks on images derived from it have in common (Yuan et al. 2023, as restated in section 4.2 of TOIS).
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from pydantic import Field

from fedbench.attacks.batches import looked_at, only, regular_batch
from fedbench.attacks.sampling import distinct, others, outside
from fedbench.entries.cards import LATER, Knowledge, Parameters
from fedbench.errors import UserError
from fedbench.federation.attack import Attack
from fedbench.federation.losses import Loss
from fedbench.federation.mining import delta_norm
from fedbench.federation.model import Histories
from fedbench.federation.view import AttackerView

Margin = Literal["probability", "logit", "softplus"]


class SyntheticUserParameters(Parameters):
    """How synthetic users are made."""

    profile_size: int = Field(30, ge=1, description="synthetic positives [TOIS: 30]")
    negatives: int = Field(4, ge=1, description="q, synthetic negatives for each positive [TOIS: 1:4]")
    list_size: int = Field(5, ge=1, description="K, length of the recommended list [not stated; that of ER@5]")
    fit_steps: int = Field(100, ge=1, description="Adam steps of the fit [not stated]")
    fit_lr: float = Field(0.05, gt=0, description="Adam's learning rate in the fit [not stated]")
    init_std: float = Field(
        0.01,
        gt=0,
        description="standard deviation of the embedding before the fit [not stated; honest clients': 0.01]",
    )
    profiles: Literal["uniform", "popularity", "mined"] = Field(
        "uniform",
        description="how a profile is drawn: uniformly [TOIS]; by popularity (attacks that know it); or uniformly from the"
        " items whose embeddings moved most while the attacker watched, which needs no knowledge",
        json_schema_extra=LATER,
    )
    mined_share: float = Field(
        0.1, gt=0, le=1, description="share of the items that 'mined' profiles are drawn from", json_schema_extra=LATER
    )


class SyntheticUsers(Attack):
    """Makes up users, new ones whenever it is asked.

    1. Draw a profile P of ``profile_size`` items without replacement, none of them a target, and ``negatives`` items
       outside P for each, uniform with repetition;
    2. fit the synthetic embedding u to that profile by cross-entropy, public parameters fixed (eq. 13);
    3. recommend: J = the ``list_size`` highest scored items outside P.

    In models of graphs (lightgcn, lightvgcn) the user's graph is P: the fit, the list and whatever compares scores see
    the user as it is propagated over P.
    """

    params: SyntheticUserParameters

    def __init__(self, params: Parameters) -> None:
        super().__init__(params)
        self._last: torch.Tensor | None = None
        self._moved: torch.Tensor | None = None

    def start(self, view: AttackerView) -> None:
        """Raises :class:`UserError`: the catalogue is too small for a profile and a list, or popularity is not known."""
        count, needed = len(view.targets), self.params.profile_size + self.params.list_size
        if needed > view.num_items - count:
            raise UserError(
                f"attack {self.card.name!r}: profile_size + list_size = {needed} must not exceed the"
                f" {view.num_items - count} items of the dataset that are no targets."
            )
        if self.params.profiles == "popularity" and Knowledge.ITEM_POPULARITY not in self.card.knowledge:
            raise UserError(
                f"attack {self.card.name!r}: profiles = 'popularity' needs to know item_popularity, which this attack does"
                " not; use 'psmu-popular', or profiles = 'mined'."
            )

    def make_up(self, view: AttackerView, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        """``count`` = m fresh users: what scores items for them, float32 [m, d], and their lists, int64 [m, K]."""
        if self.params.profiles == "mined":
            self._watch(view.params.items)
        positives, negatives = self.draw(view, count)
        return self.recommend(view, positives, self.fit(view, positives, negatives))

    def draw(self, view: AttackerView, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Profiles of ``count`` = m users: positives int64 [m, P], negatives int64 [m, q P]. A target may be a negative."""
        p, g = self.params, view.generator
        positives = self._profiles(view, count)
        free = view.num_items - p.profile_size
        rank = torch.randint(free, (count, p.profile_size * p.negatives), generator=g, device=view.device)
        return positives, outside(positives, rank)

    def fit(self, view: AttackerView, positives: torch.Tensor, negatives: torch.Tensor) -> torch.Tensor:
        """float32 [m, d]: embeddings fitted to the profiles (eq. 13), by Adam with its usual betas and epsilon.

        Args:
            positives: int64 [m, P]. negatives: int64 [m, q P].
        """
        item = torch.cat([positives, negatives], dim=1)
        label = torch.zeros(item.shape, device=view.device)
        label[:, : positives.shape[1]] = 1
        # A table with one row for each sample: the fit then costs the same in any catalogue.
        params = looked_at(view.model, only(view.params, item.reshape(-1)))
        batch = regular_batch(torch.arange(item.numel(), device=view.device).view(item.shape), label)
        shape = (len(item), view.embedding_size)
        users = torch.randn(shape, generator=view.generator, device=view.device) * self.params.init_std
        first, second = torch.zeros_like(users), torch.zeros_like(users)
        for step in range(1, self.params.fit_steps + 1):
            gradient = view.model.local_step(params, users, batch, Loss()).users
            first = first.lerp(gradient, 0.1)
            second = second.lerp(gradient * gradient, 0.001)
            size = self.params.fit_lr / (1 - 0.9**step)
            users = users - size * first / ((second / (1 - 0.999**step)).sqrt() + 1e-8)
        return users

    def recommend(
        self, view: AttackerView, positives: torch.Tensor, users: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """What scores items for users, float32 [m, d], and their lists, int64 [m, K].

        Args:
            positives: int64 [m, P]. users: float32 [m, d], their own embeddings.
        """
        m, size = positives.shape
        owner = torch.arange(m, device=view.device).repeat_interleave(size)
        users = view.model.represent(view.params, users, Histories.of(owner, positives.reshape(-1), m))
        scores = view.model.score_all(view.params, users).scatter(1, positives, -math.inf)
        return users, scores.topk(self.params.list_size, dim=1).indices

    def _profiles(self, view: AttackerView, m: int) -> torch.Tensor:
        """int64 [m, P]."""
        p, g = self.params, view.generator
        if p.profiles == "popularity":
            weight = view.item_popularity.float() + 1e-6  # items without any come last
            weight[view.targets] = 0
            return torch.multinomial(weight.expand(m, -1), p.profile_size, generator=g)
        if p.profiles == "mined" and self._moved is not None:
            candidates = others(view.num_items, view.targets)
            most = min(len(candidates), max(p.profile_size, math.ceil(p.mined_share * view.num_items)))
            candidates = candidates[self._moved[candidates].topk(most).indices]
            return candidates[distinct(m, p.profile_size, most, g)]
        targets = view.targets.expand(m, -1)
        return outside(targets, distinct(m, p.profile_size, view.num_items - targets.shape[1], g))

    def _watch(self, items: torch.Tensor) -> None:
        """Add up how far every embedding moved since the attacker last looked; what it has seen is not copied."""
        if self._last is not None:
            moved = delta_norm(self._last, items)
            self._moved = moved if self._moved is None else self._moved + moved
        self._last = items


def compared(logits: torch.Tensor, margin: Margin) -> torch.Tensor:
    """What a margin compares: logits, or predicted probabilities."""
    return torch.sigmoid(logits) if margin == "probability" else logits


def lag(difference: torch.Tensor, margin: Margin) -> torch.Tensor:
    """The loss of ``difference`` = r_uj - r_ut of an item of the list and a target: sigma of it, or softplus."""
    return torch.nn.functional.softplus(difference) if margin == "softplus" else torch.sigmoid(difference)
