"""Purification of images by diffusion: add noise up to a step, then remove it with a denoiser, perhaps guided by the input.

Schedule and steps are those of DDPM (Ho, Jain & Abbeel 2020), respaced as in improved DDPM (Nichol & Dhariwal 2021);
purification is Algorithm 4 of TOIS ("Manipulating Visually-aware Federated Recommender Systems and Its Countermeasures"),
with guidance after Wang et al. 2022 (arXiv 2205.14969). Where the paper is wrong or silent:

- its beta_t lacks ``+ beta_1``: a misprint, added here;
- its guidance pushes away from the input (eqs. 25-26): the sign is a minus here;
- "1,000 steps" is taken for the length of the schedule: from step 1,000 nothing of an image comes back. ``t_star``, the
  step to which noise is added, is not given;
- a guidance scale of 1,000 on a squared error diverges as a sum over pixels from ``t_star`` 150 and does nothing as a mean:
  the sum, with a scale that is capped, is the default.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F

from fedbench.errors import UserError
from fedbench.vision.denoisers.base import Denoiser
from fedbench.vision.resize import resize
from fedbench.vision.schedule import LENGTH, Steps

VERSION = 1
"""Raised when the same settings give other images: what is kept of earlier versions is then not found."""

Progress = Callable[[int, int], None]
"""Called with the number of images that are done, and of all."""


@dataclass(frozen=True)
class Purification:
    """How images are purified.

    Attributes:
        t_star: step of the schedule, 0 to 1,000, up to which noise is added; 0 leaves images as they are.
        steps: how many of 1..t_star the way back takes, evenly spaced with both ends; None: all.
        guidance: lambda, how strongly the way back is drawn to the noised input; 0: not at all.
        guide_noise: the noised inputs x_1..x_t*: one Markov path, ``"chain"``; one noise vector, ``"shared"``; or a
            new one for every step, ``"fresh"``.
        guide_reduction: squared errors of an image's pixels are summed, or averaged (with which the published 1,000 does
            nothing).
        cap: c; a step goes at most this share of the way to its guide, ``lambda_t = min(lambda, c / (2 Sigma_t))``, so no
            lambda diverges. A step that stands for k of the schedule goes at most ``1 - (1 - c)^k``, so that fewer steps
            do not weaken the guidance. None: no cap, as printed.
        variance: of the noise of a step: ``"learned"`` by the denoiser, ``"beta"``, ``"beta-tilde"``; or ``"auto"``: learned
            where the denoiser says it, beta-tilde where it does not.
        clip: whether the predicted clean image is kept in [-1, 1].
        side: pixels, of height and width, at which it is done; None: the denoiser's own, or the images' (or the next that
            the denoiser takes) where it works at any.
        enlarge: how a result at another side comes back to the images' own.
    """

    t_star: int = 150
    steps: int | None = 8
    guidance: float = 0.0
    guide_noise: Literal["chain", "shared", "fresh"] = "chain"
    guide_reduction: Literal["sum", "mean"] = "sum"
    cap: float | None = 0.1
    variance: Literal["auto", "learned", "beta", "beta-tilde"] = "auto"
    clip: bool = True
    side: int | None = None
    enlarge: Literal["bilinear", "bicubic"] = "bicubic"

    def __post_init__(self) -> None:
        """Raise :class:`UserError` for what is out of range."""
        if not 0 <= self.t_star <= LENGTH:
            raise UserError(f"purification: t_star = {self.t_star} must be from 0 to {LENGTH}.")
        if self.steps is not None and self.steps < 1:
            raise UserError(f"purification: steps = {self.steps} must be at least 1, or None for all.")
        if not (math.isfinite(self.guidance) and self.guidance >= 0):
            raise UserError(f"purification: guidance = {self.guidance} must be 0 or more.")
        if self.cap is not None and not 0 < self.cap <= 1:
            raise UserError(f"purification: cap = {self.cap} must be above 0 and at most 1, or None.")
        if self.side is not None and self.side < 1:
            raise UserError(f"purification: side = {self.side} must be at least 1 pixel.")


def purify(
    images: torch.Tensor,
    denoiser: Denoiser,
    settings: Purification,
    seed: int,
    *,
    batch: int = 16,
    progress: Progress | None = None,
) -> torch.Tensor:
    """Images as the diffusion gives them back.

    The noise of an image is drawn from a stream of ``seed`` and its content, so its result does not depend on the images
    beside it, on their order, on ``batch``, nor on the device; but for the last bits of a network's convolutions, which move
    one of some 400,000 values by 1. Guides and steps draw from two streams:
    with and without guidance the way back has the same noise.

    Args:
        images: uint8 [k, 3, H, W], any H and W.
        denoiser: on the images' device.
        seed: any integer; another one gives other noise.
        batch: images at once. progress: called after every batch.

    Returns:
        uint8 [k, 3, H, W].

    Raises:
        UserError: ``t_star`` is beyond what the denoiser knows, it gives no variance to learn, or guidance without a cap
            diverged.
    """
    if settings.t_star == 0 or not len(images):
        return images.clone()
    made = []
    for part in images.split(batch):
        draws = Draws.of(part, seed)
        with torch.no_grad():
            clean = purified(part.float(), denoiser, settings, draws)
        if not bool(torch.isfinite(clean).all()):
            raise UserError(f"purification: guidance = {settings.guidance} diverged; set a cap, or lower it.")
        made.append(clean.round().clamp(0, 255).to(torch.uint8))
        if progress is not None:
            progress(sum(map(len, made)), len(images))
    return torch.cat(made)


def purified(images: torch.Tensor, denoiser: Denoiser, settings: Purification, draws: Draws) -> torch.Tensor:
    """:func:`purify` of float images [k, 3, H, W] from 0 to 255, not rounded; differentiable where the denoiser is."""
    height, width = images.shape[-2:]
    side = settings.side or denoiser.size
    if side is None and (height % denoiser.multiple or width % denoiser.multiple):
        side = -(-max(height, width) // denoiser.multiple) * denoiser.multiple
    small = images if side is None else resize(images, side)
    clean = chain(small / 127.5 - 1, denoiser, settings, draws)
    clean = (clean.clamp(-1, 1) + 1) * 127.5
    if clean.shape[-2:] != (height, width):
        clean = F.interpolate(clean, size=(height, width), mode=settings.enlarge, align_corners=False)
    return clean.clamp(0, 255)


def chain(x: torch.Tensor, denoiser: Denoiser, settings: Purification, draws: Draws) -> torch.Tensor:
    """The way to ``t_star`` and back (Algorithm 4 of TOIS).

    For steps k = K..1 at ``t = t_k``, with ``e, v`` from the denoiser and ``x0 = (y - sqrt(1 - abar_t) e) / sqrt(abar_t)``::

        mu = [sqrt(abar_{k-1}) beta_k x0 + sqrt(alpha_k) (1 - abar_{k-1}) y] / (1 - abar_k)
        y  = mu - lambda_k Sigma_k grad D(x_k, y) + sqrt(Sigma_k) noise,    D = sum of squared differences

    without noise in the last one. Guides ``x_k`` of the Markov path are drawn from the far end, each given the one before
    and the input, which has the same law as drawing them from the near end and needs no memory of all.

    Args:
        x: float [B, 3, H, W] in [-1, 1].

    Returns:
        float [B, 3, H, W], not cut to [-1, 1].
    """
    if settings.t_star == 0:
        return x
    if settings.t_star > denoiser.t_max:
        raise UserError(
            f"denoiser {denoiser.card.name!r} knows noise up to step {denoiser.t_max}; t_star = {settings.t_star} is beyond."
        )
    plan = Steps.respaced(settings.t_star, settings.steps)
    last = len(plan)
    shared = draws.guide(x)
    y = guide = plan.noised(x, last, shared)
    for k in range(last, 0, -1):
        t = torch.full((len(x),), plan.times[k], dtype=torch.int64, device=x.device)
        predicted, interpolation = denoiser(y, t)
        mean = plan.mean(y, predicted, k, settings.clip)
        variance = _variance(plan, k, settings.variance, interpolation, denoiser)
        if settings.guidance:
            mean = mean - _pull(settings, variance, plan.strides[k], x[0].numel()) * (y - guide)
            if k > 1:
                guide = _next_guide(settings, plan, x, guide, k, shared, draws)
        y = mean if k == 1 else mean + variance**0.5 * draws.step(x)
    return y


def _variance(
    plan: Steps, k: int, kind: str, interpolation: torch.Tensor | None, denoiser: Denoiser
) -> torch.Tensor | float:
    """Sigma_k, one number or [B, 3, H, W]."""
    if kind == "beta":
        return plan.beta[k]
    if kind == "beta-tilde" or (kind == "auto" and interpolation is None):
        return plan.beta_tilde[k]
    if interpolation is None:
        raise UserError(f"denoiser {denoiser.card.name!r} has learned no variance; use beta or beta-tilde.")
    return torch.exp(interpolation * plan.log_beta[k] + (1 - interpolation) * plan.log_beta_tilde[k])


def _pull(settings: Purification, variance: torch.Tensor | float, stride: int, numbers: int) -> torch.Tensor | float:
    """``2 lambda_k Sigma_k`` (divided by the number of an image's values, for a mean), at most the cap."""
    reduced = numbers if settings.guide_reduction == "mean" else 1
    pull = 2 * settings.guidance / reduced * variance
    if settings.cap is None:
        return pull
    most = 1 - (1 - settings.cap) ** stride
    return pull.clamp(max=most) if isinstance(pull, torch.Tensor) else min(pull, most)


def _next_guide(
    settings: Purification,
    plan: Steps,
    x: torch.Tensor,
    guide: torch.Tensor,
    k: int,
    shared: torch.Tensor,
    draws: Draws,
) -> torch.Tensor:
    """The guide of step ``k - 1``, which is at least 1, given that of step ``k``."""
    if settings.guide_noise == "shared":
        return plan.noised(x, k - 1, shared)
    if settings.guide_noise == "fresh":
        return plan.noised(x, k - 1, draws.guide(x))
    return plan.posterior(x, guide, k) + plan.beta_tilde[k] ** 0.5 * draws.guide(x)


class Draws:
    """Standard normal noise, of each image from streams of its own.

    Args:
        seeds: a seed for each image.
    """

    def __init__(self, seeds: list[int]) -> None:
        self._guides, self._steps = (
            [np.random.Generator(np.random.PCG64([which, seed])) for seed in seeds] for which in (0, 1)
        )

    @classmethod
    def of(cls, images: torch.Tensor, seed: int) -> Draws:
        """Streams of ``seed`` and the content of each image, uint8 [k, 3, H, W]."""
        prefix = f"{seed} {tuple(images.shape[1:])} ".encode()
        content = images.cpu().contiguous().numpy()
        return cls([int.from_bytes(hashlib.sha256(prefix + image.tobytes()).digest()[:16], "big") for image in content])

    def guide(self, like: torch.Tensor) -> torch.Tensor:
        """Noise for the noised input, of the shape, type and device of ``like``."""
        return _normal(self._guides, like)

    def step(self, like: torch.Tensor) -> torch.Tensor:
        """Noise for a step back."""
        return _normal(self._steps, like)


def _normal(streams: list[np.random.Generator], like: torch.Tensor) -> torch.Tensor:
    out = np.empty(tuple(like.shape), dtype=np.float64 if like.dtype == torch.float64 else np.float32)
    for stream, row in zip(streams, out, strict=True):
        stream.standard_normal(dtype=out.dtype.type, out=row)
    return torch.from_numpy(out).to(like)
