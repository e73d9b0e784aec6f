"""The page's data and document: every number is the board's, and nothing in the records gets out of its place."""

from __future__ import annotations

import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from page_records import HOSTILE, with_doses
from records import record, scenario, write
from typer.testing import CliRunner

from fedbench.cli import app
from fedbench.leaderboard import Database
from fedbench.leaderboard.board import make_board
from fedbench.leaderboard.page import boards, page_data, page_html
from fedbench.leaderboard.page.boards import rounded, where_values_put_them
from fedbench.leaderboard.page.build import script_json
from fedbench.leaderboard.tracks import TARGETED

run = CliRunner().invoke


@pytest.fixture(scope="module")
def data(database: Database) -> dict[str, Any]:
    return page_data(database)


class Reader(HTMLParser):
    """What a browser would find: tags, attributes, and the texts of scripts and of the page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.scripts: list[str] = []
        self.text = ""
        self._inside = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        self._inside = tag
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts[-1] += data
        elif self._inside != "style":
            self.text += data


def same(shown: Any, computed: Any, data: dict[str, Any], ids: list[str], key: str = "") -> None:
    """Assert that a value of the page is the board's, to three decimals."""
    if isinstance(computed, dict) and set(computed) == {"mean", "low", "high", "n"}:
        same(shown, [computed[name] for name in ("mean", "low", "high", "n")], data, ids)
    elif isinstance(computed, dict):
        for name, value in computed.items():
            if name not in ("assumes", "goal"):
                same(shown[name], value, data, ids, name)
    elif key == "runs":
        assert [ids[place] for place in data["lists"][shown]] == computed
    elif key in ("missing", "apart") and isinstance(computed, list):
        assert data["texts"][shown] == computed
    elif isinstance(computed, list | tuple):
        assert len(shown) == len(computed)
        for one, other in zip(shown, computed, strict=True):
            same(one, other, data, ids)
    elif isinstance(computed, float):
        assert math.isclose(shown, computed, abs_tol=0.00051), key
    else:
        assert shown == computed, key


def run_ids(data: dict[str, Any]) -> list[str]:
    runs = data["runs"]
    return [
        f"{data['scenarios'][place]['id']}-s{seed}" for place, seed in zip(runs["scenario"], runs["seed"], strict=True)
    ]


@pytest.mark.parametrize("k", [pytest.param(10, marks=pytest.mark.slow), 30])
def test_every_number_is_the_boards(folder: Path, data: dict[str, Any], k: int) -> None:
    ids = run_ids(data)
    compared = 0
    for place, choice in enumerate(data["choices"]):
        if choice["same"] != place:
            continue
        only = [f"{name}={value}" for name, value in choice["only"].items()]
        board = make_board(Database([folder], k, only), by_model=False)
        shown = data["boards"][str(k)][place]
        for table in ("attacks", "defenses", "cells"):
            for prefix in ("", "untargeted_"):
                rows, computed = shown[prefix + table], board.data[prefix + table]
                if table != "cells":  # the page puts entries without a rank where their values are
                    computed = sorted(
                        computed, key=lambda row: [each[table[:-1]] for each in rows].index(row[table[:-1]])
                    )
                same(rows, computed, data, ids)
                compared += len(rows)
        for prefix, left, cost in (("", "er", "loss"), ("untargeted_", "left", "cost")):
            for row, under in zip(
                board.data.get(f"{prefix}attacks_under_defenses", []),
                shown[f"{prefix}attacks_under_defenses"],
                strict=True,
            ):
                same(under["left"], row[left], data, ids)
                assert list(under["under"]) == list(row["under"])
                for name, each in row["under"].items():
                    same(under["under"][name][:3], [each[left], each[cost], each["net"]], data, ids)
                    same(under["under"][name][3], each["runs"], data, ids, "runs")
        assert data["texts"][shown["warnings"]] == board.warnings
    assert compared > 50


def test_entries_without_a_rank_stand_where_their_values_put_them() -> None:
    rows = [
        {"rank": n, "er": {"mean": mean}} for n, mean in ((1, 60.0), (2, 20.0), (None, 70.0), (None, 30.0), (None, 5.0))
    ]
    shown = where_values_put_them([*rows, {"rank": None, "er": None}], TARGETED, "attacks")
    assert [row["er"] and row["er"]["mean"] for row in shown] == [70.0, 60.0, 30.0, 20.0, 5.0, None]


