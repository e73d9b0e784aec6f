"""The images of items: what is shown of each, and how a picture becomes the features that a recommender reads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class ItemImages:
    """One image for each item, and the frozen public network that looks at it.

    Attributes:
        pixels: uint8 [M, 3, H, W].
        extract: turns images, uint8 [k, 3, H, W], into features, float32 [k, F]. It is never trained, and an attacker may
            compute it as well as its gradient.
    """

    pixels: torch.Tensor
    extract: Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class ReplacedImages:
    """Images that an attacker shows instead of those that are there.

    Attributes:
        items: int64 [k], whose images. pixels: uint8 [k, 3, H, W].
    """

    items: torch.Tensor
    pixels: torch.Tensor
