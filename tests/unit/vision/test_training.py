from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fedbench.errors import DataError, UserError
from fedbench.vision.scenes import scene, toned
from fedbench.vision.training import CHECKPOINT, RECORD, Trained, Training, curve, train
from fedbench.vision.training_images import Pool, read_folder

pytest.importorskip("diffusers")

TINY = Training(size=16, channels=(8, 8), steps=6, batch=2, warmup=2, decay=3, synthetic_share=0.5)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A photograph-like image, one with a transparent ground, a small grey one, and three files that are no image."""
    place = tmp_path / "images"
    (place / "deep").mkdir(parents=True)
    random = np.random.default_rng(0)
    Image.fromarray(random.integers(0, 256, (90, 200, 3), dtype=np.uint8)).save(place / "b.jpg")
    sign = np.zeros((40, 30, 4), dtype=np.uint8)
    sign[10:30, 5:25] = (200, 30, 10, 255)
    Image.fromarray(sign).save(place / "deep" / "a.png")
    Image.fromarray(random.integers(0, 256, (7, 9), dtype=np.uint8)).save(place / "c.png")
    (place / "d.png").write_bytes(b"no image")
    (place / "e.jpg").write_bytes((place / "b.jpg").read_bytes()[:400])
    (place / "notes.txt").write_text("no image")
    return place


def test_folder_is_read_in_order_and_what_is_no_image_is_skipped(folder: Path) -> None:
    told: list[tuple[int, int]] = []
    found = read_folder(folder, 16, lambda done, of: told.append((done, of)))
    assert [image.shape for image in found.images] == [(29, 64, 4), (7, 9, 4), (40, 30, 4)]
    assert found.skipped == ["d.png", "e.jpg"]
    assert told[-1] == (5, 5)
    assert found.fingerprint == read_folder(folder, 16).fingerprint
    (folder / "c.png").rename(folder / "f.png")
    assert found.fingerprint != read_folder(folder, 16).fingerprint
    with pytest.raises(DataError, match="is not a folder"):
        read_folder(folder / "b.jpg", 16)
    (folder / "none").mkdir()
    with pytest.raises(DataError, match="there is no image in"):
        read_folder(folder / "none", 16)


def test_pictures_depend_on_seed_and_step_alone(folder: Path) -> None:
    pool = Pool(read_folder(folder, 16).images, 16, 0.3, 5)
    batch = pool.batch(3, 24)
    assert batch.shape == (24, 3, 16, 16)
    assert batch.dtype == torch.float32
    assert -1 <= float(batch.min()) < float(batch.max()) <= 1
    pool.batch(4, 2)
    assert torch.equal(pool.batch(3, 24), batch)
    assert torch.equal(pool.batch(3, 4), batch[:4])
    assert not torch.equal(pool.batch(4, 24), batch)
    assert not torch.equal(Pool(pool.images, 16, 0.3, 6).batch(3, 24), batch)


def test_generated_pictures_are_varied() -> None:
    pictures = [toned(random, scene(random, 32)) for random in map(np.random.default_rng, range(24))]
    assert all(picture.shape == (32, 32, 3) and picture.dtype == np.uint8 for picture in pictures)
    brightness = [picture.mean() for picture in pictures]
    assert max(brightness) - min(brightness) > 80
    assert sum(picture.std() > 20 for picture in pictures) >= 12


def test_rate_by_hand() -> None:
    training = Training(steps=10, warmup=2, decay=4, learning_rate=1.0)
    expected = [0.5, 1, 1, 1, 1, 1, 1, (1 + math.cos(math.pi / 4)) / 2, 0.5, (1 - math.cos(math.pi / 4)) / 2]
    assert [training.rate(step) for step in range(10)] == pytest.approx(expected)


def test_training_that_was_killed_goes_on_to_the_same_weights(folder: Path, tmp_path: Path) -> None:
    images = read_folder(folder, 16)
    told: list[Trained] = []
    whole = train(TINY, images, tmp_path / "whole", every=4, progress=told.append)
    assert [each.step for each in told] == [1, 2, 3, 4, 5, 6]

    def killed(now: Trained) -> None:
        if now.step == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(TINY, images, tmp_path / "halves", every=2, progress=killed)
    later: list[Trained] = []
    halves = train(TINY, images, tmp_path / "halves", resume=True, every=2, progress=later.append)
    assert [each.step for each in later] == [5, 6]
    assert whole["weights"] == halves["weights"]
    assert whole["loss"] == halves["loss"]
    assert halves["images"] == {"count": 3, "skipped": 2, "sha256": images.fingerprint}
    kept = json.loads((tmp_path / "halves" / RECORD).read_text())
    assert kept == json.loads(json.dumps(halves))
    again = train(TINY, images, tmp_path / "halves", resume=True)
    assert again["weights"] == whole["weights"]


@pytest.mark.slow
def test_a_kill_loses_the_steps_since_the_last_checkpoint_only(tmp_path: Path) -> None:
    program = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from fedbench.vision.training import Training, train\n"
        "def told(now):\n"
        "    if now.step == 5:\n"
        "        print(flush=True)\n"
        "        time.sleep(600)\n"
        "fields = dict(size=16, channels=(8, 8), steps=6, batch=2, warmup=2, decay=3, synthetic_share=0.5)\n"
        "train(Training(**fields), None, Path(sys.argv[1]), every=2, progress=told)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program, tmp_path / "killed"], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline(), "step 5 is done, and the checkpoint of step 4 written"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    later: list[int] = []
    went = train(TINY, None, tmp_path / "killed", resume=True, every=2, progress=lambda now: later.append(now.step))
    assert later == [5, 6]
    assert went["weights"] == train(TINY, None, tmp_path / "whole")["weights"]


def test_average_of_weights_is_what_is_kept(tmp_path: Path) -> None:
    """One step: the average moved by ``1 - 2 / 11`` of the way from the first weights to the new ones."""
    training = Training(size=16, channels=(8, 8), steps=1, batch=2, synthetic_share=1)
    train(training, None, tmp_path, every=1)
    state = torch.load(tmp_path / CHECKPOINT, weights_only=True)
    name = "conv_in.weight"
    moved = state["network"][name] - state["average"][name]
    step = training.rate(0)  # Adam's first step is the rate in every weight
    torch.testing.assert_close(moved.abs(), torch.full_like(moved, step * 2 / 11), rtol=1e-2, atol=1e-7)


def test_a_longer_training_goes_on_until_the_rate_falls(tmp_path: Path) -> None:
    train(TINY, None, tmp_path / "a", every=3)
    longer = Training(**{**TINY.__dict__, "steps": 9})
    with pytest.raises(UserError, match=r"steps = 6 there, 9 here. It is past the step .* \(6 done\)"):
        train(longer, None, tmp_path / "a", resume=True)

    def killed(now: Trained) -> None:
        if now.step == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(TINY, None, tmp_path / "b", every=3, progress=killed)
    went = train(longer, None, tmp_path / "b", resume=True)
    assert went["weights"] == train(longer, None, tmp_path / "c")["weights"]


def test_errors(folder: Path, tmp_path: Path) -> None:
    train(TINY, None, tmp_path / "out", every=3)
    with pytest.raises(UserError, match="exists: go on with --resume"):
        train(TINY, None, tmp_path / "out")
    with pytest.raises(UserError, match="of another training: seed = 0 there, 1 here"):
        train(Training(**{**TINY.__dict__, "seed": 1}), None, tmp_path / "out", resume=True)
    with pytest.raises(UserError, match="images = None there"):
        train(TINY, read_folder(folder, 16), tmp_path / "out", resume=True)
    (tmp_path / "out" / CHECKPOINT).write_bytes(b"torn")
    with pytest.raises(DataError, match="is no checkpoint"):
        train(TINY, None, tmp_path / "out", resume=True)
    for options, text in (
        ({"steps": 0}, "steps = 0 must be at least 1"),
        ({"t_max": 1001}, "from 1 to 1000"),
        ({"synthetic_share": 2.0}, "from 0 to 1"),
        ({"learning_rate": 0.0}, "learning_rate = 0.0 must be above 0"),
        ({"size": 30}, "multiple of"),
    ):
        with pytest.raises(UserError, match=text):
            Training(**options)  # type: ignore[arg-type]


def test_curve_has_means_of_stretches() -> None:
    assert curve([]) == []
    assert curve([1.0, 3.0, 5.0], points=2) == [(2, 2.0), (3, 5.0)]


def test_loss_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from fedbench.vision.training import picture_of_loss

    picture_of_loss({"loss": [(10, 0.5), (20, 0.2)], "seed": 0}, tmp_path / "loss.png")
    assert (tmp_path / "loss.png").stat().st_size > 1000
