"""Defenses as a picture: what they prevent against what they cost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedbench.errors import UserError
from fedbench.leaderboard.ranking import Estimate
from fedbench.leaderboard.ranking_defenses import DefenseRow, pareto_front
from fedbench.leaderboard.sheets import hit_cut
from fedbench.leaderboard.tracks import DEMOTION, TARGETED, UNTARGETED, VISUAL
from fedbench.leaderboard.under_defenses import family_order
from fedbench.pictures import check_picture, save_picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import FigureBase

# Okabe and Ito's colours, which colour-blind people can tell apart.
COLORS = {
    "aggregation": "#0072B2",
    "clipping": "#E69F00",
    "client-side": "#009E73",
    "filter": "#CC79A7",
    "purification": "#56B4E9",
}
OTHER = "#595959"
"""Of chains over several families, and of families that fedbench does not know."""

Point = tuple[float, float]


def draw_defenses(rows: Sequence[DefenseRow], path: Path, k: int) -> None:
    """ER@K reduction against HR@K loss of every ranked defense, with intervals and the Pareto front, as PNG, SVG or PDF.

    Axes span the means; an interval that reaches further ends at the edge in an arrow.

    Defenses that are ranked against untargeted attacks have a panel of their own: recovered HR@K against its cost; so have
    defenses of images, ER@K reduction against the loss of NDCG@20, and those against attacks that demote. Points
    are numbered in order of the ranking, since ranks can be shared, and named in the legend. Those that are not on the
    front are paler. Equal rows give equal files.

    Args:
        rows: of :func:`~fedbench.leaderboard.rank_defenses`, of any tracks.
        path: ends in ``.png`` or ``.svg``. k: of the metrics.

    Raises:
        UserError: for another ending, when no defense has a rank, or without matplotlib. ResultsError: when the file
            cannot be written.
    """
    check_picture(path)
    from matplotlib.figure import Figure

    panels = [(words, marks) for goal, words in panel_words(k).items() if (marks := _marks(rows, goal))]
    if not panels:
        raise UserError(
            "no defense has a rank, so there is nothing to draw; `fedbench leaderboard` says what is lacking."
        )
    figure = Figure(figsize=(10, 6.5 * len(panels)), dpi=130, layout="constrained")
    drawn = []
    for part, (words, marks) in zip(figure.subfigures(len(panels), 1, squeeze=False)[:, 0], panels, strict=True):
        axes = part.subplots()
        axes.set(**words)
        _draw_marks(axes, marks)
        _draw_legend(part, marks)
        drawn.append((axes, marks))
    figure.draw_without_rendering()  # fixes the layout, on which the labels' places depend
    for axes, marks in drawn:
        _draw_labels(axes, marks, 72 / figure.dpi)
    save_picture(figure, path)


def panel_words(k: int) -> dict[str, dict[str, str]]:
    """Title and axes of each track's panel, by what its rows have as their goal, in order."""
    h = hit_cut(k)
    return {
        TARGETED.panel: {
            "xlabel": f"HR@{h} loss, the larger of clean and attacked (points)",
            "ylabel": f"ER@{k} reduction (points)",
            "title": "Defenses: what they prevent against what they cost",
        },
        UNTARGETED.panel: {
            "xlabel": f"cost: HR@{h} lost without an attack (% of the baseline)",
            "ylabel": f"recovered HR@{h} (% of the baseline)",
            "title": "Defenses against untargeted attacks: what they recover against what they cost",
        },
        VISUAL.panel: {
            "xlabel": "NDCG@20 lost, the larger of clean and attacked (% of the baseline)",
            "ylabel": f"ER@{k} reduction (points)",
            "title": "Defenses of images: what they prevent against what they cost",
        },
        DEMOTION.panel: {
            "xlabel": f"HR@{h} loss, the larger of clean and attacked (points)",
            "ylabel": f"DR@{k} reduction (points)",
            "title": "Defenses against demotion: what they prevent against what they cost",
        },
    }


@dataclass(frozen=True)
class Mark:
    """A ranked defense as it is drawn."""

    defense: str
    family: str
    number: int
    loss: Estimate
    reduction: Estimate
    front: bool

    @property
    def color(self) -> str:
        """By family."""
        return COLORS.get(self.family, OTHER)

    @property
    def alpha(self) -> float:
        """Paler off the front."""
        return 1.0 if self.front else 0.45


def _marks(rows: Sequence[DefenseRow], goal: str) -> list[Mark]:
    """The ranked defenses of a track."""
    return [
        Mark(row.defense, row.family, number, row.paid, row.reduction, bool(row.front))
        for number, row in enumerate([row for row in rows if row.goal == goal and row.rank is not None], 1)
        if row.paid is not None and row.reduction is not None
    ]


