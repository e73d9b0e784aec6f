"""``fedbench doctor``: the environment, to paste into the report of a bug."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from fedbench.cli.leaderboard import usual_folder


def doctor(
    results: Annotated[
        Path | None, typer.Option(help="Folder of the records. [default: FEDBENCH_RESULTS, or results]")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
) -> None:
    """Print versions, hardware, data and plug-ins, for the report of a bug; nothing secret, the home folder as ~."""
    from fedbench.cli.examine import examine
    from fedbench.cli.output import print_json

    found = examine(results or usual_folder())
    if as_json:
        print_json(found)
        return
    encoding = sys.stdout.encoding or "utf-8"
    for title, facts in found.items():
        lines = [f"  {key}: {_text(value)}" for key, value in facts.items()] or ["  none"]
        text = "\n".join([title, *lines])
        # A terminal that cannot show a letter may be what the report is about.
        typer.echo(text.encode(encoding, "backslashreplace").decode(encoding))


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return " ".join("; ".join(map(str, value)).split()) or "none"
    return "unknown" if value is None else " ".join(str(value).split())
