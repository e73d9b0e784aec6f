"""Make a bundle out of an entry and the records of its runs."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from fedbench import __version__
from fedbench.errors import ResultsError, UserError
from fedbench.plugins import is_file, load_file, registry_of
from fedbench.plugins.card_data import card_data
from fedbench.runs.identity import source_hash
from fedbench.runs.results import scan
from fedbench.submission.claim import Claim, claim, missing_runs
from fedbench.submission.container import CARD, ENVIRONMENT, MANIFEST, RECORDS, SOURCE, packed
from fedbench.submission.manifest import FORMAT, Kind, canonical, digests
from fedbench.submission.records import Row, written
from fedbench.submission.report import Check, some
from fedbench.submission.verify import environment_of, verify
from fedbench.texts import count, visible


@dataclass(frozen=True)
class Entry:
    """What is submitted: its kind, its name in scenarios, its class, and the file that this is written in."""

    kind: Kind
    name: str
    cls: type[Any]
    source: bytes


def entry(kind: Kind, text: str) -> Entry:
    """The entry that an option's value stands for: a file, or the name of one that is registered.

    Raises:
        UserError: no such file or name, or it cannot be loaded.
    """
    if is_file(text):
        loaded = load_file(text, kind)
        return Entry(kind, loaded.name, loaded.cls, loaded.source)
    if "+" in text:
        raise UserError(f"--{kind} {text!r} is a chain; submit its parts one by one.")
    cls = registry_of(kind).get(text)
    if text == "none":
        raise UserError(f"--{kind} none: there is nothing to submit.")
    file = inspect.getsourcefile(cls)
    if file is None:
        raise UserError(f"{kind} {text!r} has no source file; give its file instead of its name.")
    return Entry(kind, text, cls, Path(file).read_bytes())


@dataclass(frozen=True)
class Made:
    """What came of it: the bundle's bytes, None when it was refused; what was claimed; the checks with their reasons."""

    data: bytes | None
    claimed: Claim
    checks: Sequence[Check]


def make_bundle(
    of: Entry, suite: str, only: Sequence[str], seeds: int | None, results: Sequence[Path], twins: Sequence[Path] = ()
) -> Made:
    """The bundle of an entry, verified as anyone will verify it but for the re-run.

    Args:
        of: the entry. suite, only, seeds: the slice of a suite that it ran. results: folders or packed files of its runs.
        twins: where to look for runs without it that ``results`` do not have.

    Raises:
        UserError: no such suite, nothing of it fits, or no results are there.
    """
    claimed = claim(of.kind, of.name, suite, only, seeds)
    check = Check("runs")
    rows = _collect(claimed, results, twins, check)
    ours = [row for row in rows if _takes_part(row, of)]
    missing_runs(claimed, rows, check)
    _check_failed(rows, check)
    _check_source(of, ours, check)
    if check.reasons:
        return Made(None, claimed, [check])
    members = {
        SOURCE: of.source,
        CARD: canonical(card_data(of.cls)),
        RECORDS: written(rows),
        ENVIRONMENT: canonical(environment_of(rows)),
    }
    manifest = {
        "format": FORMAT,
        "kind": of.kind,
        "name": of.name,
        "suite": suite,
        "suite_version": claimed.version,
        "only": list(only),
        "seeds": seeds,
        "module": of.cls.__module__,
        "modules": sorted({base.__module__ for base in of.cls.__mro__ if base is not object}),
        "fedbench_version": __version__,
        "files": digests(members),
    }
    data = packed({MANIFEST: canonical(manifest), **members})
    found = verify(data)
    return Made(data if found.ok else None, claimed, [check, *found.checks])


def _takes_part(row: Row, of: Entry) -> bool:
    return of.name in str(row[of.kind]).split("+")


def _collect(claimed: Claim, results: Sequence[Path], twins: Sequence[Path], check: Check) -> list[Row]:
    """The record of each claimed run, the best there is: not failed, of the first folder that has it, the newest.

    The check notes files that are damaged.
    """
    best: dict[str, tuple[tuple[bool, int, float], Row]] = {}
    for rank, folder in enumerate([*results, *twins]):
        if not folder.exists():
            raise ResultsError(f"no results in {str(folder)!r}: there is no such folder.")
        wanted = sorted(claimed.runs if rank < len(results) else claimed.twins)
        found = scan([folder])
        for name, why in found.damaged.items():
            check.note(f"{visible(name)} is no whole record and does not count: {why}")
        for row in found.table.filter(pc.field("run_id").isin(wanted)).to_pylist():
            order = (row["status"] == "failed", rank, -row["started_at"].timestamp())
            if row["run_id"] not in best or order < best[row["run_id"]][0]:
                best[row["run_id"]] = (order, row)
    return [best[run][1] for run in sorted(best)]


def _check_failed(rows: Sequence[Row], check: Check) -> None:
    failed = [
        f"{row['run_id']} ({visible(str(row['error']).partition(chr(10))[0], 80)})"
        for row in rows
        if row["status"] == "failed"
    ]
    if failed:
        check.refuse(f"{count(len(failed), 'run')} failed; run {_them(failed)} again: {some(failed)}.")


def _check_source(of: Entry, ours: Sequence[Row], check: Check) -> None:
    """All runs of the entry must have been made with the file as it is."""
    column, now = f"{of.kind}_source_hash", source_hash(of.cls)
    other = [str(row["run_id"]) for row in ours if row[column] != now]
    if not other:
        return
    sources = len({row[column] for row in ours})
    mixed = f" (the runs are of {sources} different sources)" if sources > 1 else ""
    check.refuse(
        f"{len(other):,} of {count(len(ours), 'run')} {'was' if len(other) == 1 else 'were'} made with another source of"
        f" {of.name!r} than it has now{mixed}; run {_them(other)} again: {some(other)}."
    )


def _them(runs: Sequence[str]) -> str:
    return "it" if len(runs) == 1 else "them"
