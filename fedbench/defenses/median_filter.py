"""Median filter: each pixel becomes the median of its neighbourhood."""

from __future__ import annotations

import torch
from pydantic import Field, field_validator

from fedbench.defenses.purifier import Purifier, PurifierParams, with_margin
from fedbench.entries.cards import DefenseCard, DefenseFamily

_PIECE = 16
"""Images at a time, for memory's sake."""


class MedianFilter(Purifier):
    """``x <- median of the size x size square around it``, each colour channel by itself: feature squeezing (Xu et al. 2018).

    Section II.C there. Borders reflected without repeating the edge. The size is odd, so that the square is centred and the
    median one of its values; their 2 x 2 is off-centre.
    """

    card = DefenseCard(
        name="median-filter",
        title="Median filter",
        paper="Xu, Evans & Qi, NDSS 2018",
        family=DefenseFamily.PURIFICATION,
    )

    class Params(PurifierParams):
        """Parameters."""

        size: int = Field(3, ge=3, le=15, description="side of the square in stored pixels, odd [NDSS'18: 2 or 3]")

        @field_validator("size")
        @classmethod
        def _odd(cls, value: int) -> int:
            if value % 2 == 0:
                raise ValueError("must be odd")
            return value

    params: MedianFilter.Params

    def purify(self, pixels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        return torch.cat([_filtered(part, self.params.size) for part in pixels.split(_PIECE)])


def _filtered(pixels: torch.Tensor, size: int) -> torch.Tensor:
    height, width = pixels.shape[-2:]
    wide = with_margin(pixels, size // 2)
    around = [wide[..., i : i + height, j : j + width] for i in range(size) for j in range(size)]
    if size == 3:
        return _median_of_nine(around)
    return torch.stack(around).median(0).values


def _median_of_nine(values: list[torch.Tensor]) -> torch.Tensor:
    """The median of nine by 19 exchanges (Smith 1996, "Implementing median filters in XC4000E FPGAs").

    Rows sorted; then the largest of the least, the median of the middle ones, the least of the largest; their median.
    """
    rows = [_sorted(*values[i : i + 3]) for i in (0, 3, 6)]
    low, middle, high = zip(*rows, strict=True)
    largest_low = torch.maximum(torch.maximum(low[0], low[1]), low[2])
    smallest_high = torch.minimum(torch.minimum(high[0], high[1]), high[2])
    return _sorted(largest_low, _sorted(*middle)[1], smallest_high)[1]


def _sorted(a: torch.Tensor, b: torch.Tensor, c: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    a, b = torch.minimum(a, b), torch.maximum(a, b)
    b, c = torch.minimum(b, c), torch.maximum(b, c)
    return torch.minimum(a, b), torch.maximum(a, b), c
