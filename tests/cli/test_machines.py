"""Suites on Ray, on Slurm, and by several coordinators, on this machine, while nodes and processes are killed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from machine_trials import Trial, alone, kill_trial, ray_trial, slurm_trial
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
