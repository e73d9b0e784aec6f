"""UNets of diffusers as denoisers: how one is made, stored in a folder, and called."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import torch
import torch.nn.functional as F

from fedbench.data.home import replacing, sha256_of_bytes
from fedbench.errors import DataError, UserError, missing_extra
from fedbench.vision.denoisers.base import Denoiser
from fedbench.vision.schedule import signal


@dataclass(frozen=True)
class UNetSpec:
    """What ``config.json`` beside the weights says.

    Attributes:
        unet: arguments of ``diffusers.UNet2DModel``.
        size: pixels, of height and width, that it was trained at. Being convolutions, it works at others too.
        patch: images are folded into ``3 patch^2`` channels of ``size / patch`` pixels before the network, and its output
            unfolded: a fraction of the cost at full resolution (as FFDNet does; Zhang, Zuo, Zhang 2018).
        t_max: the last step, of 1,000, that it was trained for.
    """

    unet: dict[str, Any] = field(default_factory=dict)
    size: int = 64
    patch: int = 2
    t_max: int = 1000

    @property
    def multiple(self) -> int:
        """Sides of images must be a multiple of so many pixels."""
        return self.patch * 2 ** (len(self.unet["block_out_channels"]) - 1)

    def network(self) -> torch.nn.Module:
        """A fresh network, its weights drawn from torch's global stream."""
        try:
            from diffusers import UNet2DModel
        except ImportError:
            raise missing_extra("vision", "a UNet") from None
        network: Any = UNet2DModel(**self.unet)  # type: ignore[no-untyped-call]
        return network


def small_spec(size: int, t_max: int, channels: tuple[int, ...] = (32, 64, 96), patch: int = 2) -> UNetSpec:
    """A small network for pictures of ``size`` pixels: one residual block a level, attention at the lowest only.

    With the default channels and patch it has 1.70 million parameters.
    """
    shrinks = patch * 2 ** (len(channels) - 1)
    if size % shrinks:
        raise UserError(f"size {size} must be a multiple of {shrinks}.")
    return UNetSpec(
        unet={
            "sample_size": size // patch,
            "in_channels": 3 * patch**2,
            "out_channels": 3 * patch**2,
            "block_out_channels": list(channels),
            "down_block_types": ["DownBlock2D"] * len(channels),
            "up_block_types": ["UpBlock2D"] * len(channels),
            "layers_per_block": 1,
            "norm_num_groups": 8,
            "attention_head_dim": 8,
        },
        size=size,
        patch=patch,
        t_max=t_max,
    )


class UNetDenoiser(Denoiser):
    """A UNet of diffusers. What a folder with one is like is the matter of subclasses.

    Args:
        network: called as ``network(x, timestep).sample``.
        spec: what it was trained for.
        weights: a hash of its weights.
        prediction: what it predicts: the noise, ``"epsilon"``; ``"v_prediction"``, ``sqrt(abar) noise - sqrt(1 - abar) x_0``;
            or the clean image, ``"sample"``. With 6 output channels the last 3 are of the variance: v is ``(out + 1) / 2``.
        timesteps: what the network calls each of our steps 0..1000, int64 [1001]; None: one less.
        any_size: whether it is used at the images' own size, rather than at what it was trained at.
    """

    packages = ("diffusers",)

    def __init__(
        self,
        network: torch.nn.Module,
        spec: UNetSpec,
        weights: str,
        prediction: str = "epsilon",
        timesteps: torch.Tensor | None = None,
        any_size: bool = False,
    ) -> None:
        network = network.eval().requires_grad_(False)
        self.network: torch.nn.Module = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.spec = spec
        self.size, self.multiple, self.t_max = None if any_size else spec.size, spec.multiple, spec.t_max
        self.prediction = prediction
        self._timesteps = torch.arange(-1, 1000) if timesteps is None else timesteps
        told = json.dumps([asdict(spec), prediction, self._timesteps.tolist(), any_size], sort_keys=True)
        used = sha256_of_bytes(told.encode())[:16]  # the same weights may stand for another denoiser
        self._identity = f"{self.card.name} {self.card.version} {weights} {used}"
        self._abar = torch.from_numpy(signal())

    @property
    def identity(self) -> str:
        return self._identity

    def __call__(self, x: torch.Tensor, t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        out = predict(self.network, self.spec, x.float(), self._timesteps[t]).to(x.dtype)
        out, rest = out[:, :3], out[:, 3:]
        variance = ((rest + 1) / 2).clamp(0, 1) if rest.shape[1] else None
        if self.prediction == "epsilon":
            return out, variance
        abar = self._abar[t].to(x.dtype).view(-1, 1, 1, 1)
        if self.prediction == "sample":
            return (x - abar.sqrt() * out) / (1 - abar).sqrt(), variance
        return abar.sqrt() * out + (1 - abar).sqrt() * x, variance

    def to(self, device: torch.device | str) -> Self:
        self.network.to(device)
        self._timesteps, self._abar = self._timesteps.to(device), self._abar.to(device)
        return self


def predict(network: torch.nn.Module, spec: UNetSpec, x: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
    """The network's output, float32 [B, C, H, W], for ``x`` float32 [B, 3, H, W] at timesteps int64 [B], from 0."""
    if any(side % spec.multiple for side in x.shape[-2:]):
        shape = " x ".join(map(str, x.shape[-2:]))
        raise UserError(f"the denoiser works at multiples of {spec.multiple} pixels, not at {shape}.")
    if spec.patch > 1:
        x = F.pixel_unshuffle(x, spec.patch)
    out: torch.Tensor = network(x.contiguous(memory_format=torch.channels_last), timestep).sample
    return F.pixel_shuffle(out, spec.patch) if spec.patch > 1 else out


WEIGHTS = "model.safetensors"
CONFIG = "config.json"


def save(network: torch.nn.Module, spec: UNetSpec, folder: Path) -> dict[str, Any]:
    """Write weights, in half precision, and ``config.json``; returns the file's name, bytes and SHA-256."""
    from safetensors.torch import save as packed

    halves = {name: value.detach().cpu().half().contiguous() for name, value in network.state_dict().items()}
    content = packed(halves)
    sha256 = sha256_of_bytes(content)
    with replacing(folder / WEIGHTS) as temporary:
        temporary.write_bytes(content)
    config = {**asdict(spec), "sha256": sha256}
    with replacing(folder / CONFIG) as temporary:
        temporary.write_text(json.dumps(config, indent=1) + "\n")
    return {"file": WEIGHTS, "bytes": len(content), "sha256": sha256}


def load(folder: Path) -> tuple[torch.nn.Module, UNetSpec, str]:
    """Network, in single precision, spec and SHA-256 of the weights that :func:`save` wrote to a folder.

    Raises:
        DataError: they are not there, or not what ``config.json`` says.
    """
    try:
        from safetensors.torch import load as unpacked
    except ImportError:
        raise missing_extra("vision", "a UNet") from None
    try:
        config = json.loads((folder / CONFIG).read_text())
        content = (folder / WEIGHTS).read_bytes()
        expected = config.pop("sha256")
        spec = UNetSpec(**config)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{folder} holds no denoiser ({type(error).__name__}: {error}).") from None
    found = sha256_of_bytes(content)
    if found != expected:
        raise DataError(f"{folder / WEIGHTS}: SHA-256 {found[:12]}..., where {CONFIG} says {expected[:12]}...")
    network = spec.network()
    network.load_state_dict({name: value.float() for name, value in unpacked(content).items()})
    return network, spec, found


def sha256_of_network(network: torch.nn.Module) -> str:
    """SHA-256 of names, types, shapes and values of all weights."""
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)} ".encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
