"""PipAttack: explicit boosting, popularity obfuscation, and a constraint that keeps crafted gradients near honest ones."""

from __future__ import annotations

import itertools
from typing import ClassVar, Literal

import torch
from pydantic import Field

from fedbench.attacks.demotion import turned_round, wish
from fedbench.attacks.own_data import random_profiles, split_targets, target_loss, with_target_rows
from fedbench.attacks.shilling import by_popularity
from fedbench.entries.cards import LATER, AttackCard, Channel, Goal, Knowledge, Parameters
from fedbench.federation.attack import Attack
from fedbench.federation.updates import Updates
from fedbench.federation.view import AttackerView, Profiles

Layers = list[tuple["torch.Tensor", "torch.Tensor"]]

HIDDEN = (32, 16, 8)
LOW, HIGH = 0, 2


class PipAttack(Attack):
    """``L = L_exp + alpha L_pop + gamma L_dis`` (Zhang et al., WSDM 2022, eq. 10).

    * ``L_exp = -(1/|T|) sum_t log sigma(s(u_c, v_t))``: the client's own embedding likes the targets (eq. 5);
    * ``L_pop = -(1/|T|) sum_t log f(v_t)[high]``: a classifier f takes the targets for popular items (eq. 7);
    * ``L_dis = sum_c' |g_c - g_c'|_2`` over the honest gradients g_c' of all malicious clients of the round.

    f has layers d-32-16-8-3 (ReLU: not stated) and is trained by cross-entropy on (v_j, popularity class), classes by the
    number of interactions: top 10 % high, next 35 % medium, last 55 % low; once, then frozen. Item rows that have not been
    trained yet say nothing of popularity: at the first round of ML-100K f calls every item low (macro-F1 .24), after 20
    epochs it reaches .8, which the paper reports for a trained model. So the clients train honestly until f reaches
    ``least_f1``, which is tried once an epoch, or at the latest until epoch ``latest_epoch``, whatever f can tell by then.
    Each client takes E steps of rate ``local_rate`` in the targets' rows, the dense parameters and its own embedding; the
    crafted gradient is ``(theta - theta_local) / eta``. Other rows are the honest ones: L_exp and L_pop do not reach them.

    Not stated in our source, so parameters or from memory: which term carries alpha (``alpha_on``), the norm of L_dis
    (L2), f's optimiser (Adam, rate 1e-3, 500 steps). ICDE'24 calls ``explicit-boost`` "PipAttack": its numbers are
    not this attack's. Injected clients have a random profile without the targets.
    """

    card = AttackCard(
        name="pipattack",
        title="PipAttack",
        paper="Zhang et al., WSDM 2022",
        goal=Goal.PROMOTE,
        channel=Channel.GRADIENT,
        invents_users=True,
        knowledge=frozenset({Knowledge.OWN_DATA, Knowledge.ITEM_POPULARITY}),
        notes="Not the row 'PipAttack' of ICDE 2024, which is explicit-boost. Version 1 trained its popularity estimator at"
        " the first round, on rows that say nothing of popularity yet.",
        version=2,
    )

    class Params(Parameters):
        """Parameters."""

        alpha: float = Field(20.0, ge=0, description="[WSDM'22: ml-1m 60 at a ratio of 10 %, else 20; phones 10]")
        alpha_on: Literal["pop", "exp"] = Field("pop", description="the term that carries alpha [lost in our source]")
        gamma: float = Field(5e-4, ge=0, description="weight of L_dis [WSDM'22: 0.0005]")
        local_steps: int = Field(30, ge=1, description="E [WSDM'22: 30]")
        local_rate: float = Field(0.01, gt=0, description="rate of the local steps [WSDM'22: 0.01]")
        estimator_steps: int = Field(
            500, ge=1, description="training steps of f, full batch [not stated; version 1: 200]"
        )
        estimator_rate: float = Field(1e-3, gt=0, description="Adam's rate for f [not stated]")
        profile_size: int = Field(30, ge=1, description="positives of an injected client's profile [as RA: 30]")
        least_f1: float | None = Field(
            0.8,
            gt=0,
            lt=1,
            description="macro-F1 of f at which the attack begins; None: at once [WSDM'22 reports more than 0.8]",
            json_schema_extra=LATER,
        )
        latest_epoch: int = Field(
            20, ge=1, description="epoch at which it begins in any case [ours]", json_schema_extra=LATER
        )

    params: PipAttack.Params
    wanted: ClassVar[int] = HIGH
    """The class that f is to take the targets for."""

    def start(self, view: AttackerView) -> None:
        self._layers: Layers = []
        self._tried = 0
        self._users = torch.zeros(view.num_malicious, view.embedding_size, device=view.device)
        self._met = torch.zeros(view.num_malicious, dtype=torch.bool, device=view.device)

    def profiles(self, view: AttackerView) -> Profiles:
        return random_profiles(view, self.params.profile_size)

    def craft(self, view: AttackerView) -> Updates:
        p, eta = self.params, view.learning_rate
        if not self._layers and self._tried < view.epoch:
            self._tried = view.epoch
            self._layers = self._train_estimator(view)
        honest = view.honest()
        if not self._layers:
            return honest.updates
        rest, own_rows = split_targets(view, honest)
        m = len(view.clients)
        users = torch.where(self._met[view.clients, None], self._users[view.clients], honest.users)
        start = [view.params.items[view.targets], *view.params.dense.values()]
        names = list(view.params.dense)
        local = [value.expand(m, *value.shape).clone() for value in start]
        goal = _flat([own_rows, *honest.updates.dense.stacked().values()])
        on_exp, on_pop = (p.alpha, 1.0) if p.alpha_on == "exp" else (1.0, p.alpha)
        for _ in range(p.local_steps):
            with torch.enable_grad():
                leaves = [value.detach().requires_grad_() for value in (users, *local)]
                dense = dict(zip(names, leaves[2:], strict=True))
                loss = on_exp * target_loss(view, leaves[0], leaves[1], dense, wish(self)).sum()
                loss = loss - on_pop * self._log_classes(leaves[1])[..., self.wanted].mean(1).sum()
                crafted = _flat([(value - leaf) / eta for value, leaf in zip(start, leaves[1:], strict=True)])
                loss = loss + p.gamma * _distances(crafted, goal).sum()
                gradients = torch.autograd.grad(loss, leaves)
            users, *local = [value - p.local_rate * g for value, g in zip((users, *local), gradients, strict=True)]
        self._users[view.clients] = users
        self._met[view.clients] = True
        crafted_each = [(value - each) / eta for value, each in zip(start, local, strict=True)]
        return with_target_rows(view, honest, rest, crafted_each[0], dict(zip(names, crafted_each[1:], strict=True)))

    def _log_classes(self, items: torch.Tensor) -> torch.Tensor:
        """Log f: float32 [..., 3], for item embeddings [..., d]."""
        return torch.log_softmax(_forward(self._layers, items), dim=-1)

    def _train_estimator(self, view: AttackerView) -> Layers:
        """f, trained on every item but the targets; nothing where it falls short of ``least_f1`` before ``latest_epoch``.

        Without ``least_f1`` it stops when the accuracy has not risen for 20 steps.
        """
        label = popularity_classes(view.item_popularity)
        known = torch.ones(view.num_items, dtype=torch.bool, device=view.device)
        known[view.targets] = False
        items, label = view.params.items[known].detach(), label[known]
        sizes = [view.embedding_size, *HIDDEN, 3]
        layers: Layers = []
        for fan_in, out in itertools.pairwise(sizes):
            bound = (6 / fan_in) ** 0.5
            weight = (torch.rand(out, fan_in, generator=view.generator, device=view.device) * 2 - 1) * bound
            layers.append((weight.requires_grad_(), torch.zeros(out, device=view.device, requires_grad=True)))
        optimizer = torch.optim.Adam([value for layer in layers for value in layer], lr=self.params.estimator_rate)
        best, since = -1.0, 0
        with torch.enable_grad():
            for _ in range(self.params.estimator_steps):
                logits = _forward(layers, items)
                optimizer.zero_grad()
                torch.nn.functional.cross_entropy(logits, label).backward()
                optimizer.step()
                accuracy = float((logits.argmax(1) == label).float().mean())
                best, since = (accuracy, 0) if accuracy > best else (best, since + 1)
                if since >= 20 and self.params.least_f1 is None:
                    break
            told = _forward(layers, items).argmax(1)
        least = self.params.least_f1
        if least is not None and view.epoch < self.params.latest_epoch and macro_f1(told, label) < least:
            return []
        return [(weight.detach(), bias.detach()) for weight, bias in layers]


