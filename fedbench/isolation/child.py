"""The process in which processes of entries begin: ``python -m fedbench.isolation.child FD``.

Until :func:`_born` everything here is fedbench's own code; from there on nothing that the process says is believed.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import signal
import socket
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

from fedbench.isolation.limits import Limits

_PLACE = 3
"""The number of the socket in every process of an entry."""


def main(number: int, wrapped: bool) -> None:
    """Fork a process for whoever asks, end it when asked to, and end with whoever began this one."""
    import torch

    import fedbench.isolation.serving  # noqa: F401 - imported once, for all

    torch.set_num_threads(1)
    torch.optim.Adam([torch.zeros(1, requires_grad=True)]).step()  # imports what makes folders of its own
    warnings.simplefilter("ignore")
    gc.freeze()
    control, children = socket.socket(fileno=number), dict[int, int | None]()
    pending = b""
    while True:
        data, handed, _, _ = socket.recv_fds(control, 1 << 16, 4)
        if not data:
            break
        pending += data
        while b"\n" in pending:
            line, pending = pending.split(b"\n", 1)
            answer = _answer(json.loads(line), handed, control, children, wrapped)
            control.sendall(json.dumps(answer).encode() + b"\n")
    for pid in [pid for pid, code in children.items() if code is None]:
        _end(pid)


def _answer(
    order: dict[str, Any], handed: list[int], control: socket.socket, children: dict[int, int | None], wrapped: bool
) -> dict[str, Any]:
    what = order.pop("what")
    if what == "fork":
        pid = os.fork()
        if pid == 0:
            control.close()
            _born(handed[0], Limits(**order), wrapped)
        os.close(handed[0])
        children[pid] = None
        return {"pid": pid}
    pid = order["pid"]
    if what == "memory":
        return {"bytes": _memory(pid, order["key"], order["reset"])}
    if children.get(pid) is None:
        if what == "end":
            _end(pid)
        with contextlib.suppress(ChildProcessError):
            done, status = os.waitpid(pid, 0)
            children[pid] = os.waitstatus_to_exitcode(status) if done else None
    return {"code": children.get(pid)}


def _end(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _memory(pid: int, key: str, reset: bool) -> int | None:
    """What the system says of a process's memory: ``VmRSS`` now, or ``VmHWM``, its peak since it was reset."""
    with contextlib.suppress(OSError, ValueError):
        if reset:
            Path(f"/proc/{pid}/clear_refs").write_text("5", encoding="ascii")
        for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
            if line.startswith(f"{key}:"):
                return int(line.split()[1]) * 1024
    return None


def _born(number: int, limits: Limits, wrapped: bool) -> None:
    """The life of a process of an entry, from its first step to its end."""
    code = 1
    try:
        from fedbench.isolation.sandbox import confine
        from fedbench.isolation.serving import serve

        if number != _PLACE:
            os.dup2(number, _PLACE)
        os.closerange(_PLACE + 1, 1 << 12)
        sys.argv = [""]
        tempfile.tempdir = "/"  # packages ask where files could go when they are imported; there are none to write
        level = confine(limits, wrapped)
        os.environ.clear()
        os.environ.update({"PATH": os.defpath, "HOME": "/", "FEDBENCH_DATA": "/nowhere", "FEDBENCH_CACHE": "/nowhere"})
        serve(socket.socket(fileno=_PLACE), limits, level)
        code = 0
    finally:
        os._exit(code)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:] == ["wrapped"])
