"""Curves and heat maps: the numbers behind them by hand, and what the pictures name."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from records import defended, record, scenario, untargeted, write

from fedbench.errors import UserError
from fedbench.leaderboard import Database
from fedbench.leaderboard.curves import CLEAN, curve_panels, draw_curves
from fedbench.leaderboard.dose_picture import draw_doses
from fedbench.leaderboard.heatmap import draw_heatmap, heat_grids
from fedbench.leaderboard.ranking_doses import dose_panels
from fedbench.pictures import lay_out


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two seeds of two attacks at two ratios with their clean twin; "drop" against one of them only."""
    out = tmp_path / "results"
    for seed, more in enumerate((0.0, 0.2)):
        write(out, record(scenario(), seed, er=[0.0, 0.0], hr=[0.4, 0.5]))
        write(out, record(scenario("a-ra"), seed, er=[0.2 + more, 0.4 + more], hr=[0.3, 0.5]))
        write(out, record(scenario("a-ra", malicious_ratio=0.01), seed, er=[0.1, 0.1], hr=[0.4, 0.5]))
        write(out, record(scenario("random"), seed, er=[0.0, 0.1], hr=[0.4, 0.5]))
        for attack in ("none", "a-ra", "random"):
            write(out, defended("mean", attack, seed, er=[0.0, 0.3], hr=[0.4, 0.45]))
            if attack != "random":
                write(out, defended("drop", attack, seed, er=[0.0, 0.05], hr=[0.4, 0.5]))
    return out


def test_curves_by_hand(folder: Path) -> None:
    first, second = curve_panels(Database([folder]))
    assert (first.title, second.title) == (
        "longtail-small, mf, 1 % malicious",
        "longtail-small, mf, 5 % malicious",
    )
    assert [line.name for line in first.lines] == [CLEAN, "a-ra"]
    clean, a_ra, random = second.lines
    assert (clean.name, a_ra.name, random.name) == (CLEAN, "a-ra", "random")
    assert (a_ra.epochs, a_ra.runs, a_ra.lost) == ([10, 20], 2, 0)
    assert a_ra.er == [pytest.approx((30, 20, 40)), pytest.approx((50, 40, 60))]
    assert a_ra.hr == [pytest.approx((30, 30, 30)), pytest.approx((50, 50, 50))]
    assert clean.hr == [pytest.approx((40, 40, 40)), pytest.approx((50, 50, 50))]


def test_curves_under_a_defense_have_its_own_twins(folder: Path) -> None:
    (panel,) = curve_panels(Database([folder]), "mean")
    assert [line.name for line in panel.lines] == [CLEAN, "a-ra", "random"]
    assert panel.lines[0].hr[-1] == pytest.approx((45, 45, 45))
    with pytest.raises(UserError, match="Unknown defense 'men'"):
        curve_panels(Database([folder]), "men")


def test_lost_runs_are_counted_and_not_drawn(folder: Path, tmp_path: Path) -> None:
    write(
        folder, record(scenario("a-ra"), 2, status="diverged", error="x"), record(scenario("a-ra"), 3, er=[0.9], hr=0.1)
    )
    panels = curve_panels(Database([folder]))
    line = next(line for line in panels[1].lines if line.name == "a-ra")
    assert (line.epochs, line.runs, line.lost) == ([10], 3, 1), "only where every run was evaluated"
    pytest.importorskip("matplotlib")
    draw_curves(panels, tmp_path / "c.svg", 10)
    assert "diverged or failed: 1 of a-ra (longtail-small, mf, 5 % malicious)" in (tmp_path / "c.svg").read_text()


def test_panels_that_differ_in_a_parameter_say_which(folder: Path) -> None:
    short = {"protocol_params": {"epochs": 7}}
    write(folder, record(scenario(**short), hr=0.5), record(scenario("a-ra", **short), er=0.5))
    titles = [panel.title for panel in curve_panels(Database([folder]))]
    assert "longtail-small, mf, 5 % malicious, epochs 7" in titles
    assert "longtail-small, mf, 5 % malicious, epochs 200" in titles


def test_untargeted_curves_are_of_quality_alone(tmp_path: Path) -> None:
    hr = [0.02, 0.03]
    write(tmp_path / "r", untargeted("none", 0, [0.02, 0.04]), untargeted("label-flip", 0, hr))
    (panel,) = curve_panels(Database([tmp_path / "r"]))
    clean, attacked = panel.lines
    assert (clean.er, attacked.er) == ([], [])
    assert attacked.hr == [pytest.approx((2, 2, 2)), pytest.approx((3, 3, 3))]
    pytest.importorskip("matplotlib")
    draw_curves([panel], tmp_path / "c.svg", 10)
    text = (tmp_path / "c.svg").read_text()
    assert "<!-- HR@10 (%) -->" in text
    assert "ER@10" not in text


