"""What recommending by popularity finds on the data of the published records: ``python leaderboard/popularity.py``.

Records of schema 7 say it themselves. For older ones this writes ``results/popularity.csv`` from the data, which must be at
hand.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from fedbench.data.splits import LEAVE_ONE_OUT_VALIDATION
from fedbench.evaluation.evaluator import EvaluationSettings, Evaluator
from fedbench.runs.task import split_of
from fedbench.scenarios.scenario import Scenario

RESULTS = Path(__file__).with_name("results")
METRICS = ("hr_10", "hr_full_10")


def popularity(scenario: Scenario, seed: int) -> dict[str, float]:
    """HR@10 of recommending by popularity where ``scenario``, without attack and defense, is measured."""
    protocol, split = scenario.resolved.protocol, split_of(scenario, seed)
    known = [split.train]
    if split.valid is not None and split.split == LEAVE_ONE_OUT_VALIDATION:
        known.append(split.valid)
    evaluator = Evaluator(
        num_users=split.num_users,
        num_items=split.num_items,
        train_user=torch.from_numpy(np.concatenate([part.user for part in known])),
        train_item=torch.from_numpy(np.concatenate([part.item for part in known])),
        test_user=torch.from_numpy(split.test.user),
        test_item=torch.from_numpy(split.test.item),
        targets=torch.zeros(0, dtype=torch.int64),
        evaluated_users=torch.arange(split.num_users),
        settings=EvaluationSettings(ties=protocol.ties, seen_held_out=protocol.seen_held_out),
        device=torch.device("cpu"),
    )
    return evaluator.by_popularity()


def main() -> None:
    """Write the file: a row for every run without attack and defense that records name as their baseline."""
    columns = ["scenario_id", "baseline_id", "seed", "scenario_json"]
    files = [path for path in sorted(RESULTS.glob("*.parquet")) if not path.name.endswith(".rounds.parquet")]
    rows = pa.concat_tables([pq.ParquetFile(path).read(columns=columns) for path in files]).to_pylist()
    texts = {row["scenario_id"]: row["scenario_json"] for row in rows}
    runs = sorted({(row["baseline_id"], row["seed"]) for row in rows if row["baseline_id"] in texts})
    with (RESULTS / "popularity.csv").open("w", encoding="utf-8", newline="") as opened:
        out = csv.writer(opened, lineterminator="\n")
        out.writerow(["run", *(f"popularity_{name}" for name in METRICS)])
        for scenario, seed in runs:
            found = popularity(Scenario(**json.loads(texts[scenario])), seed)
            out.writerow([f"{scenario}-s{seed}", *(found.get(name, "") for name in METRICS)])


if __name__ == "__main__":
    main()
