"""``fedbench compare``: names and folders, and what is ambiguous."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from records import defended, record, scenario, write
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


def test_a_row_is_a_line_on_a_narrow_screen(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What all cells share stands above them; what has no room is left out, and nothing is broken."""
    long = {"defense": "norm-bound", "defense_params": {"bound": 0.25}}
    for ratio in (0.01, 0.02):
        for seed, er in enumerate((0.5, 0.7, 0.45)):
            for attack, less in (("a-ra", 0.0), ("a-hum", er * 0.3)):
                write(folder / "results", record(scenario(attack, malicious_ratio=ratio, **long), seed, er=er - less))
    wide = compare("a-ra", "a-hum").stdout
    assert {"smallest", "what they say"} <= set(re.split(r" {2,}", wide.splitlines()[5].strip()))
    monkeypatch.setattr("fedbench.cli.screen.Screen.width", 90)
    lines = compare("a-ra", "a-hum").stdout.splitlines()
    assert lines[4] == "dataset longtail-small, model mf."
    assert lines[5].split() == ["malicious", "defense", "A", "B", "A", "-", "B", "p", "runs"]
    cells = [line.split() for line in lines[6:10]]
    assert [cell[:2] for cell in cells] == [["all", "all"], ["1", "%"], ["2", "%"], ["5", "%"]]
    assert all(cell[-1] in ("3", "9") and cell[-3].endswith("]") for cell in cells)
    assert max(map(len, lines[:11])) <= 90


def test_other_parameters_of_a_name_are_named(folder: Path) -> None:
    """The plain name is that of one variant, which met other attacks than the other defense."""
    one, other = defended("drop", "a-ra", params={"share": 0.2}), defended("drop", "a-hum", params={"share": None})
    write(folder / "results", one, other, defended("mean", "a-ra"))
    told = refused("drop", "mean")
    assert told.startswith("'drop' and 'mean' have no scenario and seed in common")
    assert told.endswith(" With other parameters there are 'drop (share=0.2)'.")
    assert compare("drop (share=0.2)", "mean").exit_code == 0
