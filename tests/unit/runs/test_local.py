"""The worker processes: records, failures, dead processes, and interruption."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import fedbench
from fedbench.errors import UserError
from fedbench.runs.execution import Outcome, Run, Step, Summary, make_plan, run_plan, run_suite
from fedbench.runs.local import PATIENCE
from fedbench.runs.results import path_of
from fedbench.scenarios.scenario import Scenario
from fedbench.scenarios.suite import Planned

SHORT = {"epochs": 2, "evaluate_every": 1}
CLEAN = Scenario("longtail-small", "mf", protocol_params=SHORT)


def attacked(attack: str) -> Scenario:
    return Scenario("longtail-small", "mf", attack, malicious_ratio=0.05, protocol_params=SHORT)


class Recorder:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, Run]] = []
        self.steps: list[tuple[Run, Step]] = []

    def started(self, run: Run) -> None:
        self.told.append(("started", run))

    def evaluated(self, run: Run, step: Step) -> None:
        self.steps.append((run, step))

    def finished(self, run: Run, outcome: Outcome) -> None:
        self.told.append((outcome.status, run))


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Recorder, Summary]:
    """A suite of which one run kills its process, one is refused, one fails and the others are well."""
    results = tmp_path_factory.mktemp("mixed")
    planned = [Planned(each, (0,)) for each in (CLEAN, *map(attacked, ("random", "popular", "a-ra", "explicit-boost")))]
    recorder = Recorder()
    plan = make_plan(planned, results)
    summary = run_plan(plan, results=results, suite="t", jobs=2, reporter=recorder, execute="fake_runs:by_attack")
    return results, recorder, summary


def test_one_bad_run_does_not_stop_the_others(mixed: tuple[Path, Recorder, Summary]) -> None:
    _, _, summary = mixed
    ends = {run.scenario.attack: (outcome.status, outcome.error) for run, outcome in summary.outcomes.items()}
    assert ends == {
        "none": ("ok", None),
        "random": ("failed", "the worker process died (exit code 7)"),
        "popular": ("refused", "the target is not among the items."),
        "a-ra": ("failed", "ValueError: by design\ntraceback"),
        "explicit-boost": ("ok", None),
    }
    assert (summary.count("ok"), summary.count("failed"), summary.left, summary.exit_code) == (2, 2, 0, 2)


def test_all_but_the_refused_have_whole_records(mixed: tuple[Path, Recorder, Summary]) -> None:
    results, _, summary = mixed
    for run, outcome in summary.outcomes.items():
        path = path_of(results, run.scenario.id, run.seed)
        assert path.exists() == (outcome.status != "refused")
        if path.exists():
            (row,) = pq.read_table(path).to_pylist()
            assert (row["status"], row["error"], row["suite"]) == (outcome.status, outcome.error, "t")
    assert len(list(results.iterdir())) == 4


def test_everything_is_reported_once(mixed: tuple[Path, Recorder, Summary]) -> None:
    _, recorder, summary = mixed
    for run, outcome in summary.outcomes.items():
        assert [what for what, which in recorder.told if which == run] == ["started", outcome.status]
    assert [step.epoch for run, step in recorder.steps if run == Run(CLEAN, 0)] == [1, 2]


def test_a_worker_computes_what_this_process_computes(mixed: tuple[Path, Recorder, Summary]) -> None:
    results, _, _ = mixed
    (row,) = pq.read_table(path_of(results, CLEAN.id, 0)).to_pylist()
    record = fedbench.run(CLEAN, 0)
    assert row["hr_10"] == record.metrics["hr_10"]
    assert [point["er_10"] for point in row["curve"]] == [point["er_10"] for point in record.curve]


def test_resume_runs_what_failed_and_keeps_the_rest(mixed: tuple[Path, Recorder, Summary]) -> None:
    results, _, _ = mixed
    planned = [Planned(CLEAN, (0,)), Planned(attacked("explicit-boost"), (0,)), Planned(attacked("a-ra"), (0,))]
    before = path_of(results, CLEAN.id, 0).stat().st_mtime_ns
    summary = run_suite(planned, results=results, suite="t", jobs=4)
    assert (summary.kept, {run.scenario.attack for run in summary.outcomes}) == (2, {"a-ra"})
    assert summary.exit_code == 0
    assert path_of(results, CLEAN.id, 0).stat().st_mtime_ns == before


@pytest.mark.parametrize("run", ["slow", "stubborn"])
def test_an_interruption_keeps_what_is_whole(tmp_path: Path, run: str, capfd: pytest.CaptureFixture[str]) -> None:
    """Seed 0 ends, seed 1 would sleep for a minute: SIGTERM to this process ends the suite like Ctrl-C."""

    class Impatient(Recorder):
        def started(self, run: Run) -> None:
            if run.seed == 1:
                threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM)).start()

    plan = make_plan([Planned(CLEAN, (0, 1))], tmp_path)
    summary = run_plan(plan, results=tmp_path, jobs=1, reporter=Impatient(), execute=f"fake_runs:{run}")
    assert (summary.interrupted, summary.exit_code, summary.left) == (signal.SIGTERM, 143, 1)
    assert [path.name for path in tmp_path.iterdir()] == [path_of(tmp_path, CLEAN.id, 0).name]
    assert capfd.readouterr() == ("", "")


def test_an_interruption_waits_for_a_record_that_is_being_written(tmp_path: Path) -> None:
    """Writing takes a second, far less than the workers are given; the record counts, and nothing waits any longer."""
    plan = make_plan([Planned(CLEAN, (0, 1))], tmp_path)
    begin = time.monotonic()
    summary = run_plan(plan, results=tmp_path, jobs=1, reporter=Recorder(), execute="fake_runs:slow_disk")
    assert time.monotonic() - begin < PATIENCE
    assert (summary.interrupted, summary.count("ok"), summary.left) == (signal.SIGTERM, 2, 0)
    assert {path.name for path in tmp_path.iterdir()} == {path_of(tmp_path, CLEAN.id, seed).name for seed in (0, 1)}


def test_workers_never_see_ctrl_c(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Not even while they start, before they could say that they ignore it."""
    before = {process.pid for process in multiprocessing.active_children()}

    def interrupt() -> None:
        while not (new := {process.pid for process in multiprocessing.active_children()} - before):
            time.sleep(0.001)
        for pid in new:
            os.kill(pid or 0, signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    summary = run_suite([Planned(CLEAN, (0,))], results=tmp_path, jobs=1)
    thread.join()
    assert (summary.count("ok"), capfd.readouterr().err) == (1, "")


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="reads /proc")
def test_no_worker_can_be_interrupted_before_it_ignores_it() -> None:
    """Not the first of a process either, with which Python starts another one and unblocks signals."""
    code = """
from pathlib import Path
from fedbench.runs.local import _Pool
if __name__ == "__main__":
    pool = _Pool([], "")
    for _ in range(2):
        pool.add("cpu")
        status = Path(f"/proc/{pool.workers[-1].process.pid}/status").read_text()
        print(next(line.split()[1] for line in status.splitlines() if line.startswith("SigBlk")))
    pool.kill()
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    blocked = [int(line, 16) for line in ran.stdout.split()]
    assert len(blocked) == 2
    assert all(mask >> (signal.SIGINT - 1) & 1 for mask in blocked)


def test_nothing_to_do(tmp_path: Path) -> None:
    assert run_suite([], results=tmp_path).exit_code == 0


def test_who_finds_nothing_to_do_clears_what_a_killed_one_has_left(tmp_path: Path) -> None:
    folder = tmp_path / "results"
    (folder / ".fedbench-claims").mkdir(parents=True)
    (folder / ".fedbench-claims" / "0123456789abcdef-s0").write_bytes(b"")
    (folder / f".fedbench-{16 * '0'}.tmp").write_bytes(b"")
    assert run_suite([], results=folder).total == 0
    assert list(folder.iterdir()) == []
    assert run_suite([], results=tmp_path / "none").total == 0
    assert not (tmp_path / "none").exists()


def test_jobs_must_be_positive(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="jobs = 0"):
        run_suite([], results=tmp_path, jobs=0)
