from __future__ import annotations

import statistics
from dataclasses import replace
from pathlib import Path

import pytest
from page_records import with_images
from records import record, scenario, visual, write

from fedbench.leaderboard import (
    VISUAL,
    Database,
    VisualDefenseRow,
    attacks_under_defenses,
    rank_attacks,
    rank_defenses,
    rank_visual,
)
from fedbench.leaderboard.board import make_board
from fedbench.leaderboard.page.boards import Shared, plain_board
from fedbench.leaderboard.picture import draw_defenses
from fedbench.leaderboard.ranking_visual import visual_bounds, visual_cells
from fedbench.leaderboard.render import headline, markdown


@pytest.fixture
def board(tmp_path: Path) -> Path:
    return write(tmp_path, *with_images())


def test_attacks_on_images_are_compared_within_equal_bounds(board: Path) -> None:
    database = Database([board], 5)
    assert visual_bounds(database) == [4, 8]
    rows = {row.attack: row for row in rank_visual(database)}
    assert set(rows) == {"psmu-v", "popularity-image", "psmu"}, "the bound is no part of the name"
    first = rows["psmu-v"]
    assert first.er is not None
    assert first.er.mean == pytest.approx(statistics.fmean([50, 52, 70, 72]))
    assert (first.rank, first.scenarios, first.change, first.psnr, first.cosine) == (1, 2, 6, 36, 0.5)
    assert first.ndcg_loss is not None
    assert first.ndcg_loss.mean == pytest.approx(25)
    assert (rows["psmu"].rank, rows["psmu"].missing) == (
        None,
        [f"longtail-small vncf icde24 0.05 random:0, eps {eps}" for eps in (4, 8)],
    )


@pytest.mark.parametrize(("eps", "order"), [(4, ["psmu-v", "psmu", "popularity-image"]), (8, ["psmu-v", "psmu"])])
def test_within_one_bound_an_attack_without_images_is_compared_too(board: Path, eps: float, order: list[str]) -> None:
    rows = rank_visual(Database([board], 5), None, eps)
    assert [row.attack for row in rows][: len(order)] == order
    assert all(row.rank is not None and row.scenarios == 1 for row in rows)
    assert {row.attack: row.change for row in rows} == {"psmu-v": eps, "popularity-image": eps, "psmu": None}


def test_one_bound_alone_has_no_table_of_its_own(tmp_path: Path) -> None:
    write(tmp_path, visual(), visual("psmu-v", er=0.5, eps=4), visual("popularity-image", er=0.1, eps=4))
    database = Database([tmp_path], 5)
    assert visual_bounds(database) == []
    assert make_board(database).data["visual_attacks_within"] == {}


def test_cells_stand_by_bound(board: Path) -> None:
    cells = {(cell.attack, cell.eps): cell for cell in visual_cells(Database([board], 5))}
    assert cells["psmu-v", 8].er.mean == pytest.approx(71)
    assert cells["psmu-v", 8].ndcg == pytest.approx(3)
    assert ("psmu", None) in cells
    assert len(cells) == 5


def test_defenses_of_images_by_exposure_and_relative_loss_of_ndcg(board: Path) -> None:
    database = Database([board], 5)
    gentle, harsh = sorted(rank_defenses(database, None, VISUAL), key=lambda row: row.defense)
    assert isinstance(gentle, VisualDefenseRow)
    assert gentle.reduction is not None
    assert gentle.loss is not None
    assert gentle.reduction.mean == pytest.approx(0.5 * statistics.fmean([51, 71, 11, 21]))
    assert gentle.loss.mean == pytest.approx(5)
    assert harsh.loss is not None
    assert harsh.loss.mean == pytest.approx(50)
    assert (gentle.goal, gentle.worst) == ("visual", ("psmu-v, eps 8", pytest.approx(35.5)))
    assert (gentle.similarity, gentle.least_similarity, gentle.auc, gentle.recall_zero_fp) == (
        pytest.approx(0.9), pytest.approx(0.6), pytest.approx(0.95), pytest.approx(70),
    )  # fmt: skip
    assert (gentle.recall, gentle.false_alarms) == (None, None), "it flags nothing itself"
    under = attacks_under_defenses(database, None, VISUAL)
    assert {row.attack for row in under} == {f"{a}, eps {e}" for a in ("psmu-v", "popularity-image") for e in (4, 8)}


