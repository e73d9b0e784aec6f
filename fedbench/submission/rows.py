"""What must hold of every run record of a bundle, and between them."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa

from fedbench.data.splits import LEAVE_ONE_OUT_VALIDATION
from fedbench.entries.cards import Channel
from fedbench.errors import UserError
from fedbench.evaluation.displacement import SYMBOLS, by_subgroup, counted, shown_to
from fedbench.evaluation.evaluator import MOST_PLACES
from fedbench.plugins.card_rules import LONGEST_NAME
from fedbench.runs.checksum import checksums
from fedbench.runs.identity import identity
from fedbench.runs.record import EXPOSURE, METRICS, SCHEMA_VERSION, SELECTED, VALIDATION, schema, summarize_curve
from fedbench.runs.task import count_malicious
from fedbench.scenarios.scenario import Scenario
from fedbench.scenarios.suite_file import SUITE_NAME
from fedbench.submission.records import OPTIONAL, Row
from fedbench.submission.report import Check, brief, some
from fedbench.texts import count, hidden

MOST_TEXT = 20_000
MOST_SECONDS = 30 * 86_400
"""Of a run."""

_SUMMARY = tuple(name for name in schema().names[schema().names.index(METRICS[0]) :])
_MAY_BE_NULL = (OPTIONAL | set(_SUMMARY)) - {"isolation", "refused_uploads", "warnings", "checksum"}
_ISOLATION = re.compile(r"none|process|sandbox(:[a-z0-9 ,+.-]{1,60})?", re.ASCII)
_SOURCES = ("attack_source_hash", "defense_source_hash", "model_source_hash")
_WORDING = (*_SOURCES, "defense_assumes")
"""Of fedbench's own methods these change with a comment, or the wording of a card, and no number moves."""
_SECONDS = ("seconds_total", "seconds_setup", "seconds_train", "seconds_attack", "seconds_evaluate")
_OF_DATA = (
    "dataset_fingerprint", "num_users", "num_items", "num_interactions", "duplicates_removed", "leaked_removed",
    "images_fingerprint",
)  # fmt: skip
_OF_IMAGES = frozenset({"images_fingerprint"})
"""Of these, what only records of models that look at images have."""
CLOCKS = timedelta(minutes=10)
"""By how much clocks may differ."""


def check_rows(rows: Sequence[Row], kind: str, name: str, source_hash: str | None, check: Check) -> None:
    """Check the rows of a bundle; scenarios must find the entry, or what stands for it.

    Args:
        rows: as read. kind, name: of the entry. source_hash: which its runs must have; None: not known.
        check: takes the reasons.
    """
    seen: set[str] = set()
    unequal: dict[str, list[str]] = {}
    scenarios: dict[str, Scenario | None] = {}
    for row in rows:
        run = row["run_id"]
        if run in seen:
            check.refuse(f"run {brief(run)} occurs twice.")
        seen.add(run)
        reasons = list(_form(row)) or list(_of_scenario(row, scenarios, kind, name, source_hash, unequal))
        for reason in reasons[:3]:
            check.refuse(f"run {brief(run)}: {reason}")
        if len(check.reasons) > 60:
            check.refuse("and more; the checks of the records stop here.")
            return
    _check_sums(rows, check)
    for column, runs in unequal.items():
        check.note(f"{column} of {count(len(runs), 'run')} is not that of this fedbench ({some(runs)}).")
    if not check.reasons:
        _check_between(rows, check)


def _check_sums(rows: Sequence[Row], check: Check) -> None:
    """The checksum of every record is that of its values."""
    table = pa.Table.from_pylist(list(rows), schema=schema()).drop_columns("checksum")
    wrong = [str(row["run_id"]) for row, sha in zip(rows, checksums(table), strict=True) if row["checksum"] != sha]
    if wrong:
        check.refuse(f"the checksum of {count(len(wrong), 'record')} is not that of its values: {some(wrong)}.")


