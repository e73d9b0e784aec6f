from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from records import defended, record, scenario, untargeted, write
from typer.testing import CliRunner

from fedbench.cli import app
from fedbench.leaderboard.database import VIEWS
from fedbench.leaderboard.sheets import Sheet, columns_that_fit
from fedbench.runs.results import path_of

run = CliRunner().invoke


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return write(
        tmp_path / "results",
        record(scenario(), hr=0.5),
        record(scenario("a-ra"), er=0.25, hr=0.5),
        record(scenario("random"), er=0.0, hr=0.5),
    )


def test_the_leaderboard_is_shown_and_written(results: Path, tmp_path: Path) -> None:
    out = tmp_path / "made" / "LEADERBOARD.md"
    shown = run(app, ["leaderboard", "--results", str(results), "--out", str(out)])
    assert shown.exit_code == 0
    assert "Attacks by ER@10" in shown.stdout
    assert "a-ra" in shown.stdout
    text = out.read_text(encoding="utf-8")
    assert "| 1-2 | a-ra | 25.0 |" in text
    assert record(scenario("a-ra")).run_id[:8] in text


def test_a_brief_board_is_a_screenful_that_ends_in_what_it_says(results: Path) -> None:
    lines = run(app, ["leaderboard", "--results", str(results), "--brief"]).stdout.splitlines()
    assert [line for line in lines if line.startswith("Attacks")] == ["Attacks by ER@10, without a defense"]
    assert (
        lines[-1]
        == "Strongest attack without a defense: a-ra, ER@10 25.0; 0 of the other 1 ranked attack told apart from it."
    )
    assert len(lines) < 24


def test_a_narrow_screen_gets_fewer_columns_and_whole_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write(tmp_path, *(record(scenario("explicit-boost"), seed, er=0.99 + seed / 100) for seed in range(2)))
    monkeypatch.setattr("rich.console.Console.width", 80)
    narrow = run(app, ["leaderboard", "--results", str(folder)]).stdout
    assert ["1", "explicit-boost", "99.5", "[93.1,", "100.0]"] in [line.split()[:5] for line in narrow.splitlines()]
    assert "scenarios" not in narrow
    monkeypatch.setattr("rich.console.Console.width", 160)
    assert "scenarios" in run(app, ["leaderboard", "--results", str(folder)]).stdout


def test_a_screen_gets_the_columns_that_it_has_room_for() -> None:
    headings = ("rank", "defense", "net", "a b", "knows", "failed")
    sheet = Sheet("", headings, [("1", "x" * 50, "-1.0", "100.0", "y" * 9, "0")], spare=("a b", "knows", "rank"))
    shown = {width: [headings[n] for n in columns_that_fit(sheet, width)] for width in (50, 49, 43, 42, 31, 1)}
    assert shown[50] == ["rank", "defense", "net", "a b", "knows"]  # 4, 20, 4, 5, 9 and four gaps of 2
    assert shown[49] == shown[43] == ["rank", "defense", "net", "knows"]
    assert shown[42] == ["rank", "defense", "net"]
    assert shown[31] == shown[1] == ["defense", "net"]


@pytest.fixture
def defended_results(results: Path) -> Path:
    return write(
        results,
        *(defended("mean", attack, er=0.1, hr=0.48, family="aggregation") for attack in ("none", "a-ra", "random")),
        *(defended("drop", attack, er=0.2, hr=0.5, assumes="a half") for attack in ("none", "a-ra", "random")),
    )


