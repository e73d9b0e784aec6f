"""Three layers of fixed random convolutions: an extractor that needs no weights, for tests and the embedded suites."""

from __future__ import annotations

import hashlib
from itertools import pairwise
from typing import ClassVar

import torch
import torch.nn.functional as F

from fedbench import randomness
from fedbench.entries.cards import ExtractorCard
from fedbench.vision.extractors import Extractor

_SEED = 20110
_CHANNELS = (3, 16, 16, 32)
_REFERENCES = 256


class RandomConvolutions(Extractor):
    """What colours and which texture an image has, seen through random filters.

    Jarrett et al., "What is the best multi-stage architecture for object recognition?" (ICCV 2009), and Saxe et al.
    (ICML 2011) found untrained convolutions to be useful features. Three layers (5 x 5, 3 x 3, 3 x 3; stride 2;
    weights N(0, 2 / fan-in); ReLU); the spatial mean of each layer's maps, 16 + 16 + 32 numbers; each standardised by
    its mean and deviation over 256 random reference images, so that unlike images have a cosine near 0.
    """

    card: ClassVar = ExtractorCard(
        "random-conv",
        "Fixed random convolutions",
        "Saxe et al., On random weights and unsupervised feature learning, ICML 2011",
        notes="Untrained: sees colour and texture, no objects. For tests and embedded suites.",
    )
    features: ClassVar = sum(_CHANNELS[1:])
    side: ClassVar = 32

    def __init__(self) -> None:
        network = _Network()
        digest = hashlib.sha256()
        for weight in network.weights:
            digest.update(weight.numpy().tobytes())
        super().__init__(network, digest.hexdigest())


class _Network(torch.nn.Module):
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
    side = RandomConvolutions.side
    images = torch.zeros(_REFERENCES, 3, side, side)
    for cells in (1, 4, 16, 32):
        strength = torch.rand(_REFERENCES, 1, 1, 1, generator=drawn) if cells > 1 else 1.0
        noise = torch.rand(_REFERENCES, 3, cells, cells, generator=drawn) * 2 - 1
        images += strength * F.interpolate(noise, size=(side, side), mode="nearest")
    return images.clamp(-1, 1)
