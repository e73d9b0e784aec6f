"""Purifiers: hand-computed images, plain loops, and what holds of every one; flags."""

from __future__ import annotations

import io
import itertools
import math
import statistics

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedbench.defenses import DEFENSES
from fedbench.defenses.bit_depth import BitDepth
from fedbench.defenses.blur import Blur
from fedbench.defenses.jpeg import Jpeg
from fedbench.defenses.median_filter import MedianFilter
from fedbench.defenses.purifier import Purifier, PurifierParams, mirrored
from fedbench.entries.cards import parse_parameters
from fedbench.errors import UserError

CHEAP: list[Purifier] = [
    BitDepth(BitDepth.Params()),
    Blur(Blur.Params()),
    Jpeg(Jpeg.Params()),
    MedianFilter(MedianFilter.Params()),
    MedianFilter(MedianFilter.Params(size=5)),
]
EVERY = pytest.mark.parametrize("purifier", CHEAP, ids=lambda each: each.identity)


def draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(count: int, height: int = 9, width: int = 7, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, height, width), generator=draws(seed), dtype=torch.uint8)


def mirror(place: int, length: int) -> int:
    """Walks along a line and turns round at its ends."""
    at, step = 0, 1
    if length == 1:
        return at
    for _ in range(abs(place)):  # to the left of 0 is as to the right of it
        if not 0 <= at + step < length:
            step = -step
        at += step
    return at


@EVERY
def test_every_purifier_keeps_shape_inputs_and_the_batch_out_of_it(purifier: Purifier) -> None:
    images = noise(20)
    before = images.clone()
    made = purifier.purify(images, draws())
    assert made.dtype == torch.uint8
    assert made.shape == images.shape
    assert torch.equal(images, before)
    assert not torch.equal(made, images)
    assert torch.equal(made, purifier.purify(images, draws()))
    for place in (0, 7, 19):
        assert torch.equal(made[place : place + 1], purifier.purify(images[place : place + 1], draws()))
    assert torch.equal(made.flip(0), purifier.purify(images.flip(0), draws()))


@EVERY
@given(shade=st.tuples(*[st.integers(0, 255)] * 3), height=st.integers(1, 9), width=st.integers(1, 9))
def test_an_image_of_one_grey_stays_one(
    purifier: Purifier, shade: tuple[int, int, int], height: int, width: int
) -> None:
    image = torch.tensor(shade[:1] * 3, dtype=torch.uint8)[None, :, None, None].expand(1, 3, height, width)
    made = purifier.purify(image, draws())
    assert (made == made[:, :, :1, :1]).all()
    assert int((made.int() - image.int()).abs().max()) <= (4 if isinstance(purifier, BitDepth) else 1)


@given(length=st.integers(1, 6), margin=st.integers(0, 15))
def test_borders_are_reflected(length: int, margin: int) -> None:
    found = mirrored(length, margin, torch.device("cpu")).tolist()
    assert found == [mirror(place, length) for place in range(-margin, length + margin)]


def test_bit_depth_by_hand() -> None:
    one = BitDepth(BitDepth.Params(bits=1))
    image = torch.tensor([0, 127, 128, 255], dtype=torch.uint8).expand(1, 3, 1, 4)
    assert one.purify(image, draws())[0, 0, 0].tolist() == [0, 0, 255, 255]
    # Two bits: shades 0, 85, 170, 255, which meet at 42.5, 127.5, 212.5.
    two = BitDepth(BitDepth.Params(bits=2))
    image = torch.tensor([42, 43, 127, 128, 212, 213], dtype=torch.uint8).expand(1, 3, 1, 6)
    assert two.purify(image, draws())[0, 0, 0].tolist() == [0, 85, 85, 170, 170, 255]


@given(bits=st.integers(1, 8), shade=st.integers(0, 255))
def test_bit_depth_takes_the_nearest_shade_and_takes_it_once(bits: int, shade: int) -> None:
    levels = 2**bits - 1
    purifier = BitDepth(BitDepth.Params(bits=bits))
    image = torch.full((1, 3, 1, 1), shade, dtype=torch.uint8)
    made = purifier.purify(image, draws())
    nearest = min((255 * k / levels for k in range(levels + 1)), key=lambda each: abs(each - shade))
    assert int(made[0, 0, 0, 0]) == round(nearest)
    assert torch.equal(purifier.purify(made, draws()), made)


def test_blur_by_hand() -> None:
    """One white pixel in a wide black row: the weights themselves, 255 exp(-k^2 / 2) / 2.5066, squared in two directions."""
    image = torch.zeros(1, 3, 21, 21, dtype=torch.uint8)
    image[:, :, 10, 10] = 255
    made = Blur(Blur.Params(radius=1)).purify(image, draws())
    assert made[0, 1, 10, 8:13].tolist() == [5, 25, 41, 25, 5]
    assert made[0, 1, 9, 9:12].tolist() == [15, 25, 15]


@pytest.mark.parametrize("radius", [0.4, 1.0, 2.5])
def test_blur_is_the_plain_sum(radius: float) -> None:
    image = noise(1, 6, 5)
    made = Blur(Blur.Params(radius=radius)).purify(image, draws())
    reach = math.ceil(4 * radius)
    ks = range(-reach, reach + 1)
    weight = {k: math.exp(-(k**2) / (2 * radius**2)) for k in ks}
    total = sum(weight.values()) ** 2
    for row, column in itertools.product(range(6), range(5)):
        plain = sum(
            weight[a] * weight[b] * int(image[0, 2, mirror(row + a, 6), mirror(column + b, 5)])
            for a, b in itertools.product(ks, ks)
        )
        assert abs(int(made[0, 2, row, column]) - plain / total) < 0.501


