"""Who runs a run, where several processes share a results folder."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from fedbench import files
from fedbench.files import occupied
from fedbench.runs.claims import FOLDER, claim, clear, ends, running
from fedbench.runs.execution import Outcome, Run, make_plan, run_plan
from fedbench.runs.results import path_of
from fedbench.scenarios.scenario import Scenario
from fedbench.scenarios.suite import Planned

CLEAN = Scenario("longtail-small", "mf", protocol_params={"epochs": 1, "evaluate_every": 1})
HOLDER = """
import sys, time
from pathlib import Path
from fedbench.runs.claims import claim
with claim(Path(sys.argv[1]), "a-s0") as mine:
    print(mine is not None, flush=True)
    time.sleep(60)
"""


def test_one_has_it_and_the_other_waits_in_vain(tmp_path: Path) -> None:
    with claim(tmp_path, "a-s0") as mine:
        assert mine is not None
        begin = time.monotonic()
        with claim(tmp_path, "a-s0", patience=0.3) as theirs:
            assert theirs is None
        assert time.monotonic() - begin >= 0.3
        with claim(tmp_path, "a-s1") as other:
            assert other is not None
        assert [each.run_id for each in running(tmp_path)] == ["a-s0"]
    with claim(tmp_path, "a-s0") as mine:
        assert mine is not None
    assert running(tmp_path) == []


def test_who_ends_a_run_leaves_word(tmp_path: Path) -> None:
    with claim(tmp_path, "a-s0") as mine:
        assert mine is not None
        assert mine.ended == ""
        mine.end()
    with claim(tmp_path, "a-s0") as later:
        assert later is not None
        assert later.ended == mine.ended != ""
    assert ends(tmp_path) == {"a-s0": mine.ended}
    assert ends(tmp_path / "none") == {}


def test_a_killed_process_keeps_nothing(tmp_path: Path) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "True\n"
        (found,) = running(tmp_path)
        assert found.process == holder.pid
        with claim(tmp_path, "a-s0") as mine:
            assert mine is None
    finally:
        holder.kill()
        holder.communicate()
    with claim(tmp_path, "a-s0") as mine:
        assert mine is not None
        assert mine.ended == ""


def test_where_nothing_can_be_locked_everybody_runs_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "fcntl", None)
    with claim(tmp_path, "a-s0") as one, claim(tmp_path, "a-s0") as other:
        assert one is not None
        assert other is not None
        one.end()
    assert ends(tmp_path) == {}


def test_the_last_one_clears_up(tmp_path: Path) -> None:
    with claim(tmp_path, "a-s0"):
        pass
    with occupied(tmp_path) as place:
        with occupied(tmp_path):
            clear(tmp_path, place.marker)
            assert (tmp_path / FOLDER).exists()
        with claim(tmp_path, "a-s1"):
            clear(tmp_path, place.marker)  # what is held stays held
            assert [each.run_id for each in running(tmp_path)] == ["a-s1"]
        clear(tmp_path, place.marker)
    assert list(tmp_path.iterdir()) == []


def test_what_others_run_is_not_run_again(tmp_path: Path) -> None:
    """Seed 0 has ended since the plan was made, 1 is being run and ends, 2 is left by whoever had it, 3 is free."""
    plan = make_plan([Planned(CLEAN, (0, 1, 2, 3))], tmp_path)
    with claim(tmp_path, Run(CLEAN, 0).id) as theirs:
        assert theirs is not None
        theirs.end()
    done, held = threading.Event(), threading.Barrier(3)

    def elsewhere(seed: int, ends_it: bool) -> None:
        with claim(tmp_path, Run(CLEAN, seed).id) as mine:
            assert mine is not None
            held.wait()
            done.wait()
            if ends_it:
                mine.end()

    threads = [threading.Thread(target=elsewhere, args=each) for each in ((1, True), (2, False))]
    for thread in threads:
        thread.start()
    held.wait()
    told: list[tuple[str, int]] = []

    class Told:
        def started(self, run: Run) -> None:
            told.append(("started", run.seed))

        def evaluated(self, run: Run, step: object) -> None:
            """Nothing."""

        def finished(self, run: Run, outcome: Outcome) -> None:
            told.append((outcome.status, run.seed))
            if run.seed == 3:
                done.set()

    summary = run_plan(plan, results=tmp_path, jobs=1, reporter=Told())
    for thread in threads:
        thread.join()
    assert {run.seed: each.status for run, each in summary.outcomes.items()} == {
        0: "elsewhere", 1: "elsewhere", 2: "ok", 3: "ok",
    }  # fmt: skip
    assert sorted(told) == [("elsewhere", 0), ("elsewhere", 1), ("ok", 2), ("ok", 3), ("started", 2), ("started", 3)]
    assert summary.exit_code == summary.left == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        path_of(tmp_path, CLEAN.id, n).name for n in (2, 3)
    )


@pytest.mark.parametrize("parts", [1, 2, 3, 7])
def test_shards_are_all_runs_and_each_once(tmp_path: Path, parts: int) -> None:
    planned = [Planned(CLEAN, (0, 1, 2)), Planned(Scenario("longtail-small", "ncf"), (0, 4))]
    whole = make_plan(planned, tmp_path).todo
    pieces = [make_plan(planned, tmp_path, shard=(part, parts)).todo for part in range(1, parts + 1)]
    assert sorted(run.id for piece in pieces for run in piece) == sorted(run.id for run in whole)
    assert max(map(len, pieces)) - min(map(len, pieces)) <= 1


def test_whatever_else_lies_there_is_left_alone(tmp_path: Path) -> None:
    """Links, pipes, folders and files of any content: nothing is written through them, waited for, or removed."""
    results, mine = tmp_path / "results", tmp_path / "mine"
    folder = results / FOLDER
    folder.mkdir(parents=True)
    mine.write_text("precious")
    (folder / "link-s0").symlink_to(mine)
    (folder / "folder-s0").mkdir()
    if hasattr(os, "mkfifo"):
        os.mkfifo(folder / "pipe-s0")
        os.mkfifo(results / ".fedbench-0.tmp")
    for name, text in {
        "deep": "[" * 4096, "other": "3", "types": '{"ended": [1], "process": "x", "host": {}}', "bytes": "\x00\x1b[2J",
    }.items():  # fmt: skip
        (folder / f"{name}-s0").write_text(text)
    assert ends(results) == {"deep-s0": "", "other-s0": "", "types-s0": "[1]", "bytes-s0": ""}
    for name in ("link-s0", "folder-s0", "pipe-s0"):
        with claim(results, name) as found:
            assert found is not None
            found.end()
    with claim(results, "types-s0") as found:
        assert found is not None
        assert [(each.run_id, each.process == os.getpid()) for each in running(results)] == [("types-s0", True)]
    assert mine.read_text() == "precious"
    with occupied(results) as place:
        clear(results, place.marker)
    assert (folder / "link-s0").is_symlink()


def test_a_folder_of_claims_that_leads_elsewhere_is_none(tmp_path: Path) -> None:
    results, other = tmp_path / "results", tmp_path / "other"
    results.mkdir()
    other.mkdir()
    (other / "precious").write_text("{}")
    (results / FOLDER).symlink_to(other)
    with occupied(results) as place, claim(results, "a-s0") as mine:
        assert mine is not None
        mine.end()
        clear(results, place.marker)
    assert ends(results) == {}
    assert running(results) == []
    assert [path.name for path in other.iterdir()] == ["precious"]
