"""What of a suite has to run, in which order, and about how long that takes."""

from __future__ import annotations

import functools
import itertools
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from fedbench.data import load_split
from fedbench.data.images import has_pictures, load_pictures
from fedbench.data.load import check_split, missing, resolve, where
from fedbench.errors import DataError, ResultsError, UserError
from fedbench.files import probe
from fedbench.plugins import loaded_files
from fedbench.runs.claims import ends
from fedbench.runs.diagnostics import rounds_path
from fedbench.runs.doses import COLUMNS, climbed
from fedbench.runs.identity import source_hash
from fedbench.runs.results import scan, stamps
from fedbench.runs.task import choose_targets, split_of
from fedbench.scenarios.scenario import Scenario
from fedbench.scenarios.suite import Planned

if TYPE_CHECKING:
    import pyarrow as pa

KEPT = frozenset({"ok", "diverged"})
"""Statuses that are not run again: a diverged run diverges again, a failed one may have failed for want of memory."""

STATE = ("run_id", "status", "error", "started_at")
"""Columns of a record that say how its run went."""


@dataclass(frozen=True)
class Run:
    """A scenario and a seed: the unit of work."""

    scenario: Scenario
    seed: int

    @property
    def id(self) -> str:
        """``<scenario id>-s<seed>``."""
        return f"{self.scenario.id}-s{self.seed}"

    def __str__(self) -> str:
        return f"{self.scenario} s{self.seed}"


@dataclass(frozen=True)
class Plan:
    """The runs of a suite.

    Attributes:
        todo: those to run, in order. kept: those whose results are there already. damaged: files in the results folder
            that are no whole records, with the reason; they do not count as there.
        changed: those of ``todo`` whose results are there, but were made by another source of a loaded file; replaced: or of
            other images than those that are here.
        seconds: expected seconds of each run of ``todo`` by past timing, None where there is none.
        ended: run id -> what stood in its claim before the records were read (:func:`fedbench.runs.claims.ends`).
        stamps: run id -> when its record came there, also before they were read (:func:`fedbench.runs.results.stamps`).
        open_doses: runs of adaptive ladders that no record asks for so far (:mod:`fedbench.runs.doses`).
        records: what was read of those in the folder: :data:`STATE`, a row for each.
    """

    todo: Sequence[Run]
    kept: Sequence[Run]
    damaged: Mapping[str, str]
    seconds: Mapping[Run, float | None]
    changed: Sequence[Run] = ()
    replaced: Sequence[Run] = ()
    moved: Sequence[Run] = ()
    ended: Mapping[str, str] = field(default_factory=dict)
    stamps: Mapping[str, int] = field(default_factory=dict)
    open_doses: int = 0
    records: pa.Table | None = None


def make_plan(
    planned: Iterable[Planned],
    results: Path,
    fresh: bool = False,
    diagnostics: bool = False,
    shard: tuple[int, int] = (1, 1),
) -> Plan:
    """Sort the runs of ``planned`` into those to run and those that are there.

    The order: one dataset after the other, so that its parsed data stay warm; within a dataset all scenarios with the
    first seed, then all with the second, so that whatever is there when a suite is interrupted is comparable.

    Args:
        planned: the scenarios and their seeds. results: the folder of the records. fresh: run everything again.
        diagnostics: run again what has none. shard: (i, n): the i-th of n parts, from 1, whatever is there.
    """
    _check_folder(results)
    ended, there = ends(results), stamps(results)
    found = scan([results], curves=False)
    part, parts = shard
    planned = list(planned)
    adaptive = any(each.adaptive for each in planned)
    # Parts of a suite that do not see each other's records would choose other doses: they run all of them.
    chosen = climbed(planned, found.table.select(COLUMNS).to_pylist()) if parts == 1 and adaptive else planned
    runs = in_order(chosen)[part - 1 :: parts]
    status = found.status
    kept = [] if fresh else [run for run in runs if status.get((run.scenario.id, run.seed)) in KEPT]
    if diagnostics:
        kept = [run for run in kept if rounds_path(results, run.id).exists()]
    changed = _of_another_source(kept, found.table)
    replaced = _of_other_images(kept, found.table)
    moved = _of_other_data(kept, found.table)
    skip = set(kept).difference(changed, replaced, moved)
    kept = [run for run in kept if run in skip]
    todo = [run for run in runs if run not in skip]
    open_doses = sum(len(each.seeds) for each in planned) - sum(len(each.seeds) for each in chosen)
    seconds = expected_seconds(todo, found.table)
    records = found.table.select(STATE)
    return Plan(todo, kept, found.damaged, seconds, changed, replaced, moved, ended, there, open_doses, records)


