"""Comparisons: differences and words by hand and by scipy, what cannot be told, what is only in one."""

from __future__ import annotations

from pathlib import Path

import pytest
from records import defended, record, scenario, untargeted, write
from scipy import stats

from fedbench.comparison import Comparison, Contrast, compare_entries, compare_results, kind_of, markdown, plain
from fedbench.comparison.report import told_once
from fedbench.errors import UserError
from fedbench.leaderboard import Database
from fedbench.leaderboard.paired import Difference

FIRST, SECOND = (0.50, 0.62, 0.55, 0.61), (0.30, 0.41, 0.36, 0.38)


def contrast(found: Comparison, measure: str, ratio: float | None = None, model: str = "all") -> Contrast:
    (one,) = [c for c in found.contrasts if (c.measure, c.ratio, c.model) == (measure, ratio, model)]
    return one


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two attacks on four seeds, and on a second place where only one pair is."""
    out = tmp_path / "results"
    for seed, (a, b) in enumerate(zip(FIRST, SECOND, strict=True)):
        write(out, record(scenario(), seed, hr=0.5))
        write(out, record(scenario("a-ra"), seed, er=a, hr=0.5), record(scenario("a-hum"), seed, er=b, hr=0.5))
    return out


def test_two_attacks_as_the_paired_t_test_of_scipy(folder: Path) -> None:
    found = compare_entries(Database([folder]), "a-ra", "a-hum", "attack")
    er = contrast(found, "ER@10")
    test = stats.ttest_rel([100 * v for v in FIRST], [100 * v for v in SECOND])
    interval = test.confidence_interval()
    assert er.p == pytest.approx(test.pvalue)
    assert (er.difference.low, er.difference.high) == pytest.approx((interval.low, interval.high))
    assert (er.a, er.b, er.difference.runs) == (pytest.approx(57), pytest.approx(36.25), 4)
    assert er.words == "A is higher by 20.75"
    assert contrast(found, "HR@10").words == "equal in 4 paired runs"
    turned = contrast(compare_entries(Database([folder]), "a-hum", "a-ra", "attack"), "ER@10")
    assert turned.words == "B is higher by 20.75"


def test_it_says_when_it_cannot_tell(tmp_path: Path) -> None:
    for seed, (a, b) in enumerate(((0.5, 0.4), (0.4, 0.5), (0.6, 0.55))):
        write(tmp_path, record(scenario("a-ra"), seed, er=a), record(scenario("a-hum"), seed, er=b))
    er = contrast(compare_entries(Database([tmp_path]), "a-ra", "a-hum", "attack"), "ER@10")
    assert er.resolution is not None
    expected = (
        f"no difference that 3 paired runs can show; the smallest that would be found: {er.resolution:.1f} points"
    )
    assert er.words == expected
    write(tmp_path / "one", record(scenario("a-ra"), er=0.9), record(scenario("a-hum"), er=0.1))
    single = contrast(compare_entries(Database([tmp_path / "one"]), "a-ra", "a-hum", "attack"), "ER@10")
    assert (single.p, single.words) == (None, "cannot tell from 1 paired run")


def test_cells_are_adjusted_and_ordered(folder: Path) -> None:
    for seed, (a, b) in enumerate(zip(FIRST, SECOND, strict=True)):
        place = {"malicious_ratio": 0.01}
        write(folder, record(scenario("a-ra", **place), seed, er=b), record(scenario("a-hum", **place), seed, er=a))
    found = compare_entries(Database([folder]), "a-ra", "a-hum", "attack")
    assert [c.ratio for c in found.contrasts if c.measure == "ER@10"] == [None, 0.01, 0.05]
    low, high = contrast(found, "ER@10", 0.01, "mf"), contrast(found, "ER@10", 0.05, "mf")
    assert high.difference.p is not None
    assert (low.p, high.p) == (pytest.approx(2 * high.difference.p), pytest.approx(2 * high.difference.p))
    assert (low.words, high.words) == ("B is higher by 20.75", "A is higher by 20.75")
    overall = contrast(found, "ER@10")
    assert overall.difference.estimate == pytest.approx(0, abs=1e-9)
    assert overall.words == "equal in 8 paired runs", "in each seed they make up for each other"


def test_a_cell_whose_interval_excludes_0_is_not_called_equal(tmp_path: Path) -> None:
    """Alone it would be told apart; with five other cells, Holm's p is above 0.05, and the words say which is which."""
    for ratio in (0.01, 0.02, 0.03, 0.04, 0.05, 0.06):
        far = ratio == 0.01
        for seed, noise in enumerate((0.0, 0.1, -0.1)):
            place = {"malicious_ratio": ratio}
            a = 0.5 + (0.3 + noise / 2 if far else noise * (-1) ** round(100 * ratio))
            write(
                tmp_path,
                record(scenario("a-ra", **place), seed, er=a),
                record(scenario("a-hum", **place), seed, er=0.5),
            )
    found = compare_entries(Database([tmp_path]), "a-ra", "a-hum", "attack")
    far = contrast(found, "ER@10", 0.01, "mf")
    assert far.difference.p is not None
    assert far.p is not None
    assert far.difference.low is not None
    assert far.difference.low > 0
    assert far.difference.p < 0.05 < far.p
    assert far.verdict == f"not significant among the cells (Holm; alone p = {far.difference.p:.3f})"


