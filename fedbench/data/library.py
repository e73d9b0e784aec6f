"""Datasets that were downloaded or imported: parsed tables in the data home, one parquet file for each slot."""

from __future__ import annotations

import re
from pathlib import Path

from fedbench.data.home import cache_home
from fedbench.data.pictures_store import IMAGES_FILE
from fedbench.data.records import Table
from fedbench.data.store import DamagedError, read_table, write_table
from fedbench.errors import DataError, UserError

_NAME = re.compile(r"[a-z0-9]+([._-][a-z0-9]+)*")


def check_name(name: str) -> None:
    """Raise :class:`UserError` unless ``name`` can name a dataset."""
    if not _NAME.fullmatch(name):
        raise UserError(f"Dataset name {name!r} must be lower-case letters and digits, joined by '-', '_' or '.'.")


def imported_names() -> list[str]:
    """Names of all datasets in the data home."""
    folder = cache_home() / "datasets"
    if not folder.is_dir():
        return []
    return sorted(child.name for child in folder.iterdir() if imported_slots(child.name))


def imported_slots(name: str) -> list[str]:
    """The slots of a dataset that were imported."""
    folder = cache_home() / "datasets" / name
    found = (path for path in folder.glob("*.parquet") if not path.name.startswith("."))
    return sorted(path.stem for path in found if path.name != IMAGES_FILE)


def imported_path(name: str, slot: str) -> Path:
    """Where the table of a slot is kept."""
    return cache_home() / "datasets" / name / f"{slot}.parquet"


def imported_mark(name: str) -> tuple[tuple[str, int, int], ...]:
    """Name, time of writing and size of every file that was imported of a dataset: another import has another mark."""
    folder = cache_home() / "datasets" / name
    files = sorted(path for path in folder.glob("*.parquet") if not path.name.startswith("."))
    return tuple((path.name, status.st_mtime_ns, status.st_size) for path in files for status in (path.stat(),))


def read_imported(name: str, slot: str) -> Table | None:
    """The imported table of a slot, None when there is none; raises :class:`DataError` when it is damaged."""
    path = imported_path(name, slot)
    if not path.is_file():
        return None
    try:
        return read_table(path)
    except DamagedError as error:
        raise DataError(f"{error}; import {name!r} again.") from error


def write_imported(name: str, slot: str, table: Table, *, alone: bool = False) -> Path:
    """Keep a table, ``alone``: in place of all that was imported under the name before but images.

    Raises:
        DataError: the data home cannot be written.
    """
    path = imported_path(name, slot)
    try:
        write_table(path, table)
        for other in imported_slots(name) if alone else ():
            if other != slot:
                imported_path(name, other).unlink()
    except OSError as error:
        raise DataError(
            f"{path.parent} cannot be written ({error.strerror or error}); set FEDBENCH_CACHE to a folder that can."
        ) from error
    return path
