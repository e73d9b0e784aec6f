"""What the database of a leaderboard takes in, and what a query may take."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from records import record, scenario, write

from fedbench.errors import UserError
from fedbench.leaderboard import Database, database
from fedbench.leaderboard.board import make_board
from fedbench.runs.checksum import checksums
from fedbench.runs.results import path_of

LATER = datetime(2026, 2, 1, tzinfo=UTC)
NEW = {"dataset_fingerprint": "e" * 64, "started_at": LATER}
SEEDS = "select seed from runs order by seed"


def test_runs_on_older_data_do_not_count_and_are_told(tmp_path: Path) -> None:
    write(tmp_path, *(record(scenario("a-ra"), seed) for seed in range(3)), record(scenario(), 0, **NEW))
    for seed in (0, 1):
        write(tmp_path / "new", record(scenario("a-ra"), seed, **NEW))
    found = Database([tmp_path])
    assert [row["seed"] for row in found.rows(SEEDS)] == [0, 0, 1]
    assert found.left_out == [
        "1 run on longtail-small (leave-one-out) left out: made on other data (ffffffff) than the newest (eeeeeeee);"
        " `fedbench run` runs such again."
    ]
    assert len(Database([tmp_path], mixed=True).rows(SEEDS)) == 4


def test_where_a_split_is_drawn_by_the_seed_each_has_data_of_its_own(tmp_path: Path) -> None:
    write(tmp_path, *(record(scenario(), seed, dataset_fingerprint=f"{seed}" * 64) for seed in range(3)))
    write(tmp_path, record(scenario("a-ra"), 1, dataset_fingerprint="1" * 64))
    write(tmp_path, record(scenario("a-ra"), 2, **NEW))
    found = Database([tmp_path])
    assert [row["seed"] for row in found.rows(SEEDS)] == [0, 1, 1, 2]
    assert len(found.left_out) == 1


def test_a_record_whose_parameters_are_no_json_is_named(tmp_path: Path) -> None:
    write(tmp_path, record(scenario()), record(scenario("a-ra")))
    path = path_of(tmp_path, scenario("a-ra").id, 0)
    table = pq.read_table(path)
    (row,) = table.to_pylist()
    changed = pa.Table.from_pylist([row | {"scenario_json": row["scenario_json"][:-1]}], schema=table.schema)
    sums = pa.array(checksums(changed.drop_columns("checksum")))
    pq.write_table(changed.set_column(changed.schema.get_field_index("checksum"), "checksum", sums), path)
    found = Database([tmp_path])
    assert len(found.rows(SEEDS)) == 1
    assert found.found.damaged == {str(path): "scenario_json is not JSON"}


def test_a_query_that_takes_too_much_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "MEMORY", "64MB")
    monkeypatch.setattr(database, "MOST_BYTES", 1 << 16)
    found = Database([write(tmp_path, record(scenario()))])
    with pytest.raises(UserError, match="SQL: Out of Memory Error") as caught:
        found.rows("select array_agg(x) from range(100000000) t(x)")
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="SQL: the answer is larger than 0 GiB; add a limit"):
        found.rows("select * from range(100000)")
    local = record(scenario())
    assert local
    for query in ("select * from local", f"select * from '{tmp_path}/*.parquet'"):
        with pytest.raises(UserError, match="SQL: "):
            found.rows(query)


def _at_rates(folder: Path) -> Path:
    rates = (0.3, 1.0, 3.0)
    return write(
        folder,
        *(
            record(scenario("a-ra", protocol_params={"learning_rate": rate}), seed, er=0.1 * n)
            for n, rate in enumerate(rates)
            for seed in (0, 1)
        ),
    )


@pytest.mark.parametrize(
    ("only", "runs"),
    [
        ("learning_rate=.3", 2),
        ("protocol.learning_rate=1", 2),
        ("learning_rate=0.3,3", 4),
        ("learning_rate=*", 6),
        ("malicious_ratio=.05", 6),
        ("malicious_ratio=5e-2,seed=1", 3),
    ],
)
def test_numbers_are_asked_for_as_numbers_and_parameters_by_name(tmp_path: Path, only: str, runs: int) -> None:
    assert len(Database([_at_rates(tmp_path)], only=[only]).rows("select 1 from runs")) == runs


@pytest.mark.parametrize(
    ("only", "said"),
    [
        ("lerning_rate=1", "column in --only: 'lerning_rate'. Did you mean 'learning_rate'"),
        ("protocol.lerning_rate=1", "protocols that were run: 'lerning_rate'. Did you mean 'learning_rate'"),
        ("learning_rate=7", "no run has learning_rate=7"),
    ],
)
def test_parameters_that_no_run_has_are_told_in_a_line(tmp_path: Path, only: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        Database([_at_rates(tmp_path)], only=[only])


def test_rows_over_several_values_of_a_field_are_told(tmp_path: Path) -> None:
    folder = _at_rates(tmp_path)
    told = "longtail-small mf: runs with 3 values of learning_rate (0.3, 1.0, 3.0) stand in the same rows"
    assert [text for text in make_board(Database([folder])).warnings if text.startswith(told)] != []
    one = make_board(Database([folder], only=["learning_rate=1"]))
    assert not any("stand in the same rows" in text for text in one.warnings)
