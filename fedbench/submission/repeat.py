"""The code of a bundle at work: in a process of its own, with the rights of whoever starts it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import fedbench
from fedbench.data.home import cache_home
from fedbench.errors import FedbenchError
from fedbench.submission.container import CARD, LIMITS, SOURCE
from fedbench.submission.records import Row, read_records
from fedbench.submission.report import Check
from fedbench.submission.verify import Verified
from fedbench.texts import visible

PATIENCE, LEAST_PATIENCE = 20, 600
"""How many times as long as its records state a repetition may take, and how many seconds in any case."""

_ENVIRONMENT = frozenset(
    {"PATH", "LANG", "LC_ALL", "TMPDIR", "PYTHONPATH", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES"}
    | {"OMP_NUM_THREADS", "FEDBENCH_DATA", "FEDBENCH_CACHE", "SYSTEMROOT"}
)
"""Variables that the other process gets; tokens and passwords are among the rest."""


def repeat(found: Verified, rows: Sequence[Row], rounding: str, check: Check) -> list[Row | None]:
    """The records of one process that repeats these runs."""
    with tempfile.TemporaryDirectory(prefix="fedbench-verify-") as folder:
        _execute(found, rows, rounding, Path(folder), check)
        card = _bytes(Path(folder) / CARD, LIMITS[CARD])
        if not check.reasons and card != found.members[CARD]:
            check.refuse("card.json: not what the class in source.py says of itself.")
        return [_record(Path(folder) / str(number), check) for number in range(len(rows))]


def _execute(found: Verified, rows: Sequence[Row], rounding: str, folder: Path, check: Check) -> None:
    manifest = found.manifest
    assert manifest is not None
    (folder / SOURCE).write_bytes(found.members[SOURCE])
    builtin = found.cls is None
    order = {
        "kind": manifest.kind,
        "name": manifest.name,
        "file": None if builtin else SOURCE,
        "runs": [
            {"scenario": json.loads(row["scenario_json"]), "seed": row["seed"], "device": row["device"]} for row in rows
        ],
    }
    (folder / "order.json").write_text(json.dumps(order), encoding="utf-8")
    environment = _environment(folder) | ({"ATEN_CPU_CAPABILITY": rounding} if rounding else {})
    command = [sys.executable, "-P", "-m", "fedbench.submission.worker", "order.json"]
    limit = patience(rows)
    with tempfile.TemporaryFile() as errors:  # a stranger's code can write more than memory holds
        try:
            done = subprocess.run(
                command, cwd=folder, env=environment, stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL, stderr=errors, check=False, timeout=limit,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            stated = sum(row["seconds_total"] for row in rows)
            check.refuse(f"the re-run was stopped after {limit:,.0f} s; the records state {stated:,.0f} s for it.")
            return
        except OSError as error:
            raise FedbenchError(f"the re-run could not be started: {error.strerror or error}.") from None
        if done.returncode:
            errors.seek(max(0, errors.seek(0, os.SEEK_END) - 2000))
            last = errors.read(2000).decode("utf-8", "replace").strip().splitlines()
            check.refuse(
                f"the re-run ended with exit code {done.returncode}: {visible(last[-1]) if last else 'no message'}."
            )


def patience(rows: Sequence[Row]) -> float:
    """Seconds that the process which repeats these runs may take: 20 times what they state, and at least ten minutes."""
    return max(LEAST_PATIENCE, PATIENCE * sum(row["seconds_total"] for row in rows))


def _environment(folder: Path) -> dict[str, str]:
    """The variables of the other process: what Python, torch and the data need, and no secret of this one."""
    kept = {name: value for name, value in os.environ.items() if name in _ENVIRONMENT}
    for name in ("FEDBENCH_DATA", "FEDBENCH_CACHE", "PYTHONPATH"):
        if name in kept:  # the process works in a folder of its own
            kept[name] = os.pathsep.join(
                str(Path(each).expanduser().absolute()) for each in kept[name].split(os.pathsep) if each
            )
    kept.setdefault("FEDBENCH_CACHE", str(cache_home().absolute()))
    own = str(Path(fedbench.__file__).parents[1])
    return kept | {"HOME": str(folder), "PYTHONPATH": os.pathsep.join(filter(None, [own, kept.get("PYTHONPATH")]))}


def _bytes(path: Path, most: int) -> bytes | None:
    """A plain file's bytes that the other process has left, if there are not too many."""
    if path.is_symlink() or not path.is_file() or path.stat().st_size > most:
        return None
    return path.read_bytes()


def _record(folder: Path, check: Check) -> Row | None:
    """The one record that the other process has written for a run."""
    files = list(folder.glob("*.parquet")) if folder.is_dir() else []
    data = _bytes(files[0], 1 << 22) if len(files) == 1 else None
    if data is None:
        if not check.reasons:
            check.refuse("the re-run left no record.")
        return None
    rows = read_records(data, check)
    return rows[0] if len(rows) == 1 else None
