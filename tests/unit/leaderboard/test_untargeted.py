from __future__ import annotations

import json
import random
import statistics
from dataclasses import replace
from pathlib import Path

import pytest
from records import interval, record, scenario, untargeted, write
from scipy import stats

from fedbench.leaderboard import (
    UNTARGETED,
    Database,
    DefenseRow,
    UntargetedAttackRow,
    attacks_under_defenses,
    rank_defenses,
    rank_untargeted,
)
from fedbench.leaderboard.board import make_board
from fedbench.leaderboard.ranking_untargeted import untargeted_cells
from fedbench.leaderboard.render import headline, markdown


def ranked(folder: Path, model: str | None = None) -> dict[str, UntargetedAttackRow]:
    return {row.attack: row for row in rank_untargeted(Database([folder], 5), model)}


def judged(folder: Path) -> dict[str, DefenseRow]:
    return {row.defense: row for row in rank_defenses(Database([folder], 5), None, UNTARGETED)}


def test_attacks_are_ranked_by_the_share_of_the_twins_hit_ratio_that_they_take(tmp_path: Path) -> None:
    write(
        tmp_path,
        *(untargeted("none", seed, hr) for seed, hr in enumerate([0.04, 0.05])),
        *(untargeted("a-ra", seed, hr, ndcg=0.4) for seed, hr in enumerate([0.03, 0.04])),
        *(untargeted("a-hum", seed, hr) for seed, hr in enumerate([0.041, 0.05])),
    )
    first, second = rank_untargeted(Database([tmp_path], 5))
    assert (first.attack, first.rank, second.attack, second.rank) == ("a-ra", 1, "a-hum", 1)
    assert first.loss is not None
    assert first.ndcg_loss is not None
    assert second.loss is not None
    assert first.loss.mean == pytest.approx((25 + 20) / 2)
    assert first.loss.high == pytest.approx(22.5 + stats.t.ppf(0.975, 1) * 2.5)
    assert first.ndcg_loss.mean == pytest.approx((40 + 36) / 2)
    assert (first.hr, first.clean_hr) == (pytest.approx(3.5), pytest.approx(4.5))
    assert first.loss_end == pytest.approx(22.5)
    assert second.loss.mean == pytest.approx(-1.25), "an attack can help"
    assert (first.scenarios, len(first.runs), first.knowledge) == (1, 2, "none")


def test_the_loss_is_where_each_run_is_best_on_validation_items(tmp_path: Path) -> None:
    write(
        tmp_path,
        untargeted("none", 0, [0.01, 0.04, 0.05], [0.1, 0.3, 0.2]),
        untargeted("a-ra", 0, [0.02, 0.03, 0.01], [0.2, 0.2, 0.1]),
    )
    row = ranked(tmp_path)["a-ra"]
    assert row.loss is not None
    assert row.loss.mean == pytest.approx(50)
    assert (row.hr, row.clean_hr) == (pytest.approx(2), pytest.approx(4))
    assert row.loss_end == pytest.approx(80)


def test_a_protocol_that_ranks_against_sampled_items_is_measured_so_at_the_end(tmp_path: Path) -> None:
    write(
        tmp_path,
        record(scenario(), hr=0.5),
        record(scenario("a-ra"), er=[0.0, 0.0], hr=[0.5, 0.4], attack_goal="degrade"),
    )
    (row,) = rank_untargeted(Database([tmp_path], 10))
    assert row.loss is not None
    assert (row.loss.mean, row.ndcg_loss) == (pytest.approx(20), None)


