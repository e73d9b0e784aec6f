"""What ``fedbench run`` says of a plan before it runs, and of its runs when they have ended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fedbench.runs.execution import Plan, Summary
    from fedbench.runs.plan import Run
    from fedbench.scenarios.suite import Planned


def print_dry_run(planned: Sequence[Planned], plan: Plan, jobs: int, results: Path, device: str) -> None:
    """The scenarios of a plan, how many runs of each there are to do, and how long all take by what is known."""
    from fedbench.cli.output import console, count, duration, table
    from fedbench.runs.plan import obstacles

    todo, kept = set(plan.todo), set(plan.kept)
    tried = _calibrated(plan, device)
    plan = replace(plan, seconds={run: tried.get(run, seconds) for run, seconds in plan.seconds.items()})
    rows = []
    for each in planned:
        runs = [run for run in plan.seconds if run.scenario is each.scenario]
        seconds = [plan.seconds[run] for run in runs]
        known = [value for value in seconds if value is not None]
        expected = duration(sum(known)) if runs and len(known) == len(runs) else "unknown" if runs else ""
        there = len([run for run in kept if run.scenario is each.scenario])
        rows.append((str(each.scenario), "twin" if each.twin else "", len(runs), there, expected))
    out = console()
    out.print(table(("scenario", "", "to run", "there", "expected"), rows, right=("to run", "there", "expected")))
    values = [value for value in plan.seconds.values() if value is not None]
    total = f"about {duration(sum(values) / jobs)} with {count(jobs, 'job')}" if values else "time unknown"
    if tried:
        total += f", by trials of some epochs for {count(len(tried), 'run')} that no record tells of"
    if values and len(values) < len(todo):
        total += f", and {count(len(todo) - len(values), 'run')} of which no past timing is known"
    out.print(f"{count(len(todo) + len(kept), 'run')}: {len(todo)} to run, {len(kept)} there; {total}.")
    if plan.open_doses:
        out.print(
            f"Besides, at most {count(plan.open_doses, 'run')} of doses that are run only where the response rises between"
            " others."
        )
    for error in obstacles(plan.todo, results):
        console(err=True).print(f"warning: it would not start: {error}", soft_wrap=True)


def _calibrated(plan: Plan, device: str) -> dict[Run, float]:
    """Seconds of the runs that no record tells of, where they are many and trials on this machine tell."""
    from fedbench.cli.output import console, count
    from fedbench.runs.calibration import BUDGET, MANY, calibrated

    untold = [run for run, seconds in plan.seconds.items() if seconds is None]
    if len(untold) < MANY:
        return {}
    text = f"no record tells how long {count(len(untold), 'run')} take: trying some for {BUDGET:.0f} s ..."
    console(err=True).print(text, soft_wrap=True)
    return calibrated(untold, device.partition(",")[0])


def verdict_of(summary: Summary, results: Path) -> str:
    """The last line: done, failed or interrupted, how many runs ended how, the first that failed, and where records are."""
    from fedbench.cli.output import count

    states = ["ok", "diverged", "failed"] + [each for each in ("refused", "elsewhere") if summary.count(each)]
    counts = ", ".join(f"{summary.count(status)} {status}" for status in states)
    kept = f"; {summary.kept} there before" if summary.kept else ""
    left = f"; {summary.left} left" if summary.interrupted else ""
    word = "interrupted" if summary.interrupted else "failed" if summary.exit_code else "done"
    failed = next((str(run) for run, each in summary.outcomes.items() if each.status in ("failed", "refused")), "")
    first = f"; the first that failed: {failed}" if failed else ""
    return f"{word}: {count(len(summary.outcomes), 'run')}: {counts}{kept}{left}{first}. Records in {results}."


def print_troubles(summary: Summary) -> None:
    """What runs warned of, and why any failed, each reason once."""
    from fedbench.cli.output import console

    errors: dict[str, list[str]] = {}
    for run, outcome in summary.outcomes.items():
        if outcome.status in ("failed", "refused"):
            errors.setdefault((outcome.error or "").splitlines()[0], []).append(str(run))
    misleading: dict[str, list[tuple[str, str]]] = {}
    for run, outcome in summary.outcomes.items():
        for warning in outcome.warnings:
            misleading.setdefault(warning.partition(":")[0], []).append((warning, str(run)))
    for told in misleading.values():
        more = f" and {len(told) - 1} more" if len(told) > 1 else ""
        console(err=True).print(f"warning: {told[0][0]} [{told[0][1]}{more}]", soft_wrap=True)
    for error, runs in errors.items():
        more = f" and {len(runs) - 1} more" if len(runs) > 1 else ""
        console(err=True).print(f"error: {error} [{runs[0]}{more}]", soft_wrap=True)
