from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from records import defended, record, scenario, untargeted, write

from fedbench.defenses.norm_bound import NormBound
from fedbench.defenses.trimmed_mean import TrimmedMean
from fedbench.leaderboard import (
    UNTARGETED,
    Database,
    attacks_under_defenses,
    rank_attacks,
    rank_defenses,
    rank_untargeted,
)
from fedbench.leaderboard.board import make_board
from fedbench.leaderboard.render import markdown
from fedbench.runs.record import RunRecord


def of_version(made: RunRecord, **versions: int) -> RunRecord:
    """The record as that of another version: another scenario."""
    return replace(made, scenario_id=f"{sum(versions.values()):04x}{made.scenario_id[4:]}", **versions)  # type: ignore[arg-type]


def test_only_the_newest_version_of_an_attack_is_ranked(tmp_path: Path) -> None:
    few = scenario("a-ra", malicious_ratio=0.01)
    write(
        tmp_path,
        *(record(scenario(), seed) for seed in (0, 1)),
        *(record(scenario("a-ra"), seed, er=0.1) for seed in (0, 1)),
        record(few, er=0.1),
        record(few, 1, status="diverged", error="not finite"),
        *(of_version(record(scenario("a-ra"), seed, er=0.7), attack_version=3) for seed in (0, 1)),
        of_version(record(scenario("a-ra"), er=0.3), attack_version=2),
        record(scenario("a-hum"), er=0.5),
    )
    database = Database([tmp_path])
    first, second = rank_attacks(database)
    assert (first.attack, first.scenarios, len(first.runs), first.apart, first.diverged) == ("a-ra", 1, 2, 0, 0)
    assert first.er is not None
    assert first.er.mean == pytest.approx(70)
    assert (second.attack, second.missing) == ("a-hum", []), "what only an older version ran is not compared"
    board = make_board(database)
    assert json.loads(json.dumps(board.data["superseded"])) == [
        {"kind": "attack", "name": "a-ra", "version": 1, "newest": 3, "runs": 4},
        {"kind": "attack", "name": "a-ra", "version": 2, "newest": 3, "runs": 1},
    ]
    text = markdown(board)
    assert "superseded: 4 runs of version 1 of the attack a-ra, whose newest is 3: not ranked." in text
    assert "superseded: 1 run of version 2 of the attack a-ra" in text
    assert "diverged:" not in text
    marked = database.rows("select distinct attack_version as v from headline where superseded order by v")
    assert [row["v"] for row in marked] == [1, 2]


def test_only_the_newest_version_of_a_defense_is_ranked(tmp_path: Path) -> None:
    write(tmp_path, record(scenario(), hr=0.6), record(scenario("a-ra"), er=0.8))
    for version, er in ((1, 0.0), (2, 0.5)):
        clean = of_version(defended("one", hr=0.5), defense_version=version)
        attacked = of_version(defended("one", "a-ra", er=er), defense_version=version)
        write(tmp_path, clean, replace(attacked, clean_id=clean.scenario_id))
    database = Database([tmp_path])
    (row,) = rank_defenses(database)
    assert row.reduction is not None
    assert (row.reduction.mean, len(row.runs)) == (pytest.approx(30), 1)
    (under,) = attacks_under_defenses(database)
    assert under.under["one"].er.mean == pytest.approx(50)
    assert make_board(database).data["superseded"] == [
        {"kind": "defense", "name": "one", "version": 1, "newest": 2, "runs": 2}
    ]


def test_a_new_version_of_a_model_supersedes_all_runs_of_the_old_one(tmp_path: Path) -> None:
    write(
        tmp_path,
        *(untargeted(attack, 0, hr) for attack, hr in [("none", 0.04), ("a-ra", 0.03)]),
        untargeted("a-ra", 0, 0.03, defense="good"),
        of_version(untargeted("none", 1, 0.04), model_version=2),
    )
    database = Database([tmp_path], 5)
    assert len(rank_untargeted(database)) == 0
    assert len(rank_defenses(database, None, UNTARGETED)) == 0
    (found,) = make_board(database).data["superseded"]
    assert found == {"kind": "model", "name": "mf", "version": 1, "newest": 2, "runs": 3}


def test_records_that_do_not_tell_are_of_version_1(tmp_path: Path) -> None:
    new = record(scenario("a-ra", "norm-bound"))
    write(tmp_path / "old", replace(new, model_version=None, defense_version=None))
    assert make_board(Database([tmp_path / "old"])).data["superseded"] == []
    write(tmp_path / "new", of_version(new, defense_version=3))
    with_newer = make_board(Database([tmp_path / "old", tmp_path / "new"]))
    assert with_newer.data["superseded"] == [
        {"kind": "defense", "name": "norm-bound", "version": 1, "newest": 3, "runs": 1}
    ]


def test_a_chain_has_a_new_version_with_any_of_its_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    chain = scenario("a-ra", "norm-bound+trimmed-mean")
    before = record(chain)
    assert (before.defense_version, before.model_version, before.attack_version) == (1, 1, 1)
    assert record(scenario()).defense_version == 1
    monkeypatch.setattr(NormBound, "card", replace(NormBound.card, version=3))
    assert record(scenario("a-ra", "norm-bound")).defense_version == 3
    monkeypatch.setattr(TrimmedMean, "card", replace(TrimmedMean.card, version=2))
    assert record(chain).defense_version == 4