def test_a_run_that_diverged_has_earned_nothing_and_one_that_failed_does_not_count(tmp_path: Path) -> None:
    """Of a run that diverged the record holds what it reached before: that is not what is left."""
    write(
        tmp_path,
        *(untargeted("none", seed, 0.04) for seed in (0, 1)),
        untargeted("a-ra", 0, 0.04),
        untargeted("a-ra", 1, [0.04], [0.4], status="diverged"),
        *(untargeted("a-hum", seed, 0.024) for seed in (0, 1)),
        untargeted("random", 0, 0.02),
        untargeted("random", 1, 0.0, status="failed", error="RuntimeError: no"),
    )
    rows = rank_untargeted(Database([tmp_path], 5))
    assert [(row.attack, row.rank, row.diverged, row.failed) for row in rows] == [
        ("random", 1, 0, 1),
        ("a-hum", 1, 0, 0),
        ("a-ra", 1, 1, 0),
    ]
    assert rows[2].loss is not None
    assert (rows[2].loss.mean, rows[2].loss_end, rows[2].hr) == (0, 0, pytest.approx(2))
    assert "diverged: 1 of a-ra on longtail-small mf at 5 %" in markdown(make_board(Database([tmp_path], 5)))


@pytest.mark.parametrize("twin", [None, {"status": "diverged"}, {"status": "failed"}, {"hr": 0.0}])
def test_without_a_clean_twin_there_is_no_loss(tmp_path: Path, twin: dict[str, object] | None) -> None:
    write(tmp_path, untargeted("a-ra", 0, 0.03), *([untargeted("none", 0, **twin)] if twin else []))  # type: ignore[arg-type]
    (row,) = rank_untargeted(Database([tmp_path], 5))
    assert (row.rank, row.loss, row.loss_end, row.unpaired, row.scenarios) == (None, None, None, 1, 0)
    assert "| - | a-ra | - | - | - | - | - |" in markdown(make_board(Database([tmp_path], 5)))


def test_a_scenario_that_an_attack_lacks_costs_its_rank(tmp_path: Path) -> None:
    few = {"malicious_ratio": 0.01}
    write(
        tmp_path,
        untargeted("none", 0, 0.04),
        *(untargeted(attack, 0, 0.03) for attack in ("a-ra", "a-hum", "random")),
        *(untargeted(attack, 0, 0.02, fields=few) for attack in ("a-ra", "a-hum")),
        untargeted("random", 1, 0.01, fields=few),
        untargeted("a-ra", 0, 0.01, fields={"malicious_ratio": 0.1}),
    )
    rows = ranked(tmp_path)
    assert {name: row.rank for name, row in rows.items()} == {"a-hum": 1, "a-ra": 1, "random": None}
    assert rows["random"].missing == ["longtail-small mf icde24 0.01"], "its run has no twin of the same seed"
    assert (rows["random"].unpaired, rows["a-ra"].apart, rows["a-ra"].scenarios) == (1, 1, 2)
    assert rows["a-ra"].loss is not None
    assert rows["a-ra"].loss.mean == pytest.approx((25 + 50) / 2)
    text = markdown(make_board(Database([tmp_path], 5)))
    assert "Untargeted: random lacks 1 scenario: longtail-small mf icde24 0.01." in text
    assert "Untargeted: a-ra ran 1 scenario more, which fewer than half of the attacks ran: not compared." in text


def test_several_scenarios_have_a_clustered_interval(tmp_path: Path) -> None:
    for ratio, losses in ((0.01, [0.1, 0.2]), (0.05, [0.5, 0.6])):
        for seed, loss in enumerate(losses):
            write(
                tmp_path,
                untargeted("none", seed, 0.04),
                untargeted("a-ra", seed, 0.04 * (1 - loss), fields={"malicious_ratio": ratio}),
            )
    loss = ranked(tmp_path)["a-ra"].loss
    assert loss is not None
    assert (loss.mean, loss.n) == (pytest.approx(35), 2)
    assert loss.low is not None
    assert loss.high is not None
    assert loss.low == pytest.approx(70 - loss.high)
    assert loss.high == pytest.approx(interval([30, 40]).high), "of the means of two seeds"
    (cell, other) = untargeted_cells(Database([tmp_path], 5))
    assert {each.malicious_ratio: each.loss.mean for each in (cell, other)} == {
        0.01: pytest.approx(15),
        0.05: pytest.approx(55),
    }
    (sheet,) = [s for s in make_board(Database([tmp_path], 5)).sheets if "ratio" in s.title]
    assert sheet.title == "Untargeted: HR@5 loss % on longtail-small, mf, by malicious ratio"
    assert sheet.headings == ("attack", "1 %", "5 %")
    assert sheet.rows[0][1].startswith("+15.0 [-48.5, +78.5]"), "a t interval of two seeds may reach below 0"


