"""Images of items: generated, decoded, imported, stored; and what is refused."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import io
import json
import shutil
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_server import Server
from hypothesis import given, settings
from hypothesis import strategies as st

from fedbench.data import pictures_files
from fedbench.data.catalogue import Download, File, ImageArchive
from fedbench.data.contributed import DATASETS, Dataset
from fedbench.data.generated_images import generated_pictures
from fedbench.data.home import sha256_of
from fedbench.data.images import has_pictures, load_pictures, picture_facts
from fedbench.data.importing import import_dataset
from fedbench.data.interactions import reindexed_table
from fedbench.data.library import imported_names, imported_path, imported_slots
from fedbench.data.lists import read_lists
from fedbench.data.load import load_item_ids, load_split, resolve
from fedbench.data.longtail import SHAPES, item_traits
from fedbench.data.pictures_decode import BadImage, decode
from fedbench.data.pictures_files import looks_like_images
from fedbench.data.pictures_get import amazon_addresses, get_images
from fedbench.data.pictures_import import import_images
from fedbench.data.pictures_store import images_path
from fedbench.data.records import Interactions, Pictures, Table
from fedbench.data.store import cached, read_table, write_table
from fedbench.data.upstream import json_table
from fedbench.errors import DataError, UserError
from fedbench.runs.task import pictures_of

Image = pytest.importorskip("PIL.Image", reason="the extra vision is not installed")
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


# -------------------------------------------------------------------------------------------------- decoding


def encoded(image: Image.Image, form: str = "PNG", **how: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, form, **how)
    return out.getvalue()


def plain(colour: tuple[int, ...] | int, mode: str = "RGB", size: tuple[int, int] = (16, 12)) -> Image.Image:
    return Image.new(mode, size, colour)


def pixel(data: bytes) -> list[int]:
    return decode(data, 8).pixels[:, 4, 4].tolist()


def test_an_image_of_the_stored_size_is_kept_to_the_bit() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    made = decode(encoded(Image.fromarray(pixels)), 16)
    assert np.array_equal(made.pixels.transpose(1, 2, 0), pixels)
    assert (made.width, made.height, made.animated) == (16, 16, False)


def test_halving_averages_with_the_triangle_of_the_bilinear_filter() -> None:
    """A row of 16, halved: weights 1, 3, 3, 1 over 8, cut and made to sum to one at the border. Plain loop."""
    row = np.random.default_rng(1).integers(0, 256, 16)
    grey = np.repeat(row[None], 16, axis=0).astype(np.uint8)
    got = decode(encoded(Image.fromarray(grey)), 8).pixels[0, 3]
    for place in range(8):
        weights = {2 * place - 1: 1, 2 * place: 3, 2 * place + 1: 3, 2 * place + 2: 1}
        inside = {at: weight for at, weight in weights.items() if 0 <= at < 16}
        mean = sum(row[at] * weight for at, weight in inside.items()) / sum(inside.values())
        assert abs(int(got[place]) - mean) <= 1


def test_modes_become_rgb() -> None:
    assert pixel(encoded(plain((10, 20, 30)))) == [10, 20, 30]
    assert pixel(encoded(plain(77, "L"))) == [77, 77, 77]
    assert pixel(encoded(plain((255, 0, 0)).quantize(4))) == [255, 0, 0]
    assert pixel(encoded(plain((0, 0, 0, 0), "RGBA"))) == [255, 255, 255]
    assert pixel(encoded(plain((0, 0, 0, 51), "RGBA"))) == [204, 204, 204]
    assert pixel(encoded(plain((0, 0), "LA"))) == [255, 255, 255]
    assert pixel(encoded(plain((0, 0, 0)), transparency=(0, 0, 0))) == [255, 255, 255]
    cyan = pixel(encoded(plain((255, 0, 0, 0), "CMYK"), "JPEG"))
    assert cyan[0] < 20
    assert min(cyan[1:]) > 235
    deep = Image.fromarray(np.full((12, 16), 0x8123, dtype=np.uint16))
    assert pixel(encoded(deep)) == [0x81] * 3


def test_exif_rotation_is_applied() -> None:
    pixels = np.zeros((16, 32, 3), dtype=np.uint8)
    pixels[:, :16] = 255
    turned: dict[int, tuple[slice, slice]] = {
        1: (slice(None), slice(0, 8)), 3: (slice(None), slice(8, 16)), 6: (slice(0, 8), slice(None)),
        8: (slice(8, 16), slice(None)), 2: (slice(None), slice(8, 16)), 5: (slice(0, 8), slice(None)),
    }  # fmt: skip
    for orientation, white in turned.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        made = decode(encoded(Image.fromarray(pixels), "JPEG", exif=exif, quality=95), 16)
        assert (made.width, made.height) == ((32, 16) if orientation < 5 else (16, 32))
        assert made.pixels[(0, *white)].mean() > 200, orientation
        assert abs(made.pixels[0].mean() - 127) < 5


def test_the_first_frame_of_an_animation_is_taken() -> None:
    frames = [plain((200, 0, 0)), plain((0, 200, 0))]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    made = decode(data, 8)
    assert made.animated
    assert made.pixels[:, 4, 4].tolist() == [200, 0, 0]


def header_of(width: int, height: int) -> bytes:
    """A PNG that says how large it is, and holds next to nothing."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    size = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


