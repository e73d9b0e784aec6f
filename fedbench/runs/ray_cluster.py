"""A suite on a Ray cluster: tasks, each of which is ``fedbench run`` of the whole suite in one shared folder.

As on Slurm (:mod:`fedbench.runs.slurm`) every task takes runs that no other has until none is left, and writes their
records itself: nothing goes through Ray's object store, and a task lives as long as there is work. One that is lost, with
its node or for want of memory, is started again wherever there is room, and it is kept why. Its resources are bookkeeping:
a fraction of a GPU keeps tasks apart, not their memory.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import secrets
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from textwrap import shorten
from typing import Any

from fedbench.errors import UserError

LOGS = ".fedbench-ray"
"""The folder beside the records in which the output of the tasks lies."""
LOST = "lost.log"
"""The file there that says which tasks were lost, when and why."""
TRIES = 4
"""A task is started so often at most."""

_LOOK = 5.0
"""Seconds after which it is looked whether a task that waits for room has nothing left to do."""
_OWN = ("FEDBENCH_", "OMP_", "PYTHONPATH", "PATH")
"""Variables of this process that the tasks have, too."""
_PARENT_DEATH = 1


@dataclass
class Ended:
    """How tasks have ended.

    Attributes:
        codes: exit codes, of those that ended by themselves. lost: of every try that did not, which, when and why.
        interrupted: the signal that stopped all of them; 0: none did.
    """

    codes: list[int] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    interrupted: int = 0


def run_on_ray(
    arguments: Sequence[str],
    results: Path,
    tasks: int,
    cores: int,
    options: Sequence[str],
    done: Callable[[], bool] = lambda: False,
    started: Callable[[], None] = lambda: None,
) -> Ended:
    """``fedbench run`` with these arguments, ``tasks`` times, until all have ended.

    The cluster is that of ``RAY_ADDRESS``, or the one that runs on this machine.

    Args:
        arguments: after ``fedbench run``. results: the folder that all machines see. cores: of each task.
        options: of a Ray task, ``key=value`` each, such as ``num_gpus=0.5`` or ``memory=8000000000``.
        done: whether nothing is left to run; then no task is waited for that has not found room. started: is called once
            they are handed out.

    Raises:
        UserError: Ray or a cluster is not there, or an option is none.
    """
    try:
        import ray
    except ImportError:
        raise UserError("--executor ray needs Ray: pip install '.[ray]' in a checkout of fedbench.") from None
    given = _numbers(options)
    logs = results.absolute() / LOGS
    with contextlib.redirect_stdout(sys.stderr):  # what Ray has to say is no verdict
        try:
            logs.mkdir(parents=True, exist_ok=True)
            ray.init(address="auto", log_to_driver=False, logging_level=logging.ERROR)
            remote = ray.remote(task).options(num_cpus=cores, max_retries=0, **given)
        except (ConnectionError, ValueError, RuntimeError, OSError) as error:
            raise UserError(f"--executor ray: {' '.join(str(error).split())[:300]}.") from None
        handed = _Tasks(ray, remote, list(arguments), logs)

        def stop(number: int, _: object) -> None:
            handed.ended.interrupted = number
            raise KeyboardInterrupt  # nothing else gets through Ray's waiting

        before = signal.signal(signal.SIGTERM, stop)  # in place of Ray's handler, which ends the process with a trace
        try:
            for number in range(tasks):
                handed.start(number)
            started()
            while handed.waiting:
                for number in handed.lost_since():
                    if handed.tries[number] < TRIES and not done():
                        handed.start(number)
                if handed.ended.lost and not handed.begun() and done():
                    break
        except KeyboardInterrupt:
            handed.ended.interrupted = handed.ended.interrupted or signal.SIGINT
        finally:
            ray.shutdown()  # which ends what still runs
            signal.signal(signal.SIGTERM, before)
    return handed.ended


class _Tasks:
    """Those handed out: which are under way, how often each was started, and how they ended."""

    def __init__(self, ray: Any, remote: Any, arguments: Sequence[str], logs: Path) -> None:
        self._ray, self._remote, self._logs = ray, remote, logs
        self._job = f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
        variables = {key: value for key, value in os.environ.items() if key.startswith(_OWN)}
        self._told = (arguments, os.getcwd(), variables)
        self.waiting: dict[Any, int] = {}
        self.tries = Counter[int]()
        self.ended = Ended()

    def start(self, number: int) -> None:
        """Start a task, or start it again."""
        self.tries[number] += 1
        self.waiting[self._remote.remote(*self._told, str(self._log(number)))] = number

    def begun(self) -> bool:
        """Whether any of those that are waited for has found room."""
        return any(self._log(number).exists() for number in self.waiting.values())

    def lost_since(self) -> list[int]:
        """Wait for some time, or until a task ends; which did not end by themselves."""
        lost = []
        for each in self._ray.wait(list(self.waiting), timeout=_LOOK)[0]:
            number = self.waiting.pop(each)
            try:
                code = self._ray.get(each)
            except self._ray.exceptions.RayError as error:
                why = _reason(error)
            else:
                why = f"killed by {signal.Signals(-code).name}" if code < 0 else ""
                self.ended.codes += [code] if code >= 0 else []
            if why:
                self.ended.lost.append(_keep(self._logs, number, self.tries[number], why))
                lost.append(number)
        return lost

    def _log(self, number: int) -> Path:
        """The file of a task's output, which is there once it has begun."""
        return self._logs / f"{self._job}-task-{number}.{self.tries[number]}.log"


def task(arguments: Sequence[str], folder: str, variables: dict[str, str], said: str) -> int:
    """What a task does: its exit code; negative: the signal that killed it. Its output goes to the file ``said``."""
    command = [sys.executable, "-m", "fedbench", "run", *arguments]
    with open(said, "ab") as out:
        return subprocess.run(
            command, cwd=folder, env={**os.environ, **variables}, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
            check=False, preexec_fn=_with_its_parent,
        ).returncode  # fmt: skip


def _with_its_parent() -> None:
    """Let a process be told to stop when the one that started it is gone: its node is lost, or nobody waits for it."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_PARENT_DEATH, signal.SIGTERM, 0, 0, 0)


def _numbers(options: Sequence[str]) -> dict[str, float]:
    given: dict[str, float] = {}
    for option in options:
        key, _, value = option.partition("=")
        try:
            given[key] = float(value) if "." in value else int(value)
        except ValueError:
            raise UserError(f"--ray {option!r} must be KEY=NUMBER, such as num_gpus=0.5.") from None
    return given


def _reason(error: Exception) -> str:
    """Why Ray has lost a task, on one line."""
    text = " ".join(str(error).split()) or "no more is known"
    return f"{type(error).__name__}: {shorten(text, 240, placeholder=' ...')}"


def _keep(logs: Path, number: int, tries: int, why: str) -> str:
    """Write down that a task was lost."""
    line = f"task {number}, try {tries}: {why}"
    with contextlib.suppress(OSError), (logs / LOST).open("a", encoding="utf-8") as out:
        out.write(f"{datetime.now(UTC).isoformat(timespec='seconds')} {line}\n")
    return line
