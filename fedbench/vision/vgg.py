"""VGG-16 with the ImageNet weights that torchvision publishes, without torchvision."""

from __future__ import annotations

from typing import ClassVar

import torch

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
        from fedbench.vision.networks.vgg import Network

        state = torch.load(weights_file(WEIGHTS), map_location="cpu", weights_only=True)
        super().__init__(Network(state), str(WEIGHTS.sha256))
