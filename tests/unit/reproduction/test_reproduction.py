from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from records import record, scenario, untargeted, write
from scipy import stats

from fedbench.errors import UserError
from fedbench.leaderboard import Database
from fedbench.reproduction import (
    Curve,
    Report,
    cell_rows,
    compare,
    curve_rows,
    curve_table,
    draw,
    markdown,
    prediction_interval,
    sparkline,
    verdict,
)
from fedbench.scenarios.suite import Expected, Planned
from fedbench.scenarios.suite_file import ExpectedTable


def expected(metric: str = "er_10", value: float = 0.5, **more: Any) -> Expected:
    return Expected(where={"attack": "a-ra"}, metric=metric, value=value, source="A paper", **more)


def test_the_prediction_interval_is_that_of_one_new_run() -> None:
    low, high = prediction_interval([40.0, 50.0, 60.0]) or (0.0, 0.0)
    half = stats.t.ppf(0.975, 2) * 10 * (1 + 1 / 3) ** 0.5
    assert (low, high) == (pytest.approx(50 - half), pytest.approx(50 + half))
    assert prediction_interval([1.0]) is None


@pytest.mark.parametrize(
    ("value", "values", "says"),
    [
        (expected(value=0.50), [41.0], "agrees"),  # within 10 points
        (expected(value=0.52), [41.0], "differs"),
        (expected(value=0.52), [41.0, 41.1], "differs"),
        (expected(value=0.60), [40.0, 50.0], "not told apart"),  # the interval for one run is wide
        (expected("hr_10", value=0.50), [48.1], "agrees"),  # within 2 points
        (expected("hr_10", value=0.50), [47.9], "differs"),
        (expected(value=0.9, band=[0.2, 0.4]), [30.0], "agrees (band)"),
        (expected(value=0.3, band=[0.2, 0.4]), [41.0], "differs"),
        (expected(value=0.0, band=[0.0, 0.01]), [0.0], "agrees (band)"),
        (expected("hr_full_5", value=0.035), [2.5], "agrees"),  # within 2 points, which says nothing here
        (expected("hr_full_5", value=0.035, near=0.005), [2.9], "differs"),
        (expected("hr_full_5", value=0.035, near=0.005), [3.0], "agrees"),
        (expected("hr_full_5", value=0.035, near=0.001), [2.0, 5.0], "agrees"),  # in the interval for one run
        (expected("er_10", value=0.5, near=0.01), [48.0], "differs"),
        (expected("degradation_5", value=0.309), [26.0], "agrees"),  # within 5 points
        (expected("degradation_5", value=0.309), [25.8], "differs"),
        (expected("ndcg_degradation_5", value=-0.003), [4.6], "agrees"),
        (expected("ndcg_degradation_5", value=-0.003), [4.8], "differs"),
        (expected("degradation_5", value=0.0, near=0.02), [-2.1], "differs"),
    ],
)
def test_verdicts(value: Expected, values: list[float], says: str) -> None:
    assert verdict(value, values) == says


def test_what_only_the_interval_admits_does_not_count_as_agreeing(tmp_path: Path) -> None:
    write(tmp_path, record(scenario("a-ra"), 0, er=0.40), record(scenario("a-ra"), 1, er=0.50))
    for values, says in (
        ([0.45], "1 of 1 published values agree"),
        ([0.45, 0.60], "1 of 2 published values agree, 1 more is not told apart from ours"),
        ([0.60, 0.61], "0 of 2 published values agree, 2 more are not told apart from ours"),
    ):
        report = compare("", "", planned(scenario("a-ra")), [expected(value=v) for v in values], Database([tmp_path]))
        assert report.tally() == says
        assert f"{says}. To agree:" in markdown(report)


def planned(*scenarios: Any, seeds: int = 2) -> list[Planned]:
    return [Planned(each, tuple(range(seeds))) for each in scenarios]


