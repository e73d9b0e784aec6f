"""``fedbench export``: the leaderboard for a paper, as LaTeX, CSV, JSON or BibTeX."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedbench.cli.leaderboard import Folders, ListLength, given_command, open_database, write_text
from fedbench.cli.options import Only
from fedbench.texts import finite

FORMATS = ("latex", "csv", "json", "bibtex")


def export(
    form: Annotated[str, typer.Argument(metavar="latex|csv|json|bibtex", help="What to write.")],
    results: Folders = None,
    suite: Annotated[str | None, typer.Option(help="Only scenarios of this suite.")] = None,
    only: Only = None,
    k: ListLength = 10,
    tables: Annotated[
        list[str] | None,
        typer.Option(
            "--table",
            metavar="GLOB",
            help="LaTeX: only tables with such a title, as 'Doses*'. Repeatable. [default: all]",
        ),
    ] = None,
    document: Annotated[
        bool, typer.Option("--document", help="LaTeX: a document that compiles. [default: tables for \\input]")
    ] = False,
    wide: Annotated[
        bool, typer.Option("--wide", help="LaTeX: all columns and tables, made as small as it takes.")
    ] = False,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Write it here. [default: print it]")] = None,
) -> None:
    """Write the leaderboard as LaTeX (booktabs), its ranks as CSV, all of it as JSON, or its papers as BibTeX."""
    from fedbench.cli.output import console
    from fedbench.errors import UserError, unknown
    from fedbench.leaderboard.latex import NEEDS

    if form not in FORMATS:
        raise unknown("format", form, FORMATS)
    if form != "latex" and (tables or document or wide):
        raise UserError(f"--table, --document and --wide are of latex, not of {form}.")
    database = open_database(results, k, only or (), suite, curves=False)
    if form == "bibtex":
        from fedbench.leaderboard.bibtex import bibtex

        text = bibtex(database)
    else:
        from fedbench.leaderboard.board import make_board

        board = make_board(database)
        if form == "latex":
            from fnmatch import fnmatch

            from fedbench import __version__
            from fedbench.leaderboard.latex import latex

            titles = [sheet.title for sheet in board.sheets]
            for glob in tables or ():
                if not any(fnmatch(title, glob) for title in titles):
                    raise unknown("table", glob, titles)
            shown = [each for each in board.sheets if tables or wide or not each.wide]
            sheets = [each for each in shown if any(fnmatch(each.title, glob) for glob in tables or ["*"])]
            command = given_command(results, suite, only, k)
            origin = f"fedbench {__version__}, {board.count:,} runs on {board.datasets}; {command}"
            text = latex(sheets, origin, document, wide)
        elif form == "csv":
            from fedbench.leaderboard.tidy import as_csv, tidy

            text = as_csv(tidy(board))
        else:
            import json

            text = json.dumps(finite(board.data), ensure_ascii=False, allow_nan=False, indent=1) + "\n"
    if out is None:
        typer.echo(text, nl=False)
        return
    write_text(out, text)
    needs = f"; a document needs {NEEDS} for it" if form == "latex" and not document else ""
    console(err=True).print(f"written to {out}{needs}", soft_wrap=True, markup=False)
