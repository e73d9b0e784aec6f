"""About how long runs take that no record tells of: a few of their kinds are tried here, for some epochs each.

That is done in a process of its own, which imports torch and is ended when its time is over. Nothing is written.
"""

from __future__ import annotations

import contextlib
import json
import math
import multiprocessing
import signal
import statistics
import time
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection

from fedbench.data.load import resolve, where
from fedbench.errors import FedbenchError
from fedbench.plugins import loaded_files
from fedbench.runs.devices import CPU, GPU
from fedbench.runs.plan import Run
from fedbench.scenarios.scenario import Scenario

MANY = 100
"""From so many runs of unknown length on it is worth a look."""
BUDGET = 15.0
"""Seconds that the trials take together; the last one may be cut off."""
_EPOCHS, _LONG = 4, 1.0
"""A trial has so many epochs, or as many as end in so many seconds after the first."""
_PATIENCE = 60.0
"""Seconds that the process may take to start."""

Kind = tuple[str, str, str, str]
"""Dataset, model, attack and defense."""


@dataclass(frozen=True)
class Cost:
    """Seconds of a run: before its first epoch, of an epoch, and of an evaluation."""

    setup: float
    epoch: float
    evaluation: float

    def of(self, scenario: Scenario, share: float = 1.0) -> float:
        """Seconds of all of a run, whose epochs take ``share`` times as long."""
        protocol = scenario.resolved.protocol
        evaluations = math.ceil(protocol.epochs / protocol.evaluate_every)
        return self.setup + share * (protocol.epochs * self.epoch + evaluations * self.evaluation)


def calibrated(runs: Sequence[Run], device: str, budget: float = BUDGET) -> dict[Run, float]:
    """Expected seconds of each run that anything tried tells of.

    A run costs what its kind did; else the median of what was tried of its dataset, model and attack, of its dataset and
    model, or of its model, by the interactions of its dataset.
    """
    return _expected(runs, _tried(_worth_trying(runs), device, budget))


class Faster:
    """Which runs the cores of this machine end sooner than its GPU, by trials on both.

    A run is for the cores where its seconds on one core, divided by the runs that cores do at once, are fewer than its
    seconds on the GPU, divided by the runs that it does at once. What no trial tells of is for the GPU: entries from files,
    models that read images.

    Args:
        cores: runs that are on the CPU at once. gpu_jobs: that are on the GPU. budget: seconds of the trials on each of them.
    """

    def __init__(self, cores: int, gpu_jobs: int, budget: float = BUDGET) -> None:
        self.cores, self.gpu_jobs = cores, gpu_jobs
        self._budget = budget
        self._asked: set[Kind] = set()
        self._costs: dict[str, dict[Kind, Cost]] = {CPU: {}, GPU: {}}

    def on_cores(self, runs: Sequence[Run]) -> frozenset[Run]:
        """Those of ``runs``; kinds that were asked for before are not tried again."""
        new = [run for run in _worth_trying(runs) if _kind(run.scenario) not in self._asked]
        self._asked.update(_kind(run.scenario) for run in new)
        for device, costs in self._costs.items():
            costs.update(_tried(new, device, self._budget))
        cpu, gpu = (_expected(runs, costs) for costs in self._costs.values())
        cores, gpu_jobs = min(self.cores, len(runs)), min(self.gpu_jobs, len(runs))
        return frozenset(run for run in runs if run in cpu and run in gpu and cpu[run] / cores < gpu[run] / gpu_jobs)


def _kind(scenario: Scenario) -> Kind:
    return scenario.dataset, scenario.model, scenario.attack, scenario.defense


