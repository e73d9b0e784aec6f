"""Features as recommenders read them: an extractor, a norm and a scale."""

from __future__ import annotations

import functools
from typing import Literal

import torch
import torch.nn.functional as F

from fedbench.vision.extractors import EXTRACTORS, Extractor
from fedbench.vision.pieces import Progress, in_pieces

Norm = Literal["l2", "none"]

PIECE = 64
"""Images whose features are kept together."""
_AT_ONCE = 8
"""Images that go through the network together on a CPU: more leave its caches."""


class FeatureReader:
    """phi(x) = scale * e(x) / |e(x)| of an extractor e with norm ``l2``; scale * e(x) with ``none``.

    Features of uint8 images are computed in pieces and kept by content (:mod:`fedbench.vision.pieces`); the norm and
    the scale are applied afterwards, so variants share what is kept. The last bits may depend on the size of a piece.

    Attributes:
        features: F. identity: extractor, its weights, norm and scale.
    """

    def __init__(self, extractor: Extractor, norm: Norm = "l2", scale: float = 4.0) -> None:
        self.extractor = extractor
        self.norm = norm
        self.scale = scale
        self.features = extractor.features
        self.identity = f"{extractor.identity} {norm} {scale:g}"
        self.progress: Progress | None = None
        """Called with the images done and all, while uint8 images are read."""

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Features, float32 [k, F].

        Args:
            images: uint8 [k, 3, H, W], or float32 from 0 to 255, in which the result is differentiable; on the
                extractor's device.
        """
        if images.dtype == torch.uint8:
            raw = in_pieces(images, self.extractor.identity, self._of_piece, piece=PIECE, progress=self.progress)
        else:
            raw = self.extractor(images)
        return self.scale * (F.normalize(raw, dim=1) if self.norm == "l2" else raw)

    def _of_piece(self, images: torch.Tensor) -> torch.Tensor:
        at_once = _AT_ONCE if images.device.type == "cpu" else PIECE
        return (
            torch.cat([self.extractor(part) for part in images.split(at_once)])
            if len(images)
            else self.extractor(images)
        )


def feature_reader(
    extractor: str, norm: Norm = "l2", scale: float = 4.0, device: torch.device | str = "cpu"
) -> FeatureReader:
    """The reader of an extractor by name, on ``device``; networks that were loaded before are used again.

    Raises:
        UserError: unknown name, packages missing, or weights that cannot be had.
    """
    return FeatureReader(_loaded(EXTRACTORS.get(extractor), torch.device(device)), norm, scale)


@functools.lru_cache(maxsize=4)
def _loaded(cls: type[Extractor], device: torch.device) -> Extractor:
    return cls().to(device)  # type: ignore[call-arg]  # entries take nothing; the base takes the network
