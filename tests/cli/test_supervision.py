"""How a command went is what its process says, not how it ends."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import plugin_files
import pytest

from fedbench.cli.supervision import needed

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
ENDS = {
    "sys.exit(0)": (0, ""),
    "sys.exit(2)": (2, ""),
    "(atexit.register(os._exit, 0), sys.exit(1))": (1, ""),
    "os._exit(0)": (1, "failed: the process that imports the file ended with exit code 0, and"),
    "os._exit(3)": (3, "failed: the process that imports the file ended with exit code 3, and"),
    "os.kill(os.getpid(), 9)": (137, "failed: the process that imports the file ended by signal 9, and"),
    "os.kill(os.getppid(), 15) or time.sleep(30)": (
        143,
        "failed: the process that imports the file ended by signal 15",
    ),
}


@pytest.mark.parametrize("end", ENDS)
def test_how_a_process_may_end(end: str) -> None:
    code, line = ENDS[end]
    script = (
        f"import atexit, os, sys, time; from fedbench.cli.supervision import *; sys.exit(supervised(lambda: {end}))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    assert done.stdout.startswith(line)
    assert bool(done.stdout) == bool(line)


def test_a_file_that_ends_the_process_when_it_is_imported(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(f"import os\nos._exit(0)\n{plugin_files.ATTACK.replace('from __future__ import annotations', '')}")
    command = [
        sys.executable,
        "-m",
        "fedbench",
        "run",
        "smoke",
        "--attack",
        str(file),
        "--results",
        str(tmp_path / "r"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1].startswith("failed: the process that imports the file ended with exit code 0")


def test_only_commands_that_import_a_file_are_supervised() -> None:
    assert needed(["run", "smoke", "--attack=./mine.py"])
    assert needed(["--debug", "run", "smoke", "--defense", "./mine.py"])
    assert not needed(["run", "smoke", "--attack", "./mine.py", "--isolated"])
    assert not needed(["check", "./mine.py"])
    assert not needed(["run", "smoke"])
