"""The noise schedule of DDPM, and the steps of a way back that takes only some of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch

LENGTH = 1000
"""T."""

FIRST, LAST = 1e-4, 2e-2
"""beta_1 and beta_T."""


@cache
def signal() -> np.ndarray:
    """``abar_t = prod_{s <= t} (1 - beta_s)`` for t from 0 (where it is 1) to T, float64 [T + 1].

    ``beta_t = beta_1 + (t - 1)/(T - 1) (beta_T - beta_1)``.
    """
    beta = FIRST + np.arange(LENGTH) / (LENGTH - 1) * (LAST - FIRST)
    return np.concatenate([[1.0], np.cumprod(1 - beta)])


@dataclass(frozen=True)
class Steps:
    """K steps of the schedule, and what holds between each and the one before; all lists are indexed by k from 0 to K.

    Attributes:
        times: t_k, with t_0 = 0. strides: ``t_k - t_{k-1}``. abar: at these times.
        beta: ``1 - abar_k / abar_{k-1}``. beta_tilde: ``beta_k (1 - abar_{k-1}) / (1 - abar_k)``; 0 for k = 1.
        log_beta, log_beta_tilde: their logarithms; that of beta_tilde_1 is replaced by the next one's, or beta's where there
            is none (as improved DDPM does).
    """

    times: list[int]
    strides: list[int]
    abar: list[float]
    beta: list[float]
    beta_tilde: list[float]
    log_beta: list[float]
    log_beta_tilde: list[float]

    @classmethod
    def respaced(cls, t_star: int, steps: int | None) -> Steps:
        """``steps`` of 1..t_star, evenly spaced with both ends (t_star alone for one); all where there are no more."""
        if steps is None or steps >= t_star:
            times = np.arange(1, t_star + 1)
        elif steps == 1:
            times = np.array([t_star])
        else:
            times = np.round(np.linspace(1, t_star, steps)).astype(int)
        times = np.concatenate([[0], times])
        abar = signal()[times]
        beta = np.concatenate([[0.0], 1 - abar[1:] / abar[:-1]])
        tilde = np.concatenate([[0.0], beta[1:] * (1 - abar[:-1]) / (1 - abar[1:])])
        shown = tilde.copy()
        shown[1] = tilde[2] if len(times) > 2 else beta[1]
        with np.errstate(divide="ignore"):
            logs = np.log(beta), np.log(shown)
        strides = np.diff(times, prepend=0)
        rest = (column.tolist() for column in (abar, beta, tilde, *logs))
        return cls(times.tolist(), strides.tolist(), *rest)

    def __len__(self) -> int:
        """K."""
        return len(self.times) - 1

    def noised(self, x: torch.Tensor, k: int, noise: torch.Tensor) -> torch.Tensor:
        """``sqrt(abar_k) x + sqrt(1 - abar_k) noise``."""
        return self.abar[k] ** 0.5 * x + (1 - self.abar[k]) ** 0.5 * noise

    def posterior(self, clean: torch.Tensor, y: torch.Tensor, k: int) -> torch.Tensor:
        """Mean of x_{k-1} given ``x_k = y`` and the clean image; its variance is beta_tilde_k."""
        before, now = self.abar[k - 1], self.abar[k]
        first = before**0.5 * self.beta[k] / (1 - now)
        second = (1 - self.beta[k]) ** 0.5 * (1 - before) / (1 - now)
        return first * clean + second * y

    def mean(self, y: torch.Tensor, predicted: torch.Tensor, k: int, clip: bool) -> torch.Tensor:
        """Mean of step k, from the noise that was predicted in ``y``; the clean image in it may be cut to [-1, 1]."""
        clean = (y - (1 - self.abar[k]) ** 0.5 * predicted) / self.abar[k] ** 0.5
        return self.posterior(clean.clamp(-1, 1) if clip else clean, y, k)
