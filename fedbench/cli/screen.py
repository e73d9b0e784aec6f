"""The console that all commands print on."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.text import Text

from fedbench.texts import visible


class Screen(Console):
    """Prints text as it is, but for characters that steer a terminal or cannot be seen, which are spelt out.

    Names and messages come from records, which may be a stranger's.
    """

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(visible(text, kept="\n\t"), **options)

    def on_broken_pipe(self) -> None:
        """Whoever read has gone, as ``| head`` does: the command ends. By itself rich would end the process."""
        raise BrokenPipeError
