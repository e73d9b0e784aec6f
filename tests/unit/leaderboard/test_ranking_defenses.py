from __future__ import annotations

import json
import random
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from records import defended, interval, record, scenario, write

from fedbench.comparison import compare_entries
from fedbench.errors import ResultsError
from fedbench.leaderboard import Database, DefenseRow, rank_attacks, rank_defenses
from fedbench.leaderboard.board import make_board
from fedbench.leaderboard.ranking_defenses import pareto_front
from fedbench.leaderboard.render import markdown
from fedbench.leaderboard.under_defenses import attacks_under_defenses
from fedbench.runs.record import RunRecord


def undefended(er: float = 0.8, **fields: str) -> list[RunRecord]:
    """Clean runs with HR@10 of 60 %, and a-ra and a-hum, seeds 0 and 1."""
    attacked = [record(scenario(attack, **fields), seed, er=er) for attack in ("a-ra", "a-hum") for seed in (0, 1)]
    return [*(record(scenario(**fields), seed, hr=0.6) for seed in (0, 1)), *attacked]


def under(name: str, a_ra: float, a_hum: float, hr: float, **values: object) -> list[RunRecord]:
    """The same runs under a defense, with the given ER@10 and HR@10."""
    made = []
    for seed in (0, 1):
        made.append(defended(name, seed=seed, hr=hr, **values))  # type: ignore[arg-type]
        made.append(defended(name, "a-ra", seed, er=a_ra, **values))  # type: ignore[arg-type]
        made.append(defended(name, "a-hum", seed, er=a_hum, **values))  # type: ignore[arg-type]
    return made


def by_name(folder: Path, model: str | None = None) -> dict[str, DefenseRow]:
    return {row.defense: row for row in rank_defenses(Database([folder]), model)}


def test_defenses_are_ranked_by_net_and_judged_by_the_front(tmp_path: Path) -> None:
    write(
        tmp_path,
        *undefended(),
        *under("good", 0.1, 0.3, 0.58, family="aggregation", knowledge=["n", "m"], assumes="5 % (given)"),
        *under("dear", 0.0, 0.0, 0.2),
        *under("poor", 0.7, 0.7, 0.55),
        *under("cheap", 0.6, 0.8, 0.6),
        *under("useless", 0.8, 0.8, 0.59),
    )
    rows = rank_defenses(Database([tmp_path]))
    assert [(row.rank, row.defense, row.front) for row in rows] == [
        (1, "good", True),
        (1, "dear", True),  # two seeds that agree to the last digit are no proof
        (1, "cheap", True),
        (1, "poor", False),  # cheap prevents as much at no loss
        (1, "useless", False),  # having none is better
    ]
    good = rows[0]
    assert good.reduction is not None
    assert good.loss is not None
    assert (good.reduction.mean, good.reduction.n) == (pytest.approx(60), 2)
    assert (good.loss.mean, good.loss.n) == (pytest.approx(2), 2)
    assert good.net == pytest.approx(58)
    assert good.er == pytest.approx(20)
    assert good.worst == ("a-hum", pytest.approx(30))
    assert good.least == ("a-hum", pytest.approx(50))
    assert (good.family, good.knowledge, good.assumes) == ("aggregation", "m, n", "5 % (given)")
    assert (good.scenarios, len(good.runs)) == (2, 4)


def test_attacks_that_know_the_defense_have_a_worst_of_their_own(tmp_path: Path) -> None:
    plain = [*undefended(), *under("good", 0.1, 0.3, 0.58)]
    write(tmp_path, *plain)
    before = by_name(tmp_path)["good"]
    assert (before.worst_fixed, before.worst_adaptive) == (before.worst, None)
    assert "worst attack" in markdown(make_board(Database([tmp_path])))
    told = [record(scenario("adaptive"), seed, er=0.8) for seed in (0, 1)]
    told += [defended("good", "adaptive", seed, er=er) for seed, er in enumerate((0.2, 0.9))]
    write(tmp_path, *plain, *told)
    row = by_name(tmp_path)["good"]
    assert row.worst_fixed == ("a-hum", pytest.approx(30))
    assert row.worst == row.worst_adaptive == ("adaptive", pytest.approx(55))
    text = markdown(make_board(Database([tmp_path])))
    assert "| worst fixed | worst adaptive |" in text
    assert "| a-hum 30.0 | adaptive 55.0 |" in text


