"""``fedbench vision tried``: what snapshots found, as a table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from fedbench.cli.output import console


def tried(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="What `fedbench vision snapshot` wrote.")],
    out: Annotated[Path | None, typer.Option(metavar="FILE.md", help="Write the table as Markdown.")] = None,
) -> None:
    """Show what image attacks did at once, by model, defense, attack and eps."""
    from fedbench.files import write_file
    from fedbench.inspection.tried import markdown, read_tried

    rows = read_tried(files)
    if out is not None:
        write_file(out, markdown(rows))
        console(err=True).print(f"written to {out}", soft_wrap=True)
        return
    print_tried(rows)


def print_tried(rows: Sequence[dict[str, Any]]) -> None:
    """The table of what snapshots found, with its caption."""
    from rich.table import Table

    from fedbench.inspection.tried import CAPTION, HEADINGS, table_of

    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in HEADINGS:
        table.add_column(heading, justify="left" if heading in ("model", "defense", "attack", "targets") else "right")
    for cells in table_of(rows):
        table.add_row(*cells)
    console().print(table)
    console().print(CAPTION)
