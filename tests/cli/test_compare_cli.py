"""``fedbench compare``: names and folders, and what is ambiguous."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from records import record, scenario, write
from typer.testing import CliRunner, Result

from fedbench.cli import app


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Results of two attacks in ``results``, and a copy in ``other``."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FEDBENCH_RESULTS", raising=False)
    for name in ("results", "other"):
        for seed, (a, b) in enumerate(((0.5, 0.3), (0.6, 0.41), (0.55, 0.36))):
            write(tmp_path / name, record(scenario("a-ra"), seed, er=a), record(scenario("a-hum"), seed, er=b))
    return tmp_path


def compare(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["compare", *arguments])


def refused(*arguments: str) -> str:
    result = compare(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.count("\n") == 1
    return result.stderr.removeprefix("error: ").strip()


def test_two_attacks(folder: Path) -> None:
    shown = compare("a-ra", "a-hum", "--out", "c.md")
    assert shown.exit_code == 0, shown.output
    assert "ER@10: A is higher by 19.33" in shown.stdout
    assert shown.stderr == "written to c.md\n"
    assert "# a-ra against a-hum" in (folder / "c.md").read_text(encoding="utf-8")
    data = json.loads(compare("a-ra", "a-hum", "--json").stdout)
    assert (data["kind"], data["contrasts"][0]["words"]) == ("attacks", "A is higher by 19.33")


def test_two_folders(folder: Path) -> None:
    shown = compare("results", "other")
    assert "All metrics of the 6 runs in both agree bit for bit." in shown.stdout
    assert json.loads(compare("results", "other", "--json").stdout)["exact"]["differing"] == []


def test_ambiguities_are_one_line(folder: Path) -> None:
    assert refused("results", "nowhere").startswith("'results' is there, but there is no folder or file 'nowhere'")
    assert refused("a.parquet", "results") == "no folder or file 'a.parquet'."
    assert refused("./x", "results") == "no folder or file './x'."
    assert refused("results", "other", "--results", "results").startswith("--results is where names are looked up")
    assert refused("a-ra", "a-hom").startswith("Unknown attack or defense 'a-hom'. Did you mean 'a-hum'?")
    assert refused("a-ra", "a-hum", "--kind", "model") == "--kind 'model' must be attack or defense."
    (folder / "a-ra").mkdir()
    assert refused("a-ra", "a-hum") == "'a-ra' is a file here and a name: write ./a-ra for the file, or say --kind."
    assert compare("a-ra", "a-hum", "--kind", "attack").exit_code == 0


def test_a_name_of_several_parameters_must_be_whole(folder: Path) -> None:
    for boost in (2.0, 3.0):
        write(folder / "results", record(scenario("p1", attack_params={"boost": boost}), er=0.1))
    assert refused("p1", "a-ra") == ("'p1' was run with several parameters: name 'p1 (boost=2.0)' or 'p1 (boost=3.0)'.")
