"""The images of items: what is shown of each, and how a picture becomes the features that a recommender reads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch


@dataclass(frozen=True)
class ItemImages:
    """One image for each item, and the frozen public network that looks at it.

    Attributes:
        pixels: uint8 [M, 3, H, W]; black where there is none.
        extract: turns images, uint8 [k, 3, H, W] or float32 from 0 to 255, into features, float32 [k, F]. It is never
            trained, and an attacker may compute it as well as its gradient by float images.
        there: bool [M], which items have an image; None: all.
        missing: features of items without one: ``"zero"``, or the ``"mean"`` of the others.
    """

    pixels: torch.Tensor
    extract: Callable[[torch.Tensor], torch.Tensor]
    there: torch.Tensor | None = None
    missing: Literal["zero", "mean"] = "zero"


@dataclass(frozen=True)
class ReplacedImages:
    """Images that an attacker shows instead of those that are there.

    Attributes:
        items: int64 [k], whose images. pixels: uint8 [k, 3, H, W].
    """

    items: torch.Tensor
    pixels: torch.Tensor
