"""The track of attacks that demote: ranked by the users who would have been shown a target and no longer are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from records import defended, record, scenario, write

from fedbench.comparison import compare_entries
from fedbench.leaderboard import DEMOTION, Database, attacks_under_defenses, rank_attacks, rank_defenses, rank_demotion
from fedbench.leaderboard.board import make_board
from fedbench.leaderboard.heatmap import heat_grids
from fedbench.leaderboard.page.boards import Shared, plain_board
from fedbench.leaderboard.picture import draw_defenses
from fedbench.leaderboard.ranking_demotion import demotion_cells
from fedbench.leaderboard.render import headline, markdown
from fedbench.runs.record import RunRecord

POPULAR: dict[str, Any] = {"target": "most-popular"}
CLEAN = "0000-...."  # of eight users four count and are shown the target, in the first place


def shown(attack: str = "none", seed: int = 0, places: str = CLEAN, defense: str = "none", **values: Any) -> RunRecord:
    """A run on the most popular item, which is shown as ``places`` says."""
    counted = places.replace(".", "")
    values = {"er": counted.count("0") / max(len(counted), 1), "target_places": [places]} | values
    if defense != "none":
        return defended(defense, attack, seed, fields=POPULAR, **values)
    return record(scenario(attack, **POPULAR), seed, **values)


@pytest.fixture
def board(tmp_path: Path) -> Path:
    """a-ra-demote takes the target from three of four users, then from two; a-hum-demote from one; one more promotes."""
    return write(
        tmp_path,
        *(shown(seed=seed) for seed in (0, 1)),
        *(shown("a-ra-demote", seed, places, hr=0.45) for seed, places in enumerate(["0---0....", "00---...."])),
        *(shown("a-hum-demote", seed, "000--....") for seed in (0, 1)),
        *(shown(seed=seed, defense="mean", hr=0.48) for seed in (0, 1)),
        *(shown("a-ra-demote", seed, "0000-....", "mean", hr=0.44) for seed in (0, 1)),
        *(shown("a-hum-demote", seed, "000--....", "mean") for seed in (0, 1)),
        *(record(scenario("a-ra"), seed, er=0.3) for seed in (0, 1)),
        *(record(scenario(), seed) for seed in (0, 1)),
    )


def test_attacks_are_ranked_by_the_users_who_lose_the_target(board: Path) -> None:
    database = Database([board])
    first, second = rank_demotion(database)
    assert (first.attack, second.attack) == ("a-ra-demote", "a-hum-demote")
    assert first.dr is not None
    assert second.dr is not None
    assert (first.dr.mean, second.dr.mean) == (pytest.approx((75 + 50) / 2), pytest.approx(25))
    # Of five users who count, the target is shown to two; user 4 has it who had not, which no loss makes up for.
    assert (first.er, first.clean_er) == (pytest.approx(40), pytest.approx(80))
    assert first.hr_change is not None
    assert first.hr_change.mean == pytest.approx(-5)
    assert (first.unpaired, first.scenarios, first.hr) == (0, 1, pytest.approx(45))
    assert [(cell.attack, cell.dr.mean) for cell in demotion_cells(database)] == [
        ("a-hum-demote", pytest.approx(25)),
        ("a-ra-demote", pytest.approx(62.5)),
    ]
    assert [row.attack for row in rank_attacks(database)] == ["a-ra"], "who promotes is ranked by exposure, apart"


def test_defenses_are_ranked_by_the_users_who_keep_it(board: Path, tmp_path: Path) -> None:
    database = Database([board])
    (row,) = rank_defenses(database, None, DEMOTION)
    assert row.reduction is not None
    assert row.loss is not None
    assert row.loss_attacked is not None
    assert row.reduction.mean == pytest.approx((62.5 + 0) / 2)
    assert (row.loss.mean, row.loss_attacked.mean) == (pytest.approx(2), pytest.approx((1 + 0) / 2))
    assert (row.net, row.er, row.goal) == (pytest.approx(31.25 - 2), pytest.approx(12.5), "demote")
    under = {each.attack: each for each in attacks_under_defenses(database, None, DEMOTION)}
    assert under["a-ra-demote"].under["mean"].er.mean == 0
    (grid,) = [each for each in heat_grids(database) if each.measure.startswith("DR")]
    assert grid.values == [[pytest.approx(62.5), pytest.approx(0)], [pytest.approx(25), pytest.approx(25)]]
    draw_defenses([row], tmp_path / "defenses.svg", 10)
    assert "DR@10 reduction" in (tmp_path / "defenses.svg").read_text()


def test_a_broken_run_has_demoted_nothing_and_prevents_nothing(tmp_path: Path) -> None:
    write(
        tmp_path,
        *(shown(seed=seed, popularity_hr_10=0.4) for seed in (0, 1)),
        shown("a-ra-demote", 0, "-----....", hr=0.1, popularity_hr_10=0.4),
        shown("a-ra-demote", 1, "-----....", status="diverged", target_places=None),
        shown("a-hum-demote", 0, "0----....", popularity_hr_10=0.4),
        *(shown(seed=seed, defense="mean", popularity_hr_10=0.4) for seed in (0, 1)),
        shown("a-hum-demote", 0, "0000-....", "mean", hr=0.1, popularity_hr_10=0.4),
    )
    rows = {row.attack: row for row in rank_demotion(Database([tmp_path]))}
    broken = rows["a-ra-demote"]
    assert broken.dr is not None
    assert (broken.dr.mean, broken.broken, broken.diverged, broken.unpaired) == (0, 2, 1, 0)
    assert rows["a-hum-demote"].dr is not None
    (defense,) = rank_defenses(Database([tmp_path]), None, DEMOTION)
    assert defense.reduction is not None
    assert (defense.reduction.mean, defense.er) == (0, pytest.approx(75))


@pytest.mark.parametrize(
    "twin",
    [None, {"status": "failed"}, {"target_places": None}, {"places": "-----...."}, {"places": "0000-..."}],
    ids=["none", "failed", "an old record", "shown to nobody", "of other users"],
)
def test_without_a_twin_that_shows_the_target_there_is_no_loss(tmp_path: Path, twin: dict[str, Any] | None) -> None:
    write(tmp_path, shown("a-ra-demote", 0, "0----...."), *([shown(**twin)] if twin else []))
    (row,) = rank_demotion(Database([tmp_path]))
    assert (row.rank, row.dr, row.unpaired, row.scenarios) == (None, None, 1, 0)
    assert "| - | a-ra-demote | - |" in markdown(make_board(Database([tmp_path])))


def test_the_board_has_a_track_of_its_own(board: Path) -> None:
    database = Database([board])
    made = make_board(database)
    text = markdown(made)
    assert "## Demotion: attacks by DR@10, without a defense" in text
    assert "## Demotion: DR@10 on longtail-small, mf, by malicious ratio" in text
    assert "## Demotion: defenses by DR@10 reduction minus HR@10 loss" in text
    assert "DR@10 (demotion): of the users" in text
    assert "select * from demotion_attacks where defense = 'none' and attack_goal = 'demote'" in text
    alone = make_board(Database([board], only=["target=most-popular"]))
    assert "DR@10 and HR@10 in percent" in headline(alone)
    ids = [row["run_id"] for row in database.rows("select run_id from runs")]
    whole = plain_board(made, Shared(dict.fromkeys(ids, 0)))
    assert [row["attack"] for row in whole["demotion_attacks"]] == ["a-ra-demote", "a-hum-demote"]
    assert whole["captions"]["demotion_attacks"]
    without = make_board(Database([board], only=["target=random:0"]))
    assert not [key for key in without.data if key.startswith("demotion")], "boards without such runs are as they were"


def test_lists_of_another_length_have_numbers_of_their_own(tmp_path: Path) -> None:
    write(tmp_path, shown(places="06-.."), shown("a-ra-demote", places="0--.."))
    database = Database([tmp_path])
    assert database.rows("select dr from demotion_attacks") == [{"dr": 0.5}]
    assert database.at(5).rows("select dr from demotion_attacks") == [{"dr": 0.0}]


def test_two_attacks_are_compared_by_it(board: Path) -> None:
    found = compare_entries(Database([board]), "a-ra-demote", "a-hum-demote", "attack")
    first = found.contrasts[0]
    assert (first.measure, first.a, first.b) == ("DR@10", pytest.approx((62.5 + 0) / 2), pytest.approx(25))
