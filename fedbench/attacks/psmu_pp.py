"""PSMU++: poisoned images and poisoned gradients at once."""

from __future__ import annotations

from dataclasses import replace

from pydantic import Field

from fedbench.attacks.psmu import lifted
from fedbench.attacks.psmu_v import SyntheticUserImages
from fedbench.attacks.synthetic_users import Margin
from fedbench.entries.cards import Channel
from fedbench.federation.updates import Updates
from fedbench.federation.view import AttackerView


class SyntheticUserImagesAndGradients(SyntheticUserImages):
    """``psmu-v`` before every epoch, and ``psmu`` in every round that a malicious client plays, for the same targets.

    In TOIS (Algorithm 3, line 4) the provider of the images takes the synthetic users of the malicious clients. A round
    has one of them or none, so here (ours) every malicious client makes one up before an epoch, at the parameters of
    that moment, and in a round the sampled ones make up others, as in psmu.

    The loss is one for both, as printed: the uploads have the images' margin, ``"probability"`` by default, where psmu has
    ``"logit"``. Under it 0.1 % of clients do nothing on ncf (see psmu), and the uploads may add nothing to the images.
    ``gradient_margin = "logit"`` makes them count.
    """

    card = replace(
        SyntheticUserImages.card,
        name="psmu-pp",
        title="PSMU++, poisoned images and gradients",
        channel=Channel.IMAGE_AND_GRADIENT,
        notes="psmu-v and psmu at once. The uploads have the images' margin, probability, as printed, under which 0.1 % of"
        " clients do nothing on ncf; gradient_margin=logit makes them count. The solver, and the norm in which eps bounds"
        " the change, are not stated in the paper. The scale of the model's features decides how far an image can reach.",
    )

    class Params(SyntheticUserImages.Params):
        """Parameters of the synthetic users, the images and the uploads."""

        gradient_margin: Margin | None = Field(
            None, description="margin of the uploads' loss; None: that of the images' [TOIS: one loss for both]"
        )

    params: SyntheticUserImagesAndGradients.Params

    def craft(self, view: AttackerView) -> Updates:
        users, listed = self.make_up(view, len(view.clients))
        return lifted(view, users, listed, self.params.gradient_margin or self.params.margin)
