"""Antialiased bilinear resizing that can be differentiated: the one that extractors, attackers and measures share."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def resize(images: torch.Tensor, side: int) -> torch.Tensor:
    """Images at ``side`` x ``side`` pixels, by bilinear interpolation whose kernel is widened when shrinking.

    A side that is there already is left as it is. Values are not rounded: uint8 and float images of equal values give
    equal results.

    Args:
        images: uint8 or float [k, 3, H, W], any H and W; the aspect ratio is given up.
        side: pixels, of height and width.

    Returns:
        float [k, 3, side, side], in the units of ``images``; float32 for uint8.
    """
    images = images if images.is_floating_point() else images.float()
    if images.shape[-2:] == (side, side):
        return images
    return F.interpolate(images, size=(side, side), mode="bilinear", antialias=True, align_corners=False)