def test_median_by_hand() -> None:
    image = torch.tensor([[1, 2, 3], [4, 99, 6], [7, 8, 9]], dtype=torch.uint8).expand(1, 3, 3, 3)
    made = MedianFilter(MedianFilter.Params()).purify(image, draws())
    # The first corner sees 99 four times, 2 and 4 twice each (reflected), and itself.
    assert made[0, 0].tolist() == [[4, 4, 6], [7, 6, 8], [8, 7, 9]]


@pytest.mark.parametrize("size", [3, 5])
def test_median_is_the_plain_one(size: int) -> None:
    image = noise(1, 6, 5)
    made = MedianFilter(MedianFilter.Params(size=size)).purify(image, draws())
    around = range(-(size // 2), size // 2 + 1)
    for row, column in itertools.product(range(6), range(5)):
        square = [
            int(image[0, 1, mirror(row + a, 6), mirror(column + b, 5)]) for a, b in itertools.product(around, around)
        ]
        assert int(made[0, 1, row, column]) == statistics.median(square)


@pytest.mark.parametrize(("quality", "subsampling"), [(75, "4:2:0"), (20, "4:2:0"), (75, "4:4:4")])
def test_jpeg_is_that_of_pillow(quality: int, subsampling: str) -> None:
    from PIL import Image

    images = noise(2, 16, 24)
    made = Jpeg(Jpeg.Params(quality=quality, subsampling=subsampling)).purify(images, draws())
    for image, found in zip(images, made, strict=True):
        file = io.BytesIO()
        Image.fromarray(image.numpy().transpose(1, 2, 0)).save(
            file, "jpeg", quality=quality, subsampling={"4:2:0": 2, "4:4:4": 0}[subsampling]
        )
        assert np.array_equal(np.asarray(Image.open(file)), found.numpy().transpose(1, 2, 0))


def test_packages_that_are_missing_are_one_line_when_a_run_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Jpeg, "packages", ("PIL", "no_such_package"))
    one = Jpeg(Jpeg.Params())  # to read a result, nothing need be installed
    with pytest.raises(
        UserError, match=r"^defense 'jpeg' needs packages .*: pip install '\.\[vision\]' in a checkout of fedbench\.$"
    ):
        one.see_images(noise(1))


@pytest.mark.parametrize(
    ("name", "values", "why"),
    [
        ("jpeg", {"quality": 96}, "quality = 96: Input should be less than or equal to 95"),
        ("jpeg", {"subsampling": "4:1:1"}, "subsampling = '4:1:1'"),
        ("blur", {"radius": 0}, "radius = 0: Input should be greater than 0"),
        ("median-filter", {"size": 4}, "size = 4: must be odd"),
        ("bit-depth", {"bits": 9}, "bits = 9"),
        ("blur", {"calibration": 1}, r"calibration = 1: a quantile must be between 0 and 1"),
        ("blur", {"calibration": "max"}, r"calibration = 'max'"),
        ("blur", {"threshold": 1.5}, "threshold = 1.5"),
        ("blur", {"on_flag": "hide"}, "on_flag = 'hide'"),
    ],
)
def test_bad_parameters_are_one_line(name: str, values: dict[str, object], why: str) -> None:
    with pytest.raises(UserError, match=why) as caught:
        parse_parameters(DEFENSES.get(name).Params, values, f"defense {name!r}")
    assert "\n" not in str(caught.value)


def purifier(**values: object) -> Purifier:
    return Blur(Blur.Params(**values))  # type: ignore[arg-type]


def test_the_minimum_of_clean_images_is_the_threshold() -> None:
    similarity = torch.rand(101, generator=draws())
    one = purifier()
    assert not one.flags(similarity, known_clean=True).any()
    rho = float(similarity.min())
    assert one.rho == rho
    assert one.flags(torch.tensor([rho - 0.01, rho, rho + 0.01]), known_clean=False).tolist() == [True, False, False]
    assert one.rho == rho


@given(values=st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=40), q=st.floats(0.01, 0.99))
def test_a_quantile_flags_at_most_its_share_of_what_calibrates_it(values: list[float], q: float) -> None:
    similarity = torch.tensor(values)
    one = purifier(calibration=q)
    flagged = one.flags(similarity, known_clean=True)
    assert one.rho == sorted(similarity.tolist())[math.ceil(round(q * (len(values) - 1), 9))]
    assert int(flagged.sum()) <= math.ceil(round(q * (len(values) - 1), 9))
    lowest = purifier()
    lowest.flags(similarity, known_clean=True)
    assert lowest.rho is not None
    assert lowest.rho <= one.rho


def test_a_given_threshold_is_kept() -> None:
    similarity = torch.tensor([-1.0, 0.2, 0.69, 1.0])
    assert purifier(threshold=0.69).flags(similarity, known_clean=True).tolist() == [True, True, False, False]
    assert not purifier(threshold=-1).flags(similarity, known_clean=True).any()
    assert purifier(threshold=1).flags(similarity, known_clean=True).tolist() == [True, True, True, False]


def test_a_threshold_needs_clean_images_first() -> None:
    with pytest.raises(ValueError, match="clean images"):
        purifier().flags(torch.zeros(1), known_clean=False)
    assert purifier().flags(torch.zeros(0), known_clean=True).shape == (0,)


def test_what_becomes_of_flagged_images_is_a_parameter() -> None:
    assert purifier().on_flag == "use-purified"
    assert purifier(on_flag="drop").on_flag == "drop"
    assert issubclass(Blur.Params, PurifierParams)


def test_identity_says_what_the_result_depends_on() -> None:
    assert purifier(radius=2).identity == "blur 1 {'radius': 2.0}"
    assert purifier(radius=2, on_flag="drop", threshold=0.5).identity == purifier(radius=2).identity
