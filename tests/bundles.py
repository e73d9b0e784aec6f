"""Bundles taken apart, changed and put together again as a forger would: all hashes right unless a test says otherwise."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from fedbench.runs.checksum import checksums
from fedbench.runs.record import schema, summarize_curve
from fedbench.submission.bundle import Made, entry, make_bundle
from fedbench.submission.container import ENVIRONMENT, MANIFEST, RECORDS, SOURCE, packed
from fedbench.submission.manifest import Manifest, canonical, digests
from fedbench.submission.records import Row, written
from fedbench.submission.report import Check
from fedbench.submission.source import module_of_file, recomputed_hash
from fedbench.submission.verify import environment_of, verify

Members = dict[str, bytes]
ONLY = ("model=mf",)


@dataclass(frozen=True)
class Submitted:
    """The file of an attack, the folder of its records, and the bundle."""

    file: Path
    results: Path
    data: bytes


def make(submitted: Submitted, results: list[Path], file: Path | None = None, twins: list[Path] | None = None) -> Made:
    """The bundle of the same slice from other folders, or of another file."""
    of = entry("attack", str(file or submitted.file))
    return make_bundle(of, "smoke", ONLY, 2, results, twins or [])


def unpacked(data: bytes) -> Members:
    with zipfile.ZipFile(io.BytesIO(data)) as opened:
        return {name: opened.read(name) for name in opened.namelist()}


def sealed(members: Members, **manifest: Any) -> bytes:
    """The bundle of these members, with the hashes and sizes that they have and other entries of the manifest."""
    stated = json.loads(members[MANIFEST]) | {"files": digests(members)} | manifest
    return packed({**members, MANIFEST: canonical(stated)})


def with_json(data: bytes, member: str, **values: Any) -> bytes:
    """The bundle with other values in a JSON member."""
    members = unpacked(data)
    members[member] = canonical(json.loads(members[member]) | values)
    return sealed(members)


def rows_of(data: bytes) -> list[Row]:
    return pq.read_table(pa.BufferReader(unpacked(data)[RECORDS])).to_pylist()


def with_rows(data: bytes, rows: list[Row]) -> bytes:
    """The bundle with other records, and the environment that they state."""
    members = unpacked(data)
    members[RECORDS], members[ENVIRONMENT] = written(summed(rows)), canonical(environment_of(rows))
    return sealed(members)


def summed(rows: list[Row]) -> list[Row]:
    """The rows with the checksums of their values."""
    table = pa.Table.from_pylist(rows, schema=schema()).drop_columns("checksum")
    return [row | {"checksum": sha} for row, sha in zip(rows, checksums(table), strict=True)]


def edited(data: bytes, edit: Callable[[Row], Any], which: Callable[[Row], bool] | None = None) -> bytes:
    """The bundle after ``edit`` of the first attacked run, or of all runs that ``which`` fits."""
    rows = rows_of(data)
    chosen = [row for row in rows if (which(row) if which else row["attack"] != "none")]
    for row in chosen if which else chosen[:1]:
        edit(row)
    return with_rows(data, rows)


def with_curve(row: Row, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change every point of a curve, and all that is summed up of it."""
    for point in row["curve"]:
        change(point)
    points = [{name: value for name, value in point.items() if value is not None} for point in row["curve"]]
    row.update(summarize_curve(points, row["epochs_planned"])["metrics"])


def with_table(data: bytes, table: pa.Table, **options: Any) -> bytes:
    """The bundle with any table as its records."""
    out = io.BytesIO()
    pq.write_table(table, out, **{"use_dictionary": False, "write_statistics": False, **options})
    return sealed({**unpacked(data), RECORDS: out.getvalue()})


def table_of(data: bytes) -> pa.Table:
    return pa.Table.from_pylist(rows_of(data), schema=schema())


def zipped(members: list[tuple[str | zipfile.ZipInfo, bytes]], method: int = zipfile.ZIP_STORED) -> bytes:
    """Any zip file."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as opened:
        for name, content in members:
            opened.writestr(name, content)
    return out.getvalue()


def refused(data: bytes, check: str) -> str:
    """The reasons for which a bundle is refused: those of the step that is the first to refuse it."""
    found = verify(data)
    reasons = {each.name: each.reasons for each in found.checks if each.reasons}
    assert next(iter(reasons), None) == check, reasons
    assert all(reason.isprintable() for reason in reasons[check])
    return "\n".join(reasons[check])


def with_code(data: bytes, old: str, new: str) -> bytes:
    """The bundle with another source, and records, module and hashes that say they were made with it."""
    members = unpacked(data)
    text = members[SOURCE].decode().replace(old, new)
    assert text.encode() != members[SOURCE]
    module = module_of_file(text.encode())
    changed = sealed({**members, SOURCE: text.encode()}, module=module, modules=["fedbench.federation.attack", module])
    manifest = Manifest.model_validate_json(unpacked(changed)[MANIFEST])
    digest = recomputed_hash(text.encode(), manifest, Check("test"))
    return edited(changed, lambda row: row.update(attack_source_hash=digest), lambda row: row["attack"] != "none")
