"""Rows of images that an attack showed, densities of similarity, and what is said where there are none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from shown_images import made, scenario

from fedbench.data.images import load_pictures
from fedbench.defenses import DEFENSES
from fedbench.errors import FedbenchError, UserError
from fedbench.inspection.finding import find_runs
from fedbench.inspection.images import Strip, draw_images, image_strips, purifier
from fedbench.inspection.similarity import Panel, density, draw_similarity, similarity_panels
from fedbench.vision.features import feature_reader


def strips(folder: Path, *names: str, **options: Any) -> list[Strip]:
    return image_strips(find_runs(names, [folder]), **options)


def test_a_row_is_what_was_shown_and_what_purifiers_make_of_it(tmp_path: Path) -> None:
    name = made(tmp_path, scenario(), 3)
    first, second = strips(tmp_path, name)
    assert "item 9, epoch 5" in first.label  # in the order of the targets
    assert "item 4, epoch 5" in second.label
    original, adversarial, difference, cleaned, left = first.cells
    assert [cell.title for cell in first.cells] == [
        *("original", "adversarial", "difference x 8", "bit-depth", "difference x 8"),
    ]
    pixels = load_pictures("longtail-small", "leave-one-out").pixels[9].transpose(1, 2, 0).astype(int)
    assert np.array_equal(original.image, pixels)
    assert np.array_equal(adversarial.image, np.clip(pixels + 4, 0, 255))
    change = np.clip(pixels + 4, 0, 255) - pixels
    assert np.array_equal(difference.image, np.clip(np.rint(127.5 + 8 * change), 0, 255))
    # The run's own defense, with its own parameters.
    shown = torch.from_numpy(adversarial.image.astype(np.uint8)).permute(2, 0, 1)[None]
    assert torch.equal(
        torch.from_numpy(cleaned.image).permute(2, 0, 1)[None],
        purifier("bit-depth:bits=3").purify(shown, torch.Generator()),
    )
    assert left.facts == (f"at most {np.abs(cleaned.image.astype(int) - pixels).max()}",)
    assert adversarial.facts[0] == "eps 4, max |delta| 4"
    error = np.mean((adversarial.image.astype(float) - pixels) ** 2)
    assert adversarial.facts[1] == f"PSNR {10 * np.log10(255**2 / error):.1f} dB"
    reader = feature_reader("random-conv", "none", 1.0)
    images = torch.stack([torch.from_numpy(c.image.astype(np.uint8)).permute(2, 0, 1) for c in first.cells])
    features = reader(images)
    for facts, a, b, word in ((1, 0, 1, "cosine"), (3, 0, 3, "cosine"), (3, 1, 3, "similarity")):
        value = torch.cosine_similarity(features[a], features[b], dim=0)
        assert any(fact.startswith(f"{word} {value:.2f}") for fact in first.cells[facts].facts)
    assert cleaned.facts[2].endswith(("flagged", "not flagged"))


def test_purifiers_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that are named; of an undefended run the usual ones, as far as they are there."""
    name = made(tmp_path, scenario("none"))
    (row,) = strips(tmp_path, name, purifiers=["blur", "bit-depth:bits=2"], targets=1, amplify=2)
    assert [cell.title for cell in row.cells[3::2]] == ["blur", "bit-depth"]
    assert row.cells[2].title == "difference x 2"
    assert not any("flagged" in fact for cell in row.cells for fact in cell.facts)
    monkeypatch.setattr("fedbench.inspection.images.USUAL", ("jpeg", "no-such", "median-filter"))
    assert [cell.title for cell in strips(tmp_path, name)[0].cells[3::2]] == ["jpeg", "median-filter"]
    monkeypatch.setattr(DEFENSES.get("jpeg"), "packages", ("no_such_package",))
    assert [cell.title for cell in strips(tmp_path, name)[0].cells[3::2]] == ["median-filter"]


def test_without_the_extractor_cosines_are_left_out(tmp_path: Path) -> None:
    name = made(tmp_path, scenario(), extractor="nobody-s")
    facts = [fact for row in strips(tmp_path, name) for cell in row.cells for fact in cell.facts if fact]
    assert any(fact.startswith("PSNR") for fact in facts)
    assert not any("cosine" in fact or "similarity" in fact for fact in facts)