def a_board(folder: Path) -> Path:
    """Baseline 4 %; a-ra leaves 2 %, a-hum 3 %; under "good" 3.6, 3.2 and clean 3.8 %; "ruin" diverges when attacked."""
    ends = {
        "none": {"none": 0.04, "a-ra": 0.02, "a-hum": 0.03},
        "good": {"none": 0.038, "a-ra": 0.036, "a-hum": 0.032},
        "poor": {"none": 0.03, "a-ra": 0.025, "a-hum": 0.025},
        "ruin": {"none": 0.04, "a-ra": 0.04, "a-hum": 0.04},
    }
    for defense, by_attack in ends.items():
        for attack, hr in by_attack.items():
            status = "diverged" if (defense, attack) == ("ruin", "a-ra") else "ok"
            write(folder, untargeted(attack, 0, hr, defense=defense, status=status))
    return folder


def test_defenses_are_ranked_by_what_they_recover_minus_what_they_cost(tmp_path: Path) -> None:
    rows = rank_defenses(Database([a_board(tmp_path)], 5), None, UNTARGETED)
    assert [(row.rank, row.defense, row.front, row.goal) for row in rows] == [
        (1, "good", True, "degrade"),
        (1, "ruin", False, "degrade"),
        (1, "poor", False, "degrade"),
    ]
    good, ruin, poor = rows
    assert good.reduction is not None
    assert good.loss is not None
    assert good.reduction.mean == pytest.approx((40 + 5) / 2)
    assert good.loss.mean == pytest.approx(5)
    assert good.net == pytest.approx(17.5)
    assert good.er == pytest.approx((10 + 20) / 2)
    assert good.worst == ("a-hum", pytest.approx(20))
    assert good.least == ("a-hum", pytest.approx(5))
    assert (good.peak, good.scenarios, good.cost) == (None, 2, pytest.approx(0))
    assert ruin.worst == ("a-ra", pytest.approx(100))
    assert (ruin.diverged, ruin.net) == (1, pytest.approx((-50 + 25) / 2))
    assert poor.net == pytest.approx((12.5 - 12.5) / 2 - 25)


def test_what_comes_after_the_chosen_evaluation_stands_beside_the_net(tmp_path: Path) -> None:
    """Under "late" the chosen evaluation is before the damage; under "slow" it comes before the help."""
    val = [0.2, 0.1]
    hrs = {
        ("none", "none"): [0.04, 0.05], ("none", "a-ra"): [0.02, 0.01],
        ("late", "none"): [0.04, 0.04], ("late", "a-ra"): [0.04, 0.005],
        ("slow", "none"): [0.03, 0.05], ("slow", "a-ra"): [0.01, 0.045],
    }  # fmt: skip
    write(tmp_path, *(untargeted(attack, 0, hr, val, defense=defense) for (defense, attack), hr in hrs.items()))
    late, slow = rank_defenses(Database([tmp_path], 5), None, UNTARGETED)
    assert (late.defense, late.net, late.er) == ("late", pytest.approx(50), pytest.approx(0))
    assert (late.net_end, late.er_end) == (pytest.approx(100 * (-0.005 - 0.01) / 0.05), pytest.approx(90))
    assert (slow.defense, slow.net, slow.er) == ("slow", pytest.approx(-25 - 25), pytest.approx(75))
    assert (slow.net_end, slow.er_end) == (pytest.approx(70), pytest.approx(10))
    board = make_board(Database([tmp_path], 5))
    (sheet,) = [sheet for sheet in board.sheets if "recovered minus cost" in sheet.title]
    shown = dict(zip(sheet.headings, sheet.rows[0], strict=True))
    assert (shown["net"], shown["net at the end"], shown["left at the end %"]) == ("+50.0", "-30.0", "90.0")
    plain = board.data["untargeted_defenses"][1]
    assert (plain["net_end"], plain["left_end"]) == (pytest.approx(70), pytest.approx(10))


