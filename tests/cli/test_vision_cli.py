from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fedbench.cli import app

pytest.importorskip("diffusers")

TRAIN = ["vision", "train-denoiser", "--steps", "2", "--batch", "1", "--size", "16", "--out"]


def test_train_denoiser_writes_what_it_says_and_refuses_to_do_it_twice(tmp_path: Path) -> None:
    out = tmp_path / "made"
    result = CliRunner().invoke(app, [*TRAIN, str(out), "--t-max", "50", "--json"])
    assert result.exit_code == 0, result.output
    record = json.loads(result.stdout)
    assert (record["steps"], record["t_max"], record["synthetic_share"]) == (2, 50, 1.0)
    assert {path.name for path in out.iterdir()} == {
        "model.safetensors",
        "config.json",
        "training.json",
        "checkpoint.pt",
        "loss.png",
    }
    again = CliRunner().invoke(app, [*TRAIN, str(out), "--t-max", "50"])
    assert again.exit_code == 2
    assert "go on with --resume" in again.output
    resumed = CliRunner().invoke(app, [*TRAIN, str(out), "--t-max", "50", "--resume"])
    assert resumed.exit_code == 0
    assert "1,699,148" in resumed.output


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--device", "nowhere"], "--device nowhere is not there"),
        (["--t-max", "0"], "t_max = 0 must be from 1 to 1000"),
        (["no-such-folder"], "is not a folder"),
    ],
)
def test_bad_options_are_one_line(tmp_path: Path, options: list[str], text: str) -> None:
    result = CliRunner().invoke(app, [*TRAIN, str(tmp_path), *options])
    assert result.exit_code == 2
    assert text in result.output
    assert "Traceback" not in result.output
