"""What the purifiers by diffusion have in common: the way to a step of noise and back, kept by content."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from typing import ClassVar, Literal

import torch
from pydantic import Field

from fedbench.defenses.purifier import Purifier, PurifierParams
from fedbench.randomness import derive_seed
from fedbench.vision.denoisers import DENOISERS, Denoiser
from fedbench.vision.diffusion import VERSION, Purification, purify
from fedbench.vision.pieces import in_pieces

PIECE = 16
"""Images that are purified at once, and lost when the process is killed."""


class DiffusionParams(PurifierParams):
    """What every purifier by diffusion takes."""

    t_star: int = Field(150, ge=0, le=1000, description="step of 1,000 up to which noise is added [not stated; ours]")
    steps: int | None = Field(
        8, ge=1, description="of the way back, evenly spaced; None: all of 1..t_star, as printed [ours]"
    )
    variance: Literal["auto", "learned", "beta", "beta-tilde"] = Field(
        "auto", description="of a step's noise; auto: learned where the denoiser has learned it, else beta-tilde [TOIS]"
    )
    iterations: int = Field(1, ge=1, le=8, description="how many times over [TOIS: 1; arXiv 2205.14969: 1 to 4]")


class DiffusionPurifier(Purifier, ABC):
    """``x <- purify(x)`` of :mod:`fedbench.vision.diffusion`, at the denoiser's size, and back to the image's own.

    The noise of an image is drawn from one number and its content: it becomes the same alone and among others, and, the
    number for a catalogue being the same in every run, a catalogue is purified once for all runs, piece by piece. It is
    what is purified first; with other numbers nothing is kept.
    """

    Params: ClassVar[type[DiffusionParams]] = DiffusionParams  # type: ignore[assignment]
    params: DiffusionParams

    def __init__(self, params: DiffusionParams) -> None:
        super().__init__(params)
        self.settings = self.purification()
        self._denoiser: Denoiser | None = None
        self._catalogue: int | None = None

    @abstractmethod
    def denoiser(self) -> Denoiser:
        """A fresh one, of no catalogue."""

    def purification(self) -> Purification:
        """How."""
        p = self.params
        return Purification(t_star=p.t_star, steps=p.steps, variance=p.variance)

    @property
    def identity(self) -> str:
        denoiser = "none" if self._denoiser is None else self._denoiser.identity
        return f"{self.card.name} {self.card.version} {VERSION} {denoiser} {self.settings} {self.params.iterations}"

    def see_images(self, pixels: torch.Tensor) -> None:
        """The denoiser is loaded, and fitted to all images if it is one that learns from them.

        Raises:
            UserError: packages or weights are missing.
        """
        super().see_images(pixels)
        self._catalogue = None
        self._denoiser = self.denoiser().to(pixels.device)
        self._denoiser.fit(pixels)

    def purify(self, pixels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        if self._denoiser is None:
            raise ValueError(f"defense {self.card.name!r} purifies after it has seen the catalogue.")
        device = generator.device
        number = int(torch.randint(2**62, (1,), generator=generator, device=device))
        if self._catalogue is None:
            self._catalogue = number
        denoise, identity = functools.partial(self._purified, self._denoiser, number), f"{self.identity} {number}"
        keep = number == self._catalogue
        return in_pieces(pixels, identity, denoise, piece=PIECE, keep=keep, progress=self.progress)

    def _purified(self, denoiser: Denoiser, number: int, pixels: torch.Tensor) -> torch.Tensor:
        for iteration in range(self.params.iterations):
            pixels = purify(pixels, denoiser, self.settings, derive_seed(number, iteration), batch=PIECE)
        return pixels


def known_denoiser(name: str) -> str:
    """``name``, if it is one of a denoiser; for a parameter's check."""
    from fedbench.errors import unknown

    if name not in DENOISERS.names():
        raise ValueError(str(unknown("denoiser", name, DENOISERS.names())).removesuffix("."))
    return name
