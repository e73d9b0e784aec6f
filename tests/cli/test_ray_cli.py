"""``fedbench run --executor ray``: what is said in the end, without a cluster; ``test_machines.py`` has a real one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from tiny_suite import of_seeds
from typer.testing import CliRunner, Result

from fedbench.cli import app, machines
from fedbench.runs.ray_cluster import Ended


@pytest.fixture
def on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Runs a suite of two runs on a cluster that ends as given, after it has run so many seeds; three tasks are asked for."""
    suite = tmp_path / "tiny.toml"
    suite.write_text(of_seeds(2))

    def run(ended: Ended, seeds: int) -> Result:
        def stand_in(arguments: Sequence[str], results: Path, tasks: int, *_: Any) -> Ended:
            there = len(list(results.glob("*.parquet")))
            assert (results, tasks) == (tmp_path / "results", min(3, 4 - there))
            if seeds:
                assert CliRunner().invoke(app, ["run", *arguments, "--seeds", str(seeds)]).exit_code == 0
            return ended

        monkeypatch.setattr(machines, "run_on_ray", stand_in)
        arguments = ["run", str(suite), "--results", str(tmp_path / "results"), "--executor", "ray", "--tasks", "3"]
        return CliRunner().invoke(app, arguments)

    return run


def test_a_task_that_was_lost_is_named(on: Callable[..., Result], tmp_path: Path) -> None:
    found = on(Ended([0, 0], ["task 0, try 1: NodeDiedError: gone"]), seeds=2)
    assert "warning: lost: task 0, try 1: NodeDiedError: gone\n" in found.stderr
    assert found.stdout == f"done: 4 runs: 4 ok, 0 diverged, 0 failed. Records in {tmp_path / 'results'}.\n"
    assert found.exit_code == 0


def test_what_did_not_run_is_no_success(on: Callable[..., Result]) -> None:
    found = on(Ended([1], ["task 0, try 4: gone"]), seeds=1)
    assert "error: it did not run; the tasks ended with exit codes [1], and 1 were lost [" in found.stderr
    assert found.stdout.startswith("failed: 4 runs: 2 ok, 0 diverged, 0 failed, 2 refused; the first that failed: ")
    assert found.exit_code == 2


def test_what_is_left_when_it_is_interrupted(on: Callable[..., Result]) -> None:
    found = on(Ended(interrupted=15), seeds=1)
    assert found.stdout.startswith("interrupted: 2 runs: 2 ok, 0 diverged, 0 failed; 2 left. Records in ")
    assert " --executor ray --tasks 3\n" in found.stderr
    assert found.exit_code == 143
    assert on(Ended([0]), seeds=2).stdout.startswith("done: 2 runs: 2 ok, 0 diverged, 0 failed; 2 there before.")
