"""Every command on the pages of the documentation runs, page by page and in order, in an empty folder with embedded data.

What cannot be had here (:data:`NOT_RUN`) is parsed: its command, arguments and options are those that there are.

    FEDBENCH_TASKS=leaderboard/TASKS.md python -m pytest -m slow tests/cli/test_docs_commands.py

writes down how many commands each page takes, and how long they are at work.
"""

from __future__ import annotations

import importlib
import os
import random
import re
import resource
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest
import typer.main

from fedbench.cli import app

pytest.importorskip("mkdocs")
pytest.importorskip("matplotlib")

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "fedbench" / "docs"
PAGES = sorted(path.relative_to(DOCS / "pages").as_posix() for path in (DOCS / "pages").rglob("*.md"))

NOT_RUN = {
    r"fedbench data get ": "downloads",
    r"pip install |python3? -m venv|source |git clone|make ": "installs: tests/cli/test_wheel.py",
    r"--executor (slurm|ray)": "needs a cluster: tests/cli/test_machines.py",
    r"--device cuda": "needs a GPU",
    r"/shared/results": "needs a file system of several machines",
    r"fedbench run (core|adaptive)": "needs downloaded data, and hours",
    r"leaderboard/results": "reads the published records: tests/unit/leaderboard/test_published.py",
    r"fedbench (submit|verify)|leaderboard/publish": "needs all runs of a slice of core: tests/submission",
    r"fedbench data import \S+ ~": "needs the published files: tests/unit/data",
    r"fedbench (run smoke-visual|plot images)": "minutes, and a run's id: tests/cli/test_plot_images_cli.py",
}
"""What is parsed and not run, and why."""
SHORTER = ("--seeds", "1"), ("--set", "epochs=3")
"""Options that a `fedbench run` gets which leaves them open."""


TASKS_HEAD = """# What a researcher wants, in commands and seconds

Made by `FEDBENCH_TASKS=leaderboard/TASKS.md python -m pytest -m slow tests/cli/test_docs_commands.py`, which runs the pages
of the documentation (`make docs`) one by one, each in an empty folder with embedded data; `fedbench run` with one seed and
three epochs where the page leaves them open. Commands and cells are those of the page; not run are installation, clusters,
downloads and the whole of `core`. Seconds are of the processor, all processes together.

| page | title | commands, cells | not run | seconds |
|---|---|---|---|---|
"""


class Block(NamedTuple):
    """Code of a page: its language (``sh`` of shell), the name of the file that it is, if any, and its lines."""

    language: str
    title: str
    text: str


def blocks(markdown: str) -> Iterator[Block]:
    """The code of a page, fenced or indented, in order; of what is indented only lines that begin with a command."""
    lines = iter(markdown.splitlines())
    for line in lines:
        fence = re.match(r' *```(\w*)(?: title="(.+)")?', line)
        if fence:
            held = []
            for inside in lines:
                if inside.strip() == "```":
                    break
                held.append(inside)
            indent = len(line) - len(line.lstrip())
            text = "\n".join(each[indent:] for each in held)
            yield Block("sh" if fence[1] == "bash" else fence[1], fence[2] or "", text)
        elif re.match(r" {4,}(fedbench|pip|pytest|make|git|python3?|source) ", line):
            while line.endswith("\\"):
                line = line.removesuffix("\\") + next(lines).strip()
            yield Block("sh", "", line.strip())


def commands(block: Block) -> list[str]:
    """The commands of a block of shell, each on one line and without its comment."""
    lines = block.text.replace("\\\n", " ").splitlines()
    return [line for line in (re.sub(r"\s+#.*", "", each).strip() for each in lines) if line]


def leaf(words: list[str]) -> Any:
    """The context of a command, its options parsed; raises what click raises when they are none."""
    command: Any = typer.main.get_command(app)
    context = command.make_context("fedbench", words[1:])
    while hasattr(command, "commands"):
        rest = [*getattr(context, "_protected_args", ()), *context.args]
        name, command, rest = command.resolve_command(context, rest)
        context = command.make_context(name, rest, parent=context)
    return context


