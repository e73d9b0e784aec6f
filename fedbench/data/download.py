"""Resumable downloads: bytes go to a ``.partial`` file, which gets its name only when size and checksum are right."""

from __future__ import annotations

import contextlib
import http.client
import os
import ssl
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import IO

from fedbench.data.catalogue import Download
from fedbench.data.home import sha256_of
from fedbench.errors import DataError

ATTEMPTS = 4
"""Times that an interrupted transfer is taken up again within one call, as long as it moves forward."""

Progress = Callable[[int, int | None], None]
"""Called with the bytes that are there and the bytes wanted, None if unknown."""

_BLOCK = 1 << 18
_HEADERS = {"User-Agent": "fedbench", "Accept-Encoding": "identity"}


class _Interrupted(Exception):
    """Raised when the connection ended before the whole file was there."""


def download(spec: Download, folder: Path, *, progress: Progress | None = None, timeout: float = 30.0) -> Path:
    """Fetch a pinned file into ``folder`` and return its path; a file that is there and right is not fetched again.

    A transfer that broke off continues where it stopped: in this call up to ``ATTEMPTS`` times, and in the next call.
    Where the content is not pinned by a checksum, it continues only if the server vouches (``If-Range``) that the
    file has not changed since. A file of the wrong size or checksum is removed.

    Raises:
        DataError: no connection, the server refuses, the file is larger than it may be, its size or checksum is
            wrong, or the folder cannot be written.
    """
    if urllib.parse.urlsplit(spec.url).scheme not in ("http", "https"):
        raise DataError(f"{spec.url}: only http and https addresses are fetched.")
    target = folder / spec.filename
    partial = folder / f"{spec.filename}.partial"
    validator = folder / f"{spec.filename}.partial.etag"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if target.exists():
            if _problem(spec, target) is None:
                return target
            target.unlink()
        for attempt in range(1, ATTEMPTS + 1):
            before = _size(partial)
            try:
                _transfer(spec, partial, validator, progress, timeout)
                break
            except _Interrupted as error:
                if attempt == ATTEMPTS or _size(partial) <= before:
                    raise DataError(
                        f"{spec.url}: the transfer broke off after {_size(partial):,} bytes ({error}); "
                        "run the command again to continue it."
                    ) from error
        problem = _problem(spec, partial)
        if problem is not None:
            partial.unlink()
            raise DataError(f"{spec.url}: {problem}; the file was removed. Upstream may have changed.")
        os.replace(partial, target)
    except OSError as error:
        raise DataError(f"{folder}: cannot be written ({error.strerror or error}).") from error
    finally:
        if not partial.exists():
            with contextlib.suppress(OSError):
                validator.unlink(missing_ok=True)
    return target


def _transfer(spec: Download, partial: Path, validator: Path, progress: Progress | None, timeout: float) -> None:
    """One request: append what is missing to ``partial``, or fetch all of it."""
    start = _resume_point(spec, partial, validator)
    if spec.size is not None and start == spec.size:
        return
    headers = dict(_HEADERS)
    if start:
        headers["Range"] = f"bytes={start}-"
        if spec.sha256 is None:
            headers["If-Range"] = validator.read_text()
    try:
        with urllib.request.urlopen(urllib.request.Request(spec.url, headers=headers), timeout=timeout) as response:
            resumed = response.status == 206 and _range_start(response.headers.get("Content-Range")) == start
            if response.status == 206 and not resumed:
                partial.unlink(missing_ok=True)
                raise _Interrupted("the server sent another part of the file than was asked for")
            if not resumed:
                start = 0
                tag = response.headers.get("ETag") or response.headers.get("Last-Modified") or ""
                validator.write_text("" if tag.startswith("W/") else tag)
            length = response.headers.get("Content-Length")
            wanted = start + int(length) if length and length.isdigit() else spec.size
            if max(wanted or 0, spec.size or 0) > spec.limit:
                raise DataError(f"{spec.url}: {wanted:,} bytes, more than the {spec.limit:,} that it may have.")
            with partial.open("ab" if resumed else "wb") as out:
                done = _pour(spec, response, out, start, wanted, progress)
    except urllib.error.HTTPError as error:
        if error.code == 416:
            partial.unlink(missing_ok=True)
            raise _Interrupted("the server has no such part of the file") from error
        raise DataError(f"{spec.url}: the server answered {error.code} {error.reason}.") from error
    except (urllib.error.URLError, TimeoutError, ConnectionError, ssl.SSLError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        if _size(partial):
            raise _Interrupted(str(reason)) from error
        raise DataError(f"{spec.url}: no connection ({reason}).") from error
    if wanted is not None and done < wanted:
        raise _Interrupted(f"{wanted:,} were announced")


def _pour(
    spec: Download,
    response: http.client.HTTPResponse,
    out: IO[bytes],
    done: int,
    wanted: int | None,
    progress: Progress | None,
) -> int:
    """Copy the body and return the size of the file so far."""
    while block := response.read(_BLOCK):
        done += len(block)
        if done > spec.limit:
            out.close()
            Path(out.name).unlink()
            raise DataError(f"{spec.url}: more than the {spec.limit:,} bytes that it may have; the file was removed.")
        out.write(block)
        if progress is not None:
            progress(done, wanted)
    return done


def _resume_point(spec: Download, partial: Path, validator: Path) -> int:
    """Where to go on: the size of the partial file, or 0 when it cannot be trusted or is too large."""
    size = _size(partial)
    vouched = spec.sha256 is not None or (validator.exists() and bool(validator.read_text()))
    if not vouched or (spec.size is not None and size > spec.size):
        partial.unlink(missing_ok=True)
        return 0
    return size


def _range_start(header: str | None) -> int | None:
    """The first byte of ``Content-Range: bytes 100-199/200``; None when it is not of that form."""
    unit, _, rest = (header or "").partition(" ")
    first = rest.partition("-")[0]
    return int(first) if unit == "bytes" and first.isdigit() else None


def _problem(spec: Download, path: Path) -> str | None:
    """What is wrong with a whole file, or None."""
    size = _size(path)
    if spec.size is not None and size != spec.size:
        return f"{size:,} bytes instead of {spec.size:,}"
    if spec.sha256 is not None and (found := sha256_of(path)) != spec.sha256:
        return f"wrong checksum (SHA-256 {found[:12]}..., expected {spec.sha256[:12]}...)"
    return None


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
