"""The runs that a bundle claims: a slice of a suite with its entry, planned as ``fedbench run --attack`` plans it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from fedbench.errors import unknown
from fedbench.runs.doses import climbed
from fedbench.runs.plan import Run
from fedbench.scenarios.substitution import substituted
from fedbench.scenarios.suite import Planned, Suite, load_suite, suite_names
from fedbench.submission.manifest import Kind
from fedbench.submission.records import Row
from fedbench.submission.report import Check, some
from fedbench.texts import count


@dataclass(frozen=True)
class Claim:
    """What is claimed.

    Attributes:
        kind, name: of the entry. suite, version: of the suite. only, seeds: the slice of it, as ``run`` takes it; seeds
            is a number of seeds, None: the suite's own.
        planned: its scenarios and their seeds. runs: run id -> the run. twins: ids of those that are there for comparison
            only.
    """

    kind: Kind
    name: str
    suite: str
    version: int
    only: tuple[str, ...]
    seeds: int | None
    planned: Sequence[Planned]
    runs: Mapping[str, Run]
    twins: frozenset[str]

    def needed(self, rows: Iterable[Row]) -> set[str]:
        """The runs that may not be missing: of adaptive ladders, those that the records ask for."""
        chosen = climbed(self.planned, rows)
        return {Run(each.scenario, seed).id for each in chosen for seed in each.seeds}

    def __str__(self) -> str:
        slices = "".join(f" --only {each}" for each in self.only)
        return f"suite {self.suite} (version {self.version}){slices}" + (f" --seeds {self.seeds}" if self.seeds else "")

    def named(self, run: str) -> str:
        """A run as messages name it."""
        return f"{self.runs[run]}{' (twin)' if run in self.twins else ''}"


def claim(kind: Kind, name: str, suite: str, only: Sequence[str], seeds: int | None) -> Claim:
    """The runs of a slice; scenarios must find the entry ``name``, or what stands for it.

    Raises:
        UserError: no such suite among those that come with fedbench, or nothing of it fits.
    """
    if suite not in suite_names():
        raise unknown("suite", suite, suite_names(), "A bundle speaks for a suite that comes with fedbench.")
    loaded = _suite(suite, kind, name)
    planned = loaded.plan(only, None if seeds is None else str(seeds))
    runs = {run.id: run for each in planned for run in (Run(each.scenario, seed) for seed in each.seeds)}
    twins = {Run(each.scenario, seed).id for each in planned if each.twin for seed in each.seeds}
    return Claim(kind, name, suite, loaded.version, tuple(only), seeds, planned, runs, frozenset(twins))


def _suite(name: str, kind: Kind, entry: str) -> Suite:
    return substituted(load_suite(name), {kind: entry})


def missing_runs(claimed: Claim, rows: Sequence[Row], check: Check) -> None:
    """Refuse what is not there: cells of which all runs are missing, single runs, and twins."""
    left = claimed.needed(rows) - {str(row["run_id"]) for row in rows}
    if not left:
        return
    cells: dict[str, list[str]] = {}
    for run in claimed.runs:
        cells.setdefault(claimed.runs[run].scenario.id, []).append(run)
    for twins in (False, True):
        whole = [each for each in cells.values() if set(each) <= left and (each[0] in claimed.twins) == twins]
        single = [run for run in claimed.runs if run in left and (run in claimed.twins) == twins]
        single = [run for run in single if not any(run in each for each in whole)]
        if whole:
            names = [f"{claimed.runs[each[0]].scenario} ({count(len(each), 'run')})" for each in whole]
            word = " of twins, which the others are compared with," if twins else " of the slice"
            check.refuse(f"{count(len(whole), 'cell')}{word} {_are(whole)} missing whole: {some(names)}.")
        if single:
            names, word = [str(claimed.runs[run]) for run in single], " of twins" if twins else ""
            check.refuse(f"{count(len(single), 'run')}{word} {_are(single)} missing: {some(names)}.")


def _are(what: Sequence[object]) -> str:
    return "is" if len(what) == 1 else "are"


def extra_runs(claimed: Claim, rows: Sequence[Row], check: Check) -> None:
    """Refuse what the slice does not have."""
    extra = sorted(str(row["run_id"]) for row in rows if row["run_id"] not in claimed.runs)
    if extra:
        check.refuse(f"{count(len(extra), 'run')} that {claimed} does not have: {some(extra)}.")
