"""Images that an attack showed, beside the originals and what purifiers make of them."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from fedbench.data.images import load_pictures
from fedbench.data.records import Pictures
from fedbench.defenses import DEFENSES
from fedbench.defenses.chain import Chain
from fedbench.entries.cards import DefenseFamily, parse_parameters
from fedbench.errors import ResultsError, UserError
from fedbench.federation.defense import Defense
from fedbench.inspection.finding import Inspected
from fedbench.pictures import check_picture, save_picture
from fedbench.randomness import generator
from fedbench.runs.uploaded import Uploaded, read_uploaded
from fedbench.scenarios.scenario import Scenario
from fedbench.vision.features import FeatureReader, feature_reader
from fedbench.vision.measures import largest_change, psnr

if TYPE_CHECKING:
    from matplotlib.figure import Figure

USUAL = ("jpeg", "blur", "gdmpd")
"""Purifiers that are shown of a run whose defense cleans no image, those of them whose packages are installed."""
MOST = 60
"""Rows that one picture may have."""
SIDE, TEXT, LABEL, FOOT = 1.35, 0.62, 1.5, 0.45
"""Inches: of an image, of the text under it, of the text beside a row, and of the note below all."""

Image = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Cell:
    """An image, uint8 [H, W, 3], what is above it, and what is below it."""

    title: str
    facts: Sequence[str]
    image: Image


@dataclass(frozen=True)
class Strip:
    """A target of a run: the original, what was shown, and what purifiers make of that."""

    label: str
    cells: Sequence[Cell]


def uploaded_of(found: Inspected) -> Uploaded:
    """The images that are kept beside a record; raises :class:`ResultsError` where there are none."""
    if found.images is not None:
        return read_uploaded(found.images)
    run, attack = found.record["run_id"], found.record["attack"]
    if found.record["uploads"]:
        raise ResultsError(
            f"run {run} has no file {run}.images.parquet beside its record; run its"
            " scenario again (published records come without: images of posters are not ours to give)."
        )
    raise ResultsError(f"run {run} has no images: attack {attack!r} showed none.")


def image_strips(
    runs: Sequence[Inspected], purifiers: Sequence[str] = (), amplify: float = 8, targets: int = 4
) -> list[Strip]:
    """Rows of a picture: each run, and the first few of its targets.

    Purifiers draw what the server drew in the epoch from which the image was shown, on a device of the same kind.
    Cosines are left out where the run's extractor cannot be loaded.

    Args:
        runs: with images. purifiers: names of defenses, ``name:parameter=value,...`` for other than the defaults; none:
            the run's own defense, or :data:`USUAL` if that cleans no image. amplify: differences are drawn as
            ``127.5 + amplify (x' - x)``. targets: at most, of each run.

    Raises:
        UserError: a purifier that is none, a factor or number below what makes sense, too many rows, or the dataset's
            images are not here. ResultsError: a run without images, or whose dataset had other ones.
    """
    if not amplify > 0:
        raise UserError(f"--amplify {amplify:g} must be above 0.")
    if targets < 1:
        raise UserError(f"--targets {targets} must be at least 1.")
    if len(runs) * targets > MOST:
        raise UserError(
            f"{len(runs)} runs with {targets} targets are more than {MOST} rows; name fewer or lower --targets."
        )
    named = [(name.partition(":")[0], purifier(name)) for name in purifiers]
    kept = [uploaded_of(found) for found in runs]
    studio = _Studio()
    strips = []
    for found, uploaded in zip(runs, kept, strict=True):
        own = named or studio.purifiers_of(found.record)
        pictures = studio.pictures(found.record)
        for _, defense in own:
            studio.introduce(defense, pictures)
        wanted = [item for item in found.record["target_items"] if item in uploaded.items][:targets]
        strips += [_strip(found.record, uploaded, item, pictures, own, amplify) for item in wanted]
    return strips


def purifier(text: str) -> Defense:
    """A defense that cleans images, from ``name`` or ``name:parameter=value,...``; raises :class:`UserError`."""
    name, _, given = text.partition(":")
    cls = DEFENSES.get(name)
    if not _purifies(cls):
        there = ", ".join(each for each in DEFENSES.names() if _purifies(DEFENSES.get(each)))
        raise UserError(f"defense {name!r} cleans no images; those that do: {there}.")
    values: dict[str, Any] = {}
    for part in filter(None, given.split(",")):
        key, equals, value = part.partition("=")
        if not equals:
            raise UserError(f"purifier {text!r}: {part!r} must be parameter=value.")
        try:
            values[key] = json.loads(value)
        except ValueError:
            values[key] = value
    return cls(parse_parameters(cls.Params, values, f"defense {name!r}"))


def _purifies(cls: type[Defense]) -> bool:
    return cls.purify is not Defense.purify and cls.card.family == DefenseFamily.PURIFICATION


def _usual() -> list[tuple[str, Defense]]:
    there = [name for name in USUAL if name in DEFENSES.names()]
    packages = {name: getattr(DEFENSES.get(name), "packages", ()) for name in there}
    return [(name, purifier(name)) for name in there if all(map(importlib.util.find_spec, packages[name]))]


class _Studio:
    """What the rows of a picture share: images of datasets, defenses, and which of them know which images."""

    def __init__(self) -> None:
        self._pictures: dict[tuple[str, str], Pictures] = {}
        self._own: dict[tuple[str, str], list[tuple[str, Defense]]] = {}
        self._known: dict[int, str] = {}

    def pictures(self, record: dict[str, Any]) -> Pictures:
        """Of the items of a run; raises unless they are those that it had."""
        key = record["dataset"], record["split"]
        if key not in self._pictures:
            self._pictures[key] = load_pictures(*key)
        found = self._pictures[key]
        if found.fingerprint != record["images_fingerprint"]:
            raise ResultsError(f"run {record['run_id']} had other images of {record['dataset']!r} than are here now.")
        return found

    def purifiers_of(self, record: dict[str, Any]) -> list[tuple[str, Defense]]:
        """The defense of a run, or the usual purifiers where that cleans no image."""
        key = record["defense"], record["defense_params"]
        if key not in self._own:
            made = Scenario(**json.loads(record["scenario_json"])).resolved.defense()
            parts = made.parts if isinstance(made, Chain) else [made]
            cleans = any(type(part).purify is not Defense.purify for part in parts)
            self._own[key] = [(record["defense"], made)] if cleans else _usual()
        return self._own[key]

    def introduce(self, defense: Defense, pictures: Pictures) -> None:
        """Let a defense see a catalogue, as the server does at first; once for each catalogue."""
        if self._known.get(id(defense)) != pictures.fingerprint:
            defense.see_images(torch.from_numpy(pictures.pixels[pictures.there]))
            self._known[id(defense)] = pictures.fingerprint


def _strip(
    record: dict[str, Any],
    uploaded: Uploaded,
    item: int,
    pictures: Pictures,
    purifiers: Sequence[tuple[str, Defense]],
    amplify: float,
) -> Strip:
    """The row of one target."""
    place = uploaded.items.tolist().index(item)
    epoch = int(uploaded.epochs[place])
    original = torch.from_numpy(pictures.pixels[item : item + 1].copy())
    shown = torch.from_numpy(uploaded.pixels[place : place + 1].copy())
    cleaned = [defense.purify(shown, generator(record["seed"], "images", epoch)) for _, defense in purifiers]
    images = torch.cat([original, shown, *cleaned])
    noise = psnr(original.expand_as(images), images).tolist()
    reader = _reader(record["extractor"])
    cosine = similarity = [""] * len(images)
    flagged = ""
    if reader is not None:
        features = reader(images)
        cosine = [f"cosine {value:.2f}" for value in torch.cosine_similarity(features, features[:1]).tolist()]
        alike = torch.cosine_similarity(features, features[1:2]).tolist()
        similarity = [f"similarity {value:.2f}" for value in alike]
        if [name for name, _ in purifiers] == [record["defense"]] and uploaded.threshold is not None:
            flagged = ", flagged" if alike[2] < uploaded.threshold else ", not flagged"
    arrays = images.permute(0, 2, 3, 1).numpy()

    def difference(n: int) -> Cell:
        change = arrays[n].astype(np.float64) - arrays[0]
        grey = np.clip(np.rint(127.5 + amplify * change), 0, 255).astype(np.uint8)
        return Cell(f"difference x {amplify:g}", (f"at most {np.abs(change).max():.0f}",), grey)

    most = f"eps {uploaded.eps:g}, max |delta| {int(largest_change(original, shown))}"
    cells = [
        Cell("original", () if pictures.there[item] else ("no image",), arrays[0]),
        Cell("adversarial", (most, f"PSNR {noise[1]:.1f} dB", cosine[1]), arrays[1]),
        difference(1),
    ]
    for n, (name, _) in enumerate(purifiers, 2):
        facts = (f"PSNR {noise[n]:.1f} dB", cosine[n], f"{similarity[n]}{flagged}")
        cells += [Cell(name, facts, arrays[n]), difference(n)]
    label = (
        f"{record['dataset']}, {record['model']}\n{record['attack']}, eps {uploaded.eps:g}\nitem {item}, epoch {epoch}"
    )
    return Strip(f"{label}\nseed {record['seed']}", cells)


def _reader(extractor: str | None) -> FeatureReader | None:
    """The extractor of a run; None where it, or its weights, cannot be had here."""
    try:
        return None if extractor is None else feature_reader(extractor, "none", 1.0)
    except UserError:
        return None


def draw_images(strips: Sequence[Strip], path: Path) -> None:
    """Draw rows of images, as PNG, SVG or PDF. Equal rows give equal files.

    Raises:
        UserError: for another ending, or without matplotlib. ResultsError: when the file cannot be written.
    """
    check_picture(path)
    from matplotlib.figure import Figure

    across = max(len(strip.cells) for strip in strips)
    wide, tall = LABEL + across * (SIDE + 0.12) + 0.1, len(strips) * (SIDE + TEXT + 0.2) + FOOT
    figure = Figure(figsize=(wide, tall), dpi=110)
    for row, strip in enumerate(strips):
        bottom = tall - (row + 1) * (SIDE + TEXT + 0.2) + TEXT
        figure.text(0.1 / wide, (bottom + SIDE / 2) / tall, strip.label, fontsize=7, va="center", linespacing=1.5)
        for column, cell in enumerate(strip.cells):
            _draw(figure, cell, (LABEL + column * (SIDE + 0.12)) / wide, bottom / tall, SIDE / wide, SIDE / tall)
    note = (
        "PSNR and cosine of features: with the original. Similarity: cosine of features before and after the purifier."
    )
    figure.text(0.1 / wide, 0.12 / tall, note, fontsize=7, color="0.3")
    save_picture(figure, path)


def _draw(figure: Figure, cell: Cell, left: float, bottom: float, width: float, height: float) -> None:
    # In fixed places: matplotlib's layout engines move axes by last bits from one call to the next.
    axes = figure.add_axes((left, bottom, width, height))
    axes.imshow(cell.image, interpolation="antialiased")
    axes.set_axis_off()
    axes.set_title(cell.title, fontsize=7.5, pad=3)
    text = "\n".join(fact for fact in cell.facts if fact)
    axes.text(0, -0.03, text, fontsize=6.5, va="top", ha="left", transform=axes.transAxes, linespacing=1.35)
