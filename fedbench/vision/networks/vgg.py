"""The network of VGG-16."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F

_GROUPS = ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))
"""Numbers of the 3 x 3 convolutions in the published weights; a group ends with a 2 x 2 maximum."""


class Network(torch.nn.Module):
    """Layout D up to its second dense layer; channels are those of the weights. [k, 3, H, W] -> [k, units]."""

    def __init__(self, state: Mapping[str, torch.Tensor]) -> None:
        super().__init__()
        for name in (*(f"features.{n}" for group in _GROUPS for n in group), "classifier.0", "classifier.3"):
            for part in ("weight", "bias"):
                self.register_buffer(f"{name}.{part}".replace(".", "_"), state[f"{name}.{part}"].float())

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        for group in _GROUPS:
            for n in group:
                images = F.relu_(F.conv2d(images, *self._layer(f"features_{n}"), padding=1))
            images = F.max_pool2d(images, 2)
        flat = F.adaptive_avg_pool2d(images, 7).flatten(1)
        return F.relu_(F.linear(F.relu_(F.linear(flat, *self._layer("classifier_0"))), *self._layer("classifier_3")))

    def _layer(self, name: str) -> tuple[torch.Tensor, torch.Tensor]:
        return self.get_buffer(f"{name}_weight"), self.get_buffer(f"{name}_bias")