def _draw_marks(axes: Axes, marks: Sequence[Mark]) -> None:
    axes.axhline(0, color="0.85", linewidth=0.8, zorder=0)
    axes.axvline(0, color="0.85", linewidth=0.8, zorder=0)
    left, right = view([mark.loss.mean for mark in marks])
    low, high = view([mark.reduction.mean for mark in marks])
    axes.set(xlim=(left, right), ylim=(low, high))
    for mark in marks:
        x, y = mark.loss, mark.reduction
        bar: dict[str, Any] = {"color": mark.color, "linewidth": 0.8, "alpha": 0.6 * mark.alpha, "zorder": 2}
        if x.low is not None and x.high is not None:
            axes.plot([x.low, x.high], [y.mean, y.mean], **bar)
            cuts = [(left, y.mean, "<")] * (x.low < left) + [(right, y.mean, ">")] * (x.high > right)
            _draw_cuts(axes, cuts, bar)
        if y.low is not None and y.high is not None:
            axes.plot([x.mean, x.mean], [y.low, y.high], **bar)
            cuts = [(x.mean, low, "v")] * (y.low < low) + [(x.mean, high, "^")] * (y.high > high)
            _draw_cuts(axes, cuts, bar)
        axes.plot(x.mean, y.mean, "o", color=mark.color, markersize=6, alpha=mark.alpha, markeredgewidth=0, zorder=3)
    axes.plot(0, 0, "x", color="black", markersize=7, zorder=3)
    front = front_points([(mark.loss.mean, mark.reduction.mean) for mark in marks])
    # Up to the next point's loss, no more can be had than what the point before it gives.
    xs, ys = zip(*front, (right, front[-1][1]), strict=True)
    axes.step(xs, ys, where="post", color="0.35", linewidth=1.0, linestyle="--", zorder=1)


def _draw_cuts(axes: Axes, cuts: Sequence[tuple[float, float, str]], bar: dict[str, Any]) -> None:
    """An arrow at each edge of the picture that an interval crosses."""
    for x, y, marker in cuts:
        axes.plot(x, y, marker, markersize=4, markeredgewidth=0, clip_on=False, **bar)


def view(means: Sequence[float]) -> Point:
    """The ends of an axis: of the means and of no defense, at 0, with 15 % of their range on either side.

    Intervals may reach further, and are cut there: one that is wide would leave the points no room to be told apart.
    """
    low, high = min(0.0, *means), max(0.0, *means)
    margin = 0.15 * (high - low) or 1.0
    return low - margin, high + margin


def _draw_legend(figure: FigureBase, marks: Sequence[Mark]) -> None:
    """Families in bold, their defenses below them."""
    from matplotlib.lines import Line2D

    entries = []
    for family in family_order(mark.family for mark in marks):
        entries.append((Line2D([], [], linestyle="none"), family or "unknown family", "bold"))
        for mark in marks:
            if mark.family == family:
                handle = Line2D([], [], linestyle="none", marker="o", color=mark.color, alpha=mark.alpha, markersize=5)
                entries.append((handle, f"{mark.number}  {mark.defense}", "normal"))
    entries.append((Line2D([], [], linestyle="none", marker="x", color="black", markersize=6), "no defense", "normal"))
    entries.append((Line2D([], [], color="0.35", linewidth=1.0, linestyle="--"), "Pareto front", "normal"))
    handles, titles, weights = zip(*entries, strict=True)
    legend = figure.legend(handles, titles, loc="outside right upper", fontsize=8, frameon=False)
    for text, weight in zip(legend.get_texts(), weights, strict=True):
        text.set_fontweight(weight)


def _draw_labels(axes: Axes, marks: Sequence[Mark], scale: float) -> None:
    """The number beside each point; ``scale``: typographic points of a pixel."""
    places = [*((mark.loss.mean, mark.reduction.mean) for mark in marks), (0.0, 0.0)]
    words = [*(str(mark.number) for mark in marks), "none"]
    screen = [(x * scale, y * scale) for x, y in axes.transData.transform(places)]
    for place, word, offset in zip(places, words, label_offsets(screen, words), strict=True):
        line = {"arrowstyle": "-", "color": "0.6", "linewidth": 0.5, "shrinkA": 1, "shrinkB": 3}
        axes.annotate(
            word,
            place,
            offset,
            textcoords="offset points",
            fontsize=8,
            ha="center",
            va="center",
            arrowprops=line if math.hypot(*offset) > 15 else None,
            zorder=4,
        )


def front_points(points: Sequence[Point]) -> list[Point]:
    """The Pareto front as (loss, reduction), by rising loss; no defense at all, (0, 0), is a point, too."""
    candidates = [(reduction, loss) for loss, reduction in points] + [(0.0, 0.0)]
    return sorted(
        {(loss, reduction) for (reduction, loss), on in zip(candidates, pareto_front(candidates), strict=True) if on}
    )


def label_offsets(points: Sequence[Point], texts: Sequence[str]) -> list[Point]:
    """Where labels go beside their points, so that they overlap neither points nor one another.

    Greedy: each label takes the nearest of 16 directions and growing distances that is free.

    Args:
        points: in typographic points on the page. texts: 8 point labels.

    Returns:
        Offsets of the labels' centres from their points, in typographic points.
    """
    taken = [(x, y, 4.0, 4.0) for x, y in points]
    offsets: list[Point] = []
    for (x, y), text in zip(points, texts, strict=True):
        half_width, half_height = 2.6 * len(text) + 1, 4.5
        candidates = [
            ((radius + half_width - 3.6) * math.cos(angle), radius * math.sin(angle))
            for radius in range(10, 80, 4)
            for angle in (math.pi / 4 + math.tau * turn / 16 for turn in range(16))
        ]

        def free(offset: Point, x: float = x, y: float = y, w: float = half_width, h: float = half_height) -> bool:
            left, low = x + offset[0], y + offset[1]
            return not any(abs(left - a) < w + c and abs(low - b) < h + d for a, b, c, d in taken)

        chosen = next((offset for offset in candidates if free(offset)), candidates[0])
        offsets.append(chosen)
        taken.append((x + chosen[0], y + chosen[1], half_width, half_height))
    return offsets
