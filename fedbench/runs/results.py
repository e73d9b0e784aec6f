"""Results on the disk: how a record is written, and how folders of them are read.

One run, one file named ``<scenario id>-s<seed>.parquet``: a crash at any moment leaves either nothing or a whole file.
Whoever reads records reads them here, and gets whole ones only: pages whose checksum is right, values whose checksum is
right (:mod:`fedbench.runs.checksum`), columns of the right type.
"""

from __future__ import annotations

import functools
import json
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fedbench.errors import ResultsError
from fedbench.files import PREFIX, write_file
from fedbench.runs.checksum import checksums
from fedbench.runs.record import SCHEMA_VERSION, RunRecord, schema
from fedbench.texts import visible

BESIDE = (".rounds.parquet", ".images.parquet")
"""How files end that lie beside the record of a run and are none: its diagnostics, and the images that were uploaded."""

UNREADABLE = (OSError, ValueError, TypeError, KeyError, IndexError, OverflowError, MemoryError, pa.ArrowException)
"""What pyarrow raises over a file that is damaged, or none of ours."""

_NEEDED = ("schema_version", "run_id", "scenario_id", "scenario_json", "seed", "status", "dataset", "started_at")
"""Columns without which nothing is a record, and which are never null."""
_JSON = ("scenario_json", "model_params", "attack_params", "defense_params", "protocol_params")
_SUMMED = 7
"""The schema version since which records have a checksum."""
_GROUP = 1000
"""Rows of a group of a packed file: what one damaged page can cost."""
_CHECKED = 4 * _GROUP
"""Records that are checked together."""


def path_of(folder: Path, scenario_id: str, seed: int) -> Path:
    """Where the record of a run lies."""
    return folder / f"{scenario_id}-s{seed}.parquet"


def stamps(folder: Path) -> dict[str, int]:
    """Run id -> when its record came to lie in the folder, in nanoseconds by the clock of the file system."""
    try:
        names = os.listdir(folder)
    except OSError:
        return {}
    runs = [name.removesuffix(".parquet") for name in names if name.endswith(".parquet")]
    return {run: stamp for run in runs if (stamp := stamp_of(folder, run))}


def stamp_of(folder: Path, run_id: str) -> int:
    """The same of one run; 0: it has no record."""
    try:
        return (folder / f"{run_id}.parquet").stat().st_mtime_ns
    except OSError:
        return 0


def write_record(record: RunRecord, folder: str | Path) -> Path:
    """Write one record as one whole file into a folder, which need not be there yet, or nothing at all.

    Raises:
        ResultsError: when the folder cannot be written to or the disk is full; nothing is left behind.
    """
    final = path_of(Path(os.path.expanduser(folder)), record.scenario_id, record.seed)
    # Of a single row, statistics and dictionaries would be 40 % of the file.
    write_whole(
        pa.Table.from_pylist([record.row()], schema=schema()), final, write_statistics=False, use_dictionary=False
    )
    return final


def write_whole(table: pa.Table, final: Path, **options: Any) -> None:
    """Write a parquet file, with a checksum of every page, whole or not at all.

    Args:
        table, final: what, and where. options: of ``pyarrow.parquet.write_table``.

    Raises:
        ResultsError: when the folder cannot be written to or the disk is full; nothing is left behind.
    """
    out = pa.BufferOutputStream()
    pq.write_table(table, out, compression="zstd", write_page_checksum=True, **options)
    write_file(final, out.getvalue().to_pybytes(), "the result")


@dataclass(frozen=True)
class Found:
    """What lies in results folders.

    Attributes:
        table: every run once, sorted by its id: of several records the one that did not fail, the newest.
        files: those with a whole record. damaged: names of files that are no records, or not only whole ones, with the
            reason.
    """

    table: pa.Table
    files: Sequence[Path]
    damaged: Mapping[str, str]

    @property
    def status(self) -> dict[tuple[str, int], str]:
        """Scenario and seed -> status of every run."""
        scenario, seed, status = (self.table[name].to_pylist() for name in ("scenario_id", "seed", "status"))
        return dict(zip(zip(scenario, seed, strict=True), status, strict=True))


