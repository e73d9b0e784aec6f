"""The unconditional 256-pixel model of guided-diffusion (Dhariwal & Nichol 2021), which the paper used."""

from __future__ import annotations

import os
import re
import warnings
from pathlib import Path
from typing import Any, Self

import torch

from fedbench.data.home import sha256_of
from fedbench.entries.cards import DenoiserCard
from fedbench.errors import DataError, UserError
from fedbench.vision.denoisers.unet import UNetDenoiser, UNetSpec

SHA256 = "a37c32fffd316cd494cf3f35b339936debdc1576dad13fe57c42399a5dbc78b1"
"""Of ``256x256_diffusion_uncond.pt``, 2,211,383,297 bytes."""

URL = "https://openaipublic.blob.core.windows.net/diffusion/jul-2021/256x256_diffusion_uncond.pt"


def guided_spec(
    size: int = 256,
    channels: tuple[int, ...] = (256, 256, 512, 512, 1024, 1024),
    attention: tuple[int, ...] = (32, 16, 8),
    head: int = 64,
    blocks: int = 2,
    groups: int = 32,
) -> UNetSpec:
    """The network of guided-diffusion as arguments of ``UNet2DModel``, which can say all of it.

    Residual blocks with scale-shift norm, also to halve and to double; attention after each block at the sides of
    ``attention``; 6 output channels; cosines before sines in the embedding of the timestep.
    """
    sides = [size >> level for level in range(len(channels))]
    down = ["AttnDownBlock2D" if side in attention else "ResnetDownsampleBlock2D" for side in sides]
    up = ["AttnUpBlock2D" if side in attention else "ResnetUpsampleBlock2D" for side in reversed(sides)]
    return UNetSpec(
        unet={
            "sample_size": size,
            "in_channels": 3,
            "out_channels": 6,
            "block_out_channels": list(channels),
            "down_block_types": down,
            "up_block_types": up,
            "layers_per_block": blocks,
            "downsample_type": "resnet",
            "upsample_type": "resnet",
            "resnet_time_scale_shift": "scale_shift",
            "attention_head_dim": head,
            "norm_num_groups": groups,
            "attn_norm_num_groups": groups,
            "norm_eps": 1e-5,
            "flip_sin_to_cos": True,
            "freq_shift": 0,
        },
        size=size,
        patch=1,
    )


class GuidedDiffusionDenoiser(UNetDenoiser):
    """``256x256_diffusion_uncond.pt`` of guided-diffusion (MIT), with learned variances; the file is the user's to bring.

    The paper's footnote names ``256x256_diffusion.pt``, which is the class-conditional model; the unconditional one is
    meant. 553 million parameters: about 2.2 GB, and for a GPU.
    """

    card = DenoiserCard(
        name="guided-diffusion-256",
        title="Unconditional ImageNet model of guided-diffusion, 256 pixels",
        paper="Dhariwal & Nichol, NeurIPS 2021 (arXiv 2105.05233)",
        notes="weights: the file 256x256_diffusion_uncond.pt. Not run here on the real file: the converter is tested on"
        " random weights, and the number of parameters is that of the published network.",
    )

    needs = "a file"

    @classmethod
    def make(cls, weights: str | None = None) -> Self:
        if not weights:
            raise UserError(f"denoiser 'guided-diffusion-256' needs weights: the file {Path(URL).name}, from {URL}.")
        path = Path(os.path.expanduser(weights))
        if not path.is_file():
            raise DataError(f"denoiser 'guided-diffusion-256': there is no file {weights!r}.")
        found = sha256_of(path)
        if found != SHA256:
            warnings.warn(f"{path} is not the published file (SHA-256 {found[:12]}...)", UserWarning, stacklevel=2)
        try:
            state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except Exception as error:  # torch has no common error for what is no checkpoint
            raise DataError(f"{path} is no checkpoint of torch ({type(error).__name__}).") from None
        spec = guided_spec()
        return cls(converted(state, spec, str(path)), spec, found)


