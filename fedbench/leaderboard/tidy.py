"""The rankings of a board as one table of plain columns: for dataframes, and for CSV."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from fedbench.leaderboard.board import Board, make_board
from fedbench.leaderboard.database import Database
from fedbench.leaderboard.sheets import LOST, SHARE, hit_cut
from fedbench.leaderboard.tracks import DEMOTION, TARGETED, TRACKS, UNTARGETED, VISUAL, Track
from fedbench.without_torch import stand_in_for_torch

COLUMNS = pa.schema(
    [
        ("board", pa.string()),
        ("track", pa.string()),
        ("dataset", pa.string()),
        ("model", pa.string()),
        ("entry", pa.string()),
        ("rank", pa.int64()),
        ("last_rank", pa.int64()),
        ("beats", pa.int64()),
        ("average_rank", pa.float64()),
        ("measure", pa.string()),
        ("score", pa.float64()),
        ("low", pa.float64()),
        ("high", pa.float64()),
        ("text", pa.string()),
        ("hr", pa.float64()),
        ("reduction", pa.float64()),
        ("cost", pa.float64()),
        ("knowledge", pa.string()),
        ("scenarios", pa.int64()),
        ("unverified", pa.bool_()),
        ("run_ids", pa.list_(pa.string())),
    ]
)
"""See :func:`load_leaderboard`."""

_SCORES = {TARGETED: "er", UNTARGETED: "loss", VISUAL: "er", DEMOTION: "dr"}
"""By which field attacks of a track are ranked."""

Row = dict[str, Any]


def load_leaderboard(*paths: str | Path, suite: str | None = None, only: Sequence[str] = (), k: int = 10) -> pa.Table:
    """The ranks of a leaderboard as one Arrow table: attacks, defenses, doses and prices, a row for each entry of each.

    ``.to_pandas()``, ``polars.from_arrow`` and ``narwhals.from_native`` take it as it is. Columns: ``board`` (``attacks``,
    ``defenses``, ``doses``, ``prices``), ``track`` (``targeted``, ``untargeted``, ``visual``, ``demotion``), ``dataset`` and
    ``model`` (null: all of them together), ``entry``; ``rank`` and ``last_rank``, the first and the last that its runs leave
    open (null: it is not ranked), ``beats``, ``average_rank``; ``measure`` and ``score``, what it is ranked by, with its 95 %
    interval ``low`` and ``high`` where there is one, cut to what is possible, and ``text``, the same as the leaderboard
    prints it (a dose beyond those that were run has no number); ``hr``, HR@K under the attack; of defenses ``reduction``
    and ``cost``; ``knowledge``, ``scenarios``, ``unverified``, and ``run_ids``, the runs behind the row, as in
    :func:`fedbench.load_results`. Numbers are percent, or points of percent; prices are factors.

    Args:
        paths: results folders or packed files; none: ``results``. suite: only its scenarios, a name or the path of a file.
        only: ``key=glob`` filters, as of ``fedbench leaderboard --only``. k: length of the recommendation lists.

    Raises:
        ResultsError: there is no record. UserError: a filter makes no sense.
    """
    stand_in_for_torch()
    folders = [Path(os.path.expanduser(path)) for path in paths or ("results",)]
    return tidy(make_board(Database(folders, k, only, suite, curves=False)))


def tidy(board: Board) -> pa.Table:
    """The rankings of a board in :data:`COLUMNS`."""
    rows = [*_doses(board.data), *_prices(board.data)]
    for track in TRACKS:
        rows += [
            row
            for table, make in (("attacks", _attack), ("defenses", _defense))
            for model, entries in _by_model(board.data, f"{track.key}{table}")
            for row in (make(entry, track, board.k) | {"model": model} for entry in entries)
        ]
    return pa.Table.from_pylist(rows, schema=COLUMNS)


def as_csv(table: pa.Table) -> str:
    """The table but for its run ids, with headings; what is null is empty."""
    kept = table.drop_columns(["run_ids"])
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(kept.column_names)
    writer.writerows(zip(*(column.to_pylist() for column in kept.columns), strict=True))
    return out.getvalue()


def _by_model(data: Mapping[str, Any], key: str) -> Iterator[tuple[str | None, Sequence[Row]]]:
    yield None, data.get(key, [])
    yield from data.get(f"{key}_by_model", {}).items()


def _common(entry: Row, board: str, track: Track) -> Row:
    kept = ("rank", "last_rank", "beats", "average_rank", "hr", "knowledge", "scenarios", "unverified")
    return {
        "board": board,
        "track": track.key.rstrip("_") or "targeted",
        **{name: entry[name] for name in kept},
        "run_ids": entry["runs"],
    }


def _attack(entry: Row, track: Track, k: int) -> Row:
    measure = track.measured(k) or f"HR@{hit_cut(k)} loss %"
    score = entry[_SCORES[track]] or {}
    least, most = SHARE if track.exposes else LOST
    low, high = score.get("low"), score.get("high")
    return _common(entry, "attacks", track) | {
        "entry": entry["attack"],
        "measure": measure,
        "score": score.get("mean"),
        "low": None if low is None else max(low, least),
        "high": None if high is None else min(high, most),
    }


def _defense(entry: Row, track: Track, k: int) -> Row:
    reduction = entry["reduction" if track.exposes else "recovered"] or {}
    return _common(entry, "defenses", track) | {
        "entry": entry["defense"],
        "measure": "net",
        "score": entry["net"],
        "reduction": reduction.get("mean"),
        "cost": (entry["paid"] or {}).get("mean"),
    }


def _doses(data: Mapping[str, Any]) -> Iterator[Row]:
    for panel in data.get("doses", {}).get("panels", ()):
        for curve in panel["curves"]:
            half = curve["half"] or {"ratio": None, "low": None, "high": None, "text": None}
            yield {
                "board": "doses",
                "track": "targeted",
                "dataset": panel["dataset"],
                "model": panel["model"],
                "entry": curve["attack"],
                **{name: curve[name] for name in ("rank", "last_rank", "beats", "hr", "knowledge")},
                "measure": "half-exposure dose",
                "score": _percent(half["ratio"]),
                "low": _percent(half["low"]),
                "high": _percent(half["high"]),
                "text": half["text"],
                "run_ids": [run for point in curve["points"] for run in point["runs"]],
            }


def _prices(data: Mapping[str, Any]) -> Iterator[Row]:
    for row in data.get("prices", ()):
        yield {
            "board": "prices",
            "track": "targeted",
            "dataset": row["dataset"],
            "model": row["model"],
            "entry": row["defense"],
            "measure": "price",
            "score": row["factor"],
            "text": row["text"],
            "cost": row["hr_loss"],
            "run_ids": row["runs"],
        }


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share
