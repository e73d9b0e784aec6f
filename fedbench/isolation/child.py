"""The process in which processes of entries begin: ``python -m fedbench.isolation.child FD``.

Until :func:`_born` everything here is fedbench's own code; from there on nothing that the process says is believed.
"""

from __future__ import annotations

import contextlib
import functools
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


def main(number: int, how: str) -> None:
    """Fork a process for whoever asks, end it when asked to, and end with whoever began this one."""
    gc.disable()  # nothing of this is garbage
    import torch

    import fedbench.isolation.serving  # noqa: F401 - imported once, for all

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    gc.enable()
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
            answer = _answer(json.loads(line), handed, control, children, how)
            control.sendall(json.dumps(answer).encode() + b"\n")
    for pid in [pid for pid, code in children.items() if code is None]:
        _end(pid)


def _answer(
    order: dict[str, Any], handed: list[int], control: socket.socket, children: dict[int, int | None], how: str
) -> dict[str, Any]:
    what = order.pop("what")
    if what == "fork":
        if order.pop("optimizers"):
            _import_optimizers()
        pid = os.fork()
        if pid == 0:
            control.close()
            _born(handed[0], Limits(**order), how)
        os.close(handed[0])
        children[pid] = None
        return {"pid": pid}
    pid = order["pid"]
    if what == "memory":
        return {"bytes": _peak(pid, order["reset"])}
    if children.get(pid) is None:
        if what == "end":
            _end(pid)
        with contextlib.suppress(ChildProcessError):
            done, status = os.waitpid(pid, 0)
            children[pid] = os.waitstatus_to_exitcode(status) if done else None
    return {"code": children.get(pid)}


@functools.cache
def _import_optimizers() -> None:
    """Take a first step of an optimizer of torch, which imports for more than a second of the processor."""
    import torch

    torch.optim.Adam([torch.zeros(1, requires_grad=True)]).step()
    gc.freeze()


def _end(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _peak(pid: int, reset: bool) -> int | None:
    """What the system says of a process's memory at its peak, which is counted anew first where that is allowed."""
    if reset:
        with contextlib.suppress(OSError):
            Path(f"/proc/{pid}/clear_refs").write_text("5", encoding="ascii")
    with contextlib.suppress(OSError, ValueError):
        for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return None


def _born(number: int, limits: Limits, how: str) -> None:
    """The life of a process of an entry, from its first step to its end."""
    code = 1
    try:
        from fedbench.isolation.sandbox import confine
        from fedbench.isolation.serving import serve

        if number != _PLACE:
            os.dup2(number, _PLACE)
        os.closerange(_PLACE + 1, 1 << 12)
        sys.argv = [""]
        free = how == "free"
        if not free:
            tempfile.tempdir = "/"  # packages ask where files could go when they are imported; there are none to write
        level = confine(limits, how == "wrapped", free)
        if not free:
            nowhere = dict.fromkeys(("FEDBENCH_DATA", "FEDBENCH_CACHE"), "/nowhere")
            os.environ.clear()
            # The last: torch makes that folder when its optimizers are imported; this one is there.
            os.environ.update({"PATH": os.defpath, "HOME": "/"} | nowhere | {"TORCHINDUCTOR_CACHE_DIR": "/"})
        serve(socket.socket(fileno=_PLACE), limits, level)
        code = 0
    finally:
        os._exit(code)


if __name__ == "__main__":
    main(int(sys.argv[1]), "".join(sys.argv[2:]))
