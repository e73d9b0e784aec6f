"""One run: a scenario and a seed go in, a record comes out."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import torch

from fedbench.data import Split
from fedbench.defenses.chain import Chain
from fedbench.defenses.purifier import Purifier
from fedbench.errors import Diverged, ThreatModelViolation, UserError
from fedbench.evaluation.displacement import by_subgroup, shown_to
from fedbench.evaluation.measurement import Measurement
from fedbench.federation.attack import Attack
from fedbench.federation.defense import Defense
from fedbench.federation.population import Task
from fedbench.federation.simulation import Federation
from fedbench.isolation.entries import REMOTE
from fedbench.runs.code import Code
from fedbench.runs.environment import environment
from fedbench.runs.identity import identity
from fedbench.runs.record import RunRecord, summarize_curve
from fedbench.runs.task import split_of, task_of
from fedbench.runs.uploads import image_columns
from fedbench.scenarios.scenario import POPULAR_TARGETS, Scenario
from fedbench.texts import count
from fedbench.threads import threads as on_threads


@dataclass(frozen=True)
class Progress:
    """Where a run stands, told after every evaluation."""

    epoch: int
    epochs: int
    metrics: Mapping[str, float]


def run(
    scenario: Scenario,
    seed: int,
    *,
    device: str = "cpu",
    suite: str | None = None,
    on_evaluation: Callable[[Progress], None] | None = None,
    on_start: Callable[[Federation], None] | None = None,
    on_images: Callable[[str], None] | None = None,
    threads: int | None = 1,
) -> RunRecord:
    """Run ``scenario`` once with ``seed``.

    A run that diverges or fails still gives a record, with its status, its error and the curve up to there.

    Args:
        scenario: what to run. seed: root of all its random streams.
        device: ``"cpu"`` or ``"cuda"``. suite: the name to note in the record.
        on_evaluation: called after every evaluation. on_start: called before the first round.
        on_images: told now and then, before that, how many of the images are read or purified.
        threads: of torch while it runs. On more than one, rounds this small are seldom faster, on a busy machine many times
            slower, and sums may come out in another order; None: as many as torch has been set to.

    Raises:
        UserError: for what no run can mend: unknown names, impossible combinations, missing data.
    """
    with repeatable(torch.device(device)), contextlib.nullcontext() if threads is None else on_threads(threads):
        return _run(scenario, seed, device, suite, on_evaluation, on_start, on_images)


def _run(
    scenario: Scenario,
    seed: int,
    device: str,
    suite: str | None,
    on_evaluation: Callable[[Progress], None] | None,
    on_start: Callable[[Federation], None] | None,
    on_images: Callable[[str], None] | None,
) -> RunRecord:
    keep_freed_memory()
    started, begin = datetime.now(UTC), time.perf_counter()
    where = torch.device(device)
    if where.type == "cuda":
        if not torch.cuda.is_available():
            raise UserError("device 'cuda': torch sees no GPU here; use --device cpu.")
        torch.cuda.reset_peak_memory_stats(where)
    known = identity(scenario, seed, suite)
    resolved = scenario.resolved
    protocol = resolved.protocol
    split = split_of(scenario, seed)
    code = Code()
    attack, defense = resolved.attack(), resolved.defense()
    tell = _counter(on_images)
    task = task_of(scenario, split, where, tell("features"), seed)
    for part in _parts(defense):
        if isinstance(part, Purifier):
            part.progress = tell("purified")
    curve: list[dict[str, float]] = []
    status, error = "ok", None
    wrong: UserError | None = None
    federation: Federation | None = None
    measure: Measurement | None = None
    setup = time.perf_counter() - begin
    try:
        federation = Federation(task, resolved.model, attack, defense, scenario.malicious_ratio, protocol, seed, where)
        measure = Measurement(federation, split)
        if on_start is not None:
            on_start(federation)
        setup = time.perf_counter() - begin
        for epoch in range(1, protocol.epochs + 1):
            federation.train_epoch()
            if epoch % protocol.evaluate_every == 0 or epoch == protocol.epochs:
                before = time.perf_counter()
                federation.check_finite()
                _check(code)
                metrics = measure()
                federation.seconds.evaluate += time.perf_counter() - before
                curve.append({"epoch": epoch, **metrics})
                if on_evaluation is not None:
                    on_evaluation(Progress(epoch, protocol.epochs, metrics))
    except Diverged as stop:
        status, error = "diverged", str(stop)
    except UserError as mistake:
        wrong = mistake
    except Exception as failure:  # whatever an attack or a defense raises ends its run, not the suite
        status, error = "failed", f"{type(failure).__name__}: {failure}\n{traceback.format_exc(limit=-4)}"
    try:
        _check(code)
    except ThreatModelViolation as stop:
        status, error, curve, wrong = "failed", f"{type(stop).__name__}: {stop}", [], None
    if wrong is not None:
        raise wrong
    places = measure.target_places() if measure and curve else None
    return RunRecord(
        **known,
        **_data_columns(split),
        num_malicious=task.num_malicious,
        target_items=task.targets.tolist(),
        status=status,
        error=error,
        epochs_planned=protocol.epochs,
        epochs_done=federation.epoch if federation else 0,
        rounds=federation.round if federation else 0,
        refused_uploads=federation.refused if federation else 0,
        ranking=protocol.ranking,
        **summarize_curve(curve, protocol.epochs),
        seconds_total=time.perf_counter() - begin,
        seconds_setup=setup,
        seconds_train=federation.seconds.train if federation else 0.0,
        seconds_attack=federation.seconds.attack if federation else 0.0,
        seconds_evaluate=federation.seconds.evaluate if federation else 0.0,
        **image_columns(federation, split),
        isolation=_isolation(attack, *_parts(defense)),
        target_places=places,
        **_subgroup_columns(task, places),
        sampled_users=measure.sampled_users if measure else None,
        sampling_errors=measure.sampling_errors() if measure and curve else {},
        peak_gpu_bytes=torch.cuda.max_memory_allocated(where) if where.type == "cuda" else None,
        started_at=started,
        **environment(device),
        **_sanity(scenario, split, task, federation, measure, curve),
    )


def _parts(defense: Defense) -> list[Defense]:
    return defense.parts if isinstance(defense, Chain) else [defense]


def _isolation(*entries: Attack | Defense) -> str:
    """How those are confined that live in processes of their own; ``none``: there are no such."""
    levels = sorted(each.isolation for each in entries if isinstance(each, REMOTE))
    return levels[0] if levels else "none"


def _sanity(
    scenario: Scenario,
    split: Split,
    task: Task,
    federation: Federation | None,
    measure: Measurement | None,
    curve: Sequence[Mapping[str, float]],
) -> dict[str, Any]:
    """The columns that say what may mislead in a run's numbers."""
    said = list(measure.warnings) if measure is not None else []
    ratio = scenario.malicious_ratio
    if ratio and split.num_users * ratio < 1 - 1e-9:
        said.append(
            f"malicious_ratio is less than one client: {ratio:g} of {count(split.num_users, 'user')}; one is malicious, which"
            f" is {100 / split.num_users:.2g} %"
        )
    if federation is not None:
        cohort, wanted = federation.population.cohort_size, federation.protocol.clients_per_round
        if wanted >= 1 and cohort < wanted:
            said.append(f"every round has all clients: there are {cohort:,}, clients_per_round = {wanted:g}")
        if federation.refused:
            said.append(f"uploads were refused, as they were not finite: {federation.refused:,}")
        for part in _parts(federation.defense):
            said += part.warnings()
    places = measure.target_places() if measure is not None and curve else None
    unseen = [
        item for item, each in zip(task.targets.tolist(), places or (), strict=False) if not shown_to(each, 10).any()
    ]
    if unseen and scenario.attack == "none" and scenario.target.startswith(POPULAR_TARGETS):
        said.append(f"nothing to demote: item {unseen[0]} is among nobody's 10 best")
    if measure is not None and measure.sampled_users is not None:
        errors = measure.sampling_errors() if curve else {}
        told = "; ".join(f"{100 * v:.2g} points of {name.removesuffix('_se')}" for name, v in errors.items())
        said.append(
            f"measured of {measure.sampled_users:,} users, drawn at random; standard errors {told or 'not known'}"
        )
    popular = measure.popularity if measure is not None else {}
    shown = "hr_10" if federation is not None and federation.protocol.ranking == "sampled" else "hr_full_10"
    shown = shown if shown in popular else "hr_full_10"
    end = curve[-1].get(shown) if curve else None
    if scenario.attack == "none" and end is not None and end < popular.get(shown, 0.0):
        said.append(
            f"recommends worse than popularity: {shown} = {100 * end:.1f} %, and {100 * popular[shown]:.1f} % when everybody"
            " is recommended the most popular items"
        )
    return {"warnings": said, **{f"popularity_{name}": value for name, value in popular.items()}}


