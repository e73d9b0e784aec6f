"""How long runs take that no record tells of."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_suite import SUITE, of_seeds
from typer.testing import CliRunner

from fedbench.cli import app
from fedbench.runs import calibration
from fedbench.runs.calibration import Cost, Faster, calibrated
from fedbench.runs.plan import Run, in_order
from fedbench.scenarios.scenario import Scenario
from fedbench.scenarios.suite import load_suite


def made(dataset: str = "longtail-small", model: str = "mf", attack: str = "none", defense: str = "none") -> Run:
    ratio = 0.0 if attack == "none" else 0.05
    return Run(
        Scenario(
            dataset=dataset,
            model=model,
            attack=attack,
            defense=defense,
            malicious_ratio=ratio,
            target="random:1",
            protocol_params={"epochs": 10, "evaluate_every": 4},
        ),
        0,
    )


def test_a_run_costs_its_epochs_and_evaluations() -> None:
    assert Cost(setup=1.0, epoch=2.0, evaluation=10.0).of(made().scenario) == 1 + 10 * 2 + 3 * 10
    assert Cost(setup=1.0, epoch=2.0, evaluation=10.0).of(made().scenario, share=0.5) == 1 + (10 * 2 + 3 * 10) / 2


def test_what_is_nearest_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "_size", {"longtail-small": 100, "longtail-huge": 1000}.__getitem__)
    costs = {
        ("longtail-small", "mf", "none", "none"): Cost(0, 1, 0),
        ("longtail-small", "mf", "a-hum", "none"): Cost(0, 3, 0),
    }
    runs = {
        made(): 10.0,
        made(attack="a-hum"): 30.0,
        made(attack="a-hum", defense="norm-bound"): 30.0,  # as without a defense
        made(attack="a-ra"): 20.0,  # the median of the dataset and model
        made("longtail-huge"): 200.0,  # ten times as many interactions
    }
    found = calibration._expected([*runs, made(model="ncf")], costs)
    assert found == runs  # of ncf nothing is known


def test_every_model_is_tried_before_a_second_attack_and_small_data_before_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FEDBENCH_DATA", raising=False)  # ml-1m is not here
    monkeypatch.setenv("FEDBENCH_CACHE", str(tmp_path))
    names = [
        (dataset, model, attack)
        for dataset in ("longtail-huge", "longtail-small")
        for model in ("mf", "ncf")
        for attack in ("none", "a-hum")
    ]
    runs = [made(*each) for each in names]
    order = [calibration._kind(run.scenario)[:3] for run in calibration._worth_trying([*runs, *runs, made("ml-1m")])]
    assert order == sorted(names, key=lambda each: (each[2] == "a-hum", each[0] == "longtail-huge", each[1]))


def test_trials_tell_and_write_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    runs = in_order(load_suite(str(suite(tmp_path, SUITE))).scenarios)
    found = calibrated(runs, "cpu")
    assert set(found) == set(runs)
    assert all(0 < seconds < 60 for seconds in found.values())
    assert calibrated(runs, "no such device", budget=1.0) == {}
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.toml"]


def test_the_cores_have_what_they_end_sooner(monkeypatch: pytest.MonkeyPatch) -> None:
    """On four cores a run may take four times as long as on one GPU, if there are four."""
    seconds = {
        "cpu": {"none": 3.9, "a-hum": 4.1, "a-ra": 1.0, "p1": 1.0},
        "cuda": {"none": 1.0, "a-hum": 1.0, "a-ra": 3.0},
    }
    asked: list[tuple[str, list[str]]] = []

    def tried(runs: list[Run], device: str, budget: float) -> dict[tuple[str, ...], Cost]:
        kinds = [calibration._kind(run.scenario) for run in runs]
        asked.append((device, [kind[2] for kind in kinds]))
        return {kind: Cost(seconds[device][kind[2]], 0, 0) for kind in kinds if kind[2] in seconds[device]}

    monkeypatch.setattr(calibration, "_tried", tried)
    runs = [made(attack=name) for name in ("none", "a-hum", "a-ra")]
    many = [Run(run.scenario, seed) for run in runs for seed in range(4)]
    faster = Faster(cores=4, gpu_jobs=1)
    assert {run.scenario.attack for run in faster.on_cores(many)} == {"none", "a-ra"}
    assert asked == [(device, ["none", "a-hum", "a-ra"]) for device in ("cpu", "cuda")]
    assert faster.on_cores(runs[:1]) == frozenset(), "one run has one core"
    assert asked[2:] == [("cpu", []), ("cuda", [])], "nothing is tried twice"
    assert Faster(cores=4, gpu_jobs=4).on_cores(many) == {run for run in many if run.scenario.attack == "a-ra"}
    unknown = Faster(cores=4, gpu_jobs=1)
    assert unknown.on_cores([made(model="ncf", attack="p1")]) == frozenset(), "which no trial on the GPU tells of"


def test_trials_on_a_gpu_that_is_not_there_send_everything_to_it() -> None:
    assert Faster(cores=2, gpu_jobs=1, budget=1.0).on_cores([made()]) == frozenset()


def suite(folder: Path, text: str) -> Path:
    (folder / "tiny.toml").write_text(text)
    return folder / "tiny.toml"


def test_a_dry_run_of_many_runs_tries_some(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = [
        "run",
        str(suite(tmp_path, of_seeds(60))),
        "--dry-run",
        "--results",
        str(tmp_path / "r"),
        "--device",
        "cpu",
    ]
    monkeypatch.setattr(calibration, "calibrated", lambda runs, device: dict.fromkeys(runs[:110], 3.0))
    done = CliRunner().invoke(app, [*asked, "--jobs", "2"])
    assert done.exit_code == 0, done.output
    assert done.stderr.startswith("no record tells how long 120 runs take: trying some for 15 s ...\n")
    assert (
        "about 2 min 45 s with 2 jobs, by trials of some epochs for 110 runs that no record tells of, and 10 runs"
        in (done.stdout)
    )
    few = CliRunner().invoke(app, [*asked, "--seeds", "2"])
    assert (few.stderr, few.stdout.splitlines()[-1]) == ("", "4 runs: 4 to run, 0 there; time unknown.")
