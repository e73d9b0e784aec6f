"""Ranks and runs as dataframes."""

from __future__ import annotations

from pathlib import Path

import narwhals as nw
import pyarrow as pa
import pytest
from records import defended, record, scenario, untargeted, write

import fedbench
from fedbench.leaderboard.tidy import COLUMNS

PUBLISHED = Path(fedbench.__file__).parents[1] / "leaderboard" / "results"


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Three seeds of an attack that promotes, with and without a defense, and of two that do not reach anybody."""
    runs = [record(scenario(), seed, hr=0.5) for seed in range(3)]
    for seed in range(3):
        runs += [
            record(scenario("a-ra"), seed, er=0.80 + seed / 100),
            record(scenario("random"), seed, er=0.01 * seed * seed),
            defended("shield", "none", seed=seed, hr=0.45),
            defended("shield", "a-ra", seed=seed, er=0.10, hr=0.45),
            defended("shield", "random", seed=seed, er=0.0, hr=0.45),
        ]
    return write(tmp_path / "results", *runs)


def test_ranks_are_one_arrow_table(results: Path) -> None:
    table = fedbench.load_leaderboard(results)
    assert isinstance(table, pa.Table)
    assert table.schema == COLUMNS
    rows = {(row["board"], row["entry"]): row for row in table.to_pylist()}
    assert set(rows) == {("attacks", "a-ra"), ("attacks", "random"), ("defenses", "shield")}
    first, last, shield = rows["attacks", "a-ra"], rows["attacks", "random"], rows["defenses", "shield"]
    assert (first["rank"], first["last_rank"], first["beats"], last["rank"]) == (1, 1, 1, 2)
    assert (first["measure"], first["track"], first["model"]) == ("ER@10", "targeted", None)
    assert first["score"] == pytest.approx(81.0)
    assert first["low"] < 81.0 < first["high"]
    assert last["low"] == 0.0, "cut: no share is negative"
    assert first["run_ids"] == sorted(record(scenario("a-ra"), seed).run_id for seed in range(3))
    assert shield["cost"] == pytest.approx(5.0)
    assert shield["reduction"] == pytest.approx((71.0 + 5 / 3) / 2)
    assert shield["score"] == pytest.approx(shield["reduction"] - shield["cost"])
    assert fedbench.load_leaderboard(results, only=["attack=a-ra"], k=10).num_rows == 2
    with pytest.raises(fedbench.UserError, match="Unknown column in --only"):
        fedbench.load_leaderboard(results, only=["atack=a-ra"])
    with pytest.raises(fedbench.ResultsError, match="no results in"):
        fedbench.load_leaderboard(results / "none")


def test_other_tracks(tmp_path: Path) -> None:
    folder = write(
        tmp_path, *(untargeted(attack, seed=seed, hr=hr)
                    for attack, hr in (("none", 0.5), ("label-flip", 0.2), ("gaussian", 0.4)) for seed in range(2)),
    )  # fmt: skip
    rows = fedbench.load_leaderboard(folder).to_pylist()
    assert {(row["track"], row["entry"], row["measure"]) for row in rows} == {
        ("untargeted", "label-flip", "HR@10 loss %"),
        ("untargeted", "gaussian", "HR@10 loss %"),
    }
    assert {row["entry"]: row["score"] for row in rows} == pytest.approx({"label-flip": 60.0, "gaussian": 20.0})


def test_published_doses_and_prices_are_those_of_the_board() -> None:
    table = fedbench.load_leaderboard(PUBLISHED / "core.parquet", only=["dataset=ml-100k", "model=mf"])
    rows = [row for row in table.to_pylist() if row["board"] == "doses"]
    assert all((row["dataset"], row["model"]) == ("ml-100k", "mf") for row in rows)
    assert [row["rank"] for row in rows if row["entry"] in ("poisonfrs", "pieck-uea")] == [1, 1]
    assert {row["text"] for row in rows if row["entry"] == "random"} == {">10 %"}
    assert all(row["run_ids"] for row in rows)
    assert any(row["board"] == "prices" and row["score"] > 1 for row in table.to_pylist())


def test_dataframe_libraries_take_both_as_they_are(results: Path) -> None:
    for table in (fedbench.load_leaderboard(results), fedbench.load_results(results)):
        frame = nw.from_native(table, eager_only=True)
        assert len(frame) == table.num_rows
    ranks = nw.from_native(fedbench.load_leaderboard(results), eager_only=True)
    best = ranks.filter(nw.col("board") == "attacks", nw.col("rank") == 1)["entry"].to_list()
    assert best == ["a-ra"]
    runs = nw.from_native(fedbench.load_results(results), eager_only=True)
    means = runs.filter(nw.col("defense") == "none").group_by("attack").agg(nw.col("er_10").mean()).sort("er_10")
    assert means["attack"].to_list()[-1] == "a-ra"


def test_pandas_where_it_is(results: Path) -> None:
    pytest.importorskip("pandas")
    frame = fedbench.load_leaderboard(results).to_pandas()
    assert frame.loc[frame["board"] == "attacks", "entry"].tolist() == ["a-ra", "random"]
    assert len(fedbench.load_results(results).to_pandas()) == 18


def test_polars_where_it_is(results: Path) -> None:
    polars = pytest.importorskip("polars")
    assert polars.from_arrow(fedbench.load_leaderboard(results)).height == 3
