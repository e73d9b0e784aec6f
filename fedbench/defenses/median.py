"""The coordinate-wise median."""

from __future__ import annotations

import torch

from fedbench.defenses.coordinates import Column
from fedbench.defenses.robust import CoordinateRule, ScopeParameters
from fedbench.entries.cards import DefenseCard, DefenseFamily


class Median(CoordinateRule):
    """``c * median(x_1k, ..., x_ck)`` of every coordinate k (Yin et al. 2018, definition 1).

    The median of an even number is the mean of the two middle values [ICDE'24 code]. In client scope a coordinate that
    fewer than half of the cohort touch has the median 0: items that few know do not learn.
    """

    card = DefenseCard(
        name="median",
        title="Coordinate-wise median",
        paper="Yin et al., ICML 2018; by item as in ICDE 2024",
        family=DefenseFamily.AGGREGATION,
        notes="Times the number of gradients, so that it stands for their sum.",
    )

    class Params(ScopeParameters):
        """Parameters."""

    params: Median.Params

    def typical(self, column: Column, f: torch.Tensor) -> torch.Tensor:
        return column.median()
