from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from records import interval, record, scenario, write
from scipy import stats

from fedbench.comparison import compare_entries
from fedbench.errors import ResultsError, UserError
from fedbench.leaderboard import Database, rank_attacks, rank_defenses
from fedbench.leaderboard.board import make_board
from fedbench.leaderboard.ranking import clustered
from fedbench.leaderboard.ranking_attacks import attack_cells
from fedbench.leaderboard.render import markdown


def test_one_scenario_has_the_t_interval_of_scipy() -> None:
    values = [1.0, 2.5, 4.0, 7.0]
    ours = clustered({"x": dict(enumerate(values))})
    low, high = stats.t.interval(0.95, 3, np.mean(values), stats.sem(values))
    assert (ours.mean, ours.n) == (3.625, 4)
    assert ours.low == pytest.approx(low)
    assert ours.high == pytest.approx(high)
    assert clustered({"x": {0: 5.0}}).low is None


def test_the_interval_is_over_the_means_of_seeds() -> None:
    """Scenarios that share their seeds are no further draws: two that move alike have the interval of one."""
    one = {0: 10.0, 1: 20.0, 2: 60.0}
    alone = clustered({"x": one})
    together = clustered({"x": one, "y": {seed: value + 30 for seed, value in one.items()}})
    assert together.mean == alone.mean + 15
    assert (together.low, together.high) == (
        pytest.approx((alone.low or 0) + 15),
        pytest.approx((alone.high or 0) + 15),
    )
    against = {seed: -value for seed, value in one.items()}
    assert clustered({"x": one, "z": against}).high == pytest.approx(0)
    assert clustered({"x": {0: 10.0, 1: 30.0}, "y": {0: 40.0}}).mean == 30, "whatever their number of seeds"
    assert clustered({"x": {0: 10.0}, "y": {0: 40.0}}).low is None


def two_attacks(folder: Path) -> Path:
    """a-ra: 20 and 40 %, with HR 5 points below its twins; random: 0; both over two seeds."""
    return write(
        folder,
        *(record(scenario(), seed, er=0.0, hr=0.5 + seed / 10) for seed in (0, 1)),
        *(record(scenario("a-ra"), seed, er=[0.9, 0.2 + seed / 5], hr=[0.5, 0.45 + seed / 10]) for seed in (0, 1)),
        *(record(scenario("random"), seed, er=0.0, hr=0.5 + seed / 10) for seed in (0, 1)),
    )


def test_attacks_are_ranked_by_exposure_beside_their_clean_twins(tmp_path: Path) -> None:
    first, second = rank_attacks(Database([two_attacks(tmp_path)]))
    assert (first.attack, second.attack) == ("a-ra", "random")
    assert first.er is not None
    assert first.er.mean == pytest.approx(30)
    assert first.er.high == pytest.approx(30 + stats.t.ppf(0.975, 1) * 10)
    assert first.peak == pytest.approx(90)
    assert first.tail == pytest.approx(30)
    assert first.hr_change is not None
    assert first.hr_change.mean == pytest.approx(-5)
    assert (first.hr_change.low, first.hr_change.high) == (pytest.approx(-5), pytest.approx(-5))
    assert (first.first, second.first) == (1, 0)
    assert first.runs == sorted(record(scenario("a-ra"), seed).run_id for seed in (0, 1))
    assert first.knowledge == "none"


def test_what_the_seeds_cannot_tell_apart_shares_a_rank(tmp_path: Path) -> None:
    """a-hum is 41 points above random in every seed; a-ra has the mean of a-hum, and popular moves by 20 points."""
    for seed in range(8):
        more = (-1) ** seed * 0.01
        ers = {"a-ra": 0.51 - more, "a-hum": 0.51 + more, "random": 0.10 + more, "popular": 0.05 + (seed % 2) * 0.2}
        write(tmp_path, *(record(scenario(attack), seed, er=er) for attack, er in ers.items()))
    found = rank_attacks(Database([tmp_path]))
    assert [(row.attack, row.rank, row.beats) for row in found] == [
        ("a-hum", 1, 2),
        ("a-ra", 1, 2),
        ("popular", 3, 0),
        ("random", 3, 0),
    ]
    assert [row.average_rank for row in found] == [1.5, 1.5, 3, 4]
    told = found.separation
    ((difference, p),) = [found.separation.pairs["a-hum", "random"]]
    assert difference.estimate == pytest.approx(41)
    assert (difference.scenarios, difference.runs) == (1, 8)
    assert p == pytest.approx(4 * 2 / 4**8), "all eight seeds differ by the same, and it is the third of six tests"
    board = make_board(Database([tmp_path]))
    assert board.data["resolution"]["attacks"] == told.resolution
    assert board.data["attacks"][0]["beats"] == 2
    assert [row[0] for row in board.sheets[0].rows] == ["1-2", "1-2", "3-4", "3-4"]
    assert "4 of 6 pairs are told apart; smallest difference that can be resolved:" in board.sheets[0].caption


