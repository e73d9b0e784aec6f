"""Bundles of a forger who makes every hash and checksum right again: each is refused when it is read, or found when its runs
are repeated, or what was changed is a claim that reaches no leaderboard."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from bundles import (
    edited,
    rows_of,
    sealed,
    summed,
    unpacked,
    with_curve,
    with_json,
    with_rows,
    zipped,
)

from fedbench.runs.record import METRICS, schema
from fedbench.submission.compare import CLAIMED, COUNTS, EQUAL, MEASURED, WORDS, agrees
from fedbench.submission.container import CARD, ENVIRONMENT, MANIFEST, RECORDS, SOURCE, packed
from fedbench.submission.records import Row, written
from fedbench.submission.rerun import elsewhere
from fedbench.submission.rows import check_rows
from fedbench.submission.standin import standing_in
from fedbench.submission.verify import Verified, verify

Tamper = Callable[[bytes], bytes]

MEASURED_HERE = tuple(name for name in METRICS if not name.startswith(("recall", "precision")))
"""The metrics of the protocol of the bundle."""

OTHERWISE: dict[str, Any] = {
    "scenario_json": '{"dataset": "longtail-small"}',
    "attack_knowledge": ["own_data"],
    "defense_knowledge": ["honest_updates"],
    "target_items": [7],
    "started_at": datetime.now(UTC) - timedelta(days=3),
    "status": "diverged",
    "device": "cuda",
    "device_name": "Another processor",
    "isolation": "sandbox:bubblewrap",
    "suite": "core",
    "platform": "Linux aarch64",
    "python_version": "3.99.0",
    "warnings": [],
    "curve": [],
    "uploads": [
        {"epoch": 10, "item": 7, **dict.fromkeys(("change", "psnr", "ssim", "cosine", "similarity", "flagged"))}
    ],
}
"""Other plausible values of columns, where a simple change of the value is none."""


def other(column: str, value: Any) -> Any:
    """Another plausible value of a column."""
    if column in OTHERWISE and OTHERWISE[column] != value:
        return OTHERWISE[column]
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, float):
        return value + 0.05 if value < 0.9 else value - 0.05
    if isinstance(value, list):
        return [*value, "HR@10 is lower than that of recommending by popularity"]
    if value is None:
        kind = str(schema().field(column).type)
        if kind.endswith("int64>"):
            return [3]
        return {"double": 0.5, "int32": 3, "int64": 3, "bool": True}.get(kind, "0" * 40)
    return f"{value}0" if len(value) < 60 else value[::-1]


Edit = Callable[[Row], Any]


def column(name: str) -> Edit:
    return lambda row: row.update({name: other(name, row[name])})


def curve(metric: str, *, every: bool) -> Edit:
    """A metric changed, with all of its family that must not be below it, in every point or in one."""
    family, _, k = metric.rpartition("_")

    def change(row: Row) -> None:
        middle = row["curve"][len(row["curve"]) // 2]["epoch"]

        def at(point: dict[str, Any]) -> None:
            if every or point["epoch"] == middle:
                raised = min(1.0, point[metric] + 0.02)
                above = [
                    f"{family}_{more}" for more in (5, 10, 20, 30) if more >= int(k) and f"{family}_{more}" in point
                ]
                point.update({name: max(raised, point[name]) for name in above if point[name] is not None})

        with_curve(row, at)

    return change


def rows(change: Callable[[list[Row]], list[Row]]) -> Tamper:
    return lambda good: with_rows(good, change(rows_of(good)))


def swapped(all_: list[Row]) -> list[Row]:
    """The numbers of two seeds of a scenario change places."""
    one, two = [row for row in all_ if row["scenario_id"] == all_[0]["scenario_id"]]
    names = ("curve", *MEASURED, *(f"er_{k}_peak_epoch" for k in (5, 10, 20, 30)))
    return [
        row | ({name: (two if row is one else one)[name] for name in names} if row in (one, two) else {})
        for row in all_
    ]


def better_seed(all_: list[Row]) -> list[Row]:
    """The numbers of the better one stand for both seeds."""
    one, two = sorted((row for row in all_ if row["attack"] == row["defense"] == "none"), key=lambda row: row["hr_10"])
    names = ("curve", *MEASURED, *(f"er_{k}_peak_epoch" for k in (5, 10, 20, 30)))
    return [row | ({name: two[name] for name in names} if row is one else {}) for row in all_]


def diverged(row: Row) -> None:
    row["curve"] = row["curve"][:3]
    row.update(status="diverged", error="parameters are not finite after epoch 40", epochs_done=40, rounds=80)
    with_curve(row, lambda point: None)


def source(old: str, new: str) -> Tamper:
    def change(good: bytes) -> bytes:
        members = unpacked(good)
        return sealed({**members, SOURCE: members[SOURCE].replace(old.encode(), new.encode(), 1)})

    return change


def member(name: str, content: bytes) -> Tamper:
    return lambda good: packed({**unpacked(good), name: content})


def with_manifest(good: bytes, **values: Any) -> bytes:
    return sealed(unpacked(good), **values)


MANIFESTS = [
    ("format", 2), ("kind", "defense"), ("name", "pieck-uea"), ("suite", "core-untargeted"), ("suite_version", 99),
    ("only", ["model=ncf"]), ("seeds", 1), ("module", "os"), ("modules", ["os"]), ("extra", 1), ("files", {}),
]  # fmt: skip
CARDS = [
    ("name", "pieck-uea"), ("title", "Another"), ("goal", "degrade"), ("channel", "image"), ("version", 2),
    ("knowledge", ["own_data"]), ("models", ["mf"]), ("class_name", "Attack"), ("parameters", []),
    ("invents_users", True),
]  # fmt: skip
KINDS: dict[str, Tamper] = {
    "a record of 2099": lambda good: edited(good, lambda row: row.update(started_at=datetime(2099, 1, 1, tzinfo=UTC))),
    "all records of 2099": lambda good: edited(
        good, lambda row: row.update(started_at=datetime(2099, 1, 1, tzinfo=UTC)), lambda row: True
    ),
    "an hour too long for its time": lambda good: edited(
        good, lambda row: row.update(started_at=datetime.now(UTC), seconds_total=3600.0)
    ),
    "schema 1": lambda good: edited(good, lambda row: row.update(schema_version=1), lambda row: True),
    "schema 6": lambda good: edited(good, lambda row: row.update(schema_version=6)),
    "schema 1 without what it lacks": lambda good: edited(
        good,
        lambda row: row.update(
            schema_version=1, defense_family=None, model_source_hash=None, isolation=None, warnings=None
        ),
    ),
    "all runs on a GPU": lambda good: edited(good, lambda row: row.update(device="cuda"), lambda row: True),
    "runs with the entry on a GPU": lambda good: edited(
        good, lambda row: row.update(device="cuda"), lambda row: row["attack"] != "none"
    ),
    "on a device of its own": lambda good: edited(good, lambda row: row.update(device="tpu")),
    "a run left out": rows(lambda all_: all_[1:]),
    "the last run left out": rows(lambda all_: all_[:-1]),
    "a seed left out": rows(lambda all_: [row for row in all_ if row["seed"] == 0]),
    "twins left out": rows(lambda all_: [row for row in all_ if row["attack"] != "none"]),
    "no runs": rows(lambda all_: []),
    "a run twice": rows(lambda all_: [*all_, all_[0]]),
    "a run twice with other numbers": rows(lambda all_: [*all_, all_[0] | {"seconds_total": 99.0}]),
    "a seed too many": rows(
        lambda all_: [*all_, all_[0] | {"seed": 2, "run_id": all_[0]["run_id"].replace("-s0", "-s2")}]
    ),
    "seeds under other names": rows(
        lambda all_: [
            row | {"seed": 1 - row["seed"], "run_id": f"{row['scenario_id']}-s{1 - row['seed']}"} for row in all_
        ]
    ),
    "seeds with each other's numbers": rows(swapped),
    "the better seed for both": rows(better_seed),
    "a failed run": lambda good: edited(good, lambda row: row.update(status="failed", error="ValueError")),
    "a run that diverged, it says": lambda good: edited(good, diverged),
    "a curve cut": lambda good: edited(good, lambda row: row["curve"].pop()),
    "a point too many": lambda good: edited(good, lambda row: row["curve"].append(row["curve"][-1])),
    "points in another order": lambda good: edited(good, lambda row: row["curve"].reverse()),
    "curve and summary of another run": rows(
        lambda all_: [all_[0] | {name: all_[-1][name] for name in ("curve", *MEASURED)}, *all_[1:]]
    ),
    "all exposure": lambda good: edited(
        good, lambda row: with_curve(row, lambda point: point.update(er_5=1.0, er_10=1.0, er_20=1.0, er_30=1.0))
    ),
    "no hits of a twin": lambda good: edited(
        good,
        lambda row: with_curve(row, lambda point: point.update({n: 0.0 for n in MEASURED_HERE if n[:2] != "er"})),
        lambda row: row["attack"] == "none",
    ),
    "a comment in the source": source("import torch", "import torch  # faster"),
    "another number in the source": source("0.1, gt=0", "0.9, gt=0"),
    "another source": lambda good: sealed({**unpacked(good), SOURCE: b"class RandomDirection: ...\n"}),
    "no source": lambda good: sealed({**unpacked(good), SOURCE: b""}),
    "a member too many": member("sitecustomize.py", b"print()"),
    "a member in a folder": member("fedbench/__init__.py", b""),
    "a member outside": member("../x.py", b""),
    "a member too few": lambda good: packed({k: v for k, v in unpacked(good).items() if k != ENVIRONMENT}),
    "compressed": lambda good: zipped(list(unpacked(good).items()), 8),
    "bytes behind it": lambda good: good + b"0",
    "bytes before it": lambda good: b"0" + good,
    "a comment": lambda good: good[:-2] + b"\x01\x00x",
    "a longer curve of nothing": lambda good: edited(good, lambda row: row.update(curve=row["curve"] * 2)),
    "another environment": lambda good: with_json(good, ENVIRONMENT, environments=[]),
    "another digest": lambda good: packed(
        {**unpacked(good), MANIFEST: unpacked(good)[MANIFEST].replace(b'"sha256": "', b'"sha256": "0', 1)}
    ),
    "no checksum": lambda good: sealed(
        {**unpacked(good), RECORDS: written([row | {"checksum": None} for row in rows_of(good)])}
    ),
    "the checksum of another": lambda good: sealed(
        {**unpacked(good), RECORDS: written([row | {"checksum": rows_of(good)[0]["checksum"]} for row in rows_of(good)])}
    ),
    **{f"manifest: {name} = {value!r}": functools.partial(with_manifest, **{name: value}) for name, value in MANIFESTS},
    **{f"card: {name} = {value!r}": functools.partial(with_json, member=CARD, **{name: value}) for name, value in CARDS},
}  # fmt: skip
EDITS: dict[str, Edit] = {
    **{f"column {name}": column(name) for name in schema().names if name != "checksum"},
    **{f"{name} in every point": curve(name, every=True) for name in MEASURED_HERE},
    **{f"{name} in one point": curve(name, every=False) for name in MEASURED_HERE},
}
"""Of one record; its checksum is made right again."""


def verdict(found: Verified, repetitions: Mapping[str, Row]) -> str:
    """What becomes of a bundle: refused when it is read, found when every run is repeated, or whole."""
    if found.ok:
        elsewhere(found, ["cpu"], found.step("device"))
    if not found.ok:
        return "refused"
    return "whole" if all(agrees(row, [repetitions[row["run_id"]]]) for row in found.rows) else "found"


def test_the_good_one_is_as_it_is_repeated(good: bytes, repetitions: Mapping[str, Row]) -> None:
    assert verdict(verify(good), repetitions) == "whole"
    assert len(KINDS) > 60
    assert len(EDITS) > 130


def test_every_column_is_computed_compared_or_only_claimed() -> None:
    listed = [*EQUAL, *COUNTS, *WORDS, *CLAIMED, *MEASURED]
    assert len(listed) == len(set(listed))
    # Beside these there are what is summed up of the curve, the points themselves, and whether it ended.
    others = set(schema().names) - set(listed)
    assert others == {
        "status",
        "curve",
        "uploads",
        "target_places",
        "best_epoch",
        *(f"er_{k}_peak_epoch" for k in (5, 10, 20, 30)),
    }


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_of_forgery(kind: str, good: bytes, repetitions: Mapping[str, Row]) -> None:
    data = KINDS[kind](good)
    assert data != good
    assert verdict(verify(data), repetitions) in ("refused", "found")


def test_a_column_or_a_metric_changed_in_one_record(good: bytes, repetitions: Mapping[str, Row]) -> None:
    """Each by itself; what becomes of a bundle with it is what its records are judged by."""
    found, told = verify(good), dict[str, str]()
    source_hash = next(row["attack_source_hash"] for row in found.rows if row["attack"] != "none")
    with standing_in("attack", "random-direction", found.cls):
        for name, edit in EDITS.items():
            rows = rows_of(good)
            edit(next(row for row in rows if row["attack"] != "none"))
            changed = replace(found, rows=summed(rows), checks=[])
            assert changed.rows != found.rows
            check_rows(changed.rows, "attack", "random-direction", source_hash, changed.step("records"))
            told[name] = verdict(changed, repetitions)
    claims = {f"column {name}" for name in CLAIMED}
    assert {name for name, each in told.items() if each == "whole"} <= claims
    assert {"refused", "found"} <= set(told.values())
