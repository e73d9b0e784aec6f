"""The network of EfficientNet-Lite0."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F

_EPS = 1e-3
"""Of every batch normalisation."""


class Stage(NamedTuple):
    """Blocks of one kind: the first has ``stride`` and changes the channels, the others add to their input."""

    blocks: int
    width: int
    stride: int


STAGES = (
    Stage(1, 3, 1),
    Stage(2, 3, 2),
    Stage(2, 5, 2),
    Stage(3, 3, 2),
    Stage(3, 5, 1),
    Stage(4, 5, 2),
    Stage(1, 3, 1),
)
"""Blocks, kernel and stride of EfficientNet-B0, which Lite0 keeps; channels are in the weights."""


class Network(torch.nn.Module):
    """The convolutions with what normalises their outputs folded in: float32 [k, 3, H, W] -> [k, 1280]."""

    def __init__(self, state: Mapping[str, torch.Tensor]) -> None:
        super().__init__()
        self.stem = _Convolution(state, "_conv_stem", "_bn0", stride=2)
        self.blocks = torch.nn.ModuleList()
        for stage in STAGES:
            for first in (True, *(False,) * (stage.blocks - 1)):
                name = f"_blocks.{len(self.blocks)}"
                self.blocks.append(_Block(state, name, stage.stride if first else 1, adds=not first))
        self.head = _Convolution(state, "_conv_head", "_bn1")

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        images = _relu6(self.stem(images))
        for block in self.blocks:
            images = block(images)
        return _relu6(self.head(images)).mean((2, 3))


class _Block(torch.nn.Module):
    """Inverted bottleneck: widen (1 x 1), filter by channel, narrow (1 x 1, no activation)."""

    def __init__(self, state: Mapping[str, torch.Tensor], name: str, stride: int, adds: bool) -> None:
        super().__init__()
        widens = f"{name}._expand_conv.weight" in state
        self.widen = _Convolution(state, f"{name}._expand_conv", f"{name}._bn0") if widens else None
        self.filter = _Convolution(state, f"{name}._depthwise_conv", f"{name}._bn1", stride, by_channel=True)
        self.narrow = _Convolution(state, f"{name}._project_conv", f"{name}._bn2")
        self.adds = adds

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        inner = images if self.widen is None else _relu6(self.widen(images))
        inner = self.narrow(_relu6(self.filter(inner)))
        return images + inner if self.adds else inner


class _Convolution(torch.nn.Module):
    """A convolution and its batch normalisation g (y - m) / s + b, as one: weights g/s W, bias b - g m / s.

    Padded as TensorFlow's ``SAME``: at stride 2 an even side has one zero less before than after. That is what a kernel
    with an empty first row and column does under equal padding, without a copy of the images.
    """

    weight: torch.Tensor
    bias: torch.Tensor
    even: torch.Tensor
    """The kernel for images of even sides."""

    def __init__(
        self, state: Mapping[str, torch.Tensor], name: str, norm: str, stride: int = 1, by_channel: bool = False
    ) -> None:
        super().__init__()
        weight = state[f"{name}.weight"].double()
        gain = state[f"{norm}.weight"].double() / (state[f"{norm}.running_var"].double() + _EPS).sqrt()
        bias = state[f"{norm}.bias"].double() - state[f"{norm}.running_mean"].double() * gain
        weight = (weight * gain.view(-1, 1, 1, 1)).float()
        self.register_buffer("weight", weight)
        self.register_buffer("even", F.pad(weight, (1, 0, 1, 0)) if stride == 2 else weight)
        self.register_buffer("bias", bias.float())
        self.stride = stride
        self.groups = weight.shape[0] if by_channel else 1

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        width = self.weight.shape[-1]
        if width == 1:  # a matrix product, which takes images that lie channel by channel as they are
            return F.linear(images.permute(0, 2, 3, 1), self.weight.flatten(1), self.bias).permute(0, 3, 1, 2)
        weight = self.weight if images.shape[-1] % 2 else self.even
        return F.conv2d(images, weight, self.bias, self.stride, width // 2, groups=self.groups)


_relu6: Callable[[torch.Tensor], torch.Tensor] = torch.nn.ReLU6(inplace=True)