def test_a_twin_is_of_no_published_value_that_does_not_name_its_attack(tmp_path: Path) -> None:
    write(tmp_path, record(scenario("a-ra"), 0, er=0.9), record(scenario("none"), 0, er=0.0))
    both = [*planned(scenario("a-ra"), seeds=1), Planned(scenario("none"), (0,), twin=True)]
    values = [
        Expected(where={"model": "mf"}, metric="er_10", value=0.9, source="A paper"),
        Expected(where={"attack": "none"}, metric="er_10", value=0.0, source="A paper"),
    ]
    report = compare("", "", both, values, Database([tmp_path]))
    assert [(cell.n, cell.mean) for cell in report.cells] == [(1, pytest.approx(90)), (1, pytest.approx(0))]


def test_a_cell_takes_the_runs_that_the_suite_asks_for(tmp_path: Path) -> None:
    write(tmp_path, *(record(scenario("a-ra"), seed, er=0.1 * seed) for seed in range(4)))
    report = compare("T", "P", planned(scenario("a-ra")), [expected(value=0.05)], Database([tmp_path]))
    (cell,) = report.cells
    assert (cell.n, cell.mean, cell.verdict) == (2, pytest.approx(5), "agrees")
    assert cell.published == pytest.approx(5)


@pytest.mark.parametrize(
    ("more", "mean"),
    [({}, 20), ({"statistic": "peak"}, 90), ({"statistic": "tail"}, 25), ({"at_epoch": 20}, 90)],
)
def test_the_statistic_is_the_one_that_was_published(tmp_path: Path, more: dict[str, Any], mean: float) -> None:
    write(tmp_path, record(scenario("a-ra"), er=[0.1, 0.9, 0.5, 0.4, 0.4, 0.4, 0.3, 0.2]))
    (cell,) = compare("", "", planned(scenario("a-ra")), [expected(**more)], Database([tmp_path])).cells
    assert cell.mean == pytest.approx(mean)


def losses(folder: Path, metric: str, **more: Any) -> tuple[float | None, int, str]:
    plan = planned(scenario("a-ra"))
    (cell,) = compare("", "", plan, [expected(metric, 0.5, **more)], Database([folder])).cells
    return cell.mean, cell.n, cell.verdict


def test_the_best_validation_statistic_is_taken_at_the_best_epoch(tmp_path: Path) -> None:
    write(
        tmp_path, untargeted("a-ra", 0, [0.1, 0.4, 0.2], [0.1, 0.3, 0.2]), untargeted("a-ra", 1, [0.6, 0.1], [0.2, 0.1])
    )
    assert losses(tmp_path, "hr_full_5", statistic="best-validation")[:2] == (pytest.approx(50), 2)
    assert losses(tmp_path, "ndcg_full_10", statistic="best-validation")[0] == pytest.approx(25)
    assert losses(tmp_path, "hr_full_5")[0] == pytest.approx(15)
    assert losses(tmp_path, "hr_full_5", statistic="best-validation", at_epoch=10)[0] == pytest.approx(35)
    assert losses(tmp_path, "er_10", statistic="best-validation") == (None, 0, "not run")


def test_a_degradation_is_relative_to_the_clean_twin_of_the_same_seed(tmp_path: Path) -> None:
    write(
        tmp_path,
        untargeted("none", 0, [0.40, 0.20], [0.2, 0.1]),
        untargeted("none", 1, [0.10, 0.50], [0.1, 0.2]),
        untargeted("a-ra", 0, [0.10, 0.15], [0.2, 0.1]),
        untargeted("a-ra", 1, [0.10, 0.25], [0.1, 0.2]),
    )
    assert losses(tmp_path, "degradation_5")[:2] == (pytest.approx((25 + 50) / 2), 2)
    assert losses(tmp_path, "ndcg_degradation_5")[0] == pytest.approx((25 + 50) / 2)
    assert losses(tmp_path, "degradation_20", statistic="best-validation")[0] == pytest.approx((75 + 50) / 2)
    assert losses(tmp_path, "degradation_5", at_epoch=10)[0] == pytest.approx((75 + 0) / 2)


