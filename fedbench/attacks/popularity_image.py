"""Images of targets that look like those of popular items."""

from __future__ import annotations

import math
from typing import Literal

import torch
from pydantic import Field

from fedbench.attacks.image_descent import DescentParameters, descend
from fedbench.attacks.shilling import by_popularity
from fedbench.entries.cards import AttackCard, Channel, Goal, Knowledge, Parameters
from fedbench.errors import UserError
from fedbench.federation.attack import Attack
from fedbench.federation.images import ItemImages, ReplacedImages
from fedbench.federation.view import AttackerView


class PopularImages(Attack):
    """``argmin |phi(x_t + delta) - h_t|^2, |delta|_inf <= eps``, h the features of popular items' images.

    The baseline of TOIS, after the expert attack of Liu and Larson (WWW 2021), whose hook is one popular item. What TOIS
    takes is not defined: the mean over the most popular tenth of the items that have an image (``hook``, default), the
    most popular of them, or the one of them nearest to the target's own image. Targets are no hooks.

    phi does not change, so the image is the same in every epoch: it is made before the first and shown from then on.
    Solver as in psmu-v, for comparison; the expert attack has 5,000 steps of Adam.
    """

    card = AttackCard(
        name="popularity-image",
        title="Popular-looking images",
        paper="Baseline of TOIS, after Liu and Larson, WWW 2021",
        goal=Goal.PROMOTE,
        channel=Channel.IMAGE,
        knowledge=frozenset({Knowledge.ITEM_POPULARITY}),
        notes="Replaces the targets' images, once, and uploads nothing else.",
    )

    class Params(DescentParameters):
        """Parameters."""

        hook: Literal["mean", "top1", "nearest"] = Field(
            "mean",
            description="what to look like: the mean features of popular items [ours], the most popular one's [WWW'21:"
            " one item], or the nearest popular one's",
        )
        share: float = Field(
            0.1, gt=0, le=1, description="share of the items with an image that are popular [not stated; ours: 10 %]"
        )

    params: PopularImages.Params

    def __init__(self, params: Parameters) -> None:
        super().__init__(params)
        self._done = False

    def perturb(self, images: ItemImages, view: AttackerView) -> ReplacedImages | None:
        if self._done:
            return None
        self._done = True
        hooks = self._hooks(images, view)

        def loss(features: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
            return (features - hooks[places.to(hooks.device)]).square().sum(1)

        return ReplacedImages(view.targets, descend(images, view.targets, loss, self.params))

    def _hooks(self, images: ItemImages, view: AttackerView) -> torch.Tensor:
        """float32 [T, F]: what each target is to look like."""
        device = images.pixels.device
        order = by_popularity(view.item_popularity)
        shown = torch.ones(len(order), dtype=torch.bool) if images.there is None else images.there
        shown = shown.to(order.device)[order]
        count = math.ceil(self.params.share * int(shown.sum()))
        popular = order[shown & ~torch.isin(order, view.targets)][:count].to(device)
        if not len(popular):
            raise UserError(
                "attack 'popularity-image': every item with an image is a target; there is none to look like."
            )
        if self.params.hook == "top1":
            popular = popular[:1]
        looks = images.extract(images.pixels[popular])
        targets = view.targets.to(device)
        if self.params.hook != "nearest":
            return looks.mean(0).expand(len(targets), -1)
        nearest = torch.cdist(images.extract(images.pixels[targets]), looks).argmin(1)
        return looks[nearest]
