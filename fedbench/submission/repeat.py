"""The code of a bundle at work: in the processes of an ordinary ``fedbench run``, with the rights of whoever starts it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Container, Sequence
from pathlib import Path

import pyarrow as pa

import fedbench
from fedbench.data.home import cache_home
from fedbench.errors import FedbenchError
from fedbench.isolation.home import Home
from fedbench.runs.record import schema
from fedbench.runs.results import path_of, write_whole
from fedbench.submission.container import CARD, SOURCE
from fedbench.submission.manifest import canonical
from fedbench.submission.records import Row, read_records
from fedbench.submission.report import Check
from fedbench.submission.verify import Verified
from fedbench.texts import visible

PATIENCE, LEAST_PATIENCE, MOST_PATIENCE = 20, 600, 86_400
"""How many times as long as its records state a repetition may take, how many seconds in any case, and at most."""
PACKAGES = "site-packages"
"""Where the entry of a package is put."""

_ENVIRONMENT = frozenset(
    {"PATH", "LANG", "LC_ALL", "TMPDIR", "PYTHONPATH", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES"}
    | {"OMP_NUM_THREADS", "FEDBENCH_DATA", "FEDBENCH_CACHE", "SYSTEMROOT"}
)
"""Variables that the other process gets; tokens and passwords are among the rest."""


def repeat(
    found: Verified, rows: Sequence[Row], rounding: str, check: Check, jobs: int | None = None
) -> list[Row | None]:
    """The records of ``fedbench run`` for these runs.

    It is the command by which whoever submits makes them: of the claimed slice, in a folder with the file of the entry and a
    results folder, in which the records of all other runs lie, as after an interruption. So nothing that the code could look
    at (command line, modules, files, order) tells it that it is judged.
    """
    manifest = found.manifest
    assert manifest is not None
    again: dict[str, Row | None] = {}
    for device in sorted({str(row["device"]) for row in rows}):
        asked = [row for row in rows if row["device"] == device]
        with tempfile.TemporaryDirectory() as folder:
            results = Path(folder) / "results"
            results.mkdir()
            wanted = {row["run_id"] for row in asked}
            for row in found.rows:
                if row["run_id"] not in wanted:
                    file = path_of(results, row["scenario_id"], row["seed"])
                    write_whole(pa.Table.from_pylist([row], schema=schema()), file)
            command = ["run", manifest.suite, f"--{manifest.kind}", _entry(found, Path(folder))]
            command += ["--isolated"] if isolated(found) else []
            command += [part for each in manifest.only for part in ("--only", each)]
            command += ["--seeds", str(manifest.seeds)] if manifest.seeds else []
            command += ["--device", device] if device != "cpu" else []
            command += ["--jobs", str(jobs)] if jobs else []
            _execute([*_fedbench(), *command], Path(folder), patience(asked), rounding, check, {0, 1})
            for row in asked:
                again[row["run_id"]] = _record(path_of(results, row["scenario_id"], row["seed"]), check)
    return [again[row["run_id"]] for row in rows]


def same_card(found: Verified, check: Check) -> None:
    """Refuse a bundle whose card is not what its class says of itself once it is imported, in a confined process."""
    if found.cls is None or found.manifest is None:
        return
    try:
        process = Home(Path(SOURCE), found.members[SOURCE], found.manifest.kind).start()
        process.close()
        same = canonical(json.loads(process.described)["card"]) == found.members[CARD]
    except FedbenchError as error:
        check.refuse(visible(str(error)))
        return
    except (ValueError, TypeError, KeyError, RecursionError):
        same = False
    if not same:
        check.refuse("card.json: not what the class in source.py says of itself.")


def isolated(found: Verified) -> bool:
    """Whether the entry is run again in a confined process, by ``--isolated``; otherwise it shares one with the run."""
    return found.manifest is not None and found.cls is not None and "/" not in found.manifest.name


def _fedbench() -> list[str]:
    script = Path(sys.executable).with_name("fedbench")
    return [str(script)] if script.exists() else [sys.executable, "-m", "fedbench"]


def _entry(found: Verified, folder: Path) -> str:
    """What ``fedbench run`` is given: the file; of the entry of a package, which is put where Python finds it, the name."""
    manifest, source = found.manifest, found.members[SOURCE]
    assert manifest is not None
    assert found.card is not None
    package, _, name = manifest.name.rpartition("/")
    if found.cls is None:
        return manifest.name
    if not package:
        file = f"{name.replace('-', '_')}.py"
        (folder / file).write_bytes(source)
        return f"./{file}"
    module = (folder / PACKAGES).joinpath(*manifest.module.split(".")).with_suffix(".py")
    module.parent.mkdir(parents=True)
    module.write_bytes(source)
    about = folder / PACKAGES / f"{package.replace('-', '_')}-1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1\n", encoding="utf-8")
    point = f"[fedbench.{manifest.kind}s]\n{name} = {manifest.module}:{found.card.class_name}\n"
    (about / "entry_points.txt").write_text(point, encoding="utf-8")
    return manifest.name


def _execute(
    command: Sequence[str], folder: Path, limit: float, rounding: str, check: Check, fine: Container[int]
) -> None:
    """Run a command in a folder until it ends with one of the exit codes ``fine``, or its time does."""
    environment = _environment(folder) | ({"ATEN_CPU_CAPABILITY": rounding} if rounding else {})
    with tempfile.TemporaryFile() as errors:  # a stranger's code can write more than memory holds
        try:
            process = subprocess.Popen(
                command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                stderr=errors, start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            raise FedbenchError(f"the re-run could not be started: {error.strerror or error}.") from None
        try:
            code = process.wait(limit)
        except subprocess.TimeoutExpired:
            check.refuse(f"the re-run was stopped after {limit:,.0f} s.")
            return
        finally:
            with contextlib.suppress(OSError):  # with all that it has started
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if code not in fine:
            errors.seek(max(0, errors.seek(0, os.SEEK_END) - 2000))
            last = errors.read(2000).decode("utf-8", "replace").strip().splitlines()
            check.refuse(f"the re-run ended with exit code {code}: {visible(last[-1]) if last else 'no message'}.")


def patience(rows: Sequence[Row]) -> float:
    """Seconds that the repetition of these runs may take: 20 times what they state, at least ten minutes, at most a day."""
    return min(MOST_PATIENCE, max(LEAST_PATIENCE, PATIENCE * sum(row["seconds_total"] for row in rows)))


def _environment(folder: Path) -> dict[str, str]:
    """The variables of the other process: what Python, torch and the data need, and no secret of this one."""
    kept = {name: value for name, value in os.environ.items() if name in _ENVIRONMENT}
    for name in ("FEDBENCH_DATA", "FEDBENCH_CACHE", "PYTHONPATH"):
        if name in kept:  # the process works in a folder of its own
            kept[name] = os.pathsep.join(
                str(Path(os.path.expanduser(each)).absolute()) for each in kept[name].split(os.pathsep) if each
            )
    kept.setdefault("FEDBENCH_CACHE", str(cache_home().absolute()))
    own = str(Path(fedbench.__file__).parents[1])
    packages = str(folder / PACKAGES) if (folder / PACKAGES).exists() else None
    path = os.pathsep.join(filter(None, [packages, own, kept.get("PYTHONPATH")]))
    return kept | {"HOME": str(folder), "PYTHONPATH": path}


def _bytes(path: Path, most: int) -> bytes | None:
    """A plain file's bytes that the other process has left, if there are not too many."""
    if path.is_symlink() or not path.is_file() or path.stat().st_size > most:
        return None
    return path.read_bytes()


def _record(file: Path, check: Check) -> Row | None:
    """The one record that the other process has written for a run."""
    data = _bytes(file, 1 << 22)
    if data is None:
        if not check.reasons:
            check.refuse("the re-run left no record.")
        return None
    rows = read_records(data, check)
    return rows[0] if len(rows) == 1 else None
