"""The curves of a report as a picture."""

from __future__ import annotations

import math

from fedbench.reproduction.curves import Curve
from fedbench.reproduction.report import Report


def draw(report: Report, path: str) -> None:
    """ER@K and HR@K over epochs, a panel for each dataset and model and a line for each attack, as PNG, SVG or PDF.

    Needs matplotlib (``pip install '.[plot]'``).
    """
    from matplotlib.figure import Figure

    panels: dict[tuple[str, str, str], list[Curve]] = {}
    for curve in report.curves:
        if curve.epochs:
            variant = curve.label.split(" ")[0] if not curve.label.startswith(curve.dataset) else ""
            panels.setdefault((variant, curve.dataset, curve.model), []).append(curve)
    exposed = any(curve.er for curve in report.curves)
    figure = Figure(figsize=(11 if exposed else 7, 2.8 * max(1, len(panels))), layout="constrained")
    axes = figure.subplots(max(1, len(panels)), 2 if exposed else 1, squeeze=False)
    for row, (name, curves) in zip(axes, panels.items(), strict=False):
        title = " ".join(part for part in name if part)
        for number, curve in enumerate(curves):
            style = {"color": f"C{number % 10}", "linestyle": "-" if number < 10 else "--"}
            style["label"] = curve.label.removeprefix(f"{title} ")
            if exposed:
                row[0].plot(curve.epochs, curve.er or [math.nan] * len(curve.epochs), **style)
            row[-1].plot(curve.epochs, [math.nan if value is None else value for value in curve.hr], **style)
        if exposed:
            row[0].set(ylabel=f"ER@{report.k} (%)", ylim=(-2, 102), xlabel="epoch")
        row[-1].set(ylabel=f"HR@{min(report.k, 20)} (%)", xlabel="epoch")
        row[0].set_title(title)
        row[0].legend(fontsize=6, ncols=2)
    figure.savefig(path, dpi=110)