def test_a_tiny_resolution_is_not_shown_as_0() -> None:
    d = Difference(0.001, -0.01, 0.012, 0.004, 4.0, 0.8, 1, 5)
    tiny = Contrast("ER@10", "d", "m", 0.1, "none", 1.0, 1.0, d, 0.8, 0.02)
    assert tiny.words == "no difference that 5 paired runs can show; the smallest that would be found: <0.1 points"


def test_what_all_cells_share_is_told_once(folder: Path) -> None:
    for ratio in (0.01, 0.02):
        place = {"malicious_ratio": ratio}
        write(folder, record(scenario("a-ra", **place), er=0.5), record(scenario("a-hum", **place), er=0.4))
    found = [
        c for c in compare_entries(Database([folder]), "a-ra", "a-hum", "attack").contrasts if c.measure == "ER@10"
    ]
    shared = ("dataset longtail-small, model mf, defense none", {"dataset", "model", "defense"})
    assert told_once(found) == shared
    assert told_once(found[:1]) == ("", {"dataset", "model", "malicious", "defense"})


def test_diverged_runs_count_and_failed_ones_are_named(folder: Path) -> None:
    write(folder, record(scenario("a-ra"), 4, status="diverged", error="x"), record(scenario("a-hum"), 4, er=0.2))
    write(folder, record(scenario("a-ra"), 5, status="failed", error="x"), record(scenario("a-hum"), 5, er=0.2))
    write(folder, record(scenario("a-ra"), 6, er=0.2))
    found = compare_entries(Database([folder]), "a-ra", "a-hum", "attack")
    er = contrast(found, "ER@10")
    assert er.difference.runs == 5
    assert er.a == pytest.approx(100 * sum(FIRST) / 5)
    assert "A, a-ra: 1 broken, 1 diverged, 1 failed of 7 runs." in found.sentences
    assert found.only_a == ["longtail-small mf icde24 0.05 random:0 under none s6"]
    assert any(text.startswith("Only in A, a-ra: 1 run: longtail-small mf") for text in found.sentences)


def test_a_scenario_with_a_single_common_seed_is_named_and_left_out(folder: Path) -> None:
    place = {"malicious_ratio": 0.01}
    write(folder, record(scenario("a-ra", **place), er=0.0), record(scenario("a-hum", **place), er=0.9))
    found = compare_entries(Database([folder]), "a-ra", "a-hum", "attack")
    er = contrast(found, "ER@10")
    assert (er.a, er.b, er.difference.estimate) == (pytest.approx(57), pytest.approx(36.25), pytest.approx(20.75))
    assert (er.difference.runs, contrast(found, "ER@10", 0.01, "mf").a) == (4, 0)
    text = "ER@10: 1 scenario with a single common seed, where others have several, left out."
    assert text in found.sentences


def test_two_defenses_and_their_cost(tmp_path: Path) -> None:
    for seed in (0, 1, 2):
        write(tmp_path, record(scenario(), seed, hr=0.6), record(scenario("a-ra"), seed, er=0.9, hr=0.6))
        for name, er, hr in (("mean", 0.3, 0.5), ("drop", 0.1, 0.4)):
            write(tmp_path, defended(name, "none", seed, er=0.0, hr=hr + seed / 100))
            write(tmp_path, defended(name, "a-ra", seed, er=er + seed / 50 * er, hr=hr))
    database = Database([tmp_path])
    assert kind_of(database, ("mean", "drop")) == "defense"
    found = compare_entries(database, "mean", "drop", "defense")
    assert contrast(found, "ER@10").words == "A is higher by 20.40"
    clean = contrast(found, "HR@10 without an attack")
    assert (clean.a, clean.b, clean.difference.runs) == (pytest.approx(51), pytest.approx(41), 3)
    undefended = compare_entries(database, "none", "mean", "defense")
    assert contrast(undefended, "ER@10").a == pytest.approx(90)


