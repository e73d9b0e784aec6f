"""What every denoiser is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Self

import torch

from fedbench.entries.cards import DenoiserCard
from fedbench.errors import UserError


class Denoiser(ABC):
    """Predicts the noise in images; frozen.

    An entry is made by :meth:`make`, from ``weights``, what it needs to be told: nothing, a folder, a file, a name.

    Attributes:
        size: pixels, of height and width, at which it works; None: any multiples of ``multiple``.
        t_max: the last step of the schedule that it knows.
        packages: modules of the extra ``vision`` that it needs. needs: what ``weights`` must name, if it must.
    """

    card: ClassVar[DenoiserCard]
    packages: ClassVar[tuple[str, ...]] = ()
    needs: ClassVar[str] = ""
    size: int | None = None
    multiple: int = 1
    t_max: int = 1000

    @property
    @abstractmethod
    def identity(self) -> str:
        """Name, version and a hash of the weights, or of what it was fitted to: what a cache of its results must know."""

    @abstractmethod
    def __call__(self, x: torch.Tensor, t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The noise in ``x = sqrt(abar_t) x_0 + sqrt(1 - abar_t) noise``.

        Args:
            x: float [B, 3, H, W], clean images being in [-1, 1]. t: int64 [B] in 1..1000.

        Returns:
            The noise [B, 3, H, W]; and v in [0, 1] [B, 3, H, W], the variance of a step being
            ``exp(v log beta + (1 - v) log beta_tilde)``, or None where it has learned none.
        """

    @classmethod
    def make(cls, weights: str | None = None) -> Self:
        """One that is ready; raises :class:`UserError` where ``weights`` is not what it needs."""
        if weights is not None:
            raise UserError(f"denoiser {cls.card.name!r} takes no weights, not {weights!r}.")
        return cls()

    def fit(self, pixels: torch.Tensor) -> None:  # noqa: B027 - most learn nothing
        """Learn from clean images, uint8 [n, 3, H, W], if it is one that does; called once, with the catalogue's."""

    def to(self, device: torch.device | str) -> Self:
        """Move to ``device``; returns itself."""
        return self
