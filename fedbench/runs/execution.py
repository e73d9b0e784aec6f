"""Where runs run: scenarios and seeds go out, workers write the records.

The unit of distribution is the run. ``local`` is the executor of this machine; another one needs only the signature of
``run_local``, and can hand :class:`~fedbench.runs.worker.Order` to wherever it computes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path

from fedbench.errors import ResultsError, UserError
from fedbench.files import occupied
from fedbench.runs.claims import clear
from fedbench.runs.devices import MEASURE, is_list
from fedbench.runs.local import default_jobs, run_local
from fedbench.runs.plan import Plan, Run, make_plan, obstacles, without_room
from fedbench.runs.reporting import Outcome, Reporter, Silent, Summary
from fedbench.runs.worker import EXECUTE, Step
from fedbench.scenarios.suite import Planned

__all__ = [
    "Outcome",
    "Plan",
    "Reporter",
    "Run",
    "Step",
    "Summary",
    "default_jobs",
    "make_plan",
    "run_all",
    "run_plan",
    "run_suite",
]


def run_suite(
    planned: Iterable[Planned],
    *,
    results: Path,
    suite: str | None = None,
    device: str = "cpu",
    jobs: int | None = None,
    fresh: bool = False,
    reporter: Reporter | None = None,
    diagnose_every: int | None = None,
) -> Summary:
    """Run what is missing of the scenarios in ``planned``.

    Runs whose records are in ``results`` with status ``ok`` or ``diverged`` are kept; failed ones are run again.

    Args:
        planned: scenarios and seeds, from :meth:`fedbench.scenarios.suite.Suite.plan`.
        results: the folder of the records, made when needed.
        suite: the name to note in the records.
        device: ``"cpu"``, ``"cuda"``, or GPUs that share the runs, such as ``"cuda:0,cuda:1"``.
        jobs: worker processes; None: one for each core, or each GPU.
        fresh: run everything again.
        reporter: is told what happens.
        diagnose_every: keep diagnostics of every so many rounds beside the records, and run again what has none.

    Raises:
        UserError: missing data, a folder that cannot be written to, and other mistakes of the user's.
    """
    planned, diagnosed = list(planned), diagnose_every is not None
    run = functools.partial(
        run_plan,
        results=results,
        suite=suite,
        device=device,
        jobs=jobs,
        reporter=reporter,
        diagnose_every=diagnose_every,
    )
    return run_all(planned, make_plan(planned, results, fresh, diagnosed), run, results, diagnosed)


def run_all(
    planned: Sequence[Planned], plan: Plan, run: Callable[[Plan], Summary], results: Path, diagnosed: bool = False
) -> Summary:
    """Run ``plan``, and then what its records ask for, until no dose of an adaptive ladder is asked for any more.

    Args:
        planned: as given to :func:`make_plan`. plan: what it made of them. run: runs one plan; what failed is not given to it
            again. results: the folder of the records. diagnosed: whether diagnostics are kept.
    """
    summary = run(plan)
    while plan.open_doses and not summary.interrupted:
        plan = make_plan(planned, results, False, diagnosed)
        new = [each for each in plan.todo if each not in summary.outcomes]
        if not new:
            break
        summary = summary.joined(run(dataclasses.replace(plan, todo=new)))
    return summary


def run_plan(
    plan: Plan,
    *,
    results: Path,
    suite: str | None = None,
    device: str = "cpu",
    jobs: int | None = None,
    reporter: Reporter | None = None,
    execute: str = EXECUTE,
    measure: str = MEASURE,
    diagnose_every: int | None = None,
    cores: Collection[Run] = (),
    core_jobs: int | None = None,
) -> Summary:
    """Run ``plan.todo``; arguments as for :func:`run_suite`.

    Args:
        execute: what turns a scenario and a seed into a record. measure: what tells of the memory of a GPU.
        cores: those to run on the CPU although ``device`` is GPUs, in ``core_jobs`` processes of their own, one a core.
    """
    if device != "cpu" and not is_list(device):
        raise UserError(f"device {device!r} must be cpu, cuda, or GPUs such as cuda:0,cuda:1, each of them once.")
    if jobs is not None and jobs < 1:
        raise UserError(f"jobs = {jobs} must be at least 1.")
    if diagnose_every is not None and diagnose_every < 1:
        raise UserError(f"diagnose_every = {diagnose_every} must be at least 1.")
    for error in obstacles(plan.todo, results):
        raise error
    if not plan.todo:
        if results.is_dir():  # which may be one that nobody can write to
            with contextlib.suppress(ResultsError), occupied(results) as place:
                clear(results, place.marker)  # of one that was killed after its last record
        return Summary(total=0, kept=len(plan.kept))
    with occupied(results) as place:
        try:
            summary = run_local(
                plan.todo,
                results=results,
                suite=suite,
                device=device,
                jobs=jobs or default_jobs(device),
                reporter=reporter or Silent(),
                execute=execute,
                diagnose_every=diagnose_every,
                place=place,
                ended=plan.ended,
                stamps=plan.stamps,
                alone=without_room(plan),
                measure=measure,
                cores=cores,
                core_jobs=core_jobs or default_jobs("cpu"),
            )
        finally:
            clear(results, place.marker)
    return dataclasses.replace(summary, kept=len(plan.kept))