def _subgroup_columns(task: Task, places: Sequence[str] | None) -> dict[str, Any]:
    if task.subgroup is None:
        return {}
    users = task.subgroup.users.tolist()
    return {
        "subgroup_items": task.subgroup.items.tolist(),
        "subgroup_users": users,
        "subgroup": by_subgroup(places, users, (5, 10, 20, 30)),
    }


def _check(code: Code) -> None:
    """Raises :class:`ThreatModelViolation` when code that computes the run was replaced, after it was put back."""
    changed = code.restore()
    if changed:
        raise ThreatModelViolation(
            f"{changed} was replaced while the run was under way: no attack or defense may do that."
        )


def _counter(on_images: Callable[[str], None] | None) -> Callable[[str], Callable[[int, int], None] | None]:
    """Of what is counted, the function that tells how much of it is done."""

    def counter(what: str) -> Callable[[int, int], None] | None:
        return None if on_images is None else lambda done, total: on_images(f"{what} {done:,}/{total:,}")

    return counter


def _data_columns(split: Split) -> dict[str, Any]:
    report = split.report
    dropped = report.duplicates == "drop"
    return {
        "dataset": split.dataset,
        "split": split.split,
        "dataset_fingerprint": split.fingerprint,
        "num_users": split.num_users,
        "num_items": split.num_items,
        "num_interactions": len(split.train),
        "duplicates_removed": (report.train_duplicates + report.heldout_duplicates) if dropped else 0,
        "leaked_removed": report.leaked if dropped else 0,
    }


