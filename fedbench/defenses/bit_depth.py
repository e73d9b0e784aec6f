"""Bit depth: fewer shades."""

from __future__ import annotations

import torch
from pydantic import Field

from fedbench.defenses.purifier import Purifier, PurifierParams
from fedbench.entries.cards import DefenseCard, DefenseFamily


class BitDepth(Purifier):
    """``x <- round(255/L round(L x/255))`` with ``L = 2^bits - 1``: feature squeezing (Xu, Evans & Qi 2018, section II.B).

    Neither rounding meets a tie. Their best joint detectors for CIFAR-10 and ImageNet use 5 bits.
    """

    card = DefenseCard(
        name="bit-depth",
        title="Bit-depth reduction",
        paper="Xu, Evans & Qi, NDSS 2018",
        family=DefenseFamily.PURIFICATION,
    )

    class Params(PurifierParams):
        """Parameters."""

        bits: int = Field(
            5, ge=1, le=8, description="of a colour channel [NDSS'18, CIFAR-10 and ImageNet]; 8: unchanged"
        )

    params: BitDepth.Params

    def purify(self, pixels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        levels = 2**self.params.bits - 1
        shades = torch.arange(256, dtype=torch.float64)
        table = (255 / levels * (levels * shades / 255).round()).round().to(torch.uint8)
        table = table.to(pixels.device)
        return torch.cat([table[part.int()] for part in pixels.split(64)])
