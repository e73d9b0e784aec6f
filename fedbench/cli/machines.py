"""``fedbench run --executor slurm`` and ``ray``: what is handed out, and what is said of it in the end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from fedbench.cli.output import console, count
from fedbench.cli.verdict import speak
from fedbench.errors import UserError
from fedbench.runs.execution import Outcome, Plan, Summary
from fedbench.runs.plan import obstacles
from fedbench.runs.ray_cluster import LOGS as RAY_LOGS
from fedbench.runs.ray_cluster import run_on_ray
from fedbench.runs.results import scan, stamp_of
from fedbench.runs.slurm import LOGS as SLURM_LOGS
from fedbench.runs.slurm import submit


def check_remote(plan: Plan, results: Path, executor: str, fresh: bool) -> None:
    """What keeps a plan from starting on other machines is told before."""
    if fresh:
        raise UserError(f"--executor {executor}: --fresh would run all once in every task; use another --results.")
    for error in obstacles(plan.todo, results):
        raise error


def submit_to_slurm(
    arguments: Sequence[str], plan: Plan, results: Path, tasks: int, workers: int, options: Sequence[str]
) -> NoReturn:
    """Hand the plan to Slurm."""
    job = submit(arguments, results, tasks, workers, options)
    speak(
        f"submitted: job {job}, {count(tasks, 'task')} for {count(len(plan.todo), 'run')};"
        f" {_status(arguments, results)}. Their output is in {results / SLURM_LOGS}.",
        True,
        0,
    )


def run_tasks_on_ray(
    arguments: Sequence[str],
    plan: Plan,
    again: Callable[[], Plan],
    results: Path,
    tasks: int,
    workers: int,
    options: Sequence[str],
) -> Summary:
    """Run the plan on a Ray cluster, and read how its runs have ended.

    Args:
        arguments: after ``fedbench run``. again: makes the plan anew: records may have asked for more doses. workers: of each
            task. options: of Ray's tasks.
    """

    def done() -> bool:
        stamps = plan.stamps
        there = (stamp_of(results, run.id) not in (0, stamps.get(run.id, 0)) for run in plan.todo)
        return all(there) and not again().todo

    def started() -> None:
        runs = count(len(plan.todo), "run")
        text = f"{count(tasks, 'task')} for {runs}; {_status(arguments, results)}. Their output is in {results / RAY_LOGS}."
        out.print(text, soft_wrap=True)

    out = console(err=True)
    ended = run_on_ray(arguments, results, tasks, workers, options, done, started)
    for line in ended.lost:
        out.print(f"warning: lost: {line}", soft_wrap=True)
    rows = scan([results], curves=False).table.select(["run_id", "status", "error", "warnings", "seconds_total"])
    found = {row["run_id"]: row for row in rows.to_pylist()}
    kept, later = set(plan.kept), again()
    wanted = [*plan.todo, *(run for run in (*later.kept, *later.todo) if run not in kept.union(plan.todo))]
    left = set(later.todo)
    summary = Summary(total=len(wanted), kept=len(plan.kept), interrupted=ended.interrupted)
    for run in wanted:
        row = found.get(run.id)
        if row is not None and (run not in left or row["status"] == "failed"):
            summary.enter(
                run, Outcome(row["status"], row["error"], row["seconds_total"], {}, tuple(row["warnings"] or ()))
            )
        elif not ended.interrupted:
            lost = f", and {len(ended.lost)} were lost" if ended.lost else ""
            summary.enter(
                run, Outcome("refused", f"it did not run; the tasks ended with exit codes {ended.codes}{lost}", 0.0, {})
            )
    return summary


def _status(arguments: Sequence[str], results: Path) -> str:
    suite = "SUITE" if arguments[0].startswith("-") else arguments[0]  # without one, the file of --save
    return f"`fedbench status {suite} --results {results}` says how far they are"