def test_defenses_are_shown_and_drawn(defended_results: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    out, picture = tmp_path / "L.md", tmp_path / "made" / "d.svg"
    arguments = ["leaderboard", "--results", str(defended_results), "--out", str(out), "--picture", str(picture)]
    shown = run(app, arguments)
    assert shown.exit_code == 0, shown.output
    assert picture.read_text(encoding="utf-8").count("drop") >= 1
    assert f"written to {picture}" in shown.stderr
    assert "Attacks under defenses" in shown.stdout
    assert "attack by defense" not in shown.stdout, "the matrix is too wide for a screen"
    assert "a half" not in shown.stdout
    text = out.read_text(encoding="utf-8")
    assert "| a half |" in text
    assert "## ER@10 on mf, attack by defense" in text


def test_who_asks_for_a_defense_sees_the_tables_of_defenses_first(defended_results: Path) -> None:
    arguments = ["leaderboard", "--results", str(defended_results)]
    for more, first in (([], "Attacks by ER@10"), (["--only", "defense=drop"], "Defenses by ER@10 reduction")):
        lines = run(app, [*arguments, *more]).stdout.splitlines()
        titles = [line for line in lines if line.startswith(("Attacks by", "Defenses by", "Attacks under"))]
        assert titles[0].startswith(first)
        assert sorted(title[:12] for title in titles) == ["Attacks by E", "Attacks unde", "Defenses by "]


def test_both_tracks_are_shown_and_drawn(defended_results: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    ends = {"none": (0.04, 0.02), "mean": (0.03, 0.03), "drop": (0.039, 0.035)}
    for defense, hrs in ends.items():
        for attack, hr in zip(("none", "popular"), hrs, strict=True):
            one = untargeted(attack, 0, hr, defense=defense, fields={"target": "random:3"})
            write(tmp_path / "untargeted", one)
    out, picture = tmp_path / "L.md", tmp_path / "d.svg"
    folders = ["--results", str(defended_results), "--results", str(tmp_path / "untargeted")]
    shown = run(app, ["leaderboard", *folders, "--out", str(out), "--picture", str(picture)])
    assert shown.exit_code == 0, shown.output
    assert "Attacks by ER@10, without a defense" in shown.stdout
    assert "Untargeted: defenses by HR@10 recovered minus cost" in shown.stdout
    assert "attack by defense" not in shown.stdout
    assert "## Untargeted: HR@10 loss % left on mf, attack by defense" in out.read_text(encoding="utf-8")
    assert "ER@10 reduction" in picture.read_text(encoding="utf-8")
    assert "recovered HR@10" in picture.read_text(encoding="utf-8")
    query = "select attack, round(hr_loss, 6) as loss from untargeted_attacks where defense = 'none'"
    answer = run(app, ["sql", query, *folders, "--csv"])
    assert answer.stdout.split() == ["attack,loss", "popular,0.5"]


def test_a_picture_that_cannot_be_drawn_is_one_line(results: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    for name, message in (("d.gif", "must end in .png, .svg or .pdf"), ("d.png", "no defense has a rank")):
        shown = run(app, ["leaderboard", "--results", str(results), "--picture", str(tmp_path / name)])
        assert shown.exit_code == 2
        assert message in shown.stderr
        assert shown.stderr.count("\n") == 1
        assert not (tmp_path / name).exists()


def test_json_holds_all_run_ids(results: Path) -> None:
    data = json.loads(run(app, ["leaderboard", "--results", str(results), "--json"]).stdout)
    assert data["attacks"][0]["runs"] == [record(scenario("a-ra")).run_id]


def test_the_usual_folder_comes_from_the_environment(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDBENCH_RESULTS", str(results))
    assert run(app, ["leaderboard"]).exit_code == 0


def test_a_truncated_file_is_named_and_the_rest_counts(results: Path) -> None:
    broken = path_of(results, scenario("random").id, 0)
    broken.write_bytes(broken.read_bytes()[:100])
    shown = run(app, ["leaderboard", "--results", str(results)])
    assert shown.exit_code == 0
    assert broken.name in shown.stderr
    assert "2 runs" in shown.stdout


@pytest.mark.parametrize(
    "command",
    [
        ["leaderboard"],
        ["sql", "select attack, model, error from runs"],
        ["compare", "--kind=attack", "a-ra", "shown \x1b[2J\u202e"],
        ["compare", "--kind=attack", "a-ra", "not there \x1b[2J"],
    ],
    ids=lambda command: " ".join(command[:1]),
)
def test_no_text_of_a_record_steers_the_terminal(tmp_path: Path, command: list[str]) -> None:
    evil = "shown \x1b[2J\u202e"
    write(
        tmp_path,
        record(scenario(), hr=0.5),
        record(scenario("a-ra"), er=0.5),
        record(scenario("a-ra", model="ncf"), status="failed", error=evil, model=evil),
        record(scenario("a-hum"), er=0.4, attack=evil),
    )
    shown = run(app, [*command, "--results", str(tmp_path)])
    assert all(each.isprintable() for each in shown.output.replace("\n", "")), shown.output
    assert "\\x1b[2J" in shown.output


def test_no_results_is_one_line(tmp_path: Path) -> None:
    shown = run(app, ["leaderboard", "--results", str(tmp_path)])
    assert shown.exit_code == 2
    assert shown.stderr.count("\n") == 1
    assert "fedbench run" in shown.stderr


def test_sql(results: Path) -> None:
    query = "select attack, er_10 from runs order by attack"
    shown = run(app, ["sql", query, "--results", str(results), "--csv"])
    assert shown.stdout_bytes == b"attack,er_10\na-ra,0.25\nnone,0.0\nrandom,0.0\n"
    as_json = run(app, ["sql", query, "--results", str(results), "--json"])
    assert json.loads(as_json.stdout)[0] == {"attack": "a-ra", "er_10": 0.25}
    assert "0.25" in run(app, ["sql", query, "--results", str(results)]).stdout
    twice = run(app, ["sql", "select 1 as a, 2 as a", "--results", str(results), "--csv"])
    assert twice.stdout.split() == ["a,a", "1,2"]
    wrong = run(app, ["sql", "select nothing from nowhere", "--results", str(results)])
    assert wrong.exit_code == 2
    assert wrong.stderr.startswith("error: SQL: ")
    assert wrong.stderr.endswith(f"nowhere does not exist! The views are {', '.join(VIEWS)}.\n")
    for view in VIEWS:
        assert run(app, ["sql", f"select count(*) from {view}", "--results", str(results)]).exit_code == 0
    assert wrong.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "query",
    ["drop table runs", "create table a as select 1", "set threads = 1", "select 1; select 2", "", "/* nothing */"],
)
def test_sql_takes_one_query_that_reads(results: Path, query: str) -> None:
    refused = run(app, ["sql", query, "--results", str(results)])
    assert refused.exit_code == 2
    assert refused.stdout == ""
    assert refused.stderr.startswith(
        "error: SQL: only one query that reads can be asked (SELECT, DESCRIBE, EXPLAIN), not "
    )
    assert refused.stderr.count("\n") == 1


def test_sql_describes_and_explains(results: Path) -> None:
    assert "scenario_id" in run(app, ["sql", "describe runs", "--results", str(results)]).stdout
    assert run(app, ["sql", "explain select 1", "--results", str(results)]).exit_code == 0


def test_sql_fits_the_screen(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rich.console.Console.width", 80)
    wide = "select * from runs where attack "
    one = run(app, ["sql", wide + "= 'a-ra'", "--results", str(results)])
    lines = [line.split() for line in one.stdout.splitlines()]
    assert lines[0] == ["column", "row", "1"]
    assert ["attack", "a-ra"] in lines
    assert max(map(len, one.stdout.splitlines())) <= 80
    assert "Long values are cut; --csv or --json gives everything." in one.stderr
    many = run(app, ["sql", wide + "is not null", "--results", str(results)])
    assert len(many.stdout.splitlines()) == 4
    assert re.match(r"\d of \d+ columns fit; name those that you want, or --csv", many.stderr)
    narrow = run(app, ["sql", "select attack from runs", "--results", str(results)])
    assert (len(narrow.stdout.splitlines()), narrow.stderr) == (4, "")
    named = ["scenario_id", "baseline_id", "attack", "model_version", "scenario_json"]
    some = run(app, ["sql", f"select {', '.join(named)} from runs, range(2)", "--results", str(results)])
    assert some.stdout.splitlines()[0].split() == named
    assert max(map(len, some.stdout.splitlines())) <= 80
    assert "columns fit" not in some.stderr


def test_packed_results_give_the_same_leaderboard(results: Path, tmp_path: Path) -> None:
    file = tmp_path / "published" / "all.parquet"
    packed = run(app, ["pack", str(file), "--results", str(results)])
    assert packed.exit_code == 0
    assert "3 records" in packed.stderr
    one, two = (run(app, ["leaderboard", "--results", str(folder), "--json"]) for folder in (results, file.parent))
    assert json.loads(one.stdout) == json.loads(two.stdout)


SUITE = """
name = "mine"
version = 1
title = "Mine"
seeds = 1
[defaults]
dataset = "longtail-small"
malicious_ratio = 0.05
protocol_params = { epochs = 2 }
[matrix]
model = ["mf"]
attack = ["a-ra"]
[[expected]]
where = { attack = "a-ra" }
metric = "er_10"
value = 0.0
band = [0.0, 1.0]
source = "nobody"
"""


def test_reproduce_runs_what_is_missing_and_compares(tmp_path: Path) -> None:
    suite = tmp_path / "mine.toml"
    suite.write_text(SUITE)
    folder, out = tmp_path / "results", tmp_path / "report.md"
    before = run(app, ["reproduce", str(suite), "--results", str(folder), "--no-run"])
    assert before.exit_code == 2
    options = ["--results", str(folder), "--jobs", "1", "--out", str(out)]
    shown = run(app, ["reproduce", str(suite), *options])
    assert shown.exit_code == 0, shown.output
    assert "1 of 1 published values agree" in shown.stdout
    assert "agrees" in out.read_text(encoding="utf-8")
    assert len(list(folder.glob("*.parquet"))) == 2
    again = run(app, ["reproduce", str(suite), "--results", str(folder), "--no-run"])
    assert "1 of 1 published values agree" in again.stdout


def test_whoever_reads_may_go() -> None:
    """As `| head` does: the command ends without a word, and not as if it had gone well."""
    ours, theirs = os.pipe()
    os.close(ours)
    command = [sys.executable, "-m", "fedbench", "show", "pieck-uea"]
    done = subprocess.run(command, stdout=theirs, stderr=subprocess.PIPE, check=False)
    os.close(theirs)
    assert (done.returncode, done.stderr) == (1, b"")