def macro_f1(told: torch.Tensor, label: torch.Tensor) -> float:
    """The mean over the three classes of ``2 TP / (2 TP + FP + FN)``, of classes int64 [n]."""
    scores = []
    for each in range(3):
        right = int(((told == each) & (label == each)).sum())
        scores.append(2 * right / max(int((told == each).sum()) + int((label == each).sum()), 1))
    return sum(scores) / len(scores)


class PipDemotion(PipAttack):
    """pipattack turned round: ``L_exp = -(1/|T|) sum_t log(1 - sigma(s(u_c, v_t)))``, and in ``L_pop`` f takes the targets
    for unpopular items: ``-(1/|T|) sum_t log f(v_t)[low]``.
    """

    card = turned_round(PipAttack.card)
    wanted = LOW


def popularity_classes(popularity: torch.Tensor) -> torch.Tensor:
    """int64 [M]: 2 for the top 10 % of items, 1 for the next 35 %, 0 for the last 55 % (WSDM'22, experimental settings)."""
    order = by_popularity(popularity)
    count = len(order)
    label = torch.zeros_like(order)
    label[order[: round(0.45 * count)]] = 1
    label[order[: round(0.10 * count)]] = HIGH
    return label


def _forward(layers: Layers, x: torch.Tensor) -> torch.Tensor:
    for place, (weight, bias) in enumerate(layers):
        x = x @ weight.T + bias
        if place < len(layers) - 1:
            x = torch.relu(x)
    return x


def _flat(parts: list[torch.Tensor]) -> torch.Tensor:
    """float32 [m, D]: the parts [m, ...] of each client side by side."""
    return torch.cat([part.flatten(1) for part in parts], dim=1)


def _distances(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """``|a_i - b_j|_2`` of all pairs, float32 [m, m], by inner products: [m, m, D] is never made; smooth at 0."""
    square = a.square().sum(1)[:, None] + b.square().sum(1)[None] - 2 * a @ b.T
    return (square.clamp(min=0) + 1e-12).sqrt()
