"""The last word of a command that judges: one line on stdout, and the exit code that goes with it."""

from __future__ import annotations

import sys
from typing import NoReturn

import typer


def speak(text: str, ok: bool, code: int = 1) -> NoReturn:
    """Print a verdict and end, with 0 only if it is a good one and somebody could read it.

    Args:
        text: the line. ok: whether it is good. code: otherwise.
    """
    from fedbench.texts import visible

    typer.echo(visible(text))
    sys.stdout.flush()  # a verdict that nobody could read is none
    raise typer.Exit(0 if ok else code)
