"""Purifiers by diffusion: that they are the chain with their settings, once for all runs, whatever the batch."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest
import torch
import torch.nn.functional as F

from fedbench.attacks import ATTACKS
from fedbench.defenses import DEFENSES
from fedbench.defenses.gdmpd import Gdmpd, UnguidedGdmpd
from fedbench.defenses.spectral import SpectralPurifier
from fedbench.entries.cards import DenoiserCard, parse_parameters
from fedbench.errors import UserError
from fedbench.randomness import derive_seed
from fedbench.testing.federations import small_federation, small_images, small_task
from fedbench.vision.denoisers import DENOISERS, Denoiser
from fedbench.vision.diffusion import Purification, purify


class Smoother(Denoiser):
    """Takes for noise what differs from the mean of the pixels around it. Counts the images that it has seen."""

    card: ClassVar = DenoiserCard("smoother", "Smoother", "none")
    calls: ClassVar[list[int]] = []
    fitted: ClassVar[list[int]] = []

    @property
    def identity(self) -> str:
        return "smoother 1"

    def __call__(self, x: torch.Tensor, t: torch.Tensor) -> tuple[torch.Tensor, None]:
        self.calls.append(len(x))
        return x - F.avg_pool2d(x, 3, 1, 1, count_include_pad=False), None

    def fit(self, pixels: torch.Tensor) -> None:
        self.fitted.append(len(pixels))


@pytest.fixture(autouse=True)
def smoother(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setenv("FEDBENCH_CACHE", str(tmp_path))
    Smoother.calls.clear()
    Smoother.fitted.clear()
    with DENOISERS.lent("smoother", Smoother):
        yield


def images(count: int) -> torch.Tensor:
    g = torch.Generator().manual_seed(3)
    return torch.randint(0, 256, (count, 3, 8, 8), generator=g, dtype=torch.uint8)


def draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def number(seed: int = 0) -> int:
    return int(torch.randint(2**62, (1,), generator=draws(seed)))


def gdmpd(**values: object) -> Gdmpd:
    one = Gdmpd(Gdmpd.Params(**{"denoiser": "smoother", "steps": 3, **values}))  # type: ignore[arg-type]
    one.see_images(images(4))
    return one


def test_it_is_the_chain_with_its_settings() -> None:
    pixels = images(3)
    made = gdmpd(t_star=60, guidance=3.0, guide_noise="shared", cap=0.2, variance="beta", side=4)
    settings = Purification(60, 3, 3.0, "shared", "sum", 0.2, "beta", side=4)
    assert made.settings == settings
    found = made.purify(pixels, draws())
    assert torch.equal(found, purify(pixels, Smoother(), settings, derive_seed(number(), 0)))
    assert not torch.equal(found, made.purify(pixels, draws(1)))
    assert Smoother.fitted == [4]


def test_iterations_purify_what_was_purified() -> None:
    once = Purification(t_star=40, steps=3, guidance=10.0, cap=0.1)
    first = purify(images(2), Smoother(), once, derive_seed(number(), 0))
    twice = purify(first, Smoother(), once, derive_seed(number(), 1))
    assert torch.equal(gdmpd(t_star=40, iterations=2).purify(images(2), draws()), twice)


def test_without_guidance_it_is_the_unguided_one() -> None:
    plain = UnguidedGdmpd(UnguidedGdmpd.Params(denoiser="smoother", steps=3))
    plain.see_images(images(4))
    found = plain.purify(images(3), draws())
    assert torch.equal(found, gdmpd(guidance=0).purify(images(3), draws()))
    assert not torch.equal(found, gdmpd().purify(images(3), draws()))


def test_guidance_brings_it_nearer_to_the_image() -> None:
    pixels = images(6)

    def distance(guidance: float) -> float:
        made = gdmpd(guidance=guidance, t_star=150, steps=None).purify(pixels, draws())
        return float((made.float() - pixels.float()).square().mean())

    assert distance(100) < distance(10) < distance(0)


def test_no_noise_leaves_images_as_they_are() -> None:
    assert torch.equal(gdmpd(t_star=0).purify(images(2), draws()), images(2))


def test_a_catalogue_is_purified_once_and_each_image_by_itself() -> None:
    pixels = images(40)
    found = gdmpd().purify(pixels, draws())
    assert sorted(Smoother.calls) == [8] * 3 + [16] * 6, "three steps of two pieces of 16 and one of 8, in any order"
    Smoother.calls.clear()
    done: list[tuple[int, int]] = []
    again = gdmpd()
    again.progress = lambda some, of: done.append((some, of))
    assert torch.equal(found, again.purify(pixels, draws()))
    assert Smoother.calls == []
    assert done[-1] == (40, 40)
    assert torch.equal(found[5:6], again.purify(pixels[5:6], draws()))
    assert torch.equal(found.flip(0), again.purify(pixels.flip(0), draws()))


def test_an_attacked_run_keeps_the_catalogue_alone(tmp_path: Path) -> None:
    def kept() -> int:
        return len(list(tmp_path.rglob("*.npy")))

    task = replace(small_task(num_malicious=3, targets=tuple(range(18))), images=small_images(40))
    attack = ATTACKS.get("psmu-v-adaptive")
    small = {"steps": 1, "samples": 1, "profile_size": 4, "negatives": 2, "list_size": 6, "fit_steps": 2}
    purifier = Gdmpd(Gdmpd.Params(denoiser="smoother", steps=2, t_star=30))
    federation = small_federation(
        "vncf", attack=attack(attack.Params(**small)), defense=purifier, task=task, clients_per_round=20
    )
    assert kept() == 3, "40 images, 16 at a time"
    Smoother.calls.clear()
    federation.train_epoch()
    assert federation.gallery is not None
    assert [len(each.items) for each in federation.gallery.uploads] == [18]
    assert sum(Smoother.calls) >= 2 * (18 + 16), "uploads, and probes"
    assert kept() == 3
    purifier.see_images(federation.gallery.images.pixels)  # of another run: what comes first is kept again
    purifier.purify(federation.gallery.images.pixels, draws(8))
    assert kept() == 6


@pytest.mark.parametrize(
    "values", [{"t_star": 149}, {"steps": 4}, {"guidance": 1.0}, {"cap": None}, {"iterations": 2}, {"side": 4}]
)
def test_what_is_kept_is_told_apart_by_every_setting(values: dict[str, object]) -> None:
    assert gdmpd(**values).identity != gdmpd().identity
    assert gdmpd(on_flag="drop", threshold=0.5).identity == gdmpd().identity


def test_it_purifies_only_after_it_has_seen_the_catalogue() -> None:
    with pytest.raises(ValueError, match="after it has seen the catalogue"):
        Gdmpd(Gdmpd.Params(denoiser="smoother")).purify(images(1), draws())


@pytest.mark.parametrize(
    ("name", "values", "why"),
    [
        (
            "gdmpd",
            {"denoiser": "smother"},
            r"denoiser = 'smother': Unknown denoiser 'smother'. Did you mean 'smoother'\?",
        ),
        ("gdmpd", {"t_star": 1001}, "t_star = 1001"),
        ("gdmpd", {"guidance": -1}, "guidance = -1"),
        ("gdmpd", {"cap": 0}, "cap = 0"),
        ("gdmpd-unguided", {"guidance": 1}, "Unknown parameter of defense 'gdmpd-unguided': 'guidance'"),
        ("spectral", {"denoiser": "spectral"}, "Unknown parameter of defense 'spectral': 'denoiser'"),
    ],
)
def test_bad_parameters_are_one_line(name: str, values: dict[str, object], why: str) -> None:
    with pytest.raises(UserError, match=why) as caught:
        parse_parameters(DEFENSES.get(name).Params, values, f"defense {name!r}")
    assert "\n" not in str(caught.value)


def test_a_step_that_the_denoiser_does_not_know_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Smoother, "t_max", 100)
    with pytest.raises(UserError, match=r"'smoother' knows noise up to step 100; t_star = 150 is beyond"):
        gdmpd().purify(images(1), draws())


def test_defaults() -> None:
    params = Gdmpd.Params()
    assert (params.denoiser, params.denoiser_path, params.t_star, params.steps) == ("ddpm-small", None, 150, 8)
    assert Gdmpd(params).settings == Purification(150, 8, 10.0, "chain", "sum", 0.1, "auto")
    assert UnguidedGdmpd(UnguidedGdmpd.Params()).settings == Purification(150, 8, guidance=0)
    assert SpectralPurifier(SpectralPurifier.Params()).settings.t_star == 45


def test_the_spectral_one_is_fitted_to_the_catalogue() -> None:
    """Images that are all alike but for the mean: a prior of that image alone, so that every image becomes it."""
    pixels = images(1).expand(20, -1, -1, -1).contiguous()
    one = SpectralPurifier(SpectralPurifier.Params())
    one.see_images(pixels)
    assert torch.equal(one.purify(pixels, draws()), pixels)
    assert torch.equal(one.purify(images(3)[2:], draws()), pixels[:1])
    other = SpectralPurifier(SpectralPurifier.Params())
    other.see_images(images(20))
    assert other.identity != one.identity
    made = other.purify(images(20), draws())
    assert not torch.equal(made, images(20))
    assert torch.equal(made[3:4], other.purify(images(20)[3:4], draws()))


PROGRAM = """
import time, torch
from fedbench.defenses.spectral import SpectralPurifier
pixels = torch.randint(0, 256, (48, 3, 8, 8), generator=torch.Generator().manual_seed(3), dtype=torch.uint8)
spectral = SpectralPurifier(SpectralPurifier.Params())
spectral.see_images(pixels)
def progress(done, total):
    print(done, flush=True)
    if done == 32:
        time.sleep(600)
spectral.progress = progress
spectral.purify(pixels, torch.Generator().manual_seed(0))
"""


def test_a_kill_loses_the_images_under_way_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    process = subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert [process.stdout.readline() for _ in range(2)] == ["16\n", "32\n"]
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert len(list(tmp_path.rglob("*.npy"))) == 2
    purified: list[int] = []
    monkeypatch.setattr(
        "fedbench.defenses.diffusion.purify",
        lambda pixels, *rest, **more: (purified.append(len(pixels)), purify(pixels, *rest, **more))[1],
    )
    spectral = SpectralPurifier(SpectralPurifier.Params())
    spectral.see_images(images(48))
    made = spectral.purify(images(48), draws())
    assert purified == [16], "the others are there"
    for path in tmp_path.rglob("*.npy"):
        path.unlink()
    assert torch.equal(spectral.purify(images(48), draws()), made)
