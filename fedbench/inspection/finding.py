"""Find a run by its id or its file."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedbench.errors import UserError
from fedbench.inspection.rounds import Rounds, read_rounds
from fedbench.leaderboard import Database
from fedbench.runs.diagnostics import SUFFIX
from fedbench.runs.uploaded import SUFFIX as IMAGES

SHOWN = 4
"""How many ids an error names."""


@dataclass(frozen=True)
class Inspected:
    """A run.

    Attributes:
        record: its columns. rounds: its diagnostics; None: it has none. damaged: files that do not count, with the reason.
        images: the file with its uploaded images; None: it has none.
    """

    record: dict[str, Any]
    rounds: Rounds | None
    damaged: dict[str, str]
    images: Path | None = None


def find_run(name: str, folders: Sequence[Path]) -> Inspected:
    """The run of that id, or in that file.

    Args:
        name: a run id, the beginning of one, or the path of a record or of what lies beside it. folders: where records lie,
            as folders or packed files; not looked at for a path.

    Raises:
        UserError: no such run, or several. ResultsError: no records there, or damaged diagnostics.
    """
    return _find(name, folders, _all)


def find_runs(names: Sequence[str], folders: Sequence[Path]) -> list[Inspected]:
    """Several runs, each once, in the order of their first names; arguments and errors as of :func:`find_run`."""
    opened: dict[tuple[Path, ...], Database] = {}

    def open_once(where: Sequence[Path]) -> Database:
        key = tuple(where)
        if key not in opened:
            opened[key] = _all(where)
        return opened[key]

    found = [_find(name, folders, open_once) for name in names]
    return list({each.record["run_id"]: each for each in found}.values())


def _all(where: Sequence[Path]) -> Database:
    return Database(where, mixed=True)


def _find(name: str, folders: Sequence[Path], open_database: Callable[[Sequence[Path]], Database]) -> Inspected:
    path = Path(name)
    for beside in (SUFFIX, IMAGES):
        if not path.name.endswith(beside) or not path.is_file():
            continue
        path = path.with_name(path.name.removesuffix(beside) + ".parquet")
        if not path.is_file():
            raise UserError(f"{name} has no record {path.name} beside it.")
    if path.is_dir() and not re.fullmatch(r"[0-9a-f]{1,16}(-s\d*)?", name):
        raise UserError(
            f"{name!r} is a folder, not a run; name one of its runs: `fedbench inspect ID --results {name}`."
        )
    by_path = path.is_file()
    if by_path and path.suffix != ".parquet":
        raise UserError(f"{name!r} is no record of a run, which is a .parquet file; name a run's id or its file.")
    if not by_path and (path.suffix == ".parquet" or len(path.parts) > 1):
        raise UserError(f"no file {name!r}.")
    database = open_database([path] if by_path else folders)
    ids = [row["run_id"] for row in database.rows("select run_id from runs order by run_id")]
    found = ids if by_path else [name] if name in ids else [each for each in ids if name and each.startswith(name)]
    if not found:
        for file, why in database.found.damaged.items():
            if name and Path(file).name.startswith(name):
                raise UserError(f"{file} is no whole record: {why}. Run its suite again to replace it.")
        where = ", ".join(map(str, folders))
        close = difflib.get_close_matches(name, ids, SHOWN)
        hint = f"Did you mean {' or '.join(close)}?" if close else f"Ids: {_some(ids)}."
        raise UserError(f"no run {name!r} in {where}. {hint}")
    if len(found) > 1:
        what = f"{name} holds {len(found)} runs" if by_path else f"{name!r} begins the ids of {len(found)} runs"
        raise UserError(f"{what}: {_some(found)}." + (f" Name one with --results {name}." if by_path else ""))
    (record,) = database.rows("select * from runs where run_id = ?", [found[0]])
    rounds, images = (_newest_beside(database, found[0], suffix) for suffix in (SUFFIX, IMAGES))
    return Inspected(record, read_rounds(rounds) if rounds else None, dict(database.found.damaged), images)


def _newest_beside(database: Database, run_id: str, suffix: str) -> Path | None:
    """The newest file of that kind beside a record of the run."""
    beside = {file.parent / f"{run_id}{suffix}" for file in database.found.files}
    return max((file for file in beside if file.is_file()), key=lambda file: file.stat().st_mtime, default=None)


def _some(ids: Sequence[str]) -> str:
    more = f" and {len(ids) - SHOWN} more" if len(ids) > SHOWN else ""
    return ", ".join(ids[:SHOWN]) + more
