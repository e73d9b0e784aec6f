"""Two sets of results, two attacks or two defenses beside each other, run by run of the same scenario and seed."""

from __future__ import annotations

from fedbench.comparison.pairing import compare_entries, compare_results, kind_of
from fedbench.comparison.report import Comparison, Contrast, Exact, markdown, plain, rows_of

__all__ = [
    "Comparison",
    "Contrast",
    "Exact",
    "compare_entries",
    "compare_results",
    "kind_of",
    "markdown",
    "plain",
    "rows_of",
]
