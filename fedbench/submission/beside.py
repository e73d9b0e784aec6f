"""A bundle among what is there already: its name, and the records that go onto the leaderboard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from fedbench.errors import UserError
from fedbench.runs.record import METRICS, schema
from fedbench.runs.results import parquet_files, scan, write_whole
from fedbench.submission.claim import Claim
from fedbench.submission.compare import Compared
from fedbench.submission.container import members_of, read_bundle
from fedbench.submission.manifest import Manifest, read_manifest
from fedbench.submission.records import Row
from fedbench.submission.report import Check, some
from fedbench.submission.verify import Verified
from fedbench.texts import count


def check_name(manifest: Manifest, bundle: Path, folder: Path, check: Check) -> None:
    """Refuse the name of another bundle in ``folder``: of two entries with one name, runs could not be told apart.

    Args:
        manifest: of the bundle. bundle: its file, which may lie in the folder. folder: looked through with all below it; what
            has the place of the bundle in another copy of it is the version that the bundle replaces.
        check: takes the reasons.
    """
    own = (bundle.parent.resolve() / bundle.name).parts  # a link to it is another bundle
    for path in sorted(folder.rglob("*.zip")):
        place = path.relative_to(folder).parts
        if own[-len(place) :] == place:
            continue
        try:
            members = members_of(read_bundle(path), unread := Check("other"))
        except UserError:
            continue
        other = read_manifest(members, unread) if not unread.reasons else None
        if other is not None and (other.kind, other.name) == (manifest.kind, manifest.name):
            check.refuse(
                f"{path} has {manifest.kind} {manifest.name!r}, too; of two entries with one name, one must change."
            )


def published(rows: Sequence[Row], folder: Path, but: Path | None = None) -> dict[str, Row]:
    """Those of the runs of ``rows`` that have a record in ``folder`` or below it: run id -> the record.

    Args:
        but: a file that does not count.
    """
    files = [each for each in parquet_files([folder], {}) if but is None or each.resolve() != but.resolve()]
    wanted = [str(row["run_id"]) for row in rows]
    there = scan(files).table.filter(pc.field("run_id").isin(wanted)).to_pylist()
    return {str(row["run_id"]): row for row in there}


def other_twins(found: Verified, claimed: Claim, folder: Path, check: Check) -> set[str]:
    """Twins whose numbers are not those that are published in ``folder``: a worse twin lets the entry shine.

    Other processors round differently, which some runs magnify, so it is their repetition here that decides.
    """
    there, differ = published(found.rows, folder), set()
    for row in found.rows:
        if row["run_id"] in claimed.twins and (known := there.get(row["run_id"])) is not None:
            numbers = [Compared(row["run_id"], name, row[name], [known[name]]) for name in METRICS]
            if row["status"] != known["status"] or not all(each.ok for each in numbers if each.found != [None]):
                differ.add(str(row["run_id"]))
    if differ:
        names = some(sorted(differ))
        check.note(f"{count(len(differ), 'twin')} not as published: repeated in any case: {names}.")
    return differ


def write_records(
    claimed: Claim, again: Mapping[str, Sequence[Row]], file: Path, folder: Path | None
) -> tuple[int, int]:
    """Write the records of the repetitions as one packed file, whole or not at all, which readers take like a folder.

    What the bundle claims goes nowhere: time, place and every number are those of the repetition.

    Args:
        claimed: what was verified. again: the repetitions of every run. file: which parquet file. folder: with records that
            are published already; twins among them are left out.

    Returns:
        How many records were written, and how many left out.

    Raises:
        ResultsError: when the file cannot be written.
    """
    rows = [again[run][0] for run in sorted(again)]
    known = set() if folder is None else set(published(rows, folder, but=file)) & claimed.twins
    kept = [row for row in rows if row["run_id"] not in known]
    write_whole(pa.Table.from_pylist(kept, schema=schema()), file)
    return len(kept), len(rows) - len(kept)
