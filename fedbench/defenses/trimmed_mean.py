"""The coordinate-wise trimmed mean."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field

from fedbench.defenses.coordinates import Column
from fedbench.defenses.robust import ASSUMES_SHARE, GIVEN, CoordinateRule, ShareParameters
from fedbench.entries.cards import DefenseCard, DefenseFamily


class TrimmedMean(CoordinateRule):
    """``c`` times the mean of what is left of each coordinate after trimming (Yin et al. 2018, definition 2).

    ``ends``: without the f largest and the f smallest of the c values, as defined. ``nearest-median``: the c - f values
    nearest to the median, f dropped in all [ICDE'24 code].
    """

    card = DefenseCard(
        name="trimmed-mean",
        title="Coordinate-wise trimmed mean",
        paper="Yin et al., ICML 2018; by item as in ICDE 2024",
        family=DefenseFamily.AGGREGATION,
        knowledge=frozenset({GIVEN}),
        assumes=ASSUMES_SHARE,
        notes="Times the number of gradients. By item f = floor(c share) is 0 for items with fewer than 1 / share rows:"
        " there it is the sum.",
    )

    class Params(ShareParameters):
        """Parameters."""

        trim: Literal["ends", "nearest-median"] = Field(
            "ends", description="what is dropped: f at each end [definition], or the f farthest from the median [code]"
        )

    params: TrimmedMean.Params

    def typical(self, column: Column, f: torch.Tensor) -> torch.Tensor:
        if self.params.trim == "ends":
            return column.mean_between(f, column.population - f)
        return column.mean_nearest_to_median(column.population - f)
