"""A bundle among what is there already: its name, and the records that go onto the leaderboard."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from fedbench.errors import UserError
from fedbench.runs.record import schema
from fedbench.runs.results import scan, write_whole
from fedbench.submission.claim import Claim
from fedbench.submission.container import members_of, read_bundle
from fedbench.submission.manifest import Manifest, read_manifest
from fedbench.submission.report import Check
from fedbench.submission.verify import Verified


def check_name(manifest: Manifest, bundle: Path, folder: Path, check: Check) -> None:
    """Refuse the name of another bundle in ``folder``: of two entries with one name, runs could not be told apart.

    Args:
        manifest: of the bundle. bundle: its file, which may lie in the folder. folder: looked through with all below it.
        check: takes the reasons.
    """
    own = bundle.parent.resolve() / bundle.name  # a link to it is another bundle
    for path in sorted(folder.rglob("*.zip")):
        if path.parent.resolve() / path.name == own:
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


def write_records(found: Verified, claimed: Claim, file: Path, folder: Path | None) -> tuple[int, int]:
    """Write the records of a bundle as one packed file, whole or not at all, which readers take like a folder.

    Args:
        found, claimed: what was verified. file: which parquet file. folder: with records that are published already; twins
            among them are left out, since of a run that several files hold the newest would count.

    Returns:
        How many records were written, and how many left out.

    Raises:
        ResultsError: when the file cannot be written.
    """
    others = [] if folder is None else [each for each in folder.rglob("*.parquet") if each.resolve() != file.resolve()]
    known = {f"{scenario}-s{seed}" for scenario, seed in scan(others).status} & claimed.twins
    rows = sorted((row for row in found.rows if row["run_id"] not in known), key=lambda row: str(row["run_id"]))
    write_whole(pa.Table.from_pylist(rows, schema=schema()), file)
    return len(rows), len(found.rows) - len(rows)