def test_boards_are_made_of_so_many_runs_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [{"only": {}, "same": 0, "runs": 10}, {"only": {"model": "mf"}, "same": 1, "runs": 6}]
    found += [{"only": {"dataset": "d"}, "same": 0, "runs": 10}, {"only": {"model": "ncf"}, "same": 3, "runs": 4}]
    for most, expected in (
        (9, ([0], [])),
        (19, ([0], [])),
        (20, ([0, 1, 3], [])),
        (29, ([0, 1, 3], [])),
        (30, ([0, 1, 3], [0])),
    ):
        monkeypatch.setattr(boards, "MOST_RUNS", most)
        made = boards.offered(found, 10, (5, 10))
        assert ([*made[10]], [*made[5]]) == expected, most


def test_findings_are_in_the_document_as_text_and_lead_to_their_runs(database: Database) -> None:
    shown = page_data(database, board=with_doses(database))
    ids = run_ids(shown)
    first = shown["findings"][0]
    assert {ids[place] for place in shown["lists"][first["runs"]]} == set(
        with_doses(database).data["findings"][0]["runs"]
    )
    reader = Reader()
    reader.feed(page_html(shown))
    assert first["text"] in reader.text
    assert first["detail"] in reader.text
    assert "But " in reader.text
    assert HOSTILE not in page_html(shown)
    assert reader.text.count(HOSTILE) == 3, "in the numbers of both findings, and in the second"


def test_a_page_without_findings_and_doses_has_no_place_for_them(database: Database) -> None:
    board = make_board(database)
    for key in ("findings", "doses", "prices"):
        board.data.pop(key, None)
    assert 'id="findings"' not in page_html(page_data(database, board=board))


def test_the_filters_know_every_choice_that_has_runs(database: Database, data: dict[str, Any]) -> None:
    for choice in data["choices"]:
        where = " and ".join(["attack <> 'none'", *(f"{name} = ?" for name in choice["only"])])
        assert database.rows(f"select count(*) as n from runs where {where}", list(choice["only"].values()))[0]["n"]
    chosen = [choice["only"] for choice in data["choices"]]
    assert {"dataset": "other-data"} in chosen
    assert {"dataset": "other-data", "model": "mf"} not in chosen
    both = {"dataset": "other-data", "model": "ncf"}
    places = [chosen.index(only) for only in (both, {"dataset": "other-data"}, {"model": "ncf"})]
    assert {data["choices"][place]["same"] for place in places} == {min(places)}


def test_every_number_leads_to_runs_with_their_records(database: Database, data: dict[str, Any]) -> None:
    ids = run_ids(data)
    assert ids == [row["run_id"] for row in database.rows("select run_id from runs order by run_id")]
    for row in database.rows("select run_id, status, er_20, hr_20, ranking from runs"):
        place = ids.index(row["run_id"])
        assert data["runs"]["status"][place] == row["status"]
        metrics = dict(zip(data["metric_names"], data["metrics"]["20"][place], strict=False))
        if row["status"] == "ok" and row["ranking"] == "sampled":
            assert metrics["er"] == pytest.approx(100 * row["er_20"], abs=0.0051)
            assert metrics["hr"] == pytest.approx(100 * row["hr_20"], abs=0.0051)


def test_curves_are_means_over_seeds_with_their_range(database: Database, data: dict[str, Any]) -> None:
    checked = 0
    for of, curve in zip(data["scenarios"], data["curves"], strict=True):
        if of["attack"] != "pieck-uea" or of["defense"] != "none":
            continue
        rows = database.rows("select er_10 from curves where scenario_id = ? and epoch = 30", [of["id"]])
        values = [100 * row["er_10"] for row in rows]
        mean, low, high = (data["series"][place][-1] for place in curve["er"])
        assert data["series"][curve["epochs"]] == [10, 20, 30]
        assert curve["seeds"] == len(values) == 3
        assert mean == pytest.approx(sum(values) / 3, abs=0.051)
        assert (low, high) == (pytest.approx(min(values), abs=0.051), pytest.approx(max(values), abs=0.051))
        checked += 1
    assert checked == 3


def test_a_curve_on_which_all_seeds_agree_is_kept_once(data: dict[str, Any]) -> None:
    clean = [curve for each, curve in zip(data["scenarios"], data["curves"], strict=True) if each["attack"] == "none"]
    assert clean
    assert all(len(curve["er"]) == 1 for curve in clean if "er_10" in curve)