PHOTO = Image.fromarray(np.random.default_rng(2).integers(0, 256, (40, 40, 3), dtype=np.uint8))
BAD_IMAGES: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "empty"),
    "text": (b"this is no image", "no JPEG, PNG"),
    "html": (b"<!DOCTYPE html><html><body>404</body></html>", "no JPEG, PNG"),
    "pdf": (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", "no JPEG, PNG"),
    "tiff": (encoded(PHOTO, "TIFF"), "no JPEG, PNG"),
    "only a signature": (b"\x89PNG\r\n\x1a\n", "no JPEG, PNG"),
    "jpeg cut": (encoded(PHOTO, "JPEG")[:700], "cut off or damaged"),
    "png cut": (encoded(PHOTO)[:900], "cut off or damaged"),
    "gif cut": (encoded(PHOTO, "GIF")[:900], "cut off or damaged"),
    "bmp cut": (encoded(PHOTO, "BMP")[:900], "cut off or damaged"),
    "webp cut": (encoded(PHOTO, "WEBP")[:300], ""),
    "png without pixels": (header_of(20, 20), "cut off or damaged"),
    "wrong checksum": (encoded(PHOTO).replace(b"IHDR\0\0\0\x28", b"IHDR\0\0\0\x29"), ""),
    "one pixel": (encoded(plain((1, 2, 3), size=(1, 1)), "GIF"), "under 8 px"),
    "a thin line": (encoded(plain((1, 2, 3), size=(7, 300))), "under 8 px"),
    "over 100 megapixels": (header_of(10_001, 10_000), "more than 100 megapixels"),
    "bomb": (header_of(60_000, 60_000), "more than 100 megapixels"),
}


@pytest.mark.parametrize("case", BAD_IMAGES)
def test_bad_images_are_one_line_and_nothing_is_half_imported(case: str, shop: Path, home: Path) -> None:
    data, said = BAD_IMAGES[case]
    folder = images_of(shop.parent / "pictures", A=encoded(PHOTO), B=data)
    with pytest.raises(DataError) as caught:
        import_images("shop", folder, side=8)
    message = str(caught.value)
    assert said in message
    assert f"{folder}/B.jpg: " in message
    assert "--skip-malformed" in message
    assert "\n" not in message
    assert sorted(path.name for path in (home / "datasets" / "shop").iterdir()) == ["interactions.parquet"]
    facts = import_images("shop", folder, side=8, skip_malformed=True).facts
    assert (facts.images, facts.items_with_image, facts.items) == (1, 1, 4)
    assert facts.notes[0].startswith("1 files could not be used and were left out (such as B.jpg: ")