def _worth_trying(runs: Iterable[Run]) -> list[Run]:
    """A run of each kind whose data are here and whose entries come with fedbench, models in turn, small data first."""
    foreign = {(each.kind, each.name) for each in loaded_files()}
    groups: dict[tuple[str, str], dict[Kind, Run]] = {}
    for run in runs:
        scenario = run.scenario
        named = {("attack", scenario.attack), ("model", scenario.model), ("dataset", scenario.dataset)}
        named |= {("defense", name) for name in scenario.defense.split("+")}
        if named.isdisjoint(foreign) and _is_here(scenario) and not scenario.resolved.model.reads_features:
            groups.setdefault((scenario.dataset, scenario.model), {}).setdefault(_kind(scenario), run)
    ordered = sorted(groups.items(), key=lambda each: _size(each[0][0]))
    lists = [list(kinds.values()) for _, kinds in ordered]
    return [kinds[place] for place in range(max(map(len, lists), default=0)) for kinds in lists if place < len(kinds)]


def _is_here(scenario: Scenario) -> bool:
    return where(resolve(scenario.dataset), scenario.resolved.protocol.split) is not None


def _size(dataset: str) -> int:
    return resolve(dataset).interactions


def _tried(runs: Sequence[Run], device: str, budget: float) -> dict[Kind, Cost]:
    """What a trial of each run cost, of as many as there was time for."""
    costs: dict[Kind, Cost] = {}
    if not runs:
        return costs
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(
        target=_try_all, args=(theirs, [(run.scenario.key, run.seed) for run in runs], device), daemon=True
    )
    process.start()
    theirs.close()
    try:
        end = time.monotonic() + _PATIENCE
        while (left := end - time.monotonic()) > 0 and ours.poll(left):
            place, cost = ours.recv()
            if place is None:  # it has begun
                end = time.monotonic() + budget
            elif cost is not None:
                costs[_kind(runs[place].scenario)] = cost
    except (EOFError, OSError):  # it has ended
        pass
    finally:
        process.kill()
        process.join()
        ours.close()
    return costs


def _try_all(told: Connection, runs: Sequence[tuple[str, int]], device: str) -> None:
    """Tell, run by run, its place and what it cost; None where that could not be found out."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever has started this ends it
    try:
        import torch

        from fedbench.runs.run import Progress, run
    except ImportError:  # an installation that reads records only
        return
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")

    def trial(key: str, seed: int) -> Cost | None:
        scenario = Scenario(**json.loads(key))
        short = replace(scenario, protocol_params={**scenario.protocol_params, "epochs": _EPOCHS, "evaluate_every": 1})
        ends: list[float] = []

        def note(_: Progress) -> None:
            ends.append(time.perf_counter())
            if ends[-1] - ends[0] > _LONG:
                raise TimeoutError

        began = time.perf_counter()
        try:
            record = run(short, seed, device=device, on_evaluation=note)
        except (FedbenchError, RuntimeError):  # such as memory that a GPU does not have
            return None
        if not ends:
            return None
        evaluation = record.seconds_evaluate / len(ends)
        first = ends[0] - began - record.seconds_setup
        later = (ends[-1] - ends[0]) / (len(ends) - 1) if len(ends) > 1 else first  # the first one is slower
        return Cost(record.seconds_setup, max(later - evaluation, 0.0), evaluation)

    with contextlib.suppress(OSError):
        trial(*runs[0])  # what is slow the first time
        told.send((None, None))
        for place, (key, seed) in enumerate(runs):
            told.send((place, trial(key, seed)))
        told.close()


def _expected(runs: Sequence[Run], costs: Mapping[Kind, Cost]) -> dict[Run, float]:
    near: dict[tuple[str, ...], list[Cost]] = {}
    of_model: dict[str, list[tuple[Cost, int]]] = {}
    for kind, cost in costs.items():
        for size in (4, 3, 2):
            near.setdefault(kind[:size], []).append(cost)
        of_model.setdefault(kind[1], []).append((cost, max(_size(kind[0]), 1)))
    found: dict[Run, float] = {}
    for run in runs:
        kind = _kind(run.scenario)
        tried = next((near[kind[:size]] for size in (4, 3, 2) if kind[:size] in near), None)
        if tried is not None:
            found[run] = statistics.median(cost.of(run.scenario) for cost in tried)
        elif kind[1] in of_model and _size(kind[0]):
            scaled = [cost.of(run.scenario, _size(kind[0]) / size) for cost, size in of_model[kind[1]]]
            found[run] = statistics.median(scaled)
    return found