def test_a_degradation_without_a_clean_twin_is_said(tmp_path: Path) -> None:
    write(tmp_path, untargeted("a-ra", 0, 0.02), untargeted("none", 1, 0.04))
    assert losses(tmp_path, "degradation_5") == (None, 0, "without twin")
    write(tmp_path, untargeted("none", 0, 0.0))
    assert losses(tmp_path, "degradation_5") == (None, 0, "without twin"), "nothing can be lost of nothing"


def test_runs_without_a_target_have_curves_of_quality_only(tmp_path: Path) -> None:
    write(tmp_path, untargeted("a-ra", 0, [0.02, 0.06]), untargeted("a-ra", 1, [0.04, 0.08]))
    value = expected("hr_full_5", 0.0712, near=0.005)
    report = compare("", "", planned(scenario("a-ra")), [value], Database([tmp_path]))
    (curve,) = report.curves
    assert (curve.er, curve.end, curve.peak, curve.n) == ([], None, None, 2)
    assert curve.hr == [pytest.approx(3), pytest.approx(7)]
    assert curve_rows(report)[0][1:] == ("-", "-", "-", "-", "-", "-", "-", "-", "7.0", "7.0 @ 20", "2", "0")
    assert cell_rows(report)[0][2:] == ("7.12", "7.00", "0.00 to 29.01", "2", "-0.12", "agrees")
    assert "(or within the value's own tolerance)" in markdown(report)


def test_curves_are_of_the_lists_that_published_values_are_about(tmp_path: Path) -> None:
    run = untargeted("a-ra", 0, [0.02, 0.06])
    for point in run.curve:
        point["hr_full_5"] /= 2
    write(tmp_path, run)
    both = [expected("hr_full_5"), expected("hr_full_10")]
    for values, k, hr in ((both[:1], 5, [1, 3]), (both, 10, [2, 6]), ([], 10, [2, 6])):
        report = compare("", "", planned(scenario("a-ra")), values, Database([tmp_path]))
        assert report.curves[0].hr == pytest.approx(hr)
        assert curve_table(report)[0][1] == f"HR@{k} over training"
        assert f"Mean HR@{k} over the runs" in markdown(report)


def test_what_has_no_score_is_said(tmp_path: Path) -> None:
    write(tmp_path, record(scenario("a-ra"), status="diverged"), record(scenario("random"), er=0.1))
    wanted = [expected(), Expected(where={"attack": "a-hum"}, metric="er_10", value=0.1, source="")]
    cells = compare("", "", planned(scenario("a-ra"), scenario("a-hum")), wanted, Database([tmp_path])).cells
    assert [cell.verdict for cell in cells] == ["diverged", "not run"]
    assert [cell.mean for cell in cells] == [None, None]


def test_values_outside_the_selection_are_left_out(tmp_path: Path) -> None:
    write(tmp_path, record(scenario("random"), er=0.1))
    assert not compare("", "", planned(scenario("random")), [expected()], Database([tmp_path])).cells


def test_curves_are_means_over_seeds_and_targets(tmp_path: Path) -> None:
    one, other = scenario("a-ra"), scenario("a-ra", target="random:1")
    write(
        tmp_path,
        record(one, 0, er=[0.0, 0.4], hr=[0.5, 0.4]),
        record(other, 0, er=[0.2, 0.8], hr=[0.7, 0.6]),
        record(other, 1, status="failed"),
    )
    report = compare("T", "P", planned(one, other), [], Database([tmp_path]))
    (curve,) = report.curves
    assert curve.epochs == [10, 20]
    assert curve.er == [pytest.approx(10), pytest.approx(60)]
    assert curve.hr == [pytest.approx(60), pytest.approx(50)]
    assert curve.end is not None
    assert (curve.end.mean, curve.median, curve.n, curve.scenarios, curve.failed) == (
        pytest.approx(60),
        pytest.approx(60),
        2,
        2,
        1,
    )
    (row,) = curve_rows(report)
    assert row[1] == "▁▅"
    assert row[10] == "60.0 @ 10"