def test_where_no_evaluation_is_chosen_both_are_the_end_and_what_diverged_has_nothing_left(tmp_path: Path) -> None:
    for row in judged(a_board(tmp_path)).values():
        assert (row.net_end, row.er_end) == (pytest.approx(row.net), pytest.approx(row.er))


def test_an_attack_whose_best_defense_leaves_less_than_nothing_is_before_those_without_any(tmp_path: Path) -> None:
    """Defended, a-ra is better than the baseline; a-hum has no defense that ran without an attack."""
    ncf = {"model": "ncf"}
    write(
        tmp_path,
        *(untargeted("none", 0, 0.04, defense=defense) for defense in ("none", "good")),
        *(untargeted("a-ra", 0, hr, defense=defense) for defense, hr in (("none", 0.02), ("good", 0.042))),
        untargeted("none", 0, 0.04, fields=ncf),
        *(untargeted("a-hum", 0, hr, defense=defense, fields=ncf) for defense, hr in (("none", 0.01), ("good", 0.035))),
    )
    first, second = attacks_under_defenses(Database([tmp_path], 5), track=UNTARGETED)
    assert first.best is not None
    assert (first.attack, first.best.er.mean) == ("a-ra", pytest.approx(-5))
    assert (second.attack, second.best) == ("a-hum", None)


def test_where_the_undefended_run_diverged_there_is_nothing_to_recover(tmp_path: Path) -> None:
    write(
        tmp_path,
        untargeted("none", 0, 0.04),
        untargeted("a-ra", 0, 0.03, status="diverged"),
        untargeted("none", 0, 0.04, defense="good"),
        untargeted("a-ra", 0, 0.03, defense="good"),
        untargeted("none", 0, 0.04, defense="wild", status="diverged"),
        untargeted("a-ra", 0, 0.01, defense="wild"),
        *(untargeted("a-hum", 0, hr, defense=name) for name, hr in (("none", 0.03), ("good", 0.036), ("wild", 0.01))),
    )
    rows = judged(tmp_path)
    assert (rows["good"].net, rows["good"].unpaired) == (pytest.approx(15), 1)
    assert (rows["wild"].net, rows["wild"].clean_broken) == (pytest.approx(-50 - 100), 1)


def test_an_upload_that_breaks_the_model_earns_an_untargeted_attack_nothing(tmp_path: Path) -> None:
    """All runs of one diverged, one had its uploads refused, and one degrades: the last alone has a loss."""
    for seed in range(3):
        wave = 0.0001 * seed
        write(
            tmp_path,
            untargeted("none", seed, 0.04),
            untargeted("a-ra", seed, 0.04, status="diverged", error="parameters are not finite"),
            untargeted("random", seed, 0.04, refused_uploads=30),
            untargeted("a-hum", seed, 0.03 + wave),
        )
    board = make_board(Database([tmp_path], 5))
    (table,) = [sheet for sheet in board.sheets if "attacks by loss" in sheet.title]
    shown = {row[1]: dict(zip(table.headings, row, strict=True)) for row in table.rows}
    assert list(shown) == ["a-hum", "a-ra", "random"]
    assert [row["HR@5 loss %"] for row in shown.values()][1:] == ["+0.0 [+0.0, +0.0]"] * 2
    assert (shown["a-hum"]["beats"], shown["a-ra"]["rank"]) == ("2", "2-3")
    assert [row["broken"] for row in shown.values()] == ["0", "3", "0"]
    assert shown["random"]["refused uploads"] == "90"
    assert (
        "refused: 90 uploads that were not finite, in 3 runs of random on longtail-small mf at 5 %." in board.warnings
    )