def test_a_defense_that_was_overrun_early_shows_at_the_peak(tmp_path: Path) -> None:
    write(
        tmp_path,
        *undefended(),
        defended("late"),
        defended("late", "a-ra", er=[0.9, 0.1]),
        defended("late", "a-hum", er=[0.2, 0.3]),
    )
    late = by_name(tmp_path)["late"]
    assert (late.er, late.peak) == (pytest.approx(20), pytest.approx(60))


def test_nets_are_compared_by_reductions_and_losses_of_the_same_seed(tmp_path: Path) -> None:
    """Seeds move all defenses alike, by 30 points of ER and 10 of HR; beside that, "a" and "b" differ by noise only."""
    rng = random.Random(2)
    for seed in range(5):
        bad, good = 0.3 * rng.random(), 0.1 * rng.random()
        write(tmp_path, record(scenario(), seed, hr=0.5 + good), record(scenario("a-ra"), seed, er=0.6 + bad))
        for name, er, hr in (("a", 0.1, 0.40), ("b", 0.2, 0.5), ("c", 0.3, 0.5), ("d", 0.3, 0.4)):
            write(
                tmp_path,
                defended(name, "a-ra", seed, er=er + bad + rng.gauss(0, 0.01)),
                defended(name, seed=seed, hr=hr + good + rng.gauss(0, 0.01)),
            )
    found = rank_defenses(Database([tmp_path]))
    assert sorted(row.defense for row in found[:2]) == ["a", "b"]
    assert [(row.rank, row.beats) for row in found] == [(1, 2), (1, 2), (3, 1), (4, 0)]
    difference, _ = found.separation.pairs["c", "d"]
    c, d = found[2], found[3]
    assert c.net is not None
    assert d.net is not None
    assert difference.estimate == pytest.approx(c.net - d.net)
    assert (difference.scenarios, difference.runs) == (2, 10), "one with an attack and one without"
    assert found[3].average_rank == 4


def test_what_a_defense_lacks_is_named_and_costs_the_rank(tmp_path: Path) -> None:
    few = {"malicious_ratio": 0.01}
    write(
        tmp_path,
        *undefended(),
        *under("whole", 0.4, 0.4, 0.6),
        *under("also", 0.5, 0.5, 0.6),
        *(each for each in under("half", 0.0, 0.0, 0.6) if each.attack != "a-hum"),
        *(each for each in under("unjudged", 0.0, 0.0, 0.6) if each.attack != "none"),
        record(scenario("a-ra", **few), 0, er=0.5),
        defended("also", "a-ra", fields=few, er=0.1),
    )
    rows = by_name(tmp_path)
    assert {name: row.rank for name, row in rows.items()} == {"whole": 1, "also": 1, "unjudged": None, "half": None}
    assert rows["half"].missing == ["a-hum on longtail-small mf icde24 0.05 random:0"]
    assert rows["unjudged"].missing == ["longtail-small mf icde24 without an attack"]
    assert (rows["unjudged"].loss, rows["unjudged"].net, rows["unjudged"].front) == (None, None, None)
    assert rows["also"].er == pytest.approx(50), "the ratio that no other defense ran does not count"
    assert rows["also"].apart == 1
    text = markdown(make_board(Database([tmp_path])))
    assert "half lacks 1 scenario: a-hum on longtail-small mf" in text
    assert "unjudged lacks 1 scenario: longtail-small mf icde24 without an attack." in text
    assert "also ran 1 scenario more, which fewer than half of the defenses ran: not compared." in text


def test_an_unranked_defense_dominates_nobody(tmp_path: Path) -> None:
    write(
        tmp_path,
        *undefended(),
        *under("whole", 0.4, 0.4, 0.58),
        *under("other", 0.5, 0.5, 0.55),
        *(each for each in under("half", 0.0, 0.0, 0.6) if each.attack != "a-hum"),
    )
    assert by_name(tmp_path)["whole"].front is True
    assert by_name(tmp_path)["half"].front is None


