"""``fedbench doctor``: what a report of a bug needs, and nothing that does not belong in one."""

from __future__ import annotations

import json
import platform
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fedbench import __version__
from fedbench.attacks import ATTACKS
from fedbench.cli import app
from fedbench.cli.examine import EXTRAS, PACKAGES
from fedbench.entries.registry import Registry


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder with a name that would give its owner away."""
    folder = tmp_path / "jane.doe"
    folder.mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("FEDBENCH_CACHE", str(folder / "cache"))
    monkeypatch.setenv("SOME_TOKEN", "hunter2")
    monkeypatch.delenv("FEDBENCH_DATA", raising=False)
    monkeypatch.delenv("FEDBENCH_RESULTS", raising=False)
    return folder


def doctor(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["doctor", *arguments])
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    return result.stdout


def test_what_a_report_needs(home: Path) -> None:
    text = doctor("--results", str(home / "new" / "results"))
    for line in (
        f"  version: {__version__}",
        f"  python: CPython {platform.python_version()}",
        f"  torch: {metadata.version('torch')}",
        "  folder: ~/new/results",
        "  writable: yes",
        "  data home: ~/cache (not there yet)",
        "  longtail-small: embedded (leave-one-out, 4:1, leave-one-out-validation, leave-one-out-random)",
    ):
        assert line in text.splitlines()
    assert re.search(r"^  commit: ([0-9a-f]{40}|no checkout)$", text, re.MULTILINE)
    assert re.search(r"^  disk: [\d.]+ GiB free of [\d.]+ GiB$", text, re.MULTILINE)
    assert "jane.doe" not in text
    assert "hunter2" not in text
    assert list(home.iterdir()) == [], "nothing is left behind"


def test_json_says_the_same(home: Path) -> None:
    found = json.loads(doctor("--json"))
    assert list(found["packages"]) == list(PACKAGES)
    assert found["fedbench"]["version"] == __version__
    assert found["results"]["exists"] is False
    assert "jane.doe" not in json.dumps(found)


def test_data_and_where_they_come_from(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = home / "cache" / "datasets" / "mine" / "interactions.parquet"
    table.parent.mkdir(parents=True)
    table.write_bytes(b"")
    data = json.loads(doctor("--json"))["data"]
    assert data["mine"].startswith("imported (leave-one-out, ")
    assert "ml-100k" in data["not found"]
    monkeypatch.setenv("FEDBENCH_DATA", str(home / "nowhere"))
    assert json.loads(doctor("--json"))["data"]["error"] == "FEDBENCH_DATA names '~/nowhere', which is not a folder."


def test_plugins_and_those_that_fail(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package with one attack that works and one whose module is not there."""
    info = tmp_path / "site" / "toy-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toy\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[fedbench.attacks]\ngood = fedbench.attacks.label_flip:LabelFlip\nbad = nothing_there:Bad\n"
    )
    monkeypatch.syspath_prepend(str(info.parent))
    fresh: Registry[object] = Registry("attack", ATTACKS._base, {}, "fedbench.attacks")
    monkeypatch.setattr("fedbench.attacks.ATTACKS", fresh)
    found = json.loads(doctor("--json"))["plug-ins"]
    assert found["attacks"] == ["toy/good", "toy/bad: FAILS, ModuleNotFoundError: No module named 'nothing_there'"]
    assert found["defenses"] == []


def test_a_folder_that_cannot_be_written(home: Path) -> None:
    (home / "file").write_text("")
    found = json.loads(doctor("--json", "--results", str(home / "file" / "below")))
    assert found["results"]["writable"].startswith("no: cannot write in the results folder '~/file/below'")


def test_a_torch_that_cannot_be_imported(tmp_path: Path) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "torch.py").write_text('raise OSError("libtorch.so: not found")')
    code = f"import sys; sys.path.insert(0, {str(tmp_path / 'broken')!r}); from fedbench.cli import main; main()"
    result = subprocess.run(
        [sys.executable, "-c", code, "doctor", "--json"], capture_output=True, text=True, check=True
    )
    found = json.loads(result.stdout)
    assert found["torch"] == {"error": "OSError: libtorch.so: not found"}
    assert found["machine"]["memory"].endswith("free")
    assert found["terminal"]["output is a terminal"] is False


def test_extras_are_those_of_the_package() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    listed = {
        extra: tuple(re.match(r"[\w-]+", each)[0] for each in needs)
        for extra, needs in project["optional-dependencies"].items()
    }
    assert listed == EXTRAS
    assert set(PACKAGES) == {re.match(r"[\w-]+", each)[0] for each in project["dependencies"]}
