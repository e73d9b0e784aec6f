"""No denoising at all."""

from __future__ import annotations

import torch

from fedbench.entries.cards import DenoiserCard
from fedbench.vision.denoisers.base import Denoiser


class IdentityDenoiser(Denoiser):
    """Takes the noised image for the clean one: it predicts no noise. For tests of the wiring."""

    card = DenoiserCard(
        name="identity",
        title="No denoising",
        paper="-",
        notes="What was noised comes back noised, or cut to the range of colours. For tests of the wiring.",
    )

    @property
    def identity(self) -> str:
        return f"{self.card.name} {self.card.version}"

    def __call__(self, x: torch.Tensor, t: torch.Tensor) -> tuple[torch.Tensor, None]:
        return torch.zeros_like(x), None
