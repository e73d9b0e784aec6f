"""Denoisers, one file each: what predicts the noise in an image, and where each is found by name."""

from __future__ import annotations

from fedbench.entries.registry import Registry
from fedbench.vision.denoisers.base import Denoiser

DENOISERS: Registry[Denoiser] = Registry(
    "denoiser",
    "fedbench.vision.denoisers.base:Denoiser",
    {
        "ddpm-small": "fedbench.vision.denoisers.small:SmallDenoiser",
        "spectral": "fedbench.vision.denoisers.spectral:SpectralDenoiser",
        "pipeline": "fedbench.vision.denoisers.pipeline:PipelineDenoiser",
        "guided-diffusion-256": "fedbench.vision.denoisers.guided:GuidedDiffusionDenoiser",
        "identity": "fedbench.vision.denoisers.identity:IdentityDenoiser",
    },
    group="fedbench.denoisers",
)

__all__ = ["DENOISERS", "Denoiser"]
