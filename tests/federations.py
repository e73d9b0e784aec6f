"""Small federations for tests: those that contributors get."""

from __future__ import annotations

from fedbench.testing import small_federation, small_task

__all__ = ["small_federation", "small_task"]
