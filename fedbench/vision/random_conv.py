"""Three layers of fixed random convolutions: an extractor that needs no weights, for tests and the embedded suites."""

from __future__ import annotations

import hashlib
from typing import ClassVar

from fedbench.entries.cards import ExtractorCard
from fedbench.vision.extractors import Extractor


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
    features: ClassVar = 64
    side: ClassVar = 32

    def __init__(self) -> None:
        from fedbench.vision.networks.random_conv import Network

        network = Network()
        digest = hashlib.sha256()
        for weight in network.weights:
            digest.update(weight.numpy().tobytes())
        super().__init__(network, digest.hexdigest())