@pytest.mark.parametrize("lost", ["none", "a-ra"])
def test_a_defense_without_its_twins_has_no_score(tmp_path: Path, lost: str) -> None:
    for attack in ("none", "a-ra"):
        write(tmp_path, untargeted(attack, 0, 0.03, defense="good"))
        if attack != lost:
            write(tmp_path, untargeted(attack, 0, 0.03))
    row = judged(tmp_path)["good"]
    assert (row.rank, row.reduction, row.er, row.unpaired) == (None, None, None, 1)


def test_the_tables_of_both_tracks_stand_apart(tmp_path: Path) -> None:
    targeted = write(
        tmp_path / "t",
        *(record(scenario(attack, target="random:3"), er=0.5, hr=0.4) for attack in ("none", "popular")),
        *(record(scenario(attack, "norm-bound", target="random:3"), er=0.2, hr=0.4) for attack in ("none", "popular")),
    )
    without, both = make_board(Database([targeted], 5)), make_board(Database([targeted, a_board(tmp_path / "u")], 5))
    only = make_board(Database([tmp_path / "u"], 5))
    count = len(without.sheets)
    assert [replace(sheet) for sheet in both.sheets[:count]] == without.sheets
    assert both.sheets[count:] == only.sheets
    assert both.notes == list(dict.fromkeys(without.notes + only.notes))
    assert all(sheet.title.startswith("Untargeted: ") for sheet in only.sheets)
    assert not any(sheet.title.startswith("Untargeted: ") for sheet in without.sheets)
    assert [row.goal for row in both.defenses] == ["promote", "degrade", "degrade", "degrade"]
    assert headline(both).endswith("ER@5 and HR@5 in percent, intervals 95 %")
    assert headline(only).endswith("HR@5 and NDCG@5 in percent, intervals 95 %")
    assert "untargeted_attacks" not in markdown(without)
    assert "select * from untargeted_attacks where defense = 'none' and attack_goal = 'degrade'" in markdown(both)
    assert "attack_goal = 'promote'" not in markdown(only)


def test_the_untargeted_tables(tmp_path: Path) -> None:
    sheets = {sheet.title: sheet for sheet in make_board(Database([a_board(tmp_path)], 5)).sheets}
    assert list(sheets) == [
        "Untargeted: attacks by loss of HR@5, without a defense",
        "Untargeted: HR@5 loss % on longtail-small, mf, by malicious ratio",
        "Untargeted: defenses by HR@5 recovered minus cost",
        "Untargeted: HR@5 loss % left on mf, attack by defense",
    ]
    attacks, _, defenses, matrix = sheets.values()
    assert attacks.rows[0] == (
        "1-2", "a-ra", "+50.0", "0", "1.0", "+50.0", "+50.0", "2.00", "4.00", "none", "1", "1", "0", "0", "0", "0",
    )  # fmt: skip
    assert len(attacks.headings) == len(attacks.rows[0])
    assert "at peak" not in defenses.headings
    assert dict(zip(defenses.headings, defenses.rows[0], strict=True)) | {
        "recovered %": "+22.5", "cost %": "+5.0", "net": "+17.5", "HR@5 loss left %": "15.0",
        "worst attack": "a-hum 20.0", "least recovered": "a-hum +5.0", "family": "filter", "assumes": "nothing",
    } == dict(zip(defenses.headings, defenses.rows[0], strict=True))  # fmt: skip
    assert matrix.headings == ("attack", "none", "good", "ruin", "poor")
    assert sorted(matrix.rows) == [
        ("a-hum", "25.0 (HR 3.0)", "20.0 (HR 3.2)", "0.0 (HR 4.0)", "37.5 (HR 2.5)"),
        ("a-ra", "50.0 (HR 2.0)", "10.0 (HR 3.6)", "100.0 (HR 0.0)", "37.5 (HR 2.5)"),
    ]


def test_each_model_has_tables_of_its_own(tmp_path: Path) -> None:
    a_board(tmp_path)
    write(
        tmp_path,
        *(untargeted(attack, 0, hr, fields={"model": "ncf"}) for attack, hr in [("none", 0.04), ("a-ra", 0.01)]),
    )
    board = make_board(Database([tmp_path], 5))
    assert {"Untargeted: attacks on mf", "Untargeted: attacks on ncf", "Untargeted: defenses on mf"} <= {
        sheet.title for sheet in board.sheets
    }
    assert ranked(tmp_path, "mf")["a-hum"].rank == 1
    assert ranked(tmp_path)["a-hum"].rank is None
    assert board.data["untargeted_attacks_by_model"]["ncf"][0]["loss"]["mean"] == pytest.approx(75)


