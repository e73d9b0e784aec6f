"""Records are read, ranked and rendered where torch is not installed; what needs it says so in a line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from records import defended, record, scenario, write

from fedbench.without_torch import MISSING

HIDDEN = """
import sys
from importlib.machinery import PathFinder

real = PathFinder.find_spec
hidden = {"torch", "diffusers", "safetensors", "matplotlib"}


def find_spec(name, path=None, target=None):
    return None if name.partition(".")[0] in hidden else real(name, path, target)


PathFinder.find_spec = find_spec
"""


def run_without(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", HIDDEN + code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


COMMANDS = """
import json

from typer.testing import CliRunner

from fedbench.cli import app

said = [CliRunner().invoke(app, each) for each in json.loads(sys.argv[1])]
print(json.dumps([[each.exit_code, each.stdout, each.stderr] for each in said]))
"""


def commands(*each: tuple[object, ...]) -> list[tuple[int, str, str]]:
    """Exit code, output and errors of commands, one after the other in one process."""
    done = run_without(COMMANDS, json.dumps([list(map(str, arguments)) for arguments in each]))
    assert done.returncode == 0, done.stderr
    return [tuple(said) for said in json.loads(done.stdout)]


@pytest.fixture
def results(tmp_path: Path) -> Path:
    attacks = {"a-ra": 0.5, "random": 0.1}
    runs = [record(scenario(), seed) for seed in range(2)]
    for seed in range(2):
        runs += [record(scenario(attack), seed, er=er + seed / 9) for attack, er in attacks.items()]
        runs += [defended("norm-bound", attack, seed, er=0.1, hr=0.45) for attack in ("none", *attacks)]
    return write(tmp_path / "results", *runs)


def test_records_are_read_ranked_and_rendered(results: Path, tmp_path: Path) -> None:
    there = ("--results", results)
    page, latex, bibtex, sql, compared, listed, shown, planned = commands(
        ("leaderboard", "--only", "dataset=longtail-*", "--html", tmp_path / "page", *there),
        ("export", "latex", *there),
        ("export", "bibtex", *there),
        ("sql", "select count(*) from runs", *there),
        ("compare", "a-ra", "random", *there),
        ("list", "attacks"),
        ("show", "pieck-uea"),
        ("run", "smoke", "--dry-run", *there),
    )
    for (code, out, err), expected in (
        (page, "page/index.html"),
        (latex, "norm-bound"),
        (bibtex, "rong2022poisoning"),
        (sql, "12"),
        (compared, "a-ra"),
        (listed, "pieck-uea"),
        (shown, "popular_items"),
        (planned, "96 runs: 96 to run"),
    ):
        assert code == 0, err
        assert expected in out
    assert (tmp_path / "page" / "index.html").stat().st_size > 100_000


def test_what_needs_it_says_so(tmp_path: Path) -> None:
    for arguments in (("run", "smoke", "--results", tmp_path), ("check", "a-ra")):
        ((code, out, err),) = commands(arguments)
        assert (code, out, err) == (2, "", f"error: {MISSING}\n")


def test_dataframes(results: Path) -> None:
    code = "import fedbench\nloaders = (fedbench.load_results, fedbench.load_leaderboard)"
    code += "\nfor load in loaders:\n    print(load(sys.argv[1]).num_rows)"
    assert run_without(code, results).stdout == "12\n3\n"


def test_where_it_is_nothing_stands_in_for_it() -> None:
    code = "from fedbench.without_torch import *\nstand_in_for_torch()\nneed_torch()\n"
    code += "import torch\nprint(torch.ones(2).sum().item())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "2.0\n", done.stderr
