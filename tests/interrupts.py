"""Processes that tests interrupt like a person at a terminal."""

from __future__ import annotations

import signal


def interruptible() -> None:
    """Let SIGINT through, as ``preexec_fn``: a test run in the background of a script has it ignored, and so its children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
