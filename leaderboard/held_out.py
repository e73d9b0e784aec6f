"""Doses that the adaptive plan leaves out, against what their curves say of them: ``python leaderboard/held_out.py``.

On some boards every dose of the ladder was run, whatever the plan would have asked for. There its rule is applied after the
fact, to the seeds that have all doses: what it leaves out is predicted from what it asks for, and compared with what was
measured. Printed are ten cells drawn at random, with a fixed seed, and how many of all lie inside. The interval goes from the
lower end of the 95 % interval of the mean at the neighbour below to the upper end of that above.
"""

from __future__ import annotations

import random
import statistics
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fedbench.leaderboard import Database
from fedbench.leaderboard.dose_curves import Curve, Point, dose_curves
from fedbench.leaderboard.doses import response_at
from fedbench.leaderboard.ranking import Estimate, clustered
from fedbench.runs.doses import wanted

PUBLISHED = Path(__file__).with_name("results") / "core.parquet"
CELLS, SEED = 10, 1


@dataclass(frozen=True)
class Cell:
    """A dose of a curve that the rule leaves out.

    Attributes:
        curve: of which. dose: percent of the users. says: mean over seeds of the isotonic response there, of the doses
            that the rule asks for. low, high: the interval. measured: mean ER@10 over the same seeds.
    """

    curve: Curve
    dose: float
    says: float
    low: float
    high: float
    measured: float

    @property
    def inside(self) -> bool:
        """Whether what was measured lies in the interval."""
        return self.low <= self.measured <= self.high


def cells(curve: Curve) -> Iterator[Cell]:
    """What the rule leaves out of a curve, on the seeds that have all of its doses."""
    points = curve.points
    seeds = sorted(set.intersection(*(set(point.exposure["tail"]) for point in points)))
    if not seeds or [point.clients for point in points] != list(curve.ladder):
        return
    chosen = sorted(wanted([[point.exposure["tail"][seed] / 100 for seed in seeds] for point in points]))
    for rung, point in enumerate(points):
        if rung in chosen:
            continue
        below, above = max(n for n in chosen if n < rung), min(n for n in chosen if n > rung)
        asked = [points[n] for n in chosen]
        says = statistics.fmean(_predicted(curve, asked, seed, point) for seed in seeds)
        ends = [end for n in (below, above) for end in _interval(points[n], seeds)]
        measured = statistics.fmean(point.exposure["tail"][seed] for seed in seeds)
        yield Cell(curve, 100 * point.clients / curve.users, says, max(0.0, min(ends)), min(100.0, max(ends)), measured)


def _predicted(curve: Curve, asked: list[Point], seed: int, point: Point) -> float:
    doses = [each.clients / curve.users for each in asked]
    found = response_at(doses, [each.exposure["tail"][seed] for each in asked], [point.clients / curve.users])
    return float(found[0])


def _interval(point: Point, seeds: list[int]) -> tuple[float, float]:
    found: Estimate = clustered({"": {seed: point.exposure["tail"][seed] for seed in seeds}})
    return (found.mean, found.mean) if found.low is None or found.high is None else (found.low, found.high)


def table(files: list[Path]) -> str:
    """The table as Markdown, and a sentence on all cells."""
    found = [cell for curve in dose_curves(Database(files, 10)) if curve.defense == "none" for cell in cells(curve)]
    drawn = random.Random(SEED).sample(found, min(CELLS, len(found)))
    lines = ["| dataset | model | attack | dose | the curve says | interval | measured | inside |", "|" + "---|" * 8]
    for cell in drawn:
        place = f"{cell.curve.panel[0]} | {cell.curve.panel[1]} | {cell.curve.attack} | {cell.dose:.2g} %"
        interval = f"{cell.low:.1f} to {cell.high:.1f}"
        lines.append(
            f"| {place} | {cell.says:.1f} | {interval} | {cell.measured:.1f} | {'yes' if cell.inside else 'no'} |"
        )
    off = statistics.fmean(abs(cell.says - cell.measured) for cell in found) if found else 0.0
    inside = f"{sum(cell.inside for cell in drawn)} of {len(drawn)} inside"
    rest = f"of all that the rule leaves out {sum(cell.inside for cell in found)} of {len(found)}"
    return "\n".join([*lines, "", f"{inside}, {rest}; mean distance {off:.1f} points."])


if __name__ == "__main__":
    print(table([Path(each) for each in sys.argv[1:]] or [PUBLISHED]))
