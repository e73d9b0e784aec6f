"""Runs on the same data: what was imported again under its name gives other numbers."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from fedbench.texts import count

Row = dict[str, Any]


def of_one_data(records: pa.Table) -> tuple[pa.Table, list[str]]:
    """The records but for those made on other data than the newest of their dataset and split, and what was left out.

    Data that are imported again under their name give other numbers: such runs are no pairs. Where a split is drawn by the
    seed, every seed has data of its own; it is not where two seeds have the same.
    """
    key = ["dataset", "split", "protocol_params", "seed", "dataset_fingerprint"]
    table = records.select([*key, "started_at"]).append_column("number", pa.array(range(len(records)), pa.int64()))
    counts = (pc.field("dataset_fingerprint") != "") & (pc.field("status") != "failed")
    measured = table.append_column("status", records["status"]).filter(counts)
    grouped = measured.group_by(key).aggregate([("started_at", "max"), ("number", "min"), ("number", "count")])
    places: dict[tuple[str, str, str], list[Row]] = {}
    for row in grouped.sort_by("number_min").to_pylist():
        duplicates = str(json.loads(row["protocol_params"]).get("duplicates"))
        places.setdefault((row["dataset"], row["split"], duplicates), []).append(row)
    out, told = [], []
    for (dataset, split, _), found in sorted(places.items(), key=lambda item: item[0]):
        seeds: dict[str, set[int]] = {}
        for row in found:
            seeds.setdefault(row["dataset_fingerprint"], set()).add(row["seed"])
        by_seed = all(len(own) == 1 for own in seeds.values())
        groups: dict[object, list[Row]] = {}
        for row in found:
            groups.setdefault(row["seed"] if by_seed else None, []).append(row)
        for group in groups.values():
            latest: dict[str, datetime] = {}
            for row in group:
                data = row["dataset_fingerprint"]
                latest[data] = max(latest.get(data, row["started_at_max"]), row["started_at_max"])
            newest = max(latest, key=lambda data: latest[data])
            others = [row for row in group if row["dataset_fingerprint"] != newest]
            if others:
                out += others
                told.append(
                    f"{count(sum(row['number_count'] for row in others), 'run')} on {dataset} ({split}) left out: made on"
                    f" other data ({', '.join(sorted({row['dataset_fingerprint'][:8] for row in others}))}) than the newest"
                    f" ({newest[:8]}); `fedbench run` runs such again."
                )
    if out:
        left_out = {tuple(row[name] for name in key) for row in out}
        rows = zip(*(measured[name].to_pylist() for name in (*key, "number")), strict=True)
        numbers = [number for *own, number in rows if tuple(own) in left_out]
        records = records.filter(pc.invert(pc.is_in(table["number"], pa.array(numbers))))
    return records, told
