"""Extractors: frozen public networks that turn images into features, and where each is found by name."""

from __future__ import annotations

from abc import ABC
from typing import ClassVar, Self

import torch

from fedbench.data.catalogue import Download
from fedbench.entries.cards import ExtractorCard
from fedbench.entries.registry import Registry
from fedbench.vision.resize import resize


class Extractor(ABC):
    """A network that is never trained. A subclass states what it reads and hands its network to ``__init__``.

    Attributes:
        features: F, the length of a feature vector.
        side: pixels of its input; images of any size are resized to it inside, for server and attacker alike.
        packages: modules of the extra ``vision`` that it needs. download: its weights, where no package brings them.
        mean, deviation: by colour channel, in units of 0..255: the network is fed ``(x - mean) / deviation``.
        identity: name, version and SHA-256 of the weights: what a cache of its results must know.
    """

    card: ClassVar[ExtractorCard]
    features: ClassVar[int]
    side: ClassVar[int]
    packages: ClassVar[tuple[str, ...]] = ()
    download: ClassVar[Download | None] = None
    mean: ClassVar[tuple[float, float, float]] = (127.5, 127.5, 127.5)
    deviation: ClassVar[tuple[float, float, float]] = (127.5, 127.5, 127.5)

    def __init__(self, network: torch.nn.Module, weights: str) -> None:
        """Freeze ``network``, float32 [k, 3, side, side] -> [k, F]; ``weights`` is a hash of what it was made of."""
        network = network.eval().requires_grad_(False)
        self.network: torch.nn.Module = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.identity = f"{self.card.name} {self.card.version} {weights}"
        self._mean = torch.tensor(self.mean).view(1, 3, 1, 1)
        self._deviation = torch.tensor(self.deviation).view(1, 3, 1, 1)

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Features of images.

        Args:
            images: uint8 or float32 [k, 3, H, W] from 0 to 255, on the extractor's device.

        Returns:
            float32 [k, F]; differentiable in float images.
        """
        images = (resize(images, self.side) - self._mean) / self._deviation
        return self.network(images.contiguous(memory_format=torch.channels_last))

    def to(self, device: torch.device | str) -> Self:
        """Move to ``device``; returns itself."""
        self.network.to(device)
        self._mean, self._deviation = self._mean.to(device), self._deviation.to(device)
        return self


EXTRACTORS: Registry[Extractor] = Registry(
    "extractor",
    "fedbench.vision.extractors:Extractor",
    {
        "random-conv": "fedbench.vision.random_conv:RandomConvolutions",
        "efficientnet-lite0": "fedbench.vision.efficientnet:EfficientNetLite0",
        "vgg16": "fedbench.vision.vgg:Vgg16",
    },
    group="fedbench.extractors",
)
