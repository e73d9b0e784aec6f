"""A worker process: receives one run at a time, executes it and writes its record."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedbench.errors import ResultsError, UserError
from fedbench.files import Place
from fedbench.plugins import Given, load_given
from fedbench.runs.devices import Memory
from fedbench.scenarios.scenario import Scenario

if TYPE_CHECKING:
    from fedbench.federation.simulation import Federation
    from fedbench.runs.claims import Claim

EXECUTE = "fedbench.runs.run:run_as_set"
"""``module:function`` that turns a scenario and a seed into a record."""


@dataclass(frozen=True)
class Order:
    """What a worker is asked to run; plain values, so that it can travel anywhere."""

    run_id: str
    scenario: str
    """Its canonical JSON."""
    seed: int
    suite: str | None
    device: str
    results: Path
    execute: str = EXECUTE
    diagnose_every: int | None = None
    """Keep diagnostics of every so many rounds; None: none."""
    place: Place | None = None
    """The folder of the results, marked; None: it is not watched."""
    files: tuple[Given, ...] = ()
    """Files with entries that the scenario may name; one whose content has changed is refused."""
    ended: str = ""
    """What stood in the claim on the run when it was planned; if that has changed, somebody else has run it since."""
    stamp: int = 0
    """Of its record at that time, :func:`fedbench.runs.results.stamps`; the same holds."""
    patience: float = 0.0
    """Seconds to wait for somebody else who is running it."""


@dataclass(frozen=True)
class Ready:
    """The worker waits for an order."""

    memory: Memory | None = None
    """Of its GPU."""


@dataclass(frozen=True)
class Began:
    """A run begins: nobody else is running it."""


@dataclass(frozen=True)
class Elsewhere:
    """Somebody else is running this, in the same folder; with ``ended``, has run it."""

    ended: bool


@dataclass(frozen=True)
class Step:
    """A run was evaluated, or is at a ``stage`` before its first epoch."""

    epoch: int
    epochs: int
    metrics: Mapping[str, float]
    stage: str = ""


@dataclass(frozen=True)
class Done:
    """A run ended and its record is on the disk."""

    status: str
    error: str | None
    seconds: float
    metrics: Mapping[str, float]
    warnings: Sequence[str] = ()
    memory: Memory | None = None
    """Of the GPU, after it."""


@dataclass(frozen=True)
class Refused:
    """A run could not begin, by a mistake that only the user can mend. With ``fatal`` no other run can succeed."""

    error: str
    fatal: bool = False


Message = Ready | Began | Elsewhere | Step | Done | Refused

LOST = 3
"""A run that was lost so often, with whoever ran it and could have said why, is not tried again, but has failed."""
STOPPED = 128 + signal.SIGTERM
"""Exit code of a worker that was told to stop."""


def work(connection: Connection, threads: int | None, measure: str | None = None) -> None:
    """Serve orders until None comes, the other end disappears, or SIGTERM.

    SIGTERM lets a record that is being written become whole, and be announced, first. SIGINT is ignored, and SIGHUP: they
    reach all processes of a terminal, and it is the parent who decides.

    Args:
        connection: orders come in, messages go out. threads: for torch; None: its own choice.
        measure: ``module:function`` that tells of the memory of the GPU; None: there is none.
    """
    for number in (signal.SIGINT, getattr(signal, "SIGHUP", signal.SIGINT)):
        signal.signal(number, signal.SIG_IGN)
    keeper = _Keeper()
    signal.signal(signal.SIGTERM, keeper.stop)
    warnings.simplefilter("ignore")  # they would tear the progress display; the parent has shown its own
    import torch

    if threads is not None:
        torch.set_num_threads(threads)
    try:
        connection.send(Ready(memory(measure)))
        while (order := connection.recv()) is not None:
            _serve(order, connection, keeper, measure)
    except (EOFError, OSError):
        sys.exit(1)  # nobody is there any more


def moved(order: Order) -> bool:
    """Whether the folder of the results was moved, renamed or removed since the suite began."""
    return order.place is not None and order.place.moved


def rescue_folder(order: Order) -> Path:
    """Where records go whose folder is gone: making it again would split them over two, unsaid."""
    return order.results.with_name(f"{order.results.name}.rescued")


def gone(order: Order) -> str:
    """What to say of it."""
    return f"the results folder {str(order.results)!r} was moved, renamed or removed while the suite ran; it stops."


def ended_since(order: Order, mine: Claim) -> bool:
    """Whether somebody else has run it since it was planned; they may have been killed before they could say so."""
    from fedbench.runs.results import stamp_of

    return mine.ended != order.ended or stamp_of(order.results, order.run_id) not in (0, order.stamp)


class _Keeper:
    """Ends the process at SIGTERM, but not while a record is being written.

    Attributes:
        mine: the run under way, which is given up then.
    """

    def __init__(self) -> None:
        self._writing = False
        self._stopped = False
        self.mine: Claim | None = None

    def stop(self, *_: object) -> None:
        self._stopped = True
        if not self._writing:
            with contextlib.suppress(OSError):
                if self.mine is not None:
                    self.mine.give_up()
            os._exit(STOPPED)  # no exception: the code that it would pass through may turn it into an error of its own

    def __enter__(self) -> None:
        self._writing = True

    def __exit__(self, *_: object) -> None:
        self._writing = False
        if self._stopped:
            os._exit(STOPPED)


def memory(measure: str | None) -> Memory | None:
    """What the function ``module:function`` says; None, too, where none is named."""
    found = _named(measure)() if measure else None
    return found if isinstance(found, Memory) else None


def _named(name: str) -> Any:
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)


def _isolated(path: str, kind: Any) -> Any:
    from fedbench.isolation.entries import load_isolated

    return load_isolated(path, kind)


def _serve(order: Order, connection: Connection, keeper: _Keeper, measure: str | None) -> None:
    """Execute one run, unless somebody else does, write its record and say how it ended."""
    from fedbench.runs.claims import claim

    try:
        load_given(order.files, _isolated)
    except UserError as error:
        connection.send(Refused(str(error), fatal=True))
        return
    with claim(order.results, order.run_id, order.patience, begin=False) as mine:
        if mine is None or ended_since(order, mine):
            connection.send(Elsewhere(mine is not None))
            return
        mine.begin()
        connection.send(Began())
        keeper.mine = mine
        try:
            if len(mine.lost) < LOST:
                _execute(order, mine, connection, keeper, measure)
            else:
                _fail(order, mine, connection, keeper)
        finally:
            keeper.mine = None


def _fail(order: Order, mine: Claim, connection: Connection, keeper: _Keeper) -> None:
    """Write down that a run takes along whoever runs it."""
    from fedbench.runs.failure import write_failure

    error = f"{len(mine.lost)} tries were lost with those who ran it: {'; '.join(map(str, mine.lost))}"
    with keeper:
        try:
            write_failure(order.scenario, order.seed, order.suite, order.device, order.results, error, 0.0)
            mine.end()
        except ResultsError as wrong:
            connection.send(Refused(str(wrong), fatal=True))
            return
        connection.send(Done("failed", error, 0.0, {}))


def _execute(order: Order, mine: Claim, connection: Connection, keeper: _Keeper, measure: str | None) -> None:
    from fedbench.runs.diagnostics import Diagnostics, discard
    from fedbench.runs.results import write_record
    from fedbench.runs.uploaded import keep_uploaded

    federation: Federation | None = None

    def watch(started: Federation) -> None:
        nonlocal federation
        federation = started
        if diagnostics is not None:
            diagnostics.watch(started)

    def report(progress: Any) -> None:
        try:
            connection.send(Step(progress.epoch, progress.epochs, dict(progress.metrics)))
        except OSError:
            sys.exit(1)  # the parent is gone; not an error of the run, which must not be recorded as failed

    def look(text: str) -> None:
        try:
            connection.send(Step(0, 0, {}, text))
        except OSError:
            sys.exit(1)

    begin = time.perf_counter()
    execute = _named(order.execute)
    scenario = Scenario(**json.loads(order.scenario))
    options: dict[str, Any] = {"device": order.device, "suite": order.suite, "on_evaluation": report}
    diagnostics = Diagnostics(order.diagnose_every) if order.diagnose_every is not None else None
    try:
        if scenario.resolved.model.reads_features:
            options["on_images"] = look
        record = execute(scenario, order.seed, on_start=watch, **options)
    except UserError as error:
        connection.send(Refused(str(error)))
        return
    with keeper:
        try:
            folder = order.results if not moved(order) else rescue_folder(order)
            # First what lies beside it: where a record is, nothing of its run is still to come.
            if diagnostics is not None:
                diagnostics.write(folder, record.run_id)
            else:
                discard(folder, record.run_id)
            keep_uploaded(federation, folder, record.run_id)
            write_record(record, folder)
            mine.end()
            if folder != order.results:
                raise ResultsError(f"{gone(order)} What ended since is in {str(folder)!r}.")
        except ResultsError as error:
            connection.send(Refused(str(error), fatal=True))
            return
        metrics = {key: value for key, value in record.metrics.items() if value is not None}
        federation = None  # with all its tensors
        seconds, taken = time.perf_counter() - begin, memory(measure)
        connection.send(Done(record.status, record.error, seconds, metrics, tuple(record.warnings), taken))
