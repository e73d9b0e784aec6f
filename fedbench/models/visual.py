"""What the models that look at images have in common: which features they read."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from fedbench.entries.cards import Parameters


class VisualParams(Parameters):
    """Which features of images a model reads; it learns a projection of them, and nothing of the extractor."""

    extractor: str = Field(
        "efficientnet-lite0", description="the frozen network [TOIS: VGG; others gave the same trend]"
    )
    feature_norm: Literal["l2", "none"] = Field(
        "l2", description="divide every item's features by their Euclidean norm, or leave them [not stated]"
    )
    feature_scale: float = Field(
        4.0, gt=0, description="factor on the features: with l2, their norm [not stated; probes: 4]"
    )
    missing: Literal["zero", "mean"] = Field(
        "zero", description="features of items without an image: zeros, or the mean of the others [not stated]"
    )
