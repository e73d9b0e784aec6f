"""GPUs that share the runs of a suite."""

from __future__ import annotations

import dataclasses
import os
import sys
from pathlib import Path

import pytest
import torch
from records import record, write
from tiny_suite import SUITE
from typer.testing import CliRunner

from fedbench.cli import app
from fedbench.cli.options import choose_device
from fedbench.errors import UserError
from fedbench.federation.modes import Modes
from fedbench.runs import devices
from fedbench.runs.calibration import Faster
from fedbench.runs.devices import CONTEXT, KIN, SHARE, VISIBLE, Memory, Room, fewest, is_list, numbers, see_only
from fedbench.runs.execution import Plan, Run, Summary, default_jobs, make_plan, run_plan
from fedbench.runs.plan import without_room
from fedbench.runs.results import scan
from fedbench.runs.run import repeatable
from fedbench.runs.worker import memory
from fedbench.scenarios.scenario import Scenario
from fedbench.scenarios.suite import Planned

CLEAN = Scenario("longtail-small", "mf", protocol_params={"epochs": 1, "evaluate_every": 1})
ATTACKED = dataclasses.replace(CLEAN, attack="random", malicious_ratio=0.05)
OTHER = dataclasses.replace(CLEAN, model="ncf")
GIB = 2**30


@pytest.mark.parametrize(
    ("device", "expected"),
    [("cpu", []), ("cuda", [0]), ("cuda:1", [1]), ("cuda:0,cuda:3", [0, 3]), ("cuda,cuda:1", [0, 1])],
)
def test_lists(device: str, expected: list[int]) -> None:
    assert numbers(device) == expected
    assert is_list(device) == bool(expected)
    if expected:
        assert default_jobs(device) == len(expected)


@pytest.mark.parametrize(
    "device", ["", "cuda:", "cuda:0,cpu", "cuda:0,cuda:0", "cuda,cuda:0", "cuda:a", "gpu", "cuda:-1"]
)
def test_what_is_no_list(device: str, tmp_path: Path) -> None:
    assert not is_list(device)
    with pytest.raises(UserError, match="must be cpu, cuda, or GPUs such as"):
        run_plan(make_plan([Planned(CLEAN, (0,))], tmp_path), results=tmp_path, device=device)


def test_a_process_sees_one_of_those_that_it_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VISIBLE, "")  # and as it was, afterwards
    see_only(2)
    assert devices.os.environ[VISIBLE] == "2"
    monkeypatch.setenv(VISIBLE, "4, GPU-5")
    see_only(1)
    assert devices.os.environ[VISIBLE] == "GPU-5"


def test_a_new_worker_goes_where_the_fewest_are() -> None:
    assert fewest([0, 1, 2], {}) == 0
    assert fewest([0, 1, 2], {0: 2, 1: 1, 2: 1}) == 1
    assert fewest([], {}) is None


