"""VGG-16 with the ImageNet weights that torchvision publishes, without torchvision."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F

from fedbench.data.catalogue import Download
from fedbench.entries.cards import ExtractorCard
from fedbench.vision.extractors import Extractor
from fedbench.vision.weights import weights_file

WEIGHTS = Download(
    url="https://download.pytorch.org/models/vgg16-397923af.pth",
    filename="vgg16-397923af.pth",
    layout="file",
    size=553_433_881,
    sha256="397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
    limit=553_433_881,
)

_GROUPS = ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))
"""Numbers of the 3 x 3 convolutions in the published weights; a group ends with a 2 x 2 maximum."""


class Vgg16(Extractor):
    """The second layer of 4,096 units, after its ReLU.

    Simonyan & Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition" (ICLR 2015), layout D.
    Dropout is off. The paper of the visual track names VGG, not which depth and layer: this is the usual one. Inputs
    are at 224 px, with ImageNet's mean and deviation.
    """

    card: ClassVar = ExtractorCard(
        "vgg16",
        "VGG-16, ImageNet",
        "Simonyan & Zisserman, Very deep convolutional networks, ICLR 2015",
        notes="553 MB, downloaded on first use, or vgg16-397923af.pth in the folder that FEDBENCH_WEIGHTS names.",
    )
    features: ClassVar = 4096
    side: ClassVar = 224
    download: ClassVar = WEIGHTS
    mean: ClassVar = (0.485 * 255, 0.456 * 255, 0.406 * 255)
    deviation: ClassVar = (0.229 * 255, 0.224 * 255, 0.225 * 255)

    def __init__(self) -> None:
        state = torch.load(weights_file(WEIGHTS), map_location="cpu", weights_only=True)
        super().__init__(Network(state), str(WEIGHTS.sha256))


class Network(torch.nn.Module):
    """Layout D up to its second dense layer; channels are those of the weights. [k, 3, H, W] -> [k, units]."""

    def __init__(self, state: Mapping[str, torch.Tensor]) -> None:
        super().__init__()
        for name in (*(f"features.{n}" for group in _GROUPS for n in group), "classifier.0", "classifier.3"):
            for part in ("weight", "bias"):
                self.register_buffer(f"{name}.{part}".replace(".", "_"), state[f"{name}.{part}"].float())

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        for group in _GROUPS:
            for n in group:
                images = F.relu_(F.conv2d(images, *self._layer(f"features_{n}"), padding=1))
            images = F.max_pool2d(images, 2)
        flat = F.adaptive_avg_pool2d(images, 7).flatten(1)
        return F.relu_(F.linear(F.relu_(F.linear(flat, *self._layer("classifier_0"))), *self._layer("classifier_3")))

    def _layer(self, name: str) -> tuple[torch.Tensor, torch.Tensor]:
        return self.get_buffer(f"{name}_weight"), self.get_buffer(f"{name}_bias")
