"""The re-run: what it finds that no reading could, and what it keeps from the code that it runs."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from bundles import Submitted, edited, rows_of, sealed, unpacked, with_code, with_curve
from typer.testing import CliRunner

import fedbench
from fedbench import plugins
from fedbench.cli import app
from fedbench.errors import UserError
from fedbench.evaluation.displacement import displacement_ratio
from fedbench.runs.results import write_record
from fedbench.submission import repeat, rerun
from fedbench.submission.bundle import entry, make_bundle
from fedbench.submission.claim import claim
from fedbench.submission.compare import Compared, reasons
from fedbench.submission.draw import drawn
from fedbench.submission.records import Row
from fedbench.submission.report import Check
from fedbench.submission.standin import standing_in
from fedbench.submission.verify import verify


def run_verify(folder: Path, data: bytes, *options: str) -> Any:
    bundle = folder / "b.zip"
    bundle.write_bytes(data)
    return CliRunner().invoke(app, ["verify", str(bundle), *options])


def test_the_truth_is_confirmed(submitted: Submitted, tmp_path: Path, known: list[str]) -> None:
    run = run_verify(tmp_path, submitted.data, "--yes", "--json", "--seed", "7")
    assert run.exit_code == 0, run.stderr
    data = json.loads(run.stdout)
    assert (data["verified"], data["draw"], data["runs"], data["repeated"]) == (True, 7, 8, 8)
    assert data["found_with"] == {"1": 1.0, "3": 1.0}
    assert sorted(known) == sorted({each["run"] for each in data["compared"]})
    metrics = {each["metric"] for each in data["compared"]}
    assert {"er_10", "er_10_peak", "er_10_tail", "hr_10", "ndcg_full_20", "er_10@40", "rounds"} <= metrics
    assert all(each["found"] == [each["stated"]] for each in data["compared"])


def test_the_verdict_says_what_the_draw_would_have_found(
    submitted: Submitted, tmp_path: Path, known: list[str]
) -> None:
    run = run_verify(tmp_path, submitted.data, "--yes", "--runs", "3")
    assert run.exit_code == 0, run.stderr
    assert len(known) == 3
    assert run.stdout.splitlines()[-1] == (
        "verified: 3 of 8 runs repeated; of forged runs, the draw would have hit 1 with 37.5 %, 3 with 82.1 %. Times are only"
        " claimed"
    )


def test_a_terminal_is_shown_how_long_it_takes(
    submitted: Submitted, tmp_path: Path, known: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    run = run_verify(tmp_path, submitted.data, "--yes", "--runs", "2", "--jobs", "1")
    assert run.exit_code == 0, run.stderr
    assert re.search(r"repeating .*\d:\d\d:\d\d", run.stderr)
    assert "repeating 2 runs of 8, about " in run.stderr
    assert len(known) == 2


def better(row: Row) -> None:
    """In the end four fifths of the users are shown the target, these and no others, and the curve rises to them."""
    (places,) = row["target_places"]
    users = [user for user, place in enumerate(places) if place != "."]
    shown = set(users[: round(0.8 * len(users))])
    row["target_places"] = ["".join("0" if u in shown else p if p == "." else "-" for u, p in enumerate(places))]
    most = len(shown) / len(users)
    ks = (5, 10, 20, 30)
    with_curve(row, lambda point: point.update({f"er_{k}": most * (1 + 3 * point["epoch"] / 50) / 4 for k in ks}))


def test_a_coherent_forgery_is_found(submitted: Submitted, tmp_path: Path, known: list[str]) -> None:
    """Numbers, curve, summary, places and hashes agree with each other, and not with what the code does."""
    forged = edited(submitted.data, better, lambda row: row["attack"] != "none")
    checked = run_verify(tmp_path, forged, "--no-rerun")
    assert checked.exit_code == 0, checked.stderr
    ours = next(row["run_id"] for row in rows_of(forged) if row["attack"] != "none")
    seed = next(n for n in range(100) if drawn(rows_of(forged), n)[0][0]["run_id"] == ours)
    run = run_verify(tmp_path, forged, "--yes", "--runs", "1", "--seed", str(seed))
    assert run.exit_code == 1
    assert re.search(r"er_10 = 0\.(79|80)\d\d, but running it again gives 0\.0", run.stderr)
    assert "was repeated with 3 roundings" in run.stderr
    assert "DIFFERS" in run.stdout
    assert run.stdout.splitlines()[-1].startswith("refused: ")


def test_runs_stop_where_the_budget_ends(submitted: Submitted, tmp_path: Path, known: list[str]) -> None:
    """One second is over before the first run is compared; at least as many as processes run are repeated."""
    run = run_verify(tmp_path, submitted.data, "--yes", "--budget", "1s", "--jobs", "2")
    assert run.exit_code == 0, run.stderr
    assert 2 <= len(known) <= 8
    for wrong in ("1", "h", "", "0s", "-1h", "1h 30m", "\u0661h", "9999999h"):
        run = run_verify(tmp_path, submitted.data, "--yes", "--budget", wrong)
        assert (run.exit_code, run.stderr.count("\n")) == (2, 1)


def test_an_entry_among_the_first_three_has_all_its_runs_repeated(
    submitted: Submitted, tmp_path: Path, known: list[str]
) -> None:
    """On an empty board any entry is first, however little time there is."""
    run = run_verify(tmp_path, submitted.data, "--yes", "--budget", "1s", "--jobs", "1", "--beside", str(tmp_path))
    assert run.exit_code == 0, run.stderr
    assert len(known) == 8
    assert "it would come among the first three of" in run.stderr


def test_twins_that_are_not_as_published_are_repeated_whatever_is_drawn(
    submitted: Submitted, tmp_path: Path, known: list[str]
) -> None:
    """A worse twin lets a defense shine, and an attack that costs."""
    twin = next(row["run_id"] for row in rows_of(submitted.data) if row["attack"] == "none")
    beside = Path(shutil.copytree(submitted.results, tmp_path / "beside"))

    def worse(point: dict[str, float]) -> None:
        point.update({name: value / 2 for name, value in point.items() if name.startswith("hr_") and value is not None})

    forged = edited(submitted.data, lambda row: with_curve(row, worse), lambda row: row["run_id"] == twin)
    assert run_verify(tmp_path, forged, "--no-rerun", "--beside", str(beside)).exit_code == 0
    run = run_verify(tmp_path, forged, "--yes", "--runs", "1", "--beside", str(beside))
    assert run.exit_code == 1
    assert known[0] == twin
    assert f"1 twin not as published: repeated in any case: {twin}" in run.stderr
    assert f"refused: re-run: run {twin}: hr_" in run.stderr


def test_a_card_that_is_computed_is_compared_once_it_runs(submitted: Submitted, tmp_path: Path) -> None:
    seeming = with_code(submitted.data, 'title="Random direction"', 'title="".join(["Oth", "er"])')
    run = run_verify(tmp_path, seeming, "--no-rerun")
    assert run.exit_code == 0, run.stderr
    assert "the card's title is computed; only a re-run compares it" in run.stderr
    run = run_verify(tmp_path, seeming, "--yes", "--runs", "1")
    assert run.exit_code == 1
    assert "card.json: not what the class in source.py says of itself." in run.stderr


def test_the_code_sees_no_secret_and_its_last_words_are_spelt_out(
    submitted: Submitted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_TOKEN", "secret")
    spying = with_code(
        submitted.data,
        "import torch",
        'import os, sys, torch\nsys.exit(f\'{sorted(n for n in os.environ if n in ("GITHUB_TOKEN", "HOME"))} \\x1b[2J\')',
    )
    run = run_verify(tmp_path, spying, "--yes", "--runs", "1")
    assert run.exit_code == 1
    assert "cannot be imported: SystemExit: ['HOME'] \\x1b[2J" in run.stderr
    assert "\x1b" not in run.stderr


@pytest.mark.slow
def test_an_entry_of_a_package_keeps_its_name(submitted: Submitted, tmp_path: Path, fresh: None) -> None:
    of = entry("attack", str(submitted.file))
    named, only, results = replace(of, name="pack/direct"), ("model=mf", "defense=none"), tmp_path / "results"
    with standing_in("attack", "pack/direct", of.cls):
        for each in claim("attack", "pack/direct", "smoke", only, 1).runs.values():
            write_record(fedbench.run(each.scenario, each.seed), results)
        data = make_bundle(named, "smoke", only, 1, [results]).data
    assert data is not None
    plugins.forget()
    run = run_verify(tmp_path, data, "--yes", "--runs", "2")
    assert run.exit_code == 0, run.stderr
    assert "attack  pack/direct (version 1)" in run.stdout
    assert run.stdout.splitlines()[-1].startswith(
        "verified: 2 of 2 runs repeated; all runs were repeated, so any forged"
    )


def test_nothing_runs_unless_somebody_says_yes(
    submitted: Submitted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules["fedbench.cli.submit"], "interactive", lambda: True)
    bundle = tmp_path / "b.zip"
    bundle.write_bytes(submitted.data)
    run = CliRunner().invoke(app, ["verify", str(bundle)], input="n\n")
    assert run.exit_code == 2
    assert f"Read source.py first (fedbench verify {bundle} --source)" in run.stderr
    assert run.stderr.endswith("error: not run again; --no-rerun only reads.\n")


def test_who_is_asked_has_been_told_what_to_read(
    submitted: Submitted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules["fedbench.cli.submit"], "interactive", lambda: True)
    bundle = tmp_path / "b.zip"
    bundle.write_bytes(with_code(submitted.data, "import torch", "import socket, torch"))
    run = CliRunner().invoke(app, ["verify", str(bundle)], input="n\n")
    assert 0 < run.stderr.find("imports the standard library's socket: read what for") < run.stderr.find("Run it?")
    assert run.stderr.count("socket") == 1


def test_a_verified_bundle_gives_records_for_the_leaderboard(
    submitted: Submitted, tmp_path: Path, known: list[str], repetitions: Mapping[str, Row]
) -> None:
    """They are those of the repetitions, with the time of the verification; published twins stay what they are."""
    out, beside, command = (
        tmp_path / "r" / "mine.parquet",
        tmp_path / "r",
        ["leaderboard", "--suite", "smoke", "--json"],
    )
    beside.mkdir()
    sure = ("--yes", "--records", str(out), "--beside", str(beside))
    elsewhere = edited(
        submitted.data, lambda row: row.update(platform="Somewhere x86", suite="other"), lambda row: True
    )
    run = run_verify(tmp_path, elsewhere, *sure, "--budget", "1s")
    assert run.exit_code == 0, run.stderr
    assert run.stderr.splitlines()[-1] == f"8 records in {out}"
    assert {row["run_id"]: row for row in pq.read_table(out).to_pylist()} == repetitions
    boards = [CliRunner().invoke(app, [*command, "--results", str(each)]).stdout for each in (out, submitted.results)]
    assert "random-direction" in boards[0]
    twins = [path for path in submitted.results.iterdir() if pq.read_table(path)["attack"][0].as_py() == "none"]
    for path in twins:
        shutil.copy(path, beside)
    run = run_verify(tmp_path, submitted.data, *sure)
    assert run.stderr.splitlines()[-1] == f"4 records in {out}; 4 twins left out, since {beside} has them"
    assert set(pq.read_table(out)["attack"].to_pylist()) == {"random-direction"}
    run = CliRunner().invoke(app, ["leaderboard", "--results", str(tmp_path / "b.zip")])
    assert run.exit_code == 2
    assert "--records FILE.parquet` makes a file that can be" in run.stderr


def test_no_records_of_a_bundle_that_is_not_verified(submitted: Submitted, tmp_path: Path) -> None:
    out = tmp_path / "r.parquet"
    run = run_verify(tmp_path, submitted.data, "--no-rerun", "--records", str(out))
    assert (run.exit_code, run.stderr.count("\n")) == (2, 1)
    assert run_verify(tmp_path, submitted.data, "--yes", "--records", "r.zip").exit_code == 2
    forged = edited(submitted.data, lambda row: row.update(er_10=0.9))
    assert run_verify(tmp_path, forged, "--yes", "--records", str(out)).exit_code == 1
    assert not out.exists()


def test_a_name_that_another_bundle_has(submitted: Submitted, tmp_path: Path) -> None:
    beside = tmp_path / "leaderboard" / "submissions"
    beside.mkdir(parents=True)
    for name, data in (
        ("mine", submitted.data),
        ("garbage", b"PK"),
        ("defense", sealed(unpacked(submitted.data), kind="defense")),
    ):
        (beside / f"{name}.zip").write_bytes(data)
    command = ["verify", str(beside / "mine.zip"), "--no-rerun", "--beside", str(beside.parent)]
    run = CliRunner().invoke(app, command)
    assert run.exit_code == 0, run.stderr
    (beside / "again.zip").symlink_to("mine.zip")
    run = CliRunner().invoke(app, command)
    assert run.exit_code == 1
    assert f"refused: name: {beside / 'again.zip'} has attack 'random-direction', too" in run.stderr
    assert CliRunner().invoke(app, [*command[:-1], str(tmp_path / "none")]).exit_code == 2


def test_the_source_is_printed_to_be_read(submitted: Submitted, tmp_path: Path) -> None:
    hidden = with_code(submitted.data, "import torch", "import torch\n# \x1b[2J\u202e\nraise SystemExit")
    run = run_verify(tmp_path, hidden, "--source")
    assert run.exit_code == 0
    assert "# \\x1b[2J\\u202e\nraise SystemExit\n" in run.stdout
    assert run.stdout.startswith(submitted.data[submitted.data.index(b'"""') :][:20].decode())
    assert run.stderr == ""
    run = run_verify(tmp_path, b"PK", "--source")
    assert (run.exit_code, run.stdout) == (1, "")
    assert run.stderr.startswith("refused: container: not a whole zip file")


