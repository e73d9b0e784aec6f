"""Runs with diagnostics: the file beside the record, what is run again for it, and stale files."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from fedbench.errors import UserError
from fedbench.runs.execution import make_plan, run_plan, run_suite
from fedbench.runs.results import path_of, scan
from fedbench.scenarios.scenario import Scenario
from fedbench.scenarios.suite import Planned

SCENARIO = Scenario(
    "longtail-small",
    "mf",
    "explicit-boost",
    "union",
    malicious_ratio=0.05,
    protocol_params={"epochs": 2, "evaluate_every": 1},
)
PLANNED = [Planned(SCENARIO, (0,))]


@pytest.mark.slow
def test_diagnostics_lie_beside_the_record(tmp_path: Path) -> None:
    record, rounds = path_of(tmp_path, SCENARIO.id, 0), tmp_path / f"{SCENARIO.id}-s0.rounds.parquet"
    assert run_suite(PLANNED, results=tmp_path, jobs=1).exit_code == 0
    assert not rounds.exists()
    before = pq.read_table(record).to_pylist()[0]

    # A run without diagnostics is run again for them, and then no more.
    assert run_suite(PLANNED, results=tmp_path, jobs=1, diagnose_every=1).kept == 0
    after = pq.read_table(record).to_pylist()[0]
    assert after["curve"] == before["curve"]
    assert len(set(pq.read_table(rounds)["round"].to_pylist())) == after["rounds"]
    assert run_suite(PLANNED, results=tmp_path, jobs=1, diagnose_every=1).kept == 1
    assert run_suite(PLANNED, results=tmp_path, jobs=1).kept == 1

    found = scan([tmp_path])
    assert (found.files, found.damaged) == ([record], {})

    # Executed again without, it must not keep the diagnostics of another execution.
    assert run_suite(PLANNED, results=tmp_path, jobs=1, fresh=True).kept == 0
    assert [path.name for path in tmp_path.iterdir()] == [record.name]


def test_a_dead_process_leaves_no_stale_diagnostics(tmp_path: Path) -> None:
    scenario = Scenario("longtail-small", "mf", "random", malicious_ratio=0.05, protocol_params={"epochs": 1})
    (tmp_path / f"{scenario.id}-s0.rounds.parquet").write_bytes(b"old")
    plan = make_plan([Planned(scenario, (0,))], tmp_path)
    summary = run_plan(plan, results=tmp_path, jobs=1, execute="fake_runs:by_attack", diagnose_every=1)
    assert summary.count("failed") == 1
    assert [path.name for path in tmp_path.iterdir()] == [path_of(tmp_path, scenario.id, 0).name]


def test_every_must_be_positive(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="diagnose_every = 0"):
        run_suite(PLANNED, results=tmp_path, diagnose_every=0)
