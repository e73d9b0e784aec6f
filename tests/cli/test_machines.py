"""Suites on Ray, on Slurm, and by several coordinators, on this machine, while nodes and processes are killed."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from machine_trials import (
    KINDS,
    Coordinator,
    Trial,
    alone,
    children,
    kill_trial,
    ray_nodes,
    ray_trial,
    slurm_trial,
    until,
    words,
)
from slurm_here import lacking
from tiny_suite import of_seeds

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

SEEDS = 30


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("alone")
    (folder / "tiny.toml").write_text(of_seeds(SEEDS))
    return alone(folder / "tiny.toml", folder)


def sound(trial: Trial) -> None:
    """Nothing lost, nothing doubled, the same numbers, and `status` was right all the time."""
    assert (trial.records, trial.twice, trial.wrong) == (trial.runs, [], [])
    assert trial.records > 0
    assert trial.same
    assert trial.looks > 3


def test_a_node_of_ray_is_lost(tmp_path: Path, expected: list[dict[str, Any]]) -> None:
    pytest.importorskip("ray")
    trial = ray_trial(tmp_path, SEEDS, expected)
    sound(trial)
    assert trial.verdict.startswith(f"done: {2 * SEEDS} runs: {2 * SEEDS} ok, 0 diverged, 0 failed. Records in ")
    (lost,) = (tmp_path / "ray" / ".fedbench-ray" / "lost.log").read_text().splitlines()
    assert ", try 1: " in lost
    assert f"warning: lost: {lost.partition(' ')[2]}" in (tmp_path / "ray.log").read_text()


@pytest.mark.skipif(bool(lacking()), reason=f"no {', '.join(lacking())} here")
def test_tasks_of_slurm_are_killed(tmp_path: Path, expected: list[dict[str, Any]]) -> None:
    sound(slurm_trial(tmp_path, SEEDS, expected))


def test_all_kinds_of_processes_are_killed(tmp_path: Path, expected: list[dict[str, Any]]) -> None:
    trial = kill_trial(tmp_path, SEEDS, expected, times=3)
    sound(trial)
    assert trial.killed == {"coordinator": 3, "run process": 3, "resource tracker": 3}


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_a_suite_on_ray_is_interrupted(tmp_path: Path, kind: signal.Signals) -> None:
    pytest.importorskip("ray")
    suite, results = tmp_path / "tiny.toml", tmp_path / "results"
    suite.write_text(of_seeds(SEEDS))
    arguments = [str(suite), "--results", str(results), "--executor", "ray", "--tasks", "2", "--ray", "memory=1000000"]
    with ray_nodes(2) as (cluster, _):
        running = Coordinator(arguments, tmp_path / "said", {"RAY_ADDRESS": cluster.address})
        until(lambda: len(list(results.glob("*.parquet"))) >= 2)
        running.process.send_signal(kind)
        verdict = running.end(60)
        until(lambda: not [pid for pid in children(os.getpid()) if KINDS["fedbench run of a task"](words(pid))], 60)
    assert running.process.returncode == 128 + kind
    assert verdict.startswith("interrupted: ")
    assert f" left. Records in {results}." in verdict
    resume = f"fedbench run {suite} --jobs 1 --results {results} --executor ray --tasks 2 --ray memory=1000000\n"
    assert resume in (tmp_path / "said").read_text()
