"""Suites that are stopped at any moment, by whatever signal: nothing lost, nothing doubled, the same numbers in the end."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from interrupts import interruptible

import fedbench
from fedbench.runs.record import RunRecord
from fedbench.runs.results import scan
from fedbench.scenarios.suite import load_suite

SUITE = """
name = "killed"
version = 1
title = "Killed"
seeds = 2
[defaults]
dataset = "longtail-small"
malicious_ratio = 0.05
protocol_params = { epochs = 40 }
[matrix]
model = ["mf"]
attack = ["none", "explicit-boost", "a-ra", "random"]
"""
RUNS = 8

VARIES = {
    *(name for name in RunRecord.__dataclass_fields__ if name.startswith("seconds_")),
    *("checksum", "started_at", "git_commit", "git_dirty"),
}
"""Columns that differ between two runs of the same thing (the working tree may change under the tests)."""

Rows = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("suite") / "killed.toml"
    path.write_text(SUITE)
    return path


@pytest.fixture(scope="module")
def uninterrupted(suite: Path) -> Rows:
    """Run -> its record, without what varies, as this process computes it."""
    runs = [(planned.scenario, seed) for planned in load_suite(str(suite)).plan() for seed in planned.seeds]
    records = [fedbench.run(scenario, seed, suite="killed").row() for scenario, seed in runs]
    assert len(records) == RUNS
    return {row["run_id"]: {name: value for name, value in row.items() if name not in VARIES} for row in records}


def contents(results: Path) -> Rows:
    """What is there, all of it whole."""
    found = scan([results])
    assert not found.damaged
    assert [path.stem for path in found.files] == found.table["run_id"].to_pylist()
    return {row["run_id"]: row for row in found.table.to_pylist()}


def complete(rows: Rows, expected: Rows) -> bool:
    """Whether all runs are there; those that are have the numbers of uninterrupted ones."""
    for run, row in rows.items():
        for name, value in expected[run].items():
            seen = row[name]
            if name == "curve":
                seen = [{key: number for key, number in point.items() if number is not None} for point in seen]
            assert seen == value, (run, name)
    return len(rows) == RUNS


def leftovers(results: Path) -> list[str]:
    return [path.name for path in results.iterdir() if path.suffix != ".parquet"]


class Running:
    """A suite that runs, in a group of its own, and what it said in the end."""

    def __init__(self, suite: Path, results: Path) -> None:
        self.results, self.said = results, results.parent / "stderr"
        with self.said.open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "fedbench", "run", str(suite), "--results", str(results), "--jobs", "2"],
                stdout=subprocess.DEVNULL, stderr=out, start_new_session=True, preexec_fn=interruptible,
            )  # fmt: skip

    def names(self) -> set[str]:
        try:
            return set(os.listdir(self.results))
        except FileNotFoundError:
            return set()

    def records(self) -> int:
        return sum(name.endswith(".parquet") for name in self.names())

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Until then, or until the suite has ended."""
        deadline = time.monotonic() + 120
        while not condition() and self.process.poll() is None:
            assert time.monotonic() < deadline, "the suite does not go on"
            time.sleep(0.002)

    def signal(self, number: int, group: bool) -> None:
        if self.process.poll() is None:
            (os.killpg if group else os.kill)(self.process.pid, number)

    def end(self) -> tuple[int, str]:
        code = self.process.wait(60)
        said = self.said.read_text()
        assert "Traceback" not in said, said
        return code, said


def killed(suite: Path, results: Path) -> Rows:
    """What is there of a suite that was killed after its second record."""
    running = Running(suite, results)
    running.wait_until(lambda: running.records() >= 2)
    running.signal(signal.SIGKILL, group=True)
    running.end()
    there = contents(results)
    assert 2 <= len(there) < RUNS
    return there


