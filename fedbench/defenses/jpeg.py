"""JPEG compression."""

from __future__ import annotations

import io
from typing import ClassVar, Literal

import numpy as np
import torch
from pydantic import Field

from fedbench.defenses.purifier import Purifier, PurifierParams
from fedbench.entries.cards import DefenseCard, DefenseFamily

_SUBSAMPLING = {"4:4:4": 0, "4:2:2": 1, "4:2:0": 2}


class Jpeg(Purifier):
    """Every image is compressed and decompressed, which rounds away fine changes of its colours.

    Dziugaite, Ghahramani & Roy 2016 ("A study of the effect of JPG compression on adversarial images"), quality 75; Das
    et al. 2018 ("Shield"), qualities 20 to 80. Pillow's encoder and decoder with its standard tables, in memory; the last
    bit may depend on the version of libjpeg.
    """

    card = DefenseCard(
        name="jpeg",
        title="JPEG compression",
        paper="Dziugaite et al., 2016 (arXiv 1608.00853); Das et al., KDD 2018",
        family=DefenseFamily.PURIFICATION,
        notes="The bar for every purifier: cheap, and gentle to clean images.",
    )

    class Params(PurifierParams):
        """Parameters."""

        quality: int = Field(75, ge=1, le=95, description="of the compression, up to 95 [Dziugaite et al.]")
        subsampling: Literal["4:2:0", "4:2:2", "4:4:4"] = Field(
            "4:2:0", description="resolution of colour beside brightness [Pillow's default]"
        )

    params: Jpeg.Params
    packages: ClassVar = ("PIL",)

    def purify(self, pixels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        quality, subsampling = self.params.quality, _SUBSAMPLING[self.params.subsampling]
        images = pixels.permute(0, 2, 3, 1).contiguous().cpu().numpy()
        made = np.empty_like(images)
        for place, image in enumerate(images):
            made[place] = _compressed(image, quality, subsampling)
        return torch.from_numpy(made).permute(0, 3, 1, 2).contiguous().to(pixels.device)


def _compressed(image: np.ndarray, quality: int, subsampling: int) -> np.ndarray:
    """uint8 [H, W, 3] -> the same shape."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality, subsampling=subsampling)
    with Image.open(file) as opened:
        return np.array(opened)