_Batch = list[tuple[Path, pa.Table]]


@dataclass(frozen=True)
class _Checked:
    """What was read of files, of every row why it is no whole record, and all whole ones."""

    batch: _Batch
    problems: Sequence[str]
    whole: pa.Table


def scan(folders: Iterable[Path], curves: bool | Sequence[str] = True) -> Found:
    """Read results folders, or packed files: every whole record counts, all else is reported by name.

    Args:
        folders: what lies in folders below them, links to folders too, is read as well.
        curves: which metrics the evaluations in the column ``curve`` have beside the epoch, all or these; False: it is null.
            They are most of a record, and what is left out takes no memory.
    """
    files: list[Path] = []
    damaged: dict[str, str] = {}
    whole = [_with_curves(schema().empty_table(), curves)]

    for checked in _checked(_batches(folders, curves is not False, damaged), curves):
        start = 0
        for path, each in checked.batch:
            wrong = [problem for problem in checked.problems[start : start + len(each)] if problem]
            start += len(each)
            if wrong:
                of = f"{len(wrong):,} of {len(each):,} records: " if len(each) > 1 else ""
                damaged.setdefault(str(path), f"{of}{wrong[0]}")
            if len(wrong) < len(each) and path not in files[-1:]:
                files.append(path)
        whole.append(checked.whole)
    return Found(_best(pa.concat_tables(whole)), files, damaged)


def _batches(folders: Iterable[Path], curves: bool, damaged: dict[str, str]) -> Iterator[_Batch]:
    """What files say, many at once."""
    waiting: _Batch = []
    rows = 0
    for path in parquet_files(folders, damaged):
        if path.name.startswith(".") or path.name.endswith(BESIDE):
            continue
        try:
            for table in _tables(path, curves, damaged):
                waiting.append((path, table))
                rows += len(table)
                if rows >= _CHECKED:
                    yield waiting
                    waiting, rows = [], 0
        except UNREADABLE as error:
            damaged[str(path)] = reason(error)
    if waiting:
        yield waiting


def _checked(batches: Iterable[_Batch], curves: bool | Sequence[str]) -> Iterator[_Checked]:
    """All batches, in order; one is checked while the next is read."""
    with ThreadPoolExecutor(1) as beside:
        before: Future[_Checked] | None = None
        for batch in batches:
            now = beside.submit(_check, batch, curves)
            if before:
                yield before.result()
            before = now
        if before:
            yield before.result()


def _check(batch: _Batch, curves: bool | Sequence[str]) -> _Checked:
    table = pa.concat_tables([each for _, each in batch])
    if len(table) < len(batch) * _GROUP:  # of many files: each would be a chunk
        table = table.combine_chunks()
    problems = _problems(table)
    if any(problems):
        table = table.filter(pa.array([not problem for problem in problems], pa.bool_()))
    return _Checked(batch, problems, _with_curves(table, curves))


def parquet_files(folders: Iterable[Path], damaged: dict[str, str]) -> Iterator[Path]:
    """Plain files that end in .parquet, in folders and all that is below them or linked from there, in order.

    Args:
        folders: or files. damaged: takes what cannot be looked at.
    """
    for given in folders:
        if not given.is_dir():
            if given.exists() or given.is_symlink():
                yield from _plain(given, damaged)
            continue
        seen = set()
        for folder, below, names in os.walk(
            given, followlinks=True, onerror=lambda error: damaged.update({str(error.filename): reason(error)})
        ):
            try:
                place = os.stat(folder)
            except OSError as error:  # it has just been removed
                damaged[folder] = reason(error)
                continue
            if (place.st_dev, place.st_ino) in seen:  # a link that leads back
                below.clear()
                continue
            seen.add((place.st_dev, place.st_ino))
            below[:] = sorted(each for each in below if not each.startswith(PREFIX))
            for name in sorted(names):
                if name.endswith(".parquet"):
                    yield from _plain(Path(folder, name), damaged)


def _plain(path: Path, damaged: dict[str, str]) -> Iterator[Path]:
    if path.is_file():
        yield path
    elif not path.name.startswith("."):
        damaged[str(path)] = "not a plain file" if path.exists() else "a link to nothing"


