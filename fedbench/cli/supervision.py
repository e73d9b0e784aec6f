"""A command that imports somebody's file, in a process of its own: how it went is what that process says, not how it ends.

A file that is imported can end the process at any time, with any exit code. So one that imports nothing waits for it, and
ends with 0 only when the other has said so after its last word.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

_FORWARDED = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT")
_PARENT_DEATH = 1


def needed(arguments: Sequence[str]) -> bool:
    """Whether a command imports a file that nothing keeps apart."""
    words = [each for each in arguments if not each.startswith("-")]
    files = any(".py" in each or _names_files(each) for each in arguments)
    return words[:1] == ["run"] and files and "--isolated" not in arguments and hasattr(os, "fork")


def _names_files(argument: str) -> bool:
    """Whether it is a suite file that may name files of entries."""
    with contextlib.suppress(OSError):
        return argument.endswith(".toml") and b".py" in Path(os.path.expanduser(argument)).read_bytes()
    return False


def supervised(work: Callable[[], None]) -> int:
    """The exit code of ``work``, which ends by :class:`SystemExit`, in a process of its own.

    That process is a group of its own, so that signals reach it once: from here.
    """
    ours, theirs = os.pipe()
    signals = [getattr(signal, name) for name in _FORWARDED]
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)  # none is lost between here and there
    pid = os.fork()
    if pid == 0:
        os.setpgid(0, 0)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        if sys.platform.startswith("linux"):
            ctypes.CDLL(None).prctl(_PARENT_DEATH, signal.SIGKILL, 0, 0, 0)
        try:
            work()
        except SystemExit as end:
            sys.stdout.flush()
            code = 0 if end.code is None else end.code if isinstance(end.code, int) else 1
            os.write(theirs, b"%d" % (code & 255))
            raise
        sys.exit(1)
    os.close(theirs)
    for each in signals:
        if signal.getsignal(each) is not signal.SIG_IGN:
            signal.signal(each, lambda number, _: _forward(pid, number))
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    ended = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    os.set_blocking(ours, False)
    said = b""
    with contextlib.suppress(BlockingIOError):
        said = os.read(ours, 8)
    if said.isdigit():
        return int(said)
    how = f"by signal {-ended}" if ended < 0 else f"with exit code {ended}"
    print(f"failed: the process that imports the file ended {how}, and has not said how its runs went.", flush=True)
    return 128 - ended if ended < 0 else ended or 1


def _forward(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
