"""What the process of an entry may take."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Of the process in which a contributed class lives.

    Attributes:
        seconds: that one call may take, such as ``craft`` in one round. start: seconds to import the file.
        total: seconds for everything that is asked of the entry; None: no end.
        memory: bytes on top of what Python, torch and fedbench take. message: bytes that one answer may have.
        files: bytes of a file that it writes, where it can write at all. open_files: at once.
    """

    seconds: float = 600.0
    start: float = 60.0
    total: float | None = None
    memory: int = 4 << 30
    message: int = 1 << 30
    files: int = 64 << 20
    open_files: int = 256
