"""Measures of images and of detection: hand cases, plain loops, other libraries' figures, properties."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special

from fedbench.errors import UserError
from fedbench.vision import brisque
from fedbench.vision.measures import (
    IDENTICAL_DB,
    auc,
    blur_scores,
    brisque_scores,
    detection,
    largest_change,
    psnr,
    recall_at_zero_false_positives,
    ssim,
)


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FEDBENCH_CACHE", str(tmp_path))


def images(count: int, height: int, width: int, seed: int = 0) -> torch.Tensor:
    drawn = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8, generator=drawn)


# ------------------------------------------------------------------------------------------------------- pairs


def test_change_and_psnr_by_hand() -> None:
    before = torch.zeros(2, 3, 2, 2, dtype=torch.uint8)
    after = before.clone()
    after[0, 1, 0, 1] = 6
    after[0, 2, 1, 1] = 4
    assert largest_change(before, after).tolist() == [6, 0]
    assert largest_change(after, before).tolist() == [6, 0]  # no wrapping around
    assert psnr(before, after)[0].item() == pytest.approx(10 * math.log10(255**2 / ((36 + 16) / 12)))
    assert psnr(before, after)[1].item() == IDENTICAL_DB


def plain_ssim(x: np.ndarray, y: np.ndarray, width: int = 11) -> float:
    """By the paper's formulas, window by window."""
    half = width // 2
    weights = np.array(
        [[math.exp(-(i * i + j * j) / 4.5) for j in range(-half, half + 1)] for i in range(-half, half + 1)]
    )
    weights /= weights.sum()
    found = []
    for a, b in zip(x.astype(float), y.astype(float), strict=True):
        for top in range(a.shape[0] - width + 1):
            for start in range(a.shape[1] - width + 1):
                p, q = a[top : top + width, start : start + width], b[top : top + width, start : start + width]
                m, n = (weights * p).sum(), (weights * q).sum()
                v, w = (weights * (p - m) ** 2).sum(), (weights * (q - n) ** 2).sum()
                c = (weights * (p - m) * (q - n)).sum()
                found.append((2 * m * n + 6.5025) * (2 * c + 58.5225) / ((m * m + n * n + 6.5025) * (v + w + 58.5225)))
    return float(np.mean(found))


def test_ssim_is_its_definition() -> None:
    before = images(2, 14, 13)
    after = (before.int() + images(2, 14, 13, 1) % 40).clamp(max=255).to(torch.uint8)
    expected = [plain_ssim(a, b) for a, b in zip(before.numpy(), after.numpy(), strict=True)]
    assert ssim(before, after).tolist() == pytest.approx(expected, abs=1e-10)
    small = [plain_ssim(a, b, 7) for a, b in zip(before[..., :8, :7].numpy(), after[..., :8, :7].numpy(), strict=True)]
    assert ssim(before[..., :8, :7], after[..., :8, :7]).tolist() == pytest.approx(small, abs=1e-10)


def test_ssim_agrees_with_scikit_image() -> None:
    metrics = pytest.importorskip("skimage.metrics")
    before, after = images(1, 30, 24), images(1, 30, 24, 1)
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 255}
    theirs = metrics.structural_similarity(before[0].numpy(), after[0].numpy(), channel_axis=0, **options)
    assert ssim(before, after).item() == pytest.approx(theirs, abs=1e-9)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 20), st.integers(1, 20), st.integers(0, 99), st.integers(1, 60))
def test_pairs_properties(height: int, width: int, seed: int, most: int) -> None:
    before = images(3, height, width, seed)
    step = images(3, height, width, seed + 1).int() % (2 * most + 1) - most
    after = (before.int() + step).clamp(0, 255).to(torch.uint8)
    assert (largest_change(before, after) <= most).all()
    assert torch.allclose(ssim(before, after), ssim(after, before))
    assert (ssim(before, after) <= 1 + 1e-12).all()
    assert torch.allclose(ssim(before, before), torch.ones(3, dtype=torch.float64))
    assert torch.equal(psnr(before, after), psnr(after.float(), before.float()))
    floor = 20 * torch.log10(255 / largest_change(before, after))  # no pixel is further than the furthest
    assert (psnr(before, after) >= floor.clamp(max=IDENTICAL_DB) - 1e-9).all()


# ----------------------------------------------------------------------------------------------------- sharpness


def plain_blur(image: np.ndarray) -> float:
    grey = 0.299 * image[0].astype(float) + 0.587 * image[1] + 0.114 * image[2]
    height, width = grey.shape

    def at(y: int, x: int) -> float:
        y, x = abs(y), abs(x)
        return grey[2 * height - 2 - y if y >= height else y, 2 * width - 2 - x if x >= width else x]

    edges = [
        at(y - 1, x) + at(y + 1, x) + at(y, x - 1) + at(y, x + 1) - 4 * at(y, x)
        for y in range(height)
        for x in range(width)
    ]
    return float(np.var(edges))


def test_blur_by_hand() -> None:
    spot = torch.zeros(1, 3, 3, 3, dtype=torch.uint8)
    spot[0, :, 1, 1] = 10  # Laplacian: -40 there; 20 at the four sides, where reflection doubles it; 0 at corners
    expected = (40**2 + 4 * 20**2) / 9 - ((4 * 20 - 40) / 9) ** 2
    assert blur_scores(spot, side=None).item() == pytest.approx(expected)