def run_as_set(scenario: Scenario, seed: int, **options: Any) -> RunRecord:
    """:func:`run` on as many threads as torch has been set to: what workers do, who are told a number."""
    return run(scenario, seed, threads=None, **options)


@contextlib.contextmanager
def repeatable(device: torch.device) -> Iterator[None]:
    """On a GPU, have torch add up in an order of its own choice that is the same every time.

    Its kernels add with atomics otherwise, and two runs of one seed differ. Those of its operations that have no such kernel
    warn. Sorting before adding costs time, in proportion to the rows that are added. On a CPU nothing is changed.
    """
    if device.type != "cuda":
        yield
        return
    settings: Any = torch.utils.deterministic
    os.environ.setdefault(
        "CUBLAS_WORKSPACE_CONFIG", ":4096:8"
    )  # without it products of matrices are not the same, either
    level, fill = torch.get_deterministic_debug_mode(), settings.fill_uninitialized_memory
    torch.set_deterministic_debug_mode("warn")
    settings.fill_uninitialized_memory = False  # nothing here reads what it has not written
    try:
        yield
    finally:
        torch.set_deterministic_debug_mode(level)
        settings.fill_uninitialized_memory = fill


@functools.cache
def keep_freed_memory() -> None:
    """Ask the C library to keep freed memory for the next round instead of handing it back to the system.

    Rounds allocate the same megabytes over and over; taking them from the system each time costs as much as the
    arithmetic (on Linux, NCF trains 1.4 times faster with this). Elsewhere nothing happens.
    """
    if not sys.platform.startswith("linux"):
        return
    with contextlib.suppress(AttributeError, OSError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD
        mallopt(-3, 2**25)  # M_MMAP_THRESHOLD, at its upper limit
