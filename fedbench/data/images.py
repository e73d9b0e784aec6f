"""The images of a dataset's items: generated, contributed, imported, or from an archive in a data folder."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from fedbench.data.catalogue import DatasetCard, ImageArchive
from fedbench.data.contributed import DATASETS, brings_pictures, contributed_pictures
from fedbench.data.generated_images import generated_pictures
from fedbench.data.home import cache_home, find
from fedbench.data.load import at_hand, check_split, load_item_ids, load_table, resolve
from fedbench.data.longtail import SHAPES
from fedbench.data.pictures_decode import DEFAULT_SIDE, Decoded
from fedbench.data.pictures_files import Tally, decoded, read_map
from fedbench.data.pictures_store import (
    DECODER_VERSION,
    DamagedImagesError,
    StoredFacts,
    images_path,
    read_facts,
    read_images,
    write_images,
)
from fedbench.data.records import Ints, Pictures, picture_fingerprint
from fedbench.data.splits import LEAVE_ONE_OUT
from fedbench.errors import DataError

_GENERATED, _CONTRIBUTED, _IMPORTED, _FOLDERS = "generated", "contributed", "imported", "FEDBENCH_DATA"
_Result = TypeVar("_Result")

__all__ = ["PictureFacts", "Pictures", "has_pictures", "load_pictures", "picture_facts"]


def has_pictures(dataset: str) -> bool:
    """Whether images of a dataset's items are at hand; opens no file.

    Raises:
        UserError: no such dataset.
    """
    known = resolve(dataset)
    return _origin(known) is not None


def load_pictures(dataset: str, split: str) -> Pictures:
    """One image per item, in the index space of a split.

    Args:
        dataset: a name of the catalogue, or of an imported or contributed dataset.
        split: any that is made from the interactions; a published one where it is known what its items are called.

    Raises:
        UserError: no such dataset or split, or the items of the split are numbered and nothing tells which is which.
        DataError: there are no images here, or they are damaged; or the interactions are not here.
    """
    known = resolve(dataset)
    check_split(known, split)
    origin = _origin(known)
    if origin is None:
        raise missing_images(known)
    if origin == _GENERATED:
        return generated_pictures(SHAPES[known.name])
    if origin == _CONTRIBUTED:
        made = contributed_pictures(known.name)
        if made is None:
            raise missing_images(known)
        items = load_table(known, split).num_items
        if len(made.pixels) != items:
            raise DataError(f"Dataset {known.name!r}: pictures() has {len(made.pixels):,} images for {items:,} items.")
        return made
    ids = load_item_ids(known, split)
    _, (pixels, digests) = _read(known, lambda path: read_images(path, ids))
    there = np.array([bool(digest) for digest in digests], dtype=bool)
    return Pictures(pixels, there, picture_fingerprint(pixels.shape[2:], digests))


@dataclass(frozen=True)
class PictureFacts:
    """What there is to say of the images of a dataset."""

    origin: str
    """``generated``, ``contributed``, ``imported``, or ``FEDBENCH_DATA``."""
    source: str
    """Name of the folder or archive; empty where there was none."""
    side: int
    """Pixels: they are stored as squares."""
    images: int
    """Stored images, whether or not an item of the interactions has them."""
    items: int
    """Items of the dataset."""
    items_with_image: int
    interactions_with_image: float
    """Share of the interactions, repeats counted, that are with an item that has an image."""
    original_width: tuple[int, int, int] | None
    """Least, median and largest, in pixels; None for images that were never files."""
    original_height: tuple[int, int, int] | None
    repeated: int
    """Images whose pixels are also those of another item."""
    bytes_on_disk: int
    content: str
    """SHA-256 over ids and pixels; the fingerprint for images without ids."""
    notes: tuple[str, ...] = ()


def picture_facts(dataset: str) -> PictureFacts | None:
    """Facts of a dataset's images, None where there are none at hand; pixels are read only of images without a file.

    Raises:
        UserError: no such dataset. DataError: the images are damaged, or the interactions are not here.
    """
    known = resolve(dataset)
    origin = _origin(known)
    if origin is None:
        return None
    table = load_table(known, LEAVE_ONE_OUT, with_ids=True)
    facts: StoredFacts | None = None
    width: Ints = np.empty(0, dtype=np.int64)
    height: Ints = width
    stored = 0
    if origin in (_GENERATED, _CONTRIBUTED):
        made = load_pictures(dataset, LEAVE_ONE_OUT)
        flat = {row.tobytes() for row in made.pixels[made.there]}
        count = int(made.there.sum())
        there, side = made.there, made.pixels.shape[-1]
        repeated, content = count - len(flat), made.fingerprint
    else:
        path, (facts, names, width, height) = _read(known, read_facts)
        have = set(names)
        there = np.array([item in have for item in load_item_ids(known, LEAVE_ONE_OUT)], dtype=bool)
        side, count, repeated, content = facts.side, facts.count, facts.repeated, facts.content
        stored = path.stat().st_size
    rows = np.concatenate([part.item for name, part in table.parts.items() if not name.startswith("public:")])
    return PictureFacts(
        origin=origin,
        source=facts.origin if facts else "",
        side=side,
        images=count,
        items=len(there),
        items_with_image=int(there.sum()),
        interactions_with_image=float(there[rows].mean()) if len(rows) else 0.0,
        original_width=_spread(width) if facts else None,
        original_height=_spread(height) if facts else None,
        repeated=repeated,
        bytes_on_disk=stored,
        content=content,
        notes=facts.notes if facts else (),
    )


def missing_images(known: DatasetCard) -> DataError:
    """The error for images that are nowhere on this machine: says how to get them."""
    get = f"run `fedbench data get {known.name} --images`, or " if known.image_index else ""
    return DataError(
        f"Dataset {known.name!r}: no images of its items are in FEDBENCH_DATA nor in {cache_home()}; {get}"
        f"`fedbench data import {known.name} PATH` with a folder, tar or zip of <item id>.jpg."
    )


def _origin(known: DatasetCard) -> str | None:
    """Where the images of a dataset come from, None where there are none."""
    if known.embedded:
        return _GENERATED
    if known.name in DATASETS.names():
        return _CONTRIBUTED if brings_pictures(known.name) else None
    if images_path(known.name).is_file():
        return _IMPORTED
    found = known.images is not None and at_hand(known.images.archive)
    if found and known.images is not None and known.images.ids is not None:
        found = at_hand(known.images.ids)
    return _FOLDERS if found else None


def _read(known: DatasetCard, read: Callable[[Path], _Result]) -> tuple[Path, _Result]:
    """The file with a dataset's images, and what ``read`` finds in it; made from the data folders where it has to be.

    Raises:
        DataError: it is damaged, or cannot be made or written.
    """
    path = images_path(known.name)
    if path.is_file():
        try:
            return path, read(path)
        except DamagedImagesError as error:
            raise DataError(f"{error}; import the images of {known.name!r} again.") from error
    assert known.images is not None
    path = cache_home() / "parsed" / _identity(known.name, known.images)
    archive = find(known.images.archive)
    ids = None if known.images.ids is None else find(known.images.ids)
    with contextlib.suppress(FileNotFoundError, DamagedImagesError):
        return path, read(path)
    wanted = None if ids is None else read_map(ids)
    keep_images(path, archive, wanted, DEFAULT_SIDE, Tally(), all_are_items=False)
    return path, read(path)


def _identity(name: str, images: ImageArchive) -> str:
    text = f"{images.archive.sha256} {images.ids.sha256 if images.ids else ''}"
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    return f"{name}-images-{digest}-{DEFAULT_SIDE}px-v{DECODER_VERSION}.parquet"


def keep_images(
    path: Path,
    source: Path,
    wanted: Mapping[str, Sequence[str]] | None,
    side: int,
    tally: Tally,
    *,
    skip_malformed: bool = False,
    notes: Sequence[str] = (),
    all_are_items: bool = True,
) -> StoredFacts:
    """Decode the images of a folder or archive into one file; arguments as of :func:`pictures_files.decoded`.

    ``notes`` are kept with them. ``all_are_items``: whether images of no item are worth a note.

    Raises:
        DataError: as there, or none of the images is wanted or can be used, or the folder cannot be written.
    """
    told = list(notes)

    def counted() -> Iterator[tuple[str, Decoded, str]]:
        kept = 0
        for each in decoded(source, wanted, side, tally, skip_malformed=skip_malformed):
            kept += 1
            yield each
        if not kept and tally.skipped:
            raise DataError(f"{source}: none of its images can be used (such as {tally.skipped[0]}).")
        if not kept:
            raise DataError(
                f"{source}: none of its {tally.files:,} images is named by an item (images: {_some(tally.unmatched)}; "
                f"items: {_some(list(wanted or ()))}); rename them, or say which is which with --map."
            )
        if not all_are_items:
            tally.unmatched.clear()
        told.extend(tally.notes())

    try:
        return write_images(path, counted(), side, source.name, told)
    except OSError as error:
        raise DataError(
            f"{path.parent} cannot be written ({error.strerror or error}); set FEDBENCH_CACHE to a folder that can."
        ) from error


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def _spread(values: Ints) -> tuple[int, int, int]:
    """Least, median (the upper one of two) and largest; zeros where there is none."""
    ordered = np.sort(values)
    if not len(ordered):
        return 0, 0, 0
    return int(ordered[0]), int(ordered[len(ordered) // 2]), int(ordered[-1])
