"""What all pictures share: colours, the check of a file's name, and how a figure is written."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedbench.errors import UserError, missing_extra
from fedbench.files import write_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's colours, which colour-blind people can tell apart, without their yellow, which is faint on white.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#595959")


NARROW, WIDEST = 3.0, 40.0
"""Inches: a column of a page, and what a figure may be at most."""
BESIDE = 6.0
"""From this width on, in inches, a legend stands beside the panels, in a narrower figure above them."""
_A_CHARACTER = 0.066
"""Inches, of small print."""


@dataclass(frozen=True)
class Panels:
    """How panels of equal size lie in a figure.

    Attributes:
        across, rows: how many. size: of the figure, in inches. beside: whether the legend stands beside them.
        given: whether the width was asked for.
    """

    across: int
    rows: int
    size: tuple[float, float]
    beside: bool
    given: bool

    def legend(self, figure: Figure, handles: Sequence[Any], labels: Sequence[str]) -> None:
        """Beside the panels, or above them."""
        if self.beside:
            figure.legend(handles, labels, loc="outside right upper", fontsize=8, frameon=False)
        else:
            columns = max(1, int(self.size[0] / (0.5 + _A_CHARACTER * max(map(len, labels)))))
            figure.legend(handles, labels, loc="outside upper center", ncols=columns, fontsize=7, frameon=False)

    def note(self, figure: Figure, text: str) -> None:
        """Small print below them."""
        if self.given:
            text = textwrap.fill(text, int(self.size[0] / _A_CHARACTER))
        figure.supxlabel(text, fontsize=8 if self.beside else 7)


def lay_out(
    panels: int, most: int, size: tuple[float, float], legend: float, margin: float, width: float | None, least: float
) -> Panels:
    """How ``panels`` lie in a figure; letters have the same size in all of them.

    Args:
        panels: how many. most: of them beside each other. size: of one, in inches, unless the width is given. legend, margin:
            inches beside them and below. width: of the figure, in inches; None: what the panels need. least: inches that
            a panel needs beside others.

    Raises:
        UserError: for a width that no page has.
    """
    if width is None:
        across = min(most, panels)
        rows = -(-panels // across)
        return Panels(across, rows, (size[0] * across + legend, size[1] * rows + margin), True, False)
    if not NARROW <= width <= WIDEST:
        raise UserError(
            f"--width {width:g} must be {NARROW:g} to {WIDEST:g} inches; a column of a paper has about 3.3."
        )
    beside = width >= BESIDE
    room = width - legend if beside else width
    across = max(1, min(most, panels, int(room / least)))
    rows = -(-panels // across)
    height = max(1.8, min(1.0, room / across / size[0]) * size[1])
    return Panels(across, rows, (width, height * rows + margin + (0 if beside else 0.4)), beside, True)


def check_picture(path: Path) -> None:
    """Raise :class:`UserError` unless ``path`` ends in .png, .svg or .pdf and matplotlib is there."""
    if path.suffix not in (".png", ".svg", ".pdf"):
        raise UserError(f"picture {str(path)!r} must end in .png, .svg or .pdf.")
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise missing_extra("plot", "a picture") from None


def save_picture(figure: Figure, path: Path) -> None:
    """Write a figure; equal figures give equal files. Raises :class:`ResultsError` when that cannot be done.

    A PDF has its fonts in it, as outlines that publishers take (TrueType, 42) and not as Type 3.
    """
    from matplotlib import rc_context

    made = io.BytesIO()
    dates = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
    with rc_context({"svg.hashsalt": "fedbench", "pdf.fonttype": 42}):
        figure.savefig(made, format=path.suffix[1:], metadata=dates.get(path.suffix))
    write_file(path, made.getvalue())
