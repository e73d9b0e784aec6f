"""The network that looks at images: it stays in the run, and an attack elsewhere asks it for features and for gradients."""

from __future__ import annotations

import torch

from fedbench.federation.images import ItemImages
from fedbench.isolation.wire import Broken

MOST = 256
"""Images that one question may show as floats: what they take in the network is memory of the run, not of the attack."""


class Looking:
    """The end of the run: answers what one call of an attack asks.

    Args:
        images: those that the attack is shown.
    """

    def __init__(self, images: ItemImages) -> None:
        self._images = images
        self._last: tuple[torch.Tensor, torch.Tensor] | None = None

    def features(self, pixels: torch.Tensor, more: bool) -> torch.Tensor:
        """Features float32 [k, F] of images, uint8 or float32 [k, 3, H, W]; ``more``: their gradients are next."""
        leaf = self.checked(pixels, torch.uint8, torch.float32)
        if not more or leaf.dtype == torch.uint8:
            with torch.no_grad():
                return self._images.extract(leaf)
        with torch.enable_grad():
            leaf = leaf.detach().clone().requires_grad_(True)
            self._last = leaf, self._images.extract(leaf)
        return self._last[1].detach()

    def pull(self, pixels: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        """Gradient by images, float32 [k, 3, H, W], of a loss with ``gradient``, float32 [k, F], by their features."""
        leaf = self.checked(pixels, torch.float32)
        if self._last is None or not torch.equal(self._last[0], leaf):
            self.features(pixels, True)
        assert self._last is not None
        leaf, found = self._last
        if gradient.dtype != found.dtype or gradient.shape != found.shape:
            raise Broken("it asked for gradients of other features")
        (made,) = torch.autograd.grad(found, leaf, gradient.to(found.device), retain_graph=True)
        return made

    def checked(self, pixels: torch.Tensor, *kinds: torch.dtype) -> torch.Tensor:
        """The images, of one of ``kinds`` and the catalogue's size and no more than allowed, on the device of the run."""
        catalogue = self._images.pixels
        if pixels.dtype not in kinds or pixels.dim() != 4 or pixels.shape[1:] != catalogue.shape[1:]:
            raise Broken(f"it showed {pixels.dtype} {list(pixels.shape)}, which are no images of the catalogue's size")
        if len(pixels) > (MOST if pixels.is_floating_point() else len(catalogue)):
            raise Broken(
                f"it showed {len(pixels):,} images at once; as floats {MOST} are allowed, else as many as items"
            )
        return pixels.to(catalogue.device)
