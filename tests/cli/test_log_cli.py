"""``fedbench run --log``: every evaluation, in files and tools that watch; a tool that fails stops no run."""

from __future__ import annotations

import csv
import sys
import types
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from tiny_suite import SUITE
from typer.testing import CliRunner

from fedbench.cli import app
from fedbench.runs.logs import Logging
from fedbench.runs.plan import Run
from fedbench.runs.reporting import BY_OTHERS, Outcome, Silent
from fedbench.runs.worker import Step
from fedbench.scenarios.scenario import Scenario

RUN = Run(Scenario("longtail-small", "mf", "a-ra", malicious_ratio=0.05), 3)
STEP = Step(10, 20, {"er_10": 0.25, "hr_10": 0.5})
OK = Outcome("ok", None, 1.0, {})


class Wandb(types.ModuleType):
    """Stands in for the package: what it was told."""

    def __init__(self, broken: bool = False) -> None:
        super().__init__("wandb")
        self.__spec__ = types.SimpleNamespace()  # type: ignore[assignment]
        self.told: list[tuple[str, Any]] = []
        self.summary: dict[str, str] = {}
        self._broken = broken

    def init(self, **options: Any) -> Wandb:
        if self._broken:
            raise RuntimeError("no\nnetwork")
        self.told.append(("init", options))
        return self

    def log(self, metrics: dict[str, float], step: int) -> None:
        self.told.append(("log", (step, metrics)))

    def finish(self, exit_code: int) -> None:
        self.told.append(("finish", exit_code))


def test_every_evaluation_is_in_a_csv_file(tmp_path: Path) -> None:
    (tmp_path / "tiny.toml").write_text(SUITE)
    results = tmp_path / "results"
    done = CliRunner().invoke(
        app, ["run", str(tmp_path / "tiny.toml"), "--results", str(results), "--jobs", "1", "--log", "csv"]
    )
    assert done.stdout.startswith("done: 2 runs: 2 ok"), done.stderr
    for row in pq.read_table(results).to_pylist():
        with (results / "_logs" / f"{row['run_id']}.csv").open() as stream:
            lines = list(csv.DictReader(stream))
        assert [int(line["epoch"]) for line in lines] == [1, 2] == [point["epoch"] for point in row["curve"]]
        assert float(lines[-1]["hr_10"]) == row["hr_10"]
    ranked = CliRunner().invoke(app, ["leaderboard", "--results", str(results)])
    assert ranked.exit_code == 0
    assert "no whole record" not in ranked.stderr


def test_what_is_told_to_wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = Wandb()
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    log = Logging(["wandb", "wandb"], Silent(), tmp_path, "tiny", pytest.fail)
    log.started(RUN)
    log.evaluated(RUN, Step(0, 0, {}, "reading"))
    log.evaluated(RUN, STEP)
    log.finished(RUN, OK)
    (begin, options), *rest = wandb.told
    assert begin == "init"
    assert (options["project"], options["group"]) == ("fedbench", "tiny")
    assert options["name"] == f"longtail-small_mf_a-ra_none_5%_s3_{RUN.scenario.id[:8]}"
    assert (options["config"]["attack"], options["config"]["seed"]) == ("a-ra", 3)
    assert rest == [("log", (10, STEP.metrics)), ("finish", 0)]
    assert wandb.summary == {"status": "ok"}


def test_tensorboard_has_a_curve_for_each_metric(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log = Logging(["tensorboard"], Silent(), tmp_path, "tiny", pytest.fail)
    log.started(RUN)
    log.evaluated(RUN, STEP)
    log.finished(RUN, OK)
    (folder,) = (tmp_path / "_logs" / "tensorboard").iterdir()
    events = EventAccumulator(str(folder)).Reload()
    assert [(each.step, each.value) for each in events.Scalars("er_10")] == [(10, 0.25)]


def test_a_tool_that_fails_is_told_once_and_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", Wandb(broken=True))
    told: list[str] = []
    log = Logging(["wandb", "csv"], Silent(), tmp_path, "tiny", told.append)
    other = Run(RUN.scenario, 4)
    for run in (RUN, other):
        log.started(run)
        log.evaluated(run, STEP)
    log.finished(RUN, OK)
    log.finished(Run(RUN.scenario, 5), BY_OTHERS)
    log.close()
    assert told == ["--log wandb is left out from now on: RuntimeError: no network"]
    for run in (RUN, other):
        assert (tmp_path / "_logs" / f"{run.id}.csv").read_text() == "epoch,er_10,hr_10\n10,0.25,0.5\n"


def test_a_folder_that_takes_no_files_is_told_once(tmp_path: Path) -> None:
    (tmp_path / "_logs").write_text("")
    told: list[str] = []
    log = Logging(["csv"], Silent(), tmp_path, "tiny", told.append)
    log.started(RUN)
    log.evaluated(RUN, STEP)
    assert len(told) == 1
    assert told[0].startswith("--log csv is left out from now on: ResultsError: cannot write ")


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ("tensorbord", "Unknown log 'tensorbord'. Did you mean 'tensorboard'?"),
        (
            "wandb",
            "--log wandb needs packages that are not installed: pip install '.[wandb]' in a checkout of fedbench.",
        ),
    ],
)
def test_mistakes_are_one_line(form: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedbench.runs.logs.importlib.util.find_spec", lambda name: None)
    done = CliRunner().invoke(app, ["run", "smoke", "--log", form, "--results", str(tmp_path)])
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr == f"error: {message}\n"