def test_a_diverged_attack_prevents_nothing_and_a_diverged_clean_run_is_a_whole_loss(tmp_path: Path) -> None:
    """Of a run that diverged, the last evaluation before that is in the record; it is not the end."""
    ended = [defended("wild", attack, 0, er=[0.6, 0.4]) for attack in ("a-ra", "a-hum")]
    diverged = [replace(defended("wild", attack, 1, er=[0.8, 0.7]), status="diverged") for attack in ("a-ra", "a-hum")]
    write(
        tmp_path,
        *undefended(),
        *ended,
        *diverged,
        defended("wild", seed=0, hr=0.5),
        replace(defended("wild", seed=1, hr=0.6), status="diverged"),
    )
    wild = by_name(tmp_path)["wild"]
    assert wild.reduction is not None
    assert wild.loss is not None
    assert wild.er == pytest.approx((40 + 80) / 2)
    assert wild.peak == pytest.approx((60 + 80) / 2)
    assert wild.reduction.mean == pytest.approx(40 / 2)
    assert wild.loss.mean == pytest.approx((10 + 60) / 2)
    assert wild.loss_attacked is not None
    assert (wild.loss_attacked.mean, wild.paid) == (pytest.approx((0 + 50) / 2), wild.loss)
    assert (wild.diverged, wild.clean_broken, wild.unpaired, wild.rank) == (2, 1, 0, 1)
    text = markdown(make_board(Database([tmp_path])))
    assert "diverged: 1 of a-ra under wild on longtail-small mf at 5 %" in text
    assert "counts as a loss of the whole HR@10" in text


def test_failed_runs_and_runs_without_a_twin_are_no_score(tmp_path: Path) -> None:
    write(
        tmp_path,
        record(scenario(), hr=0.6),
        record(scenario("a-ra"), er=0.5),
        *(defended("one", attack, er=0.2, hr=0.6) for attack in ("none", "a-ra", "a-hum")),
        defended("one", "random", status="failed", error="RuntimeError: no"),
        defended("lost", "a-ra", status="failed", error="RuntimeError: no"),
    )
    rows = by_name(tmp_path)
    assert (rows["one"].unpaired, rows["one"].failed, rows["one"].scenarios) == (1, 1, 1)
    assert rows["one"].er == pytest.approx(20)
    lost = rows["lost"]
    assert (lost.rank, lost.reduction, lost.er, lost.worst, lost.failed) == (None, None, None, None, 1)
    assert lost.missing == [
        "a-ra on longtail-small mf icde24 0.05 random:0",
        "longtail-small mf icde24 without an attack",
    ]
    assert "| - | lost | filter | - | - | - | - | - |" in markdown(make_board(Database([tmp_path])))


def test_the_cost_is_the_median_over_pairs_on_the_same_hardware(tmp_path: Path) -> None:
    seconds = {"seconds_train": 2.0, "rounds": 100}
    for seed, (more, where) in enumerate([(0.1, "x"), (0.3, "x"), (0.8, "x"), (900.0, "y")]):
        write(
            tmp_path,
            record(scenario("a-ra"), seed, er=0.5, device_name="x", **seconds),
            defended("slow", "a-ra", seed, er=0.1, device_name=where, seconds_train=2.0 + more, rounds=100),
            defended("away", "a-ra", seed, er=0.1, device="cuda", device_name="x", seconds_train=0.1, rounds=100),
        )
    rows = by_name(tmp_path)
    assert rows["slow"].cost == pytest.approx(3.0)
    assert rows["away"].cost is None


def test_records_without_a_card_take_that_of_the_installed_defense(tmp_path: Path) -> None:
    write(tmp_path, *undefended(), *under("norm-bound", 0.1, 0.1, 0.6), *under("gone", 0.1, 0.1, 0.6))
    database = Database([tmp_path])
    database.connection.execute(
        "update marked set defense_family = null, defense_knowledge = null, defense_assumes = null"
    )
    rows = {row.defense: row for row in rank_defenses(database.at(10))}
    assert (rows["norm-bound"].family, rows["norm-bound"].assumes) == ("clipping", "nothing")
    assert (rows["gone"].family, rows["gone"].assumes) == ("", "")


