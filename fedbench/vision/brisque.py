"""BRISQUE: how natural an image looks, without a reference."""

from __future__ import annotations

import functools
import importlib.util
import pickle
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from fedbench.errors import UserError, missing_extra
from fedbench.vision.pieces import in_pieces

_LUMA = (0.2125, 0.7154, 0.0721)
_WIDTH, _SIGMA = 7, 7 / 6
_SHAPES = np.arange(0.2, 10.001, 0.001)
"""Shapes among which generalised Gaussians are fitted, as the authors do."""


@functools.cache
def _ratios() -> np.ndarray[Any, np.dtype[np.float64]]:
    """E|x|^2 / E x^2 of each shape: rises with the shape."""
    return np.exp(2 * _log_gamma(2 / _SHAPES) - _log_gamma(1 / _SHAPES) - _log_gamma(3 / _SHAPES))


def _log_gamma(x: np.ndarray[Any, np.dtype[np.float64]]) -> np.ndarray[Any, np.dtype[np.float64]]:
    from scipy import special  # a tenth of what a worker imports, for runs that look at images

    return special.gammaln(x)


def brisque_scores(images: torch.Tensor) -> torch.Tensor:
    """Score of each image: 0 is best and 100 is worst, about; it is not clipped.

    Mittal, Moorthy & Bovik, "No-reference image quality assessment in the spatial domain" (IEEE TIP 2012): 36 features of
    locally normalised grey values at full and half size (:func:`features`), scaled and put into the support-vector
    regression that package brisque ships, trained on LIVE. The package is read for its model alone: its code needs OpenCV
    and fails under NumPy 2.4. Scores are those that its code gives for even sides from about 48 px; below, its fit may find
    no shape. Other libraries carry other models, and give other scores.
    Scores are kept by content, as features are.

    Args:
        images: uint8 or float [k, 3, H, W] from 0 to 255, H and W at least 4.

    Returns:
        float64 [k].

    Raises:
        UserError: the package is missing.
    """
    model = _model()

    def score(part: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(model(features(part))).to(part.device)

    return in_pieces(images, "brisque 1", score, piece=32)


def features(images: torch.Tensor) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The 36 features, float64 [k, 36]: 18 at full size, then 18 at half size (bicubic).

    With grey I (0..1), local mean m and deviation s under a 7 x 7 Gaussian of sigma 7/6 (zeros beyond the border), and
    c = (I - m) / (s + 1/255): shape and variance of c, fitted by an asymmetric generalised Gaussian; then shape, mean,
    left and right variance of such fits to the products of c with its right, lower, lower right and lower left neighbour.
    """
    weights = torch.tensor(_LUMA, dtype=torch.float64, device=images.device).view(1, 3, 1, 1)
    grey = (images.double() / 255 * weights).sum(1, keepdim=True)
    small = F.interpolate(grey, scale_factor=0.5, mode="bicubic", align_corners=False)
    return np.concatenate([_of_scale(grey), _of_scale(small)], axis=1)


def _of_scale(grey: torch.Tensor) -> np.ndarray[Any, np.dtype[np.float64]]:
    place = torch.arange(_WIDTH, dtype=torch.float64, device=grey.device) - _WIDTH // 2
    line = torch.exp(-place.square() / (2 * _SIGMA**2))
    line = line / line.sum()

    def averaged(x: torch.Tensor) -> torch.Tensor:
        across = F.conv2d(x, line.view(1, 1, 1, -1), padding=(0, _WIDTH // 2))
        return F.conv2d(across, line.view(1, 1, -1, 1), padding=(_WIDTH // 2, 0))

    mean = averaged(grey)
    deviation = (averaged(grey.square()) - mean.square()).abs().sqrt()
    c = ((grey - mean) / (deviation + 1 / 255))[:, 0].cpu().numpy()
    shape, _, left, right = _fit(c)
    columns = [shape, (left + right) / 2]
    for product in (
        c[:, :, :-1] * c[:, :, 1:],
        c[:, :-1] * c[:, 1:],
        c[:, :-1, :-1] * c[:, 1:, 1:],
        c[:, 1:, :-1] * c[:, :-1, 1:],
    ):
        columns += _fit(product)
    return np.stack(columns, axis=1)


def _fit(values: np.ndarray[Any, np.dtype[np.float64]]) -> tuple[np.ndarray[Any, np.dtype[np.float64]], ...]:
    """Shape, mean, left and right variance of asymmetric generalised Gaussians by moments (Lasmar et al. 2009), [k] each.

    Of values that are all zero: the lowest shape, and zeros.
    """
    x = values.reshape(len(values), -1)
    square, below = x**2, x < 0
    left = (square * below).sum(1) / np.maximum(below.sum(1), 1)
    right = (square * ~below).sum(1) / np.maximum((~below).sum(1), 1)
    least = np.finfo(float).tiny
    gamma = np.sqrt(np.maximum(left, least) / np.maximum(right, least))
    ratio = np.abs(x).mean(1) ** 2 / np.maximum(square.mean(1), least)
    shape = np.interp(ratio * (gamma**3 + 1) * (gamma + 1) / (gamma**2 + 1) ** 2, _ratios(), _SHAPES)
    stretch = np.exp((_log_gamma(1 / shape) - _log_gamma(3 / shape)) / 2)
    centre = np.exp(_log_gamma(2 / shape) - _log_gamma(1 / shape))
    return shape, (np.sqrt(right) - np.sqrt(left)) * stretch * centre, left, right


class _Model(NamedTuple):
    """sum_i a_i exp(-gamma |x - v_i|^2) - rho of scaled features x."""

    low: np.ndarray[Any, np.dtype[np.float64]]
    high: np.ndarray[Any, np.dtype[np.float64]]
    gamma: float
    rho: float
    weights: np.ndarray[Any, np.dtype[np.float64]]
    vectors: np.ndarray[Any, np.dtype[np.float64]]

    def __call__(self, found: np.ndarray[Any, np.dtype[np.float64]]) -> np.ndarray[Any, np.dtype[np.float64]]:
        x = -1 + 2 * (found - self.low) / (self.high - self.low)
        distance = ((x[:, None] - self.vectors[None]) ** 2).sum(2)
        return np.exp(-self.gamma * distance) @ self.weights - self.rho


@functools.cache
def _model() -> _Model:
    spec = importlib.util.find_spec("brisque")
    if spec is None or spec.origin is None:
        raise missing_extra("brisque", "BRISQUE")
    folder = Path(spec.origin).parent / "models"
    try:
        with (folder / "normalize.pickle").open("rb") as stream:
            ranges = _Plain(stream).load()
        head, _, body = (folder / "svm.txt").read_text().partition("\nSV\n")
        said = dict(line.split(maxsplit=1) for line in head.splitlines())
        low, high = np.array(ranges["min_"], float), np.array(ranges["max_"], float)
        rows = [line.split() for line in body.splitlines() if line.strip()]
        vectors = np.zeros((len(rows), len(low)))
        for row, (_, *entries) in enumerate(rows):
            for entry in entries:
                place, _, value = entry.partition(":")
                vectors[row, int(place) - 1] = float(value)
        weights = np.array([float(row[0]) for row in rows])
        return _Model(low, high, float(said["gamma"]), float(said["rho"]), weights, vectors)
    except (OSError, ValueError, KeyError, IndexError, pickle.UnpicklingError) as error:
        raise UserError(f"{folder}: not the model of package brisque ({error}); reinstall it.") from error


class _Plain(pickle.Unpickler):
    """Numbers, texts, lists and mappings alone: nothing of a file is executed."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")
