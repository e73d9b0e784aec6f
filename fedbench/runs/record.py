"""The record of a run: its columns, their types, and what is made of its curve."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import pyarrow as pa

from fedbench.runs.checksum import checksums

SCHEMA_VERSION = 9
"""What a version added is null in files of earlier ones.

2: ``defense_family``, ``defense_knowledge``, ``defense_assumes``. 3: ``val_*`` in the points of the curve,
``best_epoch``, ``hr_full_K_best``, ``ndcg_full_K_best``. 4: ``model_version``, ``defense_version``; before it, all were 1.
5: ``model_source_hash``. 6: ``extractor``, ``images_fingerprint``, ``uploads`` and :data:`IMAGE_MEASURES`.
7: :data:`TRUST_COLUMNS` and ``checksum``, which is over all other values. 8: ``target_places``,
:data:`SUBGROUP_COLUMNS` and :data:`SUBGROUP_MEASURES`. 9: ``sampled_users`` and :data:`SAMPLING_ERRORS`.
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
UPLOAD_MEASURES = ("change", "psnr", "ssim", "cosine", "similarity", "flagged")
"""Of every image that an attacker uploads, against the original: max |delta| in steps of 8-bit pixels, PSNR in dB, SSIM,
cosine of the features; ``similarity``, the cosine of its features before and after the defense; and whether it is flagged
(null: nobody looks)."""
IMAGE_MEASURES = (
    *(f"image_{name}" for name in UPLOAD_MEASURES),
    *(f"clean_similarity_{name}" for name in ("mean", "min")),
    *(f"detection_{name}" for name in ("auc", "recall_zero_fp", "recall", "false_positive_rate", "accuracy")),
    *(f"{name}_{part}" for name in ("blur", "brisque") for part in ("mean", "std")),
)
"""Of runs with images: the upload measures, mean over the targets' last uploads; similarity of the clean images; detection of
these last uploads among the clean images; quality of the original images as the server shows them."""

IMAGE_COLUMNS = ("extractor", "images_fingerprint", "uploads")
"""Further columns of runs with images."""
TRUST_COLUMNS = ("isolation", "refused_uploads", "warnings", "popularity_hr_10", "popularity_hr_full_10")
"""How far the numbers of a run can be trusted."""
SUBGROUP_COLUMNS = ("subgroup_items", "subgroup_users")
"""Further columns of runs whose protocol names a subgroup of the users."""
SUBGROUP_MEASURES = tuple(f"er_{side}_{k}" for side in ("in", "out") for k in (5, 10, 20, 30))
"""Of these runs: ER@K at the end among the users of the subgroup, and among all others."""
SAMPLING_ERRORS = ("er_10_se", "hr_10_se", "hr_full_10_se")
"""Of runs that measure a sample of the users: the standard errors of metrics at the end, as means over all users."""
ADDED = (*IMAGE_COLUMNS, *TRUST_COLUMNS, "target_places", *SUBGROUP_COLUMNS, "sampled_users")
"""Columns that later versions put behind the metrics."""


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """Everything needed to rank, to plot and to re-run one run. Metrics are fractions, times seconds."""

    scenario_id: str
    """Hash of all that can change a number, but for the seed."""
    clean_id: str
    """The scenario without its attack: of its clean twin."""
    undefended_id: str
    """The scenario without its defense."""
    baseline_id: str
    """The scenario with neither."""
    scenario_json: str
    """The scenario with all its values."""
    suite: str | None
    """For which it was run."""
    dataset: str
    split: str
    dataset_fingerprint: str
    """Of the interactions of the split: runs on other data under the same name are told apart."""
    num_users: int
    num_items: int
    num_interactions: int
    duplicates_removed: int
    """Repeated interactions that were left out."""
    leaked_removed: int
    """Training interactions that are held-out ones, left out."""
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
    """Malicious clients / genuine users of the dataset."""
    num_malicious: int
    protocol: str
    protocol_params: str
    target: str
    """How the target items are chosen."""
    target_items: list[int]
    seed: int
    status: str
    """``ok``, ``diverged`` or ``failed``."""
    error: str | None
    """Why it failed."""
    epochs_planned: int
    epochs_done: int
    rounds: int
    ranking: str
    curve: list[dict[str, float]]
    """Every evaluation: the epoch, all metrics, and those on validation items."""
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
    extractor: str | None = None
    images_fingerprint: str | None = None
    uploads: list[dict[str, float | None]] | None = None
    """Of every uploaded image the epoch, the item and :data:`UPLOAD_MEASURES`; None without images."""
    images: Mapping[str, float | None] = field(default_factory=dict)
    """:data:`IMAGE_MEASURES`; columns of their own."""
    isolation: str = "none"
    """Where the attack and the defense ran: ``"none"``, with everything else; ``"process"``, in one of their own;
    ``"sandbox"``, in one that the system confines, with the means after a colon."""
    refused_uploads: int = 0
    """Uploads of clients that the engine refused as not finite, over the run."""
    warnings: Sequence[str] = ()
    """What may mislead in the numbers, one line each."""
    popularity_hr_10: float | None = None
    """HR@10 of recommending the most popular unseen items, in the ranking and the split of ``hr_10``."""
    popularity_hr_full_10: float | None = None
    """The same of ``hr_full_10``."""
    target_places: Sequence[str] | None = None
    """Of every target, whom the last evaluation showed it, and in which place: see ``evaluation/displacement.py``; None
    without targets or an evaluation, and where there are too many."""
    subgroup_items: list[int] | None = None
    """The items that all users of the protocol's subgroup have; None: it names none."""
    subgroup_users: list[int] | None = None
    """Their ids."""
    subgroup: Mapping[str, float | None] = field(default_factory=dict)
    """:data:`SUBGROUP_MEASURES`; columns of their own."""
    sampled_users: int | None = None
    """How many users, drawn at random, are measured for all; None: everybody is."""
    sampling_errors: Mapping[str, float | None] = field(default_factory=dict)
    """:data:`SAMPLING_ERRORS`; columns of their own."""

    @property
    def run_id(self) -> str:
        """``<scenario id>-s<seed>``."""
        return f"{self.scenario_id}-s{self.seed}"

    def row(self) -> dict[str, Any]:
        """The record as one flat row of :func:`schema`."""
        nested = ("metrics", "images", "subgroup", "sampling_errors")
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name not in nested}
        row = {"schema_version": SCHEMA_VERSION, "run_id": self.run_id, **values, **self.metrics, **self.images}
        row |= {**self.subgroup, **self.sampling_errors}
        return row | {"checksum": checksum(row)}


