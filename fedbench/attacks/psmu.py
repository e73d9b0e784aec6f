"""PSMU: poison with synthetic malicious users, new ones in every round."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
from pydantic import Field

from fedbench.attacks.batches import described
from fedbench.attacks.demotion import turned_round, wish
from fedbench.attacks.synthetic_users import Margin, SyntheticUserParameters, SyntheticUsers, compared, lag
from fedbench.attacks.uploads import target_updates
from fedbench.entries.cards import AttackCard, Channel, Goal, Knowledge
from fedbench.federation.updates import Updates
from fedbench.federation.view import AttackerView


class SyntheticMaliciousUsers(SyntheticUsers):
    """Each client simulates a fresh user and lifts the targets into that user's recommended list.

    Yuan et al. (2023), as restated in section 4.2 of the visually-aware federated recommendation paper (TOIS), its
    Algorithm 2. In every round that a client plays it makes up a user u (steps 1 to 3, :class:`SyntheticUsers`) with a
    list J, targets then dropped from it, and

    4. takes ``L_c = sum_t sum_(j in J) sigma(s_uj - s_ut)`` (eq. 12, 14);
    5. uploads the gradients by the targets' rows (eq. 16) and by the dense parameters, which in visual models include the
       projection E of image features (eq. 15); u is fixed, as it is propagated over its profile.

    For mf the row of t is ``-sum_j sigma(a_j) (1 - sigma(a_j)) u`` [d], with ``a_j = s_uj - s_ut``.

    Readings:

    * ``margin``: the source writes predicted scores r where step 4 has logits s. With ``r = sigma(s)``, its literal
      reading, the slope carries a factor ``r_t (1 - r_t)`` that vanishes for a target that is scored low, and 0.1 % of
      malicious clients do nothing (ML-1M, ncf, attack from epoch 8: ER@5 = 0). With logits ER@5 reaches 1 there and
      stays above a-hum, which is what was published; hence the default. The softplus of the difference of logits, whose
      slope does not vanish however far the target lies behind, is faster still, and not in the source. On vncf the
      published effect (none at 0.1 %) is that of the literal reading.
    * ``profiles``: drawn uniformly, as printed, they are of people who like what nobody likes; see the parameter, and
      ``psmu-popular``.
    * The fit of step 2: optimiser, steps and learning rate are not stated. Adam from N(0, 0.01^2), 100 steps at 0.05,
      after which the loss on ncf is flat; with the tiny embeddings of mf's first epochs no such fit comes to an end.
    * The list's length is not stated: that of ER@5.
    """

    card = AttackCard(
        name="psmu",
        title="Poisoning with synthetic malicious users (PSMU)",
        paper="Yuan et al., SIGIR 2023 (Manipulating Federated Recommender Systems)",
        goal=Goal.PROMOTE,
        channel=Channel.GRADIENT,
        invents_users=True,
        notes="Published for ncf and lightgcn under a server with Adam, attack from epoch 8 on (protocol parameter"
        " attack_start). The fit of the synthetic users and the list's length are not stated there.",
    )

    class Params(SyntheticUserParameters):
        """Parameters of the synthetic users, and of what they want."""

        margin: Margin = Field(
            "logit",
            description="what eq. 12 compares: logits [gives the published effect on ncf], or sigmoid outputs [its letter];"
            " 'softplus' has softplus(s_j - s_t) instead of a sigmoid [ours]",
        )

    params: SyntheticMaliciousUsers.Params

    def craft(self, view: AttackerView) -> Updates:
        users, listed = self.make_up(view, len(view.clients))
        return lifted(view, users, listed, self.params.margin, wish(self))


class PopularSyntheticUsers(SyntheticMaliciousUsers):
    """PSMU whose synthetic users like items as often as real users do (ours): profiles drawn by popularity.

    The attacker has to know how many interactions every item has, which PSMU does not.
    """

    card = replace(
        SyntheticMaliciousUsers.card,
        name="psmu-popular",
        title="PSMU with profiles drawn by popularity",
        paper="fedbench, after Yuan et al., SIGIR 2023",
        knowledge=frozenset({Knowledge.ITEM_POPULARITY}),
        notes="Not published: psmu, except that it draws a profile item in proportion to its interactions.",
    )

    class Params(SyntheticMaliciousUsers.Params):
        """As in psmu."""

        profiles: Literal["uniform", "popularity", "mined"] = Field(
            "popularity", description="how a profile is drawn; see psmu"
        )


class DemotingSyntheticUsers(SyntheticMaliciousUsers):
    """``L_c = sum_t sum_(j in J) sigma(s_ut - s_uj)``: the targets are to fall behind the synthetic users' lists.

    For mf the row of t is ``sum_j sigma(a_j) (1 - sigma(a_j)) u`` [d], with ``a_j = s_ut - s_uj``.
    """

    card = turned_round(SyntheticMaliciousUsers.card)


def lifted(view: AttackerView, users: torch.Tensor, listed: torch.Tensor, margin: Margin, sign: float = 1.0) -> Updates:
    """The gradients of ``L_c`` (steps 4 and 5).

    Args:
        view: the round. users: float32 [m, d], one for each of its clients. listed: int64 [m, K], the recommended lists;
            targets in them do not count. margin: as in the parameters. sign: -1 where the targets are to fall behind.
    """
    (m, d), count, size = users.shape, len(view.targets), listed.shape[1]
    counted = ~torch.isin(listed, view.targets)
    with torch.enable_grad():
        target = view.params.items[view.targets].expand(m, count, d).clone().requires_grad_()
        dense = {
            name: value.expand(m, *value.shape).clone().requires_grad_() for name, value in view.params.dense.items()
        }
        items = torch.cat([view.params.described(listed), described(view.params, target, view.targets)], dim=1)
        logits = view.model.logits(dense, users[:, None].expand(m, size + count, d), items)
        r = compared(logits, margin)
        loss = (lag(sign * (r[:, :size, None] - r[:, None, size:]), margin) * counted[:, :, None]).sum()
        rows, *by_dense = torch.autograd.grad(loss, [target, *dense.values()])
    return target_updates(view, rows, dict(zip(dense, by_dense, strict=True)))
