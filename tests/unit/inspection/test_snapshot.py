"""Image attacks tried at one moment of training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

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

QUICK = {
    "vncf": {"epochs": 3, "clients_per_round": 400, "learning_rate": 0.005},
    "lightvgcn": {"epochs": 3, "clients_per_round": 64, "learning_rate": 0.003},
}


def scenario(model: str = "lightvgcn", defense: str = "none") -> Scenario:
    return Scenario(
        "longtail-small",
        model,
        defense=defense,
        protocol="tois",
        target="least-popular-with-image",
        model_params={"extractor": "random-conv"},
        protocol_params=QUICK[model],
    )


@pytest.fixture(scope="module")
def rows() -> Rows:
    tries = [Try("psmu-v", {"eps": 0}), Try("psmu-v", {"eps": 16, "steps": 4})]
    (found,) = snapshots(scenario(), 0, [2], tries, targets=4)
    return found


def test_every_attack_is_tried_on_every_target(rows: Rows) -> None:
    assert [(row["attack_params"]["eps"], row["group"]) for row in rows] == [
        (eps, group) for eps in (0, 16) for group in ("cold",) * 4 + ("popular",) * 4
    ]
    assert max(row["popularity"] for row in rows[:4]) < min(row["popularity"] for row in rows[4:8])
    assert {row["epoch"] for row in rows} == {2}


def test_an_image_that_is_not_changed_changes_nothing(rows: Rows) -> None:
    for row in rows[:8]:
        assert (row["change"], row["cosine"]) == (0, pytest.approx(1, abs=1e-5))
        assert row["er_5"] == pytest.approx(row["er_5_before"], abs=0.02), "scores are computed another way"
    assert max(row["er_5_before"] for row in rows) > 0.02
    assert all(0 < row["change"] <= 16 and row["psnr"] < 40 for row in rows[8:])


@pytest.mark.parametrize("model", ["vncf", "lightvgcn"])
def test_exposure_is_that_of_the_evaluator(model: str) -> None:
    """Of every target by itself, with its new image in force and all others as they were."""
    of = scenario(model)
    split = split_of(of, 0)
    task = task_of(replace(of, target="none"), split, torch.device("cpu"))
    r = of.resolved
    federation = Federation(task, r.model, r.attack(), r.defense(), 0.0, r.protocol, 0)
    for _ in range(2):
        federation.train_epoch()
    gallery = federation.gallery
    assert gallery is not None
    standing = Standing.of(federation)
    # Those that are recommended most now, and a popular one that is not.
    shown = torch.bincount(standing.items.flatten(), minlength=split.num_items)[gallery.with_image]
    targets = [*gallery.with_image[torch.argsort(shown, descending=True)[:3]].tolist(), 381]
    rates = []
    for item in targets:
        brighter = gallery.images.pixels[[item]].clamp(max=252) + 3
        gallery.receive(ReplacedImages(torch.tensor([item]), brighter), 4, torch.Generator())
        changed = replace(federation.params, features=gallery.features)
        mine = standing.exposure(federation, changed, item)
        alone = Federation(
            replace(task, targets=torch.tensor([item])), r.model, r.attack(), r.defense(), 0.0, r.protocol, 0
        )
        alone.params, alone.training = changed, federation.training
        rates.append((mine, Measurement(alone, split)()["er_5"]))
        gallery.features = federation.params.features
    assert [mine for mine, _ in rates] == pytest.approx([theirs for _, theirs in rates], abs=0.01)
    assert max(mine for mine, _ in rates) > 0.05


def test_only_what_is_missing_is_tried() -> None:
    tries = [Try("psmu-v", {"eps": eps, "steps": 1}) for eps in (2, 8)]
    (first,) = snapshots(scenario(defense="blur"), 0, [1], tries[:1], targets=1)
    there = {(row["epoch"], row["attack_params"]["eps"], row["item"]): row for row in first}
    told: list[str] = []

    def known(epoch: int, one: Try, item: int) -> dict[str, Any] | None:
        return there.get((epoch, one.params["eps"], item))

    def again(epochs: list[int], tries: list[Try], targets: int) -> list[Rows]:
        told.clear()
        return [*snapshots(scenario(defense="blur"), 0, epochs, tries, targets, progress=told.append, known=known)]

    assert again([1], tries[:1], 1) == []
    assert told == [], "nothing is trained"
    second, later = again([1, 2], tries[1:], 1)
    assert [(row["epoch"], row["attack_params"]["eps"]) for row in (*second, *later)] == [(1, 8)] * 2 + [(2, 8)] * 2
    there |= {(1, 8, row["item"]): row for row in second}
    (more,) = again([1], tries, 2)
    assert len(more) == 8
    assert sum("target" in text for text in told) == 4
    assert [row["er_5"] for row in more if row["item"] in {each["item"] for each in first}][:2] == [
        row["er_5"] for row in first
    ]
    whole = [*snapshots(scenario(defense="blur"), 0, [1], tries, targets=2)]
    assert [more] == whole, "as if all had been tried at once, detection among all targets too"


def test_what_cannot_be_tried() -> None:
    with pytest.raises(UserError, match="attack 'psmu' replaces no images"):
        next(snapshots(scenario(), 0, [1], [Try("psmu", {})]))
    with pytest.raises(UserError, match="defense 'median' cleans no images"):
        next(snapshots(scenario(defense="median"), 0, [1], [Try("psmu-v", {})]))
    args = ["vision", "snapshot", "longtail-small", "--out", "x.parquet", "--model", "mf"]
    refused = CliRunner().invoke(app, args)
    assert refused.exit_code == 2
    assert "model 'mf' does not look at images" in refused.output
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
    more = [*args, "--defense-params", '{"radius": 3}', "--epoch", "2", "--eps", "4"]
    assert "blur radius=3" in CliRunner().invoke(app, more, catch_exceptions=False).stdout
    rows = pq.read_table(out).to_pylist()
    assert rows[:2] == table.to_pylist()
    assert sorted((row["defense_params"], row["epoch"], row["attack_params"]) for row in rows[::2]) == [
        ('{"radius": 3}', epoch, f'{{"eps": {eps}, "steps": 2}}') for epoch in (1, 2) for eps in (2.0, 4.0)
    ] + [("{}", 1, '{"eps": 2.0, "steps": 2}')]
