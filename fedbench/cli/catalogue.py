"""``fedbench list`` and ``fedbench show``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from fedbench.cli.described import KINDS, describe, is_table, names, summary, text_of

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]

FORMAT = "suite-format"
"""What `show` calls the reference of suite files."""


def list_entries(
    kind: Annotated[str, typer.Argument(metavar="|".join(KINDS), help="What to list.")], as_json: Json = False
) -> None:
    """List attacks, defenses, models, datasets, suites, protocols, extractors of features, or denoisers."""
    from fedbench.cli.lazy import defer_torch
    from fedbench.cli.output import console, narrowed, print_json, table

    _check_kind(kind)
    defer_torch()
    records = [summary(kind, name) for name in names(kind)]
    if as_json:
        print_json(records)
        return
    headings = _COLUMNS[kind]
    rows = [[text_of(record[heading]) for heading in headings] for record in records]
    screen = console()
    shown, cells = narrowed(headings, rows, screen.width, _SPARE.get(kind, ()))
    listed = table(shown, cells, right=("users", "items", "interactions", "scenarios", "runs", "version", "features"))
    listed.columns[0].no_wrap = True
    screen.print(listed)
    if len(shown) < len(headings):
        left = ", ".join(heading for heading in headings if heading not in shown)
        told = f"No room for {left}; `fedbench show NAME` and --json give everything."
        console(err=True).print(told, soft_wrap=True)


def show(
    name: Annotated[
        str,
        typer.Argument(
            help="An attack, defense, model, dataset, suite, protocol, extractor or denoiser; a file; or suite-format."
        ),
    ],
    kind: Annotated[str | None, typer.Option(help="Which of them, when several have the name.")] = None,
    as_json: Json = False,
) -> None:
    """Show an entry: its card, threat model, parameters with their defaults, and where its source is."""
    from fedbench.cli.lazy import defer_torch
    from fedbench.cli.output import console, facts, print_json, table
    from fedbench.errors import UserError, unknown

    defer_torch()
    if name == FORMAT:
        from fedbench.scenarios.suite_format import suite_format

        typer.echo(suite_format(), nl=False)
        return
    if kind is not None:
        kind = kind if kind.endswith("s") else f"{kind}s"
        _check_kind(kind)
    if name.endswith(".py"):
        from fedbench.plugins import load_file

        loaded = load_file(name)
        name, found = loaded.name, [f"{loaded.kind}s"]
    elif name.endswith(".toml"):
        found = ["suites"]
    else:
        found = [each for each in KINDS if name in names(each, aliases=True)]
    found = [each for each in found if kind in (None, each)]
    if not found:
        kinds = KINDS if kind is None else (kind,)
        everything = {each for group in kinds for each in names(group, aliases=True)}
        raise unknown(kind[:-1] if kind else "name", name, everything, "See `fedbench list " + "|".join(kinds) + "`.")
    if len(found) > 1:
        which = " or ".join(f"`fedbench show {name} --kind {each[:-1]}`" for each in found)
        raise UserError(f"{name!r} is the name of {len(found)} entries ({', '.join(found)}); say {which}.")
    record = describe(found[0], name)
    if as_json:
        print_json(record)
        return
    tables = {key: value for key, value in record.items() if is_table(value)}
    out = console()
    out.print(facts((key.replace("_", " "), text_of(value)) for key, value in record.items() if key not in tables))
    for key, value in tables.items():
        out.print(f"\n{key.replace('_', ' ')}:")
        out.print(table(list(value[0]), [[text_of(each) for each in row.values()] for row in value]))


def _check_kind(kind: str) -> None:
    from fedbench.errors import unknown

    if kind not in KINDS:
        raise unknown("kind", kind, KINDS)


_COLUMNS: dict[str, Sequence[str]] = {
    "attacks": ("attack", "title", "goal", "channel", "knowledge", "models", "paper"),
    "defenses": ("defense", "title", "family", "knowledge", "assumes", "models", "paper"),
    "models": ("model", "title", "paper"),
    "datasets": ("dataset", "title", "users", "items", "interactions", "splits"),
    "suites": ("suite", "version", "scenarios", "runs", "title"),
    "protocols": ("protocol", "title"),
    "extractors": ("extractor", "title", "features", "here", "paper"),
    "denoisers": ("denoiser", "title", "here", "paper"),
}


_SPARE = {
    "attacks": ("paper", "models", "title"),
    "defenses": ("paper", "assumes", "models", "knowledge"),
    "extractors": ("paper",),
    "denoisers": ("paper",),
}
"""Columns that a narrow list does without, the first ones first."""
