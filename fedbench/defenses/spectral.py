"""Diffusion purification with the closed-form denoiser of a Gaussian prior: no training, no weights."""

from __future__ import annotations

from pydantic import Field

from fedbench.defenses.diffusion import DiffusionParams, DiffusionPurifier
from fedbench.entries.cards import DefenseCard, DefenseFamily
from fedbench.vision.denoisers import DENOISERS, Denoiser


class SpectralPurifier(DiffusionPurifier):
    """The chain of GDMPD without guidance, its denoiser a Wiener filter: exact for images that are stationary Gaussian.

    The prior, a mean image and a power spectrum, is fitted to the catalogue's original images. Unlike a network it knows
    nothing of edges: at ``t_star`` 150 it forgets the image, so at most 45 is recommended. A baseline that a learned
    denoiser must beat.
    """

    card = DefenseCard(
        name="spectral",
        title="Diffusion purification with a Gaussian prior",
        paper="fedbench; chain as in TOIS, filter by Wiener, 1949",
        family=DefenseFamily.PURIFICATION,
        notes="Knows the catalogue's original images, to which its prior is fitted.",
    )

    class Params(DiffusionParams):
        """Parameters."""

        t_star: int = Field(
            45, ge=0, le=1000, description="step of 1,000 up to which noise is added; at most 45 [ours]"
        )

    params: SpectralPurifier.Params

    def denoiser(self) -> Denoiser:
        return DENOISERS.get("spectral").make()
