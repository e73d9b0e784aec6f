"""``fedbench reproduce``: run what is missing of a published table, and say how ours compares."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedbench.cli.options import (
    DEFAULT_RESULTS,
    Device,
    Jobs,
    Only,
    Results,
    Seeds,
    SuiteName,
    choose_device,
    choose_faster,
    choose_jobs,
)
from fedbench.cli.run import run_shown


def reproduce(
    suite: SuiteName,
    only: Only = None,
    seeds: Seeds = None,
    device: Device = "auto",
    jobs: Jobs = None,
    results: Results = DEFAULT_RESULTS,
    no_run: Annotated[bool, typer.Option("--no-run", help="Only compare what is there.")] = False,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the report as Markdown, with a picture where matplotlib is."),
    ] = None,
) -> None:
    """Run what is missing of a suite and print published value, ours with interval, difference and verdict."""
    from fedbench.cli.lazy import defer_torch

    defer_torch()
    from fedbench.cli.leaderboard import open_database, write_text
    from fedbench.cli.output import console, table
    from fedbench.reproduction import CELL_HEADINGS, cell_rows, compare, curve_table, draw, markdown
    from fedbench.runs.execution import default_jobs, make_plan, run_all
    from fedbench.scenarios.suite import load_suite

    loaded = load_suite(suite)
    planned = loaded.plan(only or (), seeds)
    code = 0
    for warning in loaded.warnings(planned):
        console(err=True).print(f"warning: {warning}", soft_wrap=True)
    if not no_run:
        where = choose_device(device)
        plan, workers = make_plan(planned, results), choose_jobs(jobs) or default_jobs(where)
        faster = choose_faster(device, where, jobs)
        if plan.todo:
            summary = run_all(
                planned,
                plan,
                lambda part: run_shown(part, loaded.name, results, where, workers, faster=faster),
                results,
            )
            code = summary.exit_code
            if summary.interrupted:
                console(err=True).print(f"interrupted; {summary.left} left. The same command resumes.", soft_wrap=True)
                raise typer.Exit(code)
    report = compare(loaded.title, loaded.paper, planned, loaded.expected, open_database([results], 10, (), None))
    screen = console()
    if report.cells:
        screen.print(table(CELL_HEADINGS, cell_rows(report), right=CELL_HEADINGS[2:7]))
        screen.print()
    headings, lines = curve_table(report)
    screen.print(table(headings, lines, right=headings[2:]))
    if report.cells:
        screen.print(f"\n{report.tally()}.")
    if out is not None:
        picture = _picture(out)
        write_text(out, markdown(report, picture.name if picture else None))
        if picture:
            draw(report, str(picture))
        console(err=True).print(f"written to {out}", soft_wrap=True)
    raise typer.Exit(code)


def _picture(out: Path) -> Path | None:
    """Where the picture goes; None without matplotlib."""
    from importlib.util import find_spec

    return out.with_suffix(".png") if find_spec("matplotlib") else None