def converted(state: Any, spec: UNetSpec, name: str = "the checkpoint") -> torch.nn.Module:
    """The network of ``spec`` with the weights of a state dict of guided-diffusion, in single precision.

    Raises:
        DataError: names or shapes are not those of that network.
    """
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise DataError(f"{name} is no state dict of guided-diffusion.")
    with torch.device("meta"):
        network = spec.network()
    wanted = {key: value.shape for key, value in network.state_dict().items()}
    places = _places(spec)
    found: dict[str, torch.Tensor] = {}
    for key, value in state.items():
        for ours, tensor in _renamed(key, value.float(), places, spec.unet["attention_head_dim"]):
            found[ours] = tensor
    wrong = sorted(wanted.keys() ^ found.keys())
    wrong += [key for key in wanted.keys() & found.keys() if wanted[key] != found[key].shape]
    if wrong:
        raise DataError(f"{name} is not of this network: {len(wrong)} weights differ, such as {wrong[0]!r}.")
    network.load_state_dict(found, assign=True)
    return network


_RESIDUAL = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
_OUTSIDE = {
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "input_blocks.0.0": "conv_in",
    "out.0": "conv_norm_out",
    "out.2": "conv_out",
}


def _places(spec: UNetSpec) -> dict[str, str]:
    """Residual blocks and attentions: guided-diffusion's name -> UNet2DModel's."""
    unet = spec.unet
    levels, blocks = len(unet["block_out_channels"]), unet["layers_per_block"]
    places = {
        "middle_block.0": "mid_block.resnets.0",
        "middle_block.1": "mid_block.attentions.0",
        "middle_block.2": "mid_block.resnets.1",
    }
    count = 1
    for level, kind in enumerate(unet["down_block_types"]):
        for block in range(blocks):
            places[f"input_blocks.{count}.0"] = f"down_blocks.{level}.resnets.{block}"
            if kind.startswith("Attn"):
                places[f"input_blocks.{count}.1"] = f"down_blocks.{level}.attentions.{block}"
            count += 1
        if level < levels - 1:
            places[f"input_blocks.{count}.0"] = f"down_blocks.{level}.downsamplers.0"
            count += 1
    count = 0
    for level, kind in enumerate(unet["up_block_types"]):
        attends = kind.startswith("Attn")
        for block in range(blocks + 1):
            places[f"output_blocks.{count}.0"] = f"up_blocks.{level}.resnets.{block}"
            if attends:
                places[f"output_blocks.{count}.1"] = f"up_blocks.{level}.attentions.{block}"
            if block == blocks and level < levels - 1:
                places[f"output_blocks.{count}.{1 + attends}"] = f"up_blocks.{level}.upsamplers.0"
            count += 1
    return places


def _renamed(key: str, value: torch.Tensor, places: dict[str, str], head: int) -> list[tuple[str, torch.Tensor]]:
    """What one of guided-diffusion's weights becomes; a weight of unknown name keeps it, so that it is missed later."""
    stem, _, kind = key.rpartition(".")
    if stem in _OUTSIDE:
        return [(f"{_OUTSIDE[stem]}.{kind}", value)]
    match = re.fullmatch(r"((?:input|output)_blocks\.\d+\.\d+|middle_block\.\d)\.(.+)", stem)
    place = places.get(match[1]) if match else None
    if match is None or place is None:
        return [(key, value)]
    inner = match[2]
    if inner in _RESIDUAL:
        return [(f"{place}.{_RESIDUAL[inner]}.{kind}", value)]
    if inner == "norm":
        return [(f"{place}.group_norm.{kind}", value)]
    if inner == "proj_out":
        return [(f"{place}.to_out.0.{kind}", value.flatten(1) if kind == "weight" else value)]
    if inner == "qkv":  # heads one after the other, each with its queries, keys and values
        width = value.shape[0] // 3
        parts = value.flatten(1) if kind == "weight" else value[:, None]
        parts = parts.reshape(width // head, 3, head, -1)
        shape = (width, -1) if kind == "weight" else (width,)
        return [
            (f"{place}.{name}.{kind}", parts[:, n].reshape(shape)) for n, name in enumerate(("to_q", "to_k", "to_v"))
        ]
    return [(key, value)]