def test_json_names_what_it_holds(tmp_path: Path) -> None:
    data = json.loads(json.dumps(make_board(Database([a_board(tmp_path)], 5)).data))
    assert data["attacks"] == data["defenses"] == []
    assert data["untargeted_attacks"][0]["clean_hr"] == pytest.approx(4)
    good = data["untargeted_defenses"][0]
    assert (good["recovered"]["mean"], good["cost"]["mean"], good["left"]) == (
        pytest.approx(22.5),
        pytest.approx(5),
        pytest.approx(15),
    )
    assert good["round_ms"] == pytest.approx(0)
    assert not {"er", "reduction", "loss"} & set(good)
    under = {row["attack"]: row for row in data["untargeted_attacks_under_defenses"]}
    assert under["a-ra"]["under"]["good"]["left"]["mean"] == pytest.approx(10)
    assert under["a-ra"]["best"]["defense"] == "good"
    assert len(data["untargeted_cells"]) == 2


def test_seeds_of_the_cost_are_not_counted_for_every_attack(tmp_path: Path) -> None:
    for seed, clean in ((0, 0.03), (1, 0.04)):
        for defense, hr in (("none", 0.04), ("good", clean)):
            write(tmp_path, *(untargeted(a, seed, hr, defense=defense) for a in ("none", "a-ra", "a-hum")))
    loss = judged(tmp_path)["good"].loss
    assert loss is not None
    assert (loss.n, loss.mean, loss.high) == (2, pytest.approx(12.5), pytest.approx(interval([25.0, 0.0]).high))


def test_rankings_agree_with_plain_loops(tmp_path: Path) -> None:
    rng = random.Random(7)
    attacks, defenses, models, seeds = ("a-ra", "a-hum", "random"), ("p", "q"), ("mf", "ncf"), (0, 1, 2)
    hr: dict[tuple[str, str, str, int], float] = {}
    for defense in ("none", *defenses):
        for attack in ("none", *attacks):
            for model in models:
                for seed in seeds:
                    # The best evaluation comes first; what follows must not count.
                    best = hr[defense, attack, model, seed] = rng.uniform(0.01, 0.05)
                    values, place = [best, rng.random()], {"model": model}
                    write(tmp_path, untargeted(attack, seed, values, [0.2, 0.1], defense=defense, fields=place))
    for row in ranked(tmp_path).values():
        losses = []
        for model in models:
            own = [1 - hr["none", row.attack, model, s] / hr["none", "none", model, s] for s in seeds]
            losses.append(statistics.fmean(own))
        assert row.loss is not None
        assert row.loss.mean == pytest.approx(100 * statistics.fmean(losses))
    for name, row in judged(tmp_path).items():
        recovered, cost, left = [], [], {attack: [] for attack in attacks}  # type: ignore[var-annotated]
        for model in models:
            base = {s: hr["none", "none", model, s] for s in seeds}
            cost.append(statistics.fmean((base[s] - hr[name, "none", model, s]) / base[s] for s in seeds))
            for attack in attacks:
                gains = [(hr[name, attack, model, s] - hr["none", attack, model, s]) / base[s] for s in seeds]
                recovered.append(statistics.fmean(gains))
                left[attack].append(statistics.fmean(1 - hr[name, attack, model, s] / base[s] for s in seeds))
        means = {attack: 100 * statistics.fmean(values) for attack, values in left.items()}
        assert row.net == pytest.approx(100 * (statistics.fmean(recovered) - statistics.fmean(cost)))
        assert row.er == pytest.approx(statistics.fmean(means.values()))
        assert row.worst is not None
        assert row.worst[0] == max(means, key=lambda attack: means[attack])