def test_a_missing_scenario_is_named_and_costs_the_rank(tmp_path: Path) -> None:
    two_attacks(tmp_path)
    write(tmp_path, record(scenario("a-ra", model="ncf"), er=0.1))
    rows = {row.attack: row for row in rank_attacks(Database([tmp_path]))}
    assert rows["a-ra"].rank == 1
    assert rows["random"].rank is None
    assert rows["random"].missing == ["longtail-small ncf icde24 0.05 random:0"]
    assert {row.attack: row.rank for row in rank_attacks(Database([tmp_path]), model="mf")} == {"a-ra": 1, "random": 1}
    assert "random lacks 1 scenario: longtail-small ncf" in markdown(make_board(Database([tmp_path])))


def test_who_has_nothing_but_failed_runs_has_no_rank(tmp_path: Path) -> None:
    write(tmp_path, *(record(scenario(attack), status="failed", error="gone") for attack in ("a-ra", "random")))
    rows = rank_attacks(Database([tmp_path]))
    assert [(row.attack, row.rank, row.failed) for row in rows] == [("a-ra", None, 1), ("random", None, 1)]


def test_exposure_that_is_no_number_is_missing_not_the_highest(tmp_path: Path) -> None:
    for attack, er in (("a-ra", 0.4), ("a-hum", float("nan")), ("popular", float("inf"))):
        write(tmp_path, record(scenario(attack), er=er))
    rows = rank_attacks(Database([tmp_path]))
    assert rows[0].attack == "a-ra"
    assert [row.er for row in rows[1:]] == [None, None]


def test_what_few_attacks_ran_is_not_compared(tmp_path: Path) -> None:
    write(
        tmp_path,
        *(record(scenario(attack), er=er) for attack, er in [("a-ra", 0.3), ("a-hum", 0.2), ("random", 0.1)]),
        record(scenario("random", model="ncf"), er=0.9),
    )
    rows = rank_attacks(Database([tmp_path]))
    assert [(row.attack, row.rank, row.scenarios, row.apart) for row in rows] == [
        ("a-ra", 1, 1, 0),
        ("a-hum", 1, 1, 0),
        ("random", 1, 1, 1),
    ]
    assert rows[2].er is not None
    assert rows[2].er.mean == pytest.approx(10)
    assert len(rows[2].runs) == 1
    assert "random ran 1 scenario more" in markdown(make_board(Database([tmp_path])))


def test_first_is_only_who_has_all_scenarios_of_the_pair(tmp_path: Path) -> None:
    few = {"malicious_ratio": 0.01}
    write(
        tmp_path,
        *(record(scenario(attack), er=er) for attack, er in [("a-ra", 0.6), ("a-hum", 0.9), ("random", 0.0)]),
        *(record(scenario(attack, **few), er=er) for attack, er in [("a-ra", 0.2), ("random", 0.0)]),
    )
    rows = {row.attack: row for row in rank_attacks(Database([tmp_path]))}
    assert {name: row.first for name, row in rows.items()} == {"a-ra": 1, "a-hum": 0, "random": 0}
    assert rows["a-hum"].missing == ["longtail-small mf icde24 0.01 random:0"]


