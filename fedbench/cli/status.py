"""``fedbench status``: what of a suite is there, running, failed and missing; or what is in a results folder at all."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedbench.cli.options import DEFAULT_RESULTS, Only, Results, Seeds

if TYPE_CHECKING:
    from rich.table import Table

    from fedbench.runs.claims import Running

AnySuite = Annotated[
    str | None,
    typer.Argument(
        metavar="[SUITE]", help="A suite's name, or the path of a .toml file; without one: all that the folder holds."
    ),
]


def status(suite: AnySuite = None, only: Only = None, seeds: Seeds = None, results: Results = DEFAULT_RESULTS) -> None:
    """What of a suite is there, running, failed and missing, and how long the rest takes.

    Running is what a process on any machine that shares the folder is working on at this moment. Without SUITE: the records
    of the folder by the suite that made them, runs that were given by options among them, and what is running there.
    """
    from fedbench.cli.lazy import defer_torch
    from fedbench.errors import UserError

    defer_torch()
    if suite is None:
        if only or seeds is not None:
            raise UserError("--only and --seeds choose from a suite: name it, as in fedbench status SUITE --seeds 3.")
        _folder(results)
        return
    from fedbench.cli.output import console, count, duration
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
        out.print(_at_work((str(run), each) for run, each in found.at_work.items()))
    if found.failed:
        run, error = next(iter(found.failed.items()))
        out.print(f"First that failed: {run}: {(error.splitlines() or ['no reason given'])[0]}", soft_wrap=True)


def _folder(results: Path) -> None:
    """Say what records a folder holds, and what is running there."""
    import duckdb

    from fedbench.cli.output import console, count, table
    from fedbench.errors import ResultsError
    from fedbench.runs.claims import running
    from fedbench.runs.results import scan

    if not results.is_dir():
        raise ResultsError(f"there is no results folder {str(results)!r}; runs go into it by --results {results}.")
    busy = running(results)
    found = scan([results], curves=False)
    with duckdb.connect() as database:
        database.register("records", found.table)
        rows = database.execute(
            "select coalesce(suite, '-') as suite, count(*), count(*) filter (status = 'ok'),"
            " count(*) filter (status = 'diverged'), count(*) filter (status = 'failed'),"
            " strftime(max(started_at), '%Y-%m-%d %H:%M') from records group by suite order by suite"
        ).fetchall()
    out = console()
    damaged = f"; {count(len(found.damaged), 'file')} without a whole record" if found.damaged else ""
    out.print(f"{results}: {count(len(found.table), 'record')}, {len(busy):,} running{damaged}.", soft_wrap=True)
    if rows:
        names = ("suite", "records", "ok", "diverged", "failed", "last began (UTC)")
        out.print(table(names, [[str(cell) for cell in row] for row in rows], right=names[1:5]))
    if busy:
        out.print(_at_work((each.run_id, each) for each in busy))


def _at_work(runs: Iterable[tuple[str, Running]]) -> Table:
    """Runs under way, and where; ``runs``: what each is called, and who is at it."""
    from fedbench.cli.output import table

    busy = list(runs)
    again = any(each.lost for _, each in busy)
    shown = [
        (name, each.host, str(each.process), each.began.partition(".")[0], *([str(each.lost or "")] if again else []))
        for name, each in busy
    ]
    names = ("running", "machine", "process", "since (UTC)", *(["lost before"] if again else []))
    return table(names, shown, right=("process", "lost before"))
