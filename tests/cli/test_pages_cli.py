"""``fedbench pages``: a page for each suite, of the records alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from records import record, write
from typer.testing import CliRunner, Result

from fedbench.cli import app
from fedbench.scenarios.suite import load_suite, suite_names

SUITE = """
name = "mine"
version = 4
title = "Mine & <others>"
description = "Two attacks."
paper = "Nobody, Nowhere 2026"
seeds = 2
[defaults]
dataset = "longtail-small"
malicious_ratio = 0.05
[matrix]
model = ["mf", "ncf"]
attack = ["a-ra", "a-hum", "random"]
"""
EXPECTED = """
[[expected]]
where = { attack = "a-ra", model = "mf" }
metric = "er_10"
value = 0.25
source = "Table 1"
[[expected]]
where = { attack = "a-hum", model = "mf" }
metric = "er_10"
value = 0.5
source = "Table 1"
"""


def pages(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["pages", *map(str, arguments)])


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(SUITE + EXPECTED)
    return path


@pytest.fixture
def results(suite: Path, tmp_path: Path) -> Path:
    """Of mf: both seeds of the clean twin, one of a-ra and one of random, which failed; of ncf nothing."""
    planned = {(each.scenario.attack, each.scenario.model): each.scenario for each in load_suite(str(suite)).plan()}
    return write(
        tmp_path / "results",
        *(record(planned["none", "mf"], seed) for seed in (0, 1)),
        record(planned["a-ra", "mf"], er=[0.1, 0.25]),
        record(planned["random", "mf"], status="failed", error="x"),
    )


def test_a_page_by_hand(suite: Path, results: Path, tmp_path: Path) -> None:
    out = tmp_path / "board" / "suites"
    done = pages(suite, "--out", out, "--results", results)
    assert (done.exit_code, done.stderr) == (0, f"1 page, README.md and FORMAT.md in {out}\n")
    text = (out / "mine.md").read_text(encoding="utf-8")
    lines = text.splitlines()
    assert lines[0] == "# Mine &amp; &lt;others&gt;"
    assert "Suite `mine`, version 4. Nobody, Nowhere 2026." in lines
    assert "    fedbench reproduce mine --out mine.md" in lines
    assert "| attack | a-ra; a-hum; random |" in lines
    assert "4 of 16 runs have a record." in lines
    assert "| longtail-small | mf | 3 of 4 | 4 of 8 | 0 | 1 |" in lines
    assert "| longtail-small | ncf | none of 4: not run yet | 0 of 8 | - | - |" in lines
    assert "- longtail-small, mf: a-hum at 5 %." in lines
    assert "1 of the 1 published values that were run agree; 1 of 2 are not run yet." in text
    assert "| a-ra mf | er\\_10 | 25.0 | 25.0 | - | 1 | +0.0 | agrees |" in lines
    assert "| a-hum mf | er\\_10 | 50.0 | - | - | 0 | - | not run |" in lines
    assert [line.split(" | ")[0] for line in lines if "▁" in line] == ["| longtail-small mf a-ra 5 %"]
    assert "![" not in text
    row = "| [mine](mine.md) | Mine &amp; &lt;others&gt; | 4 of 16 | 2 | 1 | 1 | 0 |"
    assert row in (out / "README.md").read_text(encoding="utf-8").splitlines()


def test_pictures_beside_and_leaderboards_above_are_linked(suite: Path, results: Path, tmp_path: Path) -> None:
    (tmp_path / "suites").mkdir()
    for name in ("suites/mine.png", "LEADERBOARD.md", "UNTARGETED.md"):
        (tmp_path / name).write_bytes(b"")
    assert pages(suite, "--out", tmp_path / "suites", "--results", results).exit_code == 0
    published = (tmp_path / "suites" / "mine.md").read_text(encoding="utf-8")
    assert "](mine.png)" in published
    assert "LEADERBOARD" not in published
    suite.write_text(SUITE)
    assert pages(suite, "--out", tmp_path / "suites", "--results", results).exit_code == 0
    plain = (tmp_path / "suites" / "mine.md").read_text(encoding="utf-8")
    assert plain.endswith("[Leaderboard of targeted attacks](../LEADERBOARD.md).\n")
    assert "mine.png" not in plain
    assert "fedbench reproduce" not in plain
    (tmp_path / "MINE.md").write_bytes(b"")
    assert pages(suite, "--out", tmp_path / "suites", "--results", results).exit_code == 0
    both = (tmp_path / "suites" / "mine.md").read_text(encoding="utf-8").splitlines()[-1]
    assert both.startswith("[Leaderboard of this suite](../MINE.md); [Leaderboard of targeted attacks]")


def test_every_suite_has_a_page_and_nothing_is_run(results: Path, tmp_path: Path) -> None:
    before = sorted(path.name for path in results.iterdir())
    assert pages("--out", tmp_path / "p", "--results", results).exit_code == 0
    assert sorted(path.stem for path in (tmp_path / "p").glob("*.md")) == sorted(["FORMAT", "README", *suite_names()])
    assert "Not run yet." in (tmp_path / "p" / "smoke.md").read_text(encoding="utf-8")
    assert sorted(path.name for path in results.iterdir()) == before


def test_mistakes_are_one_line(suite: Path, results: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for arguments, message in (
        (("smokey", "--out", tmp_path / "p"), "Unknown suite 'smokey'. Did you mean 'smoke'?"),
        ((suite, "--out", tmp_path / "p", "--results", tmp_path / "none"), "no results in "),
        ((suite, "--out", tmp_path / "file", "--results", results), "cannot write "),
        ((suite, "--results", results), "Missing option '--out'"),
    ):
        refused = pages(*arguments)
        assert refused.exit_code == 2
        assert refused.stderr.startswith(f"error: {message}")
        assert refused.stderr.count("\n") == 1
