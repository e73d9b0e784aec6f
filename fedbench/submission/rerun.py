"""Run a random sample of a bundle's runs again and compare.

This executes the code in the bundle, in a process of its own with the rights of whoever starts it: a process is no
cage. What it returns is read as strictly as the bundle. Code that means to deceive could recognise its runs and make up the
numbers that it returns; only reading it helps against that, and a draw that nobody could foresee makes it harder.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fedbench
from fedbench.data.home import cache_home
from fedbench.errors import FedbenchError, UserError
from fedbench.runs.plan import check_data
from fedbench.runs.record import schema
from fedbench.scenarios.scenario import Scenario
from fedbench.submission.container import CARD, LIMITS, SOURCE
from fedbench.submission.records import Row, read_records
from fedbench.submission.report import Check, brief
from fedbench.submission.standin import standing_in
from fedbench.submission.verify import Verified
from fedbench.texts import count, visible

TOLERANCE = 0.01
"""By how much a metric may differ without a question."""
ROUNDINGS = ("default", "avx2")
"""Instruction sets (``ATEN_CPU_CAPABILITY``) that a run which differs is repeated with: each rounds sums in its own way."""

PATIENCE, LEAST_PATIENCE = 20, 600
"""How many times as long as its records state a repetition may take, and how many seconds in any case."""

_ENVIRONMENT = frozenset(
    {"PATH", "LANG", "LC_ALL", "TMPDIR", "PYTHONPATH", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES"}
    | {"OMP_NUM_THREADS", "FEDBENCH_DATA", "FEDBENCH_CACHE", "SYSTEMROOT"}
)
"""Variables that the other process gets; tokens and passwords are among the rest."""

_EQUAL = (
    "scenario_id", "clean_id", "undefended_id", "baseline_id", "scenario_json", "dataset_fingerprint", "num_users",
    "num_items", "num_interactions", "duplicates_removed", "leaked_removed", "attack_version", "attack_goal",
    "attack_channel", "attack_knowledge", "attack_params", "defense_family", "defense_knowledge", "defense_assumes",
    "defense_params", "num_malicious", "target_items", "epochs_planned", "extractor", "images_fingerprint",
)  # fmt: skip
"""Columns that no rounding changes: they must be equal."""
_METRICS = tuple(
    field.name
    for field in schema()
    if str(field.type) == "double" and field.name[:3] in ("er_", "hr_", "ndc", "rec", "pre")
)


@dataclass(frozen=True)
class Compared:
    """A number of a run: as the bundle states it, and as each repetition gives it.

    They agree when it lies in the range of the repetitions, widened by :data:`TOLERANCE` or by that range itself, if that is
    more. Equal versions on equal processors give equal bits. Elsewhere sums are rounded differently, which most runs shrug
    off and some magnify without bound: in those the difference between repetitions that only round differently is the scale,
    and it is measured here, not taken from the bundle.
    """

    run: str
    metric: str
    stated: float | None
    found: Sequence[float | None]

    @property
    def tolerance(self) -> float:
        """How far the stated number may lie outside the range of the repetitions."""
        known = [each for each in self.found if each is not None]
        return max(TOLERANCE, max(known) - min(known)) if known else 0.0

    @property
    def ok(self) -> bool:
        """Whether they agree."""
        return self.apart <= self.tolerance

    @property
    def apart(self) -> float:
        """How far the stated number lies from the nearest repetition; 1 when only one of both is a number."""
        known = [each for each in self.found if each is not None]
        if self.stated is None or len(known) < len(self.found):
            return 0.0 if self.stated is None and not known else 1.0
        return 0.0 if min(known) <= self.stated <= max(known) else min(abs(self.stated - each) for each in known)


def at_hand(found: Verified, devices: Sequence[str], check: Check) -> list[Row]:
    """The runs of a bundle that can be repeated here; the others are noted.

    Their data must be here, and a device of the same kind: random numbers of a GPU are not those of a CPU.
    """
    assert found.manifest is not None
    kept: list[Row] = []
    why: dict[str, list[str]] = {}
    with standing_in(found.manifest.kind, found.manifest.name, found.cls):
        lacking: dict[tuple[str, str], str] = {}
        for row in sorted(found.rows, key=lambda row: str(row["run_id"])):
            data = (row["dataset"], row["split"])
            if data not in lacking:
                lacking[data] = _lacking(row)
            reason = lacking[data] if row["device"] in devices else f"made on {brief(row['device'])}, which is not here"
            if reason:
                why.setdefault(reason, []).append(str(row["run_id"]))
            else:
                kept.append(row)
    for reason, runs in why.items():
        check.note(
            f"{len(runs):,} of {count(len(found.rows), 'run')} cannot be repeated here, and will not be drawn: {reason}"
        )
    return kept


def _lacking(row: Row) -> str:
    try:
        check_data([Scenario(**json.loads(row["scenario_json"]))])
    except UserError as error:
        return str(error)
    return ""


def draw(found: Verified, rows: Sequence[Row], runs: int, seed: int) -> list[Row]:
    """A random sample of ``rows`` without repetition: the first with the entry, the others any, twins too.

    Raises:
        UserError: no run with the entry can be repeated here.
    """
    assert found.manifest is not None
    kind, name = found.manifest.kind, found.manifest.name
    stream = random.Random(seed)
    ours = [row for row in rows if name in str(row[kind]).split("+")]
    if not ours:
        raise UserError(f"no run with {name} can be repeated here: {'; '.join(found.checks[-1].notes)}")
    first = stream.choice(ours)
    others = [row for row in rows if row is not first]
    return [first, *stream.sample(others, min(runs - 1, len(others)))]


def rerun(found: Verified, sample: Sequence[Row], check: Check) -> list[Compared]:
    """Repeat the sample in other processes and compare; what differs is repeated with other roundings before it is judged.

    Raises:
        FedbenchError: no process could be started.
    """
    again: dict[str, list[Row]] = {str(row["run_id"]): [] for row in sample}
    left = list(sample)
    for rounding in ("", *ROUNDINGS):
        for row, record in zip(left, _repeated(found, left, rounding, check), strict=True):
            if record is not None:
                again[str(row["run_id"])].append(record)
        if check.reasons:
            break
        left = [row for row in left if not _agrees(row, again[str(row["run_id"])])]
        if not left:
            break
    compared: list[Compared] = []
    for row in sample:
        records = again[str(row["run_id"])]
        if records:
            _judge(row, records, check)
            compared += _compared(row, records)
    return compared


def _repeated(found: Verified, rows: Sequence[Row], rounding: str, check: Check) -> list[Row | None]:
    """The records of one process that repeats these runs."""
    with tempfile.TemporaryDirectory(prefix="fedbench-verify-") as folder:
        _execute(found, rows, rounding, Path(folder), check)
        card = _bytes(Path(folder) / CARD, LIMITS[CARD])
        if not check.reasons and card != found.members[CARD]:
            check.refuse("card.json: not what the class in source.py says of itself.")
        return [_record(Path(folder) / str(number), check) for number in range(len(rows))]


def _execute(found: Verified, rows: Sequence[Row], rounding: str, folder: Path, check: Check) -> None:
    manifest = found.manifest
    assert manifest is not None
    (folder / SOURCE).write_bytes(found.members[SOURCE])
    builtin = found.cls is None
    order = {
        "kind": manifest.kind,
        "name": manifest.name,
        "file": None if builtin else SOURCE,
        "runs": [
            {"scenario": json.loads(row["scenario_json"]), "seed": row["seed"], "device": row["device"]} for row in rows
        ],
    }
    (folder / "order.json").write_text(json.dumps(order), encoding="utf-8")
    environment = _environment(folder) | ({"ATEN_CPU_CAPABILITY": rounding} if rounding else {})
    command = [sys.executable, "-P", "-m", "fedbench.submission.worker", "order.json"]
    limit = patience(rows)
    with tempfile.TemporaryFile() as errors:  # a stranger's code can write more than memory holds
        try:
            done = subprocess.run(
                command, cwd=folder, env=environment, stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL, stderr=errors, check=False, timeout=limit,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            stated = sum(row["seconds_total"] for row in rows)
            check.refuse(f"the re-run was stopped after {limit:,.0f} s; the records state {stated:,.0f} s for it.")
            return
        except OSError as error:
            raise FedbenchError(f"the re-run could not be started: {error.strerror or error}.") from None
        if done.returncode:
            errors.seek(max(0, errors.seek(0, os.SEEK_END) - 2000))
            last = errors.read(2000).decode("utf-8", "replace").strip().splitlines()
            check.refuse(
                f"the re-run ended with exit code {done.returncode}: {visible(last[-1]) if last else 'no message'}."
            )


def patience(rows: Sequence[Row]) -> float:
    """Seconds that the process which repeats these runs may take: 20 times what they state, and at least ten minutes."""
    return max(LEAST_PATIENCE, PATIENCE * sum(row["seconds_total"] for row in rows))


def _environment(folder: Path) -> dict[str, str]:
    """The variables of the other process: what Python, torch and the data need, and no secret of this one."""
    kept = {name: value for name, value in os.environ.items() if name in _ENVIRONMENT}
    for name in ("FEDBENCH_DATA", "FEDBENCH_CACHE", "PYTHONPATH"):
        if name in kept:  # the process works in a folder of its own
            kept[name] = os.pathsep.join(
                str(Path(each).expanduser().absolute()) for each in kept[name].split(os.pathsep) if each
            )
    kept.setdefault("FEDBENCH_CACHE", str(cache_home().absolute()))
    own = str(Path(fedbench.__file__).parents[1])
    return kept | {"HOME": str(folder), "PYTHONPATH": os.pathsep.join(filter(None, [own, kept.get("PYTHONPATH")]))}


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


def _agrees(row: Row, again: Sequence[Row]) -> bool:
    return row["status"] in [each["status"] for each in again] and all(each.ok for each in _compared(row, again))


def _judge(row: Row, again: Sequence[Row], check: Check) -> None:
    """Refuse what must be equal and is not, and metrics outside what the repetitions allow."""
    run, first = str(row["run_id"]), again[0]
    for column in _EQUAL:
        if row[column] != first[column] and not (
            row[column] is None and row["schema_version"] < first["schema_version"]
        ):
            check.refuse(
                f"run {run}: {column} = {brief(row[column])}, but running it again gives {brief(first[column])}."
            )
    if row["status"] not in [each["status"] for each in again]:
        check.refuse(f"run {run}: status = {row['status']}, but running it again gives {brief(first['status'])}.")
    elif row["status"] == "ok" and row["rounds"] != next(each for each in again if each["status"] == "ok")["rounds"]:
        check.refuse(f"run {run}: rounds = {row['rounds']}, but running it again gives {first['rounds']}.")
    for each in _compared(row, again):
        if not each.ok:
            told = ", ".join(map(_number, each.found))
            check.refuse(
                f"run {run}: {each.metric} = {_number(each.stated)}, but running it again gives {told}"
                f" (tolerance {each.tolerance:.4f})."
            )
    if len(again) > 1:
        check.note(f"run {run} was repeated with {len(again)} roundings, since the first repetition differed.")


def _compared(row: Row, again: Sequence[Row]) -> list[Compared]:
    """The metrics at the end, at the peak, in the tail and at the best epoch; none of a run that diverged."""
    run = str(row["run_id"])
    same = [each for each in again if each["status"] == row["status"]]
    if not same or row["status"] != "ok":
        return []
    return [
        Compared(run, name, row[name], [each[name] for each in same])
        for name in _METRICS
        if row[name] is not None or any(each[name] is not None for each in same)
    ]


def _number(value: float | None) -> str:
    return "null" if value is None else f"{value:.4f}"


def table_rows(compared: Sequence[Compared]) -> list[tuple[Any, ...]]:
    """The lines of the table: of each run the metrics with K = 10, and all that do not agree."""
    return [
        (
            each.run,
            each.metric,
            _number(each.stated),
            ", ".join(map(_number, each.found)),
            f"{each.apart:.4f}",
            f"{each.tolerance:.4f}",
            "" if each.ok else "DIFFERS",
        )
        for each in compared
        if each.metric in ("er_10", "hr_10", "ndcg_10", "hr_full_10", "ndcg_full_10") or not each.ok
    ]
