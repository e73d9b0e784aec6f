"""Where data are looked for and kept on this machine.

``FEDBENCH_DATA`` names one folder or several (separated as in ``PATH``) with the original files, laid out by dataset.
``FEDBENCH_CACHE`` (default: the user's cache folder) is the data home: what ``fedbench data get`` and ``import``
obtained, and everything parsed before.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from fedbench.data.catalogue import File
from fedbench.errors import DataError
from fedbench.files import home_folder


def cache_home() -> Path:
    """The data home; it need not exist. Without a home folder it is one of the user's in that of temporary files."""
    chosen = os.environ.get("FEDBENCH_CACHE")
    if chosen:
        return Path(os.path.expanduser(chosen))
    places = {"win32": ("LOCALAPPDATA", "AppData/Local"), "darwin": ("", "Library/Caches")}
    variable, usual = places.get(sys.platform, ("XDG_CACHE_HOME", ".cache"))
    base = os.environ.get(variable) if variable else None
    if base:
        return Path(base) / "fedbench"
    home = home_folder()
    if home is None:
        return Path(tempfile.gettempdir()) / f"fedbench-{os.getuid() if hasattr(os, 'getuid') else 'cache'}"
    return home / usual / "fedbench"


def data_roots() -> list[Path]:
    """The folders of ``FEDBENCH_DATA``; raises :class:`DataError` when one does not exist."""
    roots = [Path(os.path.expanduser(text)) for text in os.environ.get("FEDBENCH_DATA", "").split(os.pathsep) if text]
    for root in roots:
        if not root.is_dir():
            raise DataError(f"FEDBENCH_DATA names {str(root)!r}, which is not a folder.")
    return roots


def find(file: File) -> Path:
    """The first copy of a catalogue file under the data roots, its content checked.

    Raises:
        DataError: there is none, or its content is not the one that the catalogue knows.
    """
    for root in data_roots():
        path = root / file.path
        if path.is_file():
            check(path, file.sha256)
            return path
    raise DataError(f"{file.path} is in no folder of FEDBENCH_DATA.")


def check(path: Path, sha256: str) -> None:
    """Raise :class:`DataError` unless the file has this SHA-256. A file that did not change is read only once."""
    status = path.stat()
    mark = [status.st_size, status.st_mtime_ns, sha256]
    memo = cache_home() / "verified.json"
    known = _read_memo(memo)
    name = str(path.resolve())
    if known.get(name) == mark:
        return
    found = sha256_of(path)
    if found != sha256:
        raise DataError(
            f"{path}: wrong checksum (SHA-256 {found[:12]}..., expected {sha256[:12]}...). "
            "Replace the file, or use yours under another name with `fedbench data import NAME PATH`."
        )
    known = {**_read_memo(memo), name: mark}
    with contextlib.suppress(OSError), replacing(memo) as temporary:
        temporary.write_text(json.dumps(known, indent=0))


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_of_bytes(data: bytes) -> str:
    """SHA-256 of a content, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name in the folder of ``path``; renamed to ``path`` at the end, removed if anything goes wrong."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _read_memo(memo: Path) -> dict[str, list[object]]:
    try:
        content = json.loads(memo.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
