"""The record of a run whose process died before it could write one itself."""

from __future__ import annotations

from fedbench.errors import ResultsError
from fedbench.runs.claims import claim
from fedbench.runs.failure import write_failure
from fedbench.runs.worker import Order, ended_since, gone, moved

_PATIENCE = 0.5
"""Seconds to wait for somebody who has the lock of a run whose process has died: if he only looks, it is free at once."""


def record_crash(order: Order, error: str, seconds: float) -> bool:
    """Write a record with status ``failed``; False: somebody else has the run by now, or has ended it, and none is written.

    Raises:
        ResultsError: it cannot be written.
    """
    if moved(order):
        raise ResultsError(gone(order))
    with claim(order.results, order.run_id, _PATIENCE, begin=False) as mine:
        if mine is None or ended_since(order, mine):
            return False
        write_failure(order.scenario, order.seed, order.suite, order.device, order.results, error, seconds)
        mine.end()
    return True
