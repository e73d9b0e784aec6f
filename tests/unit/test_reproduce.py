from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from records import record, scenario, write
from scipy import stats

from fedbench.leaderboard import Database
from fedbench.reproduce import compare, curve_rows, draw, markdown, prediction_interval, sparkline, verdict
from fedbench.suite import Expected, Planned


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
        (expected(value=0.60), [40.0, 50.0], "agrees"),  # the interval for one run is wide
        (expected("hr_10", value=0.50), [48.1], "agrees"),  # within 2 points
        (expected("hr_10", value=0.50), [47.9], "differs"),
        (expected(value=0.9, band=[0.2, 0.4]), [30.0], "agrees (band)"),
        (expected(value=0.3, band=[0.2, 0.4]), [41.0], "differs"),
        (expected(value=0.0, band=[0.0, 0.01]), [0.0], "agrees (band)"),
    ],
)
def test_verdicts(value: Expected, values: list[float], says: str) -> None:
    assert verdict(value, values) == says


def planned(*scenarios: Any, seeds: int = 2) -> list[Planned]:
    return [Planned(each, tuple(range(seeds))) for each in scenarios]


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
