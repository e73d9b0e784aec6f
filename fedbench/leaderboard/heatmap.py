"""Attack by defense as a picture: what every defense leaves of every attack."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fedbench.errors import UserError
from fedbench.leaderboard.database import Database
from fedbench.leaderboard.ranking_defenses import rank_defenses
from fedbench.leaderboard.sheets import hit_cut
from fedbench.leaderboard.tracks import TRACKS, Track
from fedbench.leaderboard.under_defenses import attacks_under_defenses
from fedbench.pictures import check_picture, save_picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes

UNDEFENDED = "none"


@dataclass(frozen=True)
class Grid:
    """What is left of each attack under each defense on one model, percent; None: not run on all the attack's scenarios.

    Attributes:
        measure: of the values. attacks: the rows. defenses: the columns, no defense first. values: by row.
    """

    title: str
    measure: str
    attacks: list[str]
    defenses: list[str]
    values: list[list[float | None]]


def heat_grids(database: Database) -> list[Grid]:
    """One grid for each track and model; values as in the leaderboard's tables "attack by defense".

    ER@K that is left of an attack that promotes, DR@K of one that demotes; of an untargeted one the share of the baseline's
    HR@K that is lost. A row's values are over the same scenarios. Columns are in the order of the ranking of defenses, rows
    by what the attack does undefended.
    """
    out = []
    for track in TRACKS:
        models = database.rows(
            f"select distinct model from {track.defenses} where attack_goal = ? order by model", [str(track.goal)]
        )
        for model in (row["model"] for row in models):
            grid = _grid(database, track, model)
            if grid.attacks:
                out.append(grid)
    return out


def _grid(database: Database, track: Track, model: str) -> Grid:
    k = database.k
    rows = sorted(attacks_under_defenses(database, model, track), key=lambda row: (-row.er.mean, row.attack))
    defenses = [row.defense for row in rank_defenses(database, model, track)]
    values = [
        [row.er.mean, *(row.under[name].er.mean if name in row.under else None for name in defenses)] for row in rows
    ]
    measure = f"{track.measured(k)} left (%)" if track.exposes else f"HR@{hit_cut(k)} lost (%)"
    (data,) = database.rows(
        f"select string_agg(distinct dataset, ', ' order by dataset) d, string_agg(distinct protocol, ', ') p from"
        f" {track.defenses} where attack_goal = ? and model = ?",
        [str(track.goal), model],
    )
    title = f"{measure} on {model}, attack by defense ({data['d']})"
    return Grid(title, measure, [row.attack for row in rows], [UNDEFENDED, *defenses], values)


def draw_heatmap(grids: Sequence[Grid], path: Path) -> None:
    """A map for each grid, cells annotated; what was not run is hatched and has no number.

    Args:
        grids: of :func:`heat_grids`. path: ends in ``.png`` or ``.svg``.

    Raises:
        UserError: for another ending, without matplotlib, or when there is no grid. ResultsError: when the file cannot be
            written.
    """
    check_picture(path)
    from matplotlib.figure import Figure

    if not grids:
        raise UserError(
            "no defended run here has an undefended twin, so there is no map of attacks and defenses to draw."
        )
    heights = [0.34 * len(grid.attacks) + 2.3 for grid in grids]
    width = max(0.52 * len(grid.defenses) + 4.0 for grid in grids)
    figure = Figure(figsize=(max(width, 6.0), sum(heights) + 0.3), dpi=120, layout="constrained")
    parts = figure.subfigures(len(grids), 1, squeeze=False, height_ratios=heights)[:, 0]
    for part, grid in zip(parts, grids, strict=True):
        axes = part.subplots()
        _draw_grid(axes, grid)
    if any(None in row for grid in grids for row in grid.values):
        figure.supxlabel("Hatched: not run on all scenarios of the row.", fontsize=8)
    save_picture(figure, path)


def _draw_grid(axes: Axes, grid: Grid) -> None:
    from matplotlib.patches import Rectangle

    known = [value for row in grid.values for value in row if value is not None]
    # Exposure has a scale of its own; a loss is shown up to the largest there is.
    highest = 100.0 if grid.measure.startswith(("ER", "DR")) else max(*known, 1.0)
    shades = [[float("nan") if value is None else value for value in row] for row in grid.values]
    image = axes.imshow(shades, cmap="Blues", vmin=0, vmax=highest, aspect="auto")
    for y, row in enumerate(grid.values):
        for x, value in enumerate(row):
            if value is None:
                axes.add_patch(
                    Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor="white", edgecolor="0.6", hatch="////", linewidth=0)
                )
            else:
                color = "white" if value > 0.6 * highest else "black"
                text = f"{value:.0f}" if abs(value) >= 9.95 else f"{value:.1f}"
                axes.text(x, y, text, ha="center", va="center", fontsize=7.5, color=color)
    axes.set_xticks(
        range(len(grid.defenses)), grid.defenses, rotation=40, ha="right", rotation_mode="anchor", fontsize=8
    )
    axes.set_yticks(range(len(grid.attacks)), grid.attacks, fontsize=8)
    axes.set_xticks([n - 0.5 for n in range(1, len(grid.defenses))], minor=True)
    axes.set_yticks([n - 0.5 for n in range(1, len(grid.attacks))], minor=True)
    axes.grid(which="minor", color="0.88", linewidth=0.6)
    axes.tick_params(which="both", length=0)
    axes.axvline(0.5, color="black", linewidth=1.2)
    axes.set_title(grid.title, fontsize=10)
    bar = axes.figure.colorbar(image, ax=axes, pad=0.01, aspect=15)
    bar.set_label(grid.measure, fontsize=8)
    bar.ax.tick_params(labelsize=7)