def test_equal_pictures_are_equal_files(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    name = made(tmp_path, scenario())
    (found,) = find_runs([name], [tmp_path])
    for ending in ("svg", "png"):
        for draw in (
            lambda path: draw_images(image_strips([found], targets=1), path),
            lambda path: draw_similarity(similarity_panels([found]), path),
        ):
            paths = [tmp_path / f"{n}.{ending}" for n in (1, 2)]
            for path in paths:
                draw(path)
            assert paths[0].read_bytes() == paths[1].read_bytes()


def test_mistakes_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name, plain = made(tmp_path, scenario()), made(tmp_path, scenario(), 1, uploads=[])
    other = made(tmp_path, scenario(), 2, images_fingerprint="x")
    lost = made(tmp_path, scenario(), 3)
    (tmp_path / f"{lost}.images.parquet").unlink()
    elsewhere = made(tmp_path, scenario(), 4, dataset="ml-100k")
    names = (name, plain, other, lost, elsewhere, made(tmp_path, scenario("none")))
    found = dict(zip(names, find_runs(names, [tmp_path]), strict=True))

    def refused(of: str, **options: Any) -> str:
        with pytest.raises(FedbenchError) as error:
            image_strips([found[of]], **options)
        assert "\n" not in str(error.value)
        return str(error.value)

    assert refused(plain) == f"run {plain} has no images: attack 'psmu-v' showed none."
    assert f"no file {lost}.images.parquet" in refused(lost)
    assert "had other images of 'longtail-small'" in refused(other)
    with pytest.raises(UserError, match="no run 'x' in "):
        find_runs([name, "x"], [tmp_path])
    assert refused(name, amplify=0) == "--amplify 0 must be above 0."
    assert refused(name, amplify=float("nan")) == "--amplify nan must be above 0."
    assert refused(name, targets=0) == "--targets 0 must be at least 1."
    assert "more than 60 rows" in refused(name, targets=61)
    assert refused(name, purifiers=["krum"]).startswith(
        "defense 'krum' cleans no images; those that do: bit-depth, blur"
    )
    assert "Unknown defense 'bluur'" in refused(name, purifiers=["bluur"])
    assert "'3' must be parameter=value" in refused(name, purifiers=["blur:3"])
    assert "parameter bits = 'x'" in refused(name, purifiers=["bit-depth:bits=x"])
    monkeypatch.setattr("fedbench.data.images.images_path", lambda dataset: tmp_path / "none")
    monkeypatch.setattr("fedbench.data.images.at_hand", lambda archive: None)
    assert refused(elsewhere).startswith("Dataset 'ml-100k': no images of its items")
    with pytest.raises(FedbenchError, match="has no images"):
        similarity_panels([found[plain]])
    with pytest.raises(FedbenchError, match="defense 'none' changes no image"):
        similarity_panels([found[names[-1]]])


def test_runs_are_found_once_each(tmp_path: Path) -> None:
    names = [made(tmp_path, scenario(), seed) for seed in (1, 0)]
    found = find_runs([names[0], names[1], str(tmp_path / f"{names[0]}.images.parquet")], [tmp_path])
    assert [each.record["run_id"] for each in found] == names
    assert [each.images for each in found] == [tmp_path / f"{name}.images.parquet" for name in names]


def test_seeds_are_put_together_and_bounds_apart(tmp_path: Path) -> None:
    names = [made(tmp_path, scenario(), seed) for seed in (0, 1)]
    other = made(tmp_path, scenario("bit-depth", steps=5))
    blurred = made(tmp_path, scenario("blur"))
    first, second = similarity_panels(find_runs([*names, other, blurred], [tmp_path]))
    assert (first.title, second.title) == (
        "longtail-small, random-conv, bit-depth",
        "longtail-small, random-conv, blur",
    )
    assert {label: values.tolist() for label, values in first.uploads.items()} == {
        "psmu-v, eps 4, vncf": [0.5, 0.5, 0.6, 0.6, 0.5, 0.5]
    }
    assert first.thresholds == [0.75]
    assert {label: sorted(items) for label, items in first.items.items()} == {"psmu-v, eps 4, vncf": [4, 9]}
    assert np.allclose(first.clean, np.linspace(0.8, 0.99, 40))
    assert len(first.held_out) == 20


def test_the_last_image_of_each_item_counts(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    upload = {"change": 4.0, "psnr": 36.0, "ssim": 0.9, "cosine": 0.8, "flagged": 1.0}
    shown = [(5, 9, 0.2), (5, 4, 0.3), (6, 9, 0.6), (7, 9, 0.7)]
    uploads = [{**upload, "epoch": epoch, "item": item, "similarity": alike} for epoch, item, alike in shown]
    name = made(tmp_path, scenario(), uploads=uploads)
    (panel,) = similarity_panels(find_runs([name], [tmp_path]))
    assert [values.tolist() for values in panel.uploads.values()] == [[0.7, 0.3]]
    draw_similarity([panel], tmp_path / "a.svg")
    assert "<!-- psmu-v, eps 4, vncf (2 items, AUC 1.00) -->" in (tmp_path / "a.svg").read_text()


def test_density() -> None:
    """Against a plain sum; all of it lies below 1, also of values that are all alike, or one."""
    g = np.random.default_rng(0)
    at = np.linspace(-1, 1, 20_001)
    for values in (np.minimum(1, 0.97 + 0.02 * g.standard_normal(200)), np.ones(5), np.array([0.4]), np.zeros(3)):
        found = density(values, at)
        assert np.trapezoid(found, at) == pytest.approx(1, abs=1e-3)
    values = np.array([0.2, 0.3, 0.5, 0.9])
    spread = min(values.std(), (np.percentile(values, 75) - np.percentile(values, 25)) / 1.34)
    width = 0.9 * spread * 4**-0.2
    expected = sum(
        np.exp(-(((0.6 - center) / width) ** 2) / 2) / (4 * width * np.sqrt(2 * np.pi))
        for value in values
        for center in (value, 2 - value)
    )
    assert density(values, np.array([0.6]))[0] == pytest.approx(expected)


def test_a_panel_without_uploads_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    draw_similarity([Panel("t", np.array([0.9, 0.95]), {"none": np.empty(0)}, [])], tmp_path / "a.svg")
    assert "<!-- lowest clean 0.900 -->" in (tmp_path / "a.svg").read_text()
    with pytest.raises(UserError, match=r"must end in \.png, \.svg or \.pdf"):
        draw_similarity([], tmp_path / "a.gif")
