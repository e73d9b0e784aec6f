"""A-ra and A-hum: attack without any knowledge, through pseudo-users in the place of the real ones."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from pydantic import Field

from fedbench.attacks.batches import looked_at, only, regular_batch
from fedbench.attacks.demotion import turned_round
from fedbench.attacks.uploads import target_updates
from fedbench.entries.cards import AttackCard, Channel, Goal, Parameters
from fedbench.federation.attack import Attack
from fedbench.federation.batch import Batch
from fedbench.federation.losses import Loss
from fedbench.federation.updates import DenseGradients, Tensors, Updates
from fedbench.federation.view import AttackerView

MF_MINING_RATE = 0.1


@dataclass(frozen=True)
class Liking(Loss):
    """The loss of somebody who likes every sample of a batch that says of none that it is liked.

    So models of graphs see a vector that stands for a user, and no graph that holds the target.
    """

    def derivative(self, logits: torch.Tensor, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        return super().derivative(logits, replace(batch, positive=batch.weight))

    def value(self, logits: torch.Tensor, batch: Batch) -> torch.Tensor:
        return super().value(logits, replace(batch, positive=batch.weight))


class RandomApproximation(Attack):
    """``L_c = -(1/(n |T|)) sum_t sum_i log sigma(s(p_i, v_t))``, with ``p_1..p_n ~ N(0, sigma^2 I)`` fresh each round.

    Rong et al. (IJCAI 2022, eq. 7): normally distributed vectors stand for the users that the attacker cannot see. Each
    client uploads the gradients by the targets' rows and by all dense parameters; the p are constants and nothing is
    kept between rounds. The paper sums over the targets, its code takes the mean, as here (the same for one target;
    ``strength = |T|`` gives the paper's).

    For mf the row of t is ``-(1/(n |T|)) sum_i (1 - sigma(p_i.v_t)) p_i``, noise of length about
    ``0.5 sigma sqrt(d/n)`` in a random direction: no effect, as published (ICDE'24: 0.11). For ncf the dense gradients
    teach the perceptron to answer 1 for the target whatever the user.
    """

    card = AttackCard(
        name="a-ra",
        title="Random approximation (A-ra)",
        paper="Rong et al., IJCAI 2022",
        goal=Goal.PROMOTE,
        channel=Channel.GRADIENT,
        invents_users=True,
        notes="Made for models with dense parameters; on mf it has nothing to act through.",
    )

    class Params(Parameters):
        """Parameters of the pseudo-users."""

        pseudo_users: int = Field(10, ge=1, description="n, pseudo-users for each client and round [IJCAI'22: 10]")
        init_std: float = Field(0.01, gt=0, description="sigma, their standard deviation [IJCAI'22: 0.01]")
        strength: float = Field(
            1.0, gt=0, description="factor on the upload, for comparisons at equal strength x clients [paper: 1]"
        )

    params: RandomApproximation.Params
    wanted: ClassVar[Loss] = Liking()
    """What pseudo-users are to think of the targets."""

    def craft(self, view: AttackerView) -> Updates:
        count = len(view.targets)
        shape = (len(view.clients), self.params.pseudo_users, view.embedding_size)
        pseudo = torch.randn(shape, generator=view.generator, device=view.device) * self.params.init_std
        item = torch.arange(count, device=view.device).expand(shape[0] * shape[1], count)
        return self._boost(view, pseudo.flatten(0, 1), item)

    def _boost(self, view: AttackerView, pseudo: torch.Tensor, item: torch.Tensor) -> Updates:
        """What the clients upload: their pseudo-users' gradients, each of which likes (or dislikes) the targets.

        Args:
            pseudo: float32 [m k, d], k pseudo-users of the first client, then of the second, and so on.
            item: int64 [m k, r], which targets (0 to T - 1) each of them is to judge: all (r = T), or one (r = 1).
        """
        m, count = len(view.clients), len(view.targets)
        k = len(pseudo) // m
        batch = regular_batch(item, torch.zeros(item.shape, device=view.device))
        step = view.model.local_step(only(view.params, view.targets), pseudo, batch, self.wanted)
        # Each pseudo-user's loss is a mean over its r targets; with the mean over k, 1/(k r) = 1/(n T) either way.
        share = self.params.strength / k
        rows, dense = torch.zeros(m * count, view.embedding_size, device=view.device), step.dense
        for block in step.rows:
            rows += block.reassigned(block.client // k * count + block.item).sum(m * count)

        def total() -> Tensors:
            return {name: value * share for name, value in dense.total().items()}

        def stacked() -> Tensors:
            return {name: value.view(m, k, *value.shape[1:]).sum(1) * share for name, value in dense.stacked().items()}

        return replace(target_updates(view, rows.view(m, count, -1) * share, {}), dense=DenseGradients(total, stacked))


class HardUserMining(RandomApproximation):
    """A-ra with pseudo-users that do not like the target: hard users, mined by ``beta`` gradient steps.

    Rong et al. (IJCAI 2022; the upload is its eq. 10). A step, at the received parameters, is
    ``p <- p - xi d/dp [-log(1 - sigma(s(p, v_t)))]``; for mf ``p <- p - xi sigma(p.v_t) v_t``.

    Readings:

    * ``mining``: the paper mines pseudo-users for each target of its own (n |T| in all), the code one set on the mean
      over the targets. The same for one target; default: the paper's.
    * ``mining_rate`` xi: paper 0.001; both codes use the protocol's learning rate (ncf: 0.001 in IJCAI'22, 0.005 in
      ICDE'24). On mf (eta = 1) that diverges to NaN and the published file is missing; default 0.1, one of several that
      pass through the published number: each round multiplies v_t by about ``1 - eta m beta xi / 4``, so that its sign
      alternates and ER swings from epoch to epoch at every xi from 0.05 to 0.2, and is 0 where the factor shrinks v_t.
    """

    card = AttackCard(
        name="a-hum",
        title="Hard user mining (A-hum)",
        paper="Rong et al., IJCAI 2022",
        goal=Goal.PROMOTE,
        channel=Channel.GRADIENT,
        invents_users=True,
        notes="On mf it oscillates between no and full exposure from epoch to epoch: read the curve or the mean over"
        " the last epochs, not the end.",
    )

    class Params(RandomApproximation.Params):
        """Parameters of the pseudo-users and of the mining."""

        mining_rate: float | None = Field(
            None,
            gt=0,
            description="xi; default by model: 0.1 on mf [not published], the protocol's learning rate on others"
            " [code of IJCAI'22 and ICDE'24; IJCAI'22: 0.001, equal under its protocol]",
        )
        mining_steps: int = Field(30, ge=0, description="beta [IJCAI'22: 30]")
        mining: Literal["per-target", "shared"] = Field(
            "per-target", description="pseudo-users of each target's own [IJCAI'22], or one set for all [its code]"
        )

    params: HardUserMining.Params
    mined: ClassVar[Loss] = Loss()
    """What those think of the targets who are hard to convince: -log(1 - sigma(s)), the cross-entropy of a negative."""

    def craft(self, view: AttackerView) -> Updates:
        m, n, count, d = len(view.clients), self.params.pseudo_users, len(view.targets), view.embedding_size
        own = self.params.mining == "per-target"
        shape = (m, n, count, d) if own else (m, n, d)
        pseudo = torch.randn(shape, generator=view.generator, device=view.device).view(-1, d) * self.params.init_std
        index = torch.arange(count, device=view.device)
        item = index.repeat(m * n)[:, None] if own else index.expand(m * n, count)
        return self._boost(view, self._mine(view, pseudo, item), item)

    def _mine(self, view: AttackerView, pseudo: torch.Tensor, item: torch.Tensor) -> torch.Tensor:
        """Hard users, float32 [k, d], from ``pseudo`` [k, d]; shapes as in ``_boost``."""
        rate = self.params.mining_rate
        if rate is None:
            rate = MF_MINING_RATE if view.model.card.name == "mf" else view.learning_rate
        params = looked_at(view.model, only(view.params, view.targets))
        batch = regular_batch(item, torch.zeros(item.shape, device=view.device))
        for _ in range(self.params.mining_steps):
            pseudo = pseudo - rate * view.model.local_step(params, pseudo, batch, self.mined).users
        return pseudo


class RandomDemotion(RandomApproximation):
    """``L_c = -(1/(n |T|)) sum_t sum_i log(1 - sigma(s(p_i, v_t)))``, p as in a-ra: random users who dislike the targets."""

    card = turned_round(RandomApproximation.card)
    wanted = Loss()


class HardFanMining(HardUserMining):
    """A-hum turned round: pseudo-users are mined to like the targets, and uploaded is that they dislike them.

    A step of the mining is ``p <- p - xi d/dp [-log sigma(s(p, v_t))]``; for mf ``p <- p + xi (1 - sigma(p.v_t)) v_t``.
    """

    card = turned_round(HardUserMining.card)
    wanted = Loss()
    mined = Liking()
