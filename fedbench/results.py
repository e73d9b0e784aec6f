"""The record of a run, and the parquet file that holds it.

One run, one file named ``<scenario id>-s<seed>.parquet``, written under a temporary name in the same folder, flushed
to the disk and then renamed: a crash at any moment leaves either nothing or a whole file.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import platform
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from textwrap import shorten
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

import fedbench
from fedbench.errors import ResultsError

SCHEMA_VERSION = 5
"""What a version added is null in files of earlier ones.

2: ``defense_family``, ``defense_knowledge``, ``defense_assumes``. 3: ``val_*`` in the points of the curve,
``best_epoch``, ``hr_full_K_best``, ``ndcg_full_K_best``. 4: ``model_version``, ``defense_version``; before it, all were 1.
5: ``model_source_hash``.
"""

EXPOSURE = ("er_5", "er_10", "er_20", "er_30")
METRICS = (
    *EXPOSURE,
    *(f"{name}_{k}" for name in ("hr", "ndcg", "hr_full", "ndcg_full", "recall", "precision") for k in (5, 10, 20)),
)
"""Names of all metrics; a run has those that its protocol's split allows, the others are null."""
SELECTED = tuple(f"{name}_{k}" for name in ("hr_full", "ndcg_full") for k in (5, 10, 20))
"""Metrics that are also measured on validation items (``val_...``), and given at the best epoch (``..._best``)."""
VALIDATION = tuple(f"val_{name}" for name in SELECTED)
SELECTED_BY = "val_hr_full_5"
"""The validation metric by which the best epoch is chosen."""


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """Everything needed to rank, to plot and to re-run one run. Metrics are fractions, times seconds."""

    scenario_id: str
    clean_id: str
    undefended_id: str
    baseline_id: str
    scenario_json: str
    suite: str | None
    dataset: str
    split: str
    dataset_fingerprint: str
    num_users: int
    num_items: int
    num_interactions: int
    duplicates_removed: int
    leaked_removed: int
    model: str
    model_version: int
    model_params: str
    model_source_hash: str
    attack: str
    attack_version: int
    attack_goal: str
    attack_channel: str
    attack_knowledge: list[str]
    attack_params: str
    attack_source_hash: str
    defense: str
    defense_version: int
    defense_family: str
    defense_knowledge: list[str]
    defense_assumes: str
    defense_params: str
    defense_source_hash: str
    malicious_ratio: float
    num_malicious: int
    protocol: str
    protocol_params: str
    target: str
    target_items: list[int]
    seed: int
    status: str
    error: str | None
    epochs_planned: int
    epochs_done: int
    rounds: int
    ranking: str
    curve: list[dict[str, float]]
    seconds_total: float
    seconds_setup: float
    seconds_train: float
    seconds_attack: float
    seconds_evaluate: float
    device: str
    device_name: str
    peak_gpu_bytes: int | None
    threads: int
    fedbench_version: str
    torch_version: str
    numpy_version: str
    python_version: str
    platform: str
    git_commit: str | None
    git_dirty: bool | None
    started_at: datetime
    metrics: Mapping[str, float | None]
    """What :func:`summarize_curve` makes of the curve; columns of their own."""

    @property
    def run_id(self) -> str:
        """``<scenario id>-s<seed>``."""
        return f"{self.scenario_id}-s{self.seed}"

    def row(self) -> dict[str, Any]:
        """The record as one flat row of :func:`schema`."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "metrics"}
        return {"schema_version": SCHEMA_VERSION, "run_id": self.run_id, **values, **self.metrics}


@functools.cache
def schema() -> pa.Schema:
    """The columns of a result file, in order."""
    kinds = {"str": pa.string(), "int": pa.int64(), "float": pa.float64(), "bool": pa.bool_()}
    special = {
        "attack_knowledge": pa.list_(pa.string()),
        "defense_knowledge": pa.list_(pa.string()),
        "target_items": pa.list_(pa.int64()),
        "started_at": pa.timestamp("us", tz="UTC"),
        "curve": pa.list_(
            pa.struct([("epoch", pa.int32()), *((name, pa.float64()) for name in (*METRICS, *VALIDATION))])
        ),
    }
    columns = [("schema_version", pa.int32()), ("run_id", pa.string())]
    for f in dataclasses.fields(RunRecord):
        if f.name != "metrics":
            columns.append((f.name, special.get(f.name) or kinds[str(f.type).partition(" ")[0]]))
    for name in METRICS:
        columns.append((name, pa.float64()))
    for name in EXPOSURE:
        columns += [(f"{name}_peak", pa.float64()), (f"{name}_peak_epoch", pa.int32()), (f"{name}_tail", pa.float64())]
    columns.append(("best_epoch", pa.int32()))
    columns += [(f"{name}_best", pa.float64()) for name in SELECTED]
    return pa.schema(columns)


def summarize_curve(curve: Sequence[Mapping[str, float]], epochs: int) -> dict[str, Any]:
    """The curve with the columns made from it.

    Args:
        curve: one mapping for each evaluation, with ``epoch`` and the metrics. epochs: planned length of the run.

    Returns:
        ``curve``, and ``metrics``: every metric at the last evaluation, and of every ER@K its peak, the epoch of the
        peak (the first, if several), and its tail, the mean over the evaluations in the last quarter of training.
        With validation items, also ``best_epoch``, the evaluation with the highest :data:`SELECTED_BY` (the first, if
        several), and HR@K and NDCG@K of the test items at it.
    """
    out: dict[str, float | None] = dict.fromkeys(METRICS)
    for name in METRICS:
        if curve and name in curve[-1]:
            out[name] = float(curve[-1][name])
    for name in EXPOSURE:
        points = [(int(point["epoch"]), float(point[name])) for point in curve if name in point]
        peak = max(points, key=lambda point: point[1], default=None)
        tail = [value for epoch, value in points if epoch > 0.75 * epochs]
        out[f"{name}_peak"] = peak[1] if peak else None
        out[f"{name}_peak_epoch"] = peak[0] if peak else None
        out[f"{name}_tail"] = sum(tail) / len(tail) if tail else None
    validated = [point for point in curve if point.get(SELECTED_BY) is not None]
    best = max(validated, key=lambda point: point[SELECTED_BY], default=None)
    out["best_epoch"] = int(best["epoch"]) if best else None
    for name in SELECTED:
        out[f"{name}_best"] = float(best[name]) if best and name in best else None
    return {"curve": [dict(point) for point in curve], "metrics": out}


def environment(device: str) -> dict[str, Any]:
    """Where a run runs: device, versions, platform, and the git commit of fedbench's own checkout, if it is one."""
    import numpy
    import torch

    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else processor()
    commit, dirty = git_state()
    return {
        "device": device.partition(":")[0],
        "device_name": name,
        "threads": torch.get_num_threads(),
        "fedbench_version": fedbench.__version__,
        "torch_version": torch.__version__,
        "numpy_version": numpy.__version__,
        "python_version": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "git_commit": commit,
        "git_dirty": dirty,
    }


