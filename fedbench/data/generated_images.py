"""Images of the embedded datasets: small covers, drawn from the seed, whose look follows the items' latent taste.

The genre of an item (:mod:`fedbench.data.longtail`) decides the two colours of its cover and the pattern on it:
stripes, a grid, rings, diamonds and more, 8 patterns and as many hues as there are genres. Every item differs in hue by
a little, in phase, width and strength of the pattern, in the emblem (a disc, square, diamond or ring in a colour of its
own, anywhere on the cover), in the lines of "text" below it, and by noise. Popular items are slightly lighter. So a
network that looks at colour and texture learns what an item is liked with, but not which item it is.

About 3 % of the items have no image, whatever their popularity, so that models meet items without.

All arithmetic is in integers: equal pixels on every machine.
"""

from __future__ import annotations

import functools

import numpy as np
import numpy.typing as npt

from fedbench.data.longtail import SEED, Shape, item_traits
from fedbench.data.records import Bools, Int64, Pictures, UInt8
from fedbench.data.streams import stream

SIDE = 32
"""Pixels."""

_MISSING = 30
"""Items of 1,000 that have no image."""

_BLOCK = 128
"""Items that are drawn together; part of the recipe, for the noise has a stream for each block."""

Int32 = npt.NDArray[np.int32]


@functools.lru_cache(maxsize=2)
def generated_pictures(shape: Shape) -> Pictures:
    """The images of an embedded dataset: uint8 [num_items, 3, 32, 32], made once in a process and read-only."""
    rank, genre = item_traits(shape)
    rng = stream(SEED, shape.name, "images")
    there: Bools = rng.integers(0, 1000, shape.num_items) >= _MISSING
    traits = rng.integers(0, 1 << 16, (shape.num_items, 16))
    pixels = np.zeros((shape.num_items, 3, SIDE, SIDE), dtype=np.uint8)
    for start in range(0, shape.num_items, _BLOCK):
        block = slice(start, start + _BLOCK)
        light = 12 - 24 * rank[block] // shape.num_items
        noise = stream(SEED, shape.name, "image noise", start).integers(
            0, 16, (len(light), 3, SIDE, SIDE), dtype=np.uint8
        )
        drawn = _draw(genre[block], shape.num_genres, traits[block], light, noise)
        pixels[block] = drawn * there[block, None, None, None]
    pixels.flags.writeable = there.flags.writeable = False
    return Pictures(pixels, there)


def _draw(genre: Int64, num_genres: int, traits: Int64, light: Int64, noise: UInt8) -> UInt8:
    """The covers of n items: uint8 [n, 3, 32, 32].

    genre, light: int [n]; traits: int [n, 16], each uniform below 2^16; noise: uint8 [n, 3, 32, 32] below 16.
    """
    hue = (1536 * genre // num_genres + _below(traits[:, 0], 1536 // num_genres)) % 1536
    ground = _colour(hue, saturation=150 + _below(traits[:, 1], 60), value=170 + light)
    figure = _colour((hue + 560 + 96 * (genre % 3)) % 1536, saturation=130, value=225 + light)
    emblem = _colour(_below(traits[:, 2], 1536), saturation=90 + _below(traits[:, 3], 120), value=235 + light)

    rows = np.arange(SIDE, dtype=np.int32)
    shade = (40 - 2 * rows)[None, :, None]
    wave = _pattern(genre % 8, 7 + _below(traits[:, 4], 4), _below(traits[:, 5], SIDE))
    strength = (60 + _below(traits[:, 6], 90)).astype(np.int32)[:, None, None]
    weight = wave * strength // 256
    image = _mixed(np.broadcast_to(ground[:, :, None, None], noise.shape), figure, weight)
    image = image + shade[:, None]
    image = _mixed(image, emblem, 230 * _emblem(traits).astype(np.int32))
    image = _mixed(image, np.full_like(figure, 245), 200 * _lines(traits).astype(np.int32))
    return np.clip(image + noise - 8, 0, 255).astype(np.uint8)


def _below(draws: Int64, bound: int) -> Int64:
    """Draws below 2^16 to integers below ``bound``."""
    return draws * bound >> 16


def _mixed(image: Int32, colour: Int32, weight: Int32) -> Int32:
    """``colour`` [n, 3] over ``image`` [n, 3, H, W] where ``weight`` [n, H, W] is 256, nothing of it where it is 0."""
    mixed: Int32 = image + ((colour[:, :, None, None] - image) * weight[:, None] >> 8)
    return mixed


def _colour(hue: Int64, saturation: Int64 | int, value: Int64) -> Int32:
    """RGB, int32 [n, 3], of hue (0 .. 1535, six stretches of 256), saturation and value (0 .. 255)."""
    steps = np.stack([np.abs((hue + shift) % 1536 - 768) - 256 for shift in (0, 1024, 512)], axis=1)
    full = np.clip(steps, 0, 256)
    kept = 256 - np.broadcast_to(np.asarray(saturation), hue.shape)[:, None] * (256 - full) // 256
    return (value[:, None] * kept // 256).astype(np.int32)


def _pattern(kind: Int64, period: Int64, phase: Int64) -> Int32:
    """A soft wave over the cover, int32 [n, 32, 32] from 0 to 256, by kind of pattern 0 .. 7."""
    y, x = np.mgrid[0:SIDE, 0:SIDE].astype(np.int32) * 2
    u, v = np.abs(x - SIDE + 1), np.abs(y - SIDE + 1)
    ways = np.stack(
        [x, y, x + y, SIDE * 2 + x - y, (u * u + v * v) // (SIDE + 4), u + v, np.maximum(u, v), SIDE * 2 + 2 * x - y]
    )
    double = 2 * period.astype(np.int32)[:, None, None]
    place = (ways[kind] + phase.astype(np.int32)[:, None, None]) % double
    wave: Int32 = np.clip(512 * np.abs(2 * place - double) // double - 128, 0, 256)
    return wave


def _emblem(traits: Int64) -> Bools:
    """Where the emblem of each item is: bool [n, 32, 32]."""
    y, x = np.mgrid[0:SIDE, 0:SIDE].astype(np.int32)
    centre_x, centre_y = 8 + _below(traits[:, 7], 16), 7 + _below(traits[:, 8], 11)
    radius = (3 + _below(traits[:, 9], 4))[:, None, None]
    u = np.abs(x - centre_x[:, None, None])
    v = np.abs(y - centre_y[:, None, None])
    round_ = u * u + v * v
    shapes = [
        round_ <= radius * radius + radius - 1,
        np.maximum(u, v) <= radius - 1,
        u + v <= radius,
        (round_ <= radius * radius + radius - 1) & (round_ > (radius - 2) ** 2),
    ]
    there: Bools = np.choose(_below(traits[:, 10], len(shapes))[:, None, None], shapes)
    return there


def _lines(traits: Int64) -> Bools:
    """Two lines near the lower edge, as long as the titles of the items would be: bool [n, 32, 32]."""
    y, x = np.mgrid[0:SIDE, 0:SIDE]
    there = np.zeros((len(traits), SIDE, SIDE), dtype=bool)
    for row, draws in ((25, traits[:, 11]), (28, traits[:, 12])):
        half = (3 + _below(draws, 10))[:, None, None]
        there |= (y == row) & (np.abs(2 * x - SIDE + 1) < 2 * half)
    return there