@pytest.fixture(scope="module")
def hook() -> Iterator[ModuleType]:
    """The hook of the build."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(DOCS))
        yield importlib.import_module("hook")


def code(hook: ModuleType, page: str) -> list[Block]:
    """What stands on a page as it is built."""
    if page.startswith("reference/"):
        return list(blocks(hook.reference.PAGES[Path(page).stem]()))
    return list(blocks(hook.filled((DOCS / "pages" / page).read_text(encoding="utf-8"), page)))


def programs(folder: Path) -> dict[str, str]:
    """An environment in which `fedbench`, `pytest` and `python` are those that are tested, and data are the embedded ones."""
    (folder / "bin").mkdir()
    for name in ("fedbench", "pytest", "python"):
        module = "" if name == "python" else f"-m {name}"
        (folder / "bin" / name).write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {module} "$@"\n')
        (folder / "bin" / name).chmod(0o755)
    kept = {key: value for key, value in os.environ.items() if not key.startswith("FEDBENCH")}
    path = os.pathsep.join([str(folder / "bin"), os.environ["PATH"]])
    return kept | {
        "PATH": path,
        "FEDBENCH_CACHE": str(folder / "cache"),
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
    }


def runnable(line: str) -> str:
    """A command as it is run here: a `fedbench run` with fewer seeds and epochs, where it does not say how many."""
    if line.startswith("fedbench run ") and "--dry-run" not in line:
        for option, value in SHORTER:
            if option not in line or (option == "--set" and "epochs=" not in line):
                line += f" {option} {value}"
    return line


@pytest.fixture(scope="module")
def tasks() -> Iterator[list[str]]:
    """The lines of the table of pages, written in the end to where FEDBENCH_TASKS says."""
    lines: list[str] = []
    yield lines
    if os.environ.get("FEDBENCH_TASKS"):
        (ROOT / os.environ["FEDBENCH_TASKS"]).write_text(TASKS_HEAD + "\n".join(lines) + "\n", encoding="utf-8")


def children() -> float:
    """Seconds of the processor of all processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_commands_of(hook: ModuleType, page: str, tmp_path: Path, tasks: list[str]) -> None:
    begin, done, left = children(), 0, 0
    env, folder = programs(tmp_path), tmp_path / "here"
    folder.mkdir()
    random.seed(0)
    rows = [f"u{u},i{i},{random.randint(2, 5)},{1_600_000_000 + n}" for n, (u, i) in enumerate(
        (u, i) for u in range(80) for i in random.sample(range(50), 14)
    )]  # fmt: skip
    (folder / "ratings.csv").write_text("\n".join(["user,item,rating,time", *rows]), encoding="utf-8")

    def run(*command: str) -> None:
        done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False, timeout=900)
        assert done.returncode == 0, f"{command[-1]}\n{done.stdout[-1500:]}\n{done.stderr[-1500:]}"

    cells: list[str] = []
    for block in code(hook, page):
        if block.title:
            (folder / block.title).write_text(block.text, encoding="utf-8")
        elif block.language == "python" and not re.match(
            r"(def|class) ", block.text
        ):  # parts are held by their templates
            cells.append(block.text)
            run(sys.executable, "-W", "error", "-c", "\n".join(cells))
            done += 1
        elif block.language == "sh":
            for line in commands(block):
                if any(re.search(pattern, line) for pattern in NOT_RUN):
                    left += 1
                else:
                    run("bash", "-c", runnable(line))
                    done += 1
    title = re.search(r"^# (.+)$", (DOCS / "pages" / page).read_text(encoding="utf-8"), re.MULTILINE)
    assert title is not None, page
    tasks.append(f"| {page} | {title[1]} | {done} | {left} | {children() - begin:.0f} |")


@pytest.mark.parametrize("page", [*PAGES, "reference/commands.md"])
def test_options_of(hook: ModuleType, page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of what is not run; and of the examples of `--help`, of which the pages run what can be had."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for block in code(hook, page):
        for line in commands(block) if block.language == "sh" else ():
            for part in re.split(r" && ", line):
                if part.startswith("fedbench "):
                    assert leaf(shlex.split(part)).command, part


def test_commands_within_sentences_are_those_that_there_are(hook: ModuleType) -> None:
    seen = 0
    for page in PAGES:
        text = hook.filled((DOCS / "pages" / page).read_text(encoding="utf-8"), page)
        text = re.sub(r"^ *```.*?^ *```$", "", text, flags=re.MULTILINE | re.DOTALL)
        for line in re.findall(r"`fedbench\s([a-z][^`]*)`", text):
            words = line.split()
            command: Any = typer.main.get_command(app)
            while hasattr(command, "commands") and words:
                command = command.commands[words.pop(0)]
            known = {option for each in command.params for option in each.opts}
            assert {word.partition("=")[0] for word in words if word.startswith("--")} <= known, line
            seen += 1
    assert seen > 20


def test_what_is_not_run_is_on_a_page(hook: ModuleType) -> None:
    lines = [line for page in PAGES for block in code(hook, page) if block.language == "sh" for line in commands(block)]
    assert [pattern for pattern in NOT_RUN if not any(re.search(pattern, line) for line in lines)] == []
    left = [line for line in lines if not any(re.search(pattern, line) for pattern in NOT_RUN)]
    assert len(left) > len(lines) / 2


def test_a_wrong_option_is_seen() -> None:
    (shown,) = blocks("    fedbench run smoke --sets epochs=3   # no such option\n")
    (line,) = commands(shown)
    assert line == "fedbench run smoke --sets epochs=3"
    with pytest.raises(Exception, match="No such option"):
        leaf(shlex.split(line))
