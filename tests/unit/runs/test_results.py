from __future__ import annotations

import builtins
import dataclasses
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from records import record, scenario, untargeted, write

from fedbench.defenses import DEFENSES, Defense
from fedbench.defenses.norm_bound import NormBound
from fedbench.entries.cards import DefenseCard
from fedbench.errors import ResultsError
from fedbench.leaderboard import Database
from fedbench.runs.record import (
    IMAGE_MEASURES,
    METRICS,
    SAMPLING_ERRORS,
    SCHEMA_VERSION,
    SUBGROUP_MEASURES,
    RunRecord,
    schema,
    summarize_curve,
)
from fedbench.runs.results import pack, path_of, scan, write_record


def test_a_curve_is_summed_up_by_end_peak_and_tail() -> None:
    curve = [
        {"epoch": e, "er_10": v, "hr_10": 0.5} for e, v in [(25, 0.2), (50, 0.9), (75, 0.9), (80, 0.4), (100, 0.1)]
    ]
    metrics = summarize_curve(curve, 100)["metrics"]
    assert metrics["er_10"] == 0.1
    assert (metrics["er_10_peak"], metrics["er_10_peak_epoch"]) == (0.9, 50)
    assert metrics["er_10_tail"] == pytest.approx(0.25)  # epochs 80 and 100, after three quarters
    assert metrics["hr_10"] == 0.5
    assert metrics["er_5"] is None


def test_the_best_epoch_is_the_first_with_the_highest_validation_hit_ratio() -> None:
    curve = [
        {"epoch": e, "val_hr_full_5": v, "hr_full_5": t, "ndcg_full_20": t / 2}
        for e, v, t in [(200, 0.1, 0.9), (400, 0.3, 0.2), (600, 0.3, 0.8), (800, 0.2, 0.4)]
    ]
    metrics = summarize_curve(curve, 800)["metrics"]
    assert metrics["best_epoch"] == 400
    assert (metrics["hr_full_5_best"], metrics["ndcg_full_20_best"], metrics["hr_full_10_best"]) == (0.2, 0.1, None)
    assert metrics["hr_full_5"] == 0.4
    assert summarize_curve([{"epoch": 1, "hr_full_5": 0.5}], 1)["metrics"]["hr_full_5_best"] is None


@given(st.lists(st.tuples(st.integers(0, 4), st.floats(0, 1)), min_size=1, max_size=8))
def test_nothing_before_the_best_epoch_is_as_good_and_nothing_after_it_better(points: list[tuple[int, float]]) -> None:
    curve = [{"epoch": n, "val_hr_full_5": v / 4, "hr_full_5": t} for n, (v, t) in enumerate(points)]
    metrics = summarize_curve(curve, len(points))["metrics"]
    best = metrics["best_epoch"]
    assert all(v < points[best][0] for v, _ in points[:best])
    assert all(v <= points[best][0] for v, _ in points[best:])
    assert metrics["hr_full_5_best"] == points[best][1]


def test_validation_metrics_are_written_and_read_back(tmp_path: Path) -> None:
    path = write_record(untargeted("a-ra", hr=[0.04, 0.03, 0.02], val=[0.1, 0.3, 0.2]), tmp_path)
    (row,) = pq.read_table(path).to_pylist()
    assert (row["best_epoch"], row["hr_full_10_best"], row["ndcg_full_10_best"]) == (20, 0.03, 0.015)
    assert (row["er_10"], row["target_items"]) == (None, [])
    assert [point["val_hr_full_5"] for point in row["curve"]] == [0.1, 0.3, 0.2]
    assert {point["val_ndcg_full_20"] for point in row["curve"]} == {None}


def test_an_empty_curve_has_no_numbers() -> None:
    assert set(summarize_curve([], 10)["metrics"].values()) == {None}


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    one = record(scenario("a-ra"), 3, er=[0.25, 0.5], hr=[0.5, 0.6])
    path = write_record(one, tmp_path / "new" / "folder")
    assert path.name == f"{one.scenario_id}-s3.parquet"
    table = pq.read_table(path)
    assert table.schema.names == schema().names
    (row,) = table.to_pylist()
    assert row["schema_version"] == SCHEMA_VERSION
    assert row["run_id"] == one.run_id
    assert row["er_10"] == 0.5
    assert row["er_10_peak"] == 0.5
    assert row["hr_10"] == 0.6
    assert [(p["epoch"], p["er_10"]) for p in row["curve"]] == [(10, 0.25), (20, 0.5)]
    assert row["attack_knowledge"] == []
    assert row["started_at"].isoformat() == "2026-01-02T03:04:05+00:00"
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_every_column_of_a_record_has_a_type() -> None:
    names = {f.name for f in dataclasses.fields(RunRecord)} - {"metrics", "images", "subgroup", "sampling_errors"}
    assert names <= set(schema().names)
    assert {*METRICS, *IMAGE_MEASURES, *SUBGROUP_MEASURES, *SAMPLING_ERRORS} <= set(schema().names)


