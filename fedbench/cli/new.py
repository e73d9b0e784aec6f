"""``fedbench new``: begin an attack, a defense, a model or a dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def new(
    kind: Annotated[str, typer.Argument(metavar="attack|defense|model|dataset", help="What to begin.")],
    name: Annotated[str, typer.Argument(help="Its name, such as my-attack.")],
    goal: Annotated[
        str | None, typer.Option(metavar="promote|degrade", help="What an attack wants. [default: promote]")
    ] = None,
    folder: Annotated[Path, typer.Option("--dir", help="Where to write the files.")] = Path(),
) -> None:
    """Write a documented file that runs at once, and its test beside it. Nothing that exists is overwritten."""
    from fedbench.cli.lazy import defer_torch

    defer_torch()
    from fedbench.errors import UserError, unknown
    from fedbench.plugins import KINDS
    from fedbench.plugins.scaffold import GOALS, write_entry

    if kind not in KINDS:
        raise unknown("kind", kind, KINDS)
    if goal is not None and kind != "attack":
        raise UserError(f"--goal is of attacks; a {kind} has none.")
    if goal is not None and goal not in GOALS:
        raise unknown("goal", goal, GOALS)
    entry, test = write_entry(kind, name, folder, goal or "promote")
    shown = entry if entry.is_absolute() else f"./{entry}"
    smoke = "smoke-untargeted" if goal == "degrade" else "smoke"
    typer.echo(f"Wrote {entry} and {test}. It works as it is; now make it yours:")
    for command in (f"fedbench check {shown}", f"fedbench run {smoke} --{kind} {shown}", f"pytest {test}"):
        typer.echo(f"  {command}")