def _tables(path: Path, curves: bool, damaged: dict[str, str]) -> Iterator[pa.Table]:
    """What a file says, part by part, in the columns of :func:`schema`; a part that cannot be read is told, and left out.

    Of old records in a packed file, which have no checksum of all their values, curves that nobody wants are not read.
    """
    target = schema()
    with path.open("rb") as opened, pq.ParquetFile(opened, page_checksum_verification=True) as file:
        there = file.schema_arrow.names
        lacking = [name for name in _NEEDED if name not in there]
        if lacking:
            raise ValueError(f"not the columns of a record: lacks {lacking[0]!r}")
        names = [name for name in target.names if name in there]
        groups = file.metadata.num_row_groups
        for group in range(groups):
            try:
                rows = file.metadata.row_group(group).num_rows
                skip = not curves and rows > 1 and _unsummed(file, group, names)
                wanted = [name for name in names if not (skip and name == "curve")]
                yield _in_schema(file.read_row_group(group, columns=wanted, use_threads=False), wanted)
            except UNREADABLE as error:
                if groups == 1:
                    raise
                damaged[str(path)] = f"part {group + 1} of {groups}, {rows:,} records: {reason(error)}"


def _unsummed(file: pq.ParquetFile, group: int, names: Sequence[str]) -> bool:
    if "checksum" not in names:
        return True
    column = file.read_row_group(group, columns=["checksum"], use_threads=False)["checksum"]
    return bool(column.null_count == len(column))


def _in_schema(table: pa.Table, names: Sequence[str]) -> pa.Table:
    target = schema()
    if table.schema.equals(target):
        return table
    there = table.select(names).cast(pa.schema([target.field(name) for name in names]))
    columns = dict(zip(names, there.columns, strict=True))
    return pa.table([columns[f.name] if f.name in columns else pa.nulls(len(table), f.type) for f in target], target)


def _with_curves(table: pa.Table, metrics: bool | Sequence[str]) -> pa.Table:
    """The table with these metrics of the evaluations alone; True: with all, False: with none, and no evaluation."""
    if metrics is True:
        return table
    place = table.schema.get_field_index("curve")
    kind = table.schema.field(place).type
    if metrics is False:
        return table.set_column(place, table.schema.field(place), pa.nulls(len(table), kind))
    curves = table["curve"].combine_chunks()
    fields = [field for field in kind.value_type if field.name in ("epoch", *metrics)]
    points = curves.flatten()
    kept = pa.StructArray.from_arrays([pc.struct_field(points, field.name) for field in fields], fields=fields)
    ends = pa.array(np.append([0], np.cumsum(curves.value_lengths().fill_null(0))), pa.int32())
    return table.set_column(place, "curve", pa.ListArray.from_arrays(ends, kept, mask=curves.is_null()))


def _problems(table: pa.Table) -> list[str]:
    """Of every row why it is no whole record; empty for one that is."""
    stated = table["checksum"]
    found = pa.nulls(len(table), pa.string())
    if stated.null_count < len(table):
        found = pa.array(checksums(table.drop_columns("checksum")), pa.string())
    out = [""] * len(table)
    doubtful = pc.indices_nonzero(pc.invert(_sound(table, found)))
    rows = table.select([*_NEEDED, *_JSON, "checksum"]).take(doubtful).to_pylist()
    for number, row, sum_ in zip(doubtful.to_pylist(), rows, found.take(doubtful).to_pylist(), strict=True):
        out[number] = _problem(row, sum_)
    return out


def _sound(table: pa.Table, sums: pa.Array) -> pa.Array:
    """Which rows :func:`_problem` finds nothing wrong with; many are looked at in a moment.

    Args:
        sums: the checksums of their values.
    """
    version, stated = table["schema_version"], table["checksum"]
    run = pc.binary_join_element_wise(table["scenario_id"], table["seed"].cast(pa.string()), "-s")
    texts = {text for name in _JSON for text in table[name].unique().to_pylist()}
    known = pa.array([text for text in texts if text is None or _is_object(text)], pa.string())
    conditions = [
        *(table[name].is_valid() for name in _NEEDED),
        pc.less_equal(version, SCHEMA_VERSION),
        pc.if_else(stated.is_valid(), pc.equal(stated, sums), pc.less(version, _SUMMED)),
        pc.equal(table["run_id"], run),
        *(pc.is_in(table[name], known) for name in _JSON),
    ]
    return functools.reduce(pc.and_kleene, conditions).combine_chunks().fill_null(False)


