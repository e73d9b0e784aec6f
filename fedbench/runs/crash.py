"""The record of a run whose process died before it could write one itself."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from fedbench.errors import ResultsError
from fedbench.runs.claims import claim
from fedbench.runs.diagnostics import discard
from fedbench.runs.environment import environment
from fedbench.runs.identity import identity
from fedbench.runs.record import RunRecord, summarize_curve
from fedbench.runs.results import write_record
from fedbench.runs.uploaded import keep_uploaded
from fedbench.runs.worker import Order, gone, moved
from fedbench.scenarios.scenario import Scenario


def record_crash(order: Order, error: str, seconds: float) -> None:
    """Write a record with status ``failed``. What only the dead process knew of the data is 0 or empty.

    Raises:
        ResultsError: it cannot be written.
    """
    if moved(order):
        raise ResultsError(gone(order))
    scenario = Scenario(**json.loads(order.scenario))
    protocol = scenario.resolved.protocol
    record = RunRecord(
        **identity(scenario, order.seed, order.suite),
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
        **environment(order.device),
    )
    discard(order.results, record.run_id)
    keep_uploaded(None, order.results, record.run_id)
    write_record(record, order.results)
    with claim(order.results, order.run_id) as mine:
        if mine is not None:
            mine.end()
