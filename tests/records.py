"""Constructed run records for tests of results, rankings and reports."""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from fedbench.leaderboard.ranking import Estimate, clustered
from fedbench.runs.checksum import checksums
from fedbench.runs.environment import environment
from fedbench.runs.identity import identity
from fedbench.runs.record import RunRecord, schema, summarize_curve
from fedbench.runs.results import write_record, write_whole
from fedbench.scenarios.scenario import Scenario

DATA: dict[str, Any] = {
    "dataset": "longtail-small",
    "split": "leave-one-out",
    "dataset_fingerprint": "f" * 64,
    "num_users": 300,
    "num_items": 400,
    "num_interactions": 12_000,
    "duplicates_removed": 0,
    "leaked_removed": 0,
}


def scenario(attack: str = "none", defense: str = "none", **fields: Any) -> Scenario:
    """A scenario on longtail-small and mf, at 5 % where there is an attack."""
    ratio = fields.pop("malicious_ratio", 0.0 if attack == "none" else 0.05)
    values: dict[str, Any] = {"dataset": "longtail-small", "model": "mf"} | fields
    return Scenario(attack=attack, defense=defense, malicious_ratio=ratio, **values)


def record(
    of: Scenario,
    seed: int = 0,
    er: float | Sequence[float] = 0.0,
    hr: float | Sequence[float] = 0.5,
    status: str = "ok",
    error: str | None = None,
    **columns: Any,
) -> RunRecord:
    """A record with ER@10 and HR@10 as given, at the end or at every tenth epoch."""
    ers = [er] if isinstance(er, float) else list(er)
    hrs = [hr] * len(ers) if isinstance(hr, float) else list(hr)
    curve = [{"epoch": 10 * n, "er_10": e, "hr_10": h} for n, (e, h) in enumerate(zip(ers, hrs, strict=True), 1)]
    epochs = 10 * len(curve)
    made = RunRecord(
        **identity(of, seed, "test"),
        **(DATA | {"dataset": of.dataset}),
        num_malicious=15,
        target_items=[7],
        status=status,
        error=error,
        epochs_planned=epochs,
        epochs_done=epochs,
        rounds=2 * epochs,
        ranking="sampled",
        **summarize_curve(curve if status == "ok" else [], epochs),
        seconds_total=1.0,
        seconds_setup=0.1,
        seconds_train=0.5,
        seconds_attack=0.1,
        seconds_evaluate=0.2,
        peak_gpu_bytes=None,
        started_at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        isolation="process",  # invented entries have ranks, too
        **environment("cpu"),
    )
    return replace(made, **columns)


def defended(
    name: str,
    attack: str = "none",
    seed: int = 0,
    *,
    family: str = "filter",
    knowledge: Sequence[str] = (),
    assumes: str = "nothing",
    params: dict[str, Any] | None = None,
    fields: dict[str, Any] | None = None,
    **values: Any,
) -> RunRecord:
    """A record under a defense of any name: a norm bound of its own, which gives the scenario its ids, under that name.

    Args:
        name, family, knowledge, assumes: of the defense. attack, seed: of the run. params: of the defense.
        fields: of the scenario. values: what :func:`record` takes.
    """
    params = params or {}
    bound = 0.1 + zlib.crc32(json.dumps([name, params], sort_keys=True).encode()) / 2**32
    made = record(scenario(attack, "norm-bound", defense_params={"bound": bound}, **(fields or {})), seed, **values)
    return replace(
        made,
        defense=name,
        defense_family=family,
        defense_knowledge=sorted(knowledge),
        defense_assumes=assumes,
        defense_params=json.dumps({name: params}),
    )


def untargeted(
    attack: str = "none",
    seed: int = 0,
    hr: float | Sequence[float] = 0.04,
    val: Sequence[float] = (),
    *,
    ndcg: float = 0.5,
    defense: str = "none",
    fields: dict[str, Any] | None = None,
    card: dict[str, Any] | None = None,
    **columns: Any,
) -> RunRecord:
    """A record of the untargeted track: full ranking, no target, HR@K as given for every K, and NDCG@K a share of it.

    Args:
        attack, seed, defense, fields, card: as :func:`defended` takes them. hr: at the end or at every evaluation.
        val: validation HR@5 of every evaluation; without it, the run has no validation items. ndcg: NDCG@K / HR@K.
        columns: of the record.
    """
    hrs = [hr] if isinstance(hr, float) else list(hr)
    curve = []
    for n, value in enumerate(hrs):
        point: dict[str, float] = {"epoch": 10 * (n + 1)}
        point |= {f"hr_full_{k}": value for k in (5, 10, 20)} | {f"ndcg_full_{k}": value * ndcg for k in (5, 10, 20)}
        curve.append(point | ({"val_hr_full_5": val[n]} if val else {}))
    columns = {
        "ranking": "full",
        "target": "none",
        "target_items": [],
        "attack_goal": "none" if attack == "none" else "degrade",
        **summarize_curve(curve, 10 * len(curve)),
        **columns,
    }
    if defense == "none":
        return record(scenario(attack, **(fields or {})), seed, **columns)
    return defended(defense, attack, seed, fields=fields, **(card or {}), **columns)


def visual(
    attack: str = "none",
    seed: int = 0,
    er: float = 0.0,
    ndcg: float = 0.04,
    *,
    eps: float | None = None,
    defense: str = "none",
    fields: dict[str, Any] | None = None,
    images: dict[str, float] | None = None,
    **columns: Any,
) -> RunRecord:
    """A record of the visual track: vncf, full ranking, ER@K and NDCG@K as given for every K.

    Args:
        attack, seed, defense, fields: as :func:`defended` takes them. eps: bound of the attack's images.
        images: what is measured of images. columns: of the record.
    """
    point = {"epoch": 10, **{f"er_{k}": er for k in (5, 10, 20, 30)}, **{f"ndcg_full_{k}": ndcg for k in (5, 10, 20)}}
    where = {"model": "vncf", **(fields or {})} | ({} if eps is None else {"attack_params": {"eps": eps}})
    columns = {"ranking": "full", "extractor": "random-conv", **summarize_curve([point], 10), **columns}
    columns |= {"images": images or {}}
    if defense == "none":
        return record(scenario(attack, **where), seed, **columns)
    return defended(defense, attack, seed, fields=where, family="purification", **columns)


def write(folder: Path, *records: RunRecord) -> Path:
    """Write the records into ``folder``: few as runs do, many in one file, as ``fedbench pack`` does."""
    if len(records) < 4:
        for each in records:
            write_record(each, folder)
    else:
        write_whole(_table(records), folder / f"{len(list(folder.glob('*.parquet')))}.parquet")
    return folder


def _table(records: Sequence[RunRecord]) -> pa.Table:
    """The rows of records; their checksums are made all at once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fedbench.runs.record.checksum", lambda row: None)
        table = pa.Table.from_pylist([each.row() for each in records], schema=schema())
    sums = checksums(table.drop_columns("checksum"))
    return table.set_column(table.schema.get_field_index("checksum"), "checksum", pa.array(sums))


def interval(values: Sequence[float]) -> Estimate:
    """The mean of one scenario's seeds and its interval."""
    return clustered({"": dict(enumerate(values))})
