"""``fedbench compare``: two sets of results, two attacks or two defenses, in paired differences."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedbench.cli.leaderboard import Folders, ListLength, open_database
from fedbench.cli.options import Only

SPARE = ("smallest", "what they say", "runs")
"""Columns that a narrow screen does without; the sentence above the table has them of all cells together."""

Side = Annotated[str, typer.Argument(help="A folder or packed file of results, or the name of an attack or defense.")]


def compare(
    a: Side,
    b: Side,
    results: Folders = None,
    suite: Annotated[str | None, typer.Option(help="Only scenarios of this suite.")] = None,
    only: Only = None,
    k: ListLength = 10,
    kind: Annotated[
        str | None, typer.Option(metavar="attack|defense", help="What the names are of, where they could be both.")
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Write it as Markdown, too.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Everything as JSON.")] = False,
) -> None:
    """Compare two results, attacks or defenses run by run of the same scenario and seed; say when nothing can be told."""
    from fedbench.cli.lazy import defer_torch

    defer_torch()
    from fedbench.cli.leaderboard import write_text
    from fedbench.cli.output import console, narrowed, print_json, table
    from fedbench.comparison import compare_entries, compare_results, kind_of, markdown, plain, rows_of
    from fedbench.comparison.report import HEADINGS, by_measure, told_once
    from fedbench.comparison.variants import variants_of
    from fedbench.errors import UserError

    if are_paths(a, b, results, kind):
        first, second = (open_database([Path(each)], k, only or (), suite) for each in (a, b))
        found = compare_results(first, second, a, b)
    else:
        database = open_database(results, k, only or (), suite)
        kind = kind_of(database, (a, b), kind)
        try:
            found = compare_entries(database, a, b, kind)
        except UserError as error:
            others = variants_of(database, kind, (a, b))
            hint = f" With other parameters there are {', '.join(map(repr, others))}." if others else ""
            raise UserError(f"{error}{hint}") from None
    if out is not None:
        write_text(out, markdown(found))
    if as_json:
        print_json(plain(found))
    else:
        screen = console()
        screen.print(f"A: {a}\nB: {b}\n", soft_wrap=True)
        for measure, contrasts in by_measure(found.contrasts).items():
            screen.print(f"{measure}: {contrasts[0].words}", style="bold", soft_wrap=True)
            # Of results without any difference, a line says as much as a table.
            shown = contrasts[:1] if found.exact and not found.exact.differing else contrasts
            once, dropped = told_once(shown)
            if once:
                screen.print(f"{once}.", soft_wrap=True)
            headings, rows = narrowed(HEADINGS, rows_of(shown), screen.width, SPARE, dropped)
            cells = table(headings, rows, right=("malicious", "A", "B", "p", "runs", "smallest"))
            for heading, column in zip(headings, cells.columns, strict=True):
                column.no_wrap = heading not in ("defense", "what they say")
            screen.print(cells)
            screen.print()
        for text in (*found.sentences, found.note):
            screen.print(text, soft_wrap=True)
    if out is not None:
        console(err=True).print(f"written to {out}", soft_wrap=True)


def are_paths(a: str, b: str, results: list[Path] | None, kind: str | None) -> bool:
    """Whether ``a`` and ``b`` are results on the disk rather than names; raises :class:`UserError` when that is not clear."""
    from fedbench.attacks import ATTACKS
    from fedbench.defenses import DEFENSES
    from fedbench.errors import UserError

    if kind is not None:
        return False
    there = [Path(each).exists() for each in (a, b)]
    for each, exists in zip((a, b), there, strict=True):
        if not exists and (each.endswith(".parquet") or each.startswith((".", "/", "~"))):
            raise UserError(f"no folder or file {each!r}.")
        if exists and (each in ATTACKS.names() or each in DEFENSES.names()):
            raise UserError(f"{each!r} is a file here and a name: write ./{each} for the file, or say --kind.")
    if there[0] != there[1]:
        found, missing = (a, b) if there[0] else (b, a)
        raise UserError(
            f"{found!r} is there, but there is no folder or file {missing!r}; compare two results or two names."
        )
    if all(there) and results:
        raise UserError(f"--results is where names are looked up; {a!r} and {b!r} are results themselves.")
    return all(there)
