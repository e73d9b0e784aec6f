"""How alike images are before and after a purifier: clean ones, uploaded ones, and the threshold between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from fedbench.errors import ResultsError
from fedbench.inspection.finding import Inspected
from fedbench.inspection.images import uploaded_of
from fedbench.pictures import COLORS, check_picture, save_picture
from fedbench.texts import count
from fedbench.vision.measures import auc

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NARROWEST = 0.006
"""The least width of the kernel: a few uploads that are alike are no spike that hides all else."""
POINTS = 400
HEIGHT, MARGINS = 3.0, 0.3

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Panel:
    """What one purifier does to the images of a dataset, as one extractor sees it.

    Attributes:
        title: dataset, extractor, defense. clean: float64 [n], similarity of the original images.
        uploads: by attack, eps and model, that of the last image of each target in each run. thresholds: those in force in
            the runs. items: which items these images are of, by the keys of ``uploads``.
    """

    title: str
    clean: Floats
    uploads: dict[str, Floats]
    thresholds: Sequence[float]
    items: Mapping[str, frozenset[int]] = field(default_factory=dict)

    @property
    def held_out(self) -> Floats:
        """Those of every other image, by which no threshold was set."""
        return self.clean[1::2]


def similarity_panels(runs: Sequence[Inspected]) -> list[Panel]:
    """Runs by dataset, extractor and defense; those that differ only in the seed are put together.

    Raises:
        ResultsError: a run without images, or whose defense changes none.
    """
    panels: dict[tuple[str, ...], Panel] = {}
    for found in runs:
        record, kept = found.record, uploaded_of(found)
        clean = kept.similarity.astype(np.float64)
        if record["defense"] == "none" or (clean == 1).all():
            raise ResultsError(
                f"run {record['run_id']}: defense {record['defense']!r} changes no image: nothing to compare."
            )
        key = tuple(str(record[name]) for name in ("dataset", "split", "extractor", "defense", "defense_params"))
        title = f"{record['dataset']}, {record['extractor']}, {record['defense']}"
        panel = panels.get(key, Panel(title, clean, {}, ()))
        label = f"{record['attack']}, eps {kept.eps:g}, {record['model']}"
        last = {each["item"]: each["similarity"] for each in record["uploads"] if each["similarity"] is not None}
        uploads = {**panel.uploads, label: np.concatenate([panel.uploads.get(label, np.empty(0)), [*last.values()]])}
        items = {**panel.items, label: panel.items.get(label, frozenset()) | last.keys()}
        thresholds = {*panel.thresholds, *([] if kept.threshold is None else [kept.threshold])}
        panels[key] = replace(panel, uploads=uploads, thresholds=sorted(thresholds), items=items)
    return list(panels.values())


def width_of(values: Floats) -> float:
    """Deviation of the kernel, by Silverman's rule: ``.9 min(deviation, interquartile range / 1.34) n^(-1/5)``.

    "Density estimation for statistics and data analysis", 1986, eq. 3.31; at least :data:`NARROWEST`.
    """
    low, high = np.percentile(values, [25, 75])
    deviation = float(values.std())
    spread = min(deviation, float(high - low) / 1.34) or deviation
    return max(0.9 * spread * len(values) ** -0.2, NARROWEST)


def density(values: Floats, at: Floats) -> Floats:
    """Density of cosines at ``at`` <= 1, by a Gaussian kernel that is reflected at 1; its integral up to 1 is 1."""
    width = width_of(values)
    total = np.zeros(len(at))
    for centers in (values, 2 - values):
        total += np.exp(-0.5 * ((at[:, None] - centers) / width) ** 2).sum(1)
    out: Floats = total / (len(values) * width * np.sqrt(2 * np.pi))
    return out


def draw_similarity(panels: Sequence[Panel], path: Path) -> None:
    """Draw densities with thresholds, as PNG, SVG or PDF. Equal panels give equal files.

    Raises:
        UserError: for another ending, or without matplotlib. ResultsError: when the file cannot be written.
    """
    check_picture(path)
    from matplotlib.figure import Figure

    tall = MARGINS + HEIGHT * len(panels)
    figure = Figure(figsize=(8, tall), dpi=110)
    for number, panel in enumerate(panels):
        # In fixed places: matplotlib's layout engines move axes by last bits from one call to the next.
        bottom = tall - MARGINS - HEIGHT * (number + 1) + 0.6
        _draw(figure.add_axes((0.08, bottom / tall, 0.57, (HEIGHT - 0.75) / tall)), panel)
    save_picture(figure, path)


def _draw(axes: Axes, panel: Panel) -> None:
    groups = [values for values in (panel.clean, *panel.uploads.values()) if len(values)]
    lowest = min(float(values.min()) - 3 * width_of(values) for values in groups)
    at = np.linspace(max(-1.0, lowest), 1.0, POINTS)
    top = density(panel.clean, at)
    axes.fill_between(at, top, color="0.8", linewidth=0)
    axes.plot(at, top, color="0.35", linewidth=1, label=f"clean images ({len(panel.clean):,})")
    held_out = torch.from_numpy(panel.held_out)
    for number, (label, values) in enumerate(panel.uploads.items()):
        if not len(values):
            continue
        color = COLORS[number % len(COLORS)]
        area = auc(held_out, torch.from_numpy(values))
        told = "" if area is None else f", AUC {area:.2f}"
        number_of = count(len(panel.items.get(label, values)), "item")
        axes.plot(at, density(values, at), color=color, linewidth=1.2, label=f"{label} ({number_of}{told})")
        axes.plot(
            values, np.full(len(values), 0.02), "|", color=color, markersize=5, transform=axes.get_xaxis_transform()
        )
    for threshold in panel.thresholds:
        axes.axvline(threshold, color="0.1", linewidth=1, label=f"threshold {threshold:.3f}")
    if float(panel.clean.min()) not in panel.thresholds:
        axes.axvline(
            panel.clean.min(), color="0.1", linewidth=1, linestyle=":", label=f"lowest clean {panel.clean.min():.3f}"
        )
    axes.set_xlim(at[0], 1)
    axes.set_ylim(bottom=0)
    axes.set_title(panel.title, fontsize=9)
    axes.set_xlabel("cosine of features before and after the purifier", fontsize=8)
    axes.set_ylabel("density", fontsize=8)
    axes.tick_params(labelsize=7.5)
    axes.legend(fontsize=7, frameon=False, loc="upper left", bbox_to_anchor=(1.01, 1.0))
