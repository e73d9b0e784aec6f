"""EfficientNet-Lite0 without anything that makes it quicker."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def plain_lite0(state: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """The network as its paper's table lays it out, with batch normalisations of their own."""

    def convolve(x: torch.Tensor, name: str, norm: str, stride: int, groups: int = 1) -> torch.Tensor:
        weight = state[f"{name}.weight"]
        width = weight.shape[-1]
        out = -(-x.shape[-1] // stride)
        total = max((out - 1) * stride + width - x.shape[-1], 0)
        x = F.pad(x, (total // 2, total - total // 2) * 2)
        x = F.conv2d(x, weight, stride=stride, groups=groups)
        mean, var = state[f"{norm}.running_mean"], state[f"{norm}.running_var"]
        return F.batch_norm(x, mean, var, state[f"{norm}.weight"], state[f"{norm}.bias"], eps=1e-3)

    x = convolve(x, "_conv_stem", "_bn0", 2).clamp(0, 6)
    strides = [1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1, 1, 1, 1]
    for n, stride in enumerate(strides):
        y = x
        if n:
            y = convolve(y, f"_blocks.{n}._expand_conv", f"_blocks.{n}._bn0", 1).clamp(0, 6)
        y = convolve(y, f"_blocks.{n}._depthwise_conv", f"_blocks.{n}._bn1", stride, y.shape[1]).clamp(0, 6)
        y = convolve(y, f"_blocks.{n}._project_conv", f"_blocks.{n}._bn2", 1)
        x = x + y if y.shape == x.shape else y
    return convolve(x, "_conv_head", "_bn1", 1).clamp(0, 6).mean((2, 3))
