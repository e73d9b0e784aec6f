"""Stand-ins for ``fedbench.runs.run.execute``, for tests of what runs the runs."""

from __future__ import annotations

import dataclasses
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fedbench
import fedbench.runs.results
from fedbench.errors import UserError
from fedbench.runs.devices import Memory
from fedbench.runs.record import RunRecord
from fedbench.runs.run import Progress
from fedbench.scenarios.scenario import Scenario


def by_attack(
    scenario: Scenario,
    seed: int,
    *,
    device: str = "cpu",
    suite: str | None = None,
    on_evaluation: Callable[[Progress], None] | None = None,
    **options: Any,
) -> RunRecord:
    """The real thing, except that ``random`` kills its process, ``popular`` is refused and ``a-ra`` fails."""
    if scenario.attack == "random":
        os._exit(7)
    if scenario.attack == "popular":
        raise UserError("the target is not among the items.")
    record = fedbench.run(scenario, seed, device=device, suite=suite, on_evaluation=on_evaluation, **options)
    if scenario.attack == "a-ra":
        return dataclasses.replace(record, status="failed", error="ValueError: by design\ntraceback")
    return record


def slow(scenario: Scenario, seed: int, **options: Any) -> RunRecord:
    """The real thing, and then a minute of sleep, except for seed 0."""
    record = fedbench.run(scenario, seed, **options)
    if seed:
        time.sleep(60)
    return record


def stubborn(scenario: Scenario, seed: int, **options: Any) -> RunRecord:
    """``slow``, through code that turns whatever stops it into an error of its own, as compiled libraries do."""
    try:
        return slow(scenario, seed, **options)
    except BaseException as stop:
        raise ValueError("an error of its own") from stop


def slow_disk(scenario: Scenario, seed: int, **options: Any) -> RunRecord:
    """The real thing; writing the record of a run after it takes a second, at whose begin the suite is told to stop."""
    record = fedbench.run(scenario, seed, **options)
    write = fedbench.runs.results.write_record

    def slowly(*args: Any) -> Any:
        os.kill(os.getppid(), signal.SIGTERM)
        time.sleep(1)
        return write(*args)

    fedbench.runs.results.write_record = slowly
    return record


def on_gpu(scenario: Scenario, seed: int, *, device: str = "cpu", **options: Any) -> RunRecord:
    """The real thing on the CPU, which takes half a second more; its error says on which GPU it was, from when to when."""
    begin = time.time()
    record = fedbench.run(scenario, seed, **options)
    time.sleep(0.5)
    place = os.environ["CUDA_VISIBLE_DEVICES"]
    return dataclasses.replace(record, error=f"{device} {place} {begin} {time.time()}")


def on_gpu_or_dies(scenario: Scenario, seed: int, *, device: str = "cpu", **options: Any) -> RunRecord:
    """The real thing on the CPU, whose error says on which device and GPU; seed 2 dies.

    Runs wait until three processes have met in the folder ``FAKE_RUNS_MEET``, a minute at most.
    """
    if seed == 2:
        os._exit(7)
    met = Path(os.environ["FAKE_RUNS_MEET"])
    (met / str(os.getpid())).touch()
    end = time.monotonic() + 60
    while len(list(met.iterdir())) < 3 and time.monotonic() < end:
        time.sleep(0.05)
    record = fedbench.run(scenario, seed, **options)
    return dataclasses.replace(record, error=f"{device} {os.environ.get('CUDA_VISIBLE_DEVICES', 'none')}")


def twelve_gigabytes() -> Memory:
    """Of a GPU with 12 GiB free, on which every run takes four."""
    return Memory(12 * 2**30, 4 * 2**30)
