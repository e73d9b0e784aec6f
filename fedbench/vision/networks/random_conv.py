"""The network of random convolutions."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F

from fedbench import randomness

_SEED = 20110
_CHANNELS = (3, 16, 16, 32)
_REFERENCES = 256
_SIDE = 32


class Network(torch.nn.Module):
    """Layers of the channels in ``_CHANNELS``: float32 [k, 3, H, W] -> [k, 64]."""

    def __init__(self) -> None:
        super().__init__()
        drawn = randomness.generator(_SEED, "random-conv")
        for layer, (before, after) in enumerate(pairwise(_CHANNELS)):
            width = 3 if layer else 5
            weight = torch.randn(after, before, width, width, generator=drawn) * (2 / (before * width**2)) ** 0.5
            self.register_buffer(f"weight{layer}", weight)
        references = self._pooled(_reference_images(drawn))
        self.register_buffer("offset", references.mean(0))
        self.register_buffer("spread", references.std(0))

    @property
    def weights(self) -> list[torch.Tensor]:
        """Of the layers, in order."""
        return [self.get_buffer(f"weight{layer}") for layer in range(len(_CHANNELS) - 1)]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return (self._pooled(images) - self.get_buffer("offset")) / self.get_buffer("spread")

    def _pooled(self, images: torch.Tensor) -> torch.Tensor:
        pooled = []
        for weight in self.weights:
            images = F.relu(F.conv2d(images, weight, stride=2, padding=weight.shape[-1] // 2))
            pooled.append(images.mean((2, 3)))
        return torch.cat(pooled, 1)


def _reference_images(drawn: torch.Generator) -> torch.Tensor:
    """Images of one colour each with noise of three grain sizes, roughly -1..1, [256, 3, 32, 32]."""
    images = torch.zeros(_REFERENCES, 3, _SIDE, _SIDE)
    for cells in (1, 4, 16, 32):
        strength = torch.rand(_REFERENCES, 1, 1, 1, generator=drawn) if cells > 1 else 1.0
        noise = torch.rand(_REFERENCES, 3, cells, cells, generator=drawn) * 2 - 1
        images += strength * F.interpolate(noise, size=(_SIDE, _SIDE), mode="nearest")
    return images.clamp(-1, 1)