@settings(max_examples=150, deadline=None)
@given(form=st.sampled_from(["PNG", "JPEG", "GIF", "WEBP", "BMP"]), data=st.data())
def test_damaged_bytes_are_an_image_or_one_line(form: str, data: st.DataObject) -> None:
    whole = bytearray(encoded(PHOTO.resize((12, 12)), form))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    whole = whole[: data.draw(st.integers(0, len(whole)))]
    try:
        shape = decode(bytes(whole), 8).pixels.shape
    except BadImage as error:
        shape = (3, 8, 8) if len(str(error).splitlines()) == 1 else ()
    assert shape == (3, 8, 8)


# --------------------------------------------------------------------------------------- folders and archives


@pytest.fixture
def shop(tmp_path: Path, home: Path) -> Path:
    """A dataset with the items A, B, c.d and É, in that order."""
    path = tmp_path / "shop.inter"
    path.write_text("user_id:token\titem_id:token\nu\tA\nu\tB\nv\tc.d\nv\tA\nw\tÉ\nw\tA\n")
    import_dataset("shop", path)
    return path


def images_of(folder: Path, **images: bytes) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in images.items():
        folder.joinpath(f"{name}.jpg").write_bytes(data)
    return folder


def coloured(value: int) -> bytes:
    return encoded(plain((value, value, value)))


