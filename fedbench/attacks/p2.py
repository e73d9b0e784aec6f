"""P2, "a little is enough": a poisoned update that hides inside the spread of honest ones."""

from __future__ import annotations

import math
from statistics import NormalDist

import torch
from pydantic import Field

from fedbench.attacks.demotion import turned_round, wish
from fedbench.attacks.own_data import random_profiles, split_targets, target_loss, with_target_rows
from fedbench.entries.cards import AttackCard, Channel, Goal, Knowledge, Parameters
from fedbench.federation.attack import Attack
from fedbench.federation.rows import FullRows, occurrences
from fedbench.federation.updates import Updates
from fedbench.federation.view import AttackerView, Profiles

SMALLEST_Z = 0.3
"""z where the rule gives none above 0: the malicious clients of a round are too few for it, or as many as honest ones."""


class LittleIsEnough(Attack):
    """The backdoor form of Baruch et al. (NeurIPS 2019), baseline P2 of WSDM'22.

    From the honest gradients of its own clients the attacker estimates every coordinate's mean mu and standard deviation
    s. Each client minimises ``alpha L_c + (1 - alpha) sum_k (delta_k / w_k)^2`` over the change delta of the targets' rows
    and the dense parameters (L_c as in :class:`~fedbench.attacks.p1.ModelReplacement`; w is 1, or with ``scaled_distance``
    z s, at least 1e-5, in units of parameters) in E steps, each a gradient step of rate eta on the first term and
    the exact minimiser (a proximal step) of the second, which is stiff. It uploads ``-delta / eta`` with every coordinate
    clamped to ``mu +- z s``; its other rows are honest, clamped likewise.

    z is a parameter, or ``Phi^-1((n - m - s) / (n - m))``, ``s = floor(n/2 + 1) - m``, for n clients of a round and m
    malicious ones: less than .1 where these are few, as they are in federated recommendation, and then nothing is left.

    An item row's mu and s are over the clients that touch it. A target that none of them touches would have s = 0 and could
    not move, so a target's mu and s are those of all item rows seen in the round, pooled by coordinate: our choice, and it
    decides the strength. With a single client, a dense tensor's s is that of its own coordinates.
    """

    card = AttackCard(
        name="p2",
        title="P2, a little is enough",
        paper="Baruch et al., NeurIPS 2019; baseline in Zhang et al., WSDM 2022",
        goal=Goal.PROMOTE,
        channel=Channel.GRADIENT,
        invents_users=True,
        knowledge=frozenset({Knowledge.OWN_DATA, Knowledge.COHORT_SIZE}),
        notes="Adapted from image classification; how sparse item rows are bounded is our choice. In version 1 z"
        " followed the rule and the distance was in units of the interval, which left nothing of the attack.",
        version=2,
    )

    class Params(Parameters):
        """Parameters."""

        z: float | None = Field(
            1.5,
            gt=0,
            description="width of the interval in s; None: the rule above [original: rule, or 1 to 1.5; version 1: rule]",
        )
        alpha: float = Field(0.5, gt=0, lt=1, description="share of the target's loss [original: 0.2 to 0.8]")
        local_steps: int = Field(5, ge=1, description="E [original: 5 epochs]")
        scaled_distance: bool = Field(
            False, description="distance in units of the interval, or plain [not stated; version 1: units]"
        )
        profile_size: int = Field(30, ge=1, description="positives of an injected client's profile [as RA: 30]")

    params: LittleIsEnough.Params

    def profiles(self, view: AttackerView) -> Profiles:
        return random_profiles(view, self.params.profile_size)

    def craft(self, view: AttackerView) -> Updates:
        p, honest, eta = self.params, view.honest(), view.learning_rate
        z = p.z if p.z is not None else width(view.cohort_size, view.malicious_per_round)
        rest, _ = split_targets(view, honest)
        everything = honest.updates.all_rows().values
        bounds = [(everything.mean(0), everything.std(0, correction=0))]
        own = honest.updates.dense.stacked()
        for value in own.values():
            spread = value.std(0, correction=0) if len(value) > 1 else value.std(correction=0).expand(value.shape[1:])
            bounds.append((value.mean(0), spread))
        m = len(view.clients)
        start = [view.params.items[view.targets], *view.params.dense.values()]
        change = [torch.zeros(m, *value.shape, device=view.device) for value in start]
        units = [eta * (z * s).clamp(min=1e-5) if p.scaled_distance else torch.ones_like(s) for _, s in bounds]
        for _ in range(p.local_steps):
            with torch.enable_grad():
                leaves = [(value + delta).detach().requires_grad_() for value, delta in zip(start, change, strict=True)]
                dense = dict(zip(view.params.dense, leaves[1:], strict=True))
                loss = p.alpha * target_loss(view, honest.users, leaves[0], dense, wish(self)).sum()
                gradients = torch.autograd.grad(loss, leaves)
            change = [
                (delta - eta * g) / (1 + 2 * eta * (1 - p.alpha) / unit.square())
                for delta, g, unit in zip(change, gradients, units, strict=True)
            ]
        crafted = [
            torch.clamp(-delta / eta, mu - z * s, mu + z * s) for delta, (mu, s) in zip(change, bounds, strict=True)
        ]
        dense = dict(zip(own, crafted[1:], strict=True))
        return with_target_rows(view, honest, clamp_rows(rest, view.num_items, z), crafted[0], dense)


class LittleIsEnoughDemoting(LittleIsEnough):
    """p2 with ``L_c = -(1/|T|) sum_t log(1 - sigma(s(u_c, v_t)))``: each client's own user dislikes the targets."""

    card = turned_round(LittleIsEnough.card)


def width(cohort: int, malicious: float) -> float:
    """``z`` by the rule of Baruch et al., for ``cohort`` clients of a round with ``malicious`` expected among them."""
    honest = cohort - malicious
    needed = math.floor(cohort / 2 + 1) - malicious
    share = (honest - needed) / honest if honest > 0 else 0.0
    return NormalDist().inv_cdf(share) if 0.5 < share < 1 else SMALLEST_Z


def clamp_rows(rows: FullRows, num_items: int, z: float) -> FullRows:
    """Every row clamped to mean +- z standard deviations of the rows of its item, by coordinate."""
    count = occurrences(rows.item, num_items).clamp(min=1)[:, None]
    mean = rows.sum(num_items) / count
    square = FullRows(rows.client, rows.item, (rows.values - mean[rows.item]).square()).sum(num_items) / count
    reach = z * square.sqrt()[rows.item]
    centre = mean[rows.item]
    return FullRows(rows.client, rows.item, torch.clamp(rows.values, centre - reach, centre + reach))
