"""Images of items: generated, decoded, imported, stored; and what is refused."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from fedbench.data.generated_images import generated_pictures
from fedbench.data.images import has_pictures, load_pictures
from fedbench.data.load import load_split
from fedbench.data.longtail import SHAPES, item_traits
from fedbench.data.records import Pictures

SMALL = SHAPES["longtail-small"]


# ------------------------------------------------------------------------------------------------ generated


def test_generated_images_are_the_same_everywhere() -> None:
    pictures = generated_pictures(SMALL)
    assert pictures.pixels.shape == (400, 3, 32, 32)
    assert pictures.fingerprint == FINGERPRINT
    assert 5 <= (~pictures.there).sum() <= 25
    assert not pictures.pixels[~pictures.there].any()
    assert has_pictures("longtail")
    assert load_pictures("longtail", "4:1") is pictures
    assert len(pictures.pixels) == load_split("longtail", "4:1").num_items
    with pytest.raises(ValueError, match="read-only"):
        pictures.pixels[0] = 0


FINGERPRINT = "0f10013fe576b151d3496ae74846049b1b391b792b1621d0cd8e139a05f61fe9"


def test_generated_images_show_the_genre_and_differ_by_item() -> None:
    """Nearest mean colour, of means over the other half of the items, finds most genres: plain loop."""
    pictures = generated_pictures(SMALL)
    _, genre = item_traits(SMALL)
    colour = pictures.pixels.reshape(400, 3, -1).mean(axis=2)
    known = [j for j in range(200) if pictures.there[j]]
    means = np.stack([np.mean([colour[j] for j in known if genre[j] == g], axis=0) for g in range(SMALL.num_genres)])
    asked = [j for j in range(200, 400) if pictures.there[j]]
    right = [int(np.argmin(((means - colour[j]) ** 2).sum(axis=1))) == genre[j] for j in asked]
    assert np.mean(right) > 0.6
    assert len({image.tobytes() for image in pictures.pixels[pictures.there]}) == pictures.there.sum()
    flat = pictures.pixels[pictures.there].reshape(-1, 3 * 32 * 32).astype(float)
    assert min(np.abs(flat[0] - other).mean() for other in flat[1:]) > 5


def test_fingerprint_by_hand() -> None:
    pixels = np.zeros((2, 3, 1, 2), dtype=np.uint8)
    pixels[1] = 7
    one = hashlib.sha256(bytes([7] * 6)).hexdigest()
    expected = hashlib.sha256(f"1 2\n\n{one}".encode()).hexdigest()
    assert Pictures(pixels, np.array([False, True])).fingerprint == expected
    assert Pictures(pixels, np.array([True, True])).fingerprint != expected
    with pytest.raises(ValueError, match="uint8"):
        Pictures(pixels.astype(float), np.array([False, True]))
    with pytest.raises(ValueError, match="bool"):
        Pictures(pixels, np.array([False]))