def test_every_assumed_share_has_its_own_clean_twin(tmp_path: Path) -> None:
    """A rule that is given the true share costs more where the share is higher: what counts is the mean of both.

    The two share the seed and the baseline, and are one measurement.
    """
    for ratio, loss in ((0.01, 0.02), (0.05, 0.1)):
        attacked = scenario("a-ra", "trimmed-mean", malicious_ratio=ratio)
        assert attacked.clean.defense_params == {"assumed_ratio": ratio}
        write(
            tmp_path,
            record(attacked.clean.undefended, hr=0.6),
            record(attacked.undefended, er=0.5),
            record(attacked, er=0.1),
            record(attacked.clean, hr=0.6 - loss),
        )
    (row,) = rank_defenses(Database([tmp_path]))
    assert row.defense == "trimmed-mean"
    assert row.loss is not None
    assert (row.loss.mean, row.loss.low, row.loss.n) == (pytest.approx(6.0), None, 1)


def test_a_share_without_a_clean_twin_is_named_and_costs_the_rank(tmp_path: Path) -> None:
    """norm-bound has one clean twin for all shares, trimmed-mean one for each: of the last it lacks that of 5 %."""
    for ratio in (0.01, 0.05):
        for defense in ("trimmed-mean", "norm-bound"):
            attacked = scenario("a-ra", defense, malicious_ratio=ratio)
            write(tmp_path, record(attacked.undefended, er=0.5), record(attacked, er=0.1))
            if ratio == 0.01:
                write(tmp_path, record(attacked.clean.undefended, hr=0.6), record(attacked.clean, hr=0.58))
    rows = by_name(tmp_path)
    assert rows["norm-bound"].missing == []
    assert rows["trimmed-mean"].missing == ["longtail-small mf icde24 without an attack, 5 % assumed"]
    assert (rows["norm-bound"].rank, rows["trimmed-mean"].rank) == (1, None)
    (under,) = attacks_under_defenses(Database([tmp_path]))
    assert (under.under["norm-bound"].loss, under.under["trimmed-mean"].loss) == (pytest.approx(2), None)


def test_shares_are_no_seeds(tmp_path: Path) -> None:
    """Losses of 1, 3 and 8 points over three seeds are as uncertain when they are measured at two shares."""
    for seed, loss in enumerate((0.01, 0.03, 0.08)):
        for ratio in (0.01, 0.05):
            attacked = scenario("a-ra", "trimmed-mean", malicious_ratio=ratio)
            write(tmp_path, record(attacked.clean.undefended, seed, hr=0.6), record(attacked.undefended, seed, er=0.5))
            write(tmp_path, record(attacked, seed, er=0.1), record(attacked.clean, seed, hr=0.6 - loss))
    (row,) = rank_defenses(Database([tmp_path]))
    expected = interval([1.0, 3.0, 8.0])
    assert row.loss is not None
    assert (row.loss.low, row.loss.high) == (pytest.approx(expected.low), pytest.approx(expected.high))


def test_missing_seeds_of_a_defense_are_named_with_an_attack_and_without(tmp_path: Path) -> None:
    less = [each for each in under("less", 0.1, 0.1, 0.6) if each.seed == 0 or each.attack == "a-ra"]
    write(tmp_path, *undefended(), *under("whole", 0.1, 0.1, 0.6), *under("other", 0.1, 0.1, 0.6), *less)
    rows = by_name(tmp_path)
    assert rows["less"].lacking == [
        "seed 1 of a-hum on longtail-small mf icde24 0.05 random:0",
        "seed 1 of longtail-small mf icde24 without an attack",
    ]
    assert (rows["whole"].lacking, rows["less"].rank, rows["less"].missing) == ([], 1, [])
    text = "less lacks seeds that at least half of the defenses ran there: seed 1 of a-hum on"
    assert any(each.startswith(text) for each in make_board(Database([tmp_path])).warnings)


