"""Run a random sample of a bundle's runs again and compare.

This executes the code in the bundle, in a process of its own with the rights of whoever starts it: a process is no
cage. What it returns is read as strictly as the bundle. Code that means to deceive could recognise its runs and make up the
numbers that it returns; only reading it helps against that, and a draw that nobody could foresee makes it harder.
"""

from __future__ import annotations

import json
import math
import os
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fedbench
from fedbench.errors import FedbenchError
from fedbench.execution.plan import check_data
from fedbench.results import schema
from fedbench.scenario import Scenario
from fedbench.submission.container import CARD, LIMITS, SOURCE
from fedbench.submission.records import Row, read_records
from fedbench.submission.report import Check, brief
from fedbench.submission.standin import standing_in
from fedbench.submission.verify import Verified
from fedbench.texts import visible

FLOOR = 0.01
ERRORS = 3.0
SPREAD_CAP = 0.05

_ENVIRONMENT = frozenset(
    {"PATH", "LANG", "LC_ALL", "TMPDIR", "PYTHONPATH", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES"}
    | {"OMP_NUM_THREADS", "FEDBENCH_DATA", "FEDBENCH_CACHE", "SYSTEMROOT"}
)
"""Variables that the other process gets; tokens and passwords are among the rest."""

_EQUAL = (
    "scenario_id", "clean_id", "undefended_id", "baseline_id", "scenario_json", "dataset_fingerprint", "num_users",
    "num_items", "num_interactions", "duplicates_removed", "leaked_removed", "attack_version", "attack_goal",
    "attack_channel", "attack_knowledge", "attack_params", "defense_family", "defense_knowledge", "defense_assumes",
    "defense_params", "num_malicious", "target_items", "status", "epochs_planned", "epochs_done", "rounds",
)  # fmt: skip
"""Columns without rounding: they must be equal. (A diverged run may end an evaluation earlier or later.)"""
_METRICS = tuple(
    field.name
    for field in schema()
    if str(field.type) == "double" and field.name[:3] in ("er_", "hr_", "ndc", "rec", "pre")
)


@dataclass(frozen=True)
class Compared:
    """A number of a run: as it is in the bundle, as the re-run gives it, and how far apart they may be."""

    run: str
    metric: str
    stated: float | None
    found: float | None
    tolerance: float

    @property
    def ok(self) -> bool:
        """Whether they agree."""
        if self.stated is None or self.found is None:
            return self.stated is self.found
        return abs(self.stated - self.found) <= self.tolerance


def draw(found: Verified, runs: int, seed: int) -> list[Row]:
    """A random sample of the bundle's runs, without repetition: the first one with the entry, the others any."""
    assert found.manifest is not None
    kind, name = found.manifest.kind, found.manifest.name
    rows = sorted(found.rows, key=lambda row: str(row["run_id"]))
    stream = random.Random(seed)
    ours = [row for row in rows if name in str(row[kind]).split("+")]
    first = stream.choice(ours)
    others = [row for row in rows if row is not first]
    return [first, *stream.sample(others, min(runs - 1, len(others)))]


def rerun(found: Verified, sample: Sequence[Row], device: str, check: Check) -> list[Compared]:
    """Run the sample again in another process and compare.

    Raises:
        UserError: data that are not here.
        FedbenchError: the process could not be started.
    """
    assert found.manifest is not None
    with standing_in(found.manifest.kind, found.manifest.name, found.cls):
        check_data(Scenario(**json.loads(row["scenario_json"])) for row in sample)
    compared: list[Compared] = []
    with tempfile.TemporaryDirectory(prefix="fedbench-verify-") as folder:
        _execute(found, sample, device, Path(folder), check)
        card = _bytes(Path(folder) / CARD, LIMITS[CARD])
        if not check.reasons and card != found.members[CARD]:
            check.refuse("card.json: not what the class in source.py says of itself.")
        for number, row in enumerate(sample):
            again = _record(Path(folder) / str(number), check)
            if again is not None:
                compared += _compare(row, again, found.rows, check)
    return compared


def _execute(found: Verified, sample: Sequence[Row], device: str, folder: Path, check: Check) -> None:
    manifest = found.manifest
    assert manifest is not None
    (folder / SOURCE).write_bytes(found.members[SOURCE])
    builtin = found.cls is None
    order = {
        "kind": manifest.kind,
        "name": manifest.name,
        "file": None if builtin else SOURCE,
        "device": device,
        "runs": [{"scenario": json.loads(row["scenario_json"]), "seed": row["seed"]} for row in sample],
    }
    (folder / "order.json").write_text(json.dumps(order), encoding="utf-8")
    kept = {name: value for name, value in os.environ.items() if name in _ENVIRONMENT}
    if "FEDBENCH_DATA" in kept:
        kept["FEDBENCH_DATA"] = os.pathsep.join(
            str(Path(each).absolute()) for each in kept["FEDBENCH_DATA"].split(os.pathsep)
        )
    own = str(Path(fedbench.__file__).parents[1])
    kept["PYTHONPATH"] = os.pathsep.join([own, *filter(None, [kept.get("PYTHONPATH")])])
    command = [sys.executable, "-P", "-m", "fedbench.submission.worker", "order.json"]
    try:
        done = subprocess.run(
            command, cwd=folder, env={**kept, "HOME": str(folder)}, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False,
        )  # fmt: skip
    except OSError as error:
        raise FedbenchError(f"the re-run could not be started: {error.strerror or error}.") from None
    if done.returncode:
        last = done.stderr[-2000:].decode("utf-8", "replace").strip().splitlines()
        check.refuse(
            f"the re-run ended with exit code {done.returncode}: {visible(last[-1]) if last else 'no message'}."
        )


def _bytes(path: Path, most: int) -> bytes | None:
    """A plain file's bytes that the other process has left, if there are not too many."""
    if path.is_symlink() or not path.is_file() or path.stat().st_size > most:
        return None
    return path.read_bytes()


def _record(folder: Path, check: Check) -> Row | None:
    """The one record that the other process has written for a run."""
    files = list(folder.glob("*.parquet")) if folder.is_dir() else []
    data = _bytes(files[0], 1 << 22) if len(files) == 1 else None
    if data is None:
        if not check.reasons:
            check.refuse("the re-run left no record.")
        return None
    rows = read_records(data, check)
    return rows[0] if len(rows) == 1 else None


def _compare(row: Row, again: Row, rows: Sequence[Row], check: Check) -> list[Compared]:
    """What must be equal, and the metrics at the end, at the peak, in the tail and at the best epoch."""
    run = str(row["run_id"])
    loose = ("epochs_done", "rounds") if row["status"] == again["status"] == "diverged" else ()
    for column in _EQUAL:
        if row[column] != again[column] and column not in loose:
            if row[column] is None and row["schema_version"] < again["schema_version"]:
                continue
            check.refuse(
                f"run {run}: {column} = {brief(row[column])}, but running it again gives {brief(again[column])}."
            )
    compared = [
        Compared(run, name, row[name], again[name], tolerance(name, again, rows))
        for name in _METRICS
        if row[name] is not None or again[name] is not None
    ]
    for each in compared if row["status"] == again["status"] == "ok" else ():
        if not each.ok:
            check.refuse(
                f"run {run}: {each.metric} = {_number(each.stated)}, but running it again gives {_number(each.found)}"
                f" (tolerance {each.tolerance:.4f})."
            )
    return compared


def tolerance(metric: str, again: Row, rows: Sequence[Row]) -> float:
    """How far a metric of a run may be from that of its re-run: ``max(0.01, min(3 e, 0.05), min(s, 0.05))``.

    With the same versions on the same processor runs are equal to the last bit. On others sums are rounded differently,
    and training magnifies that. e = sqrt(p (1 - p) / n) is the standard error of a share p of n users, p by the re-run; s
    the standard deviation over the seeds of the scenario, by the bundle, for what a run's path decides.
    """
    value = again[metric]
    if value is None:
        return 0.0
    error = math.sqrt(max(0.0, value * (1 - value)) / max(1, again["num_users"]))
    seeds = [row[metric] for row in rows if row["scenario_id"] == again["scenario_id"] and row[metric] is not None]
    spread = statistics.stdev(seeds) if len(seeds) > 1 else 0.0
    return max(FLOOR, min(ERRORS * error, SPREAD_CAP), min(spread, SPREAD_CAP))


def _number(value: float | None) -> str:
    return "null" if value is None else f"{value:.4f}"


def table_rows(compared: Sequence[Compared]) -> list[tuple[Any, ...]]:
    """The lines of the table: of each run the metrics with K = 10, and all that do not agree."""
    lines = []
    for run in dict.fromkeys(each.run for each in compared):
        for each in (each for each in compared if each.run == run):
            if each.metric in ("er_10", "hr_10", "ndcg_10", "hr_full_10", "ndcg_full_10") or not each.ok:
                verdict = "" if each.ok else "DIFFERS"
                numbers = (_number(each.stated), _number(each.found), f"{_apart(each):.4f}", f"{each.tolerance:.4f}")
                lines.append((run, each.metric, *numbers, verdict))
    return lines


def _apart(each: Compared) -> float:
    if each.stated is None or each.found is None:
        return 0.0 if each.stated is each.found else 1.0
    return abs(each.stated - each.found)
