"""The server's images: what is uploaded, what the defense makes of it, and the features that everybody reads."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from fedbench.federation.defense import Defense
from fedbench.federation.images import ItemImages, ReplacedImages
from fedbench.randomness import generator


@dataclass(frozen=True)
class Upload:
    """Images that an attacker uploaded before an epoch, and what became of them.

    Attributes:
        epoch: before which. items: int64 [k]. pixels: uint8 [k, 3, H, W], as uploaded.
        purified: uint8 [k, 3, H, W], as the defense leaves them. features: float32 [k, F], of the uploaded ones.
        similarity: float32 [k], ``cos(phi(x), phi(purify(x)))``.
        flagged: bool [k], which of them the defense takes for adversarial; None: it does not look.
    """

    epoch: int
    items: torch.Tensor
    pixels: torch.Tensor
    purified: torch.Tensor
    features: torch.Tensor
    similarity: torch.Tensor
    flagged: torch.Tensor | None


class Gallery:
    """The images in force. Making one purifies all of them, with draws that are the same in every run.

    Clients, and attackers among them, receive features of purified images: who compares those with features of the
    original images can see that something purifies.

    Args:
        images: the original ones. defense: a fresh one. device: where features live.

    Attributes:
        features: float32 [M, F], of the images in force. with_image: int64 [n], the items that have one.
        purifies: whether the defense does anything to images.
        purified: uint8 [n, 3, H, W], the original images as the defense leaves them, of ``with_image``.
        similarity: float32 [n], ``cos(phi(x), phi(purify(x)))`` of the original images, of ``with_image``.
        held_out: float32 [n // 2], those of every other image, which the defense sets no threshold by.
        held_out_flags: bool [n // 2], which of them it flags all the same; None: it does not look.
        uploads: what attackers have uploaded since.
    """

    def __init__(self, images: ItemImages, defense: Defense, device: torch.device) -> None:
        self.images, self._defense, self._device = images, defense, device
        there = images.there
        count = len(images.pixels)
        self.with_image = torch.arange(count) if there is None else there.cpu().nonzero().squeeze(1)
        pixels = images.pixels if len(self.with_image) == count else images.pixels[self.with_image]
        defense.see_images(pixels)
        self.purified = defense.purify(pixels, generator(0, "images"))
        self.purifies = self.purified is not pixels
        features, _, self.similarity = self._features(pixels, self.purified)
        defense.flags(self.similarity[::2], known_clean=True)
        self.held_out = self.similarity[1::2]
        self.held_out_flags = defense.flags(self.held_out, known_clean=False)
        self._original = self._filled(features)
        self.features = self._original
        self.uploads: list[Upload] = []

    def receive(self, replaced: ReplacedImages, epoch: int, draws: torch.Generator) -> None:
        """Images that are shown from ``epoch`` on. ``draws``: the purifier's, for these images alone."""
        pixels = replaced.pixels.to(self.images.pixels.device)
        purified = self._defense.purify(pixels, draws)
        shown, uploaded, similarity = self._features(pixels, purified)
        flagged = self._defense.flags(similarity, known_clean=False)
        items = replaced.items.to(self._device)
        if flagged is not None and self._defense.on_flag != "use-purified":
            instead = self._original[items] if self._defense.on_flag == "keep-original" else torch.zeros_like(shown)
            shown = torch.where(flagged[:, None], instead, shown)
        self.features = self.features.index_copy(0, items, shown)
        self.uploads.append(Upload(epoch, items, pixels, purified, uploaded, similarity, flagged))

    def original_features(self, items: torch.Tensor) -> torch.Tensor:
        """float32 [k, F]: of the original images of ``items`` as they were uploaded, before the defense."""
        return self.images.extract(self.images.pixels[items.to(self.images.pixels.device)]).to(self._device)

    def _features(
        self, pixels: torch.Tensor, purified: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Features of the purified images and of the uploaded ones, and the cosine between them."""
        shown = self.images.extract(purified).to(self._device)
        if purified is pixels:
            return shown, shown, shown.new_ones(len(shown))
        uploaded = self.images.extract(pixels).to(self._device)
        return shown, uploaded, torch.cosine_similarity(shown, uploaded, dim=1)

    def _filled(self, features: torch.Tensor) -> torch.Tensor:
        """float32 [M, F]: ``features`` of the items that have an image, the others' as ``images.missing`` says."""
        count = len(self.images.pixels)
        if len(features) == count:
            return features
        fill = features.mean(0) if self.images.missing == "mean" else features.new_zeros(features.shape[1])
        return fill.repeat(count, 1).index_copy(0, self.with_image.to(self._device), features)
