"""Check a bundle without trusting anything in it, and without running anything of it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fedbench import __version__
from fedbench.errors import UserError
from fedbench.plugins import registry_of
from fedbench.plugins.card_data import CardData, card_data
from fedbench.submission.claim import Claim, claim, extra_runs, missing_runs
from fedbench.submission.container import CARD, ENVIRONMENT, RECORDS, SOURCE, members_of
from fedbench.submission.manifest import Manifest, canonical, read_card, read_manifest
from fedbench.submission.records import Row, read_records
from fedbench.submission.report import Check, some
from fedbench.submission.rows import check_rows
from fedbench.submission.source import check_source, recomputed_hash
from fedbench.submission.standin import stand_in, standing_in
from fedbench.texts import count

ENVIRONMENT_COLUMNS = (
    "device", "device_name", "fedbench_version", "git_commit", "git_dirty", "numpy_version", "platform",
    "python_version", "threads", "torch_version",
)  # fmt: skip


@dataclass
class Verified:
    """What is known of a bundle.

    Attributes:
        checks: every step that was taken. manifest, card, members, rows, claimed: as far as they could be read.
    """

    checks: list[Check] = field(default_factory=list)
    manifest: Manifest | None = None
    card: CardData | None = None
    cls: type[Any] | None = None
    members: Mapping[str, bytes] = field(default_factory=dict)
    rows: Sequence[Row] = ()
    claimed: Claim | None = None

    @property
    def ok(self) -> bool:
        """Whether nothing speaks against it."""
        return not any(check.reasons for check in self.checks)

    def step(self, name: str) -> Check:
        """A new step."""
        self.checks.append(Check(name))
        return self.checks[-1]


def verify(data: bytes) -> Verified:
    """Check the bytes of a bundle, in order: container, manifest, card, source, records, completeness.

    What is read by a later step is trusted to have passed the earlier ones, so the first three end the verification.
    """
    found = Verified()
    found.members = members_of(data, found.step("container"))
    if not found.ok:
        return found
    found.manifest = read_manifest(found.members, found.step("manifest"))
    if not found.ok or found.manifest is None:
        return found
    manifest = found.manifest
    check = found.step("card")
    found.card = read_card(found.members[CARD], manifest, CARD, check)
    if found.card is not None:
        found.cls = _class(manifest, found.card, check)
    if not found.ok or found.card is None:
        return found
    check_source(found.members[SOURCE], manifest, found.card, found.step("source"))
    source_hash = recomputed_hash(found.members[SOURCE], manifest, found.checks[-1]) if found.ok else None
    check = found.step("records")
    found.rows = read_records(found.members[RECORDS], check)
    if check.reasons:
        return found
    with standing_in(manifest.kind, manifest.name, found.cls):
        check_rows(found.rows, manifest.kind, manifest.name, source_hash, check)
        _check_environment(found, check)
        found.claimed = _check_claim(manifest, found.rows, found.step("completeness"))
    return found


def _class(manifest: Manifest, card: CardData, check: Check) -> type[Any] | None:
    """What stands for the entry while nothing of it is run; None for one that comes with fedbench, which is at hand."""
    registry = registry_of(manifest.kind)
    if not registry.builtin(manifest.name):
        return stand_in(card, check)
    if card.model_dump(mode="json") != card_data(registry.get(manifest.name)):
        check.refuse(
            f"the name {manifest.name!r} is taken by the {manifest.kind} that comes with fedbench"
            f" ({registry.origin(manifest.name)}), whose card is not the same."
        )
    return None


def _check_environment(found: Verified, check: Check) -> None:
    """The environment must be what the records say, and what is unusual in it is pointed out."""
    if canonical(environment_of(found.rows)) != found.members[ENVIRONMENT]:
        check.refuse("environment.json: not what the records say.")
    note_environment(found.rows, check)


def environment_of(rows: Sequence[Row]) -> dict[str, Any]:
    """Where the runs ran: every combination of versions, platform and device, with its number of runs."""
    counts = Counter(json.dumps({name: row[name] for name in ENVIRONMENT_COLUMNS}, sort_keys=True) for row in rows)
    return {"environments": [{"runs": n, **json.loads(each)} for each, n in sorted(counts.items())]}


def note_environment(rows: Sequence[Row], check: Check) -> None:
    """Point out diverged runs, changed checkouts, and versions that differ."""
    diverged = sum(row["status"] == "diverged" for row in rows)
    if diverged:
        check.note(
            f"{diverged:,} of {count(len(rows), 'run')} diverged, and {'counts' if diverged == 1 else 'count'} as such."
        )
    dirty = [str(row["run_id"]) for row in rows if row["git_dirty"]]
    if dirty:
        check.note(f"{count(len(dirty), 'run')} by a fedbench with uncommitted changes: {some(dirty)}.")
    for column, word in (("fedbench_version", "fedbench"), ("torch_version", "torch"), ("git_commit", "commits")):
        versions = sorted({str(row[column]) for row in rows})
        if len(versions) > 1:
            check.note(f"the runs were made by {len(versions)} versions of {word}: {some(versions)}.")
        elif column == "fedbench_version" and versions and versions != [__version__]:
            check.note(f"the runs were made by fedbench {versions[0]}; this is {__version__}.")


def _check_claim(manifest: Manifest, rows: Sequence[Row], check: Check) -> Claim | None:
    """Every run of the claimed slice is there, and no other."""
    try:
        claimed = claim(manifest.kind, manifest.name, manifest.suite, manifest.only, manifest.seeds)
    except UserError as error:
        check.refuse(f"manifest.json: {error}")
        return None
    if claimed.version != manifest.suite_version:
        check.refuse(
            f"made for version {manifest.suite_version} of suite {manifest.suite}; here it is {claimed.version}."
        )
        return claimed
    missing_runs(claimed, rows, check)
    extra_runs(claimed, rows, check)
    return claimed
