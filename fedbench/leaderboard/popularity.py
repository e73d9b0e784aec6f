"""What recommending by popularity finds, for records of a schema that does not say so: a file beside them."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa

from fedbench.errors import ResultsError

FILE = "popularity.csv"
"""``run``: id of a run without attack and defense. ``popularity_hr_10``, ``popularity_hr_full_10``: as in its record, empty
where that ranking is not made. ``leaderboard/popularity.py`` makes that of the published records."""
POPULARITY = ("popularity_hr_10", "popularity_hr_full_10")
"""Its columns of numbers."""
_SCHEMA = pa.schema([("run", pa.string()), *((name, pa.float64()) for name in POPULARITY)])


def popularity_beside(files: Iterable[Path]) -> pa.Table:
    """The rows of every :data:`FILE` in the folders of ``files``, of each run one.

    Raises:
        ResultsError: one cannot be read.
    """
    rows = dict[str, dict[str, Any]]()
    for path in sorted({file.parent / FILE for file in files}):
        if not path.is_file():
            continue
        try:
            with path.open(encoding="utf-8", newline="") as opened:
                for row in csv.DictReader(opened):
                    values = {name: float(row[name]) if row[name] else None for name in POPULARITY}
                    rows[row["run"]] = {"run": row["run"], **values}
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise ResultsError(
                f"cannot read {path}: {error!r}; it must have columns {', '.join(_SCHEMA.names)}."
            ) from None
    return pa.Table.from_pylist(list(rows.values()), schema=_SCHEMA)
