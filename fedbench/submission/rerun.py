"""Run runs of a bundle again and compare; :func:`elsewhere` and :func:`without_data` tell which of them cannot be."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from fedbench.errors import UserError
from fedbench.runs.plan import check_data
from fedbench.scenarios.scenario import Scenario
from fedbench.submission.compare import Compared, agrees, compared, judge
from fedbench.submission.records import Row
from fedbench.submission.report import Check, brief
from fedbench.submission.standin import standing_in
from fedbench.submission.verify import Verified
from fedbench.texts import count

ROUNDINGS = ("default", "avx2")
"""Instruction sets (``ATEN_CPU_CAPABILITY``) that a run which differs is repeated with: each rounds sums in its own way."""

Repeat = Callable[[Verified, Sequence[Row], str, Check], "Sequence[Row | None]"]
"""Repeats runs of a bundle with a rounding, ``""`` for that of this processor, and gives their records; reasons go into the
check."""


def elsewhere(found: Verified, devices: Sequence[str], check: Check) -> None:
    """Refuse runs of a device that is not here: a GPU's random numbers are not those of a CPU, so nothing could be told."""
    made: dict[str, int] = {}
    for row in found.rows:
        if row["device"] not in devices:
            made[row["device"]] = made.get(row["device"], 0) + 1
    for device, n in sorted(made.items()):
        check.refuse(
            f"{n:,} of {count(len(found.rows), 'run')} cannot be repeated here: made on {brief(device)}, whose random numbers"
            " no other device has; run them with --device cpu."
        )


def without_data(found: Verified, check: Check) -> None:
    """Refuse runs on data that are not here."""
    assert found.manifest is not None
    why: dict[str, int] = {}
    with standing_in(found.manifest.kind, found.manifest.name, found.cls):
        lacking: dict[tuple[str, str], str] = {}
        for row in found.rows:
            data = (row["dataset"], row["split"])
            if data not in lacking:
                lacking[data] = _lacking(row)
            if lacking[data]:
                why[lacking[data]] = why.get(lacking[data], 0) + 1
    for reason, n in why.items():
        check.refuse(f"{n:,} of {count(len(found.rows), 'run')} cannot be repeated here: {reason}")


def _lacking(row: Row) -> str:
    try:
        check_data([Scenario(**json.loads(row["scenario_json"]))])
    except UserError as error:
        return str(error)
    return ""


@dataclass
class Rerun:
    """The repetitions of a bundle's runs, with other roundings of those that differ, and what comes of the comparison.

    Attributes:
        found: the bundle. check: takes the reasons. repeat: how runs are repeated. compared: all numbers so far.
        again: run id -> its repetitions, the first with the rounding of this processor.
    """

    found: Verified
    check: Check
    repeat: Repeat
    again: dict[str, list[Row]] = field(default_factory=dict)
    compared: list[Compared] = field(default_factory=list)

    def __call__(self, rows: Sequence[Row]) -> bool:
        """Repeat these runs and judge them; whether nothing speaks against the bundle so far."""
        left = list(rows)
        for rounding in ("", *ROUNDINGS):
            for row, record in zip(left, self.repeat(self.found, left, rounding, self.check), strict=True):
                if record is not None:
                    self.again.setdefault(str(row["run_id"]), []).append(record)
            if self.check.reasons:
                break
            left = [row for row in left if not agrees(row, self.again[str(row["run_id"])])]
            if not left:
                break
        for row in rows:
            records = self.again.get(str(row["run_id"]))
            if records:
                judge(row, records, self.check)
                self.compared += compared(row, records)
        return not self.check.reasons