def test_several_targets_and_settings_of_a_defense_are_scenarios_of_their_own(tmp_path: Path) -> None:
    three = scenario("a-ra", num_targets=3)
    bounds = [scenario("a-ra", "norm-bound", defense_params={"bound": bound}) for bound in (0.5, 1.0)]
    write(tmp_path, record(scenario("a-ra"), er=0.4), record(three, er=0.2), *(record(b, er=0.1) for b in bounds))
    (row,) = rank_attacks(Database([tmp_path]))
    assert row.scenarios == 2
    write(tmp_path, record(scenario("random"), er=0.1))
    rows = {row.attack: row for row in rank_attacks(Database([tmp_path]))}
    assert rows["random"].missing == ["longtail-small mf icde24 0.05 random:0 x3"]
    (under,) = rank_attacks(Database([tmp_path]), "norm-bound")
    assert under.scenarios == 2
    assert {row.defense for row in rank_defenses(Database([tmp_path]))} == {
        "norm-bound (bound=0.5)",
        "norm-bound (bound=1.0)",
    }


def test_diverged_runs_are_counted_and_never_a_score(tmp_path: Path) -> None:
    write(
        tmp_path,
        record(scenario("a-ra"), 0, er=0.4),
        record(scenario("a-ra", model="ncf"), 0, er=0.4),
        record(scenario("a-hum"), 0, er=0.6),
        record(scenario("a-hum", model="ncf"), 0, status="diverged", error="not finite"),
        record(scenario("random"), 0, er=0.1),
        record(scenario("random", model="ncf"), 0, status="failed", error="RuntimeError: no"),
    )
    rows = {row.attack: row for row in rank_attacks(Database([tmp_path]))}
    assert list(rows) == ["a-ra", "a-hum", "random"], "40 and 40 before 60 and nothing"
    assert rows["a-hum"].er is not None
    assert rows["a-hum"].er.mean == pytest.approx(30)
    assert (rows["a-ra"].rank, rows["a-hum"].rank, rows["random"].rank) == (1, 1, None)
    assert (rows["a-hum"].beats, rows["random"].beats, rows["random"].average_rank) == (0, None, None)
    assert (rows["a-hum"].diverged, rows["random"].failed) == (1, 1)
    text = markdown(make_board(Database([tmp_path])))
    assert "diverged: 1 of a-hum on longtail-small ncf at 5 % (not finite)." in text


def test_a_seed_that_diverged_counts_as_no_exposure(tmp_path: Path) -> None:
    """One seed at 100 % and two that diverged are a third, in every table and in a comparison of the two alike."""
    for seed, er in enumerate((0.5, 0.49, 0.51)):
        write(tmp_path, record(scenario(), seed, hr=0.6), record(scenario("a-hum"), seed, er=er))
        status = {"status": "diverged", "error": "loss is inf"} if seed else {}
        write(tmp_path, record(scenario("a-ra"), seed, er=1.0, **status))  # type: ignore[arg-type]
    database = Database([tmp_path])
    found = rank_attacks(database)
    assert [row.attack for row in found] == ["a-hum", "a-ra"]
    assert found[1].er is not None
    assert (found[1].er.mean, found[1].er.n, found[1].diverged) == (pytest.approx(100 / 3), 3, 2)
    assert found[1].hr_change is not None
    assert found[1].hr_change.mean == pytest.approx(-10), "of the seed that ended well"
    ((difference, _),) = found.separation.pairs.values()
    assert (difference.estimate, difference.runs) == (pytest.approx(50 / 3), 3)
    (cell,) = [cell for cell in attack_cells(database) if cell.attack == "a-ra"]
    assert (cell.er, cell.hr) == (found[1].er, pytest.approx(50 / 3))
    compared = compare_entries(database, "a-ra", "a-hum", "attack").contrasts[0]
    assert (compared.a, compared.difference.estimate) == (pytest.approx(100 / 3), pytest.approx(-50 / 3))


def test_an_attack_that_only_diverged_exposes_nothing(tmp_path: Path) -> None:
    write(tmp_path, record(scenario("a-ra"), er=0.2), record(scenario("a-hum"), status="diverged", error="x"))
    rows = rank_attacks(Database([tmp_path]))
    assert [(row.attack, row.rank, row.er.mean if row.er else None) for row in rows] == [
        ("a-ra", 1, 20),
        ("a-hum", 1, 0),
    ]


