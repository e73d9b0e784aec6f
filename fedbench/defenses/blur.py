"""Gaussian blur."""

from __future__ import annotations

import math

import torch
from pydantic import Field

from fedbench.defenses.purifier import Purifier, PurifierParams, with_margin
from fedbench.entries.cards import DefenseCard, DefenseFamily

_PIECE = 8
"""Images at a time, so that they stay in the processor's cache."""


class Blur(Purifier):
    """``x <- round(G_s * x)``, G_s a Gaussian of deviation s pixels.

    A local smoothing in the sense of Xu, Evans & Qi (2018, section II.C), who use the median. Weights
    ``exp(-k^2 / (2 s^2))`` for ``|k| <= ceil(4 s)``, normalised, by rows and then by columns; borders reflected without
    repeating the edge; float32, rounded once, ties to even. Pillow's ``GaussianBlur(s)`` approximates the same.
    """

    card = DefenseCard(
        name="blur",
        title="Gaussian blur",
        paper="smoothing as in Xu, Evans & Qi, NDSS 2018",
        family=DefenseFamily.PURIFICATION,
    )

    class Params(PurifierParams):
        """Parameters."""

        radius: float = Field(1.0, gt=0, le=16, description="s, deviation in stored pixels [ours]")

    params: Blur.Params

    def purify(self, pixels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        return torch.cat([_blurred(part, self.params.radius) for part in pixels.split(_PIECE)])


def _blurred(pixels: torch.Tensor, deviation: float) -> torch.Tensor:
    reach = math.ceil(4 * deviation)
    weights = [math.exp(-(k**2) / (2 * deviation**2)) for k in range(-reach, reach + 1)]
    height, width = pixels.shape[-2:]
    wide = with_margin(pixels, reach).float()
    # Sums of shifted images rather than a convolution: the same bits whatever the batch.
    high = torch.zeros_like(wide[..., :height, :])
    for k, weight in enumerate(weights):
        high.add_(wide[..., k : k + height, :], alpha=weight / sum(weights))
    image = torch.zeros_like(high[..., :width])
    for k, weight in enumerate(weights):
        image.add_(high[..., k : k + width], alpha=weight / sum(weights))
    return image.round_().clamp_(0, 255).to(torch.uint8)