def test_who_is_significantly_better_comes_from_the_boards_pairs(database: Database, data: dict[str, Any]) -> None:
    board = make_board(database)
    shown = data["boards"]["10"][0]["attacks"]
    beats = {row["attack"]: row["beats"] or 0 for row in board.data["attacks"]}
    assert {row["attack"]: len(data["texts"][row["above"]]) for row in shown} == beats
    assert any(data["texts"][row["above"]] for row in shown)
    assert data["boards"]["10"][0]["captions"]["attacks"] == board.sheets[0].caption


def test_cards_have_the_threat_model_and_the_parameters(data: dict[str, Any]) -> None:
    card = data["cards"]["attack"]["a-ra"]
    assert card["installed"]
    assert card["paper"]
    assert {"goal", "channel", "clients", "knowledge", "version", "parameters"} <= set(card)
    unknown = data["cards"]["defense"]["mean"]
    assert not unknown["installed"]
    assert unknown["family"] == "aggregation"
    assert unknown["knowledge"] == ["malicious_ratio"]


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return write(tmp_path / "few", record(scenario()), record(scenario("a-ra"), er=0.25), record(scenario("random")))


def test_equal_records_give_equal_pages(small: Path) -> None:
    assert page_html(page_data(Database([small]))) == page_html(page_data(Database([small])))


def test_data_goes_through_the_page_whole(data: dict[str, Any]) -> None:
    reader = Reader()
    reader.feed(page_html(data))
    assert len(reader.scripts) == 2
    assert json.loads(reader.scripts[0]) == json.loads(json.dumps(data))


def test_hostile_names_stay_text(data: dict[str, Any]) -> None:
    page = page_html(data)
    assert HOSTILE in json.dumps(data), "the records hold such a name"
    assert HOSTILE not in page
    assert "<img" not in page
    reader = Reader()
    reader.feed(page)
    assert reader.tags.count("script") == 2
    assert not [name for name, _ in reader.attributes if name.startswith("on")]
    assert "alert" not in reader.text


@pytest.mark.parametrize(
    "text", ["</script>", "<!--", "]]>", "&lt;", "\u2028\u2029", "\"'", "</ScRiPt ", "日本語", "\\u003c"]
)
def test_json_in_a_script_is_escaped_and_means_the_same(text: str) -> None:
    escaped = script_json({text: [text]})
    assert not re.search("[<>&\u2028\u2029]", escaped)
    assert json.loads(escaped) == {text: [text]}


def test_no_number_is_infinite_or_missing() -> None:
    with pytest.raises(ValueError, match="JSON"):
        script_json([math.nan])
    assert [rounded(value) for value in (math.nan, math.inf, -math.inf, None)] == [None] * 4
    assert [rounded(value) for value in (-0.0, 2.0, 1.23456)] == [0, 2, 1.235]


def test_the_page_asks_nothing_of_any_network(data: dict[str, Any]) -> None:
    page = page_html(data)
    reader = Reader()
    reader.feed(page)
    policy = next(value for name, value in reader.attributes if value and value.startswith("default-src"))
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy
    assert not {name for name, _ in reader.attributes} & {"src", "srcset", "action", "data", "style"}
    assert [value for name, value in reader.attributes if name == "href"] == ["#main"]
    assert re.findall(r"https?://[^\s\"')]+", page.replace("http://www.w3.org/2000/svg", "")) == []
    assert not re.search(
        r"@import|url\(|fetch\(|XMLHttpRequest|WebSocket|innerHTML|insertAdjacentHTML|\beval\b",
        reader.scripts[1] + page[: page.index("</style>")],
    )


def test_the_command_writes_the_page(small: Path, tmp_path: Path) -> None:
    shown = run(app, ["leaderboard", "--results", str(small), "--html", str(tmp_path / "made" / "page"), "--k", "20"])
    assert shown.exit_code == 0, shown.output
    path = tmp_path / "made" / "page" / "index.html"
    assert shown.stderr.splitlines() == ["making the page ..."]
    (line,) = shown.stdout.splitlines()
    assert re.fullmatch(rf"[0-9,]+ runs on .*: {re.escape(str(path))}", line)
    page = path.read_text(encoding="utf-8")
    assert f"fedbench leaderboard --results={small.name} --k=20 --html=DIR" in page
    assert str(small.parent) not in page, "where the records lie is nobody's business"
    assert '"start":{"k":20}' in page


def test_a_page_that_cannot_be_written_is_one_line(small: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    shown = run(app, ["leaderboard", "--results", str(small), "--html", str(tmp_path / "file")])
    assert shown.exit_code == 2
    started, failed = shown.stderr.splitlines()
    assert started == "making the page ..."
    assert failed.startswith("error: cannot write ")