def test_twins_are_named_in_the_record() -> None:
    attacked = record(scenario("a-ra", "norm-bound"))
    assert attacked.clean_id == scenario("none", "norm-bound").id
    assert attacked.undefended_id == scenario("a-ra").id
    assert attacked.baseline_id == scenario().id


def test_the_card_of_the_defense_is_in_the_record() -> None:
    plain = record(scenario("a-ra"))
    assert (plain.defense_family, plain.defense_knowledge, plain.defense_assumes) == ("none", [], "nothing")
    card = dataclasses.replace(
        NormBound.card, knowledge=frozenset({"num_clients", "malicious_ratio"}), assumes="5 % (given)"
    )
    stated = type("Stated", (NormBound,), {"card": card})
    with DEFENSES.lent("stated-bound", stated):
        bound = record(scenario("a-ra", "stated-bound"))
    assert bound.defense_family == "clipping"
    assert bound.defense_knowledge == ["malicious_ratio", "num_clients"]
    assert bound.defense_assumes == "5 % (given)"


def test_a_chain_records_what_its_parts_are(monkeypatch: pytest.MonkeyPatch) -> None:
    class Dropping(Defense):
        card = DefenseCard(
            "dropping", "Dropping", "nobody", family="filter", knowledge=frozenset({"n"}), assumes="a half"
        )

    known = DEFENSES.get
    monkeypatch.setattr(DEFENSES, "get", lambda name: Dropping if name == "dropping" else known(name))
    one = record(scenario("a-ra", "dropping+norm-bound"))
    assert (one.defense_family, one.defense_knowledge) == ("filter+clipping", ["n"])
    assert one.defense_assumes == "a half"


def test_scan_counts_whole_records_and_names_the_others(tmp_path: Path) -> None:
    write(tmp_path, record(scenario(), 0), record(scenario(), 1, status="diverged"), record(scenario("a-ra"), 0))
    whole = path_of(tmp_path, scenario("a-ra").id, 0)
    whole.write_bytes(whole.read_bytes()[:-200])
    (tmp_path / "foreign.parquet").write_bytes(b"not parquet")
    pq.write_table(pq.read_table(path_of(tmp_path, scenario().id, 0), columns=["seed"]), tmp_path / "other.parquet")
    pq.write_table(
        pa.table({"schema_version": ["one"], "scenario_id": ["x"], "seed": [0], "status": ["ok"]}),
        tmp_path / "text.parquet",
    )
    (tmp_path / ".half.parquet.1.tmp").write_bytes(b"")
    found = scan([tmp_path, tmp_path / "missing"])
    assert found.status == {(scenario().id, 0): "ok", (scenario().id, 1): "diverged"}
    assert {Path(name).name for name in found.damaged} == {
        whole.name,
        "foreign.parquet",
        "other.parquet",
        "text.parquet",
    }
    assert all(reason and "\n" not in reason for reason in found.damaged.values())


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ResultsError, match=r"cannot write the result .*: (Not a directory|File exists)\.") as caught:
        write_record(record(scenario()), tmp_path / "file")
    assert "\n" not in str(caught.value)


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Any, *args: Any, **kwargs: Any) -> Any:
        handle = real(path, *args, **kwargs)
        if str(path).endswith(".tmp"):
            handle.close()
            raise OSError(28, "No space left on device")
        return handle

    real = builtins.open
    monkeypatch.setattr(builtins, "open", full)
    with pytest.raises(ResultsError, match="No space left on device"):
        write_record(record(scenario()), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_packed_records_are_read_like_single_ones(tmp_path: Path) -> None:
    write(tmp_path / "many", *(record(scenario("a-ra"), seed, er=seed / 10) for seed in range(3)))
    assert len(pack([tmp_path / "many"], tmp_path / "one" / "all.parquet").table) == 3
    found = scan([tmp_path / "one"])
    assert found.status == scan([tmp_path / "many"]).status
    assert scan([tmp_path / "one" / "all.parquet"]).status == found.status
    assert len(Database([tmp_path / "one"]).rows("select * from runs")) == 3
    history = Path(__file__).parents[2] / "historic_results"
    assert len(pack([tmp_path / "many", history], tmp_path / "old" / "all.parquet").table) == 3 + SCHEMA_VERSION
    old = scan([tmp_path / "old"]).table.to_pylist()
    assert len(old) == 3 + SCHEMA_VERSION
    assert all(row["er_10"] == row["curve"][-1]["er_10"] for row in old), "points have kept their fields"
    with pytest.raises(ResultsError, match="no results in"):
        pack([tmp_path / "nothing"], tmp_path / "x.parquet")


def test_of_several_records_of_a_run_the_one_that_readers_take_is_packed(tmp_path: Path) -> None:
    old, late = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC)
    of = scenario("a-ra")
    write(tmp_path / "a", record(of, 0, er=0.1, started_at=old), record(of, 1, er=0.2, started_at=old))
    write(tmp_path / "b", record(of, 0, er=0.3, started_at=late))
    write(
        tmp_path / "c",
        record(of, 0, status="failed", error="x", started_at=late),
        record(of, 1, er=0.4, started_at=late),
    )
    folders = [tmp_path / name for name in "abc"]
    assert len(pack(folders, tmp_path / "all.parquet").table) == 2
    query = "select run_id, er_10 from runs order by run_id"
    packed = Database([tmp_path / "all.parquet"]).rows(query)
    assert packed == Database(folders).rows(query)
    assert [row["er_10"] for row in packed] == pytest.approx([0.3, 0.4])
    assert len(pack([tmp_path / "all.parquet", *folders], tmp_path / "all.parquet").table) == 2


