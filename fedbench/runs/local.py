"""Worker processes on this machine."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path

from fedbench.errors import FedbenchError, ResultsError
from fedbench.plugins import given
from fedbench.runs.crash import record_crash
from fedbench.runs.plan import Run
from fedbench.runs.reporting import Outcome, Reporter, Summary
from fedbench.runs.worker import EXECUTE, Done, Message, Order, Ready, Refused, Step, work

PATIENCE = 30.0
"""Seconds that interrupted workers get to finish writing before they are killed."""


def default_jobs(device: str) -> int:
    """As many workers as this process may use cores; one on a GPU."""
    if device != "cpu":
        return 1
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def run_local(
    runs: Sequence[Run],
    *,
    results: Path,
    suite: str | None,
    device: str,
    jobs: int,
    reporter: Reporter,
    execute: str = EXECUTE,
    diagnose_every: int | None = None,
) -> Summary:
    """Run everything in ``jobs`` worker processes; each record is written by its worker as soon as it is there.

    A run that fails, or whose process dies, does not stop the others. Workers use one thread each on the CPU, whatever
    ``jobs`` is: the numbers of a run do not depend on it.

    Raises:
        ResultsError: results can no longer be written; what was written before stays.
        FedbenchError: worker processes cannot start.
    """
    files = given()
    orders = {
        run: Order(run.scenario.key, run.seed, suite, device, results, execute, diagnose_every, files) for run in runs
    }
    pool = _Pool(1 if device == "cpu" else None)
    summary = Summary(total=len(runs))
    waiting = deque(runs)
    try:
        with _terminate_as_interrupt():
            for _ in range(min(jobs, len(runs))):
                pool.add()
            while pool.workers:
                for worker, message in pool.messages():
                    run = worker.run
                    if isinstance(message, Step) and run is not None:
                        reporter.evaluated(run, message)
                        continue
                    if message is None and run is None:
                        raise FedbenchError(f"a worker process could not start ({worker.cause()}).")
                    if run is not None and not isinstance(message, Ready):
                        worker.run = None
                        _finish(run, message, worker, orders[run], summary, reporter)
                    if message is None:
                        pool.remove(worker)
                        if waiting:
                            pool.add()
                    elif waiting:
                        worker.run = waiting.popleft()
                        reporter.started(worker.run)
                        worker.give(orders[worker.run])
                    else:
                        pool.dismiss(worker)
    except KeyboardInterrupt:
        summary.interrupted = True
        for worker, message in pool.stop():
            if worker.run is not None and isinstance(message, Done):
                _finish(worker.run, message, worker, orders[worker.run], summary, reporter)
    finally:
        pool.kill()
    return summary


def _finish(
    run: Run, message: Message | None, worker: _Worker, order: Order, summary: Summary, reporter: Reporter
) -> None:
    """Enter the end of a run in the summary and report it."""
    if isinstance(message, Refused):
        if message.fatal:
            raise ResultsError(message.error)
        outcome = Outcome("refused", message.error, 0.0, {})
    elif isinstance(message, Done):
        outcome = Outcome(message.status, message.error, message.seconds, message.metrics, message.warnings)
    else:
        error = f"the worker process died ({worker.cause()})"
        record_crash(order, error, time.time() - worker.began)
        outcome = Outcome("failed", error, time.time() - worker.began, {})
    summary.enter(run, outcome)
    reporter.finished(run, outcome)


@dataclass(eq=False)
class _Worker:
    process: SpawnProcess
    connection: Connection
    run: Run | None = None
    began: float = field(default_factory=time.time)

    def give(self, order: Order) -> None:
        self.began = time.time()
        with contextlib.suppress(OSError):  # a worker that has just died is noticed when its end is read
            self.connection.send(order)

    def cause(self) -> str:
        """Why the process ended."""
        self.process.join(5)
        code = self.process.exitcode
        if code is not None and code < 0:
            name = signal.Signals(-code).name
            return f"{name}, perhaps out of memory" if name == "SIGKILL" else name
        return f"exit code {code}"


class _Pool:
    """The worker processes and the lines to them."""

    def __init__(self, threads: int | None) -> None:
        self._context = multiprocessing.get_context("spawn")
        self._threads = threads
        self.workers: list[_Worker] = []

    def add(self) -> None:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=work, args=(theirs, self._threads), daemon=True)
        with _sheltered_from_interrupts():
            process.start()
        theirs.close()  # so that the end of the process is the end of the line
        self.workers.append(_Worker(process, ours))

    def messages(self, timeout: float | None = None) -> Iterator[tuple[_Worker, Message | None]]:
        """What has come in, at least one message unless time runs out; None: that worker is dead."""
        by_line = {worker.connection: worker for worker in self.workers}
        for line in wait(list(by_line), timeout):
            assert isinstance(line, Connection)
            try:
                message: Message | None = line.recv()
            except (EOFError, OSError):
                message = None
            yield by_line[line], message

    def remove(self, worker: _Worker) -> None:
        worker.connection.close()
        worker.process.join()
        self.workers.remove(worker)

    def dismiss(self, worker: _Worker) -> None:
        with contextlib.suppress(OSError):
            worker.connection.send(None)
        self.remove(worker)

    def stop(self) -> Iterator[tuple[_Worker, Message | None]]:
        """Ask all to stop, and pass on what they still say until they are gone."""
        for worker in self.workers:
            worker.process.terminate()
        deadline = time.monotonic() + PATIENCE
        while self.workers and time.monotonic() < deadline:
            for worker, message in self.messages(timeout=1.0):
                yield worker, message
                if message is None:
                    self.remove(worker)

    def kill(self) -> None:
        for worker in list(self.workers):
            worker.process.kill()
            self.remove(worker)


@contextlib.contextmanager
def _sheltered_from_interrupts() -> Iterator[None]:
    """A process started here never sees Ctrl-C, not even before it can ignore it; for us it waits until the end."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _terminate_as_interrupt() -> Iterator[None]:
    """SIGTERM ends a suite as Ctrl-C does: batch systems send it before they kill."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