def test_missing_seeds_are_named_and_cost_no_rank(tmp_path: Path) -> None:
    """Where a-ra ran one of three seeds, only the other scenario counts; popular ran two more than others."""
    few = {"malicious_ratio": 0.01}
    for seed in range(5):
        write(tmp_path, record(scenario("popular"), seed, er=0.2), record(scenario("popular", **few), seed, er=0.1))
        if seed < 3:
            write(tmp_path, *(record(scenario(name), seed, er=0.6 - seed / 10) for name in ("a-hum", "random")))
            write(tmp_path, record(scenario("a-hum", **few), seed, er=0.30 + seed / 100))
            write(tmp_path, record(scenario("a-ra", **few), seed, er=0.31 + seed**2 / 100))
            write(tmp_path, record(scenario("random", **few), seed, er=0.0 + seed**2 / 100))
    write(tmp_path, record(scenario("a-ra"), er=0.9))
    found = rank_attacks(Database([tmp_path]))
    rows = {row.attack: row for row in found}
    assert rows["a-ra"].lacking == ["seeds 1, 2 of longtail-small mf icde24 0.05 random:0"]
    assert [rows[name].lacking for name in ("a-hum", "random", "popular")] == [[], [], []]
    assert not any(row.missing for row in found)
    assert (rows["a-ra"].rank, rows["a-hum"].rank) == (1, 1), "one lucky seed is no proof"
    difference, _ = found.separation.pairs["a-ra", "a-hum"]
    assert (difference.estimate, difference.runs, difference.lone) == (pytest.approx(5 / 3), 3, 1)
    board = make_board(Database([tmp_path]))
    assert (
        "a-ra lacks seeds that at least half of the attacks ran there: seeds 1, 2 of longtail-small mf icde24 0.05 random:0."
        in board.warnings
    )
    assert "3 pairs have scenarios with a single common seed, which do not count" in board.sheets[0].caption


def test_runs_without_a_clean_twin_are_counted(tmp_path: Path) -> None:
    write(tmp_path, record(scenario(), 0, hr=0.6))
    for seed in range(3):
        write(tmp_path, record(scenario("a-ra"), seed, er=0.5, hr=0.4))
    (row,) = rank_attacks(Database([tmp_path]))
    assert row.hr_change is not None
    assert (row.hr_change.mean, row.unpaired) == (pytest.approx(-20), 2)
    board = make_board(Database([tmp_path]))
    assert "a-ra: the HR change is without 2 of its runs, which have no clean twin." in board.warnings
    sheet = board.sheets[0]
    assert sheet.rows[0][sheet.headings.index("without twin")] == "2"
    write(tmp_path, *(record(scenario(), seed, hr=0.6) for seed in (1, 2)))
    whole = make_board(Database([tmp_path]))
    assert "without twin" not in whole.sheets[0].headings
    assert whole.warnings == []


def test_readings_of_one_attack_are_entries_of_their_own(tmp_path: Path) -> None:
    wide = scenario("a-ra", attack_params={"pseudo_users": 50})
    write(tmp_path, record(scenario("a-ra"), er=0.2), record(wide, er=0.3))
    names = [row.attack for row in rank_attacks(Database([tmp_path]))]
    assert names == ["a-ra (pseudo_users=50)", "a-ra (pseudo_users=10)"]


def test_readings_that_differ_only_between_models_are_one_entry(tmp_path: Path) -> None:
    wide = scenario("a-ra", model="ncf", attack_params={"pseudo_users": 50})
    write(tmp_path, record(scenario("a-ra"), er=0.2), record(wide, er=0.4))
    (row,) = rank_attacks(Database([tmp_path]))
    assert (row.attack, row.scenarios, row.rank) == ("a-ra", 2, 1)


def test_defenses_are_paired_with_undefended_and_clean_twins(tmp_path: Path) -> None:
    for seed in (0, 1):
        write(
            tmp_path,
            record(scenario(), seed, hr=0.60),
            record(scenario("none", "norm-bound"), seed, hr=0.57),
            record(scenario("a-ra"), seed, er=0.8),
            record(scenario("a-ra", "norm-bound"), seed, er=0.2 + seed / 10),
            record(scenario("a-hum"), seed, er=0.5),
            record(scenario("a-hum", "norm-bound"), seed, er=0.4),
        )
    write(tmp_path, record(scenario("random", "norm-bound"), 0, er=0.0))
    (row,) = rank_defenses(Database([tmp_path]))
    assert row.reduction.mean == pytest.approx((55 + 10) / 2)
    assert row.loss is not None
    assert row.loss.mean == pytest.approx(3)
    assert row.net == pytest.approx(32.5 - 3)
    assert row.worst == ("a-hum", pytest.approx(40))
    assert row.unpaired == 1
    assert len(row.runs) == 5