def packed(path: Path, members: dict[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def zipped(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


GOOD = {"in/A.jpg": coloured(10), "in/c.d.PNG": coloured(30), "in/É.webp": encoded(plain((50, 50, 50)), "WEBP")}


@pytest.mark.parametrize("kind", ["folder", "tar", "tar.gz", "tar.xz", "zip"])
def test_folders_and_archives_are_read_alike(kind: str, shop: Path, tmp_path: Path) -> None:
    members = {**GOOD, "in/unknown.gif": b"not looked at", "in/list.txt": b"x", "in/._A.jpg": b"of macOS"}
    path = tmp_path / f"pictures.{kind}"
    if kind == "folder":
        for name, data in members.items():
            path.joinpath(name).parent.mkdir(parents=True, exist_ok=True)
            path.joinpath(name).write_bytes(data)
    elif kind == "zip":
        zipped(path, members)
    else:
        packed(path, members, "w:" + kind.partition(".")[2])
    assert looks_like_images(path)
    made = import_images("shop", path, side=8)
    assert made.facts.notes == ("1 image files are named by no item of the dataset (such as unknown.gif)",)
    assert (made.facts.images, made.facts.items_with_image) == (3, 3)
    assert made.facts.interactions_with_image == pytest.approx(5 / 6)
    pictures = load_pictures("shop", "leave-one-out")
    assert pictures.there.tolist() == [True, False, True, True]
    assert [int(image.mean()) for image in pictures.pixels] == [10, 0, 30, 50]
    assert pictures.fingerprint == Pictures(pictures.pixels, pictures.there).fingerprint
    assert has_pictures("shop")
    assert imported_names() == ["shop"]
    assert imported_slots("shop") == ["interactions"]


def test_the_content_does_not_depend_on_the_order_of_the_files(shop: Path, tmp_path: Path) -> None:
    one = import_images("shop", packed(tmp_path / "a.tar", GOOD), side=8).facts
    turned = dict(reversed(GOOD.items()))
    assert import_images("shop", packed(tmp_path / "b.tar", turned), side=8).facts.content == one.content
    assert import_images("shop", packed(tmp_path / "c.tar", GOOD), side=9).facts.content != one.content


def test_facts_tell_sizes_and_repeated_images(shop: Path, tmp_path: Path) -> None:
    folder = images_of(tmp_path / "p", A=coloured(1), B=coloured(1), É=encoded(plain((9, 9, 9), size=(50, 100))))
    facts = import_images("shop", folder, side=8).facts
    assert facts.repeated == 2
    assert facts.original_width == (16, 16, 50)
    assert facts.original_height == (12, 12, 100)
    assert facts.bytes_on_disk == images_path("shop").stat().st_size
    assert (facts.origin, facts.source, facts.side) == ("imported", "p", 8)


def test_a_map_says_which_image_is_of_which_item(shop: Path, tmp_path: Path) -> None:
    folder = images_of(tmp_path / "p", **{"7": coloured(70), "8": coloured(80)})
    mapping = tmp_path / "map.txt"
    mapping.write_text("A 7\nB 7\n\nÉ 8\nnobody 8\n", encoding="utf-8")
    import_images("shop", folder, side=8, mapping=mapping)
    pictures = load_pictures("shop", "4:1")
    assert [int(image.mean()) for image in pictures.pixels] == [70, 70, 0, 80]


def _member(path: Path, name: str, kind: bytes, target: str = "") -> Path:
    with tarfile.open(path, "w") as archive:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, target
        archive.addfile(info)
    return path


def _cut(path: Path, size: int) -> Path:
    path.write_bytes(path.read_bytes()[:size])
    return path


def _linked(path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        info = zipfile.ZipInfo("A.jpg")
        info.external_attr = 0o120777 << 16
        archive.writestr(info, "/etc/passwd")
    return path


def _spoiled(path: Path) -> Path:
    zipped(path, {"A.jpg": coloured(10)})
    path.write_bytes(path.read_bytes().replace(coloured(10)[60:64], b"\0\1\2\3"))
    return path


def _headless(path: Path) -> Path:
    data = bytearray(packed(path, {"A.jpg": coloured(10), "B.jpg": coloured(10)}).read_bytes())
    data[1024 + 150] ^= 0xFF  # the checksum of the second header
    path.write_bytes(bytes(data))
    return path


BAD_SOURCES: dict[str, tuple[Callable[[Path], Path], str]] = {
    "nothing there": (lambda at: at / "none", "no such file or folder"),
    "empty folder": (lambda at: images_of(at / "p"), "holds no image"),
    "folder without images": (lambda at: zipped(images_of(at / "p") / "x.zip", GOOD).parent, "holds no image"),
    "empty file": (lambda at: _cut(packed(at / "p.tar", GOOD), 0), "no archive of images"),
    "no archive": (lambda at: Path(shutil.copy(__file__, at / "p.tar")), "no archive of images"),
    "names of no item": (lambda at: images_of(at / "p", x=coloured(1)), "none of its 1 images is named by an item"),
    "two for one item": (lambda at: packed(at / "p.tar", {"A.png": coloured(1), **GOOD}), "second image for 'A'"),
    "all bad": (lambda at: images_of(at / "p", A=b""), "the file is empty"),
    "path upwards": (lambda at: packed(at / "p.tar", {"../A.jpg": coloured(1)}), "leaves the folder"),
    "absolute path": (lambda at: packed(at / "p.tar", {"/tmp/A.jpg": coloured(1)}), "leaves the folder"),
    "link": (lambda at: _member(at / "p.tar", "A.jpg", tarfile.SYMTYPE, "/etc/passwd"), "neither a file nor"),
    "hard link": (lambda at: _member(at / "p.tar", "A.jpg", tarfile.LNKTYPE, "B.jpg"), "neither a file nor"),
    "device": (lambda at: _member(at / "p.tar", "A.jpg", tarfile.CHRTYPE), "neither a file nor a folder"),
    "pipe": (lambda at: _member(at / "p.tar", "A.jpg", tarfile.FIFOTYPE), "neither a file nor a folder"),
    "cut tar": (lambda at: _cut(packed(at / "p.tar", GOOD), 600), "damaged archive"),
    "cut between members": (lambda at: _cut(packed(at / "p.tar", GOOD), 1024), "damaged archive"),
    "damaged header": (lambda at: _headless(at / "p.tar"), "damaged archive"),
    "cut tar.gz": (lambda at: _cut(packed(at / "p.tgz", GOOD, "w:gz"), 300), "damaged archive"),
    "zip upwards": (lambda at: zipped(at / "p.zip", {"../A.jpg": coloured(1)}), "leaves the folder"),
    "link in a zip": (lambda at: _linked(at / "p.zip"), "neither a file nor a folder"),
    "damaged zip": (lambda at: _spoiled(at / "p.zip"), "damaged archive"),
}


@pytest.mark.parametrize("case", BAD_SOURCES)
def test_bad_folders_and_archives_are_one_line(case: str, shop: Path, home: Path, tmp_path: Path) -> None:
    build, said = BAD_SOURCES[case]
    before = import_images("shop", packed(tmp_path / "good.tar", GOOD), side=8)
    path = build(tmp_path)
    with pytest.raises(DataError) as caught:
        import_images("shop", path, side=8)
    assert said in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert picture_facts("shop") == before.facts
    assert len(list((home / "datasets" / "shop").iterdir())) == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "holds no line"),
        ("A\n", "map.txt:1: 1 words"),
        ("A 1\nA 2\n", "map.txt:2: item 'A' comes a second time"),
        ("x 1\n", "none of its items is one of 'shop' (such as A, B, c.d)"),
    ],
)
def test_bad_maps_are_one_line(text: str, said: str, shop: Path, tmp_path: Path) -> None:
    mapping = tmp_path / "map.txt"
    mapping.write_text(text)
    with pytest.raises(DataError) as caught:
        import_images("shop", images_of(tmp_path / "p", **{"1": coloured(1)}), mapping=mapping)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_archives_and_files_have_limits(shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archives = [packed(tmp_path / "p.tar", GOOD), zipped(tmp_path / "p.zip", GOOD)]
    for name, limit, said in (
        ("LIMIT", 150, "refused"),
        ("MOST_FILES", 1, "refused"),
        ("LARGEST_FILE", 20, "has more than 0 MiB"),
    ):
        with monkeypatch.context() as patched:
            patched.setattr(pictures_files, name, limit)
            for path in archives:
                with pytest.raises(DataError, match=said):
                    import_images("shop", path, side=8)


def test_datasets_that_cannot_take_images(home: Path, tmp_path: Path) -> None:
    folder = images_of(tmp_path / "p", A=coloured(1))
    for name, said in {
        "nosuch": "import its interactions first",
        "longtail": "generated by fedbench",
        "ml-1m": "its interactions are not in",
        "Bad Name": "lower-case letters",
    }.items():
        with pytest.raises(UserError, match=said):
            import_images(name, folder)
    for name in ("ml-1m", "steam"):
        assert not has_pictures(name)
        assert picture_facts(name) is None
        with pytest.raises(DataError, match="no images of its items are in FEDBENCH_DATA"):
            load_pictures(name, "4:1")
    with pytest.raises(UserError, match="no split"):
        load_pictures("longtail", "published")


def test_a_damaged_file_is_one_line(shop: Path, tmp_path: Path) -> None:
    import_images("shop", images_of(tmp_path / "p", A=encoded(PHOTO), B=encoded(PHOTO)), side=40)
    path = images_path("shop")
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 0xFF  # of a pixel
    for damaged in (whole[:-40], b"", bytes(flipped)):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match="cannot be read") as caught:
            load_pictures("shop", "leave-one-out")
        assert "import the images of 'shop' again" in str(caught.value)
        assert "\n" not in str(caught.value)


# ----------------------------------------------------------------------------------------------- ids of items


def test_ids_are_in_the_order_of_the_indices(shop: Path) -> None:
    assert load_item_ids(resolve("shop"), "4:1") == ("A", "B", "c.d", "É")
    reviews = (
        b'{"reviewerID": "u", "asin": "Y", "unixReviewTime": 2}\n{"reviewerID": "u", "asin": "X", "unixReviewTime": 1}'
    )
    assert json_table(reviews, "f").item_ids == ("Y", "X")
    assert read_lists_ids("5 30 7\n6 7\n") == ("30", "7")


def read_lists_ids(text: str) -> tuple[str, ...] | None:
    rows, _ = read_lists(text.encode(), "f")
    return reindexed_table(rows, "").item_ids


def test_published_splits_of_ones_own_are_called_by_their_indices(tmp_path: Path, home: Path) -> None:
    for name in ("train", "test"):
        tmp_path.joinpath(f"{name}.txt").write_text("0 0 2\n1 1\n" if name == "train" else "0 1\n")
    import_dataset("mine", tmp_path)
    import_images("mine", images_of(tmp_path / "p", **{"1": coloured(10), "2": coloured(20)}), side=8)
    for split in ("published", "leave-one-out"):
        assert [int(image.mean()) for image in load_pictures("mine", split).pixels] == [0, 10, 20]


def test_tables_of_older_versions_have_no_ids(shop: Path, tmp_path: Path) -> None:
    path = imported_path("shop", "interactions")
    old = replace(read_table(path), item_ids=None)
    write_table(path, old)
    assert read_table(path).item_ids is None
    with pytest.raises(DataError, match="import the interactions of 'shop' again"):
        import_images("shop", packed(tmp_path / "p.tar", GOOD))


def test_cached_tables_without_ids_are_parsed_again(home: Path) -> None:
    rows = Interactions(np.array([0], np.int32), np.array([0], np.int32))
    old = Table({"all": rows}, 1, 1, False, "")
    cached("it", lambda: old)
    new = replace(old, item_ids=("a",))
    assert cached("it", lambda: new).item_ids is None
    assert cached("it", lambda: new, with_ids=True).item_ids == ("a",)
    assert cached("it", lambda: old, with_ids=True).item_ids == ("a",)


# ------------------------------------------------------------------------------- data folders, classes


def test_archives_of_a_data_folder_need_no_import(
    shop: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    archive = packed(folder / "p.tar", {"1.png": coloured(90), "other.png": coloured(1)})
    mapping = folder / "map"
    mapping.write_text("B 1\n")
    known = replace(
        resolve("shop"),
        images=ImageArchive(File("p.tar", sha256_of(archive)), File("map", sha256_of(mapping))),
    )
    monkeypatch.setattr("fedbench.data.images.resolve", lambda name: known)
    assert not has_pictures("shop")
    monkeypatch.setenv("FEDBENCH_DATA", str(folder))
    assert has_pictures("shop")
    pictures = load_pictures("shop", "4:1")
    assert [int(image.mean()) for image in pictures.pixels] == [0, 90, 0, 0]
    (kept,) = (home / "parsed").glob("*.parquet")
    facts = picture_facts("shop")
    assert facts is not None
    assert (facts.origin, facts.side, facts.notes) == ("FEDBENCH_DATA", 128, ())
    kept.write_bytes(b"damaged")
    assert load_pictures("shop", "4:1").fingerprint == pictures.fingerprint
    archive.write_bytes(b"another")
    with pytest.raises(DataError, match="wrong checksum"):
        load_pictures("shop", "4:1")
    mapping.unlink()
    assert not has_pictures("shop")


def test_contributed_classes_may_bring_images(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Mine(Dataset):
        card = replace(resolve("steam"), name="mine", sources=(), union_of=None)

        def table(self) -> Table:
            user, item = np.array([0, 0, 1, 1]), np.array([0, 1, 1, 2])
            return Table({"all": Interactions(user, item)}, 2, 3, False, "as made")

    class Shown(Mine):
        def pictures(self) -> Pictures | None:
            return Pictures(np.full((SIZES["items"], 3, 8, 8), 5, np.uint8), np.ones(SIZES["items"], bool))

    SIZES["items"] = 3
    monkeypatch.setattr(DATASETS, "names", lambda: ["mine"])
    for cls, there in ((Mine, False), (Shown, True)):
        monkeypatch.setattr(DATASETS, "get", lambda name, cls=cls: cls)
        assert has_pictures("mine") is there
    assert load_pictures("mine", "4:1").pixels.shape == (3, 3, 8, 8)
    facts = picture_facts("mine")
    assert facts is not None
    assert (facts.origin, facts.repeated, facts.items_with_image) == ("contributed", 2, 3)
    SIZES["items"] = 2
    with pytest.raises(DataError, match="2 images for 3 items"):
        load_pictures("mine", "4:1")


SIZES: dict[str, int] = {}


# --------------------------------------------------------------------------------------------------- fetching


class Site(Server):
    """Answers by path; what it does not know is 404."""

    def __init__(self, pages: dict[str, bytes]) -> None:
        super().__init__(b"")
        self.pages = pages
        self.asked: list[str] = []

    def answer(self, request: http.server.BaseHTTPRequestHandler) -> None:
        self.asked.append(request.path)
        body = self.pages.get(request.path)
        if body is None:
            request.send_error(503 if request.path.startswith("/busy") else 404)
            return
        request.send_response(200)
        request.send_header("Content-Length", str(len(body) + 10 * (request.path == "/short")))
        request.end_headers()
        request.wfile.write(body)


@pytest.fixture
def site() -> Iterator[Site]:
    server = Site({"/a": coloured(10), "/b": coloured(20), "/gone": b"", "/tiny": BAD_IMAGES["one pixel"][0]})
    del server.pages["/gone"]
    yield server
    server.close()


def listed(folder: Path, site: Site, **paths: str) -> Path:
    base = site.url.removesuffix("/file")
    path = folder / "urls.csv"
    lines = [f"{item},{base}/{page}" for item, page in paths.items()]
    path.write_text("\n".join(["item_id,image", *lines, f"nobody,{base}/a", "B,"]) + "\n")
    return path


def test_images_are_fetched_once_and_dead_links_counted(shop: Path, site: Site, tmp_path: Path) -> None:
    urls = listed(tmp_path, site, A="a", B="gone", É="tiny")
    seen: list[tuple[int, int | None]] = []
    got = get_images("shop", urls=urls, side=8, progress=lambda done, wanted: seen.append((done, wanted)))
    assert (got.addresses, got.fetched, got.dead, got.silent) == (3, 2, 1, 0)
    assert sorted(site.asked) == ["/a", "/gone", "/tiny"]
    assert seen == [(1, 3), (2, 3), (3, 3)]
    assert got.imported.facts.items_with_image == 1
    assert got.imported.facts.notes[0] == "3 addresses, 1 of them dead, 0 silent"
    assert "under 8 px" in got.imported.facts.notes[1]
    assert int(load_pictures("shop", "4:1").pixels[0].mean()) == 10

    site.asked.clear()
    again = get_images("shop", urls=urls, side=8)
    assert (again.fetched, again.dead, site.asked) == (0, 1, [])
    assert again.imported.facts.content == got.imported.facts.content
    site.pages["/gone"] = coloured(20)
    forced = get_images("shop", urls=urls, side=8, force=True)
    assert (forced.fetched, forced.dead, len(site.asked)) == (3, 0, 3)
    assert forced.imported.facts.items_with_image == 2


def test_what_did_not_answer_is_asked_again(shop: Path, site: Site, tmp_path: Path) -> None:
    site.pages["/short"] = coloured(30)
    urls = listed(tmp_path, site, A="a", B="busy", É="short")
    first = get_images("shop", urls=urls, side=8)
    assert (first.fetched, first.dead, first.silent) == (1, 0, 2)
    site.pages["/busy"] = coloured(20)
    site.asked.clear()
    second = get_images("shop", urls=urls, side=8)
    assert (second.fetched, second.silent) == (1, 1)
    assert sorted(site.asked) == ["/busy", "/short"]


def test_where_nothing_can_be_had(shop: Path, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="no image could be had from 1 addresses, 1 dead"):
        get_images("shop", urls=listed(tmp_path, site, A="gone"))
    monkeypatch.setattr("fedbench.data.pictures_get._GIVE_UP", 2)
    with pytest.raises(DataError, match="No connection: 2 addresses"):
        get_images("shop", urls=listed(tmp_path, site, A="busy", B="busy?1", É="busy?2"), timeout=2)
    with pytest.raises(DataError, match="has the address of no item"):
        get_images("shop", urls=listed(tmp_path, site, x="a"))
    with pytest.raises(UserError, match="no list of image addresses"):
        get_images("shop")
    wrong = tmp_path / "wrong.csv"
    wrong.write_text("id,url\n")
    with pytest.raises(DataError, match="expected the columns item_id and image, found id, url"):
        get_images("shop", urls=wrong)


@pytest.mark.parametrize("year", [2014, 2018])
def test_amazon_metadata_name_the_images(year: int, shop: Path, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    base = site.url.removesuffix("/file")
    if year == 2014:
        lines = [
            f"{{'asin': 'A', 'title': \"it's\", 'imUrl': '{base}/a'}}",
            "{'asin': 'other', broken",
            "{'asin': 'B'}",
        ]
    else:
        products: list[dict[str, Any]] = [
            {"asin": "A", "imageURL": ["no"], "imageURLHighRes": [f"{base}/a"]},
            {"asin": "É", "image": [f"{base}/b"], "imageURLHighRes": []},
        ]
        lines = [json.dumps(each, ensure_ascii=False) for each in products]
    site.pages["/meta"] = gzip.compress("\n".join(lines).encode())
    index = Download(f"{base}/meta", "meta.json.gz", "amazon-metadata", None, None, 1 << 20)
    known = replace(resolve("shop"), image_index=index)
    monkeypatch.setattr("fedbench.data.pictures_get.image_dataset", lambda name: known)
    got = get_images("shop", side=8)
    assert (got.addresses, got.fetched) == ((1, 1) if year == 2014 else (2, 2))
    assert int(load_pictures("shop", "4:1").pixels[0].mean()) == 10


def test_metadata_that_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "meta.json.gz"
    path.write_bytes(gzip.compress(b"{'asin': 'A', broken\n"))
    with pytest.raises(DataError, match=r"meta.json.gz:1: neither JSON nor a Python literal"):
        list(amazon_addresses(path, {"A"}))
    path.write_bytes(gzip.compress(b"{'asin': 'A'}" * 100)[:-9])
    with pytest.raises(DataError, match="damaged gzip"):
        list(amazon_addresses(path, {"B"}))


# ---------------------------------------------------------------------------------------------- the real ones


def test_posters_of_the_data_folder(real: Path) -> None:
    """As their description says: 3,256 posters, 99.79 % of the interactions; of ML-100K 1,365, 94.7 %."""
    if not (real / "ml-1m-posters").is_dir():
        pytest.skip("no posters")
    facts = picture_facts("ml-100k")
    assert facts is not None
    assert (facts.images, facts.items_with_image, facts.items) == (1365, 1365, 1682)
    assert facts.interactions_with_image == pytest.approx(0.94655)
    pictures = load_pictures("ml-100k", "4:1")
    assert pictures.pixels.shape == (1682, 3, 128, 128)
    ids = load_item_ids(resolve("ml-100k"), "4:1")
    (where,) = [index for index, item in enumerate(ids) if item == "1"]  # Toy Story, movie 1 of ML-1M too
    with tarfile.open(real / "ml-1m-posters" / "posters_128px_q85.tar") as archive:
        (name,) = [member for member in archive.getnames() if Path(member).name == "1.jpg"]
        stream = archive.extractfile(name)
        assert stream is not None
        assert np.array_equal(pictures.pixels[where], decode(stream.read()).pixels)
    with pytest.raises(UserError, match="nothing tells which is which"):
        load_item_ids(resolve("amazon-music"), "leave-one-out")


def test_images_imported_again_are_not_those_of_before(shop: Path) -> None:
    split = load_split("shop", "4:1")
    import_images("shop", images_of(shop.parent / "one", A=encoded(PHOTO)), side=8)
    before = pictures_of(split).fingerprint
    assert pictures_of(split).fingerprint == before
    import_images("shop", images_of(shop.parent / "two", A=encoded(plain((1, 2, 3)))), side=8)
    assert pictures_of(split).fingerprint != before
