"""Sign flipping: every malicious client uploads its own honest gradient, turned round."""

from __future__ import annotations

from pydantic import Field

from fedbench.attacks.own_data import random_profiles
from fedbench.entries.cards import AttackCard, Channel, Goal, Knowledge, Parameters
from fedbench.federation.attack import Attack
from fedbench.federation.updates import Updates
from fedbench.federation.view import AttackerView, Profiles


class SignFlip(Attack):
    """``g_c = -factor h_c`` with the client's own honest gradient ``h_c``: rows, dense gradients and L2 term alike.

    Damaskinos et al. (ICML 2018) reverse the sign (factor 1); Li et al. (RSA, AAAI 2019) also lengthen it. Clients do not
    collude, and each touches the items that it would touch honestly. The reported numbers of samples are honest, and the
    clients' own embeddings follow their data. ``ipm`` is the same for the mean of colluding clients.
    """

    card = AttackCard(
        name="sign-flip",
        title="Sign flipping",
        paper="Damaskinos et al., ICML 2018; Li et al., AAAI 2019",
        goal=Goal.DEGRADE,
        channel=Channel.GRADIENT,
        knowledge=frozenset({Knowledge.OWN_DATA}),
    )

    class Params(Parameters):
        """Parameters."""

        factor: float = Field(
            1.0, gt=0, description="length of the upload in honest ones [original: 1; longer ones: Li et al.]"
        )
        profile_size: int = Field(
            30, ge=1, description="items of an injected client's random profile [ours, as p2: 30]"
        )

    params: SignFlip.Params

    def profiles(self, view: AttackerView) -> Profiles:
        return random_profiles(view, self.params.profile_size)

    def craft(self, view: AttackerView) -> Updates:
        honest = view.honest().updates
        return honest.scaled(honest.weights.new_full((len(view.clients),), -self.params.factor))
