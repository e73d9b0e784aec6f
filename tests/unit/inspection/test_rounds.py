"""What diagnostics say of a stretch of training, by hand; and files that are none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fedbench.errors import ResultsError
from fedbench.inspection import Rounds, read_rounds
from fedbench.inspection.picture import binned
from fedbench.runs.diagnostics import COLUMNS, METADATA

# round, epoch, client, malicious, norm, cosine with benign and malicious ones, d, dropped by
ROWS = [
    (0, 1, 0, False, 1.0, 0.5, 0.1, 10.0, None),
    (0, 1, 1, False, 3.0, 0.5, None, 12.0, "f"),
    (0, 1, 9, True, 5.0, 0.2, None, 14.0, "f"),
    (7, 8, 0, False, 2.0, None, 0.3, 5.0, None),
    (7, 8, 8, True, 4.0, 0.1, 0.9, 6.0, "g"),
    (7, 8, 9, True, None, 0.3, 0.9, None, None),
]


def table(rows: list[tuple[Any, ...]], **about: Any) -> pa.Table:
    names = ("round", "epoch", "client", "malicious", "norm", "cosine_benign", "cosine_malicious", "uniformity")
    columns = dict(zip((*names, "dropped_by"), zip(*rows, strict=True), strict=True)) if rows else {}
    columns |= {name: [0.0] * len(rows) for name in ("from_mean", "x", "y")}
    types = {name: pa.type_for_alias(kind) for name, kind in COLUMNS.items()}
    made = pa.table({name: pa.array(columns.get(name, ()), types[name]) for name in COLUMNS})
    about = {"version": 1, "run_id": "r", "every": 7, "filters": ["f"]} | about
    return made.replace_schema_metadata({METADATA: json.dumps(about)})


@pytest.fixture
def rounds(tmp_path: Path) -> Rounds:
    pq.write_table(table(ROWS), tmp_path / "r.rounds.parquet")
    return read_rounds(tmp_path / "r.rounds.parquet")


def test_precision_and_recall_by_hand(rounds: Rounds) -> None:
    """f dropped one benign and one malicious of 3; g, which the file names in no list, one malicious."""
    assert (rounds.every, rounds.filters) == (7, ("f", "g"))
    found = {
        (each.filter, each.period): (each.dropped, each.precision, each.recall, each.benign_dropped)
        for each in rounds.filtering(8)
    }
    assert found == {
        ("f", "all"): (2, 1 / 2, 1 / 3, 1 / 3),
        ("f", "quarter 1"): (2, 1 / 2, 1.0, 1 / 2),
        ("f", "quarter 4"): (0, None, 0.0, 0.0),
        ("g", "all"): (1, 1.0, 1 / 3, 0.0),
        ("g", "quarter 1"): (0, None, 0.0, 0.0),
        ("g", "quarter 4"): (1, 1.0, 1 / 2, 0.0),
    }


def test_whom_a_filter_and_a_rule_both_drop_counts_for_both(tmp_path: Path) -> None:
    both = [(*row[:-1], "f+g" if row[2] == 9 else row[-1]) for row in ROWS]
    pq.write_table(table(both, version=2), tmp_path / "r.rounds.parquet")
    found = read_rounds(tmp_path / "r.rounds.parquet")
    assert found.filters == ("f", "g")
    shares = {each.filter: (each.dropped, each.precision, each.recall) for each in found.filtering(8)[::3]}
    assert shares == {"f": (3, 2 / 3, 2 / 3), "g": (3, 1.0, 1.0)}


def test_groups_by_hand(rounds: Rounds) -> None:
    """Benign d of round 0: 10 and 12, mean 11, deviation sqrt(2); in round 7 one benign upload gives no deviation."""
    whole, first, last = rounds.summary(8)
    assert [(p.name, p.rounds, p.benign.uploads, p.malicious.uploads) for p in (whole, first, last)] == [
        ("all", 2, 3, 3),
        ("quarter 1", 1, 2, 1),
        ("quarter 4", 1, 1, 2),
    ]
    assert (whole.benign.norm, whole.malicious.norm) == (2.0, 4.5)
    assert (whole.benign.low, whole.benign.high) == (pytest.approx(1.1), pytest.approx(2.9))
    assert whole.benign.cosine_benign == pytest.approx(0.5)
    assert whole.benign.cosine_malicious == pytest.approx(0.2)
    assert whole.malicious.cosine_benign == pytest.approx(0.2)
    assert first.malicious.cosine_malicious is None
    assert whole.benign.uniformity == pytest.approx((11 + 5) / 2), "rounds weigh alike, however many uploads they have"
    assert whole.malicious.uniformity == pytest.approx((14 + 6) / 2)
    assert whole.malicious.shift == pytest.approx(3 / 2**0.5)
    assert first.malicious.shift == pytest.approx(3 / 2**0.5)
    assert first.benign.shift == pytest.approx(0)
    assert last.malicious.shift is None


def test_every_epoch_is_in_a_quarter(tmp_path: Path) -> None:
    rows = [(n, epoch, 0, False, 1.0, None, None, None, None) for n, epoch in enumerate(range(1, 11))]
    pq.write_table(table(rows, filters=[]), tmp_path / "r.rounds.parquet")
    rounds = read_rounds(tmp_path / "r.rounds.parquet")
    assert [(p.name, p.rounds) for p in rounds.summary(10)] == [
        ("all", 10),
        ("quarter 1", 3),
        ("quarter 2", 2),
        ("quarter 3", 3),
        ("quarter 4", 2),
    ]
    assert rounds.filtering(10) == []
    # Of a run that ended after a quarter of its plan.
    assert [p.name for p in rounds.summary(40)] == ["all", "quarter 1"]
    assert np.isnan(rounds.shift()).all()


def test_uniformity_and_shift_are_over_the_rounds_that_have_both_groups(tmp_path: Path) -> None:
    """d_i falls from round to round; the malicious lie above the benign in each of theirs, and pooled would lie below."""
    by_round = {0: ([100, 102], []), 1: ([50, 52], [54]), 2: ([10, 12, 14, 16], [20, 22, 24])}
    rows = [
        (n, 1, client, malicious, 1.0, None, None, float(value), None)
        for n, groups in by_round.items()
        for malicious, group in zip((False, True), groups, strict=True)
        for client, value in enumerate(group)
    ]
    pq.write_table(table(rows), tmp_path / "r.rounds.parquet")
    (whole, _) = read_rounds(tmp_path / "r.rounds.parquet").summary(1)
    assert whole.benign.uniformity == pytest.approx((51 + 13) / 2)
    assert whole.malicious.uniformity == pytest.approx((54 + 22) / 2)
    assert whole.benign.shift == pytest.approx(0)
    assert whole.malicious.shift == pytest.approx((3 / 2**0.5 + 9 / (20 / 3) ** 0.5) / 2)


def test_equal_uniformity_has_no_shift(tmp_path: Path) -> None:
    rows = [(0, 1, n, n == 2, 1.0, None, None, 3.0, None) for n in range(3)]
    pq.write_table(table(rows), tmp_path / "r.rounds.parquet")
    assert read_rounds(tmp_path / "r.rounds.parquet").summary(1)[0].malicious.shift is None


def test_no_rows(tmp_path: Path) -> None:
    pq.write_table(table([]), tmp_path / "r.rounds.parquet")
    rounds = read_rounds(tmp_path / "r.rounds.parquet")
    (period,) = rounds.summary(5)
    assert (period.rounds, period.benign.uploads, period.benign.norm) == (0, 0, None)
    (each,) = rounds.filtering(5)
    assert (each.dropped, each.precision, each.recall) == (0, None, None)


@pytest.mark.parametrize("kind", ["rubbish", "foreign", "no metadata", "newer"])
def test_files_that_are_no_diagnostics(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "r.rounds.parquet"
    if kind == "rubbish":
        path.write_bytes(b"PAR1")
    elif kind == "foreign":
        pq.write_table(pa.table({"a": [1]}), path)
    elif kind == "no metadata":
        pq.write_table(table(ROWS).replace_schema_metadata(None), path)
    else:
        pq.write_table(table(ROWS, version=3), path)
    with pytest.raises(ResultsError, match="version 3, newer" if kind == "newer" else "are damaged"):
        read_rounds(path)


def test_bins_hold_every_row_once() -> None:
    rounds = np.repeat(np.arange(0, 1000, 10), 3)
    of = np.arange(len(rounds)) % 3 != 1
    at, bins = binned(rounds, of)
    assert len(at) == len(bins) == 34  # 100 rounds, three in a stretch
    assert (np.sum(bins, axis=0) == of).all()
    assert (at[0], at[-1]) == (10.0, 990.0)
    assert binned(rounds, np.zeros(len(rounds), dtype=bool))[1] == []
