from __future__ import annotations

import math
import random
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from records import defended, record, scenario, write

from fedbench.errors import ResultsError, UserError
from fedbench.leaderboard import Database, DefenseRow, picture, rank_defenses
from fedbench.leaderboard.picture import draw_defenses, front_points, label_offsets, view


@pytest.fixture
def ranked(tmp_path: Path) -> list[DefenseRow]:
    """Four defenses of three families; "dear" and "cheap" are on the front with "good", "poor" is not."""
    ends = {"good": (0.1, 0.58), "dear": (0.0, 0.3), "poor": (0.7, 0.55), "cheap": (0.6, 0.6)}
    families = {"good": "filter", "dear": "filter+aggregation", "poor": "clipping", "cheap": "clipping"}
    folder = tmp_path / "results"
    for seed in (0, 1):
        write(folder, record(scenario(), seed, hr=0.6), record(scenario("a-ra"), seed, er=0.8))
        for name, (er, hr) in ends.items():
            for attack in ("none", "a-ra"):
                write(folder, defended(name, attack, seed, family=families[name], er=er, hr=hr + seed / 100))
    return list(rank_defenses(Database([folder])))


def test_a_picture_names_every_ranked_defense(ranked: list[DefenseRow], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    png, svg = tmp_path / "new" / "d.png", tmp_path / "d.svg"
    draw_defenses(ranked, png, 10)
    assert png.read_bytes().startswith(b"\x89PNG")
    draw_defenses(ranked, svg, 30)
    first = svg.read_text(encoding="utf-8")
    assert all(f"<!-- {number}  {row.defense} -->" in first for number, row in enumerate(ranked, 1))
    assert "<!-- filter+aggregation -->" in first
    assert "<!-- ER@30 reduction (points) -->" in first
    assert "<!-- HR@20 loss, the larger of clean and attacked (points) -->" in first
    draw_defenses(ranked, svg, 30)
    assert svg.read_text(encoding="utf-8") == first


def test_each_track_has_a_panel_of_its_own(ranked: list[DefenseRow], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    svg = tmp_path / "d.svg"
    against = [replace(row, defense=f"{row.defense} again", goal="degrade") for row in ranked]
    draw_defenses([*ranked, *against], svg, 5)
    both = svg.read_text(encoding="utf-8")
    assert all(
        f"<!-- {number}  {row.defense} -->" in both for rows in (ranked, against) for number, row in enumerate(rows, 1)
    )
    assert both.count("<!-- Pareto front -->") == 2
    assert "<!-- ER@5 reduction (points) -->" in both
    assert "<!-- recovered HR@5 (% of the baseline) -->" in both
    draw_defenses(against, svg, 5)
    alone = svg.read_text(encoding="utf-8")
    assert "untargeted" in alone
    assert "ER@5" not in alone


def test_what_cannot_be_drawn_is_said_in_a_line(
    ranked: list[DefenseRow], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match=r"must end in \.png, \.svg or \.pdf"):
        draw_defenses(ranked, tmp_path / "d.jpeg", 10)
    pytest.importorskip("matplotlib")
    with pytest.raises(UserError, match="no defense has a rank"):
        draw_defenses([], tmp_path / "d.png", 10)
    (tmp_path / "file").write_text("")
    with pytest.raises(ResultsError, match="cannot write"):
        draw_defenses(ranked, tmp_path / "file" / "d.png", 10)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UserError, match=r"pip install '\.\[plot\]' in a checkout"):
        draw_defenses(ranked, tmp_path / "d.png", 10)


def test_one_wide_interval_leaves_the_points_their_room(ranked: list[DefenseRow]) -> None:
    """The axes span the means; what reaches further is cut at the edge, and an arrow says so."""
    pytest.importorskip("matplotlib")
    from matplotlib.figure import Figure

    assert view([10.0, 2.0]) == pytest.approx((-1.5, 11.5))
    assert view([-2.0, -4.0]) == pytest.approx((-4.6, 0.6))
    assert view([0.0]) == (-1.0, 1.0)
    wide, *others = picture._marks(ranked, "promote")
    estimate = replace(wide.loss, low=-70.0, high=90.0)
    for mark, arrows in (
        (replace(wide, loss=estimate), ["<", ">"]),
        (replace(wide, loss=replace(estimate, low=None)), []),
    ):
        axes = Figure().subplots()
        picture._draw_marks(axes, [mark, *others])
        assert axes.get_xlim() == pytest.approx(view([each.loss.mean for each in (wide, *others)]))
        assert axes.get_ylim() == pytest.approx(view([each.reduction.mean for each in (wide, *others)]))
        at = [line for line in axes.lines if len(line.get_ydata()) == 1 and line.get_ydata()[0] == wide.reduction.mean]
        assert [line.get_marker() for line in at if line.get_marker() in "<>"] == arrows


def test_the_front_rises_with_the_loss() -> None:
    assert front_points([(2.0, 70.0), (30.0, 80.0), (5.0, 10.0), (0.0, 20.0)]) == [
        (0.0, 20.0),
        (2.0, 70.0),
        (30.0, 80.0),
    ]
    assert front_points([(1.0, 5.0)]) == [(0.0, 0.0), (1.0, 5.0)]
    assert front_points([(3.0, -5.0)]) == [(0.0, 0.0)]
    assert front_points([(-1.0, 5.0), (-1.0, 5.0)]) == [(-1.0, 5.0)]


def test_the_front_that_is_drawn_is_that_of_the_table(ranked: list[DefenseRow]) -> None:
    assert {row.defense: row.front for row in ranked} == {"good": True, "cheap": True, "dear": True, "poor": False}
    drawn = front_points([(row.loss.mean, row.reduction.mean) for row in ranked if row.loss and row.reduction])
    on = [(row.loss.mean, row.reduction.mean) for row in ranked if row.front and row.loss and row.reduction]
    assert [point for point in drawn if point != (0.0, 0.0)] == sorted(on)


def test_labels_overlap_neither_points_nor_one_another() -> None:
    rng = random.Random(5)
    points = [(rng.gauss(200, 12), rng.gauss(150, 12)) for _ in range(20)] + [(200.0, 150.0), (200.0, 150.0)]
    texts = [str(n) for n in range(1, 22)] + ["none"]
    boxes = []
    for (x, y), (dx, dy), text in zip(points, label_offsets(points, texts), texts, strict=True):
        assert math.hypot(dx, dy) < 80
        boxes.append((x + dx, y + dy, 2.5 * len(text), 4.0))
    for n, (x, y, w, h) in enumerate(boxes):
        assert not any(abs(x - a) < w and abs(y - b) < h for a, b in points)
        assert not any(abs(x - a) < w + c and abs(y - b) < h + d for a, b, c, d in boxes[:n])
