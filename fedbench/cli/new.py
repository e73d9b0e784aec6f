"""``fedbench new``: begin an attack, a defense, a model, a dataset or a suite."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, cast

import typer


def new(
    kind: Annotated[str, typer.Argument(metavar="attack|defense|model|dataset|suite", help="What to begin.")],
    name: Annotated[str, typer.Argument(help="Its name, such as my-attack.")],
    goal: Annotated[
        str | None, typer.Option(metavar="promote|demote|degrade", help="What an attack wants. [default: promote]")
    ] = None,
    channel: Annotated[
        str | None,
        typer.Option(metavar="gradient|image", help="What an attack changes: updates, or images. [default: gradient]"),
    ] = None,
    hook: Annotated[
        str | None,
        typer.Option(metavar="filter|purify", help="What a defense cleans: updates, or images. [default: filter]"),
    ] = None,
    folder: Annotated[Path, typer.Option("--dir", help="Where to write the files.")] = Path(),
) -> None:
    """Write a documented file that runs at once, with its test where it is code. Nothing that exists is overwritten."""
    from fedbench.cli.lazy import defer_torch

    defer_torch()
    from fedbench.errors import UserError, unknown
    from fedbench.plugins import KINDS, Kind
    from fedbench.plugins.scaffold import CHANNELS, GOALS, HOOKS, write_entry, write_suite

    if kind not in (*KINDS, "suite"):
        raise unknown("kind", kind, (*KINDS, "suite"))
    for option, value, whose, known in (
        ("goal", goal, "attack", GOALS),
        ("channel", channel, "attack", CHANNELS),
        ("hook", hook, "defense", HOOKS),
    ):
        if value is not None and kind != whose:
            raise UserError(f"--{option} is of {whose}s; {'an' if kind == 'attack' else 'a'} {kind} has none.")
        if value is not None and value not in known:
            raise unknown(option, value, known)
    if goal == "degrade" and channel == "image":
        raise UserError("--channel image shows other images of targets, which an attack that degrades has none of.")
    if goal == "demote" and channel == "image":
        raise UserError(
            "--channel image begins an attack that promotes; change its goal, or begin with --channel gradient."
        )
    if kind == "suite":
        path = write_suite(name, folder)
        shown = path if path.is_absolute() else f"./{path}"
        typer.echo(f"Wrote {path}. It runs as it is; now make it yours:")
        for command in (f"run {shown} --dry-run", f"run {shown}", f"leaderboard --suite {shown}"):
            typer.echo(f"  fedbench {command}")
        return
    entry, test = write_entry(
        cast(Kind, kind), name, folder, goal or "promote", channel or "gradient", hook or "filter"
    )
    shown = entry if entry.is_absolute() else f"./{entry}"
    smoke = {"degrade": "smoke-untargeted", "demote": "smoke-demote"}.get(goal or "", "smoke")
    if channel == "image" or hook == "purify":
        smoke = "smoke-visual"
    typer.echo(f"Wrote {entry} and {test}. It works as it is; now make it yours:")
    for command in (
        f"fedbench check {shown}",
        f"fedbench run {smoke} --{kind} {shown}",
        f"python -m pytest {test}    # needs pytest: pip install pytest",
    ):
        typer.echo(f"  {command}")