def _of_another_source(runs: Sequence[Run], records: pa.Table) -> list[Run]:
    """Those of ``runs`` with a loaded file that has changed since their record was written.

    What comes with fedbench says so by the version on its card; who works on a file runs it again and again.
    """
    loaded = {(each.kind, each.name) for each in loaded_files()}
    now = {run: sources for run in runs if (sources := _sources(run, loaded))}
    if not now:
        return []
    past = _past(records, sorted({column for sources in now.values() for column in sources}))
    return [run for run, sources in now.items() if not sources.items() <= past[run.scenario.id, run.seed].items()]


def _of_other_images(runs: Sequence[Run], records: pa.Table) -> list[Run]:
    """Those of ``runs`` whose model looks at images, and whose records are of others than are here.

    Where there are none here nothing can be told, and what is there stays.
    """
    sighted = [run for run in runs if run.scenario.resolved.model.reads_features]
    past = _past(records, ["images_fingerprint"]) if sighted else {}

    @functools.cache
    def fingerprint(dataset: str, split: str) -> str | None:
        try:
            return load_pictures(dataset, split).fingerprint if has_pictures(dataset) else None
        except (DataError, UserError):
            return None

    def other(run: Run) -> bool:
        made = past[run.scenario.id, run.seed]["images_fingerprint"]
        if made is None:
            return False
        now = fingerprint(run.scenario.dataset, run.scenario.resolved.protocol.split)
        return now is not None and now != made

    return [run for run in sighted if other(run)]


def _of_other_data(runs: Sequence[Run], records: pa.Table) -> list[Run]:
    """Those of ``runs`` whose records are of other data than the dataset's name stands for now.

    Where there are none here nothing can be told, and what is there stays.
    """
    past = _past(records, ["dataset_fingerprint"])
    places: dict[tuple[str, ...], list[Run]] = {}
    for run in runs:
        protocol = run.scenario.resolved.protocol
        places.setdefault((run.scenario.dataset, protocol.split, protocol.duplicates), []).append(run)
    moved: list[Run] = []
    for found in places.values():
        made = {run: past[run.scenario.id, run.seed]["dataset_fingerprint"] for run in found}
        # Where all seeds have the same data, their split is not drawn, and one look tells of all.
        drawn = len(set(made.values())) > 1
        now: dict[int | None, str | None] = {}
        for run in found:
            seed = run.seed if drawn else None
            if seed not in now:
                now[seed] = _fingerprint(run)
            if now[seed] not in (None, made[run]):
                moved.append(run)
    return moved


def _fingerprint(run: Run) -> str | None:
    try:
        return split_of(run.scenario, run.seed).fingerprint
    except UserError:
        return None


def _past(records: pa.Table, columns: Sequence[str]) -> dict[tuple[str, int], dict[str, object]]:
    """What the record of each scenario and seed says."""
    rows = records.select(["scenario_id", "seed", *columns]).to_pylist()
    return {(row["scenario_id"], row["seed"]): row for row in rows}


def _sources(run: Run, loaded: Set[tuple[str, str]]) -> dict[str, object]:
    """What a record of the run says of the sources of ``loaded`` files that it needs: column -> value.

    Of a dataset it is the data that count, not the text that makes them.
    """
    if not loaded:
        return {}
    scenario, sources = run.scenario, dict[str, object]()
    if ("attack", scenario.attack) in loaded:
        sources["attack_source_hash"] = source_hash(scenario.resolved.attack_class)
    if any(("defense", name) in loaded for name in scenario.defense.split("+")):
        sources["defense_source_hash"] = source_hash(*(cls for cls, _ in scenario.resolved.defenses))
    if ("model", scenario.model) in loaded:
        sources["model_source_hash"] = source_hash(type(scenario.resolved.model))
    if ("dataset", scenario.dataset) in loaded:
        sources["dataset_fingerprint"] = split_of(scenario, run.seed).fingerprint
    return sources