def test_an_interval_of_points_ends_at_100(tmp_path: Path) -> None:
    half = [defended("half", attack, seed, er=0.8 - 0.8 * seed) for attack in ("a-ra", "a-hum") for seed in (0, 1)]
    write(tmp_path, *undefended(), *half, *(defended("half", seed=seed, hr=0.6) for seed in (0, 1)))
    sheet = next(s for s in make_board(Database([tmp_path])).sheets if s.headings[1] == "defense")
    assert sheet.rows[0][sheet.headings.index("ER@10 reduction")] == "+40.0 [-100.0, +100.0]"


def test_settings_of_a_defense_are_entries_of_their_own(tmp_path: Path) -> None:
    write(tmp_path, *undefended(), *(r for m in (1, 2) for r in under("krum", m / 10, m / 10, 0.6, params={"m": m})))
    assert [row.defense for row in rank_defenses(Database([tmp_path]))] == ["krum (m=1)", "krum (m=2)"]


def test_a_setting_left_to_the_method_is_not_named(tmp_path: Path) -> None:
    write(tmp_path, *undefended(), *(r for m in (None, 2) for r in under("krum", 0.1, 0.1, 0.6, params={"m": m})))
    assert {row.defense for row in rank_defenses(Database([tmp_path]))} == {"krum", "krum (m=2)"}


def test_only_attacks_that_promote_are_prevented_by_lowering_exposure(tmp_path: Path) -> None:
    write(
        tmp_path,
        *undefended(),
        *under("good", 0.1, 0.1, 0.6),
        record(scenario("random"), er=0.0, attack_goal="degrade"),
        defended("good", "random", er=0.0, attack_goal="degrade"),
    )
    (row,) = rank_defenses(Database([tmp_path]))
    assert (row.scenarios, row.least) == (2, ("a-ra", pytest.approx(70)))


def test_each_model_has_a_ranking_of_its_own(tmp_path: Path) -> None:
    ncf = {"fields": {"model": "ncf"}}
    write(
        tmp_path,
        *undefended(),
        *undefended(model="ncf"),
        *under("a", 0.1, 0.1, 0.6),
        *under("a", 0.7, 0.7, 0.6, **ncf),
        *under("b", 0.2, 0.2, 0.6),
        *under("b", 0.3, 0.3, 0.6, **ncf),
    )
    assert [list(by_name(tmp_path, model)) for model in (None, "mf", "ncf")] == [["b", "a"], ["a", "b"], ["b", "a"]]
    board = make_board(Database([tmp_path]))
    titles = [sheet.title for sheet in board.sheets]
    assert {"Defenses on mf", "Defenses on ncf"} <= set(titles)
    (on_mf,) = [sheet for sheet in board.sheets if sheet.title == "Defenses on mf"]
    assert not on_mf.runs, "the overall table names the same runs"
    assert board.data["defenses_by_model"]["mf"][0]["defense"] == "a"


def test_rankings_agree_with_plain_loops(tmp_path: Path) -> None:
    rng = random.Random(3)
    names, attacks, models, seeds = ("p", "q"), ("a-ra", "a-hum", "random"), ("mf", "ncf"), (0, 1, 2)
    hr: dict[tuple[str, str, int], float] = {}
    er: dict[tuple[str, str, str, int], float] = {}
    for model in models:
        for seed in seeds:
            for name in ("none", *names):
                make = {"fields": {"model": model}}
                hr[name, model, seed] = rng.random()
                if name == "none":
                    write(tmp_path, record(scenario(model=model), seed, hr=hr[name, model, seed]))
                else:
                    write(tmp_path, defended(name, seed=seed, hr=hr[name, model, seed], **make))  # type: ignore[arg-type]
                for attack in attacks:
                    er[name, attack, model, seed] = value = rng.random()
                    if name == "none":
                        write(tmp_path, record(scenario(attack, model=model), seed, er=value))
                    else:
                        write(tmp_path, defended(name, attack, seed, er=value, **make))  # type: ignore[arg-type]
    for row in rank_defenses(Database([tmp_path])):
        name = row.defense
        reductions, losses, left = [], [], {attack: [] for attack in attacks}  # type: ignore[var-annotated]
        for model in models:
            losses.append(statistics.fmean(hr["none", model, s] - hr[name, model, s] for s in seeds))
            for attack in attacks:
                reductions.append(
                    statistics.fmean(er["none", attack, model, s] - er[name, attack, model, s] for s in seeds)
                )
                left[attack].append(statistics.fmean(er[name, attack, model, s] for s in seeds))
        assert row.reduction is not None
        assert row.loss is not None
        assert row.reduction.mean == pytest.approx(100 * statistics.fmean(reductions))
        assert row.loss.mean == pytest.approx(100 * statistics.fmean(losses))
        means = {attack: 100 * statistics.fmean(values) for attack, values in left.items()}
        worst = max(means, key=lambda attack: means[attack])
        assert row.worst == (worst, pytest.approx(means[worst]))
        assert row.er == pytest.approx(statistics.fmean(means.values()))


