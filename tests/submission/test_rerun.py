"""The re-run: what it finds that no reading could, and what it keeps from the code that it runs."""

from __future__ import annotations

import json
import shutil
import sys
from collections import Counter
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
from fedbench.runs.results import write_record
from fedbench.submission import rerun
from fedbench.submission.bundle import entry, make_bundle
from fedbench.submission.claim import claim
from fedbench.submission.report import Check
from fedbench.submission.rerun import Compared, at_hand, draw
from fedbench.submission.standin import standing_in
from fedbench.submission.verify import verify


def run_verify(folder: Path, data: bytes, *options: str) -> Any:
    bundle = folder / "b.zip"
    bundle.write_bytes(data)
    return CliRunner().invoke(app, ["verify", str(bundle), *options])


def test_the_truth_is_confirmed(submitted: Submitted, tmp_path: Path) -> None:
    run = run_verify(tmp_path, submitted.data, "--yes", "--runs", "2", "--seed", "7", "--json")
    assert run.exit_code == 0, run.stderr
    data = json.loads(run.stdout)
    assert data["verified"]
    assert data["draw"] == 7
    assert len({each["run"] for each in data["compared"]}) == 2
    assert {"er_10", "er_10_peak", "er_10_tail", "hr_10", "ndcg_full_20"} <= {
        each["metric"] for each in data["compared"]
    }
    assert all(each["found"] == [each["stated"]] for each in data["compared"])


def test_a_coherent_forgery_is_found(submitted: Submitted, tmp_path: Path) -> None:
    """Numbers, curve, summary and hashes agree with each other, and not with what the code does."""

    def better(point: dict[str, float]) -> None:
        point.update({f"er_{k}": min(1.0, 0.2 + 0.6 * point["epoch"] / 80) for k in (5, 10, 20, 30)})

    forged = edited(submitted.data, lambda row: with_curve(row, better), lambda row: row["attack"] != "none")
    assert run_verify(tmp_path, forged, "--no-rerun").exit_code == 0
    run = run_verify(tmp_path, forged, "--yes", "--runs", "1")
    assert run.exit_code == 1
    assert "er_10 = 0.8000, but running it again gives 0.0" in run.stderr
    assert "was repeated with 3 roundings" in run.stderr
    assert "DIFFERS" in run.stdout
    assert run.stdout.splitlines()[-1] == "refused"


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
    assert "the re-run ended with exit code 1: " in run.stderr
    assert "['HOME']" in run.stderr
    assert "\x1b" not in run.stderr


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
    assert run.stdout.splitlines()[-1] == "verified; times are only claimed"


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


def test_a_verified_bundle_gives_records_for_the_leaderboard(submitted: Submitted, tmp_path: Path) -> None:
    """From a bundle to a number: its records rank like the folder that it was made of; published twins stay what they are."""
    out, beside, command = (
        tmp_path / "r" / "mine.parquet",
        tmp_path / "r",
        ["leaderboard", "--suite", "smoke", "--json"],
    )
    beside.mkdir()
    sure = ("--yes", "--runs", "1", "--records", str(out), "--beside", str(beside))
    run = run_verify(tmp_path, submitted.data, *sure)
    assert run.exit_code == 0, run.stderr
    assert run.stderr.splitlines()[-1] == f"8 records in {out}"
    boards = [CliRunner().invoke(app, [*command, "--results", str(each)]).stdout for each in (out, submitted.results)]
    assert boards[0] == boards[1]
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


def test_the_verdict_names_what_could_not_be_drawn(submitted: Submitted, tmp_path: Path) -> None:
    elsewhere = edited(submitted.data, lambda row: row.update(device="tpu"), lambda row: row["attack"] == "none")
    run = run_verify(tmp_path, elsewhere, "--yes", "--runs", "1")
    assert run.exit_code == 0, run.stderr
    assert run.stdout.splitlines()[-1] == (
        "verified, but for 4 runs of 8 that cannot be repeated here: their numbers are only claimed, as are all times"
    )


