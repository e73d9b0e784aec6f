from __future__ import annotations

from pathlib import Path

import pytest
from records import defended, record, scenario, write

from fedbench.leaderboard import Database, UnderRow, attacks_under_defenses
from fedbench.leaderboard.board import make_board
from fedbench.leaderboard.render import markdown
from fedbench.leaderboard.under_defenses import family_order


def rows(folder: Path, model: str | None = None) -> dict[str, UnderRow]:
    return {row.attack: row for row in attacks_under_defenses(Database([folder]), model)}


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Undefended runs at two ratios, defended ones at 5 % only."""
    few = {"malicious_ratio": 0.01}
    return write(
        tmp_path,
        record(scenario(), hr=0.6),
        *(record(scenario(attack), er=er) for attack, er in [("a-ra", 0.8), ("a-hum", 0.6)]),
        *(record(scenario(attack, **few), er=0.0) for attack in ("a-ra", "a-hum")),
        *(defended("mean", attack, er=er, hr=0.59, family="aggregation") for attack, er in ATTACKS("0.5 0.1")),
        *(defended("drop", attack, er=er, hr=0.58, family="filter") for attack, er in ATTACKS("0.3 0.3")),
        *(defended("ruin", attack, er=er, hr=0.05, family="filter") for attack, er in ATTACKS("0.0 0.0")),
        *(defended("drop+mean", a, er=er, hr=0.6, family="filter+aggregation") for a, er in ATTACKS("0.2 0.5")),
    )


def ATTACKS(values: str) -> list[tuple[str, float]]:
    first, second = map(float, values.split())
    return [("none", 0.0), ("a-ra", first), ("a-hum", second)]


def test_numbers_of_a_row_are_over_the_same_scenarios(results: Path) -> None:
    found = rows(results)
    assert found["a-ra"].er.mean == pytest.approx(80), "1 % was not run under a defense"
    assert found["a-ra"].scenarios == 1
    assert {name: left.er.mean for name, left in found["a-ra"].under.items()} == {
        "mean": pytest.approx(50),
        "drop": pytest.approx(30),
        "ruin": pytest.approx(80),  # its HR@10 of 5 is under half of the 60 without it: a broken run prevents nothing
        "drop+mean": pytest.approx(20),
    }


def test_the_best_defense_has_the_highest_net_not_the_least_exposure(results: Path) -> None:
    found = rows(results)
    best = {attack: row.best for attack, row in found.items()}
    assert best["a-ra"] is not None
    assert best["a-hum"] is not None
    assert (best["a-ra"].defense, best["a-ra"].er.mean) == ("drop+mean", pytest.approx(20))
    assert (best["a-ra"].net, best["a-ra"].loss) == (pytest.approx(60), pytest.approx(0, abs=1e-9))
    assert (best["a-hum"].defense, best["a-hum"].er.mean) == ("mean", pytest.approx(10))
    assert list(found) == ["a-ra", "a-hum"], "the most under the best defense comes first"


def test_a_chain_counts_for_the_families_of_all_its_parts(results: Path) -> None:
    families = {family: left.defense for family, left in rows(results)["a-ra"].families.items()}
    assert families == {"aggregation": "drop+mean", "filter": "drop+mean"}
    families = {family: left.defense for family, left in rows(results)["a-hum"].families.items()}
    assert families == {"aggregation": "mean", "filter": "drop"}


def test_a_defense_that_lacks_a_scenario_is_left_out(results: Path) -> None:
    few = {"malicious_ratio": 0.01}
    names = {"mean": "aggregation", "drop": "filter", "ruin": "filter"}
    write(results, *(defended(name, "a-ra", er=0.0, family=family, fields=few) for name, family in names.items()))
    row = rows(results)["a-ra"]
    assert (row.scenarios, row.apart) == (2, ["drop+mean"])
    assert row.er.mean == pytest.approx(40)
    assert row.best is not None
    assert (row.best.defense, row.best.er.mean) == ("drop", pytest.approx(15))
    assert rows(results)["a-hum"].apart == []


def test_without_clean_runs_nothing_is_known_to_be_best(tmp_path: Path) -> None:
    write(tmp_path, record(scenario("a-ra"), er=0.5), defended("mean", "a-ra", er=0.1))
    row = rows(tmp_path)["a-ra"]
    assert (row.best, row.families) == (None, {})
    assert row.under["mean"].er.mean == pytest.approx(10)
    assert "| a-ra | 50.0 | 50.0 | - | - | - | - |" in markdown(make_board(Database([tmp_path])))


def test_defenses_that_share_no_scenario_are_not_compared(tmp_path: Path) -> None:
    few = {"malicious_ratio": 0.01}
    write(
        tmp_path,
        record(scenario("a-ra"), er=0.5),
        record(scenario("a-ra", **few), er=0.3),
        defended("mean", "a-ra", er=0.1),
        defended("drop", "a-ra", er=0.1, fields=few),
    )
    row = rows(tmp_path)["a-ra"]
    assert (row.under, row.best, row.apart) == ({}, None, ["drop", "mean"])
    assert row.er.mean == pytest.approx(40)


def test_a_diverged_run_leaves_all_exposure_and_has_lost_the_recommender(tmp_path: Path) -> None:
    write(
        tmp_path,
        record(scenario(), hr=0.6),
        record(scenario("a-ra"), er=0.5),
        *(defended("mean", attack, er=0.2, hr=0.6) for attack in ("none", "a-ra")),
        *(defended("wild", attack, status="diverged") for attack in ("none", "a-ra")),
    )
    row = rows(tmp_path)["a-ra"]
    assert row.under["wild"].er.mean == pytest.approx(50)
    assert row.under["wild"].net == pytest.approx(0 - 60)
    assert (row.under["wild"].hr, row.under["mean"].hr, row.hr) == (0, pytest.approx(60), pytest.approx(50))
    assert row.best is not None
    assert row.best.defense == "mean"


def test_attacks_are_called_as_in_the_undefended_table(tmp_path: Path) -> None:
    wide = scenario("a-ra", attack_params={"pseudo_users": 50})
    write(tmp_path, record(scenario("a-ra"), er=0.5), record(wide, er=0.6), defended("mean", "a-ra", er=0.2))
    assert list(rows(tmp_path)) == ["a-ra (pseudo_users=10)"]


def test_undefended_seeds_count_once_and_only_where_a_defense_ran(tmp_path: Path) -> None:
    write(
        tmp_path,
        *(record(scenario("a-ra"), seed, er=er) for seed, er in enumerate([0.4, 0.6, 0.9])),
        *(defended("mean", "a-ra", seed, er=0.1) for seed in (0, 1)),
        defended("drop", "a-ra", 0, er=0.2),
    )
    row = rows(tmp_path)["a-ra"]
    assert (row.er.mean, row.er.n) == (pytest.approx(50), 2)


def test_the_tables(results: Path) -> None:
    board = make_board(Database([results]))
    sheets = {sheet.title: sheet for sheet in board.sheets}
    sheet = sheets["Attacks under defenses"]
    assert sheet.headings == (
        "attack", "ER@10 undefended", "HR@10 undefended", "ER@10 under the best", "HR@10 under the best", "best defense",
        "its cost, HR@10", "best aggregation", "best filter", "scenarios", "defenses", "left out",
    )  # fmt: skip
    assert sheet.rows[1] == (
        "a-hum", "60.0", "50.0", "10.0", "59.0", "mean", "+1.0", "10.0 (HR 59.0) mean", "30.0 (HR 58.0) drop", "1", "4", "0"
    )  # fmt: skip
    matrix = sheets["ER@10 on mf, attack by defense"]
    assert matrix.wide
    assert matrix.headings == ("attack", "none", "mean", "drop", "drop+mean", "ruin")
    assert matrix.rows == [
        ("a-ra", "80.0 (HR 50.0)", "50.0 (HR 59.0)", "30.0 (HR 58.0)", "20.0 (HR 60.0)", "80.0 (HR 5.0)"),
        ("a-hum", "60.0 (HR 50.0)", "10.0 (HR 59.0)", "30.0 (HR 58.0)", "50.0 (HR 60.0)", "60.0 (HR 5.0)"),
    ]
    assert not [title for title in sheets if title.startswith("Attacks under ") and title != "Attacks under defenses"]


def test_families_come_in_their_own_order() -> None:
    assert family_order(["filter", "zen", "client-side", "aggregation", "art"]) == [
        "aggregation", "client-side", "filter", "art", "zen",
    ]  # fmt: skip
