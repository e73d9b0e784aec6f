"""The small denoiser that comes with fedbench."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from fedbench.entries.cards import DenoiserCard
from fedbench.errors import UserError
from fedbench.vision.denoisers.unet import UNetDenoiser, load

SHIPPED = Path(__file__).with_name("ddpm_small")
"""Weights in half precision, ``config.json``, the record of the training."""


class SmallDenoiser(UNetDenoiser):
    """A UNet of 1.7 million parameters at 64 pixels, trained by ``fedbench vision train-denoiser``.

    Its pictures: generated ones, and Debian's openclipart-png (public domain) on generated grounds. It knows noise up to
    step 300. Seed, pictures' hash, steps and loss are in ``ddpm_small/training.json``.
    """

    card = DenoiserCard(
        name="ddpm-small",
        title="Small DDPM, trained on clip art and generated pictures",
        paper="Ho et al., NeurIPS 2020 (DDPM); trained for this suite",
        notes="Knows noise up to step 300; trained at 64 pixels, used at the images' own size. Has never seen a photograph.",
    )

    @classmethod
    def make(cls, weights: str | None = None) -> Self:
        if weights is not None:
            raise UserError("denoiser 'ddpm-small' takes no weights; one that you trained is a 'pipeline'.")
        return cls(*load(SHIPPED), any_size=True)
