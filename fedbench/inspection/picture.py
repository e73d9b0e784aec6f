"""A run as a picture: its curve, uploads of a few rounds, and what changed over the rounds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fedbench.errors import UserError
from fedbench.inspection.finding import Inspected
from fedbench.inspection.rounds import Bools, Floats, Rounds, filtering
from fedbench.pictures import COLORS, check_picture, save_picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BENIGN, MALICIOUS = COLORS[:2]
PANELS, BINS = 4, 40
HEIGHT, MARGINS = 3.2, 0.7
"""Inches of a line of axes with its labels, and of what is above and below all of them."""

Ints = npt.NDArray[np.int64]


def draw_run(found: Inspected, path: Path, rounds: Sequence[int] | None = None) -> None:
    """Draw a run, as PNG, SVG or PDF. Equal runs give equal files.

    With diagnostics: the uploads of a few rounds along the principal components of each (crosses: dropped by a filter);
    norms, uniformity, and the precision and recall of filters over the rounds, where there are such; and always the curve.

    Args:
        found: the run. path: ends in ``.png`` or ``.svg``. rounds: whose uploads are drawn; None: :data:`PANELS` of them,
            spread over training, of those with a malicious upload where there are any.

    Raises:
        UserError: for another ending, a round that is not kept, without diagnostics where rounds are named, when there is
            nothing to draw, or without matplotlib. ResultsError: when the file cannot be written.
    """
    check_picture(path)
    from matplotlib.figure import Figure

    record, kept = found.record, found.rounds if found.rounds is not None and len(found.rounds) else None
    chosen = choose_rounds(kept, rounds)
    wide = _over_training(found, kept)
    if not wide:
        raise UserError(f"run {record['run_id']} has neither a curve nor diagnostics: nothing to draw.")

    figure = Figure(figsize=(12, MARGINS + HEIGHT * (_rows(len(chosen), PANELS) + _rows(len(wide), 2))), dpi=110)
    figure.suptitle(
        f"{record['dataset']}, {record['model']}, {record['attack']} ({record['malicious_ratio']:g})"
        f" against {record['defense']}, seed {record['seed']}",
        fontsize=11,
        y=1 - 0.15 / figure.get_figheight(),
        va="top",
    )
    above, below = _split(figure, len(chosen), len(wide))
    for axes, number in zip(above, chosen, strict=False):
        assert kept is not None
        _draw_uploads(axes, kept.take(kept["round"] == number), number)
    for axes, draw in zip(below, wide, strict=False):
        draw(axes)
        axes.tick_params(which="both", labelsize=8)
    if kept is not None:
        handles, labels = _legend(bool(kept.filters))
        figure.legend(handles, labels, loc="lower center", ncols=3, fontsize=8, frameon=False)
    save_picture(figure, path)


def choose_rounds(rounds: Rounds | None, wanted: Sequence[int] | None) -> list[int]:
    """The rounds whose uploads are drawn; arguments and errors as of :func:`draw_run`."""
    if rounds is None:
        if wanted is not None:
            raise UserError("--rounds: this run has no diagnostics; `fedbench run SUITE --diagnostics` keeps them.")
        return []
    there = np.unique(rounds["round"])
    if wanted is not None:
        for number in wanted:
            if number not in there:
                near = int(there[np.abs(there - number).argmin()])
                raise UserError(f"round {number} is not kept; the nearest is {near} (one in {rounds.every} is).")
        return list(dict.fromkeys(wanted))
    attacked = np.unique(rounds["round"][rounds.malicious])
    some = attacked if len(attacked) else there
    return [int(some[n]) for n in dict.fromkeys(np.linspace(0, len(some) - 1, PANELS).round().astype(int).tolist())]


def _over_training(found: Inspected, rounds: Rounds | None) -> list[Callable[[Axes], None]]:
    """What is drawn over training, in order."""
    out: list[Callable[[Axes], None]] = []
    if rounds is not None:
        out.append(lambda axes: _draw_groups(axes, rounds, rounds["norm"], "norm of the upload", log=True))
        if np.isfinite(rounds["uniformity"]).any():
            label = "uniformity: shift from benign (deviations)"
            out.append(lambda axes: _draw_groups(axes, rounds, rounds.shift(), label))
        if rounds.filters and rounds.malicious.any():
            out.append(lambda axes: _draw_filters(axes, rounds))
    if found.record["curve"]:
        out.append(lambda axes: _draw_curve(axes, found.record))
    return out


def _draw_uploads(axes: Axes, part: Rounds, number: int) -> None:
    """A round's uploads along its principal components; what a filter dropped is crossed."""
    dropped = np.array([each is not None for each in part["dropped_by"]])
    for malicious, color, size in ((False, BENIGN, 9), (True, MALICIOUS, 16)):
        of = part.malicious == malicious
        axes.scatter(part["x"][of & ~dropped], part["y"][of & ~dropped], s=size, color=color, alpha=0.7, linewidths=0)
        axes.scatter(
            part["x"][of & dropped], part["y"][of & dropped], s=2 * size, color=color, marker="x", linewidths=1
        )
    total = np.nansum(part["from_mean"] ** 2)
    shares = [float(np.nansum(part[axis] ** 2) / total) if total > 0 else 0.0 for axis in ("x", "y")]
    axes.set_title(f"round {number}", fontsize=9)
    axes.set_xlabel(f"first component ({100 * shares[0]:.0f} %)", fontsize=8)
    axes.set_ylabel(f"second ({100 * shares[1]:.0f} %)", fontsize=8)
    axes.tick_params(labelsize=7)
    axes.ticklabel_format(scilimits=(-2, 3))
    axes.xaxis.get_offset_text().set_fontsize(7)
    axes.yaxis.get_offset_text().set_fontsize(7)


