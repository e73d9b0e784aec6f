"""The example notebook runs, cell by cell, and shows what it says."""

from __future__ import annotations

import json
import linecache
from pathlib import Path
from typing import Any

import pytest

NOTEBOOK = Path(__file__).parents[2] / "leaderboard" / "example.ipynb"


def cells() -> list[dict[str, Any]]:
    """Those of the notebook."""
    data = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert (data["nbformat"], data["nbformat_minor"]) == (4, 5)
    found: list[dict[str, Any]] = data["cells"]
    return found


def test_it_is_kept_without_outputs() -> None:
    assert len({each["id"] for each in cells()}) == len(cells())
    assert all(each["outputs"] == [] for each in cells() if each["cell_type"] == "code")


def test_every_cell_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("agg")
    monkeypatch.chdir(NOTEBOOK.parent)
    scope: dict[str, Any] = {"__name__": "a_notebook"}
    for each in cells():
        if each["cell_type"] == "code":
            source, name = "".join(each["source"]), f"<{each['id']}>"
            linecache.cache[name] = (len(source), None, source.splitlines(True), name)
            exec(compile(source, name, "exec"), scope)
    assert scope["first"][:2] == ["poisonfrs", "pieck-uea"]
    assert [len(line.get_xdata()) >= 3 for line in scope["axes"].lines] == [True] * 4
    assert scope["failed"] == []
    rows = {row["entry"]: row for row in scope["mine"].to_pylist() if row["model"] is None}
    assert set(rows) == {"towards-the-longest", "a-hum"}
    own = rows["towards-the-longest"]
    assert (own["unverified"], own["rank"], rows["a-hum"]["rank"]) == (True, None, 1)
    assert own["score"] > 10, "it promotes"
    scope["plt"].close("all")
