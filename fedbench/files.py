"""The home folder, files that are written whole or not at all, and what killed writers have left."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from fedbench.errors import ResultsError

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

PREFIX = ".fedbench-"
"""How names begin of what lies beside records and is none."""
_SUFFIX = ".tmp"
_TRIES = 3
_LONG_AGO = 3600.0
"""Seconds after which a temporary file that nobody can have locked is one of a writer that is gone."""


def home_folder() -> Path | None:
    """The user's home; None where nothing tells, as in a container without HOME and without an entry for the user."""
    try:
        home = Path.home()
    except RuntimeError:
        return None
    return home if home.is_absolute() else None


def write_file(path: Path, content: bytes | str, what: str = "") -> None:
    """Write a file beside its place, flush it to the disk and rename it: at any moment there is the old file or the new.

    A link stays one; what is no plain file (a terminal, a pipe) is written as it is. Missing folders are made.

    Args:
        path: where. content: text is written as UTF-8. what: it is, for the error.

    Raises:
        ResultsError: it cannot be written; nothing is left behind, and what was there is whole.
    """
    data = content.encode() if isinstance(content, str) else content
    try:
        final = Path(os.path.realpath(path))
        if final.exists() and not final.is_file():
            with final.open("wb") as out:
                out.write(data)
            return None
        final.parent.mkdir(parents=True, exist_ok=True)
        for left in reversed(range(_TRIES)):
            try:
                return _replace(final, data)
            except FileNotFoundError:  # somebody has taken the temporary file for one of a writer that is gone
                if not left:
                    raise
    except (OSError, ValueError) as error:
        raise ResultsError(f"cannot write {what}{' ' * bool(what)}{path}: {_why(error)}.") from None


def _replace(final: Path, data: bytes) -> None:
    # No part of the final name: it may be as long as names can be. Random, not the process: containers share folders.
    temporary = final.with_name(f"{PREFIX}{secrets.token_hex(8)}{_SUFFIX}")
    try:
        with open(temporary, "xb") as out:
            _lock(out)
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
            with contextlib.suppress(FileNotFoundError):
                temporary.chmod(final.stat().st_mode & 0o7777)
            os.replace(temporary, final)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def probe(folder: Path) -> None:
    """Do once all that writing a file there takes of a file system; raises what it raises, and leaves nothing behind."""
    path = folder / f"{PREFIX}{secrets.token_hex(8)}{_SUFFIX}"
    _replace(path, b"")
    path.unlink()


def sweep(folders: Iterable[Path]) -> None:
    """Remove temporary files of writers that were killed, and of no writer that is alive: it holds a lock on its own.

    Where files cannot be locked, only those that are an hour old.
    """
    for folder in folders:
        for path in _temporaries(folder):
            with contextlib.suppress(OSError), opened(path) as file:
                if (path.name.startswith(PREFIX) and _free(file)) or time.time() - path.stat().st_mtime > _LONG_AGO:
                    path.unlink()


@dataclass(frozen=True)
class Place:
    """A folder that a run writes into, wherever somebody moves it: a file that marks it, and its number."""

    folder: Path
    marker: Path
    number: int

    @property
    def moved(self) -> bool:
        """Whether what has the folder's name now is not that folder."""
        try:
            return not self.marker.exists() and self.folder.stat().st_ino != self.number
        except OSError:
            return True


@contextlib.contextmanager
def occupied(folder: Path) -> Iterator[Place]:
    """Make a folder, if it is not there, clear it of what killed writers left, and mark it as long as the block lasts.

    Raises:
        ResultsError: it cannot be written to.
    """
    marker = folder / f"{PREFIX}{secrets.token_hex(8)}{_SUFFIX}"
    with contextlib.ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            sweep([folder])
            name, inside = _reachable(marker, stack)
            stack.callback(_unlink, name, inside)
            for _ in range(_TRIES):  # until nobody has taken it for one of a writer that is gone
                _lock(stack.enter_context(marker.open("xb")))
                if marker.exists():
                    break
            place = Place(folder, marker, folder.stat().st_ino)
        except OSError as error:
            raise ResultsError(f"cannot write in the folder {str(folder)!r}: {_why(error)}.") from None
        yield place


def opened(path: Path, flags: int = os.O_RDONLY) -> IO[bytes]:
    """A plain file that lies there itself: in a folder that others write to, a link or a pipe may have its name.

    Raises:
        OSError: there is none, or something else.
    """
    # A pipe would wait for whoever is at its other end. Windows has neither flag, and neither kind of file.
    careful = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    number = os.open(path, flags | careful, 0o666)
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise OSError(errno.EINVAL, "not a plain file", str(path))
    return os.fdopen(number, "r+b" if flags & os.O_RDWR else "rb")


def others_in(folder: Path, marker: Path) -> bool:
    """Whether somebody else than the holder of ``marker`` has the folder :func:`occupied`."""
    for path in _temporaries(folder):
        if path.name != marker.name and path.name.startswith(PREFIX):
            with contextlib.suppress(OSError), opened(path) as file:
                if not _free(file):
                    return True
    return False


def _reachable(path: Path, stack: contextlib.ExitStack) -> tuple[str | Path, int | None]:
    """A file's name and its opened folder, which may be renamed; where folders cannot be opened, its path alone."""
    if os.unlink not in os.supports_dir_fd:
        return path, None
    folder = os.open(path.parent, os.O_RDONLY)
    stack.callback(os.close, folder)
    return path.name, folder


def _unlink(name: str | Path, folder: int | None) -> None:
    with contextlib.suppress(OSError):
        os.unlink(name, dir_fd=folder)


def _temporaries(folder: Path) -> list[Path]:
    try:
        names = os.listdir(folder)
    except OSError:
        return []
    # ``.NAME.parquet.PROCESS.tmp`` is what earlier versions wrote.
    return [
        folder / name
        for name in names
        if name.endswith(_SUFFIX) and name.startswith(".") and (name.startswith(PREFIX) or ".parquet." in name)
    ]


def lock(file: IO[bytes], shared: bool = False) -> bool:
    """Whether nobody else has the file locked; now it is ours, until it is closed.

    Args:
        file: opened for writing, as NFS wants it; for reading where ``shared``.
        shared: only look. Those who look do not keep each other out.

    Raises:
        OSError: files cannot be locked here.
    """
    if fcntl is None:
        raise OSError(errno.ENOLCK, "files cannot be locked here")
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _lock(file: IO[bytes]) -> None:
    """Lock a file of one's own, which somebody may just be looking at, if files can be locked."""
    if fcntl is not None:
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)


def _free(file: IO[bytes]) -> bool:
    """Whether nobody has it locked; False, too, where files cannot be locked."""
    try:
        return lock(file, shared=True)
    except OSError:
        return False


def _why(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
