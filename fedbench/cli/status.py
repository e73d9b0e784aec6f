"""``fedbench status``: what of a suite is there, running, failed and missing."""

from __future__ import annotations

from collections import Counter

from fedbench.cli.run import DEFAULT_RESULTS, Only, Results, Seeds, SuiteName


def status(suite: SuiteName, only: Only = None, seeds: Seeds = None, results: Results = DEFAULT_RESULTS) -> None:
    """What of a suite is there, running, failed and missing, and how long the rest takes.

    Running is what a process on any machine that shares the folder is working on at this moment.
    """
    from fedbench.cli.lazy import defer_torch

    defer_torch()
    from fedbench.cli.output import console, count, duration, table
    from fedbench.runs.claims import running
    from fedbench.runs.execution import make_plan
    from fedbench.runs.results import scan
    from fedbench.scenarios.suite import load_suite

    loaded = load_suite(suite)
    plan = make_plan(loaded.plan(only or (), seeds), results)
    runs = {run.id: run for run in (*plan.todo, *plan.kept)}
    at_work = [each for each in running(results) if each.run_id in runs]
    busy = {each.run_id for each in at_work}
    found = scan([results], curves=False).table.select(["run_id", "status", "error"]).to_pylist()
    rows = [row for row in found if row["run_id"] in runs and row["run_id"] not in busy]
    states = Counter(row["status"] for row in rows)
    failed = [row for row in rows if row["status"] == "failed"]
    left = [run for run in plan.todo if run.id not in busy]
    missing = len(left) - len(failed)

    out = console()
    out.print(
        f"{loaded.name}: {count(len(runs), 'run')}: {states['ok']:,} ok, {states['diverged']:,} diverged,"
        f" {len(failed):,} failed, {len(at_work):,} running, {missing:,} missing."
    )
    if plan.open_doses:
        out.print(f"Besides, at most {count(plan.open_doses, 'run')} of doses that nothing asks for so far.")
    known = [seconds for run in left if (seconds := plan.seconds[run]) is not None]
    if known:
        text = f"Those that failed or are missing take about {duration(sum(known))} in one process"
        text += f", {duration(sum(known) / len(at_work))} in {len(at_work)}" if len(at_work) > 1 else ""
        text += f"; of {count(len(left) - len(known), 'run')} no past timing is known" if len(known) < len(left) else ""
        out.print(f"{text}.")
    if at_work:
        shown = [(str(runs[each.run_id]), each.host, each.process, each.began) for each in at_work]
        out.print(table(("running", "machine", "process", "since"), shown, right=("process",)))
    if failed:
        first = failed[0]
        out.print(f"First that failed: {runs[first['run_id']]}: {(first['error'] or '').splitlines()[0]}")
