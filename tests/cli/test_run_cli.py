"""``fedbench run``: what it prints, what it writes, and its exit codes."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from tiny_suite import SUITE
from typer.testing import CliRunner

from fedbench import __version__
from fedbench.cli import app
from fedbench.runs.claims import claim
from fedbench.runs.execution import make_plan
from fedbench.runs.results import scan
from fedbench.scenarios.suite import load_suite


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.toml"
    path.write_text(SUITE)
    return path


def test_run_resume_and_dry_run(suite: Path, tmp_path: Path) -> None:
    results = tmp_path / "results"
    arguments = ["run", str(suite), "--results", str(results), "--device", "cpu"]

    dry = CliRunner().invoke(app, [*arguments, "--dry-run"])
    assert dry.exit_code == 0
    assert "2 runs: 2 to run, 0 there; time unknown." in dry.stdout
    assert not results.exists()

    first = CliRunner().invoke(app, [*arguments, "--jobs", "1"])
    assert first.exit_code == 0
    assert first.stdout == f"done: 2 runs: 2 ok, 0 diverged, 0 failed. Records in {results}.\n"
    lines = first.stderr.splitlines()
    assert len(lines) == 3
    assert lines[2].startswith("warning: recommends worse than popularity: hr_10 = ")
    assert lines[0].startswith("[1/2] longtail-small mf none none 0 icde24 random:0 ")
    assert re.search(r" s0  ok  ER@10 \d+\.\d %  HR@10 \d+\.\d %  \(", lines[0])
    assert set(scan([results]).status.values()) == {"ok"}

    (results / "x-s0.parquet").write_bytes(b"PAR1")
    again = CliRunner().invoke(app, arguments)
    assert again.exit_code == 0
    assert again.stdout == f"done: 0 runs: 0 ok, 0 diverged, 0 failed; 2 there before. Records in {results}.\n"
    assert again.stderr.startswith(f"warning: {results}/x-s0.parquet is no whole record and does not count: ")

    fresh = CliRunner().invoke(app, [*arguments, "--fresh", "--dry-run", "--jobs", "2"])
    assert "2 runs: 2 to run, 0 there; about " in fresh.stdout
    assert "with 2 jobs." in fresh.stdout


def test_dry_run_says_which_twin_and_which_data_are_missing(
    suite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEDBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("FEDBENCH_DATA", raising=False)
    suite.write_text(SUITE.replace("longtail-small", "ml-1m").replace('"none", ', ""))
    result = CliRunner().invoke(app, ["run", str(suite), "--results", str(tmp_path / "results"), "--dry-run"])
    assert result.exit_code == 0
    assert next(line for line in result.stdout.splitlines() if " twin " in line).startswith("ml-1m mf none none")
    assert result.stderr.startswith("warning: it would not start: Dataset 'ml-1m'")


def test_dry_run_checks_what_a_run_checks(suite: Path, tmp_path: Path) -> None:
    suite.write_text(SUITE.replace("malicious_ratio", 'target = "fixed:99999"\nmalicious_ratio'))
    (tmp_path / "file").write_text("")
    arguments = ["run", str(suite), "--results", str(tmp_path / "file" / "below"), "--jobs", "1"]
    dry, real = CliRunner().invoke(app, [*arguments, "--dry-run"]), CliRunner().invoke(app, arguments)
    warnings = dry.stderr.splitlines()
    assert dry.exit_code == 0
    assert warnings[0].startswith("warning: it would not start: target 'fixed:99999': item ids must differ")
    assert warnings[1].startswith("warning: it would not start: cannot write in the results folder")
    assert (real.exit_code, real.stderr) == (2, warnings[0].replace("warning: it would not start", "error") + "\n")
    for wrong in (["--device", "gpu"], ["--jobs", "0"], ["--results", str(tmp_path / "file")]):
        assert CliRunner().invoke(app, [*arguments, *wrong, "--dry-run"]).exit_code == 2


def test_a_protocol_without_its_validation_items_is_warned_of(suite: Path, tmp_path: Path) -> None:
    own = SUITE.replace("malicious_ratio", 'protocol = "aaai23"\ntarget = "none"\nmalicious_ratio')
    own = own.replace("explicit-boost", "label-flip")
    text = (
        "protocol 'aaai23' takes the checkpoint that is best on validation items, but split 'leave-one-out' of"
        " longtail-small has none: it is the last checkpoint that counts."
    )
    for split, there in (("leave-one-out", True), ("leave-one-out-validation", False)):
        suite.write_text(own.replace("epochs = 2", f'epochs = 2, split = "{split}"'))
        dry = CliRunner().invoke(app, ["run", str(suite), "--results", str(tmp_path / "r"), "--dry-run"])
        assert dry.stderr == (f"warning: {text}\n" if there else "")
        shown = " ".join(CliRunner().invoke(app, ["show", str(suite)]).stdout.split())
        assert (text in shown) == there


def test_filters_and_seeds_reach_the_plan(suite: Path, tmp_path: Path) -> None:
    arguments = ["run", str(suite), "--results", str(tmp_path / "results"), "--dry-run"]
    assert "3 runs: 3 to run" in CliRunner().invoke(app, [*arguments, "--only", "attack=none", "--seeds", "3"]).stdout
    assert "4 runs: 4 to run" in CliRunner().invoke(app, [*arguments, "--seeds", "0,7"]).stdout


def test_one_part_of_a_suite_and_what_is_left_of_it(suite: Path, tmp_path: Path) -> None:
    """The first of two parts, into the folder of the environment; then what `status` says while somebody runs the other."""
    results = tmp_path / "elsewhere"

    def said(*arguments: str) -> str:
        done = CliRunner().invoke(app, list(arguments), env={"FEDBENCH_RESULTS": str(results)})
        assert done.exit_code == 0
        return done.stdout

    assert said("status", str(suite)) == "tiny: 2 runs: 0 ok, 0 diverged, 0 failed, 0 running, 2 missing.\n"
    assert said("run", str(suite), "--shard", "1/2", "--jobs", "1").startswith("done: 1 run: 1 ok")
    assert len(list(results.iterdir())) == 1
    plan = make_plan(load_suite(str(suite)).plan((), None), results)
    with claim(results, plan.todo[0].id):
        words = said("status", str(suite)).split()
        assert " ".join(words[:13]) == "tiny: 2 runs: 1 ok, 0 diverged, 0 failed, 1 running, 0 missing."
        assert socket.gethostname() in words
        assert str(os.getpid()) in words
        words = said("status").split()
        assert " ".join(words[1:5]) == "1 record, 1 running."
        assert words[words.index("tiny") :][:5] == ["tiny", "1", "1", "0", "0"]
        assert plan.todo[0].id in words
    assert "1 missing." in said("status", str(suite))
    assert "1 record, 0 running." in said("status")


def test_the_standing_of_a_folder_that_is_none(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["status", "--results", str(tmp_path / "no")])
    assert (done.exit_code, done.stdout) == (2, "")
    assert "there is no results folder" in done.stderr
    done = CliRunner().invoke(app, ["status", "--seeds", "3", "--results", str(tmp_path)])
    assert "choose from a suite: name it" in done.stderr


@pytest.mark.parametrize("shard", ["0/2", "3/2", "1", "a/b", "1/0", "-1/2"])
def test_a_part_that_there_is_not(suite: Path, shard: str) -> None:
    done = CliRunner().invoke(app, ["run", str(suite), "--dry-run", f"--shard={shard}"])
    assert done.exit_code == 2
    assert (
        done.stderr == f"error: --shard {shard!r} must be I/N, the I-th of N parts, with I from 1 to N, such as 1/4.\n"
    )


def test_version_and_help() -> None:
    assert CliRunner().invoke(app, ["--version"]).stdout == f"fedbench {__version__}\n"
    for command in ("run", "list", "show"):
        text = CliRunner().invoke(app, [command, "--help"]).stdout
        assert text.count(f"fedbench {command} ") >= 3  # the usage line and two examples or more


def test_help_imports_nothing_heavy() -> None:
    script = (
        "import sys; sys.argv = ['fedbench', '--help']\n"
        "from fedbench.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print(sorted({'torch', 'pydantic', 'duckdb', 'pyarrow', 'numpy', 'scipy', 'pandas'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "[]"


def test_python_dash_m() -> None:
    result = subprocess.run([sys.executable, "-m", "fedbench", "--version"], capture_output=True, text=True, check=True)
    assert result.stdout == f"fedbench {__version__}\n"


MINE = """
from fedbench import Defense, DefenseCard, DefenseFamily, NoParameters

