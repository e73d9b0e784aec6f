"""P1: an honest update plus a boosted step on the attacker's own objective."""

from __future__ import annotations

from dataclasses import replace

import torch
from pydantic import Field

from fedbench.attacks.batches import described
from fedbench.attacks.demotion import turned_round, wish
from fedbench.attacks.own_data import random_profiles, split_targets, target_loss, with_target_rows
from fedbench.entries.cards import LATER, AttackCard, Channel, Goal, Knowledge, Parameters
from fedbench.federation.attack import Attack
from fedbench.federation.losses import Loss
from fedbench.federation.updates import DenseGradients, Updates
from fedbench.federation.view import AttackerView, HonestStep, Profiles


class ModelReplacement(Attack):
    """Explicit boosting with alternating minimisation (Bhagoji et al., ICML 2019; baseline P1 of WSDM'22).

    Each client takes ``honest_steps`` of rate eta on its own data, which lead from theta to theta_1, then E steps on
    ``L_c = -(1/|T|) sum_t log sigma(s(u_c, v_t))`` from there, u_c its own embedding, which leads to ``theta_2``. It uploads
    ``(theta - theta_1) / eta + b (theta_1 - theta_2) / eta``: honest work with only the malicious change boosted. u_c stays
    as it is in all of them. The first honest step is what the client would upload; the attacker is told its rows and
    not its loss, so further ones take the mean cross-entropy of these, or BPR where they are pairs, of scores as in L_c:
    without the client's graph, where the model has one.

    b undoes the server's average: n / m_expected under a mean (the inverse of the clients' share), 1 under a sum. How WSDM'22
    set it is not stated; mapping to recommenders from memory. The original's distance term to the global model is not
    needed for its table and left out. Injected clients have a random profile without the targets.
    """

    card = AttackCard(
        name="p1",
        title="P1, model poisoning by explicit boosting",
        paper="Bhagoji et al., ICML 2019; baseline in Zhang et al., WSDM 2022",
        goal=Goal.PROMOTE,
        channel=Channel.GRADIENT,
        invents_users=True,
        knowledge=frozenset({Knowledge.OWN_DATA, Knowledge.COHORT_SIZE}),
        notes="Adapted from image classification; WSDM'22 gives no parameters. Version 1 took one honest step.",
        version=2,
    )

    class Params(Parameters):
        """Parameters."""

        boost: float | None = Field(None, gt=0, description="b; None: n / m_expected under a mean, 1 under a sum")
        local_steps: int = Field(1, ge=1, description="E, steps on the targets [original: 1 epoch]")
        profile_size: int = Field(30, ge=1, description="positives of an injected client's profile [as RA: 30]")
        honest_steps: int = Field(
            10,
            ge=1,
            description="steps on own data before it [a public library: 10 epochs; version 1: 1]",
            json_schema_extra=LATER,
        )

    params: ModelReplacement.Params

    def profiles(self, view: AttackerView) -> Profiles:
        return random_profiles(view, self.params.profile_size)

    def craft(self, view: AttackerView) -> Updates:
        honest = after_steps(view, view.honest(), self.params.honest_steps)
        rest, own_rows = split_targets(view, honest)
        own_dense = honest.updates.dense.stacked()
        eta = view.learning_rate
        targets = view.params.items[view.targets] - eta * own_rows
        dense = {name: value - eta * own_dense[name] for name, value in view.params.dense.items()}
        start = (targets, dense)
        for _ in range(self.params.local_steps):
            with torch.enable_grad():
                leaf = targets.detach().requires_grad_()
                leaves = {name: value.detach().requires_grad_() for name, value in dense.items()}
                loss = target_loss(view, honest.users, leaf, leaves, wish(self)).sum()
                gradients = torch.autograd.grad(loss, [leaf, *leaves.values()])
            targets = targets - eta * gradients[0]
            dense = {name: dense[name] - eta * g for name, g in zip(leaves, gradients[1:], strict=True)}
        boost = self.params.boost
        if boost is None:
            boost = view.cohort_size / view.malicious_per_round if view.aggregation != "sum" else 1.0
        factor = boost / eta
        return with_target_rows(
            view,
            honest,
            rest,
            own_rows + factor * (start[0] - targets),
            {name: own_dense[name] + factor * (start[1][name] - value) for name, value in dense.items()},
        )


class ModelReplacementDemoting(ModelReplacement):
    """p1 with ``L_c = -(1/|T|) sum_t log(1 - sigma(s(u_c, v_t)))``: each client's own user dislikes the targets."""

    card = turned_round(ModelReplacement.card)


def after_steps(view: AttackerView, honest: HonestStep, steps: int) -> HonestStep:
    """The same with ``(theta - theta_1) / eta`` as uploads, theta_1 [m, ...] where ``steps`` on own data lead each client.

    Every client has copies of its own of the dense parameters and of its rows, which are laid out [m, r, d], r the most that
    one has.
    """
    eta, batch, m = view.learning_rate, view.own_batch, len(view.clients)
    if steps == 1 or not len(batch.item):
        return honest
    loss = Loss("bce" if batch.pair_positive is None else "bpr")
    column = torch.arange(len(batch.item), device=view.device) - batch.starts[batch.client]
    ids = batch.item.new_zeros(m, int(column.max()) + 1).index_put((batch.client, column), batch.item)
    users = honest.users[:, None].expand(*ids.shape, -1)
    rows = honest.updates.all_rows()
    key, order = torch.sort(rows.client * view.num_items + rows.item)
    place = order[torch.searchsorted(key, batch.client * view.num_items + batch.item)]
    values = rows.values.clone()
    dense = {name: value.clone() for name, value in honest.updates.dense.stacked().items()}
    for _ in range(steps - 1):
        with torch.enable_grad():
            mine = (view.params.items[batch.item] - eta * values[place]).detach().requires_grad_()
            leaves = {
                name: (value - eta * dense[name]).detach().requires_grad_() for name, value in view.params.dense.items()
            }
            laid = mine.new_zeros(*ids.shape, mine.shape[1]).index_put((batch.client, column), mine)
            logits = view.model.logits(leaves, users, described(view.params, laid, ids))[batch.client, column]
            gradients = torch.autograd.grad(loss.value(logits, batch).sum(), [mine, *leaves.values()])
        values.index_add_(0, place, gradients[0])
        for name, gradient in zip(leaves, gradients[1:], strict=True):
            dense[name] += gradient
    updates = Updates(view.clients, (replace(rows, values=values),), DenseGradients.of(dense), honest.updates.weights)
    return HonestStep(updates, honest.users)
