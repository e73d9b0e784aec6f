"""Dose and response as a picture: one panel a dataset and model, all attacks in each."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fedbench.errors import UserError
from fedbench.leaderboard.doses import HALF
from fedbench.leaderboard.ranking_doses import Panel
from fedbench.pictures import COLORS, check_picture, lay_out, save_picture

ACROSS = 3
"""Panels in a row."""
NAMED = 6
"""Attacks that have a colour of their own; the others are grey."""
GREY = "#b8b8b8"


def draw_doses(
    panels: Sequence[Panel], path: Path, k: int, named: Sequence[str] = (), width: float | None = None
) -> None:
    """ER@K over the share of malicious clients, one line an attack: the median over seeds, a band over all of them.

    A seed that did not run a dose has what its response says there (:meth:`~.dose_curves.Curve.filled`).

    Args:
        panels: of :func:`~fedbench.leaderboard.ranking_doses.dose_panels`. path: ends in ``.png`` or ``.svg``. k: of ER@K.
            named: the attacks that have a colour; empty: the :data:`NAMED` that need the smallest doses. width: of the
            picture, in inches; None: what the panels need.

    Raises:
        UserError: for another ending, without matplotlib, without doses, for an attack that was not run, or a width that no
            page has. ResultsError: when the file cannot be written.
    """
    check_picture(path)
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine
    from matplotlib.lines import Line2D

    if not panels:
        raise UserError("no attack was run at several doses; `fedbench run core --only variant=doses` does.")
    strength = _by_strength(panels)
    for name in named:
        if name not in strength:
            raise UserError(f"attack {name!r} was not run at several doses; there are {', '.join(sorted(strength))}.")
    chosen = list(named) or strength[:NAMED]
    colors = {name: COLORS[n % len(COLORS)] for n, name in enumerate(chosen)}
    laid = lay_out(len(panels), ACROSS, (4.2, 3.0), legend=1.8, margin=0.7, width=width, least=2.2)
    layout = ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.08)
    figure = Figure(figsize=laid.size, dpi=110, layout=layout)
    grid = list(figure.subplots(laid.rows, laid.across, squeeze=False).flat)
    for axes, panel in zip(grid, panels, strict=False):
        _draw(axes, panel, colors, k)
    for axes in grid[len(panels) :]:
        axes.set_visible(False)
    handles = [Line2D([], [], color=color, linewidth=1.8) for color in colors.values()]
    labels = list(colors)
    if set(strength) - set(colors):
        handles, labels = [*handles, Line2D([], [], color=GREY, linewidth=1)], [*labels, "others"]
    laid.legend(figure, handles, labels)
    seeds = sorted({len(row.curve.seeds) for panel in panels for row in panel.ranking if row.curve})
    spread = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    laid.note(
        figure,
        f"Lines: median over {spread} seeds, each with its own target; bands: all of them. Dashed: half of the users.",
    )
    save_picture(figure, path)


def _by_strength(panels: Sequence[Panel]) -> list[str]:
    """The attacks by their mean place over the panels that have them, those without a rank last."""
    places: dict[str, list[float]] = {}
    for panel in panels:
        for place, row in enumerate(panel.ranking):
            places.setdefault(row.attack, []).append(place / len(panel.ranking) + (row.rank is None))
    return sorted(places, key=lambda name: (statistics.fmean(places[name]), name))


def _draw(axes: Any, panel: Panel, colors: dict[str, str], k: int) -> None:
    axes.set_title(f"{panel.name} ({panel.users:,} users)", fontsize=9)
    for row in sorted(panel.ranking, key=lambda row: row.attack in colors):
        assert row.curve is not None
        ran, by_seed = [point.clients for point in row.curve.points], row.curve.filled().values()
        shares = [100 * clients / panel.users for clients in ran]
        values = [sorted(own[clients] for own in by_seed) for clients in ran]
        color = colors.get(row.attack, GREY)
        axes.plot(
            shares, [statistics.median(each) for each in values], color=color, marker="o", markersize=2.5,
            linewidth=1.8 if row.attack in colors else 0.9,
        )  # fmt: skip
        if row.attack in colors:
            axes.fill_between(
                shares, [each[0] for each in values], [each[-1] for each in values], color=color, alpha=0.1, linewidth=0
            )
    axes.axhline(HALF, color="black", linewidth=0.7, linestyle="--")
    axes.set_xscale("log")
    ticks = [100 * clients / panel.users for _, clients in panel.ladder]
    axes.set_xticks(ticks, [f"{tick:.2g}" for tick in ticks])
    axes.minorticks_off()
    axes.set_ylim(-3, 103)
    axes.set_xlabel("malicious clients (% of users)", fontsize=8)
    axes.set_ylabel(f"ER@{k} (%)", fontsize=8)
    axes.tick_params(labelsize=7)