def _form(row: Row) -> Iterator[str]:
    """What can be told of a row by itself: nulls, texts, numbers, and the curve."""
    if row["schema_version"] != SCHEMA_VERSION:
        yield (
            f"schema_version = {brief(row['schema_version'])}, but new records have {SCHEMA_VERSION}; run it again with this"
            " fedbench (`fedbench run --fresh`)."
        )
        return
    for column, value in row.items():
        if value is None and column not in _MAY_BE_NULL:
            yield f"{column} is null."
        elif isinstance(value, str) and (len(value) > MOST_TEXT or hidden(value, "\n\t" if column == "error" else "")):
            yield f"{column} = {brief(value)} is too long, or holds a character that cannot be seen."
        elif isinstance(value, float) and not math.isfinite(value):
            yield f"{column} = {value} is not finite."
        elif isinstance(value, list) and any(each is None for each in value):
            yield f"{column} holds a null."
    yield from _of_machine(row)


def _of_machine(row: Row) -> Iterator[str]:
    """Times, threads, memory, isolation and suite: what nothing else tells, within what can be."""
    total, *parts = seconds = [row[column] if row[column] is not None else math.nan for column in _SECONDS]
    for column, value in zip(_SECONDS, seconds, strict=True):
        if value < 0:
            yield f"{column} = {value} is negative."
        elif value > MOST_SECONDS:
            yield f"{column} = {value:g} is longer than any run (at most {MOST_SECONDS:,})."
    if min(parts) >= 0 and sum(parts) > 1.001 * total + 0.01:  # of roundings
        yield f"seconds_total = {total:g}, but its parts make {sum(parts):g}."
    if (
        row["started_at"] is not None
        and row["started_at"].timestamp() + total > (datetime.now(UTC) + CLOCKS).timestamp()
    ):
        yield f"started_at = {row['started_at']:%Y-%m-%d %H:%M} and {total:,.0f} s of work end in the future."
    if row["rounds"] and not row["seconds_train"]:
        yield f"{row['rounds']:,} rounds in seconds_train = {row['seconds_train']}."
    if row["threads"] is not None and row["threads"] < 1:
        yield f"threads = {row['threads']} is below 1."
    for column in ("peak_gpu_bytes", "refused_uploads"):
        if (row[column] or 0) < 0:
            yield f"{column} = {row[column]} is negative."
    if row["isolation"] is not None and not _ISOLATION.fullmatch(row["isolation"]):
        yield f"isolation = {brief(row['isolation'])} is no level of isolation."
    if any(len(each) > 500 or hidden(each, "") for each in row["warnings"] or () if each is not None):
        yield "warnings are too long, or hold a character that cannot be seen."
    suite = row["suite"]
    if suite is not None and not (re.fullmatch(SUITE_NAME, suite) and len(suite) <= LONGEST_NAME):
        yield f"suite = {brief(suite)} cannot be the name of a suite."


def _of_scenario(
    row: Row,
    scenarios: dict[str, Scenario | None],
    kind: str,
    name: str,
    source_hash: str | None,
    unequal: dict[str, list[str]],
) -> Iterator[str]:
    """What follows from the scenario: the ids, the columns, how long it runs, and which metrics there are."""
    key = row["scenario_json"]
    if key not in scenarios:
        scenarios[key] = _scenario(key)
    scenario = scenarios[key]
    if scenario is None:
        yield f"scenario_json = {brief(key)} is no scenario."
        return
    try:
        expected = identity(scenario, row["seed"], row["suite"])
    except UserError as error:
        yield f"its scenario is not possible here: {error}"
        return
    if row["run_id"] != f"{row['scenario_id']}-s{row['seed']}" or row["seed"] < 0:
        yield "run_id is not made of scenario_id and seed."
    ours = name in (scenario.attack if kind == "attack" else scenario.defense).split("+")
    for column, value in expected.items():
        if column in _WORDING and not (ours and column.startswith(kind)):
            if row[column] != value:
                unequal.setdefault(column, []).append(str(row["run_id"]))
        elif column in _SOURCES:
            if source_hash is not None and row[column] != source_hash:
                yield (
                    f"{column} is not that of source.py: the file was edited after the runs, or they were made with another"
                    f" fedbench ({row['fedbench_version']}, commit {brief(row['git_commit'])}); run them again."
                )
        elif row[column] != value:
            yield f"{column} = {brief(row[column])}, but its scenario gives {brief(value)}."
    yield from _course(row, scenario)


