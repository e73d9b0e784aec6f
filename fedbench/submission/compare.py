"""What a bundle states of a run, against what the run gives when it is repeated."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fedbench.evaluation.displacement import counted, shown_to
from fedbench.runs.record import schema
from fedbench.submission.records import Row
from fedbench.submission.report import Check, brief
from fedbench.texts import visible

TOLERANCE = 0.01
"""By how much a number may differ without a question."""

EQUAL = (
    "schema_version", "run_id", "scenario_id", "clean_id", "undefended_id", "baseline_id", "scenario_json", "dataset",
    "split", "dataset_fingerprint", "num_users", "num_items", "num_interactions", "duplicates_removed", "leaked_removed",
    "model", "model_version", "model_params", "attack", "attack_version", "attack_goal", "attack_channel", "attack_knowledge",
    "attack_params", "defense", "defense_version", "defense_family", "defense_knowledge", "defense_params",
    "malicious_ratio", "num_malicious", "protocol", "protocol_params", "target", "target_items", "seed", "epochs_planned",
    "ranking", "extractor", "images_fingerprint", "subgroup_items", "subgroup_users", "sampled_users",
)  # fmt: skip
"""Columns that no rounding changes: they must be equal."""
COUNTS = ("epochs_done", "rounds", "refused_uploads")
WORDS = ("error", "warnings")
"""Columns that must say the same, but for numbers."""
CLAIMED = (
    "suite", "seconds_total", "seconds_setup", "seconds_train", "seconds_attack", "seconds_evaluate", "device",
    "device_name", "peak_gpu_bytes", "threads", "fedbench_version", "torch_version", "numpy_version", "python_version",
    "platform", "git_commit", "git_dirty", "started_at", "isolation", "checksum", "model_source_hash",
    "attack_source_hash", "defense_source_hash", "defense_assumes",
)  # fmt: skip
"""Columns of when, where and with which wording it ran: a repetition has its own, and only those reach a leaderboard."""
MEASURED = tuple(
    each.name for each in schema() if str(each.type) == "double" and each.name not in (*EQUAL, *CLAIMED)
)  # fmt: skip
SHOWN = ("er_10", "hr_10", "ndcg_10", "hr_full_10", "ndcg_full_10")
"""The metrics that a table of the comparison has in any case."""


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


def agrees(row: Row, again: Sequence[Row]) -> bool:
    """Whether the repetitions of a run do not speak against what is stated."""
    return not any(True for _ in reasons(row, again))


def judge(row: Row, again: Sequence[Row], check: Check) -> None:
    """Refuse a run that its repetitions, at least one, speak against."""
    for reason in reasons(row, again):
        check.refuse(f"run {row['run_id']}: {reason}")
    if len(again) > 1:
        check.note(
            f"run {row['run_id']} was repeated with {len(again)} roundings, since the first repetition differed."
        )


def reasons(row: Row, again: Sequence[Row]) -> Iterator[str]:
    """What speaks against a run: what must be equal and is not, and numbers outside what the repetitions allow."""
    for column in EQUAL:
        if row[column] != again[0][column]:
            yield f"{column} = {brief(row[column])}, but running it again gives {brief(again[0][column])}."
    same = [each for each in again if each["status"] == row["status"]]
    if not same:
        why = f" ({visible(str(again[0]['error']).partition(chr(10))[0], 120)})" if again[0]["error"] else ""
        yield f"status = {row['status']}, but running it again gives {brief(again[0]['status'])}{why}."
        return
    for column in WORDS:
        if _words(row[column]) not in [_words(each[column]) for each in same]:
            yield f"{column} = {brief(row[column])}, but running it again gives {brief(same[0][column])}."
    # A point that is wrong is told by what is summed up of it, if that is wrong, too.
    wrong = [each for each in compared(row, same) if not each.ok]
    for each in [each for each in wrong if "@" not in each.metric] or wrong:
        told = ", ".join(map(number, each.found))
        yield (
            f"{each.metric} = {number(each.stated)}, but running it again gives {told} (tolerance {each.tolerance:.4f})."
        )


def compared(row: Row, again: Sequence[Row]) -> list[Compared]:
    """All numbers of a run beside those of its repetitions of the same status.

    Of a run that diverged: counts, and the points that all of them have, since what is past these is no number.
    """
    run = str(row["run_id"])
    same = [each for each in again if each["status"] == row["status"]]
    if not same:
        return []
    ended = row["status"] == "ok"
    stated, found = _numbers(row, ended), [_numbers(each, ended) for each in same]
    names = dict.fromkeys(name for each in (stated, *found) for name in each)
    if not ended:
        names = {name: None for name in names if all(name in each for each in (stated, *found))}
    numbers = [Compared(run, name, stated.get(name), [each.get(name) for each in found]) for name in names]
    return [*numbers, *_shown_otherwise(run, row, same)]


def _shown_otherwise(run: str, row: Row, same: Sequence[Row]) -> Iterator[Compared]:
    """As ``er_10, shown otherwise, item 7`` the share of the users who are shown a target in one of both, or count in one.

    Both: what is stated, or a repetition, and the first repetition. Of whom a target is shown to DR@K is made: as many others
    would make another one.
    """
    lists = [each["target_places"] or () for each in (row, *same)]
    for item, *places in zip(row["target_items"], *lists, strict=False):
        for k in (5, 10, 20, 30):
            stated, *found = (_apart(each, places[1], k) for each in places)
            yield Compared(run, f"er_{k}, shown otherwise, item {item}", stated, found)


def _apart(one: str, other: str, k: int) -> float:
    if len(one) != len(other):
        return 1.0
    first, second = (np.where(counted(each), shown_to(each, k), 2) for each in (one, other))
    return float((first != second).mean()) if len(one) else 0.0


def _numbers(row: Row, ended: bool) -> dict[str, float]:
    """Name -> number: columns, the points of the curve as ``er_10@20``, of the uploads as ``psnr@20, item 7``."""
    names = (*COUNTS, *MEASURED) if ended else COUNTS
    out = {name: row[name] for name in names}
    for point in row["curve"]:
        out |= {f"{name}@{point['epoch']}": value for name, value in point.items() if name != "epoch"}
    for upload in row["uploads"] or ():
        place = f"@{upload['epoch']}, item {upload['item']}"
        out |= {f"{name}{place}": value for name, value in upload.items() if name not in ("epoch", "item")}
        out[f"upload{place}"] = 1
    return {name: float(value) for name, value in out.items() if value is not None}


def _words(value: object) -> str:
    return re.sub(r"\d+(\.\d+)?(e[-+]?\d+)?", "#", str(value))


def number(value: float | None) -> str:
    """A number as reasons and tables have it."""
    return "null" if value is None else f"{value:.4f}"


def table_rows(found: Sequence[Compared]) -> list[tuple[Any, ...]]:
    """The lines of the table: of each run the metrics with K = 10, and the first that do not agree."""
    lines: list[tuple[Any, ...]] = []
    wrong: Mapping[str, list[Compared]] = {each.run: [] for each in found}
    for each in found:
        if not each.ok:
            wrong[each.run].append(each)
        if each.metric in SHOWN or (not each.ok and len(wrong[each.run]) <= 20):
            told = ", ".join(map(number, each.found))
            lines.append(
                (
                    each.run,
                    each.metric,
                    number(each.stated),
                    told,
                    f"{each.apart:.4f}",
                    f"{each.tolerance:.4f}",
                    "" if each.ok else "DIFFERS",
                )
            )
    return lines