def test_runs_that_cannot_be_repeated_here_are_refused(
    submitted: Submitted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forged = edited(submitted.data, lambda row: row.update(device="cuda"), lambda row: row["attack"] != "none")
    monkeypatch.setattr(sys.modules["fedbench.cli.submit"], "choose_device", lambda _: "cpu")
    for option in ("--yes", "--no-rerun"):
        run = run_verify(tmp_path, forged, option)
        assert run.exit_code == 1
        assert "refused: device: 4 of 8 runs cannot be repeated here: made on 'cuda'" in run.stderr
        assert run.stdout.splitlines()[-1].startswith("refused: 1 reason; the first: 4 of 8 runs cannot")

    def no_data(scenarios: object) -> None:
        raise UserError("no data here.")

    monkeypatch.setattr(rerun, "check_data", no_data)
    run = run_verify(tmp_path, submitted.data, "--yes")
    assert run.exit_code == 1
    assert run.stdout.splitlines()[-1] == "not verified: 8 of 8 runs cannot be repeated here: no data here."
    assert run_verify(tmp_path, submitted.data, "--no-rerun").exit_code == 0


def test_a_re_run_that_does_not_end_is_stopped(
    submitted: Submitted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repeat, "PATIENCE", 0)
    monkeypatch.setattr(repeat, "LEAST_PATIENCE", 2)
    start = "        self.direction ="
    endless = with_code(submitted.data, start, f"        import time; time.sleep(600)\n{start}")
    run = run_verify(tmp_path, endless, "--yes", "--runs", "1")
    assert run.exit_code == 1
    assert "re-run: the re-run was stopped after 2 s." in run.stderr
    assert run.stdout.splitlines()[-1].startswith("refused: ")


def test_the_patience_of_a_re_run(good: bytes) -> None:
    row = rows_of(good)[0]
    assert repeat.patience([row]) == 600
    assert repeat.patience([row | {"seconds_total": 100.0}] * 2) == 4000
    assert repeat.patience([row | {"seconds_total": 1e6}]) == 86_400


def test_a_flood_of_words_is_cut(submitted: Submitted, tmp_path: Path) -> None:
    flooding = with_code(submitted.data, "import torch", "import sys, torch\nsys.exit('x' * 5000)")
    run = run_verify(tmp_path, flooding, "--yes", "--runs", "1")
    (reason,) = [line for line in run.stderr.splitlines() if line.startswith("refused")]
    assert "SystemExit: xxxx" in reason
    assert len(reason) < 1200


def test_a_run_that_leaves_a_link_or_a_flood_instead_of_a_record(tmp_path: Path) -> None:
    check = Check("re-run")
    (tmp_path / "x.parquet").symlink_to("/etc/passwd")
    assert repeat._record(tmp_path / "x.parquet", check) is None
    assert check.reasons == ["the re-run left no record."]
    (tmp_path / "x.parquet").unlink()
    (tmp_path / "x.parquet").write_bytes(b"x" * ((1 << 22) + 1))
    assert repeat._record(tmp_path / "x.parquet", Check("re-run")) is None
    assert repeat._record(tmp_path / "none", Check("re-run")) is None


AWARE = """
        import os, sys

        seen = [name for name in sys.modules if name.startswith("fedbench")]
        told = [each for each in seen if "verif" in each or "submission" in each or "testing" in each]
        place = [sys.argv, os.getcwd(), __file__, sorted(os.environ)]
        names = ["FEDBENCH_CACHE", "FEDBENCH_DATA", "HOME", "PATH", "TORCHINDUCTOR_CACHE_DIR"]
        usual = [[""], "/", "/entry.py", names]
        if told or place != usual or type(view).__name__ != "WatchedView":
            raise RuntimeError(f"this is a re-run: {told} {place}")
"""


def test_a_file_that_looks_for_the_re_run_finds_an_ordinary_run(
    submitted: Submitted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Command line, folder, file, names of variables, modules: all are those of ``fedbench run --isolated``."""
    commands: list[Sequence[str]] = []
    execute = repeat._execute
    monkeypatch.setattr(repeat, "_execute", lambda command, *rest: commands.append(command) or execute(command, *rest))
    aware = with_code(submitted.data, "        self.direction =", f"{AWARE}        self.direction =")
    found, check = verify(aware), Check("re-run")
    row = next(row for row in found.rows if row["attack"] != "none")
    (again,) = repeat.repeat(found, [row], "", check, jobs=1)
    assert again is not None, check.reasons
    assert (again["status"], again["error"]) == ("ok", None)
    assert list(reasons(row, [again])) == []
    assert again["isolation"] == "process" or again["isolation"].startswith("sandbox:")
    usual = ["--attack", "./random_direction.py", "--isolated", "--only", "model=mf", "--seeds", "2", "--jobs", "1"]
    assert [command[-11:] for command in commands] == [["run", "smoke", *usual]]


@pytest.mark.parametrize(
    ("stated", "found", "ok"),
    [
        (0.5, [0.5], True),
        (0.5, [0.509], True),
        (0.5, [0.511], False),
        (0.5, [0.4, 0.45], True),  # one range of 0.05 above it
        (0.51, [0.4, 0.45], False),
        (0.42, [0.4, 0.45], True),
        (0.9, [0.1, 0.1, 0.1], False),
        (None, [None], True),
        (None, [0.5], False),
        (0.5, [None], False),
        (0.0, [0.5, None], False),
    ],
)
def test_a_number_agrees_within_what_repetitions_allow(
    stated: float | None, found: list[float | None], ok: bool
) -> None:
    assert Compared("r", "er_10", stated, found).ok == ok


def test_whom_a_target_is_shown_to_is_compared_user_by_user(good: bytes) -> None:
    """Of that DR@K is made: as many others would make another one, and no other number differs."""
    row = next(row for row in rows_of(good) if row["attack"] != "none")
    shown, turned = "0-" * 100, "-0" * 100
    again = row | {"target_places": [shown]}
    assert displacement_ratio([shown], [shown], 10) == 0
    assert displacement_ratio([shown], [turned], 10) == 1
    assert not list(reasons(again, [again]))
    told = list(reasons(row | {"target_places": [turned]}, [again]))
    assert told[0].startswith(
        f"er_5, shown otherwise, item {row['target_items'][0]} = 1.0000, but running it again gives 0"
    )
    assert len(told) == 4
    one, three = (shown[: 200 - n] + "-" * n for n in (2, 6))
    assert not list(reasons(row | {"target_places": [one]}, [again])), "one user of 200"
    assert list(reasons(row | {"target_places": [three]}, [again]))
    assert not list(reasons(row | {"target_places": [three]}, [again, row | {"target_places": [three]}])), (
        "roundings do that"
    )
    uncounted = shown[:190] + "." * 10
    assert list(reasons(row | {"target_places": [uncounted]}, [again]))
    assert list(reasons(row | {"target_places": [shown[:-1]]}, [again]))
