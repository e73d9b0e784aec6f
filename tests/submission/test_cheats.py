"""Who tries to know, to do or to decide what an attack must not: one line for each says what stops it, and where.

The columns: a run in the run's own process, one with ``--isolated``, ``check``, and ``verify`` of what the first run stated.
"same" means that no number differs from those of an attack that does nothing, "moves" that they do: a process that is shared
cannot keep its numbers from whoever means it. Nothing in this table moves a number in a process of its own.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cheating
import pytest
import run_in_process

from fedbench.attacks import ATTACKS
from fedbench.errors import FedbenchError
from fedbench.isolation.entries import isolated_class
from fedbench.isolation.limits import Limits
from fedbench.isolation.nursery import close
from fedbench.submission.compare import reasons
from fedbench.testing import attacks, check_attack

SHARED = Path(__file__).parents[3] / "shared" / "cases" / "cheats"
ASKED = ("card declares nothing", "card declares nothing", "threat model: ", "no record")
SAME = ("same", "same", "passed", "same")
GONE = ("exit code 0", "ended by itself (exit code 0)", "ended by itself (exit code 0)", "no record")
HUNG = ("hangs", "did not answer within", "did not answer within", "no record")
PRIVATE = ("same", "private to the view", "private to the view", "differs")
UNSEEN = ("same", "same", "in place", "same")
REFUSED = ("server refuses", "server refuses", "shapes: ", "no record")

LINES = {
    # what it does: (run, run --isolated, check, verify)
    "nothing": SAME,
    "asks": ASKED,
    "hides that it asked": ASKED,
    "reads what is private": PRIVATE,
    "reads the dictionary": PRIVATE,
    "card of the instance": ASKED,
    "card that changes": ("changed its card", "same", "passed", "no record"),
    "card that lies": (
        "must be a plain AttackCard",
        "must be a plain AttackCard",
        "must be a plain AttackCard",
        "no record",
    ),
    "name that is more than a name": ("name must be plain", "name must be plain", "name must be plain", "no record"),
    "stack": ("no attribute 'users'", "no attribute 'users'", "no attribute 'users'", "no record"),
    "garbage": ("moves", "StopIteration", "StopIteration", "differs"),
    "data": ("same|DataError", "FEDBENCH_DATA", "FEDBENCH_DATA", "differs|no record"),
    "replaces code": ("was replaced", "same", "passed", "no record"),
    "replaces what it is shown": SAME,
    "verify-aware": SAME,
    "rows that lie": ("class that the engine does not know",) * 3 + ("no record",),
    "client of another": REFUSED,
    "rows repeated": REFUSED,
    "common gradient": ("server refuses", "server refuses", "server refuses", "no record"),
    "weights": REFUSED,
    "not a number": REFUSED,
    "in place": ("in place", "same", "in place", "no record"),
    "in place, unseen": UNSEEN,
    "in place, later": ("same", "same", "in place|passed", "same"),
    "in the storage": UNSEEN,
    "other targets": UNSEEN,
    "behaves while checked": SAME,
    "mode of torch": ("how torch computes", "float64", "float64", "no record"),
    "environment": SAME,
    "at the end": SAME,
    "exits": ("tried to end the process", "ended by itself", "ended by itself", "no record"),
    "exits at once": GONE,
    "kills": ("killed whoever", "PermissionError", "PermissionError", "no record"),
    "exits when imported": ("SystemExit", "SystemExit", "SystemExit", "no record"),
    "exits at once when imported": GONE,
    "hangs": HUNG,
    "hangs when imported": HUNG,
    "floods the output": SAME,
    "steers the terminal": ("same", "cannot be seen", "cannot be seen", "differs"),
    "long words": SAME,
}

FILES = {
    # file of the shared folder: the kind above that it is of, or its own line
    "null": "nothing",
    "a1_undeclared": "asks",
    "a1b_swallow": "hides that it asked",
    "a2_underscore": "reads what is private",
    "a3_dict": "reads the dictionary",
    "a4_instance_card": ("card declares nothing", "must be the value", "must be the value", "no record"),
    "a5_getframe": "stack",
    "a6_gc": "garbage",
    "a4b_card_mutated": ("changed its card", "card declares nothing", "card declares nothing", "no record"),
    "a7_load_data": SAME,  # longtail-small is no secret: it is generated, and the file does nothing with it
    "b1_patch_evaluator": ("ImportError", "ImportError", "ImportError", "no record"),  # of the layout of former days
    "b3_inplace": "in place",
    "b4_inplace_data": "in place, unseen",
    "b5_inplace_numpy": "in place, unseen",
    "b6_inplace_storage": "in the storage",
    "b9_targets": "other targets",
    "b9b_targets_late": "other targets",
    "b10_model_patched": "replaces what it is shown",
    "b11_lying_rows": "rows that lie",
    "b12_blame_honest": "client of another",
    "b13_duplicate_rows": "rows repeated",
    "b14_common": "common gradient",
    "b18_evades_check": "behaves while checked",
    "b19_thread": "nothing",
    "b20_threads": "in place, later",
    "b21_atexit_results": "at the end",
    "b22_sysexit": "exits",
    "b22b_osexit": "exits at once",
    "b22c_kill_parent": "kills",
    "b22d_import_osexit": "exits at once when imported",
    "b22e_import_exit": "exits when imported",
    "b23_hang": "hangs",
    "b23b_hang_import": "hangs when imported",
    "b23c_hang_sigterm": "hangs",
    "b25_escapes": "steers the terminal",
    "b26_docstring": "long words",
    "b26b_docstring_200k": "long words",
    "b27_str_subclass": ("is taken by", "name must be plain", "name must be plain", "no record"),
    "b28_card_subclass": "card that lies",
    "b30_environ": "environment",
    "b31_spam": "floods the output",
    "b32_upload_wrong_dtype": "not a number",
    "b33_weights": "weights",
    "v1_verify_aware": "verify-aware",
}


@dataclass
class InProcess:
    """The processes in which files are imported and run, begun anew where a file has ended them."""

    process: subprocess.Popen[str] | None = None

    def __call__(self, path: Path) -> dict[str, Any]:
        if self.process is None:
            command = [sys.executable, run_in_process.__file__]
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{path}\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if line:
            found: dict[str, Any] = json.loads(line)
            return found
        self.end()
        return {"ended": "killed whoever began it"}

    def end(self) -> None:
        if self.process is not None:
            self.process.communicate()
            self.process = None


@pytest.fixture(scope="module")
def in_process() -> Iterator[InProcess]:
    found = InProcess()
    yield found
    found.end()


@pytest.fixture(scope="module")
def nothing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """What an isolated attack that does nothing gives."""
    path = tmp_path_factory.mktemp("nothing") / "null.py"
    path.write_text(cheating.source("nothing"))
    yield isolated(path, Limits())
    close()


def isolated(path: Path, limits: Limits) -> dict[str, Any]:
    """The row of the same run with the attack in a process of its own."""
    cls = isolated_class(path, path.read_bytes(), hashlib.sha256(path.read_bytes()).hexdigest(), limits)
    with ATTACKS.lent(cls.card.name, cls):
        row = run_in_process.row_of(cls.card.name)
    assert row["isolation"] != "none"
    return row


def word(found: dict[str, Any], nothing: dict[str, Any]) -> str:
    """What came of a run, in a word."""
    row = found.get("row")
    if row is None:
        return str(found["ended"])
    if row["status"] != "ok":
        return str(row["error"])
    return "same" if row["curve"] == nothing["curve"] else "moves"


def tried(path: Path, line: tuple[str, ...], in_process: InProcess, nothing: dict[str, Any]) -> None:
    limits = Limits(seconds=1, start=2, total=3) if run_in_process.hangs(path) else Limits(seconds=30)
    stated = in_process(path)
    again: dict[str, Any] = {}
    found = [word(stated, nothing)]
    try:
        again = {"row": isolated(path, limits)}
        source = path.read_bytes()
        cls = isolated_class(path, source, hashlib.sha256(source).hexdigest(), limits)
        failed = [each for each in check_attack(cls, models=["mf"]) if not each.ok]
        found += [word(again, nothing), f"{failed[0].name}: {failed[0].what}" if failed else "passed"]
    except FedbenchError as error:
        found += [str(error), str(error)]
    if "row" not in stated or stated["row"]["status"] != "ok":
        found.append("no record")
    elif "row" not in again or list(reasons(stated["row"], [again["row"]])):
        found.append("differs")
    else:
        found.append("same")
    for column, is_so, expected in zip(("run", "run --isolated", "check", "verify"), found, line, strict=True):
        assert any(each in is_so for each in expected.split("|")), (column, is_so, expected)
    assert found[1] != "moves"


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("EPOCHS", "WHOLE", "ROUNDS"):
        monkeypatch.setattr(attacks, name, 1)


@pytest.mark.parametrize("kind", LINES)
def test_one_of_each_kind(kind: str, tmp_path: Path, in_process: InProcess, nothing: dict[str, Any]) -> None:
    path = tmp_path / f"{kind.replace(' ', '_')}.py"
    path.write_text(cheating.source(kind))
    tried(path, LINES[kind], in_process, nothing)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared cases are not beside this checkout")
@pytest.mark.parametrize("name", FILES)
def test_shared_files(name: str, in_process: InProcess, nothing: dict[str, Any]) -> None:
    line = FILES[name]
    tried(SHARED / f"{name}.py", LINES[line] if isinstance(line, str) else line, in_process, nothing)


def test_every_kind_and_file_has_a_line() -> None:
    assert set(LINES) == set(cheating.KINDS)
    if SHARED.is_dir():
        assert {path.stem for path in SHARED.glob("*.py")} == set(FILES)
