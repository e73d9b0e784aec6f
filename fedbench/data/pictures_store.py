"""Images of a dataset's items as one parquet file: id, pixels, original size, SHA-256 of the file they came from."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fedbench.data.home import cache_home, replacing
from fedbench.data.pictures_decode import Decoded
from fedbench.data.records import Ints, UInt8

IMAGES_FILE = "images.parquet"
"""Its name in the folder of a dataset; a slot of interactions never has it."""

DECODER_VERSION = 1
"""Part of cache names: raise it when the same files would be decoded into other pixels."""

_KEY = b"fedbench-images"
_ROWS = 128
_Result = TypeVar("_Result")
_FACTS = ("item", "width", "height")


class DamagedImagesError(Exception):
    """Raised when a file of images is not one that :func:`write_images` finished."""


@dataclass(frozen=True)
class StoredFacts:
    """What the metadata of a file of images say."""

    side: int
    """Pixels: images are stored as side x side squares."""
    count: int
    repeated: int
    """Images whose pixels are also those of another item."""
    content: str
    """SHA-256 over ids and pixels, in order of the ids: the same whatever the order of the files was."""
    origin: str
    """Name of the folder or archive."""
    notes: tuple[str, ...] = ()


def images_path(name: str) -> Path:
    """Where imported images of a dataset are kept."""
    return cache_home() / "datasets" / name / IMAGES_FILE


def write_images(
    path: Path, images: Iterable[tuple[str, Decoded, str]], side: int, origin: str, notes: list[str]
) -> StoredFacts:
    """Write images (item id, decoded, SHA-256 of the file) under a temporary name, then rename it.

    What is in memory at once is one row group; nothing is left behind when ``images`` raises. ``notes`` is read at
    the end, so that whoever makes the images can add to it.

    Raises:
        OSError: the folder cannot be written.
    """
    schema = pa.schema(
        [
            ("item", pa.string()),
            ("pixels", pa.binary(3 * side * side)),
            ("width", pa.int32()),
            ("height", pa.int32()),
            ("sha256", pa.string()),
            ("pixels_sha256", pa.string()),
        ]
    )
    digests: dict[str, str] = {}
    with (
        replacing(path) as temporary,
        pq.ParquetWriter(
            temporary,
            schema,
            compression="lz4",  # photographs: zstd makes them 5 % smaller and takes twice as long to read
            use_dictionary=False,
            write_statistics=False,
            write_page_checksum=True,
        ) as writer,
    ):
        rows: list[tuple[Any, ...]] = []
        for item, image, digest in images:
            data = image.pixels.tobytes()
            digests[item] = hashlib.sha256(data).hexdigest()
            rows.append((item, data, image.width, image.height, digest, digests[item]))
            if len(rows) == _ROWS:
                _flush(writer, rows, schema)
        _flush(writer, rows, schema)
        times = Counter(digests.values())
        content = hashlib.sha256(f"{side}\n".encode())
        for item in sorted(digests):
            content.update(f"{item}\t{digests[item]}\n".encode())
        facts = StoredFacts(
            side=side,
            count=len(digests),
            repeated=sum(count for count in times.values() if count > 1),
            content=content.hexdigest(),
            origin=origin,
            notes=tuple(notes),
        )
        writer.add_key_value_metadata({_KEY: json.dumps({"version": DECODER_VERSION, **asdict(facts)}).encode()})
    return facts


def _flush(writer: pq.ParquetWriter, rows: list[tuple[Any, ...]], schema: pa.Schema) -> None:
    if rows:
        columns = [pa.array(column, field.type) for column, field in zip(zip(*rows, strict=True), schema, strict=True)]
        writer.write_table(pa.table(columns, schema=schema))
        rows.clear()


def read_facts(path: Path) -> tuple[StoredFacts, list[str], Ints, Ints]:
    """Facts, ids, original widths and heights, without reading the pixels.

    Raises:
        DamagedImagesError, FileNotFoundError: not a whole file of images; none at all.
    """
    return _guarded(path, _read_facts)


def read_images(path: Path, ids: Sequence[str]) -> tuple[UInt8, list[str]]:
    """Pixels, uint8 [len(ids), 3, side, side], and the SHA-256 of each item's, in the order of ``ids``.

    Zeros and an empty text where an item has no image. Errors as of :func:`read_facts`.
    """
    return _guarded(path, lambda where: _read_images(where, ids))


def _read_facts(path: Path) -> tuple[StoredFacts, list[str], Ints, Ints]:
    with pq.ParquetFile(path, page_checksum_verification=True) as file:
        facts = _facts(file)
        table = file.read(columns=list(_FACTS), use_threads=False)
    names, width, height = (table.column(name) for name in _FACTS)
    return facts, names.to_pylist(), width.to_numpy(), height.to_numpy()


def _read_images(path: Path, ids: Sequence[str]) -> tuple[UInt8, list[str]]:
    place = {item: index for index, item in enumerate(ids)}
    with pq.ParquetFile(path, page_checksum_verification=True) as file:
        side = _facts(file).side
        pixels = np.zeros((len(ids), 3, side, side), dtype=np.uint8)
        digests = [""] * len(ids)
        wanted = ["item", "pixels", "pixels_sha256"]
        for batch in file.iter_batches(batch_size=_ROWS, columns=wanted, use_threads=False):
            names, column, hashes = (batch.column(name) for name in wanted)
            size = 3 * side * side
            stored = np.frombuffer(column.buffers()[1], dtype=np.uint8)[column.offset * size :]
            for row, (name, digest) in enumerate(zip(names.to_pylist(), hashes.to_pylist(), strict=True)):
                if (index := place.get(name)) is not None:
                    pixels[index] = stored[row * size : (row + 1) * size].reshape(3, side, side)
                    digests[index] = digest
    return pixels, digests


def _facts(file: pq.ParquetFile) -> StoredFacts:
    meta = json.loads((file.metadata.metadata or {})[_KEY])
    if meta.pop("version") != DECODER_VERSION or meta["count"] != file.metadata.num_rows:
        raise ValueError("it does not hold what its metadata says")
    return StoredFacts(**{**meta, "notes": tuple(meta["notes"])})


def _guarded(path: Path, read: Callable[[Path], _Result]) -> _Result:
    try:
        return read(path)
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError, IndexError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DamagedImagesError(f"{path} cannot be read: {reason}") from error
