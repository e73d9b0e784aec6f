"""Image attacks tried at one moment of training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from typer.testing import CliRunner

from fedbench.cli import app
from fedbench.errors import UserError
from fedbench.evaluation.measurement import Measurement
from fedbench.federation.images import ReplacedImages
from fedbench.federation.simulation import Federation
from fedbench.inspection.snapshot import Rows, Standing, Try, snapshots
from fedbench.runs.task import split_of, task_of
from fedbench.scenarios.scenario import Scenario

QUICK = {"epochs": 3, "clients_per_round": 64, "learning_rate": 0.01}


def scenario(model: str = "vncf", defense: str = "none", **model_params: object) -> Scenario:
    return Scenario(
        "longtail-small",
        model,
        defense=defense,
        protocol="tois",
        target="least-popular-with-image",
        model_params={"extractor": "random-conv", **model_params},
        protocol_params=QUICK,
    )


@pytest.fixture(scope="module")
def rows() -> Rows:
    tries = [Try("psmu-v", {"eps": 0}), Try("psmu-v", {"eps": 16, "steps": 8})]
    (found,) = snapshots(scenario(), 0, [2], tries, targets=2)
    return found


def test_every_attack_is_tried_on_every_target(rows: Rows) -> None:
    assert [(row["attack_params"]["eps"], row["group"]) for row in rows] == [
        (eps, group) for eps in (0, 16) for group in ("cold", "cold", "popular", "popular")
    ]
    assert max(row["popularity"] for row in rows[:2]) < min(row["popularity"] for row in rows[2:4])
    assert {row["epoch"] for row in rows} == {2}


def test_an_image_that_is_not_changed_changes_nothing(rows: Rows) -> None:
    for row in rows[:4]:
        assert (row["change"], row["cosine"]) == (0, pytest.approx(1, abs=1e-5))
        assert row["er_5"] == pytest.approx(row["er_5_before"], abs=0.02), "scores are computed another way"
    assert all(0 < row["change"] <= 16 and row["psnr"] < 40 for row in rows[4:])


@pytest.mark.parametrize("model", ["vncf", "lightvgcn"])
def test_exposure_is_that_of_the_evaluator(model: str) -> None:
    """Of every target by itself, with its new image in force and all others as they were."""
    of = scenario(model)
    split = split_of(of, 0)
    targets = [3, 50, 200]
    task = task_of(replace(of, target="fixed:" + ",".join(map(str, targets))), split, torch.device("cpu"))
    r = of.resolved
    federation = Federation(task, r.model, r.attack(), r.defense(), 0.0, r.protocol, 0)
    for _ in range(3):
        federation.train_epoch()
    assert federation.gallery is not None
    standing = Standing.of(federation)
    rates = []
    for item in targets:
        white = torch.full_like(federation.gallery.images.pixels[:1], 255)
        federation.gallery.receive(ReplacedImages(torch.tensor([item]), white), 4, torch.Generator())
        shown = replace(federation.params, features=federation.gallery.features)
        mine = standing.exposure(federation, shown, item)
        alone = Federation(
            replace(task, targets=torch.tensor([item])), r.model, r.attack(), r.defense(), 0.0, r.protocol, 0
        )
        alone.params, alone.training = shown, federation.training
        rates.append((mine, Measurement(alone, split)()["er_5"]))
        federation.gallery.features = federation.params.features
    assert [mine for mine, _ in rates] == pytest.approx([theirs for _, theirs in rates], abs=0.01)


def test_what_cannot_be_tried() -> None:
    with pytest.raises(UserError, match="attack 'psmu' replaces no images"):
        next(snapshots(scenario(), 0, [1], [Try("psmu", {})]))
    ncf = replace(scenario(), model="ncf", model_params={})
    with pytest.raises(UserError, match="model 'ncf' does not look at images"):
        next(snapshots(ncf, 0, [1], [Try("psmu-v", {})]))


def test_the_command_keeps_what_was_tried(tmp_path: Path) -> None:
    out = tmp_path / "tried.parquet"
    args = ["vision", "snapshot", "longtail-small", "--out", str(out), "--epoch", "1", "--targets", "1", "--eps", "2"]
    args += ["--model-params", '{"extractor": "random-conv"}', "--attack-params", '{"steps": 2}', "--defense", "blur"]
    first = CliRunner().invoke(app, args, catch_exceptions=False)
    assert first.exit_code == 0, first.output
    assert "1 cold" in first.stdout
    table = pq.read_table(out)
    assert table.num_rows == 2
    assert {"er_5", "similarity", "detection_auc", "scenario_id"} <= set(table.column_names)
    before = out.stat().st_mtime_ns
    assert CliRunner().invoke(app, args, catch_exceptions=False).exit_code == 0
    assert out.stat().st_mtime_ns == before, "nothing is tried twice"
