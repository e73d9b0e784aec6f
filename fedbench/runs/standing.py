"""How far a suite is, while any number of processes on any number of machines are at it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from fedbench.runs.claims import Running, running
from fedbench.runs.plan import Plan, Run, make_plan
from fedbench.scenarios.suite import Planned


@dataclass(frozen=True)
class Standing:
    """Every run of a suite is one of these.

    Attributes:
        plan: the runs, and what is expected of those to run. ended: those with a record that stays, by its status, ``ok`` or
            ``diverged``. failed: with what went wrong. at_work: those that somebody is running now. missing: the rest.
    """

    plan: Plan
    ended: Mapping[str, Sequence[Run]]
    failed: Mapping[Run, str]
    at_work: Mapping[Run, Running]
    missing: Sequence[Run]


def standing(planned: Iterable[Planned], results: Path) -> Standing:
    """How far the scenarios in ``planned`` are.

    Who runs what is read before the records: what ends in between has a record, and is no longer missing or failed.

    Raises:
        UserError: the folder is none.
    """
    busy = {each.run_id: each for each in running(results)}
    plan = make_plan(planned, results)
    assert plan.records is not None
    records = {row["run_id"]: row for row in plan.records.to_pylist()}
    kept = set(plan.kept)
    ended: dict[str, list[Run]] = {"ok": [], "diverged": []}
    failed: dict[Run, str] = {}
    at_work: dict[Run, Running] = {}
    missing: list[Run] = []
    for run in (*plan.kept, *plan.todo):
        record, now = records.get(run.id), busy.get(run.id)
        if now is not None and (record is None or record["started_at"] < _begin(now)):
            at_work[run] = now
        elif run in kept and record is not None:
            ended[record["status"]].append(run)
        elif record is not None and record["status"] == "failed":
            failed[run] = record["error"] or ""
        else:
            missing.append(run)
    return Standing(plan, ended, failed, at_work, missing)


def _begin(now: Running) -> datetime:
    """When a run began that is under way; one that cannot be told has just begun."""
    try:
        begin = datetime.fromisoformat(now.began)
    except ValueError:
        return datetime.max.replace(tzinfo=UTC)
    return begin if begin.tzinfo else begin.replace(tzinfo=UTC)
