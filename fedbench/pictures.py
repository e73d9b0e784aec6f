"""What all pictures share: colours, the check of a file's name, and how a figure is written."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

from fedbench.errors import UserError, missing_extra
from fedbench.files import write_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's colours, which colour-blind people can tell apart, without their yellow, which is faint on white.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#595959")


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
