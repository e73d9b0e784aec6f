"""Checks of images: those that an attack shows, and those that a purifier makes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from pydantic import Field

from fedbench.entries.cards import AttackCard, Channel, Goal, Parameters
from fedbench.federation.attack import Attack
from fedbench.federation.defense import Defense
from fedbench.federation.images import ItemImages, ReplacedImages
from fedbench.federation.view import AttackerView
from fedbench.models import MODELS
from fedbench.testing.finding import Finding, Stop, Trials, fixed_global_state

SIDE, BATCH = 64, 8
"""Of the images by which a purifier is timed, and how many."""
CATALOGUE, MINUTES = 3_256, 30
"""Posters of ML-1M, and in what time they must be purified."""


class Painter(Attack):
    """Shows noise of +-8 on all targets: enough to see what a purifier makes of replaced images."""

    card = AttackCard("painter", "Noise on the targets' images", "none", Goal.PROMOTE, Channel.IMAGE)

    class Params(Parameters):
        """Parameters."""

        eps: int = Field(8, description="largest change of a pixel")

    def __init__(self) -> None:
        super().__init__(self.Params())

    def perturb(self, images: ItemImages, view: AttackerView) -> ReplacedImages:
        original, draws = images.pixels[view.targets.to(images.pixels.device)], view.generator
        noise = torch.randint(-8, 9, original.shape, generator=draws, device=draws.device).to(original.device)
        return ReplacedImages(view.targets, (original + noise).clamp(0, 255).to(torch.uint8))


def seeing(models: list[str], needed: bool) -> list[str]:
    """Those of the models that look at images, when that is ``needed`` and there are any; else all."""
    return [name for name in models if needed and MODELS.get(name).reads_features] or models


def check_images(made: object, images: ItemImages, view: AttackerView, eps: float) -> None:
    """Raise :class:`Stop` unless replaced images are 8-bit ones of the right size, of targets, within ``eps``."""
    if made is None:
        return
    if not isinstance(made, ReplacedImages):
        raise Stop("shapes", f"perturb() returned {type(made).__name__} instead of ReplacedImages or None")
    size = (len(made.items), *images.pixels.shape[1:])
    for name, tensor, dtype, shape in (
        ("items", made.items, torch.int64, size[:1]),
        ("pixels", made.pixels, torch.uint8, size),
    ):
        if tensor.dtype != dtype or tuple(tensor.shape) != shape:
            raise Stop("shapes", f"{name} is {tensor.dtype} {list(tensor.shape)} instead of {dtype} {list(shape)}")
    if not bool(torch.isin(made.items, view.targets).all()):
        raise Stop("shapes", "images of items that are no targets")
    change = (made.pixels.short() - images.pixels[made.items].short()).abs()
    if len(made.items) and int(change.max()) > eps:
        raise Stop("within eps", f"a pixel changed by {int(change.max())}, more than eps = {eps:g}")


def check_purified(made: object, pixels: torch.Tensor) -> None:
    """Raise :class:`Stop` unless purified images are of the kind of ``pixels``."""
    if not isinstance(made, torch.Tensor):
        raise Stop("shapes", f"purify() returned {type(made).__name__} instead of a tensor")
    if made.dtype != pixels.dtype or made.shape != pixels.shape or made.device != pixels.device:
        raise Stop(
            "shapes",
            f"purify() returned {made.dtype} {list(made.shape)} on {made.device} instead of"
            f" {pixels.dtype} {list(pixels.shape)} on {pixels.device}",
        )


def shown(trials: Trials, count: int) -> Iterator[Finding]:
    """Whether an image attack showed ``count`` images, and kept them within its eps."""
    yield trials.kept(
        "within eps",
        "8-bit images of targets, no further from the original than eps",
        "Round to whole numbers, then clamp to original +- eps and to 0..255; eps is a field of Params.",
    )
    if trials.broken:
        return
    if count:
        yield Finding("images", "ok", f"{count} shown")
    else:
        todo = "Override perturb() and return ReplacedImages(items, pixels) of targets."
        yield Finding("images", "failed", "perturb() never showed an image", todo)


@dataclass(frozen=True)
class Purifying:
    """The checks of a purifier by itself.

    Args:
        cls: the defense's class. trials: those made of it so far.
    """

    cls: type[Defense]
    trials: Trials

    def findings(self) -> Iterator[Finding]:
        """Sizes, plain images, the batch, repetition, cost."""
        for name in ("images of any size", "plain images", "batch", "purification time"):
            if self.trials.broken:
                yield Finding(name, "skipped", "not every run came to an end")
                continue
            with self.trials.trial(name) as trial:
                found = getattr(self, f"_{name.replace(' ', '_')}")()
            yield found if not trial.error and trial.stop is None else self.trials.ran(trial, "Correct the error.")

    def _purified(self, pixels: torch.Tensor, seen: torch.Tensor | None = None, seed: int = 0) -> torch.Tensor:
        """What a fresh instance that has seen a catalogue makes of images."""
        defense = self.cls(self.cls.Params())
        defense.see_images(pixels if seen is None else seen)
        with fixed_global_state():
            return defense.purify(pixels, torch.Generator().manual_seed(seed))

    def _images_of_any_size(self) -> Finding:
        sizes = ((1, 3, 1, 1), (2, 3, 5, 9), (3, 3, 32, 32))
        for size in sizes:
            pixels = _noise(size)
            try:
                check_purified(self._purified(pixels), pixels)
            except Stop as stop:
                return Finding(
                    "images of any size", "failed", stop.what, "Return uint8 images of the size that came in."
                )
        return Finding("images of any size", "ok", ", ".join(f"{size[3]} x {size[2]}" for size in sizes) + " pixels")

    def _plain_images(self) -> Finding:
        shades = torch.tensor([0, 128, 255], dtype=torch.uint8)
        plain = shades[:, None, None, None].expand(3, 3, 16, 16)
        black, grey, white = self._purified(plain, torch.cat([plain, _noise((13, 3, 16, 16))])).float().mean((1, 2, 3))
        text = f"black, grey and white have a mean of {black:.0f}, {grey:.0f} and {white:.0f} after it"
        if black < grey < white:
            return Finding("plain images", "ok", text)
        return Finding(
            "plain images", "failed", text, "A darker image must stay the darker one; mind overflow of uint8."
        )

    def _batch(self) -> Finding:
        pixels = _noise((20, 3, 16, 16))
        together, alone = self._purified(pixels), self._purified(pixels[3:4], seen=pixels)
        if torch.equal(together[3:4], alone):
            return Finding("batch", "ok", "an image becomes the same alone and among others")
        todo = (
            "Draw noise for each image from one drawn number and its content, and compute nothing across images:"
            " what is kept of a purified catalogue and what is purified anew then agree."
        )
        return Finding(
            "batch", "warning", "an image becomes another one alone than among others, with equal draws", todo
        )

    def _purification_time(self) -> Finding:
        pixels = _noise((BATCH, 3, SIDE, SIDE))
        self._purified(pixels[:1])
        begin = time.perf_counter()
        self._purified(pixels)
        each = (time.perf_counter() - begin) / BATCH
        whole = each * CATALOGUE / 60
        text = f"{each * 1e3:.1f} ms an image of {SIDE} x {SIDE} pixels, {whole:.1f} min for {CATALOGUE:,}"
        if whole <= MINUTES:
            return Finding("purification time", "ok", text)
        todo = "Work on all images of a batch at once, with fewer steps."
        return Finding("purification time", "failed", f"{text}; at most {MINUTES} min", todo)


def _noise(size: tuple[int, ...]) -> torch.Tensor:
    return torch.randint(0, 256, size, generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