@functools.cache
def schema() -> pa.Schema:
    """The columns of a result file, in order."""
    kinds = {"str": pa.string(), "int": pa.int64(), "float": pa.float64(), "bool": pa.bool_()}
    special = {
        "attack_knowledge": pa.list_(pa.string()),
        "defense_knowledge": pa.list_(pa.string()),
        "warnings": pa.list_(pa.string()),
        "target_items": pa.list_(pa.int64()),
        "target_places": pa.list_(pa.string()),
        "subgroup_items": pa.list_(pa.int64()),
        "subgroup_users": pa.list_(pa.int64()),
        "started_at": pa.timestamp("us", tz="UTC"),
        "curve": pa.list_(
            pa.struct([("epoch", pa.int32()), *((name, pa.float64()) for name in (*METRICS, *VALIDATION))])
        ),
    }
    of = {
        f.name: special.get(f.name) or kinds.get(str(f.type).partition(" ")[0]) for f in dataclasses.fields(RunRecord)
    }
    columns = [("schema_version", pa.int32()), ("run_id", pa.string())]
    columns += [
        (n, kind) for n, kind in of.items() if n not in ("metrics", "images", "subgroup", "sampling_errors", *ADDED)
    ]
    for name in METRICS:
        columns.append((name, pa.float64()))
    for name in EXPOSURE:
        columns += [(f"{name}_peak", pa.float64()), (f"{name}_peak_epoch", pa.int32()), (f"{name}_tail", pa.float64())]
    columns.append(("best_epoch", pa.int32()))
    columns += [(f"{name}_best", pa.float64()) for name in SELECTED]
    upload = pa.struct([("epoch", pa.int32()), ("item", pa.int64()), *((n, pa.float64()) for n in UPLOAD_MEASURES)])
    columns += [("extractor", pa.string()), ("images_fingerprint", pa.string()), ("uploads", pa.list_(upload))]
    columns += [(name, pa.float64()) for name in IMAGE_MEASURES]
    columns += [*((name, of[name]) for name in (*TRUST_COLUMNS, "target_places", *SUBGROUP_COLUMNS))]
    columns += [*((name, pa.float64()) for name in SUBGROUP_MEASURES)]
    columns += [
        ("sampled_users", pa.int64()),
        *((name, pa.float64()) for name in SAMPLING_ERRORS),
        ("checksum", pa.string()),
    ]
    return pa.schema(columns)


def checksum(row: Mapping[str, Any]) -> str:
    """What ``checksum`` of a row of :func:`schema` must be: SHA-256 over its other values (``runs/checksum.py``)."""
    return checksums(pa.Table.from_pylist([row], schema=schema()).drop_columns("checksum"))[0]


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
