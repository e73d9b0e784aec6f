"""``fedbench pages``: a page for each suite, of the records alone."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from fedbench.cli.leaderboard import Folders


def pages(
    out: Annotated[
        Path,
        typer.Option(
            "--out", metavar="DIR", help="Folder of the pages; SUITE.png in it and leaderboards above it are linked."
        ),
    ],
    results: Folders = None,
    fidelity: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Write one page on all published values, too, with the reason of each that differs."
        ),
    ] = None,
    suites: Annotated[list[str] | None, typer.Argument(metavar="[SUITE]...", help="Only these. [default: all]")] = None,
) -> None:
    """Write a page for each suite, an index and FORMAT.md: what it is, how to run it, published and ours. Runs nothing."""
    from fedbench.cli.lazy import defer_torch

    defer_torch()
    from fedbench.cli.leaderboard import open_database, write_text
    from fedbench.cli.output import console, count
    from fedbench.reproduction.fidelity import fidelity_page
    from fedbench.reproduction.pages import index, make_page
    from fedbench.scenarios.suite import load_suite, suite_names
    from fedbench.scenarios.suite_format import suite_format

    loaded = [load_suite(name) for name in suites or suite_names()]
    database = open_database(results, 10, (), None)
    made = [make_page(suite, database, out) for suite in loaded]
    if fidelity is not None:
        to_pages = Path(os.path.relpath(out, fidelity.parent)).as_posix()
        judged = [(suite, page.report) for suite, page in zip(loaded, made, strict=True)]
        write_text(fidelity, fidelity_page(judged, to_pages))
    for page in made:
        write_text(out / f"{page.name}.md", page.text)
    write_text(out / "README.md", index(made))
    write_text(out / "FORMAT.md", suite_format())
    console(err=True).print(f"{count(len(made), 'page')}, README.md and FORMAT.md in {out}", soft_wrap=True)
