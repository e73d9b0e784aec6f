"""The diagnostics of a run as arrays, and what they say of a stretch of training."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fedbench.errors import ResultsError
from fedbench.runs.diagnostics import COLUMNS, METADATA, VERSION
from fedbench.runs.results import reason

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Group:
    """The benign, or the malicious, uploads of a stretch; None where there is nothing to measure.

    Attributes:
        uploads: how many. norm, low, high: median, 5th and 95th percentile of their norms.
        cosine_benign, cosine_malicious: mean cosine similarity with the other uploads of the same round that are benign, or
            malicious.
        uniformity: of d_i, the mean over rounds of the round's mean: d_i drifts as the model trains, so that pooled uploads
            would compare rounds rather than groups. Of the rounds that have d_i of both groups, where there are such.
        shift: likewise of ``(d_i - mean) / deviation``, both of the benign uploads of the same round.
    """

    uploads: int
    norm: float | None
    low: float | None
    high: float | None
    cosine_benign: float | None
    cosine_malicious: float | None
    uniformity: float | None
    shift: float | None


@dataclass(frozen=True)
class Period:
    """A stretch of training: its name, how many of its rounds are kept, and both groups' uploads."""

    name: str
    rounds: int
    benign: Group
    malicious: Group


@dataclass(frozen=True)
class Filtering:
    """What a filter dropped in a stretch.

    Attributes:
        precision: share of the dropped that are malicious; None: it dropped nobody.
        recall: share of the malicious uploads that it dropped; None: there were none.
        benign_dropped: share of the benign uploads that it dropped; None: there were none.
    """

    filter: str
    period: str
    dropped: int
    precision: float | None
    recall: float | None
    benign_dropped: float | None


@dataclass(frozen=True)
class Rounds:
    """The diagnostics of a run; one entry of each array for each client of each round kept.

    Attributes:
        every: rounds between two that are kept. filters: names of the defense's filters, and rules that leave clients out.
        columns: as :data:`fedbench.runs.diagnostics.COLUMNS`; NaN for null.
    """

    every: int
    filters: Sequence[str]
    columns: dict[str, npt.NDArray[Any]]

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        return self.columns[name]

    def __len__(self) -> int:
        return len(self.columns["round"])

    @property
    def malicious(self) -> Bools:
        """Whether each upload is a malicious client's."""
        return self.columns["malicious"]

    def take(self, chosen: Bools) -> Rounds:
        """Some of the rows."""
        return Rounds(self.every, self.filters, {name: values[chosen] for name, values in self.columns.items()})

    def shift(self) -> Floats:
        """``(d_i - mean) / deviation`` of each upload, by the benign uploads of its round; NaN where there are fewer than 2
        of them, or none deviates.
        """
        spread = self["uniformity"]
        _, place = np.unique(self["round"], return_inverse=True)
        counted = ~self.malicious & np.isfinite(spread)
        rounds = int(place.max(initial=-1)) + 1
        n = np.bincount(place[counted], minlength=rounds)
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = np.bincount(place[counted], spread[counted], rounds) / n
            # Two passes: the d_i of a round agree to many digits.
            square = np.bincount(place[counted], (spread - mean[place])[counted] ** 2, rounds) / (n - 1)
            deviation = np.sqrt(np.where((n > 1) & (square > 0), square, np.nan))
            out: Floats = (spread - mean[place]) / deviation[place]
        return out

    def periods(self, epochs: int) -> list[tuple[str, Rounds]]:
        """The whole, and each quarter of ``epochs`` of training that has rounds."""
        quarter = np.minimum(4 * (self["epoch"] - 1) // max(epochs, 1), 3)
        parts = [(f"quarter {k + 1}", self.take(quarter == k)) for k in range(4)]
        return [("all", self), *((name, part) for name, part in parts if len(part))]

    def summary(self, epochs: int) -> list[Period]:
        """What both groups uploaded, over all and by quarter."""
        return [_period(name, part) for name, part in self.periods(epochs)]

    def filtering(self, epochs: int) -> list[Filtering]:
        """What each filter dropped, over all and by quarter."""
        return [filtering(name, period, part) for name in self.filters for period, part in self.periods(epochs)]


def filtering(name: str, period: str, part: Rounds) -> Filtering:
    """What the filter ``name`` dropped in these rounds; clients that a filter before it dropped count as not dropped.

    A rule that aggregates may look at these as well (UNION's parallel order): whom both drop counts for both.
    """
    labels, place = np.unique(part["dropped_by"].astype(str), return_inverse=True)
    dropped = np.array([name in label.split("+") for label in labels], dtype=bool)[place]
    malicious = part.malicious
    hit = int((dropped & malicious).sum())
    return Filtering(
        name,
        period,
        int(dropped.sum()),
        _ratio(hit, int(dropped.sum())),
        _ratio(hit, int(malicious.sum())),
        _ratio(int(dropped.sum()) - hit, int((~malicious).sum())),
    )


def read_rounds(path: Path) -> Rounds:
    """The diagnostics in a file.

    Raises:
        ResultsError: when it is damaged, of another kind, or of a newer version.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path, columns=list(COLUMNS), partitioning=None, page_checksum_verification=True)
        about = json.loads((table.schema.metadata or {})[METADATA])
        if about["version"] > VERSION:
            raise ResultsError(f"diagnostics {path} have version {about['version']}, newer than this fedbench.")
        columns = {}
        for name, kind in COLUMNS.items():
            values = table[name].combine_chunks()
            if kind.startswith("float"):
                values = values.cast(pa.float64())
            columns[name] = values.to_numpy(zero_copy_only=False)
        rounds = Rounds(int(about["every"]), tuple(map(str, about["filters"])), columns)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, pa.ArrowException) as error:
        raise ResultsError(f"diagnostics {path} are damaged: {reason(error)}.") from None
    named = [name for label in dict.fromkeys(rounds["dropped_by"]) if label is not None for name in label.split("+")]
    return Rounds(rounds.every, tuple(dict.fromkeys([*rounds.filters, *named])), columns)


def _period(name: str, part: Rounds) -> Period:
    malicious = part.malicious
    return Period(name, len(np.unique(part["round"])), _group(part, ~malicious), _group(part, malicious))


def _group(everybody: Rounds, of: Bools) -> Group:
    part = everybody.take(of)
    norm = part["norm"][np.isfinite(part["norm"])]
    low, middle, high = np.percentile(norm, [5, 50, 95]).tolist() if len(norm) else (None, None, None)
    return Group(
        len(part),
        middle,
        low,
        high,
        _mean(part["cosine_benign"]),
        _mean(part["cosine_malicious"]),
        _within_rounds(everybody, everybody["uniformity"], of),
        _within_rounds(everybody, everybody.shift(), of),
    )


def _within_rounds(part: Rounds, values: Floats, of: Bools) -> float | None:
    """Mean over rounds of the mean of ``values`` of a group in the round, over rounds that have both groups if any has."""
    finite, malicious = np.isfinite(values), part.malicious
    both = np.intersect1d(part["round"][finite & malicious], part["round"][finite & ~malicious])
    chosen = finite & of & (np.isin(part["round"], both) if len(both) else True)
    if not chosen.any():
        return None
    _, place, count = np.unique(part["round"][chosen], return_inverse=True, return_counts=True)
    return float((np.bincount(place, values[chosen]) / count).mean())


def _mean(values: Floats) -> float | None:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else None


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None
