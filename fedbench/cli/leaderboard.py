"""``fedbench leaderboard``, ``sql`` and ``pack``: what the records say, and one file of them."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedbench.cli.options import DEFAULT_RESULTS, Only

if TYPE_CHECKING:
    from rich.console import Console

    from fedbench.leaderboard import Database
    from fedbench.leaderboard.board import Board
    from fedbench.leaderboard.findings import Finding
    from fedbench.leaderboard.sheets import Sheet

Folders = Annotated[
    list[Path] | None,
    typer.Option(
        "--results", help="Folder of the records, or a packed file. Repeatable. [default: FEDBENCH_RESULTS, or results]"
    ),
]
ListLength = Annotated[int, typer.Option("--k", metavar="5|10|20|30", help="Length K of the recommendation lists.")]


def leaderboard(
    results: Folders = None,
    suite: Annotated[str | None, typer.Option(help="Only scenarios of this suite.")] = None,
    only: Only = None,
    k: ListLength = 10,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Write it all as Markdown, too.")] = None,
    picture: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Draw defenses, ER@K reduction against HR@K loss, as .png, .svg or .pdf."),
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write DIR/index.html, too: the findings, doses and tables as one page."),
    ] = None,
    findings: Annotated[
        bool,
        typer.Option("--findings", help="Only what the records say in sentences, with tests and counter-examples."),
    ] = False,
    brief: Annotated[
        bool,
        typer.Option("--brief", help="One table of attacks, one of defenses, and in the last lines what they say."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Everything as JSON, with all run ids.")] = False,
) -> None:
    """Rank attacks by ER@K and defenses by what they prevent and cost; apart, untargeted attacks, and those on images."""
    from fedbench.cli.output import console, print_json
    from fedbench.leaderboard.answers import answers
    from fedbench.leaderboard.board import make_board
    from fedbench.leaderboard.render import headline, markdown

    database = open_database(results, k, only or (), suite, curves=_curves_of_a_page(k) if html is not None else False)
    board = make_board(database)
    if out is not None:
        write_text(out, markdown(board))
    if picture is not None:
        from fedbench.leaderboard.picture import draw_defenses

        draw_defenses(board.defenses, picture, k)
    page = None
    if html is not None:
        from fedbench.leaderboard.page import write_page

        console(err=True).print("making the page ...")
        page = write_page(database, html, board_command(results, suite, only, k, "--html=DIR"), board)
    if as_json:
        print_json(board.data)
        return
    screen = console()
    if brief:
        _print_brief(board)
    elif page is not None and not findings:
        screen.print(f"{headline(board)}: {page}", soft_wrap=True)
        page = None
    else:
        screen.print(f"{headline(board)}.\n", soft_wrap=True)
        asked = [part for each in only or () for part in each.split(",")]
        defended = any(part.startswith("defense=") and part != "defense=none" for part in asked)
        for line in answers(board, defended) if only and not findings else ():
            screen.print(line, soft_wrap=True, markup=False, highlight=False, style="bold")
        _print_findings(board.findings, whole=findings)
        sheets = sorted(board.sheets, key=lambda sheet: defended and "defenses" not in sheet.title.lower())
        for sheet in [] if findings else sheets:
            if not sheet.wide:
                _print_sheet(screen, sheet)
        if board.warnings and not findings:
            screen.print("\n".join(board.warnings), soft_wrap=True)
    for file in (out, picture, page):
        if file is not None:
            console(err=True).print(f"written to {file}", soft_wrap=True)


def _curves_of_a_page(k: int) -> list[str]:
    from fedbench.leaderboard.page import curve_metrics

    return curve_metrics(k)


def _print_brief(board: Board) -> None:
    """The first table of attacks and of defenses, and in the last lines what they say."""
    from fedbench.cli.output import console
    from fedbench.leaderboard.answers import answers
    from fedbench.leaderboard.render import headline

    screen = console()
    screen.print(f"{headline(board)}.\n", soft_wrap=True)
    for kind in ("Attacks", "Defenses"):
        sheet = next((each for each in board.sheets if each.title.startswith(kind) and not each.wide), None)
        if sheet is not None:
            _print_sheet(screen, sheet)
    for line in answers(board):
        screen.print(line, soft_wrap=True, style="bold")


def _print_sheet(screen: Console, sheet: Sheet) -> None:
    from fedbench.cli.output import table
    from fedbench.leaderboard.sheets import columns_that_fit

    keep = columns_that_fit(sheet, screen.width)
    rows = [[row[n] for n in keep] for row in sheet.rows]
    headings = [sheet.headings[n] for n in keep]
    screen.print(sheet.title, style="bold")
    shown = table(headings, rows, right=[heading for heading in headings if heading not in sheet.text])
    for column in shown.columns:
        column.no_wrap = column.justify == "right"
    screen.print(shown)
    if sheet.caption:
        screen.print(sheet.caption, soft_wrap=True, markup=False, highlight=False)
    screen.print()


def _print_findings(found: list[Finding], whole: bool) -> None:
    """Each on a line of its own; ``whole``: with its basis and counter-example, or why there is none."""
    from fedbench.cli.output import console, count
    from fedbench.leaderboard.render import beside

    screen = console()
    if whole and not found:
        screen.print(
            "No findings: no attack was run at several doses (`fedbench run core --only variant=doses`).",
            soft_wrap=True,
        )
    for each in found:
        screen.print(f"- {each.text}", soft_wrap=True, markup=False, highlight=False)
        if whole:
            basis = f"({each.basis}; {count(len(each.runs), 'run')}, such as {each.runs[0]})"
            screen.print(
                "  " + f"{beside(each)} {basis}".strip(), soft_wrap=True, markup=False, highlight=False, style="dim"
            )
    if found:
        screen.print()


def board_command(results: list[Path] | None, suite: str | None, only: list[str] | None, k: int, *more: str) -> str:
    """How to make a board again, for a page that others see.

    Folders go by their last names: where they lie is nobody's business.
    """
    return _command([folder.resolve().name for folder in results or [usual_folder()]], suite, only, k, *more)


def given_command(results: list[Path] | None, suite: str | None, only: list[str] | None, k: int) -> str:
    """How to make a board again where the user stands: folders as they were given, none where none was."""
    return _command([str(folder) for folder in results or ()], suite, only, k)


def _command(folders: list[str], suite: str | None, only: list[str] | None, k: int, *more: str) -> str:
    words = ["fedbench", "leaderboard", *(f"--results={folder}" for folder in folders)]
    words += [f"--suite={suite}"] * (suite is not None) + [f"--only={text}" for text in only or ()]
    return shlex.join([*words, *([f"--k={k}"] * (k != 10)), *more])


def sql(
    query: Annotated[str, typer.Argument(metavar="QUERY", help="A query in DuckDB's SQL.")],
    results: Folders = None,
    k: ListLength = 10,
    as_json: Annotated[bool, typer.Option("--json", help="Rows as JSON.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Rows as CSV.")] = False,
) -> None:
    """Ask the records: views runs, headline, curves, attacks, defenses. Nothing can be written."""
    import csv
    import sys

    from fedbench.cli.output import console, fitted, print_json, table

    answer = open_database(results, k, (), None).table(query)
    rows = list(zip(*(column.to_pylist() for column in answer.columns), strict=True))
    if as_json:
        print_json([dict(zip(answer.column_names, row, strict=True)) for row in rows])
    elif as_csv:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(answer.column_names)
        writer.writerows(rows)
    else:
        screen = console()
        shown = fitted(answer.column_names, rows, screen.width)
        screen.print(table(shown.headings, shown.rows))
        if shown.note:
            console(err=True).print(shown.note, soft_wrap=True)


def pack(
    out: Annotated[Path, typer.Argument(metavar="FILE", help="The parquet file to write.")],
    results: Folders = None,
) -> None:
    """Write all records of a folder as one file, which readers take like the folder: the form to publish."""
    from fedbench.cli.output import console, count
    from fedbench.runs.results import pack as pack_records

    found = pack_records(results or [usual_folder()], out)
    for name, reason in found.damaged.items():
        console(err=True).print(f"warning: {name} is left out: {reason}", soft_wrap=True)
    console(err=True).print(f"{count(len(found.table), 'record')} in {out}", soft_wrap=True)


def usual_folder() -> Path:
    """``results``, or what FEDBENCH_RESULTS names."""
    return Path(os.path.expanduser(os.environ.get("FEDBENCH_RESULTS") or DEFAULT_RESULTS))


def open_database(
    results: list[Path] | None,
    k: int,
    only: list[str] | tuple[str, ...],
    suite: str | None,
    curves: bool | Sequence[str] = True,
) -> Database:
    """The records of the folders that the user named, or of the usual one; damaged files are reported on stderr."""
    from fedbench.cli.lazy import defer_torch

    defer_torch()
    from fedbench.cli.output import console
    from fedbench.errors import UserError
    from fedbench.leaderboard import Database

    bundle = next((each for each in results or () if each.suffix == ".zip"), None)
    if bundle is not None:
        made = f"`fedbench verify {bundle} --records FILE.parquet` makes a file that can be."
        raise UserError(
            f"{str(bundle)!r} is a bundle, which is not to be trusted and cannot be read as results; {made}"
        )
    database = Database(results or [usual_folder()], k, only, suite, curves)
    for name, reason in database.found.damaged.items():
        console(err=True).print(f"warning: {name} is no whole record and does not count: {reason}", soft_wrap=True)
    for text in database.left_out:
        console(err=True).print(f"warning: {text}", soft_wrap=True)
    return database


def write_text(path: Path, text: str) -> None:
    """Write a report; raises :class:`ResultsError` when that cannot be done."""
    from fedbench.files import sweep, write_file

    sweep([path.parent])
    write_file(path, text)
