"""``fedbench data``: text, JSON, and mistakes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from fedbench.cli import app
from fedbench.cli.data import data_app
from fedbench.cli.output import print_json
from fedbench.errors import UserError


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FEDBENCH_CACHE", str(tmp_path / "home"))
    monkeypatch.delenv("FEDBENCH_DATA", raising=False)
    return tmp_path / "home"


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(data_app, [str(argument) for argument in arguments])


def answer(*arguments: str | Path) -> Any:
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    path = tmp_path / "shop.inter"
    path.write_text("user_id:token\titem_id:token\ttimestamp:float\nA\tX\t3\nA\tY\t1\nB\tX\t2\nB\tX\t4\nB\n")
    return path


def test_list_shows_every_dataset_with_its_size() -> None:
    result = run("list")
    assert result.exit_code == 0
    lines = {line.split()[0]: line for line in result.stdout.splitlines()}
    assert "1,000,000" in lines["longtail-huge"]
    assert "embedded" in lines["longtail-small"]
    assert "published-ijcai22" in lines["amazon-music"]
    assert lines["gowalla"].split()[-1] == "no"
    assert lines["splits"] == "splits of all: leave-one-out, 4:1, leave-one-out-validation, leave-one-out-random"


def test_list_as_json_holds_licences_and_splits() -> None:
    rows = {row["name"]: row for row in answer("list", "--json")}
    assert rows["ml-100k"]["interactions"] == 100_000
    assert rows["ml-100k"]["density"] == pytest.approx(0.063047, abs=1e-6)
    assert "no redistribution" in rows["ml-100k"]["licence"]
    assert rows["ml-100k"]["here"] == {}
    assert rows["longtail-small"]["aliases"] == ["longtail"]
    ours = ["leave-one-out", "4:1", "leave-one-out-validation", "leave-one-out-random"]
    assert rows["longtail-small"]["here"] == dict.fromkeys(ours, "embedded")
    assert rows["gowalla"]["splits"] == [*ours, "published"]


def test_info_counts_the_splits_that_are_here() -> None:
    details = answer("info", "longtail", "--json")["details"]
    assert [(one["split"], one["train"], one["test"]) for one in details] == [
        ("leave-one-out", 11_750, 300),
        ("4:1", 9_756, 2_294),
        ("leave-one-out-validation", 11_450, 300),
        ("leave-one-out-random", 11_750, 300),
    ]
    assert [one["valid"] for one in details] == [None, None, 300, None]
    text = run("info", "longtail").stdout
    assert "train 11,750, test 300" in text
    assert "synthetic" in text


def test_info_of_absent_data_tells_the_traps_and_how_to_get_them() -> None:
    text = run("info", "amazon-music").stdout
    assert "repeat 24,489 (user, item) pairs" in text
    assert "fedbench data import amazon-music FOLDER --split published-ijcai22" in " ".join(text.split())


def test_info_of_gowalla_tells_its_traps() -> None:
    text = " ".join(run("info", "gowalla").stdout.split())
    assert "leave-one-out is random by seed unless the check-ins are imported" in text
    assert "1,585,043" in text
    assert "neither size nor checksum" in text
    assert "loc-gowalla_totalCheckins.txt.gz" in text


def test_info_does_not_generate_the_huge_dataset(home: Path) -> None:
    assert answer("info", "longtail-huge", "--json")["details"] == []
    assert not home.exists()


def test_import_then_info_and_list(shop: Path) -> None:
    result = run("import", "my-shop", shop, "--skip-malformed")
    assert result.exit_code == 0, result.output
    assert "my-shop: 2 users, 2 items, 3 interactions (interactions, format inter)" in result.stdout
    assert "repeated rows: 1" in result.stdout
    assert result.stdout.splitlines()[-1] == "next: fedbench run --dataset my-shop --model mf --attack pieck-uea,a-hum"
    assert "malformed lines skipped: 1" in result.stdout
    details = answer("info", "my-shop", "--split", "leave-one-out", "--json")["details"]
    assert (details[0]["train"], details[0]["test"]) == (2, 1)
    assert details[0]["report"]["train_duplicates"] == 1
    assert details[0]["report"]["malformed"] == 1
    kept = answer("info", "my-shop", "--split", "leave-one-out", "--keep-duplicates", "--json")["details"]
    assert kept[0]["report"]["leaked"] == 1
    assert (details[0]["known_test"], kept[0]["known_test"]) == (0.0, kept[0]["report"]["leaked"] / kept[0]["test"])
    text = run("info", "my-shop", "--split", "leave-one-out", "--keep-duplicates").stdout
    assert "HR@K is at most 50.0 %" in text
    rows = {row["name"]: row for row in answer("list", "--json")}
    assert (rows["my-shop"]["interactions"], rows["my-shop"]["here"]["4:1"]) == (3, "imported")


def test_import_as_json(shop: Path) -> None:
    made = answer("import", "my-shop", shop, "--skip-malformed", "--json")
    assert made["summary"]["rows"] == 4
    read = "read user 'user_id:token', item 'item_id:token', time 'timestamp:float'"
    assert made["notes"] == ["imported from shop.inter", read]
    assert Path(made["path"]).is_file()


def test_import_shows_rows_counts_and_guesses_before_it_writes(tmp_path: Path, home: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("".join(f"2010-10-{n + 10},x,i{n % 3},u{n % 5},{n % 4}\n" for n in range(20)))
    with_columns = ("--user", "4", "--item", "3", "--rating", "5", "--time", "1")
    result = run("import", "mine", path, *with_columns, "--dry-run")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["user", "item", "rating", "time"]
    assert lines[1].split() == ["u0", "i0", "0", "2010-10-10", "00:00:00"]
    assert lines[6].startswith("mine: 5 users, 3 items, 15 interactions")
    assert "  note: read user column 4, item column 3, rating column 5, time column 1" in lines
    assert lines[-1] == "  nothing was written (--dry-run)"
    assert not home.exists()
    made = answer("import", "mine", path, *with_columns, "--dry-run", "--json")
    assert (made["written"], made["summary"]["rows"]) == (False, 20)
    assert not home.exists()


def test_what_was_dropped_is_shown_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    path.write_text("user,item,rating\n" + "".join(f"{u},{i},{(u + i) % 5}\n" for u in range(8) for i in range(8)))
    result = run("import", "mine", path, "--min-rating", "2", "--k-core", "4", "--sample-users", "5")
    assert result.exit_code == 0, result.output
    assert "mine: 5 users," in result.stdout
    dropped = [line.strip() for line in result.stdout.splitlines() if "dropped: " in line]
    assert [line.partition(": ")[2].split(" ", 2)[2] for line in dropped] == [
        "rated below 2, or not rated",
        "outside the 4-core",
        "not among the 5 of 8 users that were drawn, with all of 3 users",
    ]
    text = " ".join(run("info", "mine").stdout.split())
    for line in dropped:
        assert line.partition(": ")[2] in text
    told = answer("info", "mine", "--json")["import"]
    assert [each["rows"] for each in told["dropped"]] == [int(line.split()[1]) for line in dropped]
    assert told["notes"][0] == "imported from r.csv"
    assert answer("info", "longtail", "--json")["import"] is None


@pytest.fixture
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "r.csv").write_text("1,2\n1,3\n")
    return tmp_path


def test_tilde_is_the_home_folder(own_home: Path) -> None:
    assert answer("import", "mine", "~/r.csv", "--json")["summary"]["rows"] == 2


def test_tilde_is_the_home_folder_in_every_option(own_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = CliRunner().invoke(app, ["new", "attack", "mine", "--dir=~/made"])
    assert done.exit_code == 0, done.output
    assert (own_home / "made" / "mine.py").is_file()
    monkeypatch.setenv("FEDBENCH_RESULTS", "~/records")
    done = CliRunner().invoke(app, ["leaderboard"])
    assert f"no results in {own_home}/records" in done.stderr
    done = CliRunner().invoke(app, ["sql", "select '~/x'", "--results", "~"])
    assert f"no results in {own_home}" in done.stderr


def test_tilde_without_a_home_folder_is_one_line(own_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(own_home)
    done = CliRunner().invoke(app, ["new", "attack", "mine", "--dir", "~nobody-of-this-name/x"])
    assert (done.exit_code, done.stderr) == (
        2,
        "error: there is no home folder for ~nobody-of-this-name/x; set HOME, or write the path out.\n",
    )
    assert sorted(path.name for path in own_home.iterdir()) == ["r.csv"]


def test_home_that_is_read_only_is_one_line(own_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (own_home / "file").write_text("")
    monkeypatch.delenv("FEDBENCH_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(own_home / "file"))  # no folder can be made there, not even by root
    result = run("import", "mine", own_home / "r.csv")
    assert "cannot be written" in str(result.exception)
    assert "set FEDBENCH_CACHE to a folder that can" in str(result.exception)


def test_home_of_data_and_results_may_be_links(own_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (own_home / "real").mkdir()
    (own_home / "link").symlink_to(own_home / "real", target_is_directory=True)
    monkeypatch.setenv("FEDBENCH_CACHE", str(own_home / "link"))
    assert run("import", "mine", own_home / "r.csv").exit_code == 0
    assert (own_home / "real" / "datasets" / "mine" / "interactions.parquet").is_file()
    assert answer("info", "mine", "--json")["interactions"] == 2


@pytest.mark.parametrize("closed", [(2,), (0,), (0, 2)])
def test_streams_that_are_closed_lose_nothing(own_home: Path, closed: tuple[int, ...]) -> None:
    def close() -> None:
        for number in closed:
            os.close(number)

    command = [sys.executable, "-m", "fedbench", "data", "import", "mine", str(own_home / "r.csv")]
    done = subprocess.run(command, stdout=subprocess.PIPE, preexec_fn=close, timeout=120, text=True)
    assert done.returncode == 0
    assert done.stdout.splitlines()[-2].startswith("  kept in ")
    assert answer("info", "mine", "--json")["interactions"] == 2
    listed = subprocess.run([*command[:3], "list", "attacks"], stdout=subprocess.PIPE, preexec_fn=close, timeout=120)
    assert listed.returncode == 0


def test_json_is_strict(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"a": float("nan"), 1: [float("inf"), (2.5, None)], "b": {"c": -float("inf")}})
    shown = json.loads(capsys.readouterr().out, parse_constant=lambda text: pytest.fail(text))
    assert shown == {"a": None, "1": [None, [2.5, None]], "b": {"c": None}}


def test_help_of_import_names_the_kinds() -> None:
    text = " ".join(run("import", "--help").stdout.split())
    for kind in ("MovieLens", "Amazon 2014, 2018, 2023", "Last.fm", "Gowalla", "RecBole", "LightGCN", "parquet"):
        assert kind in text


def test_brackets_in_names_are_not_markup(tmp_path: Path) -> None:
    path = tmp_path / "[bold]x[red].txt"
    path.write_text("0 1 2\n")
    result = run("import", "mine", path)
    assert result.exit_code == 0
    assert "imported from [bold]x[red].txt" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["info", "ml100k"], "Did you mean 'ml-100k'"),
        (
            ["info", "ml-1m", "--split", "published"],
            "4:1, leave-one-out-validation, leave-one-out-random, published-icde24, published-ijcai22",
        ),
        (["info", "ml-1m", "--split", "4:1"], "fedbench data get ml-1m"),
        (["get", "steam"], "no stable download address"),
        (["get", "longtail"], "generated by fedbench"),
        (["import", "My Shop", "SHOP"], "must be lower-case"),
        (["import", "my-shop", "nowhere"], "no such file or folder"),
        (["import", "my-shop", "SHOP"], "shop.inter:6: 1 fields"),
        (["import", "my-shop", "SHOP", "--format", "xml"], "Unknown format 'xml'"),
        (["import", "my-shop", "SHOP", "--format", "ml-1m"], "shop.inter:1: 1 fields separated by"),
    ],
)
def test_mistake_is_one_line_with_exit_code_2(shop: Path, arguments: list[str], error: str) -> None:
    result = run(*[str(shop) if argument == "SHOP" else argument for argument in arguments])
    assert isinstance(result.exception, UserError)
    assert result.exception.exit_code == 2
    assert error in str(result.exception)
    assert "\n" not in str(result.exception)
    assert result.stdout == ""
