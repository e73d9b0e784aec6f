"""Features as recommenders read them: norm, scale, what is cached of them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedbench.errors import UserError
from fedbench.vision.features import FeatureReader, feature_reader
from fedbench.vision.random_conv import RandomConvolutions


def images(count: int, seed: int = 0) -> torch.Tensor:
    drawn = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, 20, 20), dtype=torch.uint8, generator=drawn)


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("FEDBENCH_CACHE", str(tmp_path))
    return tmp_path


def test_norm_and_scale_by_hand() -> None:
    extractor = RandomConvolutions()
    raw = extractor(images(2))
    by_hand = torch.stack([row * (2.5 / sum(float(x) ** 2 for x in row) ** 0.5) for row in raw])
    assert torch.allclose(FeatureReader(extractor, "l2", 2.5)(images(2)), by_hand, atol=1e-6)
    assert torch.equal(FeatureReader(extractor, "none", 2.5)(images(2)), 2.5 * raw)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 70), st.sampled_from(["l2", "none"]), st.integers(0, 9))
def test_pieces_and_floats_give_the_same(count: int, norm: str, seed: int) -> None:
    reader = feature_reader("random-conv", norm)  # type: ignore[arg-type]
    whole = reader(images(count, seed).float())
    assert whole.shape == (count, reader.features)
    for _ in range(2):  # computed, and from the cache
        assert torch.allclose(reader(images(count, seed)), whole, atol=1e-4)


def test_a_black_image_has_finite_features_and_gradients() -> None:
    black = torch.zeros(1, 3, 20, 20, requires_grad=True)
    features = feature_reader("random-conv")(black)
    features.sum().backward()
    assert features.isfinite().all()
    assert black.grad is not None
    assert black.grad.isfinite().all()


def test_variants_share_what_is_kept(home: Path) -> None:
    pixels = images(40)
    first = feature_reader("random-conv", "l2", 4.0)
    seen: list[tuple[int, int]] = []
    first.progress = lambda done, total: seen.append((done, total))
    first(pixels)
    assert seen[-1] == (40, 40)
    kept = sorted(home.rglob("*.npy"))
    second = feature_reader("random-conv", "none", 1.0)
    assert second.extractor is first.extractor
    second(pixels)
    assert sorted(home.rglob("*.npy")) == kept
    assert first.identity != second.identity
    assert first.identity == FeatureReader(RandomConvolutions()).identity


def test_what_is_read_may_take_part_in_gradients() -> None:
    features = feature_reader("random-conv")(images(40))
    weight = torch.ones(features.shape[1], requires_grad=True)
    (features @ weight).sum().backward()
    assert torch.allclose(weight.grad, features.sum(0), atol=1e-3)  # type: ignore[arg-type]


def test_an_unknown_extractor_is_one_line() -> None:
    with pytest.raises(UserError, match=r"Unknown extractor 'random-con'\. Did you mean 'random-conv'"):
        feature_reader("random-con")
