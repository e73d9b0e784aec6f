"""PSMU-V by an attacker who knows the purifier."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
from pydantic import Field

from fedbench.attacks.image_descent import Change, Lens
from fedbench.attacks.psmu_v import SyntheticUserImages
from fedbench.entries.cards import Knowledge
from fedbench.federation.images import ItemImages
from fedbench.federation.view import AttackerView

PROBES = 16
"""Images with which the response of a purifier is measured."""


class AdaptiveSyntheticUserImages(SyntheticUserImages):
    """``psmu-v`` through the server's purifier (ours; not in TOIS, whose attackers do not know it).

    Every step purifies the current image, as it would be uploaded, with fresh noise ``samples`` times, and takes the
    gradient of the loss at each purified image: expectation over transformation (Athalye, Engstrom, Ilyas and Kwok, ICML
    2018). The mean is taken back through a stand-in for the purifier's own derivative (backward-pass differentiable
    approximation: Athalye, Carlini and Wagner, ICML 2018), so that any ``Defense.purify`` can be attacked, differentiable
    or not. ``backward`` says by what:

    * ``"identity"``: as if purifying changed nothing, the usual choice. Steps of single pixels then follow signs, many of
      which the purifier averages away.
    * ``"response"``: by the filter that is nearest to the purifier at changes of the size of eps (:func:`response`), with
      which the gradient loses what the purifier would remove.

    It keeps the image of least mean loss. What the purifier is like is seen on the original images and on noisy ones, +-eps
    at random in every pixel: if it makes the same of both twice it is taken for deterministic, and one sample does; if it
    leaves both as they are, nothing is purified. (Original images alone do not tell: they may have few shades already, or
    be flat.) It does not try to stay unflagged.

    Where nothing is purified it is ``psmu-v`` with as many steps and ``keep = "best"``.
    """

    card = replace(
        SyntheticUserImages.card,
        name="psmu-v-adaptive",
        title="PSMU-V that knows the purifier",
        paper="fedbench, after TOIS and Athalye et al., ICML 2018",
        knowledge=frozenset({Knowledge.DEFENSE}),
        notes="Not published: the test that a purifier has to stand. It runs the server's purifier on images of its own,"
        " with other noise.",
    )

    class Params(SyntheticUserImages.Params):
        """As in psmu-v."""

        steps: int = Field(40, ge=0, description="signed steps before an epoch [ours: 40]")
        keep: Literal["last", "best"] = Field(
            "best", description="the image of the last step, or of the least mean loss [ours]"
        )
        samples: int = Field(4, ge=1, description="runs of a random purifier in every step [ours: 4]")
        backward: Literal["identity", "response"] = Field(
            "response", description="what stands for the purifier's derivative: nothing, or its measured filter [ours]"
        )

    params: AdaptiveSyntheticUserImages.Params

    def lens(self, images: ItemImages, view: AttackerView) -> Lens | None:
        original = images.pixels[view.targets.to(images.pixels.device)]
        # A copy of the stream: what comes after is drawn as in psmu-v.
        noisy = nudged(original, signs(original, self.params.eps, view.generator.clone_state()))
        tried = torch.cat([original, noisy])
        purified = view.purify(tried)
        same = torch.equal(purified, view.purify(tried))
        if same and torch.equal(purified, tried):
            return None
        samples = 1 if same else self.params.samples
        if self.params.backward == "identity" or not self.params.eps:
            return Lens(view.purify, samples, lambda gradient: gradient)
        probes = original.repeat(-(-PROBES // len(original)), 1, 1, 1)
        return Lens(view.purify, samples, filtered(response(view.purify, probes, self.params.eps, view.generator)))


def response(purify: Change, pixels: torch.Tensor, eps: int, generator: torch.Generator) -> torch.Tensor:
    """How much of a change a purifier lets through, by its frequency: float32 [H, W // 2 + 1].

    With n = +-eps at random, ``D = F(P(x + n) - P(x - n))`` and ``N = F((x + n) - (x - n))``, both clipped to 0..255, it is
    ``max(0, sum Re(N* D) / sum |N|^2)`` over the images and channels and over all frequencies that are equally far from 0,
    in steps of one wave over the longer side: of all filters that look the same in every direction the nearest to P. 1
    everywhere for the identity, ``exp(-2 (pi r f)^2)`` for a Gaussian blur of radius r at f waves a pixel.

    Args:
        purify: P. pixels: uint8 [k, 3, H, W], x. eps: size of the changes. generator: draws n, on any device.
    """
    height, width = pixels.shape[-2:]
    noise = signs(pixels, eps, generator)
    plus, minus = nudged(pixels, noise), nudged(pixels, -noise)
    sent = torch.fft.rfft2(plus.float() - minus.float())
    arrived = torch.fft.rfft2(purify(plus).float() - purify(minus).float())
    device = pixels.device
    along, across = torch.fft.fftfreq(height, device=device), torch.fft.rfftfreq(width, device=device)
    ring = (torch.hypot(along[:, None], across) * max(height, width)).round().long()
    rings = [torch.zeros(int(ring.max()) + 1, device=device) for _ in range(2)]
    for total, part in zip(rings, ((sent.conj() * arrived).real, sent.abs().square()), strict=True):
        total.index_add_(0, ring.flatten(), part.sum((0, 1)).flatten())
    return (rings[0] / rings[1].clamp(min=1e-12)).clamp(min=0)[ring]


def signs(pixels: torch.Tensor, eps: int, generator: torch.Generator) -> torch.Tensor:
    """+-eps at random, int64 of the shape of ``pixels`` and on their device; ``generator`` may be on another."""
    positive = torch.rand(pixels.shape, generator=generator, device=generator.device).to(pixels.device) < 0.5
    return torch.where(positive, eps, -eps)


def nudged(pixels: torch.Tensor, change: torch.Tensor) -> torch.Tensor:
    """uint8 images ``pixels + change``, clipped to 0..255."""
    return (pixels + change).clamp(0, 255).to(torch.uint8)


def filtered(response: torch.Tensor) -> Change:
    """Takes images or gradients, float32 [k, 3, H, W], through the filter ``response``, float32 [H, W // 2 + 1]."""
    return lambda values: torch.fft.irfft2(torch.fft.rfft2(values) * response, s=values.shape[-2:])
