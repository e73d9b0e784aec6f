"""Reading a file whole, gzip or plain, with a limit on what it may unpack to."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

from fedbench.errors import DataError

LIMIT = 4 << 30
"""Bytes that a file may have after decompression."""

_MAGIC = b"\x1f\x8b"


def read_whole(path: Path, limit: int = LIMIT) -> bytes:
    """The decompressed content of a file; gzip is recognised by its first bytes, not by its name.

    Raises:
        DataError: the file is missing, cannot be read, is a damaged gzip file, or holds more than ``limit`` bytes.
    """
    try:
        with path.open("rb") as raw:
            zipped = raw.read(2) == _MAGIC
            raw.seek(0)
            if zipped:
                with gzip.open(raw) as stream:
                    data = stream.read(limit + 1)
            else:
                data = raw.read(limit + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path}: damaged gzip file ({error}).") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}).") from error
    if len(data) > limit:
        raise DataError(f"{path}: holds more than {limit:,} bytes after decompression.")
    return data
