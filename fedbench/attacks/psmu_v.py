"""PSMU-V: PSMU's synthetic users in front of the targets' images."""

from __future__ import annotations

import torch
from pydantic import Field

from fedbench.attacks.image_descent import DescentParameters, Lens, Wanted, descend
from fedbench.attacks.synthetic_users import Margin, SyntheticUserParameters, SyntheticUsers, compared, lag
from fedbench.entries.cards import AttackCard, Channel, Goal, Parameters
from fedbench.federation.images import ItemImages, ReplacedImages
from fedbench.federation.view import AttackerView


class SyntheticUserImages(SyntheticUsers):
    """Before every epoch, images of the targets that fresh synthetic users would like (TOIS, section 4.3, Algorithm 3).

    The provider of the targets' images makes up as many users as the attacker has clients (0.1 % of the genuine ones, as
    published), with lists J of which the targets are dropped (:class:`SyntheticUsers`), and minimises for each target
    (eq. 14, 17)

        ``L(delta) = sum_u sum_(j in J_u) sigma(r_uj - r_ut(x_t + delta)),  |delta|_inf <= eps``

    over the change delta of its original image; everything but ``phi(x_t + delta)`` is constant. Targets share nothing.
    In lightvgcn a target lies outside the synthetic users' graphs, so delta acts through z_t in the perceptron alone.
    Nothing is uploaded but images. The server's purifier, if any, is not known to it; rivals in the lists are scored by
    the features that all clients receive, which are those of purified images.

    Not stated, so ours: the norm of delta (l-infinity, by the size of eps and the literature it is compared with), the
    solver (signed steps; see :func:`descend`), its steps, K, and how the users are fitted. ``margin`` is as in psmu; r is
    the predicted probability, as printed, by default.
    """

    card = AttackCard(
        name="psmu-v",
        title="PSMU-V, synthetic users for poisoned images",
        paper="Manipulating Visually-aware Federated Recommender Systems and Its Countermeasures, TOIS",
        goal=Goal.PROMOTE,
        channel=Channel.IMAGE,
        invents_users=True,
        notes="Replaces the targets' images and uploads nothing else. The solver, and the norm in which eps bounds the"
        " change, are not stated in the paper. The scale of the model's features decides how far an image can reach.",
    )

    class Params(SyntheticUserParameters, DescentParameters):
        """Parameters of the synthetic users and of the images."""

        margin: Margin = Field(
            "probability",
            description="what the loss compares: sigmoid outputs [TOIS], or logits; 'softplus' has softplus(s_j - s_t)"
            " instead of a sigmoid [ours]",
        )
        warm_start: bool = Field(
            False, description="start from the image of the epoch before, not from the original [TOIS: not stated]"
        )

    params: SyntheticUserImages.Params

    def __init__(self, params: Parameters) -> None:
        super().__init__(params)
        self._shown: torch.Tensor | None = None

    def perturb(self, images: ItemImages, view: AttackerView) -> ReplacedImages | None:
        users, listed = self.make_up(view, view.num_malicious)
        lens = self.lens(images, view)
        start = self._shown if self.params.warm_start else None
        pixels = descend(images, view.targets, self.wanted(view, users, listed), self.params, start, lens)
        self._shown = pixels
        return ReplacedImages(view.targets, pixels)

    def lens(self, images: ItemImages, view: AttackerView) -> Lens | None:
        """What stands between an image and the extractor, as far as the attacker knows."""
        return None

    def wanted(self, view: AttackerView, users: torch.Tensor, listed: torch.Tensor) -> Wanted:
        """The loss of every target by the features of its image.

        Args:
            view: before an epoch. users: float32 [S, d]. listed: int64 [S, K]; targets in the lists do not count.
        """
        margin, params, logits = self.params.margin, view.params, view.model.logits
        rivals = logits(params.dense, users[:, None].expand(*listed.shape, -1), params.described(listed))
        above = compared(rivals, margin)[:, :, None]
        counted = ~torch.isin(listed, view.targets)[:, :, None]

        def loss(features: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
            described = torch.cat([params.items[view.targets[places]], features.to(view.device)], dim=1)
            shape = (len(users), len(places), -1)
            mine = logits(params.dense, users[:, None].expand(shape), described.expand(shape))
            own = compared(mine, margin)[:, None]
            return (lag(above - own, margin) * counted).sum((0, 1))

        return loss