def test_targets_share_their_clean_twins(tmp_path: Path) -> None:
    """What the target is does not move HR@K without an attack: five targets are not five measurements of the loss."""
    for target in ("random:0", "random:1"):
        for seed, loss in ((0, 0.02), (1, 0.04)):
            write(
                tmp_path,
                record(scenario(target=target), seed, hr=0.6),
                record(scenario("none", "norm-bound", target=target), seed, hr=0.6 - loss),
                record(scenario("a-ra", target=target), seed, er=0.8),
                record(scenario("a-ra", "norm-bound", target=target), seed, er=0.1),
            )
    (row,) = rank_defenses(Database([tmp_path]))
    assert row.reduction.n == 2
    assert row.loss is not None
    assert row.loss.n == 2
    assert row.loss.high == pytest.approx(interval([2.0, 4.0]).high)


def test_a_run_in_several_folders_counts_once(tmp_path: Path) -> None:
    old = record(scenario("a-ra"), er=0.2)
    new = record(scenario("a-ra"), er=0.6, started_at=old.started_at + timedelta(days=1))
    late = record(scenario("a-ra"), status="failed", started_at=old.started_at + timedelta(days=2))
    folders = [write(tmp_path / name, each) for name, each in [("new", new), ("old", old), ("late", late)]]
    (row,) = rank_attacks(Database(folders))
    assert row.runs == [new.run_id]
    assert row.er is not None
    assert row.er.mean == pytest.approx(60)


def test_the_table_of_ratios_names_its_runs_and_the_report_its_queries(tmp_path: Path) -> None:
    text = markdown(make_board(Database([two_attacks(tmp_path)])))
    pivot = text.partition("by malicious ratio")[2].partition("</details>")[0]
    one = record(scenario("a-ra"))
    assert f"- a-ra (2): {one.scenario_id[:8]}-s0 {one.scenario_id[:8]}-s1" in pivot
    assert "<details><summary>Queries" in text
    assert "select * from attacks where defense = 'none'" in text


def test_hit_ratios_are_named_by_the_k_that_they_have(tmp_path: Path) -> None:
    text = markdown(make_board(Database([two_attacks(tmp_path)], k=30)))
    assert "HR@20 change" in text
    assert "HR@30" not in text


def test_cells_hold_dataset_model_and_ratio(tmp_path: Path) -> None:
    few = scenario("a-ra", malicious_ratio=0.01)
    write(tmp_path, record(scenario("a-ra"), er=0.5, hr=0.4), record(few, er=0.1, hr=0.6))
    cells = {cell.malicious_ratio: (cell.er.mean, cell.hr) for cell in attack_cells(Database([tmp_path]))}
    assert cells == {0.05: (pytest.approx(50), pytest.approx(40)), 0.01: (pytest.approx(10), pytest.approx(60))}


def test_filters_keep_the_twins(tmp_path: Path) -> None:
    two_attacks(tmp_path)
    write(tmp_path, record(scenario(model="ncf"), er=0.0))
    database = Database([tmp_path], only=["attack=a-*"])
    assert {row["attack"] for row in database.rows("select attack from runs")} == {"a-ra", "none"}
    (row,) = rank_attacks(database)
    assert row.hr_change is not None
    assert not database.rows("select * from runs where model = 'ncf'")
    with pytest.raises(UserError, match="no run has attack=b"):
        Database([tmp_path], only=["attack=b*"])
    with pytest.raises(UserError, match=r"--only 'a-ra' must be key=glob"):
        Database([tmp_path], only=["a-ra"])
    with pytest.raises(UserError, match="Did you mean 'attack'"):
        Database([tmp_path], only=["atack=b*"])