def _scenario(text: str) -> Scenario | None:
    """The scenario of a canonical line of JSON, or None."""
    try:
        values = json.loads(text)
        scenario = Scenario(**values)
        return scenario if scenario.key == text else None
    except (UserError, ValueError, TypeError, RecursionError):
        return None


def _course(row: Row, scenario: Scenario) -> Iterator[str]:
    """Length, clients, targets, the curve, and what is summed up of it."""
    p = scenario.resolved.protocol
    status, curve = row["status"], row["curve"]
    if status not in ("ok", "diverged"):
        yield f"status = {brief(status)}; a bundle holds runs that are ok or diverged."
        return
    if (row["error"] is None) != (status == "ok"):
        yield f"status is {status}, but error = {brief(row['error'])}."
    given = {"dataset": scenario.dataset, "split": p.split, "ranking": p.ranking, "epochs_planned": p.epochs}
    model = scenario.resolved.model
    given["extractor"] = getattr(model.params, "extractor", None) if model.reads_features else None
    if (row["images_fingerprint"] is not None) != model.reads_features:
        yield f"images_fingerprint = {brief(row['images_fingerprint'])}, of model {scenario.model!r}."
    for column, value in given.items():
        if row[column] != value:
            yield f"{column} = {brief(row[column])}, but its scenario gives {brief(value)}."
    if min(row["num_users"], row["num_items"], row["num_interactions"]) < 1:
        yield "a dataset without users, items or interactions."
        return
    malicious = count_malicious(row["num_users"], scenario.malicious_ratio)
    if row["num_malicious"] != malicious:
        yield f"num_malicious = {row['num_malicious']}, but {scenario.malicious_ratio:g} of the users are {malicious}."
    yield from _targets(row, scenario)
    done = row["epochs_done"]
    if not (done == p.epochs if status == "ok" else 0 <= done <= p.epochs):
        yield f"epochs_done = {done} of {p.epochs}, and its status is {status}."
        return
    takes_part = p.malicious_clients == "injected" and row["attack_channel"] != Channel.IMAGE
    clients = row["num_users"] + (malicious if takes_part else 0)
    size = p.clients_per_round
    cohort = min(clients, max(1, round(size * clients)) if size < 1 else int(size))
    each = p.rounds_per_epoch or -(-clients // cohort)
    if not (row["rounds"] == done * each if status == "ok" else (done - 1) * each <= row["rounds"] <= done * each):
        yield f"rounds = {row['rounds']}, but {done} epochs have {done * each}."
    yield from _curve(row, curve, p.evaluate_every, p.split == LEAVE_ONE_OUT_VALIDATION)
    reasons = list(_places(row, p.er_denominator == "all"))
    yield from reasons or _subgroup(row, p.subgroup)
    if row["sampled_users"] not in (None, p.evaluate_users):
        yield f"sampled_users = {row['sampled_users']}, but the protocol has evaluate_users = {p.evaluate_users}."


def _subgroup(row: Row, size: int) -> Iterator[str]:
    """The items and users of a subgroup, of which the protocol has ``size`` items, and what is measured by them."""
    items, users = row["subgroup_items"] or (), row["subgroup_users"] or ()
    if len(set(items)) != size or bool(users) != bool(items) or not all(0 <= u < row["num_users"] for u in users):
        yield f"subgroup_items = {brief(items)}, of {len(users)} users, but the protocol has subgroup = {size}."
    found = by_subgroup(row["target_places"] if users else None, users, (5, 10, 20, 30))
    for name, value in found.items():
        if row.get(name) != value:
            yield f"{name} = {row.get(name)}, but target_places and subgroup_users give {value}."


def _targets(row: Row, scenario: Scenario) -> Iterator[str]:
    targets = row["target_items"]
    if scenario.target == "none":
        expected = 0
    elif scenario.target.startswith("fixed:"):
        expected = scenario.target.count(",") + 1
    else:
        expected = scenario.num_targets
    inside = all(0 <= item < row["num_items"] for item in targets)
    if len(targets) != expected or len(set(targets)) != len(targets) or not inside:
        told = f"{expected} of {row['num_items']} items"
        yield f"target_items = {brief(targets)}, but target = {scenario.target!r} gives {told}."


def _curve(row: Row, curve: list[Mapping[str, Any]], every: int, validated: bool) -> Iterator[str]:
    """The epochs, the metrics of every point, and the columns that are made of them."""
    planned, done = row["epochs_planned"], row["epochs_done"]
    epochs = [*range(every, done + 1, every)] if done < 1 << 20 else []
    epochs += [planned] if done == planned and planned % every else []
    found = [point["epoch"] for point in curve]
    if found != epochs and not (row["status"] == "diverged" and found == epochs[: len(found)]):
        yield f"the curve has the epochs {brief(found)}, but its protocol evaluates at {brief(epochs)}."
        return
    points = [{name: value for name, value in point.items() if value is not None} for point in curve]
    for point in points:
        for name, value in point.items():
            if name != "epoch" and not 0 <= value <= 1:  # NaN is not, either
                yield f"{name} = {value} at epoch {point['epoch']} is not in [0, 1]."
                return
        if set(point) != set(points[0]):
            yield f"the points of the curve have different metrics (epoch {point['epoch']})."
            return
        for prefix in ("er", "hr", "hr_full", "recall", "val_hr_full"):
            values = [point[f"{prefix}_{k}"] for k in (5, 10, 20, 30) if f"{prefix}_{k}" in point]
            if values != sorted(values):
                yield f"{prefix}@K falls with K at epoch {point['epoch']}."
                return
    if points:
        have = set(points[0])
        need = set(EXPOSURE) if row["target_items"] else set()
        need |= {f"hr_{k}" for k in (5, 10, 20)} if row["ranking"] == "sampled" else set(SELECTED)
        need |= set(VALIDATION) if validated else set()
        barred = (set() if row["target_items"] else set(EXPOSURE)) | (set() if validated else set(VALIDATION))
        if need - have:
            yield f"the curve lacks {some(sorted(need - have))}."
            return
        if have & barred:
            yield f"the curve has {some(sorted(have & barred))}, which its scenario does not measure."
            return
    for name, value in summarize_curve(points, planned)["metrics"].items():
        if row[name] != value:
            yield f"{name} = {row[name]}, but its curve gives {value}."


def _places(row: Row, everybody: bool) -> Iterator[str]:
    """Whom the targets are shown to is of the right size, and makes the exposure at the end of the curve.

    ``everybody``: exposure is a share of all users, and so smaller: some have the target.
    """
    places, targets, curve = row["target_places"], row["target_items"], row["curve"]
    measured = bool(targets and curve) and row["num_users"] * len(targets) <= MOST_PLACES
    if places is None or not measured:
        if (places is not None) != measured:
            yield f"target_places = {brief(places)}, of {len(targets)} targets and {row['num_users']:,} users."
        return
    if [len(each) for each in places] != [row["num_users"]] * len(targets) or not set("".join(places)) <= SYMBOLS:
        yield f"target_places = {brief(places)} are not places of {len(targets)} targets in {row['num_users']:,} lists."
        return
    for k in (5, 10, 20, 30):
        shown = [shown_to(each, k).sum() for each in places]
        users = [counted(each).sum() for each in places]
        found = sum(a / max(b, 1) for a, b in zip(shown, users, strict=True)) / len(targets)
        stated = curve[-1][f"er_{k}"]
        if stated is not None and abs(stated - found) > 1e-9 and not (everybody and stated < found):
            yield f"er_{k} = {stated}, but target_places give {found}."


def _check_between(rows: Sequence[Row], check: Check) -> None:
    """Runs on the same data have the same data, and the same targets."""
    data: dict[tuple[Any, ...], Row] = {}
    targets: dict[tuple[Any, ...], Row] = {}
    for row in rows:
        scenario = json.loads(row["scenario_json"])
        protocol = json.loads(row["protocol_params"])
        place = (row["dataset"], row["split"], protocol["duplicates"], row["seed"])
        for column in _OF_DATA:
            if row[column] is None and column in _OF_IMAGES:
                continue
            first = data.setdefault((column, *place), row)
            if row[column] != first[column]:
                check.refuse(f"{column} of {row['run_id']} is not that of {first['run_id']}, on the same data.")
        place = (row["dataset"], row["split"], scenario["target"], scenario["num_targets"])
        first = targets.setdefault(place, row)
        if row["target_items"] != first["target_items"]:
            check.refuse(f"target_items of {row['run_id']} are not those of {first['run_id']}, with the same target.")
