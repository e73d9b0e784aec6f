"""PoisonFRS: fake users pull the targets towards a multiple of what item embeddings alone give away as popular."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field

from fedbench.attacks.demotion import turned_round, wish
from fedbench.attacks.uploads import target_updates
from fedbench.entries.cards import AttackCard, Channel, Goal, Parameters
from fedbench.federation.attack import Attack
from fedbench.federation.updates import Updates
from fedbench.federation.view import AttackerView


class PoisonFRS(Attack):
    """``v_t <- v_t + alpha (Lambda p - v_t)``, p the mean embedding of k items that look popular (Yin et al., WWW 2024).

    1. For the first ``wait_rounds`` rounds nothing is sent (rows of zeros). With the first parameters seen after them, V',
       the attacker picks k items and keeps p, the mean of their rows, and V' itself.
    2. From then on every fake user sends a row for each target, ``alpha (Lambda p - v_t)``, and for fillers
       ``v'_j - v_j``: the items that have moved most since V' are pulled back. They are as many as make up
       ``items_per_client`` rows, lowest ids first among equals, and no targets.
    3. Noise of its own comes to each client's every row: Gaussian, brought to mean 0 and standard deviation 1 by row, times
       ``noise``. Without fillers there is none [code].

    The rows are changes of parameters, in the code for a server that adds each item's mean upload. Here uploads are
    gradients, so they are divided by ``-eta``. Where the server takes sums, the round's m malicious clients share the way
    (``share = "together"``: each sends 1/m); otherwise they send all of it, and of the mean over all clients, who mostly
    send nothing for a target, they get a share. With server optimizers that are not plain steps only directions are kept.

    Readings:

    * ``wait_rounds``: published for mf. On ncf (ML-100K, 5 % malicious clients) embeddings tell too little after 50 rounds
      and the exposure stays 0; after 100 it is complete. At 1 % it comes and goes there, at 0.1 % it stays 0.
    * ``popular_by``: the code takes the items of smallest inner product with the mean of all rows, having overwritten a
      choice by smallest norm. The order is right: most items are unpopular, and training pushes them and so the mean row away
      from the users. On ML-100K the five are among the nine most popular items from round 52 on with mf, and at round 100
      with ncf; those of largest inner product are unpopular ones, and promote nothing.
    * ``adapt`` [code: an option]: in every attacked round Lambda doubles first, up to ``largest_scale``, until the distance
      of the targets to their goal has fallen for the second time.
    * In the code each fake user waits for its own first round and has a V' and p of its own, and targets that are among
      the items that moved most take fillers' places. Here the fake users, who have one owner, share one V', and the
      number of rows is as stated.
    """

    card = AttackCard(
        name="poisonfrs",
        title="PoisonFRS",
        paper="Yin et al., WWW 2024",
        goal=Goal.PROMOTE,
        channel=Channel.GRADIENT,
        notes="Knows nothing but the item embeddings that it is sent. Made for servers that take each item's mean upload.",
    )

    class Params(Parameters):
        """Parameters."""

        wait_rounds: int | None = Field(
            None,
            ge=0,
            description="rounds of the run before the first attacked one; None: 50 [code], with dense parameters 100 [ours]",
        )
        popular_items: int = Field(5, ge=1, description="k [code: 5]")
        popular_by: Literal["least-aligned", "most-aligned", "smallest", "largest"] = Field(
            "least-aligned",
            description="which k: by inner product with the mean row, or by norm [code: least-aligned, over smallest]",
        )
        scale: float = Field(10.0, gt=0, description="Lambda [code: 10]")
        adapt: bool = Field(False, description="double Lambda until the goal comes nearer twice [code: both]")
        largest_scale: float = Field(200.0, gt=0, description="up to which Lambda doubles [code: 200]")
        alpha: float = Field(1.0, gt=0, description="share of the way that an upload is worth [code: 1]")
        items_per_client: int = Field(60, ge=1, description="rows of an upload, the targets' included [code: 60]")
        noise: float = Field(1.0, ge=0, description="standard deviation of the noise on each row [code: 1]")
        share: Literal["together", "each"] = Field(
            "together",
            description="whose upload is all of the way where the server takes sums: the round's, or each [ours]",
        )

    params: PoisonFRS.Params

    def start(self, view: AttackerView) -> None:
        self.scale = self.params.scale
        self._before: torch.Tensor | None = None
        self._distance: float | None = None
        self._nearer = 0

    def craft(self, view: AttackerView) -> Updates:
        p, items, targets, m = self.params, view.params.items, view.targets, len(view.clients)
        wait = p.wait_rounds if p.wait_rounds is not None else 100 if view.params.dense else 50
        if view.round < wait:
            return target_updates(view, items.new_zeros(m, len(targets), items.shape[1]))
        if self._before is None:
            self._before = items
            self._popular = wish(self) * items.index_select(0, popular(items, p.popular_items, p.popular_by)).mean(0)
        own = items.index_select(0, targets)
        if p.adapt and self._nearer < 2:
            self._adapt(float((self.scale * self._popular - own).norm()))
        back = self._before - items
        count = min(p.items_per_client, len(items)) - len(targets)
        moved = back.norm(dim=1).index_fill(0, targets, -1)
        fillers = moved.argsort(descending=True, stable=True)[: max(count, 0)]
        change = torch.cat([p.alpha * (self.scale * self._popular - own), back.index_select(0, fillers)])
        changes = change.expand(m, *change.shape)
        if len(fillers) and p.noise:
            changes = changes + p.noise * standard_noise(changes.shape, view.generator)
        parts = m if p.share == "together" and view.aggregation == "sum" else 1
        return target_updates(view, changes / (-view.learning_rate * parts), items=torch.cat([targets, fillers]))

    def _adapt(self, distance: float) -> None:
        """Move Lambda on by one attacked round, at ``distance`` from the goal by the old one."""
        self.scale = min(self.params.largest_scale, 2 * self.scale)
        self._nearer += self._distance is not None and distance < self._distance
        self._distance = distance


class DemotingFRS(PoisonFRS):
    """``v_t <- v_t + alpha (-Lambda p - v_t)``: the targets are pulled towards the opposite of what looks popular.

    All else is as in poisonfrs. A target may be one of the k items that p is made of. On mf nobody is shown the target any
    more (ML-100K, 0.1 % and 1 % malicious clients); for ncf the opposite of popular rows is nothing that users dislike, and
    at 1 % everybody is shown it.
    """

    card = turned_round(
        PoisonFRS.card,
        "Not published: poisonfrs with the sign of its objective changed. On ncf it may promote what it is to demote.",
    )


def popular(items: torch.Tensor, count: int, by: str) -> torch.Tensor:
    """int64 [k]: the items that look popular; ties: lowest id first.

    Args:
        items: float32 [M, d]. count: k, all items when fewer. by: as the parameter ``popular_by`` says.
    """
    score = items @ items.mean(0) if by.endswith("aligned") else items.norm(dim=1)
    return torch.argsort(score, descending=by in ("most-aligned", "largest"), stable=True)[:count]


def standard_noise(shape: torch.Size, generator: torch.Generator) -> torch.Tensor:
    """Gaussian noise whose last dimension has mean 0 and standard deviation 1 (divisor d - 1); zeros for d = 1."""
    drawn = torch.randn(shape, generator=generator, device=generator.device)
    drawn = drawn - drawn.mean(-1, keepdim=True)
    length = drawn.norm(dim=-1, keepdim=True).clamp(min=torch.finfo(drawn.dtype).tiny)
    return drawn * ((shape[-1] - 1) ** 0.5 / length)