def in_order(planned: Iterable[Planned]) -> list[Run]:
    """The runs of all scenarios: by dataset, then by seed, then in the order of the suite."""
    planned = list(planned)
    datasets = list(dict.fromkeys(each.scenario.dataset for each in planned))
    most = max((len(each.seeds) for each in planned), default=0)
    return [
        Run(each.scenario, each.seeds[index])
        for dataset, index in itertools.product(datasets, range(most))
        for each in planned
        if each.scenario.dataset == dataset and index < len(each.seeds)
    ]


def expected_seconds(runs: Sequence[Run], records: pa.Table) -> dict[Run, float | None]:
    """For each run its epochs times the median seconds that an epoch took in the records of its kind, or None.

    Its kind: the same dataset, model, attack and defense; where no record has these, the same but for the defense.
    """
    kind = ("dataset", "model", "attack", "defense")
    past: dict[tuple[str, ...], list[float]] = {}
    if runs:
        for row in records.select([*kind, "status", "seconds_total", "epochs_planned"]).to_pylist():
            if row["status"] == "ok":
                of = tuple(row[name] for name in kind)
                for each in (of, of[:-1]):
                    past.setdefault(each, []).append(row["seconds_total"] / row["epochs_planned"])
    medians = {key: statistics.median(values) for key, values in past.items()}

    def expected(run: Run) -> float | None:
        of: tuple[str, ...] = tuple(getattr(run.scenario, name) for name in kind)
        an_epoch = medians.get(of, medians.get(of[:-1]))
        return None if an_epoch is None else an_epoch * run.scenario.resolved.protocol.epochs

    return {run: expected(run) for run in runs}


NO_ROOM = "OutOfMemoryError"
"""How the error begins of a run that had not memory enough on its GPU."""


def without_room(plan: Plan) -> list[Run]:
    """Those to run that had not memory enough when they were run before."""
    if plan.records is None:
        return []
    rows = plan.records.to_pylist()
    found = {row["run_id"] for row in rows if row["status"] == "failed" and (row["error"] or "").startswith(NO_ROOM)}
    return [run for run in plan.todo if run.id in found]


def obstacles(runs: Iterable[Run], results: Path) -> Iterator[UserError]:
    """Everything that keeps the runs from starting: missing data, targets that are no items, a folder that takes no files.

    What a run refuses once it has its data (an attack's profile that is longer than the list of items) is found in that run.
    """
    data: dict[tuple[str, str], Scenario] = {}
    targets: dict[tuple[object, ...], Scenario] = {}
    for each in dict.fromkeys(run.scenario for run in runs):
        protocol = each.resolved.protocol
        data.setdefault((each.dataset, protocol.split), each)
        targets.setdefault((each.dataset, protocol.split, protocol.duplicates, each.target, each.num_targets), each)
    there = set()
    for place, scenario in data.items():
        try:
            check_data([scenario])
            there.add(place)
        except UserError as error:
            yield error
    for (dataset, split, *_), scenario in targets.items():
        try:
            if (dataset, split) in there:
                check_target(scenario)
        except UserError as error:
            yield error
    try:
        check_writable(results)
    except ResultsError as error:
        yield error


def check_data(scenarios: Iterable[Scenario]) -> None:
    """Raise before anything runs when a dataset, its split or its files are not there.

    Raises:
        UserError: no such dataset, or it has no such split.
        DataError: its files are nowhere on this machine.
    """
    for dataset, split in dict.fromkeys((each.dataset, each.resolved.protocol.split) for each in scenarios):
        entry = resolve(dataset)
        check_split(entry, split)
        if where(entry, split) is None:
            raise DataError(f"{missing(entry, split)} To leave it out: --only dataset=OTHER.")


def check_target(scenario: Scenario) -> None:
    """Raise :class:`UserError` for targets that the dataset does not have; only such as can be missing are looked up."""
    if scenario.target.startswith("fixed:") or scenario.num_targets > 1:
        protocol = scenario.resolved.protocol
        choose_targets(scenario, load_split(scenario.dataset, protocol.split, duplicates=protocol.duplicates))


def _check_folder(results: Path) -> None:
    if results.exists() and not results.is_dir():
        raise ResultsError(f"results folder {str(results)!r} is not a folder.")


def check_writable(results: Path) -> None:
    """Raise :class:`ResultsError` when no file could be written in the results folder, which need not exist yet.

    Nothing is left behind: the first record makes the folder.
    """
    there = results.absolute()
    while not there.exists() and there != there.parent:
        there = there.parent
    try:
        probe(there)
    except OSError as error:
        raise ResultsError(f"cannot write in the results folder {str(results)!r}: {error.strerror}.") from None
