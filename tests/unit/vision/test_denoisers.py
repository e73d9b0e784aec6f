from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fedbench.errors import DataError, UserError
from fedbench.vision.denoisers import DENOISERS, Denoiser
from fedbench.vision.denoisers.guided import GuidedDiffusionDenoiser, converted, guided_spec
from fedbench.vision.denoisers.identity import IdentityDenoiser
from fedbench.vision.denoisers.pipeline import PipelineDenoiser
from fedbench.vision.denoisers.spectral import SpectralDenoiser
from fedbench.vision.denoisers.unet import UNetDenoiser, UNetSpec, load, predict, save, small_spec
from fedbench.vision.diffusion import Purification, purify
from fedbench.vision.schedule import signal

diffusers = pytest.importorskip("diffusers")


def pixels(count: int = 6, side: int = 8, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (count, 3, side, side), dtype=np.uint8))


def some(shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", DENOISERS.names())
def test_entries_have_cards_and_say_what_they_need(name: str) -> None:
    entry = DENOISERS.get(name)
    assert issubclass(entry, Denoiser)
    assert entry.card.name == name
    if name in ("pipeline", "guided-diffusion-256"):
        with pytest.raises(UserError, match="needs weights"):
            entry.make()
    else:
        with pytest.raises(UserError, match="takes no weights"):
            entry.make("somewhere")


def test_identity_predicts_nothing() -> None:
    x = some((2, 3, 4, 4))
    predicted, variance = IdentityDenoiser.make()(x, torch.tensor([1, 9]))
    assert not predicted.any()
    assert variance is None


def test_spectral_against_loops() -> None:
    """Mean, power and E[x_0 | x_t] by plain two-dimensional Fourier sums."""
    images = pixels(5, 4)
    denoiser = SpectralDenoiser.make()
    denoiser.fit(images)
    assert denoiser.size == 4
    x = images.double().numpy() / 127.5 - 1
    mean = x.mean(0)
    power = np.zeros((3, 4, 4))
    for image in x:
        for channel in range(3):
            power[channel] += np.abs(np.fft.fft2(image[channel] - mean[channel])) ** 2 / 16 / 5
    y = some((2, 3, 4, 4)).double()
    times = torch.tensor([30, 400])
    predicted, _ = denoiser(y, times)
    for row, t in enumerate(times.tolist()):
        abar = signal()[t]
        for channel in range(3):
            spectrum = np.fft.fft2(y[row, channel].numpy() - np.sqrt(abar) * mean[channel])
            gain = np.sqrt(abar) * power[channel] / (abar * power[channel] + 1 - abar)
            clean = mean[channel] + np.fft.ifft2(gain * spectrum).real
            noise = (y[row, channel].numpy() - np.sqrt(abar) * clean) / np.sqrt(1 - abar)
            np.testing.assert_allclose(predicted[row, channel].numpy(), noise, rtol=1e-9, atol=1e-9)


def test_spectral_must_be_fitted_to_images_of_the_same_size() -> None:
    denoiser = SpectralDenoiser()
    t = torch.tensor([1])
    with pytest.raises(UserError, match="must be fitted"):
        denoiser(some((1, 3, 8, 8)), t)
    with pytest.raises(UserError, match="there are none"):
        denoiser.fit(pixels(0))
    denoiser.fit(pixels())
    with pytest.raises(UserError, match="fitted to images of 8 x 8 pixels, not 4 x 4"):
        denoiser(some((1, 3, 4, 4)), t)
    same, other = SpectralDenoiser(), SpectralDenoiser()
    same.fit(pixels())
    other.fit(pixels(seed=1))
    assert same.identity == denoiser.identity != other.identity
    wide = SpectralDenoiser()
    wide.fit(pixels()[..., :6])
    assert wide.size is None
    assert wide(some((1, 3, 8, 6)), t)[0].shape == (1, 3, 8, 6)


# The shipped one -----------------------------------------------------------------------------------------------------


def test_shipped_denoiser_is_small_and_predicts_noise_better_than_nothing() -> None:
    denoiser = DENOISERS.get("ddpm-small").make()
    assert isinstance(denoiser, UNetDenoiser)
    folder = Path(__file__).parents[3] / "fedbench/vision/denoisers/ddpm_small"
    assert (folder / "model.safetensors").stat().st_size <= 4_000_000
    record = json.loads((folder / "training.json").read_text())
    assert record["weights"]["sha256"] == json.loads((folder / "config.json").read_text())["sha256"]
    assert record["weights"]["sha256"] in denoiser.identity
    assert (denoiser.spec.size, denoiser.t_max) == (record["size"], record["t_max"]) == (64, 300)
    assert denoiser.size is None
    y, x = torch.meshgrid(torch.linspace(-0.8, 0.8, 64), torch.linspace(-0.5, 0.9, 64), indexing="ij")
    clean = torch.stack([x, y, (x * 3).round() / 3])[None].expand(2, -1, -1, -1)
    noise, t = some((2, 3, 64, 64)), torch.tensor([60, 250])
    abar = torch.from_numpy(signal()).float()[t].view(-1, 1, 1, 1)
    predicted, variance = denoiser(abar.sqrt() * clean + (1 - abar).sqrt() * noise, t)
    assert variance is None
    assert float((predicted - noise).square().mean()) < 0.15
    with pytest.raises(UserError, match="up to step 300"):
        purify(pixels(1), denoiser, Purification(t_star=301), 0)


# Folders -------------------------------------------------------------------------------------------------------------

TINY = {
    "sample_size": 8,
    "block_out_channels": [8, 16],
    "down_block_types": ["DownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "UpBlock2D"],
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "attention_head_dim": 4,
}


def test_saved_weights_come_back_in_half_precision(tmp_path: Path) -> None:
    spec = small_spec(16, 200, (8, 16))
    network = spec.network()
    said = save(network, spec, tmp_path)
    denoiser = PipelineDenoiser.make(str(tmp_path))
    assert (denoiser.size, denoiser.multiple, denoiser.t_max, denoiser.spec) == (None, 4, 200, spec)
    assert said["sha256"] in denoiser.identity
    assert said["bytes"] == (tmp_path / "model.safetensors").stat().st_size
    x, t = some((2, 3, 16, 16)), torch.tensor([5, 150])
    halves = {name: value.half().float() for name, value in network.state_dict().items()}
    network.load_state_dict(halves)
    torch.testing.assert_close(denoiser(x, t)[0], predict(network.eval(), spec, x, t - 1))
    with pytest.raises(UserError, match="multiples of 4 pixels, not at 10 x 12"):
        denoiser(some((1, 3, 10, 12)), t[:1])
    how = Purification(t_star=20, steps=3)
    for shape in ((10, 12), (8, 12)):  # the first at 12 x 12
        images = pixels(5, 16)[..., : shape[0], : shape[1]]
        whole = purify(images, denoiser, how, 0)
        assert whole.shape == images.shape
        alone = purify(images[3:4], denoiser, how, 0)
        assert int((whole[3:4].int() - alone.int()).abs().max()) <= 1  # convolutions of another batch: last bits


def test_folders_with_something_else(tmp_path: Path) -> None:
    spec = small_spec(16, 200, (8, 16))
    save(spec.network(), spec, tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"SHA-256 .* says"):
        load(tmp_path)
    weights.unlink()
    with pytest.raises(DataError, match="holds no denoiser"):
        load(tmp_path)
    with pytest.raises(UserError, match="neither a folder nor a name on the hub"):
        PipelineDenoiser.make("no-such-folder")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="cannot load"):
        PipelineDenoiser.make(str(tmp_path / "empty"))
    with pytest.raises(UserError, match="multiple of 4"):
        small_spec(18, 200, (8, 16))


def test_pipelines_and_bare_networks_of_diffusers(tmp_path: Path) -> None:
    network = diffusers.UNet2DModel(**TINY).eval()
    scheduler = diffusers.DDPMScheduler(beta_start=1e-4, beta_end=2e-2)
    diffusers.DDPMPipeline(network, scheduler).save_pretrained(tmp_path / "whole")
    network.save_pretrained(tmp_path / "bare")
    x, t = some((2, 3, 8, 8)), torch.tensor([3, 700])
    with torch.no_grad():
        expected = network(x, t - 1).sample
    for name in ("whole", "bare"):
        denoiser = PipelineDenoiser.make(str(tmp_path / name))
        assert denoiser.size == 8
        torch.testing.assert_close(denoiser(x, t)[0], expected)
    assert purify(pixels(2), denoiser, Purification(t_star=20, steps=3), 0).shape == (2, 3, 8, 8)


@pytest.mark.parametrize("prediction", ["v_prediction", "sample"])
def test_predictions_become_noise(tmp_path: Path, prediction: str) -> None:
    network = diffusers.UNet2DModel(**TINY, out_channels=6)
    scheduler = diffusers.DDPMScheduler(beta_start=1e-4, beta_end=2e-2, prediction_type=prediction)
    diffusers.DDPMPipeline(network, scheduler).save_pretrained(tmp_path)
    denoiser = PipelineDenoiser.make(str(tmp_path))
    x, t = some((1, 3, 8, 8)), torch.tensor([120])
    out = network.eval()(x, t - 1).sample
    predicted, variance = denoiser(x, t)
    abar = float(signal()[120])
    clean = out[:, :3] if prediction == "sample" else abar**0.5 * x - (1 - abar) ** 0.5 * out[:, :3]
    torch.testing.assert_close(abar**0.5 * clean + (1 - abar) ** 0.5 * predicted, x)
    assert variance is not None
    torch.testing.assert_close(variance, ((out[:, 3:] + 1) / 2).clamp(0, 1))


def test_another_schedule_is_met_at_the_same_share_of_noise(tmp_path: Path) -> None:
    network = diffusers.UNet2DModel(**TINY).eval()
    scheduler = diffusers.DDPMScheduler(num_train_timesteps=500, beta_schedule="squaredcos_cap_v2")
    diffusers.DDPMPipeline(network, scheduler).save_pretrained(tmp_path)
    x, t = some((1, 3, 8, 8)), torch.tensor([200])
    nearest = min(range(500), key=lambda step: abs(float(scheduler.alphas_cumprod[step]) - signal()[200]))
    with torch.no_grad():
        torch.testing.assert_close(PipelineDenoiser.make(str(tmp_path))(x, t)[0], network(x, nearest).sample)


def test_networks_that_will_not_do(tmp_path: Path) -> None:
    for place, (options, text) in enumerate(
        [({"in_channels": 1, "out_channels": 1}, "must take 3 channels"), ({"num_class_embeds": 5}, "no class")]
    ):
        diffusers.UNet2DModel(**TINY | options).save_pretrained(tmp_path / str(place))
        with pytest.raises(UserError, match=text):
            PipelineDenoiser.make(str(tmp_path / str(place)))


# guided-diffusion ----------------------------------------------------------------------------------------------------

CHANNELS, HEAD, GROUPS, BLOCKS, SIDE = (8, 8, 16), 4, 4, 2, 16
ATTENTION = (8, 4)


class Plain:
    """The network of guided-diffusion, restated from its description, on random weights that it makes as it goes."""

    def __init__(self) -> None:
        self.state: dict[str, torch.Tensor] = {}
        self.draws = torch.Generator().manual_seed(0)

    def weight(self, name: str, *shape: int) -> torch.Tensor:
        if name not in self.state:
            self.state[name] = torch.randn(shape, generator=self.draws) * 0.3
        return self.state[name]

    def conv(self, x: torch.Tensor, name: str, out: int, side: int = 3) -> torch.Tensor:
        weight = self.weight(f"{name}.weight", out, x.shape[1], side, side)
        return F.conv2d(x, weight, self.weight(f"{name}.bias", out), padding=side // 2)

    def linear(self, x: torch.Tensor, name: str, out: int) -> torch.Tensor:
        return x @ self.weight(f"{name}.weight", out, x.shape[1]).T + self.weight(f"{name}.bias", out)

    def norm(self, x: torch.Tensor, name: str) -> torch.Tensor:
        grouped = x.reshape(len(x), GROUPS, -1)
        mean, variance = grouped.mean(2, keepdim=True), grouped.var(2, keepdim=True, unbiased=False)
        scaled = ((grouped - mean) / (variance + 1e-5).sqrt()).reshape(x.shape)
        shape = (1, -1) + (1,) * (x.ndim - 2)
        scale, shift = (self.weight(f"{name}.{kind}", x.shape[1]).view(shape) for kind in ("weight", "bias"))
        return scaled * scale + shift

    def block(self, x: torch.Tensor, emb: torch.Tensor, name: str, out: int, change: str = "") -> torch.Tensor:
        h = F.silu(self.norm(x, f"{name}.in_layers.0"))
        if change == "down":
            h, x = F.avg_pool2d(h, 2), F.avg_pool2d(x, 2)
        if change == "up":
            h, x = (each.repeat_interleave(2, 2).repeat_interleave(2, 3) for each in (h, x))
        h = self.conv(h, f"{name}.in_layers.2", out)
        scale, shift = self.linear(F.silu(emb), f"{name}.emb_layers.1", 2 * out)[..., None, None].chunk(2, dim=1)
        h = self.norm(h, f"{name}.out_layers.0") * (1 + scale) + shift
        h = self.conv(F.silu(h), f"{name}.out_layers.3", out)
        return h + (x if x.shape[1] == out else self.conv(x, f"{name}.skip_connection", out, 1))

    def attend(self, x: torch.Tensor, name: str) -> torch.Tensor:
        """Heads one after the other in the channels of qkv; in a head queries, then keys, then values."""
        count, width, height, _ = x.shape
        flat = x.reshape(count, width, -1)
        qkv = self.weight(f"{name}.qkv.weight", 3 * width, width, 1)
        h = torch.einsum("oi,bil->bol", qkv[..., 0], self.norm(flat, f"{name}.norm"))
        h = h + self.weight(f"{name}.qkv.bias", 3 * width)[:, None]
        heads = []
        for head in range(width // HEAD):
            q, k, v = h[:, 3 * HEAD * head : 3 * HEAD * (head + 1)].split(HEAD, dim=1)
            share = torch.softmax(torch.einsum("bcs,bct->bst", q, k) / HEAD**0.5, dim=2)
            heads.append(torch.einsum("bst,bct->bcs", share, v))
        out = self.weight(f"{name}.proj_out.weight", width, width, 1)
        h = torch.einsum("oi,bil->bol", out[..., 0], torch.cat(heads, dim=1))
        return x + (h + self.weight(f"{name}.proj_out.bias", width)[:, None]).reshape(count, width, height, height)

    def __call__(self, x: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
        half = CHANNELS[0] // 2
        angle = step[:, None].float() * torch.exp(-np.log(10000) * torch.arange(half) / half)[None]
        emb = self.linear(torch.cat([angle.cos(), angle.sin()], dim=1), "time_embed.0", 4 * CHANNELS[0])
        emb = self.linear(F.silu(emb), "time_embed.2", 4 * CHANNELS[0])
        h = self.conv(x, "input_blocks.0.0", CHANNELS[0])
        kept, count = [h], 1
        for level, width in enumerate(CHANNELS):
            for _ in range(BLOCKS):
                h = self.block(h, emb, f"input_blocks.{count}.0", width)
                if h.shape[-1] in ATTENTION:
                    h = self.attend(h, f"input_blocks.{count}.1")
                kept.append(h)
                count += 1
            if level < len(CHANNELS) - 1:
                h = self.block(h, emb, f"input_blocks.{count}.0", width, "down")
                kept.append(h)
                count += 1
        h = self.block(h, emb, "middle_block.0", CHANNELS[-1])
        h = self.block(self.attend(h, "middle_block.1"), emb, "middle_block.2", CHANNELS[-1])
        count = 0
        for level in reversed(range(len(CHANNELS))):
            for block in range(BLOCKS + 1):
                h = self.block(torch.cat([h, kept.pop()], dim=1), emb, f"output_blocks.{count}.0", CHANNELS[level])
                part = 1
                if h.shape[-1] in ATTENTION:
                    h = self.attend(h, f"output_blocks.{count}.1")
                    part = 2
                if level and block == BLOCKS:
                    h = self.block(h, emb, f"output_blocks.{count}.{part}", CHANNELS[level], "up")
                count += 1
        return self.conv(F.silu(self.norm(h, "out.0")), "out.2", 6)


@torch.no_grad()
def test_checkpoint_of_guided_diffusion_computes_what_its_blocks_do(tmp_path: Path) -> None:
    spec = guided_spec(SIDE, CHANNELS, ATTENTION, HEAD, BLOCKS, GROUPS)
    plain = Plain()
    x, t = some((2, 3, SIDE, SIDE)), torch.tensor([1, 640])
    expected = plain(x, t - 1)
    denoiser = GuidedDiffusionDenoiser(converted(plain.state, spec), spec, "random")
    predicted, variance = denoiser(x, t)
    torch.testing.assert_close(predicted, expected[:, :3], rtol=1e-3, atol=1e-3)
    assert variance is not None
    torch.testing.assert_close(variance, ((expected[:, 3:] + 1) / 2).clamp(0, 1), rtol=1e-3, atol=1e-3)
    for broken in (
        {name: value for name, value in plain.state.items() if name != "middle_block.1.qkv.weight"},
        plain.state | {"label_emb.weight": torch.zeros(1000, 8)},
        plain.state | {"out.2.bias": torch.zeros(3)},
    ):
        with pytest.raises(DataError, match=r"not of this network: [13] weights differ"):
            converted(broken, spec)
    with pytest.raises(DataError, match="no state dict"):
        converted({"model": {}}, spec)


def test_published_network_of_guided_diffusion_has_its_number_of_parameters() -> None:
    with torch.device("meta"):
        network = guided_spec().network()
    assert sum(value.numel() for value in network.parameters()) == 552_814_086


def test_files_that_are_not_the_published_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no file"):
        GuidedDiffusionDenoiser.make(str(tmp_path / "none.pt"))
    path = tmp_path / "some.pt"
    path.write_text("nothing")
    with pytest.warns(UserWarning, match="not the published file"), pytest.raises(DataError, match="no checkpoint"):
        GuidedDiffusionDenoiser.make(str(path))
    torch.save({"out.2.bias": torch.zeros(6)}, path)
    with (
        pytest.warns(UserWarning, match="not the published file"),
        pytest.raises(DataError, match="not of this network"),
    ):
        GuidedDiffusionDenoiser.make(str(path))


def test_spec_knows_its_multiple() -> None:
    assert UNetSpec({"block_out_channels": [8, 8, 8]}, 64, 2).multiple == 8
