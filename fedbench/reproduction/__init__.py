"""Published tables beside ours: value, mean with prediction interval, difference, verdict, and the curves."""

from __future__ import annotations

from fedbench.reproduction.curves import Curve
from fedbench.reproduction.picture import draw
from fedbench.reproduction.published import Cell, prediction_interval, verdict
from fedbench.reproduction.report import Report, compare
from fedbench.reproduction.tables import (
    CELL_HEADINGS,
    cell_rows,
    curve_rows,
    curve_section,
    curve_table,
    markdown,
    markdown_table,
    published_section,
    sparkline,
)

__all__ = [
    "CELL_HEADINGS",
    "Cell",
    "Curve",
    "Report",
    "cell_rows",
    "compare",
    "curve_rows",
    "curve_section",
    "curve_table",
    "draw",
    "markdown",
    "markdown_table",
    "prediction_interval",
    "published_section",
    "sparkline",
    "verdict",
]
