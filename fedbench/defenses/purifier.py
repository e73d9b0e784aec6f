"""Server-side cleaning of item images, and what it takes for adversarial: the base of all purifiers."""

from __future__ import annotations

import importlib.util
import math
from typing import ClassVar, Literal

import torch
from pydantic import Field, field_validator

from fedbench.entries.cards import Parameters
from fedbench.errors import missing_extra
from fedbench.federation.defense import Defense, OnFlag
from fedbench.vision.pieces import Progress


class PurifierParams(Parameters):
    """What every purifier takes: when an image is flagged, and what becomes of it."""

    on_flag: OnFlag = Field(
        "use-purified",
        description="features of a flagged image: its purified version's (detection only informs) [TOIS], those of the"
        " item's original image, or zeros",
    )
    threshold: float | None = Field(
        None,
        ge=-1,
        le=1,
        description="rho: images less similar to their purified version are flagged; None: calibrated",
    )
    calibration: float | Literal["min"] = Field(
        "min",
        description="rho from clean images: their lowest similarity [TOIS], an extreme that falls as the catalogue"
        " grows; or its quantile q in (0, 1), which flags about that share of clean images [ours]",
    )

    @field_validator("calibration")
    @classmethod
    def _inside(cls, value: float | str) -> float | str:
        if not isinstance(value, str) and not 0 < value < 1:
            raise ValueError("a quantile must be between 0 and 1")
        return value


class Purifier(Defense):
    """Every image is cleaned before the extractor sees it; one that the cleaning changes much is flagged.

    Flagged: ``cos(phi(x), phi(purify(x))) < rho`` (TOIS, section 5.3; its eq. 27 prints a difference inside the cosine,
    read as a comma). rho is given, or the minimum or a quantile of the similarity of clean images. The paper takes the
    minimum over 10,000 images of ImageNet; here every other image of the catalogue sets it, and the others measure false
    alarms. A minimum is an extreme statistic: over more images it is lower, so thresholds of two catalogues do not
    compare; a quantile's do. In a chain the similarity is that of the whole chain.

    Attributes:
        rho: the threshold in force; None before clean images have been seen.
        progress: called with the images done and all, where cleaning a catalogue takes long.
    """

    Params: ClassVar[type[PurifierParams]] = PurifierParams  # type: ignore[assignment]
    params: PurifierParams
    packages: ClassVar[tuple[str, ...]] = ()
    """Modules of the extra ``vision`` that it needs."""

    def __init__(self, params: PurifierParams) -> None:
        super().__init__(params)
        self.on_flag = params.on_flag
        self.rho: float | None = params.threshold
        self.progress: Progress | None = None

    @property
    def identity(self) -> str:
        """What its results depend on, beside images and draws: name, version and parameters."""
        own = self.params.model_dump(mode="json", exclude=set(PurifierParams.model_fields))
        return f"{self.card.name} {self.card.version} {own}"

    def see_images(self, pixels: torch.Tensor) -> None:
        """Nothing to know of them, but now is the time to say what is missing.

        Raises:
            UserError: a package of the extra ``vision`` is not installed.
        """
        if not all(map(importlib.util.find_spec, self.packages)):
            raise missing_extra("vision", f"defense {self.card.name!r}")

    def flags(self, similarity: torch.Tensor, known_clean: bool) -> torch.Tensor:
        """Which are flagged, bool [k]; those that are known to be clean set the threshold first, unless it is given."""
        if known_clean and self.params.threshold is None:
            self.rho = _threshold(similarity, self.params.calibration)
        if self.rho is None:
            raise ValueError("the threshold is set by clean images, which come first")
        return similarity < self.rho


def _threshold(similarity: torch.Tensor, calibration: float | Literal["min"]) -> float:
    """The minimum, or the q-quantile of n values, the one at place ``ceil(q (n - 1))`` from 0; -1 of none at all."""
    if not len(similarity):
        return -1.0
    if calibration == "min":
        return float(similarity.min())
    place = math.ceil(round(calibration * (len(similarity) - 1), 9))
    return float(similarity.kthvalue(place + 1).values)


def mirrored(length: int, margin: int, device: torch.device) -> torch.Tensor:
    """Places of a line continued by reflection without repeating its ends: ``2 1 | 0 1 2 | 1 0``, for any margin.

    int64 [margin + length + margin], from 0 to ``length - 1``.
    """
    period = max(2 * (length - 1), 1)
    places = torch.arange(-margin, length + margin, device=device) % period
    return torch.where(places < length, places, period - places)


def with_margin(images: torch.Tensor, margin: int) -> torch.Tensor:
    """Images [..., H, W] continued by reflection on all sides, [..., H + 2 margin, W + 2 margin]."""
    height, width = images.shape[-2:]
    rows, columns = (mirrored(side, margin, images.device) for side in (height, width))
    return images.index_select(-2, rows).index_select(-1, columns)
