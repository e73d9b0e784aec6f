"""What is made of the published records agrees with them."""

from __future__ import annotations

import importlib.util
import itertools
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from typer.testing import CliRunner

from fedbench.cli import app
from fedbench.leaderboard import Database
from fedbench.leaderboard.board import make_board
from fedbench.leaderboard.render import markdown

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def publish() -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location("publish", ROOT / "leaderboard" / "publish.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(ROOT / "leaderboard"))  # where its neighbours are found
    try:
        spec.loader.exec_module(module)
        yield module
    finally:
        sys.path.remove(str(ROOT / "leaderboard"))


def test_readme_and_board_say_what_the_records_do(publish: ModuleType) -> None:
    board = make_board(Database(publish.RECORDS, 10))
    assert (ROOT / "leaderboard" / "LEADERBOARD.md").read_text(encoding="utf-8") == markdown(board)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert publish.filled(readme, publish.blocks(board), "README.md") == readme
    for finding in board.findings:
        assert publish.finding_line(finding) in readme


@pytest.mark.parametrize("name", ["ADAPTIVE.md", "UNTARGETED.md", "VISUAL.md"])
def test_boards_of_other_suites_say_what_the_records_do(publish: ModuleType, name: str) -> None:
    assert sorted(publish.BOARDS) == ["ADAPTIVE.md", "UNTARGETED.md", "VISUAL.md"]
    assert (ROOT / "leaderboard" / name).read_text(encoding="utf-8") == publish.board_of(name)


def test_notes_say_what_the_records_do(publish: ModuleType) -> None:
    found = publish.in_notes()
    notes = (ROOT / "leaderboard" / "NOTES.md").read_text(encoding="utf-8")
    assert publish.filled(notes, found, "NOTES.md") == notes
    assert found["held out"].count("| yes |") >= 8


def test_the_commands_that_ask_the_records_are_answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each command of the page on questions; what is written goes elsewhere."""
    page = (ROOT / "fedbench/docs/pages/howto/questions.md").read_text(encoding="utf-8")
    asked = [shlex.split(line)[1:] for line in page.splitlines() if line.startswith("fedbench ")]
    assert len(asked) >= 8
    monkeypatch.chdir(ROOT)
    if "--out" in str(asked):
        pytest.importorskip("matplotlib")
    for words in asked:
        out = [str(tmp_path / word) if before == "--out" else word for before, word in itertools.pairwise(["", *words])]
        done = CliRunner().invoke(app, out)
        assert done.exit_code == 0, (words, done.output)
        if "--out" in words:
            assert Path(out[out.index("--out") + 1]).stat().st_size > 1000
        elif words[0] == "leaderboard" and not {"--brief", "--findings"}.intersection(words):
            (defense,) = re.findall(r"defense=([\w-]+)", " ".join(words))
            assert done.stdout.splitlines()[2].startswith(f"The worst attack of {defense}")


def test_a_readme_without_a_mark_is_not_passed_over(publish: ModuleType) -> None:
    assert (
        publish.filled("a\n<!-- x -->\nold\n<!-- end -->\nb", {"x": "new"}, "f")
        == "a\n<!-- x -->\nnew\n<!-- end -->\nb"
    )
    with pytest.raises(SystemExit, match=r"README\.md has no <!-- y --> with an end"):
        publish.filled("a", {"y": "new"}, "README.md")


def test_the_worst_attack_has_the_highest_mean_of_those_with_most_seeds(publish: ModuleType) -> None:
    """Hand-computed: means of 50 and 40; one seed of 90 does not count beside two."""
    worst = publish.adaptive._worst
    assert worst({"a": [60.0, 40.0], "b": [30.0, 50.0], "c": [90.0]}) == "50.0 `a` (60, 40)"
    assert worst({}) == "-"


def test_cells_of_newer_entries(publish: ModuleType) -> None:
    """Hand-computed; seeds that one of the compared defenses lacks do not count, and a broken run is marked."""
    cell = publish.entries._cell
    half = {"status": "ok", "er": 0.5, "broken": False}
    assert cell([half, {"status": "ok", "er": 0.7, "broken": True}], "er") == "60.0 (50, 70) †"
    assert cell([half | {"er": 0.123}], "er") == "12.3"
    assert cell([half, {"status": "diverged", "er": None, "broken": True}], "er") == "50.0 ‡"
    assert cell([{"status": "diverged", "er": None, "broken": True}], "er") == "‡"
    assert cell(None, "er") == "-"
    found = {("mf", name, "a"): [{"seed": seed} for seed in (0, 1)] for name in publish.entries.DEFENSES}
    found["mf", "none", "a"].append({"seed": 2})
    assert publish.entries._common(found, "mf", "none", "a") == [{"seed": 0}, {"seed": 1}]