def test_sparklines_scale_with_percent() -> None:
    assert sparkline([0, 50, 100]) == "▁▅█"
    assert len(sparkline(list(range(100)))) <= 24


def test_the_report_is_written_with_its_picture(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    write(tmp_path / "results", record(scenario("a-ra"), er=[0.1, 0.5]), record(scenario("a-ra"), 1, er=[0.1, 0.7]))
    report = compare(
        "A title [1]", "A paper <b>", planned(scenario("a-ra")), [expected()], Database([tmp_path / "results"])
    )
    draw(report, str(tmp_path / "x.png"))
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")
    text = markdown(report, "x.png")
    assert text.startswith("# A title \\[1\\]\n\nA paper &lt;b&gt;")
    assert "1 of 1 published values agree" in text
    assert "](x.png)" in text


def test_a_table_can_state_its_tolerance_and_a_value_its_own() -> None:
    table = ExpectedTable(source="", near=0.01, columns=["hr_full_5"], rows=[[0.2], [{"value": 0.3, "near": 0.02}]])
    assert [value.near for value in table.cells("t")] == [0.01, 0.02]
    options = {"source": "", "columns": ["hr_full_5", "ndcg_full_5", "hr_full_10"], "rows": [[0.2, 0.1, 0.3]]}
    by_metric = ExpectedTable(near={"hr_full_5": 0.02, "ndcg_full_5": 0.01}, **options)
    assert [value.near for value in by_metric.cells("t")] == [0.02, 0.01, None]
    with pytest.raises(UserError, match="near of hr_full_20, which is no column of the table"):
        list(ExpectedTable(near={"hr_full_20": 0.02}, **options).cells("t"))


@pytest.mark.parametrize(
    ("metric", "wrong"),
    [
        ("hr_full_5", {"value": -0.01}),
        ("hr_full_5", {"band": [-0.01, 0.1]}),
        ("hr_full_5", {"near": 0.0}),
        ("degradation_5", {"statistic": "peak"}),
        ("degradation_30", {}),
    ],
)
def test_impossible_expectations_are_refused(metric: str, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        expected(metric, **wrong)
    assert expected("degradation_5", value=-0.003, band=[-0.02, 0.01]).value == -0.003


def test_where_nothing_is_promoted_the_curves_are_of_hit_ratios() -> None:
    def curve(name: str, hr: list[float | None], er: list[float]) -> Curve:
        epochs = list(range(1, len(hr) + 1))
        return Curve(name, "d", "m", "a", epochs, er, hr, None, None, None, None, 2, 1, 0, 0)

    quality = Report("t", "p", [], [curve("x", [1.0, 4.0, 3.0, 2.0], []), curve("y", [], [])])
    headings, rows = curve_table(quality)
    assert headings[1] == "HR@10 over training"
    assert rows[0] == ("x", "▃█▇▅", "1.00", "4.00", "3.00", "2.00", "4.00 @ 2", "2", "0")
    assert rows[1] == ("y", *["-"] * 6, "2", "0")
    assert "Mean HR@10 over the runs" in markdown(quality)
    exposed = Report("t", "p", [], [curve("x", [1.0], [50.0])])
    assert curve_table(exposed)[0][1] == "ER@10 over training"


def test_an_onset_counts_the_attacks_epochs_until_everybody_is_shown_the_target(tmp_path: Path) -> None:
    late = {"protocol_params": {"attack_start": 15}}
    shows = scenario("a-ra", **late)
    write(tmp_path, record(shows, 0, er=[0.0, 0.98, 0.99, 0.1]), record(shows, 1, er=[0.0, 1.0, 1.0, 1.0]))
    for value, says in ((11, "agrees"), (12.1, "not told apart"), (200, "differs")):
        near = expected("er_10_onset", value, near=1)
        (cell,) = compare("", "", planned(shows), [near], Database([tmp_path])).cells
        assert (cell.mean, cell.published, cell.n, cell.verdict) == (11, value, 2, says)  # the mean of 16 and 6
    report = compare("", "", planned(shows), [expected("er_10_onset", 12)], Database([tmp_path]))
    assert report.k == 10
    assert "Percent but for onsets" in markdown(report)
    assert cell_rows(report)[0][1:4] == ("er_10_onset", "12.0", "11.0")


def test_an_onset_that_a_run_does_not_have_is_no_mean(tmp_path: Path) -> None:
    write(tmp_path, record(scenario("a-ra"), 0, er=[0.0, 1.0]), record(scenario("a-ra"), 1, er=[0.0, 0.5]))
    report = compare("", "", planned(scenario("a-ra")), [expected("er_10_onset", 9)], Database([tmp_path]))
    assert (report.cells[0].mean, report.cells[0].verdict, report.missing) == (None, "never in 1 of 2", 0)


def test_the_spread_of_quality_and_detection_are_columns_of_the_record(tmp_path: Path) -> None:
    images = {"images": {"blur_std": 800.0, "detection_recall": 0.7, "detection_false_positive_rate": 0.0}}
    write(tmp_path, record(scenario("a-ra"), **images))
    values = [expected("blur_std", 880.0), expected("blur_std", 2444.68), expected("detection_recall", 0.72)]
    values.append(expected("detection_false_positive_rate", 0.0))
    report = compare("", "", planned(scenario("a-ra"), seeds=1), values, Database([tmp_path]))
    assert [(cell.mean, cell.verdict) for cell in report.cells] == [
        (800, "agrees"), (800, "differs"), (pytest.approx(70), "agrees"), (0, "agrees"),
    ]  # fmt: skip
    assert cell_rows(report)[1][2:4] == ("2444.7", "800.0")
    assert "Percent but for standard deviations over the images (blur, brisque)." in markdown(report)


def test_a_value_that_cannot_be_run_here_is_shown_and_not_counted(tmp_path: Path) -> None:
    write(tmp_path, record(scenario("a-ra"), 0, er=0.5))
    elsewhere = Expected(where={"dataset": "x"}, metric="er_10", value=1.0, source="P", absent="it was never published")
    report = compare("", "", planned(scenario("a-ra"), seeds=1), [expected(), elsewhere], Database([tmp_path]))
    assert report.cells[1].verdict == "not here: it was never published"
    assert report.tally() == "1 of 1 published values agree; 1 more cannot be run here"


def test_the_seconds_of_a_defense_are_those_of_a_round_beyond_the_undefended(tmp_path: Path) -> None:
    defended = scenario("a-ra", defense="median")
    write(
        tmp_path,
        record(defended, seconds_train=30.0, rounds=100),
        record(scenario("a-ra"), seconds_train=5.0, rounds=20),
    )
    values = [expected("defense_seconds", 0.054), expected("defense_seconds", 1.13)]
    report = compare("", "", planned(defended, seeds=1), values, Database([tmp_path]))
    assert [(cell.mean, cell.verdict) for cell in report.cells] == [
        (pytest.approx(0.05), "agrees"), (pytest.approx(0.05), "differs"),
    ]  # fmt: skip
    assert cell_rows(report)[0][2:4] == ("0.0540", "0.0500")
    assert "Percent but for seconds of a round (defense_seconds)." in markdown(report)
    alone = compare("", "", planned(scenario("a-ra", defense="krum"), seeds=1), values[:1], Database([tmp_path]))
    assert alone.cells[0].verdict == "not run"


@pytest.mark.parametrize(
    ("metric", "more", "says"),
    [
        ("embedding_kl", {"value": 0.1}, "no record has embedding_kl: say why in absent"),
        ("er_10", {"value": 1.1}, "less than or equal to 1"),
        ("er_10", {"value": 0.5, "near": 1.5}, "less than or equal to 1"),
        ("blur_std", {"value": -1.0}, "greater than or equal to 0"),
        ("degradation_5", {"value": -1.5}, "greater than or equal to -1"),
        ("brisque_std", {"value": 9.0, "statistic": "peak"}, "measured at the end"),
    ],
)
def test_published_values_that_cannot_be(metric: str, more: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        expected(metric, **more)
