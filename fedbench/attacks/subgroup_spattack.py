"""Spattack on a subgroup: surrogate users of the subgroup are to like the targets, surrogates of the others are not."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field

from fedbench.attacks.batches import described
from fedbench.attacks.sampling import others
from fedbench.attacks.uploads import target_updates
from fedbench.entries.cards import AttackCard, Channel, Goal, Knowledge, Parameters
from fedbench.errors import UserError
from fedbench.federation.attack import Attack
from fedbench.federation.updates import Updates
from fedbench.federation.view import AttackerView


class SubgroupSpattack(Attack):
    """Approximate users inside and outside of a subgroup, then promote to those inside (Yan et al., WWW 2026).

    The attacker knows items R that all users of the subgroup have. In every round each client

    1. adds to R the ``similar`` items nearest to its mean embedding by cosine, which gives R' (targets and R left out);
    2. draws ``surrogates`` = B embeddings g_i for the subgroup and B for the others, o_i, from N(0, ``init_std``^2), and
       takes ``fit_steps`` steps of Adam on ``BCE(g; R' liked, targets not) + BCE(o; as many random items liked) +
       (1/2) mean_ij max(0, margin - |g_i - o_j|)^2``, means over users and items; the random items are outside R' and the
       targets, and new in every step;
    3. uploads the gradients by the targets' rows and the dense parameters of ``(1 + w_g f + growth e) BCE(g; targets liked)
       + (1 - w_o f) BCE(o; targets not) + alignment mean_(t,k) (1 - cos(v_t, v_k))``, k over R'. w_g and w_o are the first
       target's mean ranks among all items for g and o, divided by their sum (0 where both are first); e counts the client's
       rounds from 1, f = (e / horizon)^2.

    Readings:

    * ``horizon``: the code has 30 and trains for 30 epochs, so that f ends at 1. Beyond that ``1 - w_o f`` would turn
      negative and promote to the others, so f stays at 1 (ours).
    * In the code Adam keeps its moments from round to round although the embeddings are drawn anew; here each fit is fresh.
    * ``weights`` = "equal", ``similar`` = 0 and ``margin`` = 0 are the paper's ablations.
    * The subgroup is the protocol's (``subgroup``): users who have all of some frequent items. The code draws 10 items; of
      ML-100K's users few have so many.

    Made for ncf with embeddings of size 8, learning rate 0.001, 256 clients a round and the least popular item.
    """

    card = AttackCard(
        name="subgroup-spattack",
        title="Spattack on a subgroup of the users",
        paper="Yan et al., WWW 2026",
        goal=Goal.PROMOTE,
        channel=Channel.GRADIENT,
        invents_users=True,
        knowledge=frozenset({Knowledge.SUBGROUP_ITEMS}),
        notes="Promotes to the protocol's subgroup: read ER inside and outside of it (er_in, er_out). Not spattack-o and -l,"
        " which are another method of the same name.",
    )

    class Params(Parameters):
        """Parameters."""

        surrogates: int = Field(10, ge=1, le=1_000, description="B, surrogate users on each side [code: 10]")
        similar: int = Field(30, ge=0, description="items that are added to those of the subgroup [code: 30]")
        fit_steps: int = Field(30, ge=0, description="Adam steps of the surrogates [code: 30]")
        fit_rate: float = Field(0.001, gt=0, description="Adam's rate [code: 0.001]")
        init_std: float = Field(0.01, gt=0, description="standard deviation of surrogates before the fit [code: 0.01]")
        margin: float = Field(15.0, ge=0, description="distance up to which both sides are driven apart [code: 15]")
        weights: Literal["adaptive", "equal"] = Field(
            "adaptive", description="of both sides: by the target's ranks and the round [code], or 1"
        )
        horizon: float = Field(30.0, gt=0, description="rounds of a client after which f = 1 [code: 30]")
        growth: float = Field(0.0005, ge=0, description="of the subgroup's weight, each round [code: 0.0005]")
        alignment: float = Field(0.1, ge=0, description="weight of the cosine with the subgroup's items [code: 0.1]")

    params: SubgroupSpattack.Params

    def start(self, view: AttackerView) -> None:
        """Raises :class:`UserError`: too few items beside the subgroup's and the targets, or these are all the same."""
        self._rounds = torch.zeros(view.num_malicious, device=view.device)
        taken = len(torch.unique(torch.cat([view.subgroup_items, view.targets])))
        if taken == len(view.targets):
            raise UserError(f"attack {self.card.name!r}: every item of the subgroup is a target; choose others.")
        if view.num_items - taken <= self.params.similar:
            raise UserError(
                f"attack {self.card.name!r}: similar = {self.params.similar} must be fewer than the"
                f" {view.num_items - taken} items that are neither targets nor the subgroup's."
            )

    def craft(self, view: AttackerView) -> Updates:
        p, m, d = self.params, len(view.clients), view.embedding_size
        self._rounds[view.clients] += 1
        liked = relevant(view, p.similar)
        shape = (2, m, p.surrogates, d)
        drawn = torch.randn(shape, generator=view.generator, device=view.device) * p.init_std
        group, rest = self.fit(view, drawn, liked)
        up, down = torch.ones(m, device=view.device), torch.ones(m, device=view.device)
        if p.weights == "adaptive":
            e = self._rounds[view.clients]
            f = (e / p.horizon).square().clamp(max=1)
            ranks = torch.stack([mean_rank(view, users) for users in (group, rest)])
            share = ranks / ranks.sum(0).clamp(min=torch.finfo(ranks.dtype).tiny)
            up, down = 1 + share[0] * f + p.growth * e, 1 - share[1] * f
        with torch.enable_grad():
            count = len(view.targets)
            rows = view.params.items[view.targets].expand(m, count, d).clone().requires_grad_()
            dense = {
                name: value.expand(m, *value.shape).clone().requires_grad_()
                for name, value in view.params.dense.items()
            }
            loss = (up * opinion(view, group, rows, dense, 1.0)).sum()
            loss = loss + (down * opinion(view, rest, rows, dense, -1.0)).sum()
            near = torch.nn.functional.normalize(view.params.items[liked], dim=-1)
            cosine = torch.nn.functional.normalize(rows, dim=-1) @ near.T
            loss = loss + p.alignment * (1 - cosine).mean((1, 2)).sum()
            by_rows, *by_dense = torch.autograd.grad(loss, [rows, *dense.values()])
        return target_updates(view, by_rows, dict(zip(dense, by_dense, strict=True)))

    def fit(self, view: AttackerView, users: torch.Tensor, liked: torch.Tensor) -> torch.Tensor:
        """Surrogates of both sides, float32 [2, m, B, d], fitted from ``users`` (step 2).

        Args:
            users: as drawn. liked: int64 [r], R'.
        """
        p, (_, m, b, d) = self.params, users.shape
        own = torch.cat([liked, view.targets])
        label = torch.zeros(len(own), device=view.device)
        label[: len(liked)] = 1
        free = others(view.num_items, own)
        described_own = view.params.described(own)
        first, second = torch.zeros_like(users), torch.zeros_like(users)
        for step in range(1, p.fit_steps + 1):
            random = free[torch.randint(len(free), (m * b, len(liked)), generator=view.generator, device=view.device)]
            with torch.enable_grad():
                leaf = users.detach().requires_grad_()
                logits = [
                    view.model.logits(
                        view.params.dense, side.reshape(m * b, 1, d).expand(m * b, items.shape[-2], d), items
                    )
                    for side, items in (
                        (leaf[0], described_own.expand(m * b, *described_own.shape)),
                        (leaf[1], view.params.described(random)),
                    )
                ]
                fits = (
                    torch.nn.functional.softplus(logits[0]) - label * logits[0],
                    torch.nn.functional.softplus(-logits[1]),
                )
                apart = (p.margin - torch.cdist(leaf[0], leaf[1], compute_mode="donot_use_mm_for_euclid_dist")).clamp(
                    min=0
                ).square() / 2
                loss = sum(each.mean(1).view(m, b).mean(1).sum() for each in fits) + apart.mean((1, 2)).sum()
                (gradient,) = torch.autograd.grad(loss, leaf)
            first, second = first.lerp(gradient, 0.1), second.lerp(gradient * gradient, 0.001)
            size = p.fit_rate / (1 - 0.9**step)
            users = users - size * first / ((second / (1 - 0.999**step)).sqrt() + 1e-8)
        return users


def relevant(view: AttackerView, similar: int) -> torch.Tensor:
    """R', int64 [r]: the subgroup's items but for targets, and those ``similar`` ones nearest to their mean by cosine."""
    own = view.subgroup_items[~torch.isin(view.subgroup_items, view.targets)]
    items = view.params.items
    free = others(view.num_items, torch.cat([own, view.targets]))
    cosine = torch.nn.functional.cosine_similarity(items[free], items[own].mean(0, keepdim=True), dim=1)
    return torch.cat([own, free[cosine.topk(similar).indices]])


def mean_rank(view: AttackerView, users: torch.Tensor) -> torch.Tensor:
    """float32 [m]: how many items score higher than the first target, mean over the users [m, B, d] of each client."""
    m, b, d = users.shape
    scores = view.model.score_all(view.params, users.reshape(m * b, d))
    return (scores > scores[:, view.targets[:1]]).float().sum(1).view(m, b).mean(1)


def opinion(
    view: AttackerView, users: torch.Tensor, rows: torch.Tensor, dense: dict[str, torch.Tensor], sign: float
) -> torch.Tensor:
    """float32 [m]: ``-log sigma(sign s(u, v_t))``, mean over the users [m, B, d] and targets [m, T, d] of each client."""
    (m, b, d), count = users.shape, rows.shape[1]
    items = described(view.params, rows, view.targets)
    items = items[:, None].expand(m, b, *items.shape[1:]).reshape(m, b * count, -1)
    logits = view.model.logits(dense, users[:, :, None].expand(m, b, count, d).reshape(m, b * count, d), items)
    return torch.nn.functional.softplus(-sign * logits).mean(1)
