"""What is measured of images: how far one is from another, how sharp it is, and how well a detector tells them apart."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from fedbench.vision.brisque import brisque_scores
from fedbench.vision.pieces import in_pieces
from fedbench.vision.resize import resize

__all__ = [
    "auc",
    "blur_scores",
    "brisque_scores",
    "detection",
    "largest_change",
    "psnr",
    "recall_at_zero_false_positives",
    "ssim",
]

IDENTICAL_DB = 100.0
"""PSNR that identical images are given, and no others get more: with none, a mean over images would not be finite."""
_GREY = (0.299, 0.587, 0.114)
_AT_ONCE = 32


def largest_change(before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
    """Largest |after - before| over pixels and channels, in steps of 8-bit pixels.

    Args:
        before, after: uint8 or float [k, 3, H, W] from 0 to 255.

    Returns:
        float64 [k].
    """
    return (after.double() - before.double()).abs().flatten(1).amax(1)


def psnr(before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
    """Peak signal to noise ratio, 10 log10(255^2 / MSE) dB over pixels and channels; at most 100, of identical images.

    Args:
        before, after: uint8 or float [k, 3, H, W] from 0 to 255.

    Returns:
        float64 [k].
    """
    error = (after.double() - before.double()).square().flatten(1).mean(1)
    return (10 * torch.log10(255**2 / error)).clamp(max=IDENTICAL_DB)


def ssim(before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
    """Structural similarity, mean over windows that lie inside and over channels.

    Wang, Bovik, Sheikh & Simoncelli, "Image quality assessment: from error visibility to structural similarity" (IEEE TIP
    2004), eq. 13: (2 m n + C1) (2 cov + C2) / ((m^2 + n^2 + C1) (s^2 + r^2 + C2)), moments weighted by an 11 x 11 Gaussian of
    sigma 1.5, C1 = (.01 x 255)^2, C2 = (.03 x 255)^2. Each colour channel by itself, where the paper has grey images.
    An image smaller than the window gets the largest odd window that fits.

    Args:
        before, after: uint8 or float [k, 3, H, W] from 0 to 255.

    Returns:
        float64 [k], at most 1.
    """
    width = min(11, *(side - 1 + side % 2 for side in before.shape[-2:]))
    place = torch.arange(width, dtype=torch.float64, device=before.device) - width // 2
    line = torch.exp(-place.square() / (2 * 1.5**2))
    line = line / line.sum()

    def averaged(x: torch.Tensor) -> torch.Tensor:
        across = F.conv2d(x.flatten(0, 1)[:, None], line.view(1, 1, 1, -1))
        return F.conv2d(across, line.view(1, 1, -1, 1)).view(*x.shape[:2], -1)

    def of(pair: torch.Tensor) -> torch.Tensor:
        x, y = pair.double().unbind(1)
        m, n = averaged(x), averaged(y)
        variances = averaged(x * x) - m * m + averaged(y * y) - n * n
        covariance = averaged(x * y) - m * n
        c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
        values = (2 * m * n + c1) * (2 * covariance + c2) / ((m * m + n * n + c1) * (variances + c2))
        return values.mean((1, 2))

    pairs = torch.stack([before, after], 1)
    with torch.no_grad():  # few at a time, so that memory does not grow with their number
        return torch.cat([of(part) for part in pairs.split(_AT_ONCE)])


def blur_scores(images: torch.Tensor, side: int | None = 256) -> torch.Tensor:
    """Variance of the Laplacian of each grey image: high is sharp.

    Grey is .299 R + .587 G + .114 B, the kernel [[0, 1, 0], [1, -4, 1], [0, 1, 0]]; borders are reflected without
    repeating the edge; the variance is over pixels (divided by their number). TOIS names a "Laplacian operator value"
    without a formula: this is the usual reading. The score depends on resolution, which ``side`` fixes, and on how images
    were stored.

    Scores are kept by content, as features are.

    Args:
        images: uint8 or float [k, 3, H, W] from 0 to 255, H and W at least 2.
        side: pixels to resize to before (bilinear, antialiased); None: as they are.

    Returns:
        float64 [k].
    """
    kernel = torch.tensor([[0.0, 1, 0], [1, -4, 1], [0, 1, 0]], dtype=torch.float64, device=images.device)
    weights = torch.tensor(_GREY, dtype=torch.float64, device=images.device).view(1, 3, 1, 1)

    def of(part: torch.Tensor) -> torch.Tensor:
        part = (part if side is None else resize(part, side)).double()
        grey = F.pad((part * weights).sum(1, keepdim=True), (1, 1, 1, 1), mode="reflect")
        return F.conv2d(grey, kernel.view(1, 1, 3, 3)).flatten(1).var(1, correction=0)

    return in_pieces(images, f"blur 1 {side}", of, piece=_AT_ONCE)


def auc(clean: torch.Tensor, adversarial: torch.Tensor) -> float | None:
    """P(adversarial < clean) + P(equal) / 2 over all pairs of similarities (Mann-Whitney); None when there are none.

    1: every adversarial image is less similar to its purified self than every clean one; 1/2: no telling.
    """
    if not len(clean) or not len(adversarial):
        return None
    ordered, asked = np.sort(_numbers(clean)), _numbers(adversarial)
    above = len(ordered) - np.searchsorted(ordered, asked, side="right")
    equal = np.searchsorted(ordered, asked, side="right") - np.searchsorted(ordered, asked, side="left")
    return float((above + equal / 2).sum() / (len(ordered) * len(asked)))


def recall_at_zero_false_positives(clean: torch.Tensor, adversarial: torch.Tensor) -> float | None:
    """Share of adversarial images below every clean one; None when there are none.

    TOIS prints a share of this kind with a threshold from other images (the lowest of 10,000 of ImageNet).
    """
    if not len(clean) or not len(adversarial):
        return None
    return float((adversarial < clean.min()).double().mean())


def detection(
    clean: torch.Tensor,
    adversarial: torch.Tensor,
    clean_flags: torch.Tensor | None = None,
    adversarial_flags: torch.Tensor | None = None,
) -> dict[str, float | None]:
    """How well similarity, and the flags set by it, tell adversarial images from clean ones.

    Args:
        clean: float [n], similarity of clean images that no threshold was set by. adversarial: float [k].
        clean_flags: bool [n], adversarial_flags: bool [k]: which are flagged; None: nobody looks.

    Returns:
        ``auc`` and ``recall_zero_fp``; with flags ``recall`` (flagged adversarial / adversarial),
        ``false_positive_rate`` (flagged clean / clean) and plain ``accuracy`` (right / all). None where not defined.
    """
    false = None if clean_flags is None or not len(clean_flags) else float(clean_flags.double().mean())
    found = (
        None if adversarial_flags is None or not len(adversarial_flags) else float(adversarial_flags.double().mean())
    )
    right = None
    if false is not None and found is not None:
        right = ((1 - false) * len(clean) + found * len(adversarial)) / (len(clean) + len(adversarial))
    return {
        "auc": auc(clean, adversarial),
        "recall_zero_fp": recall_at_zero_false_positives(clean, adversarial),
        "recall": found,
        "false_positive_rate": false,
        "accuracy": right,
    }


def _numbers(similarity: torch.Tensor) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return similarity.detach().double().cpu().numpy()