@pytest.mark.parametrize("at_once", [1, 2, 5, 100])
def test_what_is_found_does_not_depend_on_how_many_records_are_checked_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    of = scenario("a-ra")
    for seed in range(7):
        write(tmp_path / "c", record(of, seed, er=seed / 10))
    for seed in (1, 4):  # another number under the old checksum
        path = path_of(tmp_path / "c", of.id, seed)
        table = pq.read_table(path)
        pq.write_table(table.set_column(table.schema.get_field_index("er_10"), "er_10", pa.array([0.9])), path)
    path_of(tmp_path / "c", of.id, 5).write_bytes(b"nothing")
    pack([tmp_path / "c"], tmp_path / "b.parquet")
    write(tmp_path / "d", record(of, 7, er=0.7))
    monkeypatch.setattr("fedbench.runs.results._CHECKED", at_once)
    found = scan([tmp_path])
    assert [path.name[-10:] for path in found.files] == ["b.parquet", *(f"s{n}.parquet" for n in (0, 2, 3, 6, 7))]
    assert {Path(name).name[-10:] for name in found.damaged} == {f"s{n}.parquet" for n in (1, 4, 5)}
    assert found.table["seed"].to_pylist() == [0, 2, 3, 6, 7]
    assert found.table["er_10"].to_pylist() == pytest.approx([0.0, 0.2, 0.3, 0.6, 0.7])


def test_records_of_many_files_lie_in_few_chunks(tmp_path: Path) -> None:
    """What reads a table goes over its chunks, column by column."""
    for seed in range(7):
        write(tmp_path, record(scenario("a-ra"), seed, er=seed / 10))
    table = scan([tmp_path]).table
    assert table["seed"].to_pylist() == list(range(7))
    assert table["er_10"].num_chunks <= 2


