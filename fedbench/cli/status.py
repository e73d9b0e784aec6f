"""``fedbench status``: what of a suite is there, running, failed and missing."""

from __future__ import annotations

from fedbench.cli.options import DEFAULT_RESULTS, Only, Results, Seeds, SuiteName


def status(suite: SuiteName, only: Only = None, seeds: Seeds = None, results: Results = DEFAULT_RESULTS) -> None:
    """What of a suite is there, running, failed and missing, and how long the rest takes.

    Running is what a process on any machine that shares the folder is working on at this moment.
    """
    from fedbench.cli.lazy import defer_torch

    defer_torch()
    from fedbench.cli.output import console, count, duration, table
    from fedbench.runs.standing import standing
    from fedbench.scenarios.suite import load_suite

    loaded = load_suite(suite)
    found = standing(loaded.plan(only or (), seeds), results)
    seconds, left = found.plan.seconds, [*found.failed, *found.missing]
    total = len(found.plan.todo) + len(found.plan.kept)

    out = console()
    out.print(
        f"{loaded.name}: {count(total, 'run')}: {len(found.ended['ok']):,} ok, {len(found.ended['diverged']):,} diverged,"
        f" {len(found.failed):,} failed, {len(found.at_work):,} running, {len(found.missing):,} missing.",
        soft_wrap=True,
    )
    if found.plan.open_doses:
        out.print(f"Besides, at most {count(found.plan.open_doses, 'run')} of doses that nothing asks for so far.")
    known = [known for run in left if (known := seconds[run]) is not None]
    if known:
        text = f"Those that failed or are missing take about {duration(sum(known))} in one process"
        text += (
            f", {duration(sum(known) / len(found.at_work))} in {len(found.at_work)}" if len(found.at_work) > 1 else ""
        )
        text += f"; of {count(len(left) - len(known), 'run')} no past timing is known" if len(known) < len(left) else ""
        out.print(f"{text}.")
    if found.at_work:
        again = any(each.lost for each in found.at_work.values())
        shown = [
            (str(run), each.host, each.process, each.began.partition(".")[0], *([each.lost or ""] if again else []))
            for run, each in found.at_work.items()
        ]
        names = ("running", "machine", "process", "since (UTC)", *(["lost before"] if again else []))
        out.print(table(names, shown, right=("process", "lost before")))
    if found.failed:
        run, error = next(iter(found.failed.items()))
        out.print(f"First that failed: {run}: {(error.splitlines() or ['no reason given'])[0]}", soft_wrap=True)