POINTS = st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), max_size=8)


@given(POINTS)
def test_the_front_is_what_nothing_dominates(points: list[tuple[float, float]]) -> None:
    front = pareto_front(points)
    for (reduction, loss), on in zip(points, front, strict=True):
        dominated = False
        for other_reduction, other_loss in [*points, (0, 0)]:
            if other_reduction > reduction and other_loss <= loss:
                dominated = True
            if other_reduction >= reduction and other_loss < loss:
                dominated = True
        assert on is not dominated
    kept = [point for point, on in zip(points, front, strict=True) if on]
    assert all(pareto_front(kept)), "what is off the front decides nothing"


def test_json_holds_everything(tmp_path: Path) -> None:
    write(tmp_path, *undefended(), *under("good", 0.1, 0.3, 0.58))
    data = json.loads(json.dumps(make_board(Database([tmp_path])).data))
    (row,) = data["defenses"]
    assert row["worst"] == ["a-hum", pytest.approx(30)]
    assert row["front"] is True
    assert "attacks_under_defenses" in data


POPULAR = {"popularity_hr_10": 0.4}


def wrecked(name: str, seed: int, **values: Any) -> list[RunRecord]:
    """A defense that costs nothing without an attack, and its run under one."""
    return [defended(name, seed=seed, hr=0.6, **POPULAR), defended(name, "a-ra", seed, **POPULAR | values)]


def test_what_a_wrecked_recommender_earns(tmp_path: Path) -> None:
    """A median that keeps HR and most of the prevention stands above three ways to show the target to nobody."""
    for seed in range(3):
        wave = 0.01 * seed
        write(
            tmp_path,
            record(scenario(), seed, hr=0.6, **POPULAR),
            record(scenario("a-ra"), seed, er=0.9 + wave, hr=0.58, **POPULAR),
            *wrecked("median-like", seed, er=0.05 + wave, hr=0.57),
            *wrecked("diverging", seed, status="diverged"),
            *wrecked("nothing-left", seed, er=0.0, hr=0.0),
            *wrecked("below-popularity", seed, er=0.0, hr=0.39),
        )
    found = rank_defenses(Database([tmp_path]))
    assert found[0].defense == "median-like"
    assert {row.defense: (row.broken, round(row.net or 0, 6)) for row in found} == {
        "median-like": (0, 84),  # 85 prevented, and a point of HR
        "below-popularity": (3, -19),
        "nothing-left": (3, -58),
        "diverging": (3, -58),
    }
    rows = {row.defense: row for row in found}
    assert (rows["diverging"].hr, rows["nothing-left"].hr) == (0, 0)
    assert [name for name, row in rows.items() if row.front] == ["median-like"]
    nothing = rows["nothing-left"]
    assert nothing.paid is not None
    assert nothing.loss is not None
    assert (nothing.er, nothing.paid.mean) == (pytest.approx(91), pytest.approx(58))
    assert nothing.loss.mean == 0, "without an attack it costs nothing"
    text = markdown(make_board(Database([tmp_path])))
    assert (
        "broken: 3 runs of a-ra under nothing-left on longtail-small mf at 5 %, whose HR@10 at the end is 0 %, below 40 %."
        in text
    )
    (row,) = attacks_under_defenses(Database([tmp_path]))
    assert row.best is not None
    assert row.best.defense == "median-like"
    compared = compare_entries(Database([tmp_path]), "median-like", "nothing-left", "defense")
    (er, *_) = [each for each in compared.contrasts if each.measure == "ER@10"]
    assert (er.a, er.b) == (pytest.approx(6), pytest.approx(91)), "and comparing two tells the same"
    assert any("3 broken" in text for text in compared.lost)