def _legend(filters: bool) -> tuple[list[Any], list[str]]:
    from matplotlib.lines import Line2D

    marks = [
        ("o", BENIGN, "benign upload"),
        ("o", MALICIOUS, "malicious upload"),
        *([("x", "0.3", "dropped by a filter")] if filters else []),
    ]
    handles = [Line2D([], [], linestyle="none", marker=mark, color=color, markersize=5) for mark, color, _ in marks]
    return handles, [label for _, _, label in marks]


def _draw_groups(axes: Axes, rounds: Rounds, values: Floats, label: str, log: bool = False) -> None:
    """Median and 5th to 95th percentile of both groups over the rounds."""
    from matplotlib.ticker import LogFormatter

    for malicious, color, name in ((False, BENIGN, "benign"), (True, MALICIOUS, "malicious")):
        of = (rounds.malicious == malicious) & np.isfinite(values)
        if log:
            of &= values > 0
        at, bins = binned(rounds["round"], of)
        bands = np.array([np.percentile(values[chosen], [5, 50, 95]) for chosen in bins]).reshape(-1, 3)
        if len(at):
            axes.plot(at, bands[:, 1], color=color, label=name, marker=".", markersize=4, linewidth=1)
            axes.fill_between(at, bands[:, 0], bands[:, 2], color=color, alpha=0.2, linewidth=0)
    if log and axes.lines:
        axes.set_yscale("log")
        # 3e-01 is narrower than 3 x 10^-1, which pushes the axis label off the figure where all ticks are minor ones.
        axes.yaxis.set_major_formatter(LogFormatter())
        axes.yaxis.set_minor_formatter(LogFormatter())
    axes.set_xlabel("round", fontsize=8)
    axes.set_ylabel(label, fontsize=8)
    if axes.lines:
        axes.legend(fontsize=8, frameon=False, title="median, 5 to 95 %", title_fontsize=7)


def _draw_filters(axes: Axes, rounds: Rounds) -> None:
    """Precision and recall of each filter over the rounds."""
    everything = np.ones(len(rounds), dtype=bool)
    at, bins = binned(rounds["round"], everything)
    for number, name in enumerate(rounds.filters):
        found = [filtering(name, "", rounds.take(chosen)) for chosen in bins]
        for style, what in (("-", "precision"), ("--", "recall")):
            shares = [100 * share if (share := getattr(each, what)) is not None else np.nan for each in found]
            axes.plot(
                at, shares, style, color=f"C{number + 2}", label=f"{name}: {what}", marker=".", markersize=4, lw=1
            )
    axes.set_ylim(-3, 103)
    axes.set_xlabel("round", fontsize=8)
    axes.set_ylabel("%", fontsize=8)
    axes.legend(fontsize=8, frameon=False)


def _draw_curve(axes: Axes, record: dict[str, Any]) -> None:
    """ER@10 and the headline hit ratio over epochs, and where training is best on validation items."""
    full, best = record["ranking"] == "full", record["best_epoch"]
    names = {"er_10": "ER@10"} | ({"hr_full_5": "HR@5 full"} if full else {"hr_10": "HR@10"})
    epochs = [point["epoch"] for point in record["curve"]]
    for number, (name, label) in enumerate(names.items()):
        values = [np.nan if (v := point.get(name)) is None else 100 * v for point in record["curve"]]
        if not np.isnan(values).all():
            axes.plot(
                epochs, values, color=(MALICIOUS, BENIGN)[number], label=label, marker=".", markersize=4, linewidth=1
            )
    if best is not None:
        axes.axvline(best, color="0.5", linestyle="--", linewidth=1, label="best on validation items")
    axes.set_xlabel("epoch", fontsize=8)
    axes.set_ylabel("%", fontsize=8)
    if axes.lines:
        axes.legend(fontsize=8, frameon=False)


def binned(rounds: Ints, of: Bools) -> tuple[Floats, list[Bools]]:
    """Rows put together by round, at most :data:`BINS` stretches of equally many rounds.

    Args:
        rounds: of each row. of: which rows count; stretches without any are left out.

    Returns:
        The middle of each stretch, and which rows are in it.
    """
    numbers, place = np.unique(rounds, return_inverse=True)
    width = max(1, -(-len(numbers) // BINS))
    at, bins = [], []
    for start in range(0, len(numbers), width):
        chosen = of & (place >= start) & (place < start + width)
        if chosen.any():
            at.append(float(numbers[start : start + width].mean()))
            bins.append(chosen)
    return np.array(at), bins


def _split(figure: Figure, uploads: int, wide: int) -> tuple[list[Axes], list[Axes]]:
    """Axes for the uploads of rounds, :data:`PANELS` in a line, and below them those over training, two in a line."""
    above, below = _rows(uploads, PANELS), _rows(wide, 2)
    # In fixed places: matplotlib's layout engines move axes by last bits from one call to the next.
    tall = figure.get_figheight()
    grid = figure.add_gridspec(
        above + below, PANELS, left=0.06, right=0.985, bottom=0.8 / tall, top=1 - 0.65 / tall, wspace=0.36, hspace=0.34
    )
    half = PANELS // 2
    return (
        [figure.add_subplot(grid[n // PANELS, n % PANELS]) for n in range(uploads)],
        [figure.add_subplot(grid[above + n // 2, n % 2 * half : (n % 2 + 1) * half]) for n in range(wide)],
    )


def _rows(panels: int, across: int) -> int:
    return -(-panels // across)
