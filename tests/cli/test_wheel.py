"""Wheel and sdist, as a stranger installs them: in a fresh environment, away from the source tree. `make wheel-test`."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import fedbench
from fedbench.scenarios.suite import suite_names

ROOT = Path(__file__).parents[2]


def build(source: Path, target: Path, *what: str) -> Path:
    """The one file that hatchling makes of a source tree."""
    pytest.importorskip("hatchling")
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-d", str(target), *what], cwd=source, check=True)
    (made,) = target.iterdir()
    return made


def test_what_is_in_them(tmp_path: Path) -> None:
    """The wheel holds the package with its suites, and that of the sdist is the same; the sdist no records."""
    wheel, sdist = build(ROOT, tmp_path / "wheel", "-t", "wheel"), build(ROOT, tmp_path / "sdist", "-t", "sdist")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {f"fedbench/_suites/{name}.toml" for name in suite_names()} <= names
    assert {
        "fedbench/__init__.pyi",
        "fedbench/py.typed",
        "fedbench/leaderboard/views.sql",
        "fedbench/leaderboard/marked.sql",
    } <= names
    assert {"fedbench/leaderboard/page/page.html", "fedbench/plugins/templates/suite.toml.txt"} <= names
    assert not [name for name in names if name.startswith(("tests", "leaderboard")) or name.endswith(".parquet")]
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (tree,) = tmp_path.glob("fedbench-*")
    assert {"LICENSE", "README.md", "CITATION.cff", "CHANGELOG.md"} <= {path.name for path in tree.iterdir()}
    assert not list(tree.rglob("*.parquet"))
    again = build(tree, tmp_path / "again", "-t", "wheel")
    assert set(zipfile.ZipFile(again).namelist()) == names


@pytest.mark.slow
def test_installed_away_from_the_source(tmp_path: Path) -> None:
    wheel, env, away = build(ROOT, tmp_path / "dist", "-t", "wheel"), tmp_path / "env", tmp_path / "away"
    away.mkdir()
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "FEDBENCH"))}
    clean |= {"FEDBENCH_CACHE": str(tmp_path / "cache"), "PIP_DISABLE_PIP_VERSION_CHECK": "1"}

    def run(*command: object, code: int = 0) -> str:
        done = subprocess.run(list(map(str, command)), cwd=away, env=clean, capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stdout[-2000:] + done.stderr[-2000:]
        return done.stdout

    run(sys.executable, "-m", "venv", env)
    run(env / "bin" / "python", "-m", "pip", "install", "-q", "-c", ROOT / "constraints.txt", wheel)
    where = run(env / "bin" / "python", "-c", "import fedbench.cli; print(fedbench.cli.__file__)").strip()
    assert Path(where).is_relative_to(env)
    command = env / "bin" / "fedbench"
    assert run(command, "--version") == f"fedbench {fedbench.__version__}\n"
    assert run(command, "run", "smoke").startswith("done: 96 runs: 96 ok, 0 diverged, 0 failed")
    assert "Attacks by ER@10" in run(command, "leaderboard")
    assert run(command, "leaderboard", "--html", "page").endswith(": page/index.html\n")
    assert run(command, "export", "latex", "--document").count(r"\toprule") > 2
    run(command, "new", "attack", "my-attack")
    assert run(command, "check", "./my_attack.py").splitlines()[-1].startswith("passed: ")
    one = ("--only", "model=mf,defense=none", "--seeds", "1")
    assert run(command, "run", "smoke", "--attack", "./my_attack.py", *one).startswith("done: 1 run: 1 ok")
    run(command, "new", "suite", "my-suite")
    assert "18 runs: 18 to run" in run(command, "run", "./my-suite.toml", "--dry-run")
    assert "records are read" not in run(command, "doctor")
