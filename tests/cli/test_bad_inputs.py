"""What users get wrong: one line that says what, where and what instead; exit code 2; nothing lost."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

import fedbench
from fedbench.attacks import ATTACKS
from fedbench.attacks.none import NoAttack
from fedbench.cli import app
from fedbench.entries.cards import AttackCard, Channel, Goal
from fedbench.runs.results import scan, write_record
from fedbench.scenarios.scenario import Scenario

SUITE = """\
name = "mine"
version = 1
title = "Mine"
seeds = 1

[defaults]
dataset = "longtail-small"
malicious_ratio = 0.05
protocol_params = { epochs = 1 }

[matrix]
model = ["mf"]
attack = ["explicit-boost"]

[[override]]
when = { model = "mf" }
set = { target = "random:1" }
"""


class NcfOnly(NoAttack):
    """An attack that knows one model only."""

    card = AttackCard(
        name="ncf-only",
        title="For ncf",
        paper="",
        goal=Goal.PROMOTE,
        channel=Channel.GRADIENT,
        models=frozenset({"ncf"}),
    )


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A record of an earlier run."""
    scenario = Scenario("longtail-small", "mf", protocol_params={"epochs": 1})
    return write_record(fedbench.run(scenario, 0), tmp_path_factory.mktemp("earlier")).read_bytes()


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, earlier: bytes) -> Iterator[Path]:
    """A working folder with ``mine.toml``, no data, and a results folder whose one record must survive."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FEDBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("FEDBENCH_DATA", raising=False)
    monkeypatch.delenv("FEDBENCH_RESULTS", raising=False)
    monkeypatch.setitem(ATTACKS._classes, "ncf-only", NcfOnly)
    (tmp_path / "mine.toml").write_text(SUITE)
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "earlier-s0.parquet").write_bytes(earlier)
    yield tmp_path
    assert [path.name for path in (tmp_path / "results").iterdir()] == ["earlier-s0.parquet"]
    assert (tmp_path / "results" / "earlier-s0.parquet").read_bytes() == earlier
    assert len(scan([tmp_path / "results"]).status) == 1


def refused(*arguments: str) -> str:
    """The one line of a command that is refused."""
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == 2, result.output
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    return line.removeprefix("error: ")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        pytest.param(
            '"explicit-boost"',
            '"explicit-bost"',
            "mine.toml: unknown attack 'explicit-bost'. Did you mean 'explicit-boost'? See `fedbench list attacks`.",
            id="unknown attack",
        ),
        pytest.param('["mf"]', '["mff"]', "mine.toml: unknown model 'mff'. Did you mean 'mf'?", id="unknown model"),
        pytest.param(
            '{ model = "mf" }',
            '{ model = "ncf" }',
            "mine.toml: override 1 matches no scenario.",
            id="override that matches nothing",
        ),
        pytest.param(
            "longtail-small",
            "longtail-smal",
            "Unknown dataset 'longtail-smal'. Did you mean 'longtail-small'",
            id="unknown dataset",
        ),
        pytest.param(
            "set = {",
            "sett = {",
            "mine.toml: override 1: ",
            id="misspelt key of the file",
        ),
        pytest.param(
            "attack = [",
            "atack = [",
            "mine.toml: matrix: unknown key 'atack'. Did you mean 'attack'?",
            id="misspelt key of a scenario",
        ),
        pytest.param("seeds = 1", 'seeds = "one"', "mine.toml: seeds = 'one': ", id="wrong type"),
        pytest.param(
            "0.05",
            "2.0",
            "mine.toml: scenario: malicious_ratio = 2.0 must be a number from 0 to below 1 (0.05 is 5 %).",
            id="ratio of 2",
        ),
        pytest.param('"Mine"', '"Mine', "mine.toml: not valid TOML: ", id="not TOML"),
        pytest.param(
            "epochs = 1",
            "epoch = 1",
            "mine.toml: unknown parameter of protocol 'icde24': 'epoch'. Did you mean 'epochs'?",
            id="misspelt parameter",
        ),
        pytest.param(
            "epochs = 1",
            "epochs = 0",
            "mine.toml: protocol 'icde24': parameter epochs = 0: ",
            id="parameter out of range",
        ),
        pytest.param(
            "epochs = 1",
            "split = 'published'",
            "Dataset 'longtail-small' has no split 'published'. It has: leave-one-out, 4:1, leave-one-out-validation,"
            " leave-one-out-random.",
            id="split that the dataset does not have",
        ),
        pytest.param(
            '"explicit-boost"',
            '"ncf-only"',
            "mine.toml: attack 'ncf-only' does not apply to model 'mf'; it applies to ncf.",
            id="impossible model and attack",
        ),
        pytest.param(
            "longtail-small",
            "ml-1m",
            "Dataset 'ml-1m': its interactions are not in FEDBENCH_DATA nor in ",
            id="missing data",
        ),
        pytest.param(
            '"random:1"',
            '"fixed:99999"',
            "target 'fixed:99999': item ids must differ and lie below 400 (longtail-small, split leave-one-out).",
            id="target that is not an item",
        ),
    ],
)
def test_mistakes_in_a_suite(folder: Path, old: str, new: str, message: str) -> None:
    assert old in SUITE
    (folder / "mine.toml").write_text(SUITE.replace(old, new, 1))
    assert message in refused("run", "mine.toml", "--jobs", "1")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "smokey"], "Unknown suite 'smokey'. Did you mean 'smoke'?"),
        (["run", "yours.toml"], "suite file 'yours.toml' does not exist"),
        (["run", "mine.toml", "--only", "atack=x"], "Unknown key of --only 'atack'. Did you mean 'attack'?"),
        (["run", "mine.toml", "--only", "model=ncf"], "fits nothing in suite 'mine'; there are mf."),
        (["run", "mine.toml", "--seeds", "few"], "--seeds 'few' must be a number of seeds (3) or a list"),
        (["run", "mine.toml", "--jobs", "0"], "--jobs 0 must be at least 1."),
        (["run", "mine.toml", "--jobs", "two"], "Invalid value for '--jobs': "),
        (["run", "mine.toml", "--device", "gpu"], "--device 'gpu' must be auto, cpu, cuda, cuda:all, or"),
        (["run", "mine.toml", "--results", "mine.toml"], "results folder 'mine.toml' is not a folder."),
        (["run", "mine.toml", "--results", "mine.toml/deeper"], "cannot write in the results folder"),
        (["run", "mine.toml", "--sedes", "3"], "No such option: --sedes"),
        (["run"], "name a suite (`fedbench list suites`), or say of what scenarios are made"),
        (["runn"], "No such command 'runn'. Did you mean 'run'?"),
        (["list", "atacks"], "Unknown kind 'atacks'. Did you mean 'attacks'?"),
        (["show", "pieck-ueb"], "Did you mean 'pieck-uea'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistakes_on_the_command_line(arguments: list[str], message: str) -> None:
    assert message in refused(*arguments)


def test_wrong_checksum(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Data that look right but are not those of the catalogue never enter a result."""
    data = folder / "data" / "ml-100k"
    data.mkdir(parents=True)
    (data / "u.data").write_text("1\t1\t5\t881250949\n")
    monkeypatch.setenv("FEDBENCH_DATA", str(folder / "data"))
    (folder / "mine.toml").write_text(SUITE.replace("longtail-small", "ml-100k"))
    line = refused("run", "mine.toml", "--jobs", "1")
    assert "ml-100k/u.data: wrong checksum" in line
    assert line.endswith("and 1 more]")  # the clean twin met the same


def test_corrupt_archive(folder: Path) -> None:
    (folder / "bad.zip").write_bytes(b"PK\x03\x04 and then nothing sensible")
    assert "bad.zip: damaged archive" in refused("data", "import", "ml-100k", "bad.zip")


def test_no_write_permission(folder: Path) -> None:
    """/proc takes no files even from root, whom permissions do not stop."""
    assert "cannot write in the results folder '/proc/fedbench'" in refused(
        "run", "mine.toml", "--results", "/proc/fedbench"
    )


def test_full_disk(folder: Path) -> None:
    """A limit on the size of files stands for a disk that fills up while a record is written."""
    result = subprocess.run(
        [sys.executable, "-m", "fedbench", "run", "mine.toml", "--jobs", "1"],
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (2048, 2048)),
    )
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: cannot write the result results/")
    assert line.endswith("File too large.")


def test_debug_shows_the_traceback() -> None:
    result = CliRunner().invoke(app, ["--debug", "run", "smokey"])
    assert result.exit_code == 1
    assert type(result.exception).__name__ == "UserError"
