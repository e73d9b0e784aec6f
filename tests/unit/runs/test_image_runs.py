"""Runs of models that look at images: what their records say of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from fedbench.data import load_split
from fedbench.data.images import load_pictures
from fedbench.errors import UserError
from fedbench.federation.gallery import Upload
from fedbench.federation.simulation import Federation
from fedbench.runs.record import IMAGE_MEASURES, RunRecord
from fedbench.runs.run import run
from fedbench.runs.task import choose_targets, task_of
from fedbench.runs.uploads import image_columns
from fedbench.scenarios.scenario import Scenario


def scenario(attack: str = "none", defense: str = "none", **more: Any) -> Scenario:
    return Scenario(
        "longtail-small",
        "vncf",
        attack,
        defense,
        0.0 if attack == "none" else 0.02,
        "tois",
        "least-popular-with-image",
        model_params={"extractor": "random-conv", **more.pop("model_params", {})},
        protocol_params={"epochs": 3, "attack_start": 2, "evaluate_every": 3},
        **more,
    )


@pytest.fixture(scope="module")
def attacked() -> RunRecord:
    record = run(scenario("psmu-v", "blur", attack_params={"eps": 8, "steps": 4}), 0)
    assert record.status == "ok", record.error
    return record


def test_the_record_holds_every_upload(attacked: RunRecord) -> None:
    assert attacked.extractor == "random-conv"
    assert attacked.uploads is not None
    assert [(each["epoch"], each["item"]) for each in attacked.uploads] == [
        (2, attacked.target_items[0]),
        (3, attacked.target_items[0]),
    ]
    for each in attacked.uploads:
        assert each["change"] == 8
        assert 20 < each["psnr"] < 45
        assert 0.5 < each["ssim"] < 1
        assert -1 <= each["cosine"] < 1
        assert -1 <= each["similarity"] < 1
        assert each["flagged"] in (0, 1)
    assert attacked.images["image_psnr"] == attacked.uploads[-1]["psnr"]


def test_an_item_that_is_shown_in_every_epoch_is_detected_once() -> None:
    of = scenario("psmu-v", "blur", attack_params={"eps": 8, "steps": 2}, num_targets=3)
    task = task_of(of, load_split("longtail-small", "4:1"), torch.device("cpu"))
    r = of.resolved
    federation = Federation(task, r.model, r.attack(), r.defense(), 0.0, r.protocol, 0)
    gallery = federation.gallery
    assert gallery is not None
    a, b, c = task.targets.tolist()
    low, middle, high = gallery.held_out.min() - 0.1, gallery.held_out.median(), gallery.held_out.max() + 0.1
    for items, alike, flagged in (((a, b, c), (low, low, low), (1, 1, 1)), ((b, c), (middle, high), (0, 0))):
        which, seen = torch.tensor(items), torch.tensor(flagged, dtype=torch.bool)
        pixels, features = gallery.images.pixels[which], gallery.features[which]
        gallery.uploads.append(Upload(2, which, pixels, pixels, features, torch.tensor(alike), seen))
    found = image_columns(federation, load_split("longtail-small", "4:1"))["images"]
    assert found["detection_recall_zero_fp"] == found["detection_recall"] == pytest.approx(1 / 3)
    held = gallery.held_out
    won = len(held) + (held > middle).sum() + (held == middle).sum() / 2
    assert found["detection_auc"] == pytest.approx(float(won / (3 * len(held))))


def test_it_says_how_well_uploads_are_detected_and_what_images_look_like(attacked: RunRecord) -> None:
    row = attacked.row()
    assert set(IMAGE_MEASURES) <= set(row)
    assert 0 <= row["detection_auc"] <= 1
    assert all(0 <= row[f"detection_{name}"] <= 1 for name in ("recall_zero_fp", "recall", "false_positive_rate"))
    assert row["clean_similarity_min"] <= row["clean_similarity_mean"] < 1
    plain = run(scenario(), 0).row()
    assert plain["blur_mean"] > row["blur_mean"] > 0, "a blur leaves less of what the blur score measures"
    assert plain["clean_similarity_min"] == 1
    assert plain["uploads"] == []
    assert (plain["image_change"], plain["detection_auc"]) == (None, None)
    assert (
        plain["images_fingerprint"] == row["images_fingerprint"] == load_pictures("longtail-small", "4:1").fingerprint
    )


def test_models_that_read_no_images_say_nothing_of_them() -> None:
    row = run(replace(scenario(), model="ncf", model_params={}, target="least-popular"), 0).row()
    assert (row["extractor"], row["uploads"], row.get("blur_mean")) == (None, None, None)


def test_targets_with_an_image() -> None:
    split, there = load_split("longtail-small", "4:1"), load_pictures("longtail-small", "4:1").there
    of = replace(scenario(), num_targets=300)
    chosen = choose_targets(of, split)
    assert there[chosen.numpy()].all()
    plain = choose_targets(replace(of, target="least-popular"), split)
    assert not there[plain.numpy()].all()
    assert [item for item in plain.tolist() if there[item]] == chosen[: int(there[plain.numpy()].sum())].tolist()
    drawn = choose_targets(replace(of, target="random-with-image:1"), split)
    assert there[drawn.numpy()].all()
    assert drawn.tolist() != choose_targets(replace(of, target="random-with-image:2"), split).tolist()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"dataset": "longtail-small", "target": "random-with-image"}, "'random:K' .* any of these with '-with-image'"),
        ({"model_params": {"extractor": "vgg"}}, "Unknown extractor 'vgg'. Did you mean 'vgg16'"),
        ({"model": "ncf", "model_params": {}}, "attack 'psmu-v' replaces images, which model 'ncf' does not look at"),
    ],
)
def test_what_is_refused(change: dict[str, Any], why: str) -> None:
    with pytest.raises(UserError, match=why):
        _ = replace(scenario("psmu-v"), **change).id


def test_an_image_attack_on_a_target_without_image_is_told_before_it_runs() -> None:
    split, there = load_split("longtail-small", "4:1"), load_pictures("longtail-small", "4:1").there
    item = int((~there).nonzero()[0][0])
    with pytest.raises(UserError, match=rf"attack 'psmu-v' replaces images of its targets, and item {item} has none"):
        run(replace(scenario("psmu-v"), target=f"fixed:{item}"), 0)
    assert split.num_items > item


def test_the_version_of_an_extractor_is_part_of_the_id(monkeypatch: pytest.MonkeyPatch) -> None:
    from fedbench.vision.random_conv import RandomConvolutions

    before = scenario().id
    monkeypatch.setattr(RandomConvolutions, "card", replace(RandomConvolutions.card, version=2))
    assert scenario().id != before


def test_it_tells_how_many_images_are_read_and_purified() -> None:
    told: list[str] = []
    of = scenario(defense="gdmpd-unguided", defense_params={"denoiser": "spectral", "t_star": 5, "steps": 1})
    record = run(replace(of, protocol_params={"epochs": 1}), 0, on_images=told.append)
    assert record.status == "ok", record.error
    assert {text.split()[0] for text in told} == {"features", "purified"}
    assert "purified 390/390" in told
