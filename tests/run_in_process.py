"""Runs the attack of a file as ``fedbench run`` does, in a process that it may wreck: ``python run_in_process.py``.

Reads paths, one a line; for each it forks a process that imports the file and runs it, and answers with a line of JSON: the
row of the record, or how the process ended.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import tempfile
from pathlib import Path

import pyarrow as pa
from plugin_files import ATTACK

from fedbench.plugins import load_file
from fedbench.runs.record import schema
from fedbench.runs.run import run
from fedbench.scenarios.scenario import Scenario

PATIENCE = 60.0
"""Seconds for a file, on a machine that is busy; 2 for one that hangs."""


def scenario(name: str) -> Scenario:
    """The one scenario in which attacks are tried."""
    return Scenario("longtail-small", "mf", name, malicious_ratio=0.05, protocol_params={"epochs": 2})


def row_of(name: str) -> dict[str, object]:
    """The row of the record of its one run, as it is read from a file, in values of JSON."""
    (row,) = pa.Table.from_pylist([run(scenario(name), 0).row()], schema=schema()).to_pylist()
    found: dict[str, object] = json.loads(json.dumps(row, default=str))
    return found


def hangs(path: Path) -> bool:
    """Whether a file is one of those that do."""
    return path.name.startswith(("hang", "b23"))


def answer(path: str) -> dict[str, object]:
    """What came of a file."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.setsid()
        for stream in (1, 2):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
        text = ""
        try:
            text = json.dumps({"row": row_of(load_file(path, "attack").name)})
        except BaseException as error:
            text = json.dumps({"ended": f"{type(error).__name__}: {error}"})
        finally:
            with os.fdopen(write, "w") as out:
                out.write(text)
            os._exit(0)
    os.close(write)
    said, patience = b"", 2.0 if hangs(Path(path)) else PATIENCE
    while select.select([read], [], [], patience)[0] and (piece := os.read(read, 1 << 20)):
        said += piece
    os.close(read)
    os.kill(pid, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    found: dict[str, object] = json.loads(said) if said else {"ended": "hangs" if code == -9 else f"exit code {code}"}
    return found


if __name__ == "__main__":
    with tempfile.NamedTemporaryFile("w", suffix=".py") as warm:  # imports what a run needs, once
        warm.write(ATTACK)
        warm.flush()
        row_of(load_file(warm.name, "attack").name)
    os.chdir(Path(tempfile.gettempdir()))
    for line in sys.stdin:
        print(json.dumps(answer(line.strip())), flush=True)
