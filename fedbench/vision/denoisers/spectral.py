"""The exact denoiser of a Gaussian prior: a Wiener filter."""

from __future__ import annotations

import hashlib
from typing import Self

import torch

from fedbench.entries.cards import DenoiserCard
from fedbench.errors import UserError
from fedbench.vision.denoisers.base import Denoiser
from fedbench.vision.schedule import signal


class SpectralDenoiser(Denoiser):
    """Clean images as draws from a stationary Gaussian around their mean image, fitted to those of a catalogue.

    With m the mean image and ``S_c(f)`` the mean of ``|FFT(x - m)|^2 / (H W)``, by colour channel, in Fourier space::

        E[x_0 | x_t] = m + sqrt(abar) S / (abar S + 1 - abar) (x_t - sqrt(abar) m)
        noise        = sqrt(1 - abar) / (abar S + 1 - abar) (x_t - sqrt(abar) m)

    For images that are drawn from that prior a whole chain gives back its mean and spectrum, with correlation
    ``abar S / (abar S + 1 - abar)`` to the input at every frequency: the oracle of the diffusion. On real images it is a
    purifier without training, two Fourier transforms a step; beyond step 45 little of an image is left.
    """

    card = DenoiserCard(
        name="spectral",
        title="Wiener filter of the catalogue's mean image and power spectrum",
        paper="Wiener, 1949; as a denoiser of DDPM: this suite",
        notes="Exact for Gaussian images; fitted to the clean images of the catalogue. Use t_star of at most 45.",
    )

    def __init__(self) -> None:
        self._mean: torch.Tensor | None = None
        self._power: torch.Tensor | None = None
        self._abar = torch.from_numpy(signal())
        self._fitted = ""

    @classmethod
    def of(cls, mean: torch.Tensor, power: torch.Tensor) -> Self:
        """With a given prior: mean [3, H, W] in [-1, 1], and power [3, H, W // 2 + 1] as of ``torch.fft.rfft2``."""
        made = cls()
        made._mean, made._power = mean.double(), power.double()
        contents = (value.contiguous().numpy().tobytes() for value in (made._mean, made._power))
        made._fitted = hashlib.sha256(b"".join(contents)).hexdigest()
        made._settle()
        return made

    @property
    def identity(self) -> str:
        return f"{self.card.name} {self.card.version} {self._fitted}"

    def fit(self, pixels: torch.Tensor) -> None:
        """Mean image and power spectrum of images, uint8 [n, 3, H, W] with n at least 1, in float64."""
        if not len(pixels):
            raise UserError("denoiser 'spectral' is fitted to the images of the catalogue, and there are none.")
        parts = pixels.split(256)
        mean = sum((_scaled(part).sum(0) for part in parts), torch.zeros(())) / len(pixels)
        power: torch.Tensor = torch.zeros(())
        digest = hashlib.sha256(str(tuple(pixels.shape)).encode())
        for part in parts:
            power = power + torch.fft.rfft2(_scaled(part) - mean).abs().square().sum(0)
            digest.update(
                part.contiguous().numpy().tobytes() if part.device.type == "cpu" else part.cpu().numpy().tobytes()
            )
        self._mean, self._power = mean, power / (len(pixels) * mean.shape[-2] * mean.shape[-1])
        self._fitted = digest.hexdigest()
        self._settle()

    def _settle(self) -> None:
        assert self._mean is not None
        height, width = self._mean.shape[-2:]
        self.size = height if height == width else None
        self.to(self._mean.device)

    def __call__(self, x: torch.Tensor, t: torch.Tensor) -> tuple[torch.Tensor, None]:
        if self._mean is None or self._power is None:
            raise UserError("denoiser 'spectral' must be fitted to clean images first.")
        if x.shape[1:] != self._mean.shape:
            had, has = (" x ".join(map(str, shape[-2:])) for shape in (self._mean.shape, x.shape))
            raise UserError(f"denoiser 'spectral' was fitted to images of {had} pixels, not {has}.")
        abar = self._abar[t].view(-1, 1, 1, 1)
        gain = ((1 - abar).sqrt() / (abar * self._power + 1 - abar)).to(x.dtype)
        spectrum = torch.fft.rfft2(x - (abar.sqrt() * self._mean).to(x.dtype))
        return torch.fft.irfft2(gain * spectrum, s=x.shape[-2:]), None

    def to(self, device: torch.device | str) -> Self:
        self._abar = self._abar.to(device)
        if self._mean is not None and self._power is not None:
            self._mean, self._power = self._mean.to(device), self._power.to(device)
        return self


def _scaled(pixels: torch.Tensor) -> torch.Tensor:
    return pixels.double() / 127.5 - 1
