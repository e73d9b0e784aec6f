"""Real runs of which leaderboards without any difference are drawn: ``python leaderboard/null/runs.py [SEEDS]``.

Every seed trains small federations (a run takes about a second) and appends them to ``runs.parquet`` beside this file; seeds
that are there are left out, so it can be stopped and continued. ``simulate.py`` draws the leaderboards.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from fedbench.runs.run import run
from fedbench.scenarios.scenario import Scenario

FILE = Path(__file__).with_name("runs.parquet")
SMALL, REAL = ("longtail-small", 8), ("ml-100k", 4)
FOUR, SEVEN = (0.005, 0.01, 0.02, 0.05), (0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1)


def scenarios() -> list[Scenario]:
    """What every seed runs: an attack of each kind of table on its grid, a defense, and the clean twins."""

    def at(
        data: tuple[str, int], attack: str, ratio: float, target: str = "random:0", defense: str = "none"
    ) -> Scenario:
        dataset, epochs = data
        epochs *= 3 if attack == "pieck-uea" else 1  # until its target is everywhere
        return Scenario(
            dataset, "mf", attack, defense, malicious_ratio=ratio, target=target,
            protocol_params={"epochs": epochs, "evaluate_every": epochs},
        )  # fmt: skip

    return [
        *(at(SMALL, "p1", ratio, target) for target in ("random:0", "random:1") for ratio in SEVEN),
        *(at(SMALL, "a-hum", ratio) for ratio in FOUR),
        *(at(SMALL, "pieck-uea", ratio) for ratio in FOUR),
        *(at(REAL, "p1", ratio) for ratio in FOUR),
        *(at(SMALL, "p1", ratio, defense="norm-bound") for ratio in FOUR),
        *(at(SMALL, "none", 0.0, defense=defense) for defense in ("none", "norm-bound")),
    ]


def main(seeds: int) -> None:
    """Run what is lacking of the first ``seeds`` seeds."""
    rows = pq.read_table(FILE).to_pylist() if FILE.exists() else []
    done = {row["seed"] for row in rows}
    for seed in sorted(set(range(seeds)) - done):
        for scenario in scenarios():
            record = run(scenario, seed)
            named = {
                name: getattr(record, name) for name in ("dataset", "attack", "defense", "malicious_ratio", "target")
            }
            measured = {name: record.metrics[name] for name in ("er_10", "hr_10")}
            rows.append({**named, "seed": seed, "status": record.status, **measured})
        whole = FILE.with_suffix(".partial")
        pq.write_table(pa.Table.from_pylist(rows), whole, compression="zstd")
        os.replace(whole, FILE)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100)
