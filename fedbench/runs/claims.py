"""Who runs a run, where several processes on one machine or many share a results folder.

Whoever runs a run holds the lock of a file of its id, in the folder :data:`FOLDER` beside the records. A lock ends with the
process that holds it, however that ends, so a lost machine keeps no run from the others (on NFS its server gives the lock
back). In the file stands when the run last ended: a run that has ended since a plan was made is not run again, also where
the record itself is not seen yet, as on NFS, whose folders are read late while locks and what lies behind them are not.

There stands as well who began it and has neither ended it nor given it up: they are gone with their machine, or were killed
with all that could have written down why. So a run that takes whoever runs it along is found out.

Where files cannot be locked everybody runs everything, and each record is the last one's. So it is where something else has
the name of the folder or of a file, such as a link: whoever may write there could have put it there.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from fedbench.files import lock, opened, others_in
from fedbench.texts import visible

FOLDER = ".fedbench-claims"
_TEXTS = {"ended": "", "host": "?", "began": "?"}
"""What stands in a file, and what is taken where it does not."""
_SIZE = 1 << 12
"""Bytes of a file, whatever stands there: who reads it while it is written finds the old text or the new, not a part."""
_MOST = 8
"""Of so many that were lost it is kept who they were."""
_PAUSE = 0.1
"""Seconds between two tries."""


@dataclass(frozen=True)
class Lost:
    """A try of a run that nobody has heard of since: where, and since when."""

    host: str
    process: int
    began: str

    def __str__(self) -> str:
        return f"process {self.process} on {self.host} since {self.began}"


@dataclass
class Claim:
    """The right to run a run.

    Attributes:
        ended: of whoever ended it last, a word of its own; ``""``: nobody has. lost: tries since then that did not end.
    """

    ended: str
    lost: tuple[Lost, ...] = ()
    _file: IO[bytes] | None = None
    _open: bool = False

    def begin(self) -> None:
        """Say that a try begins."""
        self._open = True
        self._write()

    def end(self) -> None:
        """Say that the run has ended and its record is there."""
        self.ended, self.lost, self._open = secrets.token_hex(8), (), False
        self._write()

    def give_up(self) -> None:
        """Say that this try is over, whether the run has ended or not; may be called by the handler of a signal."""
        if self._open:
            self._open = False
            self._write()

    def _write(self) -> None:
        if self._file is not None:
            began = datetime.now(UTC).isoformat(timespec="microseconds")
            content = {"ended": self.ended, "host": socket.gethostname(), "process": os.getpid(), "began": began}
            said = json.dumps(content | {"open": self._open, "lost": [vars(each) for each in self.lost[-_MOST:]]})
            number = self._file.fileno()
            with contextlib.suppress(OSError):  # on a full disk the lock still holds; that records do not fit is told
                os.pwrite(number, said.encode().ljust(_SIZE), 0)
                os.ftruncate(number, _SIZE)
                os.fsync(number)


@dataclass(frozen=True)
class Running:
    """A run under way: its id, where, since when, and how many tries before this one were lost."""

    run_id: str
    host: str
    process: int
    began: str
    lost: int = 0


@contextlib.contextmanager
def claim(results: Path, run_id: str, patience: float = 0.0, begin: bool = True) -> Iterator[Claim | None]:
    """The right to run a run as long as the block lasts; None: after ``patience`` seconds another process still has it.

    Without ``begin`` nobody takes it for running until :meth:`Claim.begin`: there may turn out to be nothing to run.
    """
    deadline = time.monotonic() + patience
    while True:
        with contextlib.ExitStack() as stack:
            try:
                file = stack.enter_context(_opened(results / FOLDER / run_id))
                free = lock(file)
            except OSError:  # nothing can be locked here: whatever keeps records from being written is told then
                yield Claim("")
                return
            if free and _is_at(file, results / FOLDER / run_id):
                said = _read(file)
                found = Claim(said["ended"], said["lost"], file)
                if begin:
                    found.begin()
                try:
                    yield found
                finally:
                    found.give_up()
                return
            if not free and time.monotonic() >= deadline:
                yield None
                return
        time.sleep(_PAUSE)


def ends(results: Path) -> Mapping[str, str]:
    """Of every run what stands in its file: :attr:`Claim.ended`."""
    return {name: found["ended"] for name, found, _ in _claims(results)}


def running(results: Path) -> list[Running]:
    """The runs under way, by id."""
    return [
        Running(visible(name), found["host"], found["process"], found["began"], max(0, len(found["lost"]) - 1))
        for name, found, held in _claims(results)
        if held and found["open"]
    ]


def clear(results: Path, marker: Path) -> None:
    """Remove the files, if nobody else runs anything in the folder; ``marker``: of whoever asks."""
    folder = results / FOLDER
    if not folder.is_dir() or folder.is_symlink() or others_in(results, marker):
        return
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            with opened(path) as file:
                if lock(file, shared=True):
                    path.unlink()
        folder.rmdir()


def _claims(results: Path) -> Iterator[tuple[str, dict[str, Any], bool]]:
    """Name, content, and whether somebody holds it."""
    folder = results / FOLDER
    try:
        paths = [] if folder.is_symlink() else sorted(folder.iterdir())
    except OSError:
        return
    for path in paths:
        with contextlib.suppress(OSError), opened(path) as file:
            held = not lock(file, shared=True)
            yield path.name, _read(file), held


def _opened(path: Path) -> IO[bytes]:
    for _ in range(3):
        path.parent.mkdir(exist_ok=True)  # not the results folder itself: it may have been renamed
        if path.parent.is_symlink():
            break
        with contextlib.suppress(FileNotFoundError):  # whoever ended last has just removed the folder
            return opened(path, os.O_RDWR | os.O_CREAT)
    raise FileNotFoundError(path)


def _is_at(file: IO[bytes], path: Path) -> bool:
    """Whether a file that was opened is still the one of that name."""
    try:
        return os.fstat(file.fileno()).st_ino == path.stat().st_ino
    except OSError:
        return False


def _read(file: IO[bytes]) -> dict[str, Any]:
    """What stands in a file, whatever that is, in the right types: ``lost`` with the last try, if that is ``open``."""
    file.seek(0)
    try:
        said = json.loads(file.read(_SIZE) or b"{}")
    except (ValueError, RecursionError):
        said = {}
    said = said if isinstance(said, dict) else {}
    before = said.get("lost")
    tries = [*(before[-_MOST:] if isinstance(before, list) else ()), *([said] if said.get("open") is True else ())]
    lost = tuple(
        Lost(each["host"], each["process"], each["began"]) for each in map(_typed, tries) if each["host"] != "?"
    )
    return _typed(said) | {"open": said.get("open") is True, "lost": lost}


def _typed(said: object) -> dict[str, Any]:
    """``ended``, ``host`` and ``began``, which are texts, and ``process``."""
    said = said if isinstance(said, dict) else {}
    process = said.get("process")
    found: dict[str, Any] = {"process": process if type(process) is int else 0}
    return found | {name: visible(str(said.get(name, other)), 80) for name, other in _TEXTS.items()}
