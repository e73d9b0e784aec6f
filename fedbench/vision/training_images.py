"""The pictures that a denoiser is trained on: a folder's, and generated ones, cut and mixed anew at every step."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from fedbench.errors import DataError, missing_extra
from fedbench.vision.scenes import scene, toned

if TYPE_CHECKING:
    from PIL.Image import Image

Progress = Callable[[int, int], None]
"""Called with the number of files that are read, and of all."""

_ENDINGS = {".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp"}


@dataclass(frozen=True)
class Folder:
    """The images of a folder, in the order of their names.

    Attributes:
        images: uint8 [h, w, 4] each: red, green, blue, opacity.
        skipped: files that are no image, or a damaged one.
        fingerprint: SHA-256 of the names and contents of the files that were read, in order.
    """

    images: list[np.ndarray]
    skipped: list[str]
    fingerprint: str


def read_folder(folder: Path, size: int, progress: Progress | None = None) -> Folder:
    """All images below a folder, reduced so that crops of ``size`` pixels have something to choose from.

    The short side becomes at most ``2 size``, the long one at most ``4 size``. Links are not followed twice.

    Raises:
        DataError: there is no such folder, or no image in it.
    """
    try:
        from PIL import Image
    except ImportError:
        raise missing_extra("vision", "reading images") from None
    if not folder.is_dir():
        raise DataError(f"{str(folder)!r} is not a folder.")
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _ENDINGS and path.is_file())
    digest = hashlib.sha256()
    images, skipped = [], []
    for done, path in enumerate(paths, 1):
        name = path.relative_to(folder).as_posix()
        try:
            content = path.read_bytes()
            with warnings.catch_warnings():
                warnings.simplefilter("error", Image.DecompressionBombWarning)
                with Image.open(path) as opened:
                    images.append(_reduced(opened, size))
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning):
            skipped.append(name)
        else:
            digest.update(name.encode() + b"\0" + hashlib.sha256(content).digest())
        if progress is not None:
            progress(done, len(paths))
    if not images:
        raise DataError(f"there is no image in {str(folder)!r}.")
    return Folder(images, skipped, digest.hexdigest())


def _reduced(opened: Image, size: int) -> np.ndarray:
    from PIL import Image

    opened.draft("RGB", (2 * size, 2 * size))
    image = opened.convert("RGBA")
    width, height = image.size
    factor = min(1.0, 2 * size / min(width, height), 4 * size / max(width, height))
    if factor < 1:
        target = (max(1, round(width * factor)), max(1, round(height * factor)))
        image = image.resize(target, Image.Resampling.BOX, reducing_gap=None)
    return np.asarray(image)


@dataclass(frozen=True)
class Pool:
    """Batches of training pictures; that of a step depends on seed and step alone, so a stopped training can go on.

    Attributes:
        images: of a folder, as in :class:`Folder`; may be empty, then all are generated.
        size: pixels, of height and width. synthetic_share: of pictures that are generated from nothing.
    """

    images: list[np.ndarray]
    size: int
    synthetic_share: float
    seed: int

    def batch(self, step: int, count: int) -> torch.Tensor:
        """The pictures of a step: float32 [count, 3, size, size] in [-1, 1]."""
        pictures = [self.picture(np.random.default_rng([self.seed, step, place])) for place in range(count)]
        pixels = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)
        return (pixels.float() / 127.5 - 1).contiguous()

    def picture(self, random: np.random.Generator) -> np.ndarray:
        """One picture, uint8 [size, size, 3].

        Generated; or cut from an image of the folder; or, for images with transparent parts, one to four of them on
        a generated or plain ground.
        """
        if not self.images or random.random() < self.synthetic_share:
            return toned(random, scene(random, self.size))
        image = self.images[random.integers(len(self.images))]
        if image[..., 3].min() == 255:
            return toned(random, self._cut(random, image))
        if random.random() < 0.7:
            ground = scene(random, self.size)
        else:
            ground = np.full((self.size, self.size, 3), random.integers(0, 256, 3), np.uint8)
        return toned(random, self._pasted(random, ground, image))

    def _cut(self, random: np.random.Generator, image: np.ndarray) -> np.ndarray:
        """A square part of an opaque image, from all of its short side to ``size`` pixels, at ``size`` pixels."""
        from PIL import Image

        height, width = image.shape[:2]
        short = min(height, width)
        side = short if short <= self.size else int(random.integers(self.size, short + 1))
        top, left = (int(random.integers(0, span - side + 1)) for span in (height, width))
        part = Image.fromarray(image[top : top + side, left : left + side, :3])
        return np.asarray(part.resize((self.size, self.size), Image.Resampling.BILINEAR))

    def _pasted(self, random: np.random.Generator, ground: np.ndarray, first: np.ndarray) -> np.ndarray:
        """A ground with ``first`` and up to three other images on it, at any place and of many sizes."""
        from PIL import Image

        canvas = Image.fromarray(ground)
        more = int(random.integers(0, 4)) if random.random() < 0.6 else 0
        others = random.integers(len(self.images), size=more)
        for image in [first, *(self.images[place] for place in others)]:
            height, width = image.shape[:2]
            factor = self.size * random.uniform(0.3, 1.6) / max(height, width)
            target = (max(2, round(width * factor)), max(2, round(height * factor)))
            pasted = Image.fromarray(image).resize(target, Image.Resampling.BILINEAR)
            corner = [int(random.uniform(-0.3, 1) * self.size * 0.7) for _ in range(2)]
            canvas.paste(pasted, (corner[0], corner[1]), pasted)
        return np.asarray(canvas)