def test_results_of_every_past_schema_still_load() -> None:
    folder = Path(__file__).parents[2] / "historic_results"
    schemas = sorted(int(path.stem.removeprefix("v")) for path in folder.glob("v*.parquet"))
    assert schemas == list(range(1, SCHEMA_VERSION + 1))
    found = scan([folder])
    assert not found.damaged
    # Each by itself: they are of several data under one name, which a board never mixes.
    files = [folder / f"v{version}.parquet" for version in schemas]
    rows = [row for file in files for row in Database([file]).rows("select *, len(curve) as points from runs")]
    assert [row["schema_version"] for row in rows] == schemas
    assert all(row["attack"] == "pieck-uea" and row["er_10"] > 0.5 and row["points"] > 0 for row in rows)
    old, new, third, fourth, fifth, sixth, seventh, eighth, latest = rows
    nothing = [None] * (SCHEMA_VERSION - 3)
    assert [row["best_epoch"] for row in rows] == [None, None, 20, *nothing]
    assert [row["curve"][-1]["val_hr_full_5"] for row in rows] == [None, None, 0.25, *nothing]
    assert (third["hr_full_5_best"], third["ndcg_full_20_best"], third["defense_family"]) == (0.125, 0.0625, "none")
    versions = [(row["model_version"], row["defense_version"]) for row in rows]
    assert versions == [(None, None)] * 3 + [(1, 3)] + [(1, 1)] * (SCHEMA_VERSION - 4)
    assert fourth["defense"] == "norm-bound"
    assert [row["model_source_hash"] for row in rows[:4]] == [None] * 4
    assert len(fifth["model_source_hash"]) == 64
    assert (sixth["extractor"], sixth["uploads"], sixth["image_psnr"], sixth["checksum"]) == (None, None, None, None)
    assert (seventh["isolation"], seventh["refused_uploads"], seventh["warnings"]) == ("none", 0, [])
    places = dict(zip(found.table["run_id"].to_pylist(), found.table["target_places"].to_pylist(), strict=True))
    assert [places[row["run_id"]] for row in rows[:7]] == [None] * 7
    assert [len(each) for each in places[eighth["run_id"]]] == [eighth["num_users"]]
    assert (eighth["sampled_users"], eighth["er_10_se"]) == (None, None)
    assert latest["sampled_users"] == 200
    assert all(0 < latest[name] < 0.05 for name in ("er_10_se", "hr_10_se", "hr_full_10_se"))
    assert (old["defense_family"], old["defense_knowledge"], old["defense_assumes"]) == (None, None, None)
    assert (new["defense_family"], new["defense_knowledge"], new["defense_assumes"]) == ("clipping", [], "nothing")


def test_a_newer_schema_is_left_out_with_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedbench.runs.record.SCHEMA_VERSION", SCHEMA_VERSION + 1)
    write(tmp_path, record(scenario()))
    monkeypatch.undo()
    found = scan([tmp_path])
    assert not found.status
    assert "newer" in next(iter(found.damaged.values()))


def test_columns_that_an_old_file_lacks_are_null(tmp_path: Path) -> None:
    write(tmp_path, record(scenario("a-ra"), er=0.5))
    (path,) = tmp_path.iterdir()
    table = pq.read_table(path)
    version = pa.array([6], pa.int32())  # the last without a checksum
    pq.write_table(table.set_column(0, "schema_version", version).drop_columns(["er_30", "suite", "checksum"]), path)
    assert Database([tmp_path]).rows("select er_10, er_30, suite from runs") == [
        {"er_10": 0.5, "er_30": None, "suite": None}
    ]


def test_a_file_that_is_damaged_inside_is_left_out(tmp_path: Path) -> None:
    write(tmp_path, *(record(scenario("a-ra"), seed, er=0.5) for seed in range(3)))
    inside = path_of(tmp_path, scenario("a-ra").id, 0)
    metadata = pq.ParquetFile(inside).metadata.row_group(0)
    column = next(
        metadata.column(n) for n in range(metadata.num_columns) if metadata.column(n).path_in_schema == "er_10"
    )
    content = bytearray(inside.read_bytes())
    content[column.data_page_offset : column.data_page_offset + column.total_compressed_size] = bytes(
        [255] * column.total_compressed_size
    )
    inside.write_bytes(content)
    foreign = path_of(tmp_path, scenario("a-ra").id, 1)
    table = pq.read_table(foreign)
    pq.write_table(table.set_column(table.schema.get_field_index("er_10"), "er_10", pa.array(["much"])), foreign)
    assert [file.name[-11:] for file in scan([tmp_path]).files] == ["-s2.parquet"], "what a run keeps, the board ranks"
    database = Database([tmp_path])
    assert database.rows("select seed from runs") == [{"seed": 2}]
    assert {Path(name).name for name in database.found.damaged} == {inside.name, foreign.name}
    path_of(tmp_path, scenario("a-ra").id, 2).unlink()
    with pytest.raises(ResultsError, match=r"no whole result file: .*-s0\.parquet: ") as caught:
        Database([tmp_path])
    assert "\n" not in str(caught.value)
