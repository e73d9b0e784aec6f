"""Worker processes on this machine."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections import Counter, deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

from fedbench.errors import FedbenchError, ResultsError
from fedbench.files import Place
from fedbench.plugins import given
from fedbench.runs.begin import begin
from fedbench.runs.crash import record_crash
from fedbench.runs.devices import CPU, GPU, MEASURE, Memory, Room, fewest, numbers
from fedbench.runs.plan import Run
from fedbench.runs.reporting import BY_OTHERS, Outcome, Reporter, Summary
from fedbench.runs.worker import EXECUTE, STOPPED, Began, Done, Elsewhere, Message, Order, Ready, Refused, Step

ELSEWHERE = 2.0
"""Seconds that an idle worker waits for a run that somebody else is running before it looks at the next."""
STARTS = 3
"""So many workers in a row may die before they have anything to do."""
PATIENCE = 30.0
"""Seconds that interrupted workers get to finish writing before they are killed."""


def default_jobs(device: str) -> int:
    """As many workers as this process may use cores; one for each GPU."""
    if device != CPU:
        return len(numbers(device))
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
    place: Place | None = None,
    ended: Mapping[str, str] | None = None,
    stamps: Mapping[str, int] | None = None,
    alone: Collection[Run] = (),
    measure: str = MEASURE,
    cores: Collection[Run] = (),
    core_jobs: int = 1,
) -> Summary:
    """Run everything in ``jobs`` worker processes; each record is written by its worker as soon as it is there.

    A run that fails, or whose process dies, does not stop the others. What somebody else is running in the same folder
    comes last; what they have run since ``ended`` and ``stamps`` were read is kept. Workers use one thread each on the CPU,
    whatever ``jobs`` is: the numbers of a run do not depend on it. On a list of GPUs they take turns, several to a GPU if
    there are more workers, as far as its memory goes (:class:`~fedbench.runs.devices.Room`); runs in ``alone`` have one to
    themselves. Runs in ``cores`` are computed on the CPU at the same time, in ``core_jobs`` more processes.

    Raises:
        ResultsError: results can no longer be written; what was written before stays.
        FedbenchError: worker processes cannot start.
    """
    files = given()
    ended, stamps = ended or {}, stamps or {}
    jobs_at = {CPU: jobs} if device == CPU else {GPU: jobs, CPU: core_jobs}
    placed = {run: CPU if device == CPU or run in cores else GPU for run in runs}
    orders = {
        run: Order(
            run.id, run.scenario.key, run.seed, suite, placed[run], results, execute, diagnose_every, place, files,
            ended=ended.get(run.id, ""), stamp=stamps.get(run.id, 0),
        )
        for run in runs
    }  # fmt: skip
    pool, room = _Pool(numbers(device), measure), Room(alone)
    summary = Summary(total=len(runs))
    waiting = {where: deque(run for run in runs if placed[run] == where) for where in jobs_at}
    elsewhere = {where: deque[Run]() for where in jobs_at}
    idle: list[_Worker] = []
    unborn = 0

    def let_go(worker: _Worker, run: Run, found: Memory | None = None) -> None:
        worker.run = None
        room.end(worker.gpu, run, found)

    def offer() -> None:
        """Give idle workers what is next, if their GPU has room for it; those for whom nothing is left are dismissed."""
        for worker in list(idle):
            ours, late = waiting[worker.where], elsewhere[worker.where]
            queue, patience = (ours, 0.0) if ours else (late, ELSEWHERE)
            if not queue:
                idle.remove(worker)
                pool.dismiss(worker)
            elif room.fits(worker.gpu, queue[0]):
                idle.remove(worker)
                run = worker.run = queue.popleft()
                room.begin(worker.gpu, run)
                worker.give(replace(orders[run], patience=patience))

    try:
        with _Stop() as stop:
            try:
                pool.stop_line = stop.line
                for where, most in jobs_at.items():
                    for _ in range(min(most, len(waiting[where]))):
                        pool.add(where)
                while pool.workers and not stop.asked:
                    for worker, message in pool.messages():
                        run = worker.run
                        if isinstance(message, Step) and run is not None:
                            reporter.evaluated(run, message)
                            continue
                        if isinstance(message, Began) and run is not None:
                            reporter.started(run)
                            continue
                        if isinstance(message, Elsewhere) and run is not None:
                            if message.ended:
                                summary.enter(run, BY_OTHERS)
                                reporter.finished(run, BY_OTHERS)
                            else:
                                elsewhere[worker.where].append(run)
                            let_go(worker, run)
                            run = None
                        if message is None and worker.stopped() and stop.asked_soon():
                            break
                        if isinstance(message, Ready):
                            unborn = 0
                            room.measured(worker.gpu, message.memory)
                        elif run is not None:
                            let_go(worker, run, message.memory if isinstance(message, Done) else None)
                            if not _finish(run, message, worker, orders[run], summary, reporter):
                                elsewhere[worker.where].append(run)
                        elif message is None:
                            unborn += 1
                            if unborn >= STARTS:
                                raise FedbenchError(f"a worker process could not start ({worker.cause()}).")
                        if message is None:
                            idle = [each for each in idle if each is not worker]
                            pool.remove(worker)
                            if waiting[worker.where] or elsewhere[worker.where]:
                                pool.add(worker.where)
                        else:
                            idle.append(worker)
                    if not stop.asked:
                        offer()
                if stop.asked and pool.workers:
                    summary.interrupted = stop.asked
                    for worker, message in pool.stop(stop):
                        if worker.run is not None and isinstance(message, Done):
                            _finish(worker.run, message, worker, orders[worker.run], summary, reporter)
            except ResultsError:  # a record that is being written becomes whole, and no temporary file stays
                for _ in pool.stop(stop):
                    pass
                raise
    finally:
        pool.kill()
    return summary


def _finish(
    run: Run, message: Message | None, worker: _Worker, order: Order, summary: Summary, reporter: Reporter
) -> bool:
    """Enter the end of a run in the summary and report it; False: its process has died, and somebody else has it by now."""
    if isinstance(message, Refused):
        if message.fatal:
            raise ResultsError(message.error)
        outcome = Outcome("refused", message.error, 0.0, {})
    elif isinstance(message, Done):
        outcome = Outcome(message.status, message.error, message.seconds, message.metrics, message.warnings)
    else:
        error = f"the worker process died ({worker.cause()})"
        if not record_crash(order, error, time.time() - worker.began):
            return False
        outcome = Outcome("failed", error, time.time() - worker.began, {})
    summary.enter(run, outcome)
    reporter.finished(run, outcome)
    return True


@dataclass(eq=False)
class _Worker:
    process: SpawnProcess
    connection: Connection
    gpu: int | None = None
    run: Run | None = None
    began: float = field(default_factory=time.time)

    @property
    def where(self) -> str:
        """Where it computes."""
        return CPU if self.gpu is None else GPU

    def give(self, order: Order) -> None:
        self.began = time.time()
        with contextlib.suppress(OSError):  # a worker that has just died is noticed when its end is read
            self.connection.send(order)

    def stopped(self) -> bool:
        """Whether the process was told to end, as all of a group are."""
        self.process.join(5)
        return self.process.exitcode in (STOPPED, -signal.SIGTERM)

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

    def __init__(self, gpus: Sequence[int], measure: str) -> None:
        self._context = multiprocessing.get_context("spawn")
        self._gpus, self._measure = gpus, measure
        self.workers: list[_Worker] = []
        self.stop_line: Connection | None = None

    def add(self, where: str) -> None:
        ours, theirs = self._context.Pipe()
        taken = Counter(worker.gpu for worker in self.workers if worker.gpu is not None)
        gpu = fewest(self._gpus, taken) if where == GPU else None
        told = (theirs, 1 if gpu is None else None, gpu, self._measure)
        process = self._context.Process(target=begin, args=told, daemon=True)
        with _sheltered_from_interrupts():
            process.start()
        theirs.close()  # so that the end of the process is the end of the line
        self.workers.append(_Worker(process, ours, gpu))

    def messages(self, timeout: float | None = None) -> Iterator[tuple[_Worker, Message | None]]:
        """What has come in, at least one message unless time runs out or a signal comes; None: that worker is dead."""
        by_line = {worker.connection: worker for worker in self.workers}
        for line in wait([*by_line, *([self.stop_line] if self.stop_line else [])], timeout):
            assert isinstance(line, Connection)
            if line not in by_line:
                continue
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

    def stop(self, asked: _Stop) -> Iterator[tuple[_Worker, Message | None]]:
        """Ask all to stop, and pass on what they still say until they are gone, or somebody asks once more."""
        self.stop_line = None
        for worker in self.workers:
            worker.process.terminate()
        deadline = time.monotonic() + PATIENCE
        while self.workers and time.monotonic() < deadline and asked.times < 2:
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
    resource_tracker.ensure_running()  # which comes with the first process, and would let interrupts through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Stop:
    """Ctrl-C, SIGTERM (batch systems send it before they kill) and a closed terminal end a suite: at the next message.

    A handler that raised would do so anywhere, in the middle of closing a line or of writing down how a run ended. What was
    told to ignore a signal, as ``nohup`` does, goes on ignoring it.

    Attributes:
        asked: the signal; 0: none came. times: how many came. line: can be read from then on.
    """

    def __init__(self) -> None:
        self.asked = self.times = 0
        self.line, self._bell = multiprocessing.Pipe(duplex=False)
        self._before: dict[int, Any] = {}

    def __enter__(self) -> _Stop:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)):
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before.setdefault(number, signal.signal(number, self._ask))
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self.line.close()
        self._bell.close()

    def asked_soon(self) -> bool:
        """Whether a signal that ended a worker comes here, too: a group gets it one after the other."""
        if not self.asked:
            self.line.poll(1.0)
        return bool(self.asked)

    def _ask(self, number: int, _: object) -> None:
        self.asked = self.asked or number
        self.times += 1
        if self.times == 1:
            self._bell.send_bytes(b"!")
