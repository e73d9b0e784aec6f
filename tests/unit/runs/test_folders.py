"""Results folders as people make them: readers get what is in the records, whatever a folder is called or holds."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from records import record, scenario, write
from typer.testing import CliRunner

from fedbench.cli import app
from fedbench.errors import ResultsError
from fedbench.leaderboard import Database
from fedbench.runs.execution import Outcome, Run, Step, make_plan, run_plan
from fedbench.runs.results import load_results, pack, path_of, scan
from fedbench.scenarios.scenario import Scenario
from fedbench.scenarios.suite import Planned


def test_names_of_folders_are_no_columns(tmp_path: Path) -> None:
    folder = tmp_path / "dataset=other" / "seed=7" / "attack=foo"
    write(folder, record(scenario("a-ra"), 3, er=0.25), record(scenario(), 3))
    pack([tmp_path], folder / "run_id=x.parquet")
    query = "select dataset, seed, attack, er_10 from runs order by attack"
    expected = [("longtail-small", 3, "a-ra", 0.25), ("longtail-small", 3, "none", 0.0)]
    for found in ([tmp_path], [folder], sorted(folder.iterdir())):
        assert [tuple(row.values()) for row in Database(found).rows(query)] == expected
        assert load_results(*found)["seed"].to_pylist() == [3, 3]
    assert set(scan([folder]).status) == {(scenario("a-ra").id, 3), (scenario().id, 3)}


def test_links_are_followed_once(tmp_path: Path) -> None:
    write(tmp_path / "disk" / "below", record(scenario()))
    (tmp_path / "results").symlink_to("disk")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "theirs").symlink_to("../disk")
    (tmp_path / "disk" / "back").symlink_to("../disk")
    for name in ("results", "mine"):
        found = scan([tmp_path / name])
        assert (len(found.table), len(found.files), found.damaged) == (1, 1, {})


def test_what_is_no_file_is_named_and_nothing_waits_for_it(tmp_path: Path) -> None:
    write(tmp_path, record(scenario()))
    os.mkfifo(tmp_path / "x.parquet")
    (tmp_path / "y.parquet").symlink_to("nowhere")
    (tmp_path / "z.parquet").mkdir()
    found = scan([tmp_path])
    assert (len(found.table), len(found.files)) == (1, 1)
    assert found.damaged == {
        str(tmp_path / "x.parquet"): "not a plain file",
        str(tmp_path / "y.parquet"): "a link to nothing",
    }
    assert scan([tmp_path / "x.parquet"]).damaged == {str(tmp_path / "x.parquet"): "not a plain file"}


def fedbench(*arguments: str, **limits: int) -> subprocess.CompletedProcess[str]:
    """A command under limits of the system, whose standard output is a full disk."""

    def limit() -> None:
        for name, value in limits.items():
            resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (value, value))

    command = [sys.executable, "-m", "fedbench", *arguments]
    with open("/dev/full", "w") as full:
        return subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, preexec_fn=limit)


def test_more_records_than_files_may_be_open_and_nowhere_to_print_them(tmp_path: Path) -> None:
    write(tmp_path, *(record(scenario(), seed) for seed in range(20)))
    result = fedbench("leaderboard", "--results", str(tmp_path), NOFILE=16)
    assert (result.returncode, result.stderr) == (1, "error: No space left on device.\n")


def test_too_few_files_for_a_run_are_one_line(tmp_path: Path) -> None:
    result = fedbench("run", "smoke", "--only", "model=mf", "--results", str(tmp_path / "r"), NOFILE=12)
    assert result.returncode != 0
    (line,) = result.stderr.splitlines()
    assert line.endswith("Too many open files.")


@pytest.mark.parametrize("command", [["run", "smoke", "--dry-run"], ["leaderboard"], ["pack", "out.parquet"]])
def test_a_name_that_is_too_long_is_one_line(command: list[str]) -> None:
    result = CliRunner().invoke(app, [*command, "--results", "x" * 256])
    assert result.exit_code in (1, 2), result.exception
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")


def test_a_folder_that_is_renamed_ends_the_suite_and_loses_no_record(tmp_path: Path) -> None:
    results, elsewhere = tmp_path / "results", tmp_path / "elsewhere"

    class Renames:
        def started(self, run: Run) -> None:
            if run.seed == 1:
                results.rename(elsewhere)

        def evaluated(self, run: Run, step: Step) -> None: ...
        def finished(self, run: Run, outcome: Outcome) -> None: ...

    clean = Scenario("longtail-small", "mf", protocol_params={"epochs": 1})
    plan = make_plan([Planned(clean, (0, 1, 2))], results)
    with pytest.raises(ResultsError, match=r"results' was moved, renamed or removed while .*; it stops") as caught:
        run_plan(plan, results=results, jobs=1, reporter=Renames())
    assert not results.exists()
    assert [path.name for path in elsewhere.glob("*.parquet")] == [path_of(results, clean.id, 0).name]
    rescued = tmp_path / "results.rescued"
    assert [path.name for path in rescued.iterdir()] == [path_of(results, clean.id, 1).name]
    assert str(rescued) in str(caught.value)
    assert len(scan([elsewhere, rescued]).table) == 2
