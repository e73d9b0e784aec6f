"""The image of `.devcontainer`: what it says, and its commands one by one, where nothing builds images."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

import fedbench
from fedbench.runs.results import load_results

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / ".devcontainer"
BY_ROOT = "useradd"
"""What only the image's root may do."""


def instructions() -> list[tuple[str, str]]:
    """Those of the Dockerfile, with what they are given."""
    text = (FOLDER / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in lines)]


def test_it_is_run_by_a_user_without_rights() -> None:
    found = instructions()
    names = [name for name, _ in found]
    assert names[0] == "FROM"
    (user,) = [rest for name, rest in found if name == "USER"]
    assert user != "root"
    above = [rest for name, rest in found[: names.index("USER")] if name == "RUN"]
    assert [line.split()[0] for line in above] == [BY_ROOT]
    assert above[0].endswith(f" {user}")
    assert json.loads((FOLDER / "devcontainer.json").read_text(encoding="utf-8"))["remoteUser"] == user


def test_what_is_copied_is_there() -> None:
    lines = (FOLDER / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "*"
    assert [line for line in lines if line.startswith("!") and not (ROOT / line[1:]).exists()] == []
    minor = re.search(r'requires-python = ">=(.+?)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert minor is not None
    assert f"python:{minor[1]}" in dict(instructions())["FROM"]


def test_what_a_devcontainer_installs_are_extras() -> None:
    held = json.loads((FOLDER / "devcontainer.json").read_text(encoding="utf-8"))
    assert (FOLDER / held["build"]["dockerfile"]).is_file()
    assert (FOLDER / held["build"]["context"]).resolve() == ROOT
    extras = re.search(r"\[(.+)\]", held["postCreateCommand"])
    assert extras is not None
    assert f"'.[{extras[1]}]'" in (ROOT / "Makefile").read_text(encoding="utf-8"), "as `make test` does"


@pytest.mark.slow
def test_its_commands(tmp_path: Path) -> None:
    """Every RUN below USER, and what the image is then asked for; downloads torch."""
    home, source = tmp_path / "home", tmp_path / "home" / "source"
    source.mkdir(parents=True)
    for line in (FOLDER / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines():
        path = ROOT / line[1:]
        if line.startswith("!") and path.is_dir():
            shutil.copytree(path, source / path.name, ignore=shutil.ignore_patterns("__pycache__"))
        elif line.startswith("!"):
            shutil.copy(path, source)
    env = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "FEDBENCH", "VIRTUAL_ENV"))}
    found = instructions()
    for name, rest in found:
        if name == "ENV":
            env |= {key: value for key, _, value in (pair.partition("=") for pair in rest.split()) if key != "PATH"}
    env |= {"PATH": f"{home / 'venv' / 'bin'}{os.pathsep}{os.environ['PATH']}", "HOME": str(home)}

    def run(*command: str) -> str:
        done = subprocess.run(command, cwd=home, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
        return done.stdout

    commands = [rest for name, rest in found if name == "RUN" and not rest.startswith(BY_ROOT)]
    assert len(commands) >= 3
    for command in commands:
        said = run("/bin/sh", "-c", command)
    assert f"version: {fedbench.__version__}" in said
    assert "installed in: ~/venv/" in said
    (entry,) = [json.loads(rest) for name, rest in found if name == "ENTRYPOINT"]
    (default,) = [json.loads(rest) for name, rest in found if name == "CMD"]
    assert "Usage: fedbench" in run(*entry, *default)
    run(*entry, "run", "smoke", "--only", "model=mf,attack=pieck-uea,defense=none", "--seeds", "1")
    assert load_results(home / "results").num_rows == 2
