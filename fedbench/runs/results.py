"""Results on the disk: how a record is written, and how folders of them are read.

One run, one file named ``<scenario id>-s<seed>.parquet``, written under a temporary name in the same folder, flushed
to the disk and then renamed: a crash at any moment leaves either nothing or a whole file.
"""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fedbench.errors import ResultsError
from fedbench.runs.record import SCHEMA_VERSION, RunRecord, schema

BESIDE = (".rounds.parquet", ".images.parquet")
"""How files end that lie beside the record of a run and are none: its diagnostics, and the images that were uploaded."""


def path_of(folder: Path, scenario_id: str, seed: int) -> Path:
    """Where the record of a run lies."""
    return folder / f"{scenario_id}-s{seed}.parquet"


def write_record(record: RunRecord, folder: Path) -> Path:
    """Write one record as one whole file, or nothing at all.

    Raises:
        ResultsError: when the folder cannot be written to or the disk is full; nothing is left behind.
    """
    final = path_of(folder, record.scenario_id, record.seed)
    # Of a single row, statistics and dictionaries would be 40 % of the file.
    write_whole(
        pa.Table.from_pylist([record.row()], schema=schema()), final, write_statistics=False, use_dictionary=False
    )
    return final


def write_whole(table: pa.Table, final: Path, **options: Any) -> None:
    """Write a parquet file under a temporary name in the same folder, flush it to the disk, and rename it.

    Args:
        table, final: what, and where. options: of ``pyarrow.parquet.write_table``.

    Raises:
        ResultsError: when the folder cannot be written to or the disk is full; nothing is left behind.
    """
    temporary = final.with_name(f".{final.name}.{os.getpid()}.tmp")
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as out:
            pq.write_table(table, out, compression="zstd", **options)
            out.flush()
            os.fsync(out.fileno())
        os.replace(temporary, final)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise ResultsError(f"cannot write the result {final}: {error.strerror or error}.") from None


@dataclass(frozen=True)
class Found:
    """What lies in a results folder.

    Attributes:
        status: run id -> status of every whole record. files: their paths. damaged: names of files that cannot be read
            as records, with the reason.
    """

    status: Mapping[tuple[str, int], str]
    files: Sequence[Path]
    damaged: Mapping[str, str]


_IDENTITY = ["schema_version", "scenario_id", "seed", "status"]


def scan(folders: Iterable[Path]) -> Found:
    """Look through results folders, or packed files: every whole record counts, all else is reported by name."""
    status: dict[tuple[str, int], str] = {}
    files: list[Path] = []
    damaged: dict[str, str] = {}
    for folder in folders:
        for path in [folder] if folder.is_file() else sorted(folder.rglob("*.parquet")):
            if path.name.startswith(".") or path.name.endswith(BESIDE):
                continue
            try:
                rows = pq.ParquetFile(path).read(columns=_IDENTITY, use_threads=False).to_pylist()
                newest = max((row["schema_version"] for row in rows), default=SCHEMA_VERSION)
                if newest > SCHEMA_VERSION:
                    damaged[str(path)] = f"schema version {newest} is newer than this fedbench"
                    continue
                status.update({(row["scenario_id"], row["seed"]): row["status"] for row in rows})
                files.append(path)
            except (OSError, ValueError, TypeError, KeyError, pa.ArrowException) as error:
                damaged[str(path)] = reason(error)
    return Found(status, files, damaged)


def reason(error: Exception) -> str:
    """Why a file cannot be read, on one short line."""
    first = " ".join(str(error).split()).split(". ")[0].rstrip(".")
    return shorten(first, 120, placeholder=" ...") or type(error).__name__


def pack(folders: Sequence[Path], file: Path) -> int:
    """All whole records of results folders as one file, sorted by run, as results are published; how many there are.

    Readers take such a file like a folder of single records. Of several records of one run it holds the one that they
    take: one that did not fail, the newest.

    Raises:
        ResultsError: when there is no record, or the file cannot be written.
    """
    table, _ = _records(folders)
    write_whole(table, file)
    return len(table)


def load_results(*paths: str | Path) -> pa.Table:
    """All runs in results folders or packed files as one Arrow table, one row for each, sorted by run id.

    Metrics are fractions. Columns that older files lack are null. Of several records of one run it has the one that the
    leaderboard takes: one that did not fail, the newest. Files that are no records are named in a warning and left out.

    Args:
        paths: folders or files; none: ``results``.

    Raises:
        ResultsError: there is no record.
    """
    table, damaged = _records([Path(os.path.expanduser(path)) for path in paths or ("results",)])
    for name, why in damaged.items():
        warnings.warn(f"{name} is left out: {why}", RuntimeWarning, stacklevel=2)
    return table


def _records(folders: Sequence[Path]) -> tuple[pa.Table, Mapping[str, str]]:
    """Every run once, sorted, and what was left out, with the reason."""
    found = scan(folders)
    if not found.files:
        raise ResultsError(f"no results in {', '.join(map(str, folders))}.")
    tables = [pq.read_table(path) for path in found.files]
    table = pa.concat_tables([schema().empty_table(), *tables], promote_options="default")
    table = table.append_column("failed", pc.equal(table["status"], "failed"))
    table = table.sort_by([("run_id", "ascending"), ("failed", "ascending"), ("started_at", "descending")])
    table = table.drop_columns("failed")
    runs = table["run_id"].to_pylist()
    return table.filter(pa.array([k == 0 or runs[k - 1] != run for k, run in enumerate(runs)])), found.damaged
