"""Explicit boosting (EB): every malicious client makes itself like the targets."""

from __future__ import annotations

import torch
from pydantic import Field

from fedbench.attacks.batches import regular_batch
from fedbench.attacks.demotion import turned_round
from fedbench.attacks.sampling import distinct, outside
from fedbench.entries.cards import AttackCard, Channel, Goal, Parameters
from fedbench.errors import UserError
from fedbench.federation.attack import Attack
from fedbench.federation.losses import Loss
from fedbench.federation.updates import DenseGradients, Tensors, Updates
from fedbench.federation.view import AttackerView


class ExplicitBoost(Attack):
    """``L_c = -(1/|T|) sum_t log sigma(s(u_c, v_t))`` with a user embedding ``u_c`` of the client's own.

    Zhang et al. (WSDM 2022, eq. 5; there one part of PipAttack); ICDE'24's row "PIPA", without popularity knowledge, is
    this. Each sampled client uploads the gradient of ``L_c`` by the targets' rows and by the dense parameters, at its
    old ``u_c``, then takes the step ``u_c <- u_c - eta dL_c/du_c``: the local step of an honest client whose only
    interactions are the targets. For mf the row of t is ``-(1/|T|) (1 - sigma(u.v_t)) u`` [d].

    Readings:

    * ``init_std``: ICDE'24 code N(0, 1) (the library's default), which gives the published level on mf (ML-100K,
      target 467, epoch 200: 5 to 44 over 12 seeds, mean 19, against 26.42); IJCAI'22 code N(0, 0.01^2), which gives 4.
      Default 1. WSDM'22 starts from an honestly trained ``u_c``.
    * ``negatives``: papers and ICDE'24 code: none. IJCAI'22 code: an honest client with the targets as positives and 4
      fixed random negatives for each; its loss is the mean over all ``|T| (1 + q)`` rows and it uploads the negatives'
      rows too. Drawn here without repetition (the code: with; at 4 of 3,706 the same).
    """

    card = AttackCard(
        name="explicit-boost",
        title="Explicit boosting (EB)",
        paper="Zhang et al., WSDM 2022",
        goal=Goal.PROMOTE,
        channel=Channel.GRADIENT,
        invents_users=True,
        notes="The rows named PIPA in ICDE'24 are this attack, not PipAttack. On mf it depends on one random direction:"
        " large variance over seeds. On ncf with 4 negatives, n clients act like n/5 of a-ra.",
    )

    class Params(Parameters):
        """Parameters of the malicious clients."""

        init_std: float = Field(
            1.0,
            gt=0,
            description="standard deviation of the clients' embeddings [ICDE'24 code: 1; IJCAI'22 code: 0.01]",
        )
        negatives: int = Field(
            0, ge=0, description="fixed random negatives for each target [papers, ICDE'24 code: 0; IJCAI'22 code: 4]"
        )
        strength: float = Field(
            1.0, gt=0, description="factor on the upload, for comparisons at equal strength x clients [papers: 1]"
        )

    params: ExplicitBoost.Params

    def start(self, view: AttackerView) -> None:
        """Draw what the clients keep: embeddings [m_tot, d] and training items [m_tot, |T| (1 + q)].

        Raises:
            UserError: when there are not enough items for the negatives.
        """
        m, count = view.num_malicious, len(view.targets)
        wanted = self.params.negatives * count
        if wanted > view.num_items - count:
            raise UserError(
                f"attack {self.card.name!r}: negatives = {self.params.negatives} for {count} target(s) needs {wanted}"
                f" other items; the dataset has {view.num_items - count}."
            )
        g = view.generator
        self.users = torch.randn(m, view.embedding_size, generator=g, device=view.device) * self.params.init_std
        targets = view.targets.expand(m, count)
        drawn = distinct(m, wanted, view.num_items - count, g)
        self.items = torch.cat([targets, outside(targets, drawn)], dim=1)
        self.labels = torch.zeros(self.items.shape, device=view.device)
        self.labels[:, :count] = 1
        if self.card.goal == Goal.DEMOTE:
            self.labels = 1 - self.labels

    def craft(self, view: AttackerView) -> Updates:
        users = self.users.index_select(0, view.clients)
        batch = regular_batch(self.items.index_select(0, view.clients), self.labels.index_select(0, view.clients))
        step = view.model.local_step(view.params, users, batch, Loss())
        self.users.index_copy_(0, view.clients, users - view.learning_rate * step.users)
        return scaled(Updates(view.clients, step.rows, step.dense, batch.size), self.params.strength)


class ExplicitDemotion(ExplicitBoost):
    """``L_c = -(1/|T|) sum_t log(1 - sigma(s(u_c, v_t)))``: every malicious client is a user who dislikes the targets.

    For mf the row of t is ``(1/|T|) sigma(u.v_t) u`` [d]. ``negatives`` become positives, as all labels are turned round.
    """

    card = turned_round(
        ExplicitBoost.card,
        "Not published: explicit-boost with the sign of its objective changed. On mf it pushes the targets along one random"
        " direction, which makes them longer and may well show them to more users.",
    )


def scaled(updates: Updates, factor: float) -> Updates:
    """The uploads times ``factor``; their weights (numbers of samples) stay."""
    if factor == 1.0:
        return updates

    def times(tensors: Tensors) -> Tensors:
        return {name: value * factor for name, value in tensors.items()}

    dense = updates.dense
    rows = tuple(block.scaled(updates.weights.new_full(block.item.shape, factor)) for block in updates.rows)
    return Updates(
        updates.clients,
        rows,
        DenseGradients(lambda: times(dense.total()), lambda: times(dense.stacked())),
        updates.weights,
    )