@pytest.mark.slow
def test_one_suite_and_all_that_can_happen_to_it(suite: Path, tmp_path: Path, uninterrupted: Rows) -> None:
    results = tmp_path / "results"
    there = killed(suite, results)
    stamps = {run: (results / f"{run}.parquet").stat().st_mtime_ns for run in there}
    victim = results / f"{sorted(there)[0]}.parquet"
    whole = victim.read_bytes()
    victim.write_bytes(whole[: len(whole) // 2])

    running = Running(suite, results)
    running.wait_until(lambda: running.records() > len(there))
    running.signal(signal.SIGINT, group=True)  # as a terminal does: to the parent and its workers
    code, said = running.end()
    assert code == 130
    assert f"warning: {victim} is no whole record and does not count" in said
    assert leftovers(results) == []
    left = RUNS - len(scan([results]).table)
    resume = f"fedbench run {suite} --jobs 2 --results {results}"
    assert said.splitlines()[-1] == f"interrupted; {left} left. Resume with: {resume}"
    assert 0 < left < RUNS

    running = Running(suite, results)
    running.wait_until(lambda: running.records() == RUNS and victim.stat().st_size == len(whole))
    running.signal(signal.SIGTERM, group=False)  # while idle workers are dismissed
    assert running.end()[0] in (0, 143)

    running = Running(suite, results)
    assert running.end()[0] == 0
    assert complete(contents(results), uninterrupted)
    assert leftovers(results) == []
    kept = {run for run, stamp in stamps.items() if (results / f"{run}.parquet").stat().st_mtime_ns == stamp}
    assert kept == set(there) - {victim.stem}


def test_a_suite_that_is_killed_goes_on(suite: Path, tmp_path: Path, uninterrupted: Rows) -> None:
    results = tmp_path / "results"
    there = killed(suite, results)
    assert Running(suite, results).end()[0] == 0
    found = contents(results)
    assert complete(found, uninterrupted)
    assert there.items() <= found.items(), "nothing lost, nothing written again"
    assert leftovers(results) == []


def strike(suite: Path, results: Path, kind: signal.Signals, moment: str, rng: random.Random, span: float) -> int:
    """Send a signal to a suite, or to all its processes, at a moment; its exit code."""
    begin, old = time.monotonic(), set(os.listdir(results))
    running = Running(suite, results)
    if moment == "any":
        delay = rng.uniform(0.2, span)
        running.wait_until(lambda: time.monotonic() > begin + delay)
    elif moment == "write":  # the first file is the mark of the suite itself
        running.wait_until(lambda: len(running.names() - old) > 1)
    else:
        running.wait_until(lambda: running.records() == RUNS)
        time.sleep(rng.uniform(0, 0.1))
    running.signal(kind, group=rng.random() < 0.5)
    code, _ = running.end()
    deadline = time.monotonic() + 120
    while alive(running.process.pid):  # workers notice when nobody is there any more
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return code


def alive(group: int) -> bool:
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, of, *_ = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(of) == group and state != "Z":
            return True
    return False


@pytest.mark.slow
def test_signals_at_random_moments(suite: Path, tmp_path: Path, uninterrupted: Rows) -> None:
    """100 of them: anywhere, in the middle of a write, and at the end of a suite; one suite after the other."""
    results, rng, seen = tmp_path / "results", random.Random(15), Counter[tuple[str, str, int]]()
    results.mkdir()
    span = 10.0
    for _ in range(100):
        if complete(contents(results), uninterrupted):
            for path in rng.sample(sorted(results.glob("*.parquet")), rng.randint(1, RUNS)):
                path.unlink()
        before, old, begin = contents(results), set(leftovers(results)), time.monotonic()
        kind = rng.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
        moment = rng.choice(["any", "write", "end"])
        code = strike(suite, results, kind, moment, rng, span)
        seen[moment, kind.name, code] += 1
        print(moment, kind.name, code, flush=True)
        span = max(span, time.monotonic() - begin)
        assert code in (0, -kind, 128 + kind)
        # What a killed one has left stays if the next is gone before it begins, by the signal itself.
        assert kind == signal.SIGKILL or set(leftovers(results)) <= (old if code == -kind else set())
        assert before.items() <= contents(results).items(), "nothing lost, nothing written again"
    assert Running(suite, results).end()[0] == 0
    assert complete(contents(results), uninterrupted)
    assert leftovers(results) == []
    print(*sorted(seen.items()), sep="\n")
