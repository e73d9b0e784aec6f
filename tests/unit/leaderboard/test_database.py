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
