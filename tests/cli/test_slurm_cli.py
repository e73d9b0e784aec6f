"""``fedbench run --executor slurm``: with the tasks of an array as processes of this machine, and on Slurm where it is."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny_suite import of_seeds
from typer.testing import CliRunner

from fedbench.cli import app
from fedbench.runs import slurm
from fedbench.runs.results import scan


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.toml"
    path.write_text(of_seeds(2))
    return path


def submitted(suite: Path, *more: str) -> tuple[int, str, str]:
    results = str(suite.parent / "results")
    done = CliRunner().invoke(app, ["run", str(suite), "--executor", "slurm", "--results", results, *more])
    return done.exit_code, done.stdout, done.stderr


def ended(results: Path, runs: int) -> str:
    """What the tasks said once all of ``runs`` are there and all have spoken."""
    deadline = time.monotonic() + 180
    while True:
        said = "".join(path.read_text() for path in (results / slurm.LOGS).glob("*_log.out"))
        if len(scan([results]).table) == runs and said.count("Exiting after successful completion") == 2:
            return said
        assert time.monotonic() < deadline, said
        time.sleep(0.2)


@pytest.mark.filterwarnings("ignore:subprocess .* is still running", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_tasks_share_the_runs(suite: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slurm, "CLUSTER", "local")
    code, out, err = submitted(suite, "--tasks", "2")
    results = suite.parent / "results"
    assert (code, err) == (0, "")
    assert out.startswith("submitted: job ")
    assert ", 2 tasks for 4 runs; `fedbench status " in out
    said = ended(results, 4)
    assert sum(map(int, re.findall(r"(\d+) ok", said))) == 4, "no run twice"
    assert submitted(suite)[1].startswith("done: 0 runs: 0 ok, 0 diverged, 0 failed; 4 there before.")


def test_bad_input(suite: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert submitted(suite, "--slurm", "gpu")[2] == "error: --slurm 'gpu' must be KEY=VALUE, such as partition=gpu.\n"
    assert submitted(suite, "--tasks", "0")[2] == "error: --tasks 0 must be at least 1.\n"
    assert submitted(suite, "--device", "gpu")[2].startswith("error: --device 'gpu' must be auto, cpu, cuda, cuda:all")
    assert "--fresh would run all once in every task" in submitted(suite, "--fresh")[2]
    elsewhere = CliRunner().invoke(app, ["run", str(suite), "--slurm", "a=b"])
    assert elsewhere.stderr == "error: --slurm is of --executor slurm.\n"
    assert "must be local, slurm or ray" in CliRunner().invoke(app, ["run", str(suite), "--executor", "pbs"]).stderr
    monkeypatch.setitem(sys.modules, "ray", None)
    on_ray = CliRunner().invoke(app, ["run", str(suite), "--executor", "ray", "--results", str(suite.parent / "r")])
    assert on_ray.stderr == "error: --executor ray needs Ray: pip install '.[ray]' in a checkout of fedbench.\n"
    monkeypatch.setenv("PATH", str(suite.parent))
    code, _, err = submitted(suite)
    assert code == 2
    assert err.startswith("error: --executor slurm: ")
    assert err.count("\n") == 1
    monkeypatch.setitem(sys.modules, "submitit", None)
    assert (
        submitted(suite)[2]
        == "error: --executor slurm needs submitit: pip install '.[slurm]' in a checkout of fedbench.\n"
    )


@pytest.mark.parametrize(
    ("given", "named"),
    [(["--partition", "gpu"], "partition=gpu"), (["--gres=gpu:2"], "gres=gpu:1"), (["--time", "4"], "time=240")],
)
def test_options_of_sbatch_are_told_how_they_are_given(suite: Path, given: list[str], named: str) -> None:
    option = given[0].partition("=")[0]
    code, out, err = submitted(suite, *given)
    assert (code, out) == (2, "")
    assert err == (
        f"error: No such option: {option}. Slurm gets it by --executor slurm --slurm {named}."
        " See `fedbench run --help`.\n"
    )


def test_only_run_hands_options_to_slurm(suite: Path) -> None:
    assert "Slurm" not in submitted(suite, "--rati", "1")[2]
    assert "Slurm" not in CliRunner().invoke(app, ["status", "--time", "4"]).stderr


@pytest.mark.slow
@pytest.mark.skipif(
    shutil.which("sinfo") is None or subprocess.run(["sinfo"], capture_output=True, check=False).returncode != 0,
    reason="no Slurm here",
)
def test_on_slurm_itself(suite: Path) -> None:
    code, out, _ = submitted(suite, "--tasks", "2", "--slurm", "time=10")
    assert code == 0
    assert re.match(r"submitted: job \d+, 2 tasks", out)
    assert sum(map(int, re.findall(r"(\d+) ok", ended(suite.parent / "results", 4)))) == 4