def test_room() -> None:
    """Nobody knows what a first run takes, so it is alone; then as many as the memory holds."""
    room = Room(alone=[Run(CLEAN, 9)])
    room.measured(0, Memory(16 * GIB, 0))
    room.measured(0, Memory(1, 0))  # a second worker, when the first has begun
    room.begin(0, Run(CLEAN, 0))
    assert not room.fits(0, Run(CLEAN, 1))
    assert room.fits(1, Run(CLEAN, 1)), "another GPU, of which nothing is known"
    room.end(0, Run(CLEAN, 0), Memory(16 * GIB, 4 * GIB))
    fit = int(SHARE * 16 * GIB // (4 * GIB + CONTEXT))
    for seed in range(fit):
        assert room.fits(0, Run(CLEAN, seed))
        room.begin(0, Run(CLEAN, seed))
    assert not room.fits(0, Run(CLEAN, fit))
    room.end(0, Run(CLEAN, 0))
    assert room.fits(0, Run(CLEAN, fit)), "it was killed, and not measured"
    assert not room.fits(0, Run(CLEAN, 9)), "it had not memory enough before"
    assert not room.fits(0, Run(OTHER, 0)), "no run of that model is known"
    for seed in range(1, fit):
        room.end(0, Run(CLEAN, seed))
    assert room.fits(0, Run(CLEAN, 9)), "nobody else is there"


def test_kin_of_a_run_that_was_measured() -> None:
    """The kind is not known, but its dataset and model."""
    need = KIN * 2 * GIB + CONTEXT
    for free, fits in ((need + 2 * GIB + CONTEXT + 1, True), (need + 2 * GIB + CONTEXT - 1, False)):
        room = Room()
        room.measured(0, Memory(int(free / SHARE) + 1, 0))
        room.end(0, Run(CLEAN, 0), Memory(0, 2 * GIB))
        room.begin(0, Run(CLEAN, 1))
        assert room.fits(0, Run(ATTACKED, 0)) == fits


def test_runs_take_turns_on_two_gpus_and_fill_them(tmp_path: Path) -> None:
    plan = make_plan([Planned(CLEAN, tuple(range(12)))], tmp_path)
    summary = run_plan(
        plan, results=tmp_path, jobs=6, device="cuda:0,cuda:1", execute="fake_runs:on_gpu",
        measure="fake_runs:twelve_gigabytes",
    )  # fmt: skip
    assert summary.count("ok") == 12
    said = [text.split() for text in scan([tmp_path]).table["error"].to_pylist()]
    assert {(kind, gpu) for kind, gpu, *_ in said} == {("cuda", "0"), ("cuda", "1")}
    for gpu in "01":
        spans = [(float(begin), float(end)) for _, place, begin, end in said if place == gpu]
        most = max(sum(begin <= moment < end for begin, end in spans) for moment, _ in spans)
        assert most == 2, "three workers, and room for two runs"
    begins, ends = zip(*((float(begin), float(end)) for _, _, begin, end in said), strict=True)
    assert sum(begin < min(ends) for begin in begins) == 2, "as long as nothing was measured, one on each"


def test_cores_run_beside_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each where it was sent, by as many workers, at the same time; a worker that dies is replaced by one of its kind."""
    monkeypatch.setenv("FAKE_RUNS_MEET", str(tmp_path / "met"))
    (tmp_path / "met").mkdir()
    runs = [Run(CLEAN, seed) for seed in range(8)]
    plan = make_plan([Planned(CLEAN, tuple(range(8)))], tmp_path)
    summary = run_plan(
        plan, results=tmp_path, jobs=1, device="cuda", execute="fake_runs:on_gpu_or_dies",
        measure="fake_runs:twelve_gigabytes", cores=runs[2:], core_jobs=2,
    )  # fmt: skip
    assert (summary.count("ok"), summary.count("failed")) == (7, 1)
    rows = scan([tmp_path]).table.select(["seed", "status", "error"]).to_pylist()
    said = {row["seed"]: row["error"] for row in rows if row["status"] == "ok"}
    assert said == {0: "cuda 0", 1: "cuda 0", **dict.fromkeys(range(3, 8), "cpu none")}
    assert len(list((tmp_path / "met").iterdir())) == 3, "one on the GPU, two on the CPU"


def test_auto_asks_which_are_faster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is a GPU, and nobody has said where to run."""
    from fedbench.runs import execution

    told: dict[str, object] = {}

    def remember(plan: Plan, **options: object) -> Summary:
        told.update(options)
        return Summary(total=0)

    asked: list[Run] = []

    def on_cores(self: Faster, runs: list[Run]) -> frozenset[Run]:
        told.update(at_once=(self.cores, self.gpu_jobs))
        asked.extend(runs)
        return frozenset(runs[1:])

    monkeypatch.setattr(execution, "run_plan", remember)
    monkeypatch.setattr(Faster, "on_cores", on_cores)
    module = sys.modules["fedbench.cli.run"]  # as an attribute of the package it is the command
    monkeypatch.setattr(module, "choose_device", lambda name, here: "cpu" if name == "cpu" else "cuda")
    tiny = tmp_path / "tiny.toml"
    tiny.write_text(SUITE)
    command = ["run", str(tiny), "--results", str(tmp_path / "r")]
    for more, cores in ((["--device", "cuda"], 0), (["--device", "cpu"], 0), (["--jobs", "3"], 3), ([], None)):
        told.clear()
        asked.clear()
        done = CliRunner().invoke(app, [*command, *more])
        assert not done.exception or isinstance(done.exception, SystemExit), done.output
        if cores == 0:
            assert not asked
            assert told["cores"] == frozenset()
            assert "trying" not in done.stderr
        else:
            assert told["at_once"] == ((3, 3) if cores else (default_jobs("cpu"), 1))
            assert set(told["cores"]) == set(asked[1:])  # type: ignore[call-overload]
            assert f"{len(asked) - 1} run" in done.stderr
            assert "on the CPU, 1 on the GPU, where they end sooner." in done.stderr


def test_what_had_not_memory_enough_is_alone(tmp_path: Path) -> None:
    write(tmp_path, record(CLEAN, 0, status="failed", error="OutOfMemoryError: CUDA out of memory. Tried ..."))
    write(tmp_path, record(CLEAN, 1, status="failed", error="ValueError: no"))
    assert without_room(make_plan([Planned(CLEAN, (0, 1, 2))], tmp_path)) == [Run(CLEAN, 0)]


def test_choosing_among_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="torch sees no GPU here"):
        choose_device("cuda:0,cuda:1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert choose_device("cuda:all") == "cuda:0,cuda:1,cuda:2"
    assert choose_device("cuda:0,cuda:2") == "cuda:0,cuda:2"
    with pytest.raises(UserError, match=r"there is no cuda:3 here, the GPUs are cuda:0 to cuda:2\."):
        choose_device("cuda:0,cuda:3")
    said = CliRunner().invoke(app, ["run", "smoke", "--device", "cuda:0,cuda:0"])
    assert said.stderr.startswith("error: --device 'cuda:0,cuda:0' must be auto, cpu, cuda, cuda:all, or GPUs such as")


def test_measuring_where_there_is_no_gpu_and_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    assert memory(devices.MEASURE) is None
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda: 5)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (7, 9))
    assert memory(devices.MEASURE) == Memory(7, 5)


def test_runs_on_a_gpu_ask_torch_for_sums_in_one_order(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch.utils import deterministic

    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    before = torch.get_deterministic_debug_mode(), deterministic.fill_uninitialized_memory
    with repeatable(torch.device("cpu")):
        assert (torch.get_deterministic_debug_mode(), deterministic.fill_uninitialized_memory) == before
    with repeatable(torch.device("cuda")):
        assert torch.get_deterministic_debug_mode() == 1, "what has no such kernel warns"
        assert not deterministic.fill_uninitialized_memory
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
        modes = Modes.now()
        torch.use_deterministic_algorithms(False)
        assert modes.restore() == "deterministic"
        assert torch.get_deterministic_debug_mode() == 1
    assert (torch.get_deterministic_debug_mode(), deterministic.fill_uninitialized_memory) == before
