from __future__ import annotations

from pathlib import Path

from synthetic import write_synthetic

from fedbench.leaderboard import Database
from fedbench.leaderboard.board import make_board


def test_a_board_of_invented_records_has_all_its_parts(tmp_path: Path) -> None:
    """Four attacks, two of each goal, two defenses, ten places, five seeds; clean runs are shared by the places."""
    count = write_synthetic(tmp_path / "all.parquet", attacks=4, defenses=2, places=10, seeds=5, points=4)
    assert count == 4 * 3 * 10 * 5 + 3 * 5
    database = Database([tmp_path], curves=False)
    assert database.rows("select count(*) as n from curves") == [{"n": 0}]
    board = make_board(database)
    assert not database.found.damaged
    assert [row["attack"] for row in board.data["attacks"]] == ["attack-02", "attack-01"]
    assert [row["rank"] for row in board.data["attacks"]] == [1, 2]
    assert [row["scenarios"] for row in board.data["untargeted_attacks"]] == [10, 10]
    assert [row["scenarios"] for row in board.data["defenses"]] == [20, 20]
    assert [row["missing"] for row in board.data["defenses"]] == [[], []]
    assert make_board(Database([tmp_path])).data == board.data
    (curves,) = Database([tmp_path]).rows("select count(*) as n from curves")
    assert curves["n"] == 4 * count