def test_alternatives_of_a_filter(tmp_path: Path) -> None:
    """As `run --only` takes them: of one key any, of several all."""
    two_attacks(tmp_path)
    write(tmp_path, record(scenario("random"), er=0.0), record(scenario("random", model="ncf"), er=0.0))

    def left(*only: str) -> set[tuple[str, str]]:
        rows = Database([tmp_path], only=only).rows("select attack, model from runs where attack <> 'none'")
        return {(row["attack"], row["model"]) for row in rows}

    assert left("attack=a-ra,random") == {("a-ra", "mf"), ("random", "mf"), ("random", "ncf")}
    assert left("attack=a-ra", "attack=random", "model=mf") == {("a-ra", "mf"), ("random", "mf")}
    assert left("attack=random,model=n*") == {("random", "ncf")}


def test_filters_on_a_defense_keep_the_undefended_twins(tmp_path: Path) -> None:
    for defense, er in (("none", 0.8), ("norm-bound", 0.2)):
        write(tmp_path, record(scenario("none", defense)), record(scenario("a-ra", defense), er=er))
    (row,) = rank_defenses(Database([tmp_path], only=["defense=norm-bound"]))
    assert (row.reduction.mean, row.unpaired) == (pytest.approx(60), 0)


SUITE = """
name = "mine"
version = 1
title = "Mine"
seeds = 1
[defaults]
dataset = "longtail-small"
malicious_ratio = 0.05
[matrix]
model = ["mf"]
attack = ["a-ra"]
"""


def test_a_suite_is_its_scenarios_whichever_suite_ran_them(tmp_path: Path) -> None:
    suite = tmp_path / "mine.toml"
    suite.write_text(SUITE)
    folder = write(
        tmp_path / "results",
        record(scenario("a-ra"), er=0.5, suite="another"),
        record(scenario("random"), er=0.1, suite="gone"),
    )
    ran = "select attack from runs"
    assert Database([folder], suite=str(suite)).rows(ran) == [{"attack": "a-ra"}]
    assert Database([folder], suite="gone").rows(ran) == [{"attack": "random"}]
    with pytest.raises(UserError, match="Unknown suite 'cor'"):
        Database([folder], suite="cor")
    with pytest.raises(UserError, match=r"no run has suite=.*mine\.toml, attack=random"):
        Database([folder], suite=str(suite), only=["attack=random"])
    other = write(tmp_path / "other", record(scenario("a-ra", protocol_params={"epochs": 3}), suite="smoke"))
    with pytest.raises(
        UserError, match=r"suite=smoke\. 1 run there was made by it with other values, as of --set: leave"
    ):
        Database([other], suite="smoke")


def test_a_suite_holds_what_ran_in_the_place_of_its_attacks(tmp_path: Path) -> None:
    """`fedbench run mine.toml --attack random` runs the suite's scenarios with another attack: they are ranked with it."""
    suite = tmp_path / "mine.toml"
    suite.write_text(SUITE)
    elsewhere = scenario("popular", malicious_ratio=0.2)
    folder = write(
        tmp_path / "results",
        record(scenario("a-ra"), er=0.5),
        record(scenario("random"), er=0.1, suite="mine"),
        record(elsewhere, er=0.1, suite="mine"),  # no scenario of the suite, whatever its attack
        record(scenario("a-hum"), er=0.1, suite="another"),
    )
    found = Database([folder], suite=str(suite)).rows("select attack from runs order by attack")
    assert found == [{"attack": "a-ra"}, {"attack": "random"}]


def test_names_are_escaped_in_markdown(tmp_path: Path) -> None:
    nasty = record(scenario("a-ra"), er=0.5, attack="a|b <script>alert(1)</script> [x](y) `c`")
    write(tmp_path, nasty)
    text = markdown(make_board(Database([tmp_path])))
    assert "<script>" not in text
    assert r"a\|b &lt;script&gt;" in text
    assert r"\[x\](y) \`c\`" in text


def test_no_query_can_write_or_read_a_file(tmp_path: Path) -> None:
    database = Database([two_attacks(tmp_path)])
    for query in (
        f"copy runs to '{tmp_path}/x.csv'",
        f"select * from read_csv('{__file__}')",
        f"attach '{tmp_path}/x.db'",
        "set enable_external_access = true",
    ):
        with pytest.raises(UserError, match="SQL: ") as caught:
            database.rows(query)
        assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob("x.*"))


def test_an_empty_folder_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match="fedbench run SUITE"):
        Database([tmp_path])
    with pytest.raises(UserError, match="K = 7"):
        Database([two_attacks(tmp_path)], k=7)
