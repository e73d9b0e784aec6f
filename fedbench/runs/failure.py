"""The record of a run that nothing came of, by whoever knows why."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

from fedbench.runs.diagnostics import discard
from fedbench.runs.environment import environment
from fedbench.runs.identity import identity
from fedbench.runs.record import RunRecord, summarize_curve
from fedbench.runs.results import write_record
from fedbench.runs.uploaded import keep_uploaded
from fedbench.scenarios.scenario import Scenario


def write_failure(
    key: str, seed: int, suite: str | None, device: str, results: Path, error: str, seconds: float
) -> None:
    """Write a record with status ``failed``. What only a dead process knew of the data is 0 or empty.

    Args:
        key: of the scenario. seed, suite, device: of the run. results: the folder of the records. error: what went wrong.
        seconds: until then.

    Raises:
        ResultsError: it cannot be written.
    """
    scenario = Scenario(**json.loads(key))
    protocol = scenario.resolved.protocol
    record = RunRecord(
        **identity(scenario, seed, suite),
        dataset=scenario.dataset,
        split=protocol.split,
        dataset_fingerprint="",
        num_users=0,
        num_items=0,
        num_interactions=0,
        duplicates_removed=0,
        leaked_removed=0,
        num_malicious=0,
        target_items=[],
        status="failed",
        error=error,
        epochs_planned=protocol.epochs,
        epochs_done=0,
        rounds=0,
        ranking=protocol.ranking,
        **summarize_curve([], protocol.epochs),
        seconds_total=seconds,
        seconds_setup=0.0,
        seconds_train=0.0,
        seconds_attack=0.0,
        seconds_evaluate=0.0,
        peak_gpu_bytes=None,
        started_at=datetime.now(UTC),
        **environment(device),
    )
    discard(results, record.run_id)
    keep_uploaded(None, results, record.run_id)
    write_record(record, results)
