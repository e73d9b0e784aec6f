"""PIECK-UEA: the embeddings of popular items stand for the users that the attacker cannot see."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
from pydantic import Field

from fedbench.attacks.batches import only, regular_batch
from fedbench.attacks.demotion import turned_round, wish
from fedbench.attacks.popular_items import MiningParameters, Pieck
from fedbench.entries.cards import AttackCard, Channel, Goal
from fedbench.federation.losses import Loss
from fedbench.federation.view import AttackerView


class PieckUEA(Pieck):
    """``L = -(1/(N |T|)) sum_{k in P} sum_t log sigma(s(v_k, v_t))``, P the mined popular items (ICDE'24, eq. 10).

    The v_k are constants; rows of the targets are uploaded. For mf the row of t is
    ``-(1/(N |T|)) sum_k (1 - sigma(v_k.v_t)) v_k``.

    The published mf code does not compute eq. 10: it cuts P by rank into 5 batches, repeats each 3 times, and adds a
    third of the target's gradient buffer after each backward pass without ever zeroing it. V does not change meanwhile,
    so this only weighs the items anew: with K = 5 |T| 3 steps, step j adds ``(1 - j / K)`` times the gradient of its
    batch's mean. For one target the batches weigh 2.8, 2.2, 1.6, 1.0, 0.4, in all 8 times eq. 10; target number t of
    several has ``9 - (3 t + 1) / |T|``. ``accumulation="published"`` (default on mf) is that, ``"none"`` is eq. 10. It
    decides the published number (ER@10 93.39, ML-100K, target 467): over five seeds eq. 10 ends at 30 to 68, the
    published weights at 84 to 96 (71 to 98 when a client's repeats of an item are summed instead of the last one kept).
    Exposure moves by tens of points between epochs, and rounding alone can move a run's last value by ten.

    Several targets: "train one, then copy" sends the first target's row for each. With N = 250 it swings between 35 and
    99 for three targets and ends below the 93.93 of the paper, which does not say what exactly is copied.
    """

    card = AttackCard(
        name="pieck-uea",
        title="PIECK, user embedding approximation (UEA)",
        paper="Zhang et al. (PIECK), ICDE 2024",
        goal=Goal.PROMOTE,
        channel=Channel.GRADIENT,
        invents_users=True,
        notes="On mf the default reading is the published code's, 8 times eq. 10 of the paper (`accumulation`); exposure"
        " moves by tens of points between epochs: read the curve.",
    )

    class Params(MiningParameters):
        """Parameters."""

        popular_items: int | None = Field(
            None,
            ge=1,
            description="N; None: 10 on models with dense parameters [ncf code]; on mf 150 for one target [code], and"
            " for several 250 copied or 50 together [paper, Tables VII and IX]",
        )
        accumulation: Literal["none", "published"] | None = Field(
            None,
            description="'none' is eq. 10, 'published' the mf code's weights; None: published on mf, none elsewhere",
        )
        batches: int = Field(5, ge=1, description="cuts of P by rank in the published accumulation [mf code: 5]")
        repetitions: int = Field(3, ge=1, description="passes over each batch in it [mf code: 3]")
        scale: float = Field(1.0, gt=0, description="factor on the upload [1]")
        poison_dense: bool = Field(False, description="upload dense gradients too [paper: no; ncf code: yes]")

    params: PieckUEA.Params

    def list_length(self, view: AttackerView) -> int:
        if self.params.popular_items is not None:
            return self.params.popular_items
        if view.model.card.name != "mf":
            return 10
        if len(view.targets) == 1:
            return 150
        return 250 if self.params.multi_target == "copy" else 50

    def gradients(
        self, view: AttackerView, popular: torch.Tensor, targets: torch.Tensor
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor] | None]:
        p = self.params
        published = p.accumulation == "published" or (p.accumulation is None and view.model.card.name == "mf")
        weights = torch.full((self.count, len(targets)), 1 / self.count)
        if published:
            weights = published_weights(self.count, len(targets), p.batches, p.repetitions)
        weights = (weights * p.scale / len(targets)).to(view.device, non_blocking=True)
        return judging_gradients(view, popular, targets, weights, p.poison_dense, likes=wish(self) > 0)


class DemotingUEA(PieckUEA):
    """``L = -(1/(N |T|)) sum_{k in P} sum_t log(1 - sigma(s(v_k, v_t)))``: popular items are users who dislike the targets.

    For mf the row of t is ``(1/(N |T|)) sum_k sigma(v_k.v_t) v_k``, with the weights of ``accumulation`` as in pieck-uea.
    """

    card = turned_round(PieckUEA.card)


def judging_gradients(
    view: AttackerView, popular: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor, dense: bool, likes: bool
) -> tuple[torch.Tensor, dict[str, torch.Tensor] | None]:
    """Gradients of ``-sum_k sum_t w_kt log sigma(+-s(v_k, v_t))`` by the v_t and, if wanted, the dense parameters.

    Each popular item of each client takes a user's place in the model's own local step, with the targets as positives, or
    as negatives.

    Args:
        view: the round. popular: int64 [m, N]. targets: int64 [T]. weights: float32 [N, T]. dense: whether they are wanted.
        likes: the sign: whether popular items like the targets.

    Returns:
        rows float32 [m, T, d], and dense name -> float32 [m, *shape] or None.
    """
    m, n = popular.shape
    count = len(targets)
    w = weights.repeat(m, 1)
    item = torch.arange(count, device=view.device).expand(m * n, count)
    batch = replace(regular_batch(item, w if likes else torch.zeros_like(w)), weight=w.reshape(-1))
    table = only(view.params, targets)
    users = view.params.items.index_select(0, popular.reshape(-1))
    step = view.model.local_step(table, users, batch, Loss(reduction="sum"))
    rows = torch.zeros(m * count, view.embedding_size, device=view.device)
    for block in step.rows:
        # Each malicious client's targets take the place of items, so that its rows are summed apart from the others'.
        rows += block.reassigned(block.client // n * count + block.item).sum(m * count)
    rows = rows.view(m, count, -1)
    if not dense:
        return rows, None
    return rows, {name: value.view(m, n, *value.shape[1:]).sum(1) for name, value in step.dense.stacked().items()}


def published_weights(count: int, targets: int, batches: int, repetitions: int) -> torch.Tensor:
    """Weights of the published accumulation, float32 [N, T], in the place of eq. 10's 1/N.

    Entry (k, t) is ``T sum (1 - j / K) / (items of the batch)`` over the steps j of item k's batch and target t, with
    ``j = (batch T + t) repetitions + repetition`` and ``K = batches T repetitions``.
    """
    steps = batches * targets * repetitions
    step = 1 - torch.arange(steps, dtype=torch.float64) / steps
    by_batch = step.view(batches, targets, repetitions).sum(2) * targets
    parts = torch.arange(count).tensor_split(batches)
    return torch.cat(
        [by_batch[b] / len(part) * torch.ones(len(part), 1) for b, part in enumerate(parts) if len(part)]
    ).float()
