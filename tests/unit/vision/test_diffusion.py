from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedbench.errors import UserError
from fedbench.vision.denoisers.base import Denoiser
from fedbench.vision.denoisers.identity import IdentityDenoiser
from fedbench.vision.denoisers.spectral import SpectralDenoiser
from fedbench.vision.diffusion import Draws, Purification, chain, purify
from fedbench.vision.schedule import LENGTH, Steps, signal

SIDE = 8
DEVIATION = 0.3


def white(deviation: float = DEVIATION) -> SpectralDenoiser:
    """The exact denoiser of independent Gaussian pixels around 0.1."""
    mean = torch.full((3, SIDE, SIDE), 0.1, dtype=torch.float64)
    return SpectralDenoiser.of(mean, torch.full((3, SIDE, SIDE // 2 + 1), deviation**2))


def sample(count: int = 48, deviation: float = DEVIATION) -> torch.Tensor:
    noise = np.random.default_rng(0).standard_normal((count, 3, SIDE, SIDE))
    return torch.from_numpy(0.1 + deviation * noise)


def test_schedule_by_hand() -> None:
    abar = signal()
    assert abar[0] == 1
    assert abar[1] == pytest.approx(1 - 1e-4)
    assert abar[2] == pytest.approx((1 - 1e-4) * (1 - (1e-4 + (2e-2 - 1e-4) / 999)))
    assert len(abar) == LENGTH + 1
    assert abar[-1] == pytest.approx(4.04e-5, rel=1e-2)
    steps = Steps.respaced(150, None)
    assert steps.times == list(range(151))
    assert steps.beta[150] == pytest.approx(1e-4 + 149 / 999 * (2e-2 - 1e-4))
    few = Steps.respaced(150, 4)
    assert few.times == [0, 1, 51, 100, 150]
    assert few.strides == [0, 1, 50, 49, 50]
    assert few.beta[2] == pytest.approx(1 - abar[51] / abar[1])
    assert few.beta_tilde[1] == 0
    assert np.exp(few.log_beta_tilde[1]) == pytest.approx(few.beta_tilde[2])
    assert Steps.respaced(150, 1).times == [0, 150]
    assert Steps.respaced(3, 20).times == [0, 1, 2, 3]


class Units(Draws):
    """Instead of noise, in the n-th draw a one in row n and zeros elsewhere; row 0 has none."""

    def __init__(self) -> None:
        self.drawn = 0

    def guide(self, like: torch.Tensor) -> torch.Tensor:
        self.drawn += 1
        out = torch.zeros_like(like)
        out[self.drawn] = 1
        return out

    step = guide


def response(deviation: float, strength: float = 0.0, **options: object) -> tuple[float, float]:
    """Standard deviation of the output, by that of the input, and correlation of both, for Gaussian pixels.

    The chain is linear: row 0 is what a pixel of 1 becomes, every other row what one draw of noise adds.
    """
    how = Purification(**{"clip": False, "steps": None, **options})  # type: ignore[arg-type]
    object.__setattr__(how, "guidance", strength)  # the constructor refuses the printed sign
    rows = 2 * len(Steps.respaced(how.t_star, how.steps)) + 2
    x = torch.zeros(rows, 3, 1, 1, dtype=torch.float64)
    x[0] = 1
    denoiser = SpectralDenoiser.of(torch.zeros(3, 1, 1), torch.full((3, 1, 1), deviation**2))
    out = chain(x, denoiser, how, Units())[:, 0, 0, 0]
    spread = float((deviation**2 * out[0] ** 2 + out[1:].square().sum()).sqrt())
    return spread / deviation, float(out[0]) * deviation / spread


@pytest.mark.parametrize("deviation", [0.3, 1.0])
@pytest.mark.parametrize(
    ("t_star", "variance"), [(50, "beta-tilde"), (150, "beta"), (150, "beta-tilde"), (300, "beta")]
)
def test_chain_returns_samples_of_the_prior(t_star: int, variance: str, deviation: float) -> None:
    """Mean, spread and correlation of the closed form, for each power that a frequency may have."""
    spread, correlation = response(deviation, t_star=t_star, variance=variance)
    abar = signal()[t_star]
    assert spread == pytest.approx(1, abs=0.02)
    assert correlation == pytest.approx(abar * deviation**2 / (abar * deviation**2 + 1 - abar), abs=0.01)


def test_table_of_the_specification() -> None:
    """Section 5.2: white Gaussian data of deviation 1, checked there with 200,000 samples."""
    for options, expected in (
        ({"t_star": 50}, (1.00, 0.97)),
        ({"t_star": 150}, (1.00, 0.79)),
        ({"t_star": 300}, (1.00, 0.40)),
        ({"t_star": 150, "strength": 1000.0, "guide_reduction": "mean", "numbers": 196_608}, (1.00, 0.79)),
        ({"t_star": 150, "strength": 10.0, "cap": None}, (0.98, 0.97)),
        ({"t_star": 150, "strength": 100.0, "cap": None}, (1.00, 0.997)),
    ):
        numbers = options.pop("numbers", None)
        if numbers:  # the mean over so many values is the sum by a smaller lambda
            options |= {"guide_reduction": "sum", "strength": options["strength"] / numbers, "cap": None}
        assert response(1.0, variance="beta", **options) == pytest.approx(expected, abs=0.012)


def test_guidance_draws_to_the_input_and_its_printed_sign_away() -> None:
    found = [response(1.0, strength, t_star=150)[1] for strength in (-0.5, 0.0, 1.0, 10.0)]
    assert found[0] < found[1] - 0.01
    assert found[1] < found[2] < found[3]
    assert found[3] > 0.9


@pytest.mark.parametrize("guide_noise", ["chain", "shared", "fresh"])
@pytest.mark.parametrize("steps", [None, 10])
def test_any_strength_is_stable_under_the_cap(guide_noise: str, steps: int | None) -> None:
    for strength in (1e3, 1e6):
        for variance in ("beta", "beta-tilde"):
            options = {"guide_noise": guide_noise, "variance": variance, "steps": steps, "t_star": 150}
            spread, correlation = response(1.0, strength, **options)
            assert 0.8 < spread < 1.1
            assert correlation > 0.95


def test_without_a_cap_the_published_strength_diverges() -> None:
    assert response(1.0, 1000.0, cap=None, variance="beta", t_star=150)[0] > 1e6
    images = torch.zeros(1, 3, SIDE, SIDE, dtype=torch.uint8)
    broken = Purification(t_star=300, steps=None, guidance=1e6, cap=None, variance="beta", clip=False)
    with pytest.raises(UserError, match="diverged; set a cap"):
        purify(images, white(), broken, 0)


def test_fewer_steps_do_not_weaken_the_guidance() -> None:
    every = response(1.0, 1e6, t_star=150)[1]
    assert response(1.0, 1e6, t_star=150, steps=15)[1] == pytest.approx(every, abs=0.02)


def test_chain_of_drawn_noise_has_the_mean_and_spread_of_the_prior() -> None:
    x = sample(64)
    y = chain(x, white(), Purification(t_star=150, steps=None, variance="beta"), Draws(list(range(64))))
    assert float(y.mean()) == pytest.approx(0.1, abs=0.01)  # 12,288 values: a standard error of .003
    assert float(y.std()) == pytest.approx(DEVIATION, rel=0.03)


@given(t_star=st.integers(1, 12), seed=st.integers(0, 2**40), guided=st.booleans())
@settings(max_examples=8, deadline=None)
def test_all_steps_are_the_plain_chain(t_star: int, seed: int, guided: bool) -> None:
    """The chain against loops over t with the formulas of DDPM, the guides drawn from far to near."""
    x = sample(2)
    strength = 10.0 if guided else 0.0
    denoiser = white()
    kinds = Purification(t_star=t_star, steps=t_star, guidance=strength, clip=True, variance="beta-tilde")
    found = chain(x, denoiser, kinds, Draws([seed, seed + 1]))
    draws = Draws([seed, seed + 1])
    beta = [0.0] + [1e-4 + (t - 1) / 999 * (2e-2 - 1e-4) for t in range(1, t_star + 1)]
    abar = np.cumprod([1 - b for b in beta])
    guide = y = np.sqrt(abar[t_star]) * x + np.sqrt(1 - abar[t_star]) * draws.guide(x)
    for t in range(t_star, 0, -1):
        predicted, _ = denoiser(y, torch.tensor([t, t]))
        clean = ((y - np.sqrt(1 - abar[t]) * predicted) / np.sqrt(abar[t])).clip(-1, 1)
        tilde = beta[t] * (1 - abar[t - 1]) / (1 - abar[t])
        a, b = np.sqrt(abar[t - 1]) * beta[t] / (1 - abar[t]), np.sqrt(1 - beta[t]) * (1 - abar[t - 1]) / (1 - abar[t])
        scale = min(strength, 0.1 / (2 * tilde)) if tilde else strength
        mu = a * clean + b * y - scale * tilde * 2 * (y - guide)
        if guided and t > 1:
            guide = a * x + b * guide + np.sqrt(tilde) * draws.guide(x)
        y = mu if t == 1 else mu + np.sqrt(tilde) * draws.step(x)
    torch.testing.assert_close(found, y, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("ours", "theirs"), [("beta", "fixed_large"), ("beta-tilde", "fixed_small")])
def test_steps_are_those_of_diffusers(ours: str, theirs: str) -> None:
    scheduler_class = pytest.importorskip("diffusers").DDPMScheduler
    scheduler = scheduler_class(beta_start=1e-4, beta_end=2e-2, variance_type=theirs, clip_sample=True)
    y, predicted = torch.randn(2, 1, 3, 4, 4, generator=torch.manual_seed(0))
    for plan in (Steps.respaced(1000, None), Steps.respaced(300, 4)):
        scheduler.set_timesteps(timesteps=[t - 1 for t in plan.times[:0:-1]])
        for k in {len(plan), len(plan) // 2, 2, 1}:
            t = plan.times[k] - 1
            spread = scheduler._get_variance(t) if k > 1 else torch.tensor(0.0)
            made = scheduler.step(predicted, t, y, generator=torch.manual_seed(7)).prev_sample
            noise = torch.randn(y.shape, generator=torch.manual_seed(7)) * spread**0.5 if k > 1 else 0.0
            torch.testing.assert_close(made - noise, plan.mean(y, predicted, k, True), rtol=1e-4, atol=1e-4)
            if k > 1:
                mine = plan.beta[k] if ours == "beta" else plan.beta_tilde[k]
                assert float(spread) == pytest.approx(mine, rel=1e-3)


class Constant(Denoiser):
    """Predicts no noise, and the given share of log beta."""

    card = IdentityDenoiser.card

    def __init__(self, share: float) -> None:
        self.share = share

    identity = "constant"

    def __call__(self, x: torch.Tensor, t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.zeros_like(x), torch.full_like(x, self.share)


def test_learned_variance_lies_between_the_two_fixed_ones() -> None:
    x = sample(2)
    plain = Purification(t_star=60, steps=6, clip=False, variance="beta")
    for share, kind in ((1.0, "beta"), (0.0, "beta-tilde")):
        fixed = Purification(t_star=60, steps=6, clip=False, variance=kind)  # type: ignore[arg-type]
        for learned in ("learned", "auto"):
            named = Purification(t_star=60, steps=6, clip=False, variance=learned)  # type: ignore[arg-type]
            found = chain(x, Constant(share), named, Draws([1, 2]))
            torch.testing.assert_close(found, chain(x, Constant(0), fixed, Draws([1, 2])))
    with pytest.raises(UserError, match="has learned no variance"):
        chain(x, white(), Purification(variance="learned"), Draws([1, 2]))
    assert not torch.equal(
        chain(x, Constant(0.5), Purification(60, 6), Draws([1, 2])), chain(x, white(), plain, Draws([1, 2]))
    )


def pixels(count: int = 5, side: int = SIDE, seed: int = 3) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (count, 3, side, side), dtype=np.uint8))


def test_no_noise_leaves_images_as_they_are() -> None:
    images = pixels()
    assert torch.equal(purify(images, white(), Purification(t_star=0), 0), images)
    assert torch.equal(chain(sample(2), white(), Purification(t_star=0), Draws([0, 1])), sample(2))


@pytest.mark.parametrize("guide_noise", ["chain", "shared", "fresh"])
def test_an_image_does_not_depend_on_its_batch(guide_noise: str) -> None:
    images = pixels()
    how = Purification(t_star=45, steps=4, guidance=10, guide_noise=guide_noise)  # type: ignore[arg-type]
    whole = purify(images, white(), how, 7)
    assert torch.equal(whole, purify(images, white(), how, 7, batch=2))
    assert torch.equal(whole.flip(0), purify(images.flip(0), white(), how, 7))
    assert torch.equal(whole[3:4], purify(images[3:4], white(), how, 7))
    assert not torch.equal(whole, purify(images, white(), how, 8))
    assert whole.dtype == torch.uint8
    assert whole.shape == images.shape
    assert purify(images[:0], white(), how, 7).shape == (0, 3, SIDE, SIDE)


def test_guided_and_unguided_have_the_same_steps() -> None:
    """A guidance that is all but nothing changes nothing."""
    images = pixels()
    with_, without = (Purification(t_star=45, steps=4, guidance=strength) for strength in (1e-12, 0.0))
    assert torch.equal(purify(images, white(), with_, 1), purify(images, white(), without, 1))


def test_images_of_another_side_come_back_in_theirs() -> None:
    images = pixels(3, 40)
    done: list[tuple[int, int]] = []
    how = Purification(t_star=1, steps=1)
    out = purify(images, white(), how, 0, batch=2, progress=lambda some, of: done.append((some, of)))
    assert out.shape == images.shape
    assert done == [(2, 3), (3, 3)]
    flat = torch.full((1, 3, 40, 24), 90, dtype=torch.uint8)
    found = purify(flat, white(1e-3), Purification(t_star=1, steps=1, enlarge="bilinear"), 0)
    assert found.shape == flat.shape
    assert purify(images, IdentityDenoiser(), Purification(t_star=1, steps=1, side=8), 0).shape == images.shape


def test_errors() -> None:
    for options, text in (
        ({"t_star": 1001}, "t_star = 1001 must be from 0 to 1000"),
        ({"t_star": -1}, "must be from 0"),
        ({"steps": 0}, "steps = 0 must be at least 1"),
        ({"guidance": -1.0}, "must be 0 or more"),
        ({"guidance": float("nan")}, "must be 0 or more"),
        ({"cap": 0.0}, "cap = 0.0 must be above 0"),
        ({"side": 0}, "at least 1 pixel"),
    ):
        with pytest.raises(UserError, match=text):
            Purification(**options)  # type: ignore[arg-type]
    short = IdentityDenoiser()
    short.t_max = 100
    with pytest.raises(UserError, match="knows noise up to step 100; t_star = 150 is beyond"):
        purify(pixels(), short, Purification(t_star=150), 0)