def test_a_re_run_that_does_not_end_is_stopped(
    submitted: Submitted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stated = {row["run_id"]: row["seconds_total"] for row in rows_of(submitted.data)}
    monkeypatch.setattr(rerun, "PATIENCE", 0)
    monkeypatch.setattr(rerun, "LEAST_PATIENCE", 2)
    endless = with_code(submitted.data, "import torch", "import time, torch\ntime.sleep(600)")
    run = run_verify(tmp_path, endless, "--yes", "--runs", "8")
    assert run.exit_code == 1
    assert (
        f"re-run: the re-run was stopped after 2 s; the records state {sum(stated.values()):,.0f} s for it."
        in run.stderr
    )
    assert run.stdout.splitlines()[-1] == "refused"


def test_the_patience_of_a_re_run(good: bytes) -> None:
    row = rows_of(good)[0]
    assert rerun.patience([row]) == 600
    assert rerun.patience([row | {"seconds_total": 100.0}] * 2) == 4000


def test_a_flood_of_words_is_cut(submitted: Submitted, tmp_path: Path) -> None:
    flooding = with_code(
        submitted.data, "import torch", "import sys, torch\nsys.stderr.write('x' * 5000)\nsys.exit(' the end')"
    )
    run = run_verify(tmp_path, flooding, "--yes", "--runs", "1")
    (reason,) = [line for line in run.stderr.splitlines() if line.startswith("refused")]
    assert reason.endswith(" ...")
    assert "xxxx" in reason


def test_a_worker_that_leaves_a_link_or_a_flood_instead_of_a_record(tmp_path: Path) -> None:
    folder = tmp_path / "0"
    folder.mkdir()
    check = Check("re-run")
    (folder / "x.parquet").symlink_to("/etc/passwd")
    assert rerun._record(folder, check) is None
    assert check.reasons == ["the re-run left no record."]
    (folder / "x.parquet").unlink()
    (folder / "x.parquet").write_bytes(b"x" * ((1 << 22) + 1))
    assert rerun._record(folder, Check("re-run")) is None
    assert rerun._record(tmp_path / "none", Check("re-run")) is None


def test_the_draw_has_the_entry_and_is_repeated_by_its_seed(good: bytes) -> None:
    found = verify(good)
    check = found.step("re-run")
    rows = at_hand(found, ["cpu"], check)
    assert len(rows) == 8
    assert not check.notes
    assert draw(found, rows, 3, 5) == draw(found, rows, 3, 5)
    drawn = [draw(found, rows, 3, seed) for seed in range(200)]
    assert all(each[0]["attack"] == "random-direction" for each in drawn)
    assert all(len({row["run_id"] for row in each}) == 3 for each in drawn)
    counts = Counter(row["run_id"] for each in drawn for row in each)
    assert len(counts) == 8  # twins are drawn, too
    assert min(counts.values()) > 200 * 2 / 7 / 2
    assert len(draw(found, rows, 99, 0)) == 8


def test_runs_that_cannot_be_repeated_here_are_named(good: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = edited(good, lambda row: row.update(device="cuda"), lambda row: row["attack"] == "none")
    found = verify(elsewhere)
    assert found.ok, found.checks
    check = found.step("re-run")
    assert {row["attack"] for row in at_hand(found, ["cpu"], check)} == {"random-direction"}
    assert check.notes == [
        "4 of 8 runs cannot be repeated here, and will not be drawn: made on 'cuda', which is not here"
    ]

    def no_data(scenarios: object) -> None:
        raise UserError("no data here.")

    monkeypatch.setattr(rerun, "check_data", no_data)
    check = found.step("re-run")
    rows = at_hand(found, ["cpu", "cuda"], check)
    assert rows == []
    with pytest.raises(UserError, match="no run with random-direction can be repeated here: 8 of 8 runs"):
        draw(found, rows, 3, 0)


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