def _problem(row: Mapping[str, Any], sum_: str | None) -> str:
    """Why a row is no whole record; empty if it is one. ``sum_``: the checksum of its values."""
    run, scenario, seed, version = (row[name] for name in ("run_id", "scenario_id", "seed", "schema_version"))
    for name in _NEEDED:
        if row[name] is None:
            return f"{name} is null"
    if version > SCHEMA_VERSION:
        return f"schema version {version} is newer than this fedbench"
    if row["checksum"] != sum_ if row["checksum"] is not None else version >= _SUMMED:
        return f"the checksum of {visible(run, 40)} is not that of its values"
    if run != f"{scenario}-s{seed}":
        return f"run_id {visible(run, 40)} is not made of scenario_id and seed"
    wrong = [name for name in _JSON if row[name] is not None and not _is_object(row[name])]
    return f"{wrong[0]} is not JSON" if wrong else ""


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


def _best(table: pa.Table) -> pa.Table:
    """Every run once, sorted: of several records one that did not fail, the newest."""
    keys = table.select(["run_id", "started_at"]).append_column("failed", pc.equal(table["status"], "failed"))
    by = [("run_id", "ascending"), ("failed", "ascending"), ("started_at", "descending")]
    order = pc.sort_indices(keys, sort_keys=by)
    runs = keys["run_id"].take(order).combine_chunks()
    first = pa.concat_arrays([pa.array([True] * (len(runs) > 0), pa.bool_()), pc.not_equal(runs[1:], runs[:-1])])
    kept = order.filter(first)
    as_it_is = np.array_equal(kept.to_numpy(), np.arange(len(table)))  # what is sorted already is not copied
    return table if as_it_is else table.take(kept)


def reason(error: Exception) -> str:
    """Why a file cannot be read, on one short line."""
    text = (error.strerror if isinstance(error, OSError) else None) or str(error)
    first = visible(" ".join(text.split()).split(". ")[0].rstrip("."))
    return shorten(first, 120, placeholder=" ...") or type(error).__name__


def pack(folders: Sequence[Path], file: Path) -> Found:
    """All whole records of results folders as one file, sorted by run, as results are published.

    Readers take such a file like a folder of single records. Of several records of one run it holds the one that they
    take: one that did not fail, the newest. Returns what was found.

    Raises:
        ResultsError: when there is no record, or the file cannot be written.
    """
    found = _some(folders)
    write_whole(found.table, file, row_group_size=_GROUP)
    return found


def load_results(*paths: str | Path) -> pa.Table:
    """All runs in results folders or packed files as one Arrow table, one row for each, sorted by run id.

    ``.to_pandas()``, ``polars.from_arrow`` and ``narwhals.from_native`` take it as it is.
    Metrics are fractions. Columns that older files lack are null. Of several records of one run it has the one that the
    leaderboard takes: one that did not fail, the newest. Files that are no records are named in a warning and left out.

    Args:
        paths: folders or files; none: ``results``.

    Raises:
        ResultsError: there is no record.
    """
    found = _some([Path(os.path.expanduser(path)) for path in paths or ("results",)])
    for name, why in found.damaged.items():
        warnings.warn(f"{name} is left out: {why}", RuntimeWarning, stacklevel=2)
    return found.table


def _some(folders: Sequence[Path]) -> Found:
    found = scan(folders)
    if not found.files:
        raise no_results(folders, found)
    return found


def no_results(folders: Sequence[Path], found: Found) -> ResultsError:
    """The error where there is no whole record."""
    if found.damaged:
        return ResultsError(f"no whole result file: {'; '.join(map(': '.join, found.damaged.items()))}.")
    where = ", ".join(map(str, folders))
    return ResultsError(f"no results in {where}; `fedbench run SUITE --results DIR` makes some.")
