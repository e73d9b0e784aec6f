"""Where processes of entries come from: one process that has imported torch, and forks a fresh one for each.

It is started without anything of this process but a socket, and forks before it has seen any entry: what one entry does
to its process no other sees. It also ends them, says how they ended, and how much memory they took.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
from dataclasses import asdict
from typing import Any

from fedbench.errors import FedbenchError
from fedbench.isolation.limits import Limits
from fedbench.isolation.sandbox import bubblewrap, environment

_PATIENCE = 120.0
"""Seconds that the process may take to start, on a machine that is busy."""


class Nursery:
    """The process that forks others; it ends with this one.

    Args:
        free: whether what it forks reads and writes what this process may, with its variables, in its folder.
    """

    def __init__(self, free: bool = False) -> None:
        ours, theirs = socket.socketpair()
        wrapper = () if free else bubblewrap()
        command = [*wrapper, sys.executable, "-P", "-m", "fedbench.isolation.child", str(theirs.fileno())]
        command += ["free"] if free else ["wrapped"] if wrapper else []
        try:
            self._process = subprocess.Popen(
                command, env=environment(free), cwd=None if free else "/", stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, pass_fds=(theirs.fileno(),), start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            raise FedbenchError(f"no process could be started for the entry: {error.strerror or error}.") from None
        finally:
            theirs.close()
        self._control, self._lock, self.owner, self.free = ours, threading.Lock(), os.getpid(), free
        self._control.settimeout(_PATIENCE)
        self._lines = ours.makefile("rb")

    def fork(self, limits: Limits, optimizers: bool = False) -> tuple[int, socket.socket]:
        """A fresh process: its number, and the socket that leads to it.

        Args:
            limits: of it. optimizers: whether those of torch are imported for all from now on; else it may do so itself.
        """
        ours, theirs = socket.socketpair()
        for each in (ours, theirs):
            for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
                with contextlib.suppress(OSError):
                    each.setsockopt(socket.SOL_SOCKET, option, 4 << 20)
        try:
            with theirs:
                return int(self.asked("fork", theirs, optimizers=optimizers, **asdict(limits))["pid"]), ours
        except BaseException:
            ours.close()
            raise

    def asked(self, what: str, handed: socket.socket | None = None, **more: Any) -> dict[str, Any]:
        """What the process answers.

        Raises:
            FedbenchError: it is gone, or too slow.
        """
        why = "is gone"
        order = json.dumps({"what": what, **more}).encode() + b"\n"
        with self._lock:
            try:
                socket.send_fds(self._control, [order], [] if handed is None else [handed.fileno()])
                line = self._lines.readline(1 << 16)
            except OSError as error:
                line = b""
                if isinstance(error, TimeoutError):
                    why = f"did not answer within {_PATIENCE:g} s: the machine is too busy"
        if not line:
            self.close()
            raise FedbenchError(f"the process that starts processes of entries {why}.")
        found: dict[str, Any] = json.loads(line)
        return found

    @property
    def there(self) -> bool:
        """Whether it can be asked."""
        return self.owner == os.getpid() and self._process.poll() is None and self._control.fileno() >= 0

    def close(self) -> None:
        """End it, and all that it has forked."""
        if self.owner != os.getpid():
            return
        self._lines.close()
        self._control.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(2)
        self._process.kill()
        self._process.wait()


_KEPT: list[Nursery] = []


def nursery(free: bool = False) -> Nursery:
    """That of this process, started when first asked for."""
    for each in _KEPT:
        if each.free == free and each.there:
            return each
    _KEPT.append(Nursery(free))
    return _KEPT[-1]


def close() -> None:
    """End that of this process, if there is one; another begins when it is needed."""
    while _KEPT:
        _KEPT.pop().close()


atexit.register(close)