@functools.cache
def processor() -> str:
    """The name of the processor."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            for line in lines:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


@functools.cache
def git_state() -> tuple[str | None, bool | None]:
    """The commit of fedbench's own checkout, and whether its code was changed since; None where it is no checkout."""
    root = Path(fedbench.__file__).parents[1]
    if not (root / ".git").exists():
        return None, None
    try:
        commit = subprocess.run(
            ["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, check=True
        ).stdout.strip()
        changed = subprocess.run(
            ["git", "-C", str(root), "status", "--porcelain", "--", "fedbench"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None, None
    return commit, bool(changed)


def path_of(folder: Path, scenario_id: str, seed: int) -> Path:
    """Where the record of a run lies."""
    return folder / f"{scenario_id}-s{seed}.parquet"


def write_record(record: RunRecord, folder: Path) -> Path:
    """Write one record as one whole file, or nothing at all.

    Raises:
        ResultsError: when the folder cannot be written to or the disk is full; nothing is left behind.
    """
    final = path_of(folder, record.scenario_id, record.seed)
    # Of a single row, statistics and dictionaries would be 40 % of the file.
    write_whole(
        pa.Table.from_pylist([record.row()], schema=schema()), final, write_statistics=False, use_dictionary=False
    )
    return final


def write_whole(table: pa.Table, final: Path, **options: Any) -> None:
    """Write a parquet file under a temporary name in the same folder, flush it to the disk, and rename it.

    Args:
        table, final: what, and where. options: of ``pyarrow.parquet.write_table``.

    Raises:
        ResultsError: when the folder cannot be written to or the disk is full; nothing is left behind.
    """
    temporary = final.with_name(f".{final.name}.{os.getpid()}.tmp")
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as out:
            pq.write_table(table, out, compression="zstd", **options)
            out.flush()
            os.fsync(out.fileno())
        os.replace(temporary, final)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise ResultsError(f"cannot write the result {final}: {error.strerror or error}.") from None


@dataclass(frozen=True)
class Found:
    """What lies in a results folder.

    Attributes:
        status: run id -> status of every whole record. files: their paths. damaged: names of files that cannot be read
            as records, with the reason.
    """

    status: Mapping[tuple[str, int], str]
    files: Sequence[Path]
    damaged: Mapping[str, str]


_IDENTITY = ["schema_version", "scenario_id", "seed", "status"]


def scan(folders: Iterable[Path]) -> Found:
    """Look through results folders, or packed files: every whole record counts, all else is reported by name."""
    status: dict[tuple[str, int], str] = {}
    files: list[Path] = []
    damaged: dict[str, str] = {}
    for folder in folders:
        for path in [folder] if folder.is_file() else sorted(folder.rglob("*.parquet")):
            if path.name.startswith(".") or path.name.endswith(".rounds.parquet"):
                continue
            try:
                rows = pq.ParquetFile(path).read(columns=_IDENTITY, use_threads=False).to_pylist()
                newest = max((row["schema_version"] for row in rows), default=SCHEMA_VERSION)
                if newest > SCHEMA_VERSION:
                    damaged[str(path)] = f"schema version {newest} is newer than this fedbench"
                    continue
                status.update({(row["scenario_id"], row["seed"]): row["status"] for row in rows})
                files.append(path)
            except (OSError, ValueError, TypeError, KeyError, pa.ArrowException) as error:
                damaged[str(path)] = reason(error)
    return Found(status, files, damaged)


def reason(error: Exception) -> str:
    """Why a file cannot be read, on one short line."""
    first = " ".join(str(error).split()).split(". ")[0].rstrip(".")
    return shorten(first, 120, placeholder=" ...") or type(error).__name__


def pack(folders: Sequence[Path], file: Path) -> int:
    """All whole records of results folders as one file, sorted by run, as results are published; how many there are.

    Readers take such a file like a folder of single records. Of several records of one run it holds the one that they
    take: one that did not fail, the newest.

    Raises:
        ResultsError: when there is no record, or the file cannot be written.
    """
    found = scan(folders)
    if not found.files:
        raise ResultsError(f"no results in {', '.join(map(str, folders))}.")
    tables = [pq.read_table(path) for path in found.files]
    table = pa.concat_tables([schema().empty_table(), *tables], promote_options="default")
    table = table.append_column("failed", pc.equal(table["status"], "failed"))
    table = table.sort_by([("run_id", "ascending"), ("failed", "ascending"), ("started_at", "descending")])
    table = table.drop_columns("failed")
    runs = table["run_id"].to_pylist()
    table = table.filter(pa.array([k == 0 or runs[k - 1] != run for k, run in enumerate(runs)]))
    write_whole(table, file)
    return len(table)
