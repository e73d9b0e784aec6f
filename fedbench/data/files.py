"""Reading a file whole, plain or packed by gzip, bzip2, xz or zstd, with a limit on what it may unpack to."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import lzma
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import pyarrow as pa

from fedbench.errors import DataError

LIMIT = 4 << 30
"""Bytes that a file may have after decompression."""


def _zstd(raw: IO[bytes]) -> Any:
    return pa.CompressedInputStream(pa.PythonFile(raw, mode="r"), "zstd")


_PACKERS: tuple[tuple[bytes, str, Callable[[Any], Any]], ...] = (
    (b"\x1f\x8b", "gzip", gzip.open),
    (b"BZh", "bzip2", bz2.open),
    (b"\xfd7zXZ\x00", "xz", lzma.open),
    (b"\x28\xb5\x2f\xfd", "zstd", _zstd),
)
"""First bytes, name and reader of each."""

_BROKEN = (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile)


def read_whole(path: Path, limit: int = LIMIT) -> bytes:
    """The decompressed content of a file; how it is packed is recognised by its first bytes, not by its name.

    Raises:
        DataError: the file is missing, cannot be read, is damaged, or holds more than ``limit`` bytes.
    """
    packed = ""
    try:
        with contextlib.ExitStack() as opened:
            raw: IO[bytes] = opened.enter_context(path.open("rb"))
            if not raw.seekable():  # a pipe
                raw = io.BytesIO(raw.read(limit + 1))
            start = raw.read(8)
            raw.seek(0)
            found = next((each for each in _PACKERS if start.startswith(each[0])), None)
            if found is None:
                data = raw.read(limit + 1)
            else:
                packed = found[1]
                with found[2](raw) as stream:
                    data = stream.read(limit + 1)
    except _BROKEN as error:
        raise DataError(f"{path}: damaged {packed} file ({error}).") from error
    except OSError as error:
        if packed and error.errno is None:
            raise DataError(f"{path}: damaged {packed} file ({error}).") from error
        raise DataError(f"{path}: cannot be read ({error.strerror or error}).") from error
    if len(data) > limit:
        raise DataError(
            f"{path}: holds more than {limit:,} bytes after decompression; save the columns that are needed as parquet, or a"
            " part of it."
        )
    return data
