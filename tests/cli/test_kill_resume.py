"""A suite that is killed or interrupted: nothing lost, nothing doubled, the same numbers after resuming."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from interrupts import interruptible

from fedbench.runs.record import RunRecord

SUITE = """
name = "killed"
version = 1
title = "Killed"
seeds = 2
[defaults]
dataset = "longtail-small"
malicious_ratio = 0.05
protocol_params = { epochs = 40 }
[matrix]
model = ["mf"]
attack = ["none", "explicit-boost", "a-ra", "random"]
"""
RUNS = 8

VARIES = {
    *(name for name in RunRecord.__dataclass_fields__ if name.startswith("seconds_")),
    "checksum",
    "started_at",
    "git_commit",
    "git_dirty",
}
"""Columns that differ between two runs of the same thing (the working tree may change under the tests)."""


def command(suite: Path, results: Path) -> list[str]:
    return [sys.executable, "-m", "fedbench", "run", str(suite), "--results", str(results), "--jobs", "2"]


def contents(results: Path) -> dict[str, dict[str, Any]]:
    """File name -> its row, without what varies. A file that is no whole record raises."""
    rows = {}
    for path in results.glob("*.parquet"):
        (row,) = pq.read_table(path).to_pylist()
        rows[path.name] = {key: value for key, value in row.items() if key not in VARIES}
    return rows


def wait_for(results: Path, count: int) -> None:
    deadline = time.monotonic() + 60
    while len(list(results.glob("*.parquet"))) < count:
        assert time.monotonic() < deadline, "the suite wrote nothing"
        time.sleep(0.005)


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("suite") / "killed.toml"
    path.write_text(SUITE)
    return path


@pytest.fixture(scope="module")
def uninterrupted(suite: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    results = tmp_path_factory.mktemp("uninterrupted")
    subprocess.run(command(suite, results), check=True, capture_output=True)
    return contents(results)


@pytest.mark.parametrize(
    "group",
    [pytest.param(False, id="the parent alone", marks=pytest.mark.slow), pytest.param(True, id="all its processes")],
)
def test_kill_and_resume(suite: Path, tmp_path: Path, uninterrupted: dict[str, dict[str, Any]], group: bool) -> None:
    assert len(uninterrupted) == RUNS
    process = subprocess.Popen(
        command(suite, tmp_path), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    wait_for(tmp_path, 2)
    if group:
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.wait()
    survived = contents(tmp_path)  # every file under a final name is whole, at once
    assert 2 <= len(survived) < RUNS
    stamps = {name: (tmp_path / name).stat().st_mtime_ns for name in survived}
    victim = sorted(survived)[0]
    whole = (tmp_path / victim).read_bytes()
    (tmp_path / victim).write_bytes(whole[: len(whole) // 2])

    resumed = subprocess.run(command(suite, tmp_path), capture_output=True, text=True)
    assert resumed.returncode == 0, resumed.stderr
    assert f"warning: {tmp_path / victim} is no whole record and does not count" in resumed.stderr
    assert contents(tmp_path) == uninterrupted
    kept = {name for name in survived if (tmp_path / name).stat().st_mtime_ns == stamps[name]}
    assert kept == set(survived) - {victim}


def test_ctrl_c_and_resume(suite: Path, tmp_path: Path, uninterrupted: dict[str, dict[str, Any]]) -> None:
    process = subprocess.Popen(
        command(suite, tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=interruptible,
    )
    wait_for(tmp_path, 2)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the parent and its workers
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in stderr
    done = len(contents(tmp_path))
    assert 2 <= done < RUNS
    assert [path.name for path in tmp_path.iterdir() if path.suffix != ".parquet"] == []
    assert stdout.startswith(f"{done} runs: {done} ok")
    last = stderr.splitlines()[-1]
    resume = f"fedbench run {suite} --jobs 2 --results {tmp_path}"
    assert last == f"interrupted; {RUNS - done} left. Resume with: {resume}"

    resumed = subprocess.run([sys.executable, "-m", *resume.split()], capture_output=True, text=True)
    assert resumed.returncode == 0
    assert f"; {done} there before." in resumed.stdout
    assert contents(tmp_path) == uninterrupted
