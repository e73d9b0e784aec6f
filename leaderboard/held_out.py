"""Doses that the adaptive plan did not run, against what their curves say of them: ``python leaderboard/held_out.py FOLDER``.

Ten cells (an attack on a dataset and model, at a dose of the suite's ladder that was not run) are drawn at random from the
published records of `core`, with a fixed seed. Without their records in FOLDER the commands that run them are printed; with
them, a table for NOTES.md: what the curve says of the mean over its seeds, the interval that its neighbours leave (from the
lower end of the lower one's 95 % interval to the upper end of the upper one's), and what was measured.
"""

from __future__ import annotations

import random
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path

from fedbench.leaderboard import Database
from fedbench.leaderboard.dose_curves import Curve, dose_curves
from fedbench.leaderboard.doses import response_at
from fedbench.leaderboard.ranking import Estimate, clustered
from fedbench.runs.task import count_malicious

PUBLISHED = Path(__file__).with_name("results") / "core.parquet"
LADDER = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1)
CELLS, SEED = 10, 1


@dataclass(frozen=True)
class Cell:
    """A dose of a curve that was not run: between the points ``low`` and ``high`` of the curve."""

    curve: Curve
    ratio: float
    clients: int
    low: int
    high: int

    @property
    def says(self) -> float:
        """What the curve says: the mean over its seeds of the isotonic response."""
        return statistics.fmean(
            float(response_at(*self.curve.response(seed), [self.clients / self.curve.users])[0])
            for seed in self.curve.seeds
        )

    @property
    def interval(self) -> tuple[float, float]:
        """The interval that its neighbours leave."""
        low, high = (self._mean(point) for point in (self.low, self.high))
        ends = [end for each in (low, high) for end in (each.low, each.high, each.mean) if end is not None]
        return max(0.0, min(ends)), min(100.0, max(ends))

    def _mean(self, point: int) -> Estimate:
        own = self.curve.points[point].exposure["tail"]
        return clustered({("", seed): own[seed] for seed in self.curve.seeds if seed in own})


def cells(curves: list[Curve]) -> list[Cell]:
    """All doses of all curves that were not run."""
    out = []
    for curve in curves:
        there = [point.clients for point in curve.points]
        for ratio in LADDER:
            clients = count_malicious(curve.users, ratio)
            if there and there[0] < clients < there[-1] and clients not in there:
                above = next(n for n, each in enumerate(there) if each > clients)
                out.append(Cell(curve, ratio, clients, above - 1, above))
    return out


def main(folder: Path) -> None:
    """Print commands, or the table."""
    plain = [curve for curve in dose_curves(Database([PUBLISHED], 10)) if curve.defense == "none" and curve.seeds]
    found = sorted(cells(plain), key=lambda cell: (cell.curve.panel, cell.curve.attack, cell.ratio))
    drawn = random.Random(SEED).sample(found, min(CELLS, len(found)))
    measured = {}
    if folder.is_dir():
        for curve in dose_curves(Database([PUBLISHED, folder], 10)):
            for point in curve.points:
                measured[curve.panel, curve.attack, curve.defense, point.clients] = point.exposure["tail"]
    print("| dataset | model | attack | dose | the curve says | interval | measured | inside |")
    print("|" + "---|" * 8)
    inside = 0
    for cell in drawn:
        curve = cell.curve
        own = measured.get((curve.panel, curve.attack, "none", cell.clients), {})
        there = [own[seed] for seed in curve.seeds if seed in own]
        place = f"{curve.panel[0]} | {curve.panel[1]} | {curve.attack} | {100 * cell.ratio:g} %"
        low, high = cell.interval
        if not there:
            of = f"dataset={curve.panel[0]},model={curve.panel[1]},attack={curve.attack.split()[0]}"
            run = f"fedbench run core --seeds {len(curve.seeds)} --results {folder.name}"
            print(f"{run} --only variant=doses,{of},malicious_ratio={cell.ratio:g}")
            continue
        mean = statistics.fmean(there)
        inside += low <= mean <= high
        print(
            f"| {place} | {cell.says:.1f} | {low:.1f} to {high:.1f} | {mean:.1f} | {'yes' if low <= mean <= high else 'no'} |"
        )
    print(f"\n{inside} of {len(drawn)} inside; {len(found)} cells were not run.")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
