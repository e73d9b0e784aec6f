"""How exposure and quality went over training, by attack: panels of lines with bands, and their picture."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedbench.entries.cards import Goal
from fedbench.errors import UserError, unknown
from fedbench.leaderboard.database import Database, Row
from fedbench.leaderboard.ranking import CLEAN_PLACE, Cell, cell_of, entry_names, grouped
from fedbench.leaderboard.sheets import hit_cut
from fedbench.pictures import COLORS, check_picture, lay_out, save_picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CLEAN = "no attack"
DASHES = ("-", (0, (4, 1.5)), (0, (1, 1.2)), (0, (4, 1.2, 1, 1.2)))
"""Lines of a colour are told apart by these."""
ACROSS = 2
"""Panels in a line."""


@dataclass(frozen=True)
class Line:
    """Percent over epochs, at those epochs at which every run was evaluated: mean, lowest and highest run.

    Attributes:
        name: of the attack. runs: how many are drawn. lost: how many more diverged or failed, and have no line.
    """

    name: str
    epochs: list[int]
    er: list[tuple[float, float, float]]
    hr: list[tuple[float, float, float]]
    runs: int
    lost: int


@dataclass(frozen=True)
class Panel:
    """The attacks of one aim on one dataset, model and malicious ratio (and split and parameters)."""

    title: str
    goal: str
    lines: list[Line]


def curve_panels(database: Database, defense: str = "none") -> list[Panel]:
    """Panels of the attacks under one defense, each with its clean twins; by what they want, those that promote first.

    Args:
        database: the records. defense: its name on the leaderboard.

    Raises:
        UserError: nothing was attacked under that defense.
    """
    attacked = _under(database, defense)
    names = entry_names(attacked)
    points = _points(database)
    by_id = {row["run_id"]: row for row in database.rows("select run_id, scenario_id, seed, status from runs")}
    of_scenario = grouped(by_id.values(), lambda row: row["scenario_id"])
    clean_runs = {own[0]["scenario_id"]: own for own in of_scenario}

    def place(row: Row) -> Cell:
        return (list(Goal).index(row["attack_goal"]), *cell_of(row, CLEAN_PLACE), row["malicious_ratio"])

    panels = grouped(sorted(attacked, key=place), place)
    titles = _titles([own[0] for own in panels])
    out = []
    for title, own in zip(titles, panels, strict=True):
        twins = {row["clean_id"] for row in own}
        clean = [run for twin in sorted(twins) for run in clean_runs.get(twin, [])]
        by_name: dict[str, list[Row]] = {}
        for row in own:
            by_name.setdefault(names[row["attack"], row["attack_params"]], []).append(row)
        lines = [_line(name, rows, points) for name, rows in sorted(by_name.items())]
        out.append(Panel(title, own[0]["attack_goal"], [_line(CLEAN, clean, points), *lines]))
    return out


def _under(database: Database, defense: str) -> list[Row]:
    """Attacked runs under the defense of that name."""
    columns = (
        "run_id, clean_id, dataset, model, protocol, split, protocol_params, model_params, malicious_ratio, seed, status,"
        " attack, attack_params, attack_goal, defense, defense_params"
    )
    rows = database.rows(f"select {columns} from headline where attack <> 'none' and not superseded order by run_id")
    names = entry_names(rows, "defense")
    found = [row for row in rows if names[row["defense"], row["defense_params"]] == defense]
    if not found:
        if not rows:
            raise UserError("no run here has an attack, so there are no curves to draw.")
        raise unknown("defense", defense, set(names.values()), "It must be one under which attacks were run.")
    return found


def _points(database: Database) -> dict[str, list[Row]]:
    """ER@K and the headline HR@K of every evaluation of the runs that ended well, by run id."""
    k, h = database.k, hit_cut(database.k)
    rows = database.rows(
        f"select run_id, point.epoch as epoch, point.er_{k} as er,"
        f" case when ranking = 'full' then point.hr_full_{h} else point.hr_{h} end as hr"
        " from (select run_id, ranking, unnest(curve) as point from runs where status = 'ok') order by run_id, epoch"
    )
    return {own[0]["run_id"]: own for own in grouped(rows, lambda row: row["run_id"])}


def _line(name: str, rows: Sequence[Row], points: Mapping[str, list[Row]]) -> Line:
    scored = [points[row["run_id"]] for row in rows if row["run_id"] in points]
    lost = sum(row["status"] in ("diverged", "failed") for row in rows)
    count = Counter(point["epoch"] for own in scored for point in own)
    epochs = sorted(epoch for epoch, runs in count.items() if runs == len(scored))

    def bands(column: str) -> list[tuple[float, float, float]]:
        by_epoch: dict[int, list[float]] = {}
        for own in scored:
            for point in own:
                if point[column] is not None:
                    by_epoch.setdefault(point["epoch"], []).append(100 * point[column])
        values = [by_epoch.get(epoch, []) for epoch in epochs]
        if any(len(each) < len(scored) for each in values):
            return []
        return [(math.fsum(each) / len(each), min(each), max(each)) for each in values]

    return Line(name, epochs, bands("er"), bands("hr"), len(scored), lost)


def _titles(rows: Sequence[Row]) -> list[str]:
    """``ml-100k, mf, 5 % malicious``, and for panels that would share a title what tells them apart."""
    plain = [f"{row['dataset']}, {row['model']}, {100 * row['malicious_ratio']:g} % malicious" for row in rows]
    facts = [
        {"": row["protocol"], "split": row["split"], "aim": row["attack_goal"]}
        | json.loads(row["protocol_params"])
        | {f"model.{key}": value for key, value in json.loads(row["model_params"]).items()}
        for row in rows
    ]
    out = []
    for title, own in zip(plain, facts, strict=True):
        others = [each for text, each in zip(plain, facts, strict=True) if text == title]
        apart = [key for key in own if any(each.get(key) != own[key] for each in others)]
        out.append(", ".join([title, *(f"{key} {own[key]}".strip() for key in apart[:3])]))
    return out


def draw_curves(panels: Sequence[Panel], path: Path, k: int, defense: str = "none", width: float | None = None) -> None:
    """ER@K and HR@K over epochs (HR@K alone where nothing is promoted), a panel for each dataset, model and ratio.

    A line is the mean over seeds and targets, its band goes from the lowest to the highest run. An attack has the same colour
    in all panels. What diverged or failed has no line and is counted below.

    Args:
        panels: of :func:`curve_panels`. path: ends in ``.png`` or ``.svg``. k: of the metrics. defense: for the title.
            width: of the picture, in inches; None: what the panels need.

    Raises:
        UserError: for another ending, without matplotlib, when no attacked run has a curve, or for a width that no page has.
            ResultsError: when the file cannot be written.
    """
    check_picture(path)
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine
    from matplotlib.lines import Line2D

    if not any(line.er or line.hr for panel in panels for line in panel.lines if line.name != CLEAN):
        raise UserError("no attacked run here ended well, so there are no curves to draw.")
    names = _by_strength(panels)
    styles: dict[str, dict[str, Any]] = {
        name: {"color": COLORS[n % len(COLORS)], "linestyle": DASHES[n // len(COLORS) % len(DASHES)]}
        for n, name in enumerate(names)
    }
    styles[CLEAN] = {"color": "black", "linestyle": "-"}
    laid = lay_out(len(panels), ACROSS, (7.2, 2.7), legend=2.2, margin=0.9, width=width, least=3.8)
    layout = ConstrainedLayoutEngine(w_pad=0.1 if laid.beside else 0.03, h_pad=0.06)
    figure = Figure(figsize=laid.size, dpi=110, layout=layout)
    about = f"Attacks {'without a defense' if defense == 'none' else f'under {defense}'}, over training"
    if not laid.given:  # a title of its own would run into the legend
        figure.suptitle(about, fontsize=11)
    parts = figure.subfigures(laid.rows, laid.across, squeeze=False).flat
    for part, panel in zip(parts, panels, strict=False):
        part.suptitle(panel.title, fontsize=9)
        shown = ("er", "hr") if panel.goal != Goal.DEGRADE else ("hr",)
        for axes, what in zip(part.subplots(1, len(shown), squeeze=False).flat, shown, strict=True):
            _draw_lines(axes, panel, what, styles)
            axes.set_xlabel("epoch", fontsize=8)
            axes.set_ylabel(f"ER@{k} (%)" if what == "er" else f"HR@{hit_cut(k)} (%)", fontsize=8)
            axes.tick_params(labelsize=7)
    handles = [Line2D([], [], linewidth=1.5, **styles[name]) for name in (CLEAN, *names)]
    laid.legend(figure, handles, [CLEAN, *names])
    laid.note(figure, f"{about}. {_note(panels)}" if laid.given else _note(panels))
    save_picture(figure, path)


def _by_strength(panels: Sequence[Panel]) -> list[str]:
    """The attacks: by mean exposure at the end, then by how little quality they leave."""
    ends: dict[str, list[tuple[float, float]]] = {}
    for panel in panels:
        for line in panel.lines:
            if line.name != CLEAN:
                end = (line.er[-1][0] if line.er else 0.0, -line.hr[-1][0] if line.hr else 0.0)
                ends.setdefault(line.name, []).append(end)
    means = {
        name: tuple(math.fsum(column) / len(own) for column in zip(*own, strict=True)) for name, own in ends.items()
    }
    return sorted(means, key=lambda name: means[name], reverse=True)


def _draw_lines(axes: Axes, panel: Panel, what: str, styles: Mapping[str, Mapping[str, Any]]) -> None:
    for line in panel.lines:
        bands = line.er if what == "er" else line.hr
        if bands:
            mean, low, high = zip(*bands, strict=True)
            axes.plot(line.epochs, mean, linewidth=1.2, **styles[line.name])
            axes.fill_between(line.epochs, low, high, color=styles[line.name]["color"], alpha=0.12, linewidth=0)
    if what == "er":
        axes.set_ylim(-3, 103)


def _note(panels: Sequence[Panel]) -> str:
    lost = [(line.name, panel.title, line.lost) for panel in panels for line in panel.lines if line.lost]
    counts = sorted({line.runs for panel in panels for line in panel.lines if line.runs})
    spread = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    note = f"Lines: mean over runs ({spread} each). Bands: lowest to highest run."
    if lost:
        some = "; ".join(f"{count} of {name} ({title})" for name, title, count in lost[:3])
        more = f"; and {len(lost) - 3} more lines" if len(lost) > 3 else ""
        note += f" Not drawn, diverged or failed: {some}{more}."
    return note
