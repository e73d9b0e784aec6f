"""PSMU: poison with synthetic malicious users, new ones in every round."""

from __future__ import annotations

import math
from typing import Literal

import torch
from pydantic import Field

from fedbench.attacks.batches import regular_batch
from fedbench.attacks.sampling import distinct, outside
from fedbench.attacks.uploads import target_updates
from fedbench.entries.cards import AttackCard, Channel, Goal, Parameters
from fedbench.errors import UserError
from fedbench.federation.attack import Attack
from fedbench.federation.losses import Loss
from fedbench.federation.model import PublicParams
from fedbench.federation.updates import Updates
from fedbench.federation.view import AttackerView


class SyntheticMaliciousUsers(Attack):
    """Each client simulates a fresh user and lifts the targets into that user's recommended list.

    Yuan et al. (2023), as restated in section 4.2 of the visually-aware federated recommendation paper (TOIS), its
    Algorithm 2. In every round that a client plays:

    1. draw a profile P of ``profile_size`` items, uniform without replacement, none of them a target, and ``negatives``
       items outside P for each, uniform with repetition;
    2. fit the synthetic embedding u to that profile by cross-entropy, public parameters fixed (eq. 13);
    3. recommend: J = the ``list_size`` highest scored items outside P, targets then dropped;
    4. ``L_c = sum_t sum_(j in J) sigma(s_uj - s_ut)`` (eq. 12, 14);
    5. upload the gradients by the targets' rows (eq. 16) and by the dense parameters (eq. 15); u is fixed.

    For mf the row of t is ``-sum_j sigma(a_j) (1 - sigma(a_j)) u`` [d], with ``a_j = s_uj - s_ut``.

    Readings:

    * ``margin``: the source writes predicted scores r where step 4 has logits s. With ``r = sigma(s)``, its literal
      reading, the slope carries a factor ``r_t (1 - r_t)`` that vanishes for a target that is scored low, and 0.1 % of
      malicious clients do nothing (ML-1M, ncf, attack from epoch 8: ER@5 = 0). With logits ER@5 reaches 1 there and
      stays above a-hum, which is what was published; hence the default.
    * The fit of step 2: optimiser, steps and learning rate are not stated. Adam from N(0, 0.01^2), 100 steps at 0.05,
      after which the loss on ncf is flat; with the tiny embeddings of mf's first epochs no such fit comes to an end.
    * The list's length is not stated: that of ER@5.
    """

    card = AttackCard(
        name="psmu",
        title="Poisoning with synthetic malicious users (PSMU)",
        paper="Yuan et al., 2023",
        goal=Goal.PROMOTE,
        channel=Channel.GRADIENT,
        invents_users=True,
        notes="Published for ncf and lightgcn under a server with Adam, attack from epoch 8 on (protocol parameter"
        " attack_start). The fit of the synthetic users and the list's length are not stated there.",
    )

    class Params(Parameters):
        """Parameters of the synthetic users."""

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
        margin: Literal["probability", "logit"] = Field(
            "logit",
            description="what eq. 12 compares: logits [gives the published effect], or sigmoid outputs [its letter]",
        )

    params: SyntheticMaliciousUsers.Params

    def start(self, view: AttackerView) -> None:
        """Raises :class:`UserError` when the catalogue is too small for a profile and a list."""
        count, needed = len(view.targets), self.params.profile_size + self.params.list_size
        if needed > view.num_items - count:
            raise UserError(
                f"attack {self.card.name!r}: profile_size + list_size = {needed} must not exceed the"
                f" {view.num_items - count} items of the dataset that are no targets."
            )

    def craft(self, view: AttackerView) -> Updates:
        positives, negatives = self.draw(view)
        users = self.fit(view, positives, negatives)
        scores = view.model.score_all(view.params, users).scatter(1, positives, -math.inf)
        listed = scores.topk(self.params.list_size, dim=1).indices
        return self._lift(view, users, listed)

    def draw(self, view: AttackerView) -> tuple[torch.Tensor, torch.Tensor]:
        """Synthetic profiles: positives int64 [m, P], negatives int64 [m, q P]. A target may be a negative."""
        p, m, g = self.params, len(view.clients), view.generator
        targets = view.targets.expand(m, -1)
        positives = outside(targets, distinct(m, p.profile_size, view.num_items - targets.shape[1], g))
        free = view.num_items - p.profile_size
        rank = torch.randint(free, (m, p.profile_size * p.negatives), generator=g, device=view.device)
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
        params = PublicParams(view.params.items.index_select(0, item.reshape(-1)), view.params.dense)
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

    def _lift(self, view: AttackerView, users: torch.Tensor, listed: torch.Tensor) -> Updates:
        """The gradients of ``L_c`` (steps 4 and 5).

        Args:
            users: float32 [m, d]. listed: int64 [m, K], the recommended lists; targets in them do not count.
        """
        (m, d), count, size = users.shape, len(view.targets), listed.shape[1]
        counted = ~torch.isin(listed, view.targets)
        with torch.enable_grad():
            target = view.params.items[view.targets].expand(m, count, d).clone().requires_grad_()
            dense = {
                name: value.expand(m, *value.shape).clone().requires_grad_()
                for name, value in view.params.dense.items()
            }
            items = torch.cat([view.params.items[listed], target], dim=1)
            r = view.model.logits(dense, users[:, None].expand(m, size + count, d), items)
            if self.params.margin == "probability":
                r = torch.sigmoid(r)
            margin = r[:, :size, None] - r[:, None, size:]
            loss = (torch.sigmoid(margin) * counted[:, :, None]).sum()
            rows, *by_dense = torch.autograd.grad(loss, [target, *dense.values()])
        return target_updates(view, rows, dict(zip(dense, by_dense, strict=True)))
