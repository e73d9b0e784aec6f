"""``fedbench plot``: three pictures, and one line for what cannot be drawn."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from records import defended, record, scenario, write
from typer.testing import CliRunner, Result

from fedbench.cli import app

KINDS = ("curves", "pareto", "heatmap")


@pytest.fixture
def results(tmp_path: Path) -> Path:
    folder = write(
        tmp_path / "results", record(scenario(), er=[0.0, 0.0], hr=[0.4, 0.5]), record(scenario("a-ra"), er=[0.1, 0.6])
    )
    return write(
        folder, *(defended("mean", attack, er=0.1, hr=0.45, family="aggregation") for attack in ("none", "a-ra"))
    )


def plot(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["plot", *map(str, arguments)])


@pytest.mark.parametrize("kind", KINDS)
def test_every_picture(kind: str, results: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    for name, begin in (("a.png", b"\x89PNG"), ("a.svg", b"<?xml"), ("a.pdf", b"%PDF")):
        out = tmp_path / "new" / name
        done = plot(kind, "--out", out, "--results", results, "--only", "model=mf", "--k", 10)
        assert (done.exit_code, done.stdout, done.stderr) == (0, "", f"written to {out}\n")
        assert out.read_bytes().startswith(begin)
    fonts = (tmp_path / "new" / "a.pdf").read_bytes()
    assert b"/FontFile2" in fonts, "TrueType outlines are in it"
    assert b"/Type3" not in fonts
    text = (tmp_path / "new" / "a.svg").read_text()
    assert {"curves": "a-ra", "pareto": "1  mean", "heatmap": "mean"}[kind] in text


def test_curves_under_a_defense(results: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    out = tmp_path / "a.svg"
    assert plot("curves", "--out", out, "--results", results, "--defense", "mean").exit_code == 0
    assert "Attacks under mean, over training" in out.read_text()


@pytest.mark.parametrize("kind", KINDS)
def test_mistakes_are_one_line(kind: str, results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*arguments: object) -> str:
        result = plot(kind, *arguments)
        assert (result.exit_code, result.stdout) == (2, "")
        assert result.stderr.count("\n") == 1
        return result.stderr.removeprefix("error: ").strip()

    there = ("--results", results)
    assert refused("--out", tmp_path / "a.gif", *there).endswith("must end in .png, .svg or .pdf.")
    assert refused(*there).startswith("Missing option '--out'")
    assert refused("--out", tmp_path / "a.png", "--results", tmp_path / "none").startswith("no results in ")
    assert refused("--out", tmp_path / "a.png", *there, "--k", 7).startswith("K = 7 is not measured")
    (tmp_path / "file").write_text("")
    if "matplotlib" in sys.modules:
        assert refused("--out", tmp_path / "file" / "a.png", *there).startswith("cannot write")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    missing = "a picture needs packages that are not installed: pip install '.[plot]' in a checkout of fedbench."
    assert refused("--out", tmp_path / "a.png", *there) == missing
