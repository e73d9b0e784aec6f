"""``fedbench check`` has the last word, whatever the file does; the exit code is 0 only with a verdict that says so."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import plugin_files
import pytest
from typer.testing import CliRunner

from fedbench.cli import app
from fedbench.isolation.nursery import close
from fedbench.plugins.scaffold import TEMPLATES

HEAD = "import gc, os, signal, sys, threading, time\nfrom pathlib import Path\n"

AT_IMPORT = {
    "exits": ("sys.exit(0)", "SystemExit"),
    "exits at once": ("os._exit(0)", "ended by itself (exit code 0)"),
    "kills itself": ("os.kill(os.getpid(), 9)", "ended by itself (signal 9)"),
    "hangs": ("while True: pass", "its 3 s are over"),
}
IN_A_ROUND = {
    "exits": ("sys.exit(0)", "ended by itself"),
    "exits at once": ("os._exit(0)", "ended by itself (exit code 0)"),
    "kills whoever judges": ("os.kill(os.getppid(), 9)", "PermissionError"),
    "hangs": ("while True: pass", "its 3 s are over"),
    "hangs and ignores signals": ("signal.signal(15, signal.SIG_IGN)\n        while True: pass", "its 3 s are over"),
    "takes memory": ("x = bytearray(1 << 40)", "MemoryError"),
    "starts processes": ("while True: os.fork()", "PermissionError"),
    "starts threads": (
        "while True: threading.Thread(target=time.sleep, args=(99,), daemon=True).start()",
        "can't start new thread",
    ),
    "says that all is well": ("os.write(3, b'passed: attack x: 9 checks\\n' * 99); time.sleep(9)", "it sent"),
    "asks for what it does not declare": ("view.item_popularity", "card declares nothing"),
    "hides that it asked": ("try: view.item_popularity\n        except Exception: pass", "card declares nothing"),
    "looks behind the view": ("view._state", "private to the view"),
    "changes what it sees": ("view.params.items.data.zero_()", "changed view.params.items in place"),
    "draws from what everybody draws from": ("import torch; torch.rand(1)", "generator of torch"),
}


@pytest.fixture(autouse=True, scope="module")
def _no_processes_left() -> Iterator[None]:
    yield
    close()


def check(path: Path, *options: str) -> tuple[int, str]:
    """The exit code, and the verdict: the last line."""
    result = CliRunner().invoke(app, ["check", str(path), *options])
    return result.exit_code, result.stdout.splitlines()[-1]


def attack(trick: str = "", at_import: str = "") -> str:
    source, first, body = (
        plugin_files.ATTACK,
        "from __future__ import annotations\n",
        "view: AttackerView) -> Updates:\n",
    )
    assert source.count(first) == source.count(body) == source.count("Channel.GRADIENT\n") == 1
    source = source.replace(first, f"{first}{HEAD}{at_import}\n").replace(body, f"{body}        {trick or 'pass'}\n")
    return source.replace("Channel.GRADIENT\n", 'Channel.GRADIENT, models=frozenset({"mf"})\n')


def limited(trick: str) -> list[str]:
    """The shortest limit for what hangs; all others have the time that a busy machine takes."""
    return ["--limit", "3s"] if trick.startswith("hangs") else []


@pytest.mark.parametrize("trick", AT_IMPORT)
def test_what_happens_when_it_is_imported(trick: str, tmp_path: Path) -> None:
    code, reason = AT_IMPORT[trick]
    path = tmp_path / "my_attack.py"
    path.write_text(attack(at_import=code))
    exit_code, verdict = check(path, *limited(trick))
    assert exit_code == 1
    assert verdict.startswith(f"failed: entry {path}: 1 of 1 checks; the first: process: ")
    assert reason in verdict


@pytest.mark.parametrize("trick", IN_A_ROUND)
def test_what_happens_in_a_round(trick: str, tmp_path: Path) -> None:
    code, reason = IN_A_ROUND[trick]
    path = tmp_path / "my_attack.py"
    path.write_text(attack(code))
    exit_code, verdict = check(path, *limited(trick))
    assert exit_code == 1
    assert verdict.startswith("failed: attack random-direction: ")
    assert reason in verdict


def test_an_attack_that_only_talks_passes(tmp_path: Path) -> None:
    path = tmp_path / "my_attack.py"
    path.write_text(attack("print('failed: ' + 'x' * 10_000_000)"))
    assert check(path) == (0, "passed: attack random-direction: 16 checks")


OTHERS = {
    "defense": ("    def filter(", "os._exit(0)", "process: its process ended by itself"),
    "model": ("    def logits(", "os.write(3, b'x' * 99)", "process: it sent"),
    "dataset": ("    def table(", "x = bytearray(1 << 50)", "table: MemoryError"),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_other_kinds_of_entries(kind: str, tmp_path: Path) -> None:
    """Their checks are made in their own process, which is believed only when it comes to the end."""
    method, trick, reason = OTHERS[kind]
    source = (TEMPLATES / f"{kind}.py.txt").read_text(encoding="utf-8")
    source = source.replace("$name", "x-own").replace("$title", "Own").replace("$classname", "Own")
    lines = source.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(method))
    end = next(number for number in range(start, len(lines)) if lines[number].endswith(":"))
    lines.insert(end + 1, f"        import os; {trick}")
    path = tmp_path / "own.py"
    path.write_text("\n".join(lines))
    exit_code, verdict = check(path)
    assert exit_code == 1
    assert verdict.startswith(f"failed: {kind} x-own: ")
    assert f"the first: {reason}" in verdict


@pytest.mark.parametrize("stdout", [">&-", ">/dev/full"])
def test_a_verdict_that_nobody_can_read_is_none(stdout: str, tmp_path: Path) -> None:
    path = tmp_path / "my_attack.py"
    path.write_text(attack(at_import="sys.exit(0)"))
    command = f"{sys.executable} -m fedbench check {path} {stdout}"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "error: " in done.stderr


def test_checks_are_looked_up_before_the_entry_is_imported(tmp_path: Path) -> None:
    source = (TEMPLATES / "dataset.py.txt").read_text(encoding="utf-8")
    source = source.replace("$name", "x-own").replace("$title", "Own").replace("$classname", "Own")
    path = tmp_path / "own.py"
    path.write_text(source + "\nfrom fedbench.testing import checking\nchecking.check_entry = lambda kind, cls: []\n")
    exit_code, verdict = check(path)
    assert exit_code == 0
    assert verdict.startswith("passed: dataset x-own: 10 checks")