class Mine(Defense):
    card = DefenseCard("mine", "Mine", "none", DefenseFamily.FILTER)
    class Params(NoParameters):
        pass
    def filter(self, updates, server):
        return updates.keep(updates.weights > 0)
"""


@pytest.mark.slow
def test_the_file_of_a_defense_is_isolated(suite: Path, tmp_path: Path) -> None:
    file, results = tmp_path / "mine.py", tmp_path / "results"
    file.write_text(MINE)
    arguments = ["run", str(suite), "--isolated", "--defense", str(file), "--only", "attack=explicit-boost"]
    done = CliRunner().invoke(app, [*arguments, "--jobs", "1", "--results", str(results)])
    assert done.exit_code == 0, done.output
    found = pq.read_table(results).to_pylist()  # type: ignore[no-untyped-call]
    assert {row["defense"] for row in found} == {"none", "mine"}
    assert all((row["isolation"] == "none") == (row["defense"] == "none") for row in found)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--model", "./mine.py"], "the model of a file cannot be confined; leave out --model ./mine.py"),
        (["--attack", "a-ra"], "confines the attack or the defense of a file"),
    ],
)
def test_what_cannot_be_isolated_is_said(suite: Path, options: list[str], why: str) -> None:
    refused = CliRunner().invoke(app, ["run", str(suite), "--isolated", *options])
    assert refused.exit_code == 2
    assert why in refused.stderr