def test_pictures_are_the_same_twice_and_name_what_they_show(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    database = Database([folder])
    texts = []
    for name in ("1.svg", "2.svg"):
        draw_curves(curve_panels(database), tmp_path / name, 10)
        draw_heatmap(heat_grids(database), tmp_path / f"h{name}")
        texts.append((tmp_path / name).read_text() + (tmp_path / f"h{name}").read_text())
    assert texts[0] == texts[1]
    for label in ("a-ra", "no attack", "ER@10 (%)", "HR@10 (%)", "drop", "longtail-small, mf, 1 % malicious"):
        assert f"<!-- {label} -->" in texts[0]


def test_heat_map_by_hand_and_its_gaps(folder: Path, tmp_path: Path) -> None:
    (grid,) = heat_grids(Database([folder]))
    assert (grid.measure, grid.attacks) == ("ER@10 left (%)", ["a-ra", "random"])
    by_defense = dict(zip(grid.defenses, zip(*grid.values, strict=True), strict=True))
    assert grid.defenses[0] == "none"
    assert by_defense["none"] == (pytest.approx(50), pytest.approx(10))
    assert by_defense["mean"] == (pytest.approx(30), pytest.approx(30))
    assert by_defense["drop"] == (pytest.approx(5), None), "never filled with a number"
    pytest.importorskip("matplotlib")
    draw_heatmap([grid], tmp_path / "h.svg")
    text = (tmp_path / "h.svg").read_text()
    assert text.count("<!-- 30 -->") == 2
    assert "Hatched: not run on all scenarios of the row." in text
    assert "<pattern" in text


def test_untargeted_heat_map(tmp_path: Path) -> None:
    ends = {"none": (0.04, 0.02), "mean": (0.03, 0.03)}
    for defense, hrs in ends.items():
        for attack, hr in zip(("none", "label-flip"), hrs, strict=True):
            write(tmp_path / "r", untargeted(attack, 0, hr, defense=defense))
    (grid,) = heat_grids(Database([tmp_path / "r"]))
    assert grid.measure == "HR@10 lost (%)"
    assert grid.values == [[pytest.approx(50), pytest.approx(25)]]


def test_nothing_to_draw(tmp_path: Path) -> None:
    write(tmp_path / "r", record(scenario(), hr=0.5))
    database = Database([tmp_path / "r"])
    with pytest.raises(UserError, match="no run here has an attack"):
        curve_panels(database)
    pytest.importorskip("matplotlib")
    with pytest.raises(UserError, match="no defended run here has an undefended twin"):
        draw_heatmap(heat_grids(database), tmp_path / "h.png")
    write(tmp_path / "r", record(scenario("a-ra"), status="failed", error="x"))
    with pytest.raises(UserError, match="no attacked run here ended well"):
        draw_curves(curve_panels(Database([tmp_path / "r"])), tmp_path / "c.png", 10)


def test_doses_are_drawn_with_the_attacks_that_were_asked_for(tmp_path: Path) -> None:
    runs = [
        replace(
            record(scenario(attack, malicious_ratio=ratio, target="per-seed"), seed, er=[er] * 4),
            num_users=1000,
            num_malicious=round(1000 * ratio),
        )
        for attack, ers in (("a-ra", (0.0, 0.4, 0.9)), ("random", (0.0, 0.0, 0.1)))
        for ratio, er in zip((0.01, 0.05, 0.1), ers, strict=True)
        for seed in range(3)
    ]
    panels = dose_panels(Database([write(tmp_path / "doses", *runs)]))
    out = tmp_path / "doses.svg"
    draw_doses(panels, out, 10, ["random"])
    first = out.read_text()
    assert "longtail-small mf (1,000 users)" in first
    assert "others" in first
    assert "half of the users" in first
    draw_doses(panels, out, 10, ["random"])
    assert out.read_text() == first
    draw_doses(panels, out, 10)
    assert "others" not in out.read_text()
    with pytest.raises(UserError, match="'p1' was not run at several doses; there are a-ra, random"):
        draw_doses(panels, out, 10, ["p1"])
    with pytest.raises(UserError, match="no attack was run at several doses"):
        draw_doses([], out, 10)


@pytest.mark.parametrize("width", [3.3, 7.0])
def test_a_picture_has_the_width_that_was_asked_for_and_letters_as_large_as_ever(folder: Path, width: float) -> None:
    panels, out = curve_panels(Database([folder])), folder / "curves.svg"
    draw_curves(panels, out, 10, width=width)
    assert f'width="{72 * width:g}pt"' in out.read_text()
    assert "Bands:" in out.read_text()
    letters = {float(size) for size in re.findall(r"scale\(([0-9.]+) -", out.read_text())}
    draw_curves(panels, out, 10)
    usual = {float(size) for size in re.findall(r"scale\(([0-9.]+) -", out.read_text())}
    assert min(letters) == min(usual) == 0.07, "7 points of a font that is drawn at 100"


def test_panels_lie_beside_each_other_where_the_width_has_room() -> None:
    def across(width: float | None, panels: int = 6) -> int:
        return lay_out(panels, 3, (4.2, 3.0), legend=1.8, margin=0.7, width=width, least=2.2).across

    assert [across(width) for width in (3.3, 5.0, 7.0, 9.0, None)] == [1, 2, 2, 3, 3]
    assert across(None, 2) == across(40.0, 2) == 2
    for width in (2.9, 41.0, float("nan")):
        with pytest.raises(UserError, match="must be 3 to 40 inches; a column of a paper has about 3"):
            across(width)
