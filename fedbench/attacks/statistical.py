"""Gaussian, LIE, Fang and IPM: uploads made of the mean and the spread of colluding clients' honest ones."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from statistics import NormalDist
from typing import Literal, Self

import torch
from pydantic import Field, model_validator

from fedbench.attacks.clean_statistics import Spread, clean_statistics, upload_of_all_items
from fedbench.attacks.own_data import random_profiles
from fedbench.entries.cards import AttackCard, Channel, Goal, Knowledge, Parameters
from fedbench.federation.attack import Attack
from fedbench.federation.updates import Updates
from fedbench.federation.view import AttackerView, Profiles

PUBLISHED_Z = 1.5


class ColludingAttack(Attack, ABC):
    """What attacks share that make their uploads of the honest uploads of S of the attacker's own clients.

    The S clients are drawn anew in every attacked round from all malicious ones, sampled or not; they are honest at the
    current parameters, as AAAI'23's code has it for its own attack. Uploads have a row for every item, reported numbers
    of samples are honest, and the clients' own embeddings follow their data.
    """

    class Params(Parameters):
        """Parameters of the statistics."""

        colluders: int = Field(
            50, ge=1, description="S, clients whose honest uploads are seen, all if fewer [AAAI'23, UA-FedRec code: 50]"
        )
        profile_size: int = Field(
            30, ge=1, description="items of an injected client's random profile [ours, as p2: 30]"
        )

    params: ColludingAttack.Params

    def profiles(self, view: AttackerView) -> Profiles:
        return random_profiles(view, self.params.profile_size)

    def craft(self, view: AttackerView) -> Updates:
        # Uploads first: the honest step moves the clients' own embeddings under gradient descent.
        items, dense = self.made_of(view, view.colluding(self.params.colluders))
        return upload_of_all_items(view, items, dense, view.honest().updates.weights)

    @abstractmethod
    def made_of(self, view: AttackerView, clean: Updates) -> tuple[torch.Tensor, Mapping[str, torch.Tensor]]:
        """What is sent, given the colluders' honest uploads ``clean``.

        Returns:
            float32 [M, d] for all clients alike or [m, M, d], and name -> float32 [*shape] or [m, *shape].
        """


class StatisticalAttack(ColludingAttack):
    """Attacks that know mu and sigma [M, d] of those uploads, and the same of each dense parameter, by coordinate.

    Most of the S clients do not touch an item, so sigma is much larger than mu there: with k of S clients that do, mu is
    about k/S and sigma about sqrt(k/S) of a row. Items that none touches get their mean, with sigma 0.
    """

    def made_of(self, view: AttackerView, clean: Updates) -> tuple[torch.Tensor, Mapping[str, torch.Tensor]]:
        seen = clean_statistics(clean, view.num_items)
        items = self.poisoned(view, seen.items)
        return items, {name: self.poisoned(view, each) for name, each in seen.dense.items()}

    @abstractmethod
    def poisoned(self, view: AttackerView, seen: Spread) -> torch.Tensor:
        """float32 [*shape] for all clients alike, or [m, *shape]: what is sent where ``seen`` is the honest spread."""


class Gaussian(StatisticalAttack):
    """``g ~ N(mu, sigma^2)`` by coordinate, a draw of its own for every client.

    As AAAI'23 describes its baseline after Fang et al. (USENIX Security 2020): noise as wide as honest updates differ, not
    N(0, 1) as some toolkits call by this name.
    """

    card = AttackCard(
        name="gaussian",
        title="Gaussian noise",
        paper="Fang et al., USENIX Security 2020; baseline in Yu et al., AAAI 2023",
        goal=Goal.DEGRADE,
        channel=Channel.GRADIENT,
        knowledge=frozenset({Knowledge.OWN_DATA}),
        notes="In expectation an honest upload: published as no attack at all.",
    )

    def poisoned(self, view: AttackerView, seen: Spread) -> torch.Tensor:
        shape = (len(view.clients), *seen.mean.shape)
        noise = torch.randn(shape, generator=view.generator, device=view.device)
        return noise.mul_(seen.std).add_(seen.mean)


class Lie(StatisticalAttack):
    """``mu - z sigma``, the same for every client: a little is enough (Baruch et al., NeurIPS 2019).

    The original's rule is ``z = Phi^-1((n - m - s) / (n - m))``, ``s = floor(n/2 + 1) - m``, for n clients of the round
    of whom m are malicious. With few attackers it vanishes (n = 50, m = 1: -0.03), while AAAI'23 reports a loss of 8 %
    and does not state its z (the first release of its code: 0.1); default 1.5, of the original's experiments. The side
    is a convention: the server descends. ``p2`` is the same idea turned to promotion.
    """

    card = AttackCard(
        name="lie",
        title="A little is enough (LIE)",
        paper="Baruch et al., NeurIPS 2019; baseline in Yu et al., AAAI 2023",
        goal=Goal.DEGRADE,
        channel=Channel.GRADIENT,
        knowledge=frozenset({Knowledge.OWN_DATA, Knowledge.COHORT_SIZE}),
        notes="The cohort size is read for z = \"rule\" only. AAAI'23's text does not state its z.",
    )

    class Params(StatisticalAttack.Params):
        """Parameters."""

        z: float | Literal["rule"] = Field(
            PUBLISHED_Z,
            description='distance from the mean in sigma, or "rule" for the rule above; below 0: on the other side'
            " [original: rule, and 1.5 in experiments; AAAI'23's first release: 0.1]",
        )

    params: Lie.Params

    def poisoned(self, view: AttackerView, seen: Spread) -> torch.Tensor:
        z = self.params.z
        if z == "rule":
            z = rule_z(view.cohort_size, len(view.clients))
        return torch.sub(seen.mean, seen.std, alpha=float(z))


def rule_z(cohort: int, malicious: int) -> float:
    """Baruch et al.'s z for ``cohort`` clients with ``malicious`` among them; 1.5 where the rule gives none.

    That is where the attackers need no supporters, being a majority, or where a single honest client is left.
    """
    honest = cohort - malicious
    needed = math.floor(cohort / 2 + 1) - malicious
    if needed <= 0 or honest <= needed:
        return PUBLISHED_Z
    return NormalDist().inv_cdf((honest - needed) / honest)


class Fang(StatisticalAttack):
    """``mu - sign(mu) a sigma`` or ``mu + sign(mu) a sigma``, ``a ~ U[low, high]``; ``sign(0) = 0``.

    Fang et al. (USENIX Security 2020), the attack on the trimmed mean with partial knowledge: honest values are taken to
    lie within 3 to 4 sigma of mu, and the upload just beyond them on the side that the honest gradient does not point
    to, ``[mu - 4 sigma, mu - 3 sigma]`` where mu > 0 and its mirror image where mu < 0 (``side = "against"``).
    UA-FedRec's code has a = 3 (``low = high = 3``).

    The first release of AAAI'23's code goes to the other side (``side = "along"``): the upload
    points where the honest gradient does, and overshoots. There a is one number for each client and round
    (``scale_per = "client"``).
    """

    card = AttackCard(
        name="fang",
        title="Fang (trimmed mean, partial knowledge)",
        paper="Fang et al., USENIX Security 2020; baseline in Yu et al., AAAI 2023",
        goal=Goal.DEGRADE,
        channel=Channel.GRADIENT,
        knowledge=frozenset({Knowledge.OWN_DATA}),
        notes="Not the authors' attack on Krum, which searches for a step that Krum selects.",
    )

    class Params(StatisticalAttack.Params):
        """Parameters."""

        low: float = Field(3.0, ge=0, description="smallest a [original: 3; UA-FedRec code: 3]")
        high: float = Field(4.0, ge=0, description="largest a [original: 4; UA-FedRec code: 3]")
        side: Literal["against", "along"] = Field(
            "against", description="of the mean honest gradient [against: original; along: AAAI'23 code]"
        )
        scale_per: Literal["coordinate", "client"] = Field(
            "coordinate", description="whose a is drawn by itself [coordinate: original; client: AAAI'23 code]"
        )

        @model_validator(mode="after")
        def _ordered(self) -> Self:
            if self.high < self.low:
                raise ValueError(f"high = {self.high:g} is below low = {self.low:g}")
            return self

    params: Fang.Params

    def poisoned(self, view: AttackerView, seen: Spread) -> torch.Tensor:
        low, high = self.params.low, self.params.high
        one = self.params.scale_per == "client"
        shape = (len(view.clients), *[1] * seen.mean.dim()) if one else seen.mean.shape
        reach = torch.rand(shape, generator=view.generator, device=view.device).mul_(high - low).add_(low)
        toward = seen.std * seen.mean.sign()
        return seen.mean + (toward if self.params.side == "along" else -toward) * reach


class InnerProduct(StatisticalAttack):
    """``-epsilon mu``, the same for every client: inner product manipulation (Xie et al., UAI 2019, section 4).

    The attack wins where the server's result has a negative inner product with the honest mean. A plain mean of n uploads, m
    of them malicious, becomes ``(1 - (1 + epsilon) m / n)`` times it, so epsilon must exceed ``n / m - 1`` there; robust
    rules fall to less. Small epsilons are for rules that choose clients by distance (Krum), large ones for medians.

    The original's attacker is omniscient: mu is over the honest clients of the round. Here it is over the attacker's own, as
    for the other attacks of this kind.
    """

    card = AttackCard(
        name="ipm",
        title="Inner product manipulation (IPM)",
        paper="Xie et al., UAI 2019",
        goal=Goal.DEGRADE,
        channel=Channel.GRADIENT,
        knowledge=frozenset({Knowledge.OWN_DATA}),
        notes="With the default epsilon, made against rules that choose clients, next to no attack on a plain sum or mean.",
    )

    class Params(StatisticalAttack.Params):
        """Parameters."""

        epsilon: float = Field(
            0.1,
            ge=0,
            description="length of the upload in honest means [usual against Krum: 0.1; against medians: above 1]",
        )

    params: InnerProduct.Params

    def poisoned(self, view: AttackerView, seen: Spread) -> torch.Tensor:
        return seen.mean * -self.params.epsilon