def test_untargeted_attacks_by_the_loss(tmp_path: Path) -> None:
    for seed, (a, b) in enumerate(((0.02, 0.03), (0.021, 0.03), (0.019, 0.031))):
        write(tmp_path, untargeted("none", seed, 0.04))
        write(tmp_path, untargeted("label-flip", seed, a), untargeted("gaussian", seed, b))
    found = compare_entries(Database([tmp_path]), "label-flip", "gaussian", "attack")
    loss = contrast(found, "HR@10 loss")
    assert {c.measure for c in found.contrasts} == {"HR@10 loss"}
    assert (loss.a, loss.b) == (pytest.approx(50), pytest.approx(100 * (1 - 0.091 / 0.12)))
    assert loss.words.startswith("A is higher by ")
    write(tmp_path, record(scenario("a-ra"), er=0.5))
    with pytest.raises(UserError, match="are not on one track"):
        compare_entries(Database([tmp_path]), "label-flip", "a-ra", "attack")


def test_names_that_are_wrong_or_of_two_kinds(folder: Path) -> None:
    write(folder, defended("a-ra", "a-ra"), defended("a-hum", "a-ra"))
    database = Database([folder])
    with pytest.raises(UserError, match="are attacks and defenses: say --kind attack or --kind defense"):
        kind_of(database, ("a-ra", "a-hum"))
    assert kind_of(database, ("a-ra", "a-hum"), "defense") == "defense"
    with pytest.raises(UserError, match="--kind 'x' must be attack or defense"):
        kind_of(database, ("a-ra", "a-hum"), "x")
    with pytest.raises(UserError, match="Unknown attack or defense 'a-hom'"):
        kind_of(database, ("a-hom", "a-ra"))
    with pytest.raises(UserError, match="cannot be compared with itself"):
        compare_entries(database, "a-ra", "a-ra", "attack")
    write(folder, defended("drop", "a-hum"))
    with pytest.raises(UserError, match="have no scenario and seed in common"):
        compare_entries(Database([folder]), "a-ra", "drop", "defense")
    write(folder, record(scenario("p1"), er=0.1))
    with pytest.raises(UserError, match="are not both attacks, nor both defenses"):
        kind_of(Database([folder]), ("drop", "p1"))


def test_equal_results_agree_bit_for_bit(folder: Path) -> None:
    found = compare_results(Database([folder]), Database([folder]), "one", "two")
    assert found.exact is not None
    assert (found.exact.common, found.exact.differing) == (12, [])
    assert "All metrics of the 12 runs in both agree bit for bit." in found.sentences
    assert all(c.words.startswith("equal in") for c in found.contrasts)
    assert (found.only_a, found.only_b) == ([], [])


def test_results_that_differ(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    for seed, value in enumerate(FIRST):
        write(
            other, record(scenario("a-ra"), seed, er=value + (1e-12 if seed == 1 else 0.01 if seed == 2 else 0), hr=0.5)
        )
    write(other, record(scenario("random"), er=0.1))
    found = compare_results(Database([folder]), Database([other]), "here", "there")
    assert found.exact is not None
    name = scenario("a-ra").id
    assert found.exact.differing == [f"{name}-s1", f"{name}-s2"]
    assert found.exact.words.startswith(f"2 of the 4 runs in both differ, by at most 1 points (er_10 of {name}-s2)")
    assert (len(found.only_a), len(found.only_b)) == (8, 1)
    assert found.only_b[0].startswith(f"{scenario('random').id}-s0 (longtail-small mf random none)")
    assert contrast(found, "ER@10").difference.estimate == pytest.approx(-0.25)
    text = markdown(found)
    assert "# here against there" in text
    assert "| all | all | all | all | 57.00 | 57.25 |" in text
    data = plain(found)
    assert data["contrasts"][0]["words"] == found.contrasts[0].words
    assert data["exact"]["common"] == 4


def test_a_curve_alone_can_differ(tmp_path: Path) -> None:
    write(tmp_path / "a", record(scenario("a-ra"), er=[0.1, 0.3, 0.2]))
    write(tmp_path / "b", record(scenario("a-ra"), er=[0.05, 0.3, 0.2]))
    found = compare_results(Database([tmp_path / "a"]), Database([tmp_path / "b"]), "a", "b")
    assert found.exact is not None
    assert found.exact.words == "1 of the 1 run in both differs, in curve or status alone."
    write(tmp_path / "c", record(scenario("p1"), er=0.1))
    with pytest.raises(UserError, match="have no scenario and seed in common"):
        compare_results(Database([tmp_path / "a"]), Database([tmp_path / "c"]), "a", "c")


def test_runs_on_other_data_are_no_pairs(tmp_path: Path) -> None:
    write(tmp_path / "a", record(scenario("a-ra"), er=0.1), record(scenario(), er=0.1))
    write(tmp_path / "b", record(scenario("a-ra"), er=0.1))
    write(tmp_path / "c", record(scenario("a-ra"), er=0.1, dataset_fingerprint="e" * 64))
    of_a, of_b, of_c = (Database([tmp_path / name]) for name in "abc")
    assert len(compare_results(of_a, of_b, "a", "b").only_a) == 1
    with pytest.raises(UserError, match="in common, so nothing can be paired"):
        compare_results(of_a, of_c, "a", "c")