def test_blur_is_its_definition_and_falls_when_smoothed() -> None:
    pixels = images(20, 9, 7)
    assert blur_scores(pixels, side=None).tolist() == pytest.approx([plain_blur(each) for each in pixels.numpy()])
    assert torch.equal(blur_scores(pixels), blur_scores(pixels))  # from the cache
    smooth = torch.nn.functional.avg_pool2d(pixels.float(), 3, 1, 1)
    assert (blur_scores(smooth, 32) < blur_scores(pixels, 32)).all()
    assert blur_scores(torch.full((1, 3, 5, 5), 77, dtype=torch.uint8)).item() == pytest.approx(0, abs=1e-6)


def smooth_image(seed: int, height: int, width: int) -> torch.Tensor:
    drawn = np.random.default_rng(seed)
    image = drawn.normal(size=(height, width, 3)).cumsum(0).cumsum(1)
    image = (image - image.min()) / (image.max() - image.min()) * 200 + drawn.uniform(0, 55, (height, width, 3))
    return torch.from_numpy(image.astype(np.uint8)).permute(2, 0, 1)[None]


@pytest.mark.skipif(importlib.util.find_spec("brisque") is None, reason="package brisque is not installed")
def test_brisque_gives_the_scores_of_the_package() -> None:
    """Recorded from version 0.2.0 under OpenCV 4.13, its one failure under NumPy 2.4 worked around."""
    recorded = {(0, 64, 48): 80.311442280725, (2, 128, 128): 78.94422681889799}
    for (seed, height, width), score in recorded.items():
        assert brisque_scores(smooth_image(seed, height, width)).item() == pytest.approx(score, abs=2e-3)
    assert brisque_scores(torch.full((1, 3, 8, 8), 77, dtype=torch.uint8)).isfinite().all()
    many = torch.cat([smooth_image(seed, 32, 32) for seed in range(16)])
    alone = [brisque_scores(many[k : k + 1]).item() for k in range(16)]
    assert brisque_scores(many).tolist() == pytest.approx(alone)


def test_the_fit_finds_the_distribution_that_was_drawn() -> None:
    """An asymmetric generalised Gaussian: |x| = s g^(1 / shape), g of a gamma distribution, to the left s_l, else s_r."""
    drawn = np.random.default_rng(0)
    shape, left, right = 1.3, 0.5, 1.5
    size = drawn.gamma(1 / shape, size=400_000) ** (1 / shape)
    x = np.where(drawn.uniform(size=size.size) < left / (left + right), -left * size, right * size)
    spread = special.gamma(3 / shape) / special.gamma(1 / shape)
    found = [float(each[0]) for each in brisque._fit(x[None])]
    mean = (right - left) * special.gamma(2 / shape) / special.gamma(1 / shape)
    assert found == pytest.approx([shape, mean, left**2 * spread, right**2 * spread], rel=0.02)


def test_brisque_missing_or_spoilt_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    brisque._model.cache_clear()
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(UserError, match=r"BRISQUE needs .*\.\[brisque\]"):
        brisque_scores(images(1, 16, 16))
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "normalize.pickle").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    spec = importlib.util.spec_from_file_location("brisque", tmp_path / "__init__.py")
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: spec)
    with pytest.raises(UserError, match=r"not the model of package brisque \(it asks for os.system\)"):
        brisque_scores(images(1, 16, 16))


# ----------------------------------------------------------------------------------------------------- detection


def test_detection_by_hand() -> None:
    clean, bad = torch.tensor([0.9, 0.8, 0.6, 0.95]), torch.tensor([0.5, 0.6, 0.85])
    # pairs that are won: .5 four; .6 three and a tie; .85 two
    assert auc(clean, bad) == pytest.approx((4 + 3.5 + 2) / 12)
    assert recall_at_zero_false_positives(clean, bad) == pytest.approx(1 / 3)  # .6 is not below .6
    found = detection(clean, bad, clean < 0.7, bad < 0.7)
    assert found["recall"] == pytest.approx(2 / 3)
    assert found["false_positive_rate"] == pytest.approx(1 / 4)
    assert found["accuracy"] == pytest.approx(5 / 7)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(-3, 3), max_size=12), st.lists(st.integers(-3, 3), max_size=12))
def test_detection_is_its_definition(clean: list[int], bad: list[int]) -> None:
    a, b = torch.tensor(clean, dtype=torch.float32), torch.tensor(bad, dtype=torch.float32)
    found = detection(a, b, a < 0, b < 0)
    if not clean or not bad:
        assert found["auc"] is None
        assert found["accuracy"] is None
        return
    pairs = [(x, y) for x in clean for y in bad]
    assert found["auc"] == pytest.approx(sum((y < x) + (y == x) / 2 for x, y in pairs) / len(pairs))
    assert found["recall_zero_fp"] == pytest.approx(sum(y < min(clean) for y in bad) / len(bad))
    right = sum(x >= 0 for x in clean) + sum(y < 0 for y in bad)
    assert found["accuracy"] == pytest.approx(right / (len(clean) + len(bad)))
    assert auc(a, b) == pytest.approx(1 - auc(b, a))  # type: ignore[operator]
    assert auc(a * 3 + 1, b * 3 + 1) == auc(a, b)


def test_without_flags_there_is_no_recall() -> None:
    found = detection(torch.tensor([0.9]), torch.tensor([0.1]))
    assert found == {"auc": 1, "recall_zero_fp": 1, "recall": None, "false_positive_rate": None, "accuracy": None}
