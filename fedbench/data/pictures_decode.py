"""From the bytes of one image file to pixels, trusting nothing: any problem is one short phrase."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fedbench.data.records import UInt8
from fedbench.errors import missing_extra

if TYPE_CHECKING:
    from PIL import Image

DEFAULT_SIDE = 128
"""Pixels of the square that images are stored as."""

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp")
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")

SMALLEST = 8
"""Fewest pixels of a side. Shops answer with an image of one pixel where they have none."""

MOST_PIXELS = 100_000_000
"""Pixels that an image may have, before it is scaled down."""

_FAILURES = (
    OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, EOFError, OverflowError, MemoryError,
    NotImplementedError, RuntimeError, struct.error, zlib.error,
)  # fmt: skip
"""What decoders raise at damaged files."""


class BadImage(Exception):
    """Raised when bytes are no image that can be used; says why, as half a sentence."""


@dataclass(frozen=True)
class Decoded:
    """One image as it is stored."""

    pixels: UInt8
    """uint8 [3, side, side], RGB."""
    width: int
    """Of the original, as it is shown (after its EXIF rotation)."""
    height: int
    animated: bool
    """Whether the file holds several frames, of which the first was taken."""


def decode(data: bytes, side: int = DEFAULT_SIDE) -> Decoded:
    """Decode an image and scale it to a square.

    Its EXIF rotation is applied; transparent pixels show white; CMYK, palette and grey become RGB (16 bits: the upper
    8); of an animation the first frame is taken. Scaled by Pillow's bilinear filter, which averages over all pixels
    when it scales down; the aspect ratio is given up, as networks that look at a square do it.

    Raises:
        BadImage: empty, no JPEG, PNG, WebP, GIF or BMP, damaged or cut off, a side under 8 px, over 100 megapixels.
        UserError: Pillow is not installed.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise missing_extra("vision", "Reading image files") from error
    if not data:
        raise BadImage("the file is empty")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Pillow: at large sizes (checked here) and odd metadata
        try:
            image: Image.Image = Image.open(io.BytesIO(data), formats=FORMATS)
        except Image.DecompressionBombError as error:
            raise BadImage(f"it has more than {MOST_PIXELS // 10**6} megapixels") from error
        except _FAILURES as error:
            raise BadImage("it is no JPEG, PNG, WebP, GIF or BMP image") from error
        width, height = image.size
        if width * height > MOST_PIXELS:
            raise BadImage(f"{width} x {height} px, more than {MOST_PIXELS // 10**6} megapixels")
        if min(width, height) < SMALLEST:
            raise BadImage(f"{width} x {height} px, a side is under {SMALLEST} px")
        try:
            animated = image.format != "MPO" and getattr(image, "n_frames", 1) > 1
            image.seek(0)
            image.load()
            image = _upright(image)
            width, height = image.size
            scaled = _rgb(image).resize((side, side), Image.Resampling.BILINEAR)
        except _FAILURES as error:
            raise BadImage(f"it is cut off or damaged ({_reason(error)})") from error
    pixels = np.ascontiguousarray(np.asarray(scaled, dtype=np.uint8).transpose(2, 0, 1))
    return Decoded(pixels, width, height, animated)


def _upright(image: Image.Image) -> Image.Image:
    """The image as its EXIF orientation says it is to be shown."""
    from PIL import Image

    how = Image.Transpose
    turns: dict[Any, Image.Transpose] = {
        2: how.FLIP_LEFT_RIGHT,
        3: how.ROTATE_180,
        4: how.FLIP_TOP_BOTTOM,
        5: how.TRANSPOSE,
        6: how.ROTATE_270,
        7: how.TRANSVERSE,
        8: how.ROTATE_90,
    }
    turn = turns.get(image.getexif().get(0x0112))
    return image if turn is None else image.transpose(turn)


def _rgb(image: Image.Image) -> Image.Image:
    """The image in RGB, over white where it is transparent."""
    from PIL import Image

    if image.mode == "I" or image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        seen = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", seen.size, "white"), seen).convert("RGB")
    return image.convert("RGB")


def _reason(error: BaseException) -> str:
    """The first line of a message, short."""
    lines = str(error).splitlines()
    return lines[0][:100] if lines and lines[0] else type(error).__name__