def test_where_popularity_is_not_known_or_not_reached_half_of_the_baseline_must_be_left(tmp_path: Path) -> None:
    for seed, popular in ((0, None), (1, 0.7)):
        known = {"popularity_hr_10": popular}
        write(
            tmp_path,
            record(scenario(), seed, hr=0.6, **known),
            record(scenario("a-ra"), seed, er=0.9, hr=0.58, **known),
            *(defended(name, seed=seed, hr=0.6, **known) for name in ("half", "less")),
            defended("half", "a-ra", seed, er=0.0, hr=0.3, **known),
            defended("less", "a-ra", seed, er=0.0, hr=0.29, **known),
        )
    rows = by_name(tmp_path)
    assert (rows["half"].broken, rows["less"].broken) == (0, 2)
    assert "popularity: of 6 runs it is not known" in markdown(make_board(Database([tmp_path])))
    (tmp_path / "popularity.csv").write_text(
        f"run,popularity_hr_10,popularity_hr_full_10\n{record(scenario(), 0).run_id},0.5,\n"
    )
    assert by_name(tmp_path)["half"].broken == 1, "a file beside the records says it"
    (tmp_path / "popularity.csv").write_text("run,popularity_hr_10,popularity_hr_full_10\nx,much,\n")
    with pytest.raises(ResultsError, match=r"cannot read .*popularity\.csv"):
        Database([tmp_path])


def test_where_the_undefended_run_is_broken_there_is_nothing_to_prevent(tmp_path: Path) -> None:
    """And the attack has earned nothing: nobody is shown its target by a recommender that is worse than popularity."""
    for seed in range(2):
        write(
            tmp_path,
            record(scenario(), seed, hr=0.6, **POPULAR),
            record(scenario("a-ra"), seed, er=0.9, hr=0.39 if seed else 0.5, **POPULAR),
            *wrecked("any", seed, er=0.1, hr=0.5),
        )
    row = by_name(tmp_path)["any"]
    assert row.reduction is not None
    assert (row.reduction.mean, row.reduction.n, row.unpaired) == (pytest.approx(80), 1, 1)
    (attack,) = rank_attacks(Database([tmp_path]))
    assert attack.er is not None
    assert (attack.er.mean, attack.hr, attack.broken) == (pytest.approx(45), pytest.approx(44.5), 1)


def test_an_entry_of_ones_own_is_ranked_by_isolated_runs_only(tmp_path: Path) -> None:
    write(tmp_path, *undefended(), *under("ours", 0.1, 0.1, 0.6), *under("other", 0.2, 0.2, 0.6))
    own = [replace(each, isolation="none", warnings=["looks odd"]) for each in under("in-process", 0.0, 0.0, 0.6)]
    write(tmp_path, *own, *(replace(each, isolation="none", defense="median") for each in under("b", 0.3, 0.3, 0.6)))
    board = make_board(Database([tmp_path]))
    rows = {row.defense: row for row in board.defenses}
    assert rows["in-process"].rank is None
    assert rows["in-process"].reduction is not None, "it is shown"
    assert (rows["in-process"].unverified, rows["in-process"].warned) == (True, 4)
    assert [rows[name].rank for name in ("ours", "other", "median")] == [1, 1, 1], "median comes with fedbench"
    text = markdown(board)
    assert "| unverified | in-process |" in text
    assert "in-process does not come with fedbench and has runs in process" in text
    assert "warning of 2 runs of a-ra under in-process on longtail-small mf at 5 %: looks odd" in text


def test_the_table_names_attacks_that_no_defense_was_tried_against(tmp_path: Path) -> None:
    write(tmp_path, *undefended(), *under("good", 0.1, 0.3, 0.58))
    said = "Tried under none of these defenses, so not in this table: {}."
    assert "Tried under none" not in markdown(make_board(Database([tmp_path])))
    write(tmp_path, record(scenario("p1"), er=0.9), record(scenario("p2"), er=0.8))
    assert said.format("p1, p2") in markdown(make_board(Database([tmp_path])))
