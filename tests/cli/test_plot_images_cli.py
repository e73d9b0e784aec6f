"""``fedbench plot images`` and ``plot similarity``: the pictures, and one line for what cannot be drawn."""

from __future__ import annotations

from pathlib import Path

import pytest
from shown_images import made, scenario
from typer.testing import CliRunner, Result

from fedbench.cli import app


def plot(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["plot", *map(str, arguments)])


def test_both_pictures(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    name, out = made(tmp_path / "results", scenario()), tmp_path / "new" / "a.svg"
    there = ("--results", tmp_path / "results", "--out", out)
    done = plot("images", name[:6], *there, "--purifier", "blur", "--purifier", "bit-depth:bits=2", "--targets", 1)
    assert (done.exit_code, done.stdout, done.stderr) == (0, "", f"written to {out}\n")
    text = out.read_text()
    assert [text.count(f"<!-- {title} -->") for title in ("original", "blur", "bit-depth", "difference x 8")] == [
        1,
        1,
        1,
        3,
    ]
    done = plot("similarity", name, *there)
    assert (done.exit_code, done.stdout, done.stderr) == (0, "", f"written to {out}\n")
    text = out.read_text()
    for label in (
        "clean images (40)",
        "psmu-v, eps 4, vncf (2 items, AUC 1.00)",
        "threshold 0.750",
        "lowest clean 0.800",
    ):
        assert f"<!-- {label} -->" in text


@pytest.mark.parametrize("kind", ["images", "similarity"])
def test_mistakes_are_one_line(kind: str, tmp_path: Path) -> None:
    def refused(*arguments: object) -> str:
        result = plot(kind, *arguments)
        assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1)
        return result.stderr.removeprefix("error: ").strip()

    name = made(tmp_path, scenario(), uploads=[])
    there = ("--results", tmp_path, "--out", tmp_path / "a.png")
    assert refused(*there).startswith("Missing argument 'RUN...'")
    assert refused(name, "--out", tmp_path / "a.gif").endswith("must end in .png, .svg or .pdf.")
    pytest.importorskip("matplotlib")
    assert refused("x", *there).startswith(f"no run 'x' in {tmp_path}.")
    assert refused(name, *there) == f"run {name} has no images: attack 'psmu-v' showed none."
