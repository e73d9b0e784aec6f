"""What stands in the process of an attack on images for the extractor of the run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


class Asking:
    """The end of the attack: stands for :attr:`ItemImages.extract`."""

    def __init__(self, ask: Callable[..., Any]) -> None:
        self._ask = ask

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = _Features.apply(images, self._ask)  # type: ignore[no-untyped-call]
        return found


class _Features(torch.autograd.Function):
    """Features of images, and the gradient by the images, as the run computes them."""

    @staticmethod
    def forward(ctx: Any, images: torch.Tensor, ask: Callable[..., Any]) -> torch.Tensor:
        ctx.save_for_backward(images)
        ctx.ask = ask
        found: torch.Tensor = ask("features", images.detach(), images.requires_grad)
        return found

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        (images,) = ctx.saved_tensors
        return ctx.ask("pull", images.detach(), gradients[0].contiguous()), None