def test_a_defense_that_cleans_nothing_has_no_similarity(tmp_path: Path) -> None:
    images = {"clean_similarity_mean": 1.0, "clean_similarity_min": 1.0, "detection_auc": None}
    attacked = visual("psmu-v", er=0.1, eps=4, defense="norm-bound", images=images)
    write(
        tmp_path,
        visual(),
        visual("psmu-v", er=0.5, eps=4),
        replace(visual(defense="norm-bound"), defense_family="clipping"),
        replace(attacked, defense_family="clipping"),
    )
    (row,) = rank_defenses(Database([tmp_path], 5), None, VISUAL)
    assert isinstance(row, VisualDefenseRow)
    assert (row.family, row.similarity, row.least_similarity) == ("clipping", None, None)


def test_a_purifier_that_diverges_without_an_attack_has_lost_everything(tmp_path: Path) -> None:
    write(
        tmp_path,
        visual(),
        visual("psmu-v", er=0.5, eps=4),
        visual("psmu-v", er=0.1, eps=4, defense="wild"),
        visual(defense="wild", status="diverged"),
    )
    (row,) = rank_defenses(Database([tmp_path], 5), None, VISUAL)
    assert row.loss is not None
    assert (row.loss.mean, row.clean_broken) == (100, 1)


def test_a_run_that_failed_before_it_had_an_extractor_stays_in_the_track(tmp_path: Path) -> None:
    failed = visual("psmu-v", 1, eps=4, status="failed", error="RuntimeError: no")
    write(tmp_path, visual(), visual("psmu-v", er=0.5, eps=4), replace(failed, extractor=None))
    database = Database([tmp_path], 5)
    assert [(row.attack, row.failed) for row in rank_visual(database)] == [("psmu-v", 1)]
    assert len(rank_attacks(database)) == 0


def test_the_targeted_board_is_the_same_beside_the_visual_one(board: Path) -> None:
    write(board / "other", record(scenario()), record(scenario("a-ra"), er=0.3), record(scenario("random"), er=0.1))
    alone = make_board(Database([board / "other"]))
    both = make_board(Database([board, board / "other"]))
    assert not any(key.startswith("visual") for key in alone.data)
    for key in ("attacks", "defenses", "cells", "attacks_by_model"):
        assert both.data[key] == alone.data[key]
    assert [track.panel for track in both.tracks] == ["promote", "visual"]
    assert both.sheets[: len(alone.sheets)] == alone.sheets


def test_the_board_shows_the_track(board: Path) -> None:
    made = make_board(Database([board], 5))
    text = markdown(made)
    assert "ER@5 and NDCG@20 in percent" in headline(made)
    for title in (
        "Visual: attacks by ER@5 at equal eps, without a defense",
        "Visual: attacks within eps 4",
        "Visual: attacks within eps 8",
        "Visual: ER@5 on longtail-small, vncf, by malicious ratio and eps",
        "Visual: defenses by ER@5 reduction minus NDCG@20 loss %",
        "Visual: attacks under defenses",
        "Visual: ER@5 on vncf, attack by defense",
    ):
        assert f"## {title}\n" in text
    assert "| attack | 5 %, no image | 5 %, eps 4 | 5 %, eps 8 |" in text
    assert (
        "| clean cosine | least clean cosine | AUC | recall at no false alarm % | flagged % | false alarms % |" in text
    )
    assert "| 0.90 | 0.60 | 0.95 | 70.0 | - | - |" in text
    assert "select * from visual_attacks where defense = 'none'" in text


def test_the_page_has_the_track(board: Path) -> None:
    database = Database([board], 5)
    runs = {row["run_id"]: n for n, row in enumerate(database.rows("select run_id from runs"))}
    page = plain_board(make_board(database), Shared(runs))
    assert [row["attack"] for row in page["visual_attacks"]] == ["psmu-v", "popularity-image", "psmu"]
    assert [row["attack"] for row in page["visual_attacks_within"]["4"]] == ["psmu-v", "psmu", "popularity-image"]
    assert page["visual_defenses"][0]["auc"] == 0.95
    assert {cell["eps"] for cell in page["visual_cells"]} == {None, 4, 8}
    assert set(page["captions"]) == {
        "visual_attacks",
        "visual_attacks_within 4",
        "visual_attacks_within 8",
        "visual_defenses",
    }


def test_defenses_of_images_have_a_panel(board: Path, tmp_path: Path) -> None:
    path = tmp_path / "picture" / "defenses.svg"
    path.parent.mkdir()
    draw_defenses(rank_defenses(Database([board], 5), None, VISUAL), path, 5)
    assert path.stat().st_size
