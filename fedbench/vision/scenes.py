"""Generated pictures to train a denoiser on: gradients, dead leaves, strokes like text, textures, in all tones.

"Dead leaves" (shapes with sizes by a power law that cover each other) have the edges and the spectrum of photographs, and
denoisers trained on them alone come close to those trained on photographs (Achddou, Gousseau, Ladjal 2021, "Synthetic
images as a regularity prior for image restoration neural networks"; Baradad et al. 2021, "Learning to see by looking at
noise").
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw


def scene(random: np.random.Generator, size: int) -> np.ndarray:
    """One picture, uint8 [size, size, 3]: a background, leaves on it, perhaps strokes, a texture, a tone.

    Drawn at twice the size and reduced, so that edges are smooth. Equal states of ``random`` give equal pictures.
    """
    from PIL import Image, ImageDraw

    side = 2 * size
    palette = _palette(random)
    canvas = Image.fromarray(_background(random, side, palette))
    draw = ImageDraw.Draw(canvas)
    kind = random.random()
    if kind < 0.6:
        _leaves(random, draw, side, palette, int(random.integers(10, 120)))
    elif kind < 0.85:
        _leaves(random, draw, side, palette, int(random.integers(2, 12)))
    if random.random() < 0.4:
        for _ in range(int(random.integers(1, 4))):
            _text(random, draw, side, palette)
    pixels = _reduced(canvas, size)
    if random.random() < 0.5:
        pixels = _textured(random, pixels)
    return pixels


def toned(random: np.random.Generator, pixels: np.ndarray) -> np.ndarray:
    """The picture, uint8 [H, W, 3], in another brightness, contrast, gamma and saturation; sometimes grey or turned over."""
    x = pixels.astype(np.float32) / 255
    if random.random() < 0.5:
        x = x[:, ::-1]
    grey = x @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
    keep = 0.0 if random.random() < 0.08 else random.uniform(0.4, 1.3)
    x = grey[..., None] + keep * (x - grey[..., None])
    x = np.clip(x, 0, 1) ** math.exp(random.normal(0, 0.35))
    contrast = random.uniform(0.5, 1.15)
    x = 0.5 + contrast * (x - 0.5) + random.uniform(-1, 1) * max(0.05, (1 - contrast) / 2)
    return np.ascontiguousarray((np.clip(x, 0, 1) * 255 + 0.5).astype(np.uint8))


def _palette(random: np.random.Generator) -> np.ndarray:
    """Colours [n, 3] in 0..255: anything, or near one hue, or near grey."""
    n = int(random.integers(3, 12))
    colours = random.uniform(0, 255, (n, 3))
    kind = random.random()
    if kind < 0.35:
        base = random.uniform(0, 255, 3)
        colours = base * random.uniform(0, 1.4, (n, 1)) + random.normal(0, 25, (n, 3))
    elif kind < 0.5:
        colours = random.uniform(0, 255, (n, 1)) + random.normal(0, 12, (n, 3))
    if random.random() < 0.4:
        colours[0] = random.choice([0.0, 255.0])
    return np.clip(colours, 0, 255)


def _colour(random: np.random.Generator, palette: np.ndarray) -> tuple[int, int, int]:
    colour = np.clip(palette[random.integers(len(palette))] + random.normal(0, 10, 3), 0, 255)
    return int(colour[0]), int(colour[1]), int(colour[2])


def _background(random: np.random.Generator, side: int, palette: np.ndarray) -> np.ndarray:
    """A colour, a straight or a round gradient, or smooth noise; uint8 [side, side, 3]."""
    first, second = palette[random.integers(len(palette), size=2)]
    kind = random.random()
    y, x = np.mgrid[0:side, 0:side].astype(np.float32) / side
    if kind < 0.3:
        weight: np.ndarray = np.zeros((side, side), dtype=np.float32)
    elif kind < 0.6:
        angle = random.uniform(0, 2 * math.pi)
        weight = np.float32(math.cos(angle)) * x + np.float32(math.sin(angle)) * y
        weight = weight * np.float32(random.uniform(0.5, 2)) + np.float32(random.uniform(-0.5, 0.5))
    elif kind < 0.8:
        centre = random.uniform(0, 1, 2)
        weight = np.hypot(x - np.float32(centre[0]), y - np.float32(centre[1])) * np.float32(random.uniform(0.7, 3))
    else:
        weight = _noise(random, side, random.uniform(1.2, 2.5)) * 0.35 + 0.5
    weight = np.clip(weight, 0, 1)[..., None]
    return (first + weight * (second - first)).astype(np.uint8)


def _noise(random: np.random.Generator, side: int, slope: float) -> np.ndarray:
    """Noise [side, side] whose amplitude falls as frequency^-slope, with mean 0 and standard deviation 1."""
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None])
    frequency[0, 0] = 1
    spectrum = np.fft.rfft2(random.standard_normal((side, side))) * frequency**-slope
    spectrum[0, 0] = 0
    out = np.fft.irfft2(spectrum, s=(side, side))
    return (out / (out.std() + 1e-9)).astype(np.float32)


def _leaves(random: np.random.Generator, draw: ImageDraw, side: int, palette: np.ndarray, count: int) -> None:
    """Ellipses, boxes, polygons and lines; radii have density r^-3 between side/40 and side/2."""
    low, high = side / 40, side / 2
    u = random.random(count)
    radii = (low**-2 - u * (low**-2 - high**-2)) ** -0.5
    if random.random() < 0.3:  # large ones first, so that small ones lie on them
        radii = np.sort(radii)[::-1]
    radii = radii * random.uniform(1, 3)
    centres = random.uniform(-0.1, 1.1, (count, 2)) * side
    for (x, y), r in zip(centres, radii, strict=True):
        fill = _colour(random, palette)
        outline = _colour(random, palette) if random.random() < 0.15 else None
        kind = random.random()
        if kind < 0.35:
            stretch = random.uniform(0.5, 1)
            draw.ellipse((x - r, y - r * stretch, x + r, y + r * stretch), fill=fill, outline=outline)
        elif kind < 0.5:
            stretch = random.uniform(0.3, 1)
            draw.rectangle((x - r, y - r * stretch, x + r, y + r * stretch), fill=fill, outline=outline)
        elif kind < 0.9:
            corners = int(random.integers(3, 9))
            angles = np.sort(random.uniform(0, 2 * math.pi, corners))
            reach = r * random.uniform(0.5, 1.2, corners)
            points = [(x + a * math.cos(b), y + a * math.sin(b)) for a, b in zip(reach, angles, strict=True)]
            draw.polygon(points, fill=fill, outline=outline)
        else:
            angle = random.uniform(0, 2 * math.pi)
            end = (x + 3 * r * math.cos(angle), y + 3 * r * math.sin(angle))
            draw.line(((x, y), end), fill=fill, width=int(random.integers(1, 7)))


def _text(random: np.random.Generator, draw: ImageDraw, side: int, palette: np.ndarray) -> None:
    """Rows of strokes and arcs as letters have them, from small print to a title."""
    height = side * 10 ** random.uniform(-1.4, -0.6)
    fill = (
        _colour(random, palette) if random.random() < 0.5 else ((255, 255, 255) if random.random() < 0.5 else (0, 0, 0))
    )
    pen = max(1, round(height * random.uniform(0.08, 0.25)))
    left, top = random.uniform(0, 0.5) * side, random.uniform(0, 0.95) * side
    for row in range(int(random.integers(1, 5))):
        x, y = left, top + 1.4 * row * height
        for _ in range(int(random.integers(3, 16))):
            width = height * random.uniform(0.3, 0.8)
            if random.random() < 0.85:  # else a blank
                box = (x, y, x + width, y + height)
                for _ in range(int(random.integers(1, 4))):
                    kind = random.random()
                    if kind < 0.3:
                        where = x + width * random.choice([0.0, 0.5, 1.0])
                        draw.line((where, y, where, y + height), fill=fill, width=pen)
                    elif kind < 0.55:
                        where = y + height * random.choice([0.0, 0.5, 1.0])
                        draw.line((x, where, x + width, where), fill=fill, width=pen)
                    elif kind < 0.75:
                        draw.line((x, y, x + width, y + height), fill=fill, width=pen)
                    else:
                        start = random.uniform(0, 360)
                        draw.arc(box, start, start + random.uniform(120, 360), fill=fill, width=pen)
            x += width + pen + height * 0.15


def _textured(random: np.random.Generator, pixels: np.ndarray) -> np.ndarray:
    """The picture with noise or stripes laid over all of it or a part; uint8."""
    size = len(pixels)
    kind = random.random()
    if kind < 0.7:
        grain = _noise(random, size, random.uniform(0.3, 1.6))
    else:
        y, x = np.mgrid[0:size, 0:size]
        angle, period = random.uniform(0, math.pi), random.uniform(3, 16)
        grain = np.sin(2 * math.pi * (x * math.cos(angle) + y * math.sin(angle)) / period).astype(np.float32)
    if random.random() < 0.5:
        grain = grain * np.clip(_noise(random, size, 1.8) + 0.3, 0, 1)
    tint = random.uniform(0.3, 1, 3) * random.uniform(4, 35)
    return np.clip(pixels + grain[..., None] * tint, 0, 255).astype(np.uint8)


def _reduced(canvas: Image, size: int) -> np.ndarray:
    from PIL import Image

    return np.asarray(canvas.resize((size, size), Image.Resampling.BOX))
