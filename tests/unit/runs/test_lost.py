"""What nobody has heard of again: tries whose process was killed, runs that end between a plan and its first order."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, Any

import pytest
from records import record, scenario, write

from fedbench.files import occupied, sweep
from fedbench.runs import crash
from fedbench.runs.claims import FOLDER, claim, clear, ends, running
from fedbench.runs.execution import Run, make_plan, run_plan
from fedbench.runs.results import scan
from fedbench.runs.standing import standing
from fedbench.runs.task import split_of
from fedbench.runs.worker import LOST, Order
from fedbench.scenarios.scenario import Scenario
from fedbench.scenarios.suite import Planned

CLEAN = Scenario("longtail-small", "mf", protocol_params={"epochs": 1, "evaluate_every": 1})
KILLED = """
import os, sys
from pathlib import Path
from fedbench.runs.claims import claim
with claim(Path(sys.argv[1]), sys.argv[2]):
    os.kill(os.getpid(), 9)
"""


def kill(results: Path, run_id: str, times: int = 1) -> None:
    """Begin a run and be killed."""
    for _ in range(times):
        subprocess.run([sys.executable, "-c", KILLED, str(results), run_id], check=False)


def test_a_try_is_lost_that_neither_ended_nor_was_given_up(tmp_path: Path) -> None:
    kill(tmp_path, "a-s0", 2)
    with claim(tmp_path, "a-s0") as mine:
        assert mine is not None
        assert len({each.process for each in mine.lost}) == 2
        assert [each.lost for each in running(tmp_path)] == [2]
    with claim(tmp_path, "a-s0") as mine, contextlib.suppress(SystemExit):
        assert mine is not None
        assert len(mine.lost) == 2, "the try before was given up"
        raise SystemExit
    with claim(tmp_path, "a-s0") as mine:
        assert mine is not None
        mine.end()
    with claim(tmp_path, "a-s0") as mine:
        assert mine is not None
        assert mine.lost == ()


def test_a_run_that_takes_along_whoever_runs_it_has_failed(tmp_path: Path) -> None:
    plan = make_plan([Planned(CLEAN, (0, 1))], tmp_path)
    kill(tmp_path, Run(CLEAN, 0).id, LOST)
    kill(tmp_path, Run(CLEAN, 1).id, LOST - 1)
    summary = run_plan(plan, results=tmp_path, jobs=1)
    assert {run.seed: each.status for run, each in summary.outcomes.items()} == {0: "failed", 1: "ok"}
    errors = dict(zip(*(scan([tmp_path]).table[name].to_pylist() for name in ("seed", "error")), strict=True))
    assert errors[1] is None
    assert errors[0].startswith(f"{LOST} tries were lost with those who ran it: process ")
    assert errors[0].count(";") == LOST - 1


def test_a_record_that_is_there_is_not_replaced_by_a_failure(tmp_path: Path) -> None:
    """The process died between its record and the word that it has ended, or somebody else has the run already."""
    order = Order(Run(CLEAN, 0).id, CLEAN.key, 0, None, "cpu", tmp_path)
    with claim(tmp_path, order.run_id):
        assert not crash.record_crash(order, "died", 1.0)
    assert list(tmp_path.glob("*.parquet")) == []
    write(tmp_path, record(CLEAN, 0))
    assert not crash.record_crash(order, "died", 1.0)
    assert scan([tmp_path]).status == {(CLEAN.id, 0): "ok"}
    order = dataclasses.replace(order, stamp=make_plan([Planned(CLEAN, (0,))], tmp_path).stamps[order.run_id])
    assert crash.record_crash(order, "died", 1.0)
    assert scan([tmp_path]).status == {(CLEAN.id, 0): "failed"}


def test_what_ends_between_a_plan_and_its_first_order_is_not_run_again(tmp_path: Path) -> None:
    """Also when all claims have been cleared meanwhile by the one who ran it, and when its record stood there, failed."""
    write(tmp_path, record(CLEAN, 1, status="failed", error="memory"))
    plan = make_plan([Planned(CLEAN, (0, 1))], tmp_path)
    assert run_plan(plan, results=tmp_path, jobs=1).count("ok") == 2
    assert not (tmp_path / FOLDER).exists()
    assert run_plan(plan, results=tmp_path, jobs=1).count("elsewhere") == 2
    assert run_plan(make_plan([Planned(CLEAN, (0, 1))], tmp_path, fresh=True), results=tmp_path).count("ok") == 2


def test_who_looks_keeps_nobody_out_but_whoever_begins(tmp_path: Path) -> None:
    with claim(tmp_path, "a-s0"):
        pass
    with (tmp_path / FOLDER / "a-s0").open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        assert running(tmp_path) == []
        with occupied(tmp_path) as place:
            clear(tmp_path, place.marker)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def like_nfs(monkeypatch: pytest.MonkeyPatch) -> None:
    """An exclusive lock wants a file that is opened for writing, a shared one a file that is opened for reading."""
    flock = fcntl.flock

    def strict(file: IO[bytes], how: int) -> None:
        mode = fcntl.fcntl(file, fcntl.F_GETFL) & os.O_ACCMODE
        if (how & fcntl.LOCK_EX and mode == os.O_RDONLY) or (how & fcntl.LOCK_SH and mode == os.O_WRONLY):
            raise OSError(errno.EBADF, "Bad file descriptor")
        flock(file, how)

    monkeypatch.setattr(fcntl, "flock", strict)


@pytest.mark.usefixtures("like_nfs")
def test_where_locks_are_as_on_nfs(tmp_path: Path) -> None:
    (tmp_path / ".fedbench-1.tmp").write_bytes(b"of a writer that is gone")
    with occupied(tmp_path) as place:
        assert [path.name for path in tmp_path.iterdir()] == [place.marker.name]
        sweep([tmp_path])
        assert place.marker.exists()
        with claim(tmp_path, "a-s0") as mine:
            assert mine is not None
            with claim(tmp_path, "a-s0") as theirs:
                assert theirs is None
            assert [each.run_id for each in running(tmp_path)] == ["a-s0"]
            mine.end()
        assert ends(tmp_path) == {"a-s0": mine.ended}
        clear(tmp_path, place.marker)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def mixed(tmp_path: Path) -> Iterator[list[Planned]]:
    """Seeds 0 ok, 1 diverged, 2 failed, 3 failed and under way again, 4 under way, 5 ok as its process says good-bye,
    6 nothing, 7 left by a process that was killed, 8 ok on other data."""
    clean, past = scenario(), datetime.now(UTC) - timedelta(hours=1)
    data = {"dataset_fingerprint": split_of(clean, 0).fingerprint}
    written = [record(clean, 0, **data), record(clean, 1, status="diverged", error="nan", **data), record(clean, 8)]
    written += [record(clean, seed, status="failed", error="") for seed in (2, 3)]
    write(tmp_path, *(dataclasses.replace(each, started_at=past) for each in written))
    kill(tmp_path, Run(clean, 7).id)
    with contextlib.ExitStack() as stack:
        for seed in (3, 4, 5):
            stack.enter_context(claim(tmp_path, Run(clean, seed).id))
        write(tmp_path, dataclasses.replace(record(clean, 5, **data), started_at=datetime.now(UTC)))
        yield [Planned(clean, tuple(range(9)))]


def counts(planned: list[Planned], results: Path) -> dict[str, list[int]]:
    found = standing(planned, results)
    parts: dict[str, Any] = {**found.ended, "failed": found.failed, "running": found.at_work, "missing": found.missing}
    return {name: sorted(run.seed for run in runs) for name, runs in parts.items()}


def test_every_run_is_one_thing(tmp_path: Path, mixed: list[Planned]) -> None:
    assert counts(mixed, tmp_path) == {
        "ok": [0, 5], "diverged": [1], "failed": [2], "running": [3, 4], "missing": [6, 7, 8],
    }  # fmt: skip


def test_who_only_finds_out_that_there_is_nothing_to_run_runs_nothing(tmp_path: Path, mixed: list[Planned]) -> None:
    before = counts(mixed, tmp_path)
    with contextlib.ExitStack() as stack:
        for seed in (0, 2, 6):
            mine = stack.enter_context(claim(tmp_path, Run(scenario(), seed).id, begin=False))
            assert mine is not None
        assert counts(mixed, tmp_path) == before
        mine.begin()
        assert counts(mixed, tmp_path) == {**before, "running": [3, 4, 6], "missing": [7, 8]}


def test_a_time_that_is_none_is_now(tmp_path: Path, mixed: list[Planned]) -> None:
    path = tmp_path / FOLDER / Run(scenario(), 3).id
    path.write_text(json.dumps({**json.loads(path.read_text()), "began": "yesterday"}))
    assert counts(mixed, tmp_path)["running"] == [3, 4]
