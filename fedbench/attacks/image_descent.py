"""Images that an attacker paints: signed-gradient descent inside the eps ball around the original, in 8-bit steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import Field

from fedbench.entries.cards import Parameters
from fedbench.federation.images import ItemImages

PIECE = 32
"""Images whose gradient is taken at once."""
PIECE_ON_CPU = 8
"""The same where memory is what it costs: half a GiB of efficientnet-lite0."""

Wanted = Callable[["torch.Tensor", "torch.Tensor"], "torch.Tensor"]
"""The loss of each of k images, float32 [k], by their features, float32 [k, F], and which of all they are, int64 [k]."""

Change = Callable[["torch.Tensor"], "torch.Tensor"]
"""Images, or gradients by images, to others of the same shape."""


@dataclass(frozen=True)
class Lens:
    """What stands between an image and the extractor.

    Attributes:
        seen: what becomes of images, uint8 [k, 3, H, W]. samples: over how many draws of that to average.
        back: takes gradients by what becomes of an image, float32 [k, 3, H, W], to gradients by the image.
    """

    seen: Change
    samples: int
    back: Change


class DescentParameters(Parameters):
    """How an image is changed."""

    eps: int = Field(
        4, ge=0, le=255, description="bound on the change of every pixel, of 255 [TOIS: 4; 1 to 32 in tables]"
    )
    steps: int = Field(20, ge=0, description="signed steps before an epoch [not stated; ours: 20]")
    step_size: float | None = Field(None, gt=0, description="of a pixel, in a step; None: max(1, eps/4) [not stated]")
    keep: Literal["last", "best"] = Field(
        "last", description="the image of the last step, or the one of the least loss [not stated: the solver is ours]"
    )


def descend(
    images: ItemImages,
    items: torch.Tensor,
    loss: Wanted,
    params: DescentParameters,
    start: torch.Tensor | None = None,
    lens: Lens | None = None,
) -> torch.Tensor:
    """``x <- clip(x - a sign(g), x_0 - eps, x_0 + eps)``, clipped to 0..255 too, from x_0 or ``start``, then rounded.

    g is the gradient of each image's own loss at the image as it would be uploaded, rounded, taken through the rounding
    as if it were the identity (with a default step and eps up to 4 or a multiple of 4 nothing is ever rounded). With a
    ``lens`` it is taken at what becomes of that image, averaged over ``samples`` draws, and taken ``back``; so is the loss
    by which ``keep = "best"`` chooses, among the image at the start and that after every step, the first of equals.

    Args:
        images: the original ones of all items. items: int64 [k], which to change.
        loss: gets features where ``images.extract`` leaves them; what it returns may be on any device.
        start: uint8 [k, 3, H, W], or None.

    Returns:
        uint8 [k, 3, H, W], on the images' device, each within ``eps`` of the original.
    """
    made, size = [], PIECE_ON_CPU if images.pixels.device.type == "cpu" else PIECE
    for piece in torch.arange(len(items), device=items.device).split(size):
        original = images.pixels[items[piece].to(images.pixels.device)].float()
        first = original if start is None else start[piece.to(start.device)].to(original)
        low, high = (original - params.eps).clamp_(min=0), (original + params.eps).clamp_(max=255)
        made.append(_piece(images.extract, piece, loss, params, first, low, high, lens))
    return torch.cat(made) if made else images.pixels[:0]


def _piece(
    extract: Callable[[torch.Tensor], torch.Tensor],
    places: torch.Tensor,
    loss: Wanted,
    params: DescentParameters,
    x: torch.Tensor,
    low: torch.Tensor,
    high: torch.Tensor,
    lens: Lens | None,
) -> torch.Tensor:
    """The images at ``places``, float32 [k, 3, H, W], from x between low and high: all descend at once."""
    size = max(1.0, params.eps / 4) if params.step_size is None else params.step_size
    x = x.clamp(low, high)
    best, least = x.round(), x.new_full((len(x),), torch.inf)
    for step in range(params.steps + 1):
        more = step < params.steps
        if not more and params.keep == "last":
            break
        now = x.round()
        value, gradient = torch.zeros_like(least), torch.zeros_like(x)
        for _ in range(1 if lens is None else lens.samples):
            leaf = now.clone() if lens is None else lens.seen(now.to(torch.uint8)).float()
            with torch.set_grad_enabled(more):
                each = loss(extract(leaf.requires_grad_(more)), places)
                if more:
                    gradient += torch.autograd.grad(each.sum(), leaf)[0]
            value += each.detach().to(value)
        if more and lens is not None:
            gradient = lens.back(gradient)
        better = value < least
        best, least = torch.where(better.view(-1, 1, 1, 1), now, best), torch.where(better, value, least)
        x = (x - size * gradient.sign()).clamp(low, high)
    return (x.round() if params.keep == "last" else best).to(torch.uint8)
