"""A packed file of as many invented run records as one likes, to time the leaderboard."""

from __future__ import annotations

import hashlib
import itertools
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fedbench.runs.checksum import checksums
from fedbench.runs.record import EXPOSURE, METRICS, SCHEMA_VERSION, SELECTED, schema

RATIOS = (0.001, 0.005, 0.01, 0.02, 0.05)
GROUP = 1000
"""Rows of a group of the file, as `fedbench pack` writes them."""


def write_synthetic(
    path: Path, *, attacks: int = 20, defenses: int = 12, places: int = 40, seeds: int = 10, points: int = 20
) -> int:
    """Runs of every attack under every defense and none, in every place and seed, and their clean twins; how many.

    The first half of the attacks promotes, the other half degrades. Every run has a curve of all metrics.

    Args:
        path: of the file. attacks, defenses, seeds: how many. places: of them, ten for each of the pairs of a dataset and
            a model: five ratios, two targets. points: evaluations of each run.
    """
    rng = np.random.default_rng(0)
    written, pending = 0, schema().empty_table()
    with pq.ParquetWriter(path, schema(), compression="zstd") as out:
        for defense in range(defenses + 1):
            for attack in range(attacks + 1):
                scenarios = [_scenario(attack, defense, place, attacks) for place in range(places)]
                if attack == 0:
                    scenarios = list({each["scenario_id"]: each for each in scenarios}.values())
                table = _table(scenarios, attack, defense, seeds, points, rng)
                written += len(table)
                pending = pa.concat_tables([pending, table])
                if len(pending) >= GROUP:
                    whole = len(pending) // GROUP * GROUP
                    out.write_table(pending.slice(0, whole), row_group_size=GROUP)
                    pending = pending.slice(whole)
        if len(pending):
            out.write_table(pending)
    return written


def _scenario(attack: int, defense: int, place: int, attacks: int) -> dict[str, Any]:
    pair, (ratio, target) = place // 10, list(itertools.product(RATIOS, ("random:0", "random:1")))[place % 10]
    where = {
        "dataset": f"data-{pair // 2}",
        "model": ("mf", "ncf")[pair % 2],
        "protocol": "icde24",
        "split": "leave-one-out",
    }

    def identity(attack: int, defense: int) -> str:
        # Without an attack, neither the ratio nor the target makes a scenario.
        key = [where, attack, defense, ratio if attack else 0, target if attack else "none"]
        return hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]

    return where | {
        "scenario_id": identity(attack, defense),
        "clean_id": identity(0, defense),
        "undefended_id": identity(attack, 0),
        "baseline_id": identity(0, 0),
        "scenario_json": json.dumps(where | {"num_targets": 1, "attack": attack, "defense": defense, "ratio": ratio}),
        "attack": f"attack-{attack:02}" if attack else "none",
        "attack_goal": "none" if not attack else "degrade" if attack > attacks // 2 else "promote",
        "attack_params": json.dumps({"strength": attack}),
        "defense": f"defense-{defense:02}" if defense else "none",
        "defense_params": json.dumps({f"defense-{defense:02}": {"bound": defense}}) if defense else "{}",
        "malicious_ratio": ratio if attack else 0.0,
        "target": target if attack else "none",
    }


def _table(
    scenarios: list[dict[str, Any]], attack: int, defense: int, seeds: int, points: int, rng: np.random.Generator
) -> pa.Table:
    """The records of one attack under one defense."""
    rows = len(scenarios) * seeds
    repeated = {key: pa.array(np.repeat([each[key] for each in scenarios], seeds)) for key in scenarios[0]}
    seed = np.tile(np.arange(seeds), len(scenarios))
    shape = (rows, points)
    exposure = np.clip(0.05 * attack - 0.02 * defense + rng.normal(0, 0.05, shape), 0, 1)
    quality = np.clip(0.6 - 0.01 * attack - 0.005 * defense + rng.normal(0, 0.02, shape), 0.01, 1)
    curves = {name: np.round(exposure if name in EXPOSURE else quality, 4) for name in METRICS}
    kind = schema().field("curve").type
    flat = {name: pa.array(values.ravel()) for name, values in curves.items()}
    flat["epoch"] = pa.array(np.tile(np.arange(1, points + 1, dtype=np.int32) * 10, rows))
    fields = list(kind.value_type)
    nothing = pa.nulls(rows * points, pa.float64())
    structs = pa.StructArray.from_arrays([flat.get(each.name, nothing) for each in fields], fields=fields)
    columns: dict[str, Any] = repeated | {name: values[:, -1] for name, values in curves.items()}
    for name in EXPOSURE:
        columns[f"{name}_peak"] = curves[name].max(1)
        columns[f"{name}_peak_epoch"] = 10 * (1 + curves[name].argmax(1))
        columns[f"{name}_tail"] = curves[name][:, -max(points // 4, 1) :].mean(1)
    columns |= {f"{name}_best": curves[name].max(1) for name in SELECTED}
    columns |= {
        "schema_version": [SCHEMA_VERSION] * rows,
        "run_id": [f"{each['scenario_id']}-s{n}" for each in scenarios for n in range(seeds)],
        "seed": seed,
        "status": np.where(rng.random(rows) < 0.001, "diverged", "ok"),
        "ranking": ["sampled"] * rows,
        "rounds": [1000] * rows,
        "seconds_train": rng.uniform(10, 20, rows),
        "attack_knowledge": [["own_data"]] * rows,
        "defense_knowledge": [[]] * rows,
        "defense_family": ["aggregation"] * rows,
        "defense_assumes": ["nothing"] * rows,
        "target_items": [[7]] * rows,
        "warnings": [[]] * rows,
        "isolation": ["sandbox"] * rows,
        "checksum": pa.nulls(rows, pa.string()),
        "uploads": [None] * rows,
        "target_places": [None] * rows,
        "subgroup_items": [None] * rows,
        "subgroup_users": [None] * rows,
        "extractor": pa.nulls(rows, pa.string()),
        "images_fingerprint": pa.nulls(rows, pa.string()),
        "started_at": [datetime(2026, 1, 2, tzinfo=UTC)] * rows,
        "curve": pa.ListArray.from_arrays(np.arange(rows + 1, dtype=np.int32) * points, structs),
    }
    texts = {"suite": "synthetic", "model_params": "{}", "protocol_params": '{"epochs": 200}', "device": "cpu"}
    arrays = []
    for field in schema():
        if field.name not in columns:
            number = not pa.types.is_string(field.type)
            columns[field.name] = pa.array([1 if number else texts.get(field.name, "none")] * rows).cast(field.type)
        arrays.append(pa.array(columns[field.name]).cast(field.type))
    table = pa.Table.from_arrays(arrays, schema=schema())
    summed = pa.array(checksums(table.drop_columns("checksum")))
    return table.set_column(table.schema.get_field_index("checksum"), schema().field("checksum"), summed)
