"""Attacks on images: the descent, what each of them descends, and that they keep to what they may know and do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedbench.attacks import ATTACKS, image_descent
from fedbench.attacks.image_descent import DescentParameters, Lens, descend
from fedbench.attacks.popularity_image import PopularImages
from fedbench.attacks.psmu import SyntheticMaliciousUsers
from fedbench.attacks.psmu_pp import SyntheticUserImagesAndGradients
from fedbench.attacks.psmu_v import SyntheticUserImages
from fedbench.attacks.psmu_v_adaptive import PROBES, AdaptiveSyntheticUserImages, filtered, response
from fedbench.entries.cards import Channel
from fedbench.errors import ThreatModelViolation, UserError
from fedbench.federation.attack import Attack
from fedbench.federation.images import ItemImages, ReplacedImages
from fedbench.federation.model import PublicParams
from fedbench.federation.view import AttackerView
from fedbench.testing.federations import small_federation, small_task

MakeView = Callable[..., AttackerView]
SMALL: dict[str, Any] = {"profile_size": 4, "negatives": 2, "list_size": 6, "fit_steps": 8}
NAMES = ["psmu-v", "psmu-pp", "psmu-v-adaptive", "popularity-image"]
TARGETS = (7, 0, 12)


def an_extractor(side: int = 4, features: int = 6) -> Callable[[torch.Tensor], torch.Tensor]:
    """``phi(x) = tanh(W (x / 255 - 1/2))``."""
    weight = torch.randn(3 * side * side, features, generator=torch.Generator().manual_seed(5)) * 0.3
    return lambda images: torch.tanh((images.flatten(1).float() / 255 - 0.5) @ weight)


def album(num_items: int = 20, side: int = 4, there: torch.Tensor | None = None) -> ItemImages:
    pixels = torch.randint(0, 256, (num_items, 3, side, side), generator=torch.Generator().manual_seed(1))
    return ItemImages(pixels.to(torch.uint8), an_extractor(side), there)


def made(name: str, **params: Any) -> Attack:
    cls = ATTACKS.get(name)
    small = {} if name == "popularity-image" else SMALL
    return cls(cls.Params(**small | params))


def a_view(make_view: MakeView, attack: Attack, model: str = "vncf", **kwargs: Any) -> AttackerView:
    """Before an epoch: nobody of the three malicious clients is in a round."""
    kwargs = {"num_malicious": 3, "clients": (), "targets": TARGETS, "purify": lambda pixels: pixels} | kwargs
    return make_view(attack.card, model, **kwargs)


def shown(attack: Attack, images: ItemImages, view: AttackerView) -> torch.Tensor:
    replaced = attack.perturb(images, view)
    assert replaced is not None
    assert replaced.items.tolist() == view.targets.tolist()
    assert replaced.pixels.dtype == torch.uint8
    return replaced.pixels


def loss_of(attack: SyntheticUserImages, view: AttackerView, features: torch.Tensor) -> torch.Tensor:
    """What the attack minimises, of each target, with a view whose stream is where it was when the attack drew."""
    users, listed = attack.make_up(view, view.num_malicious)
    return attack.wanted(view, users, listed)(features, torch.arange(len(features)))


class Fixed(SyntheticUserImages):
    """One synthetic user, u = 1, with item 3 as its profile."""

    def draw(self, view: AttackerView, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.tensor([[3]]), torch.tensor([[0]])

    def fit(self, view: AttackerView, positives: torch.Tensor, negatives: torch.Tensor) -> torch.Tensor:
        return torch.tensor([[1.0]])


def by_hand(make_view: MakeView, **params: Any) -> tuple[Fixed, ItemImages, AttackerView]:
    """Item j scores v_j + 2 phi_j through a perceptron that passes on what is positive; phi = w . x / 100.

    The images of all others are black; the target's, item 0, has the pixels 10, 254, 1, 200 and w = (1, 1, -1, 0).
    """
    pixels = torch.zeros(5, 1, 2, 2)
    pixels[0] = torch.tensor([[10.0, 254.0], [1.0, 200.0]])
    weight = torch.tensor([1.0, 1.0, -1.0, 0.0]) / 100
    images = ItemImages(pixels.to(torch.uint8), lambda x: (x.flatten(1).float() @ weight)[:, None])
    dense = {
        "W1": torch.tensor([[0.0, 1.0, 1.0]]), "b1": torch.tensor([10.0]), "h": torch.ones(1, 1),
        "bh": torch.tensor([-10.0]), "E": torch.tensor([[2.0]]),
    }  # fmt: skip
    items = torch.tensor([[-5.26], [1.0], [2.0], [9.0], [-1.0]])
    public = PublicParams(items, dense, images.extract(images.pixels))
    attack = Fixed(Fixed.Params(list_size=2, **params))
    view = a_view(
        make_view, attack, targets=(0,), num_items=5, embedding_size=1, hidden=(1,), params=public, num_malicious=1
    )
    return attack, images, view


@pytest.mark.parametrize(("margin", "loss"), [("probability", 1.151573), ("logit", 1.611856), ("softplus", 3.440190)])
def test_the_loss_by_hand(margin: str, loss: float, make_view: MakeView) -> None:
    # phi_t = (10 + 254 - 1) / 100 = 2.63, s_t = -5.26 + 5.26 = 0; the list is {2, 1} with logits 2 and 1, as in psmu's case:
    # sigma(.380797) + sigma(.231059), sigma(2) + sigma(1), softplus(2) + softplus(1).
    attack, images, view = by_hand(make_view, margin=margin)
    before = loss_of(attack, view, images.extract(images.pixels[:1]))
    assert float(before) == pytest.approx(loss, abs=1e-5)


@pytest.mark.parametrize(
    ("params", "pixels"),
    [
        ({"steps": 1}, [11, 255, 0, 200]),  # one step of one pixel
        ({"steps": 3}, [13, 255, 0, 200]),  # the second and the third are at their ends
        ({}, [14, 255, 0, 200]),  # eps = 4
        ({"eps": 8, "steps": 2}, [14, 255, 0, 200]),  # steps of eps / 4
        ({"eps": 32, "steps": 1, "step_size": 0.5}, [10, 254, 0, 200]),  # 10.5, 254.5, .5: to even; 10 is as before
        ({"eps": 32, "steps": 3, "step_size": 0.5}, [12, 255, 0, 200]),
    ],
)
@pytest.mark.parametrize("margin", ["probability", "logit", "softplus"])
def test_the_image_by_hand(params: dict[str, Any], pixels: list[int], margin: str, make_view: MakeView) -> None:
    attack, images, view = by_hand(make_view, margin=margin, **params)
    assert shown(attack, images, view).flatten().tolist() == pixels


@pytest.mark.parametrize("model", ["vncf", "lightvgcn"])
@pytest.mark.parametrize(("margin", "keep"), [("probability", "last"), ("logit", "best"), ("softplus", "best")])
def test_psmu_v_equals_a_plain_loop(model: str, margin: str, keep: str, make_view: MakeView) -> None:
    params: dict[str, Any] = {"eps": 9, "steps": 7, "step_size": 2.0}
    attack = made("psmu-v", margin=margin, keep=keep, **params)
    assert isinstance(attack, SyntheticUserImages)
    images = album()
    pixels = shown(attack, images, a_view(make_view, attack, model))
    view = a_view(make_view, attack, model)  # the same draws once more
    positives, negatives = attack.draw(view, 3)
    users = attack.fit(view, positives, negatives)
    dense, items, features = view.params.dense, view.params.items, view.params.features
    assert features is not None

    def score(u: torch.Tensor, item: int, look: torch.Tensor) -> torch.Tensor:
        logit = view.model.logits(dense, u[None], torch.cat([items[item], look])[None])[0]
        return torch.sigmoid(logit) if margin == "probability" else logit

    people = []
    for u, mine in zip(users, positives.tolist(), strict=True):
        if model == "lightvgcn":
            u = u + sum(items[j] + dense["E"] @ features[j] for j in mine) / len(mine) ** 0.5
        rank = sorted(set(range(20)) - set(mine), key=lambda j, u=u: -float(score(u, j, features[j])))  # type: ignore[misc]
        people.append((u, [score(u, j, features[j]) for j in rank[:6] if j not in TARGETS]))

    def loss(x: torch.Tensor, t: int) -> torch.Tensor:
        total, look = torch.zeros(()), images.extract(x[None])[0]
        for u, listed in people:
            for rival in listed:
                lag = rival - score(u, t, look)
                total = total + (torch.log1p(torch.exp(lag)) if margin == "softplus" else torch.sigmoid(lag))
        return total

    for place, t in enumerate(TARGETS):
        original = images.pixels[t].float()
        x, seen = original, []
        for _ in range(7):
            seen.append(x)
            leaf = x.clone().requires_grad_()
            delta = x - original - 2.0 * torch.sign(torch.autograd.grad(loss(leaf, t), leaf)[0])
            x = (original + delta.clamp(-9, 9)).clamp(0, 255)
        seen.append(x)
        expected = min(seen, key=lambda x, t=t: float(loss(x, t))) if keep == "best" else x  # type: ignore[misc]
        assert torch.equal(pixels[place].float(), expected)


@pytest.mark.parametrize("name", NAMES)
def test_the_loss_falls_and_the_images_are_near(name: str, make_view: MakeView) -> None:
    attack, images = made(name, eps=16), album()
    pixels = shown(attack, images, a_view(make_view, attack))
    change = (pixels.int() - images.pixels[list(TARGETS)].int()).abs()
    assert change.amax((1, 2, 3)).tolist() == [16] * 3
    if isinstance(attack, SyntheticUserImages):
        before, after = (
            loss_of(attack, a_view(make_view, attack), images.extract(each))
            for each in (images.pixels[list(TARGETS)], pixels)
        )
        assert (after < before).all()


@given(
    eps=st.integers(0, 255),
    steps=st.integers(0, 4),
    size=st.none() | st.floats(0.01, 300),
    keep=st.sampled_from(["last", "best"]),
    samples=st.integers(1, 2),
    known=st.booleans(),
    warm=st.booleans(),
    seed=st.integers(0, 99),
)
@settings(max_examples=30, deadline=None)
def test_any_descent_stays_in_the_ball(
    eps: int, steps: int, size: float | None, keep: Any, samples: int, known: bool, warm: bool, seed: int
) -> None:
    g = torch.Generator().manual_seed(seed)
    pixels = torch.randint(-40, 296, (6, 3, 4, 4), generator=g).clamp(0, 255).to(torch.uint8)  # many at an end
    images, items = ItemImages(pixels, an_extractor()), torch.tensor([4, 1, 2])
    wish = torch.randn(3, 6, generator=g)
    params = DescentParameters(eps=eps, steps=steps, step_size=size, keep=keep)
    start = torch.randint(0, 256, (3, 3, 4, 4), generator=g).to(torch.uint8) if warm else None
    result = descend(
        images,
        items,
        lambda features, places: (features * wish[places]).sum(1),
        params,
        start,
        Lens(lambda x: x // 2, samples, lambda x: x / 2) if known else None,
    )
    assert result.dtype == torch.uint8
    assert int((result.int() - pixels[items].int()).abs().max()) <= eps
    if keep == "best":
        first = (
            pixels[items] if start is None else start.int().clamp(pixels[items].int() - eps, pixels[items].int() + eps)
        )
        looks = [images.extract(each // 2 if known else each) for each in (first, result)]
        before, after = ((look * wish).sum(1) for look in looks)
        assert (after <= before + 1e-5).all()
    if not steps and start is None:
        assert torch.equal(result, pixels[items])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("params", [{"eps": 0}, {"steps": 0}])
def test_without_room_or_steps_the_image_is_the_original(
    name: str, params: dict[str, int], make_view: MakeView
) -> None:
    attack, images = made(name, **params), album()
    assert attack.eps == params.get("eps", 4)
    assert torch.equal(shown(attack, images, a_view(make_view, attack)), images.pixels[list(TARGETS)])


@pytest.mark.parametrize("name", NAMES)
def test_equal_streams_give_equal_images_and_pieces_do_not_matter(
    name: str, make_view: MakeView, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = album()
    first = shown(made(name, steps=3), images, a_view(make_view, made(name)))
    monkeypatch.setattr(image_descent, "PIECE_ON_CPU", 2)
    with torch.no_grad():
        again = shown(made(name, steps=3), images, a_view(make_view, made(name)))
    assert torch.equal(first, again)


@pytest.mark.parametrize("name", NAMES[:3])
def test_every_epoch_has_new_synthetic_users(name: str, make_view: MakeView) -> None:
    attack, images = made(name, eps=8, steps=4), album()
    view = a_view(make_view, attack)
    assert not torch.equal(shown(attack, images, view), shown(attack, images, view))


def test_a_warm_start_goes_on_from_the_epoch_before(make_view: MakeView) -> None:
    attack, images = made("psmu-v", warm_start=True, eps=8, steps=1), album()
    view = a_view(make_view, attack)
    first = shown(attack, images, view).int()
    second = shown(attack, images, view).int()
    original = images.pixels[list(TARGETS)].int()
    assert int((second - first).abs().max()) == 2
    assert int((second - original).abs().max()) == 4
    for _ in range(6):
        last = shown(attack, images, view).int()
    assert int((last - original).abs().max()) == 8


def test_psmu_pp_is_psmu_v_and_psmu(make_view: MakeView) -> None:
    both, images = made("psmu-pp"), album()
    assert both.card.channel == Channel.IMAGE_AND_GRADIENT
    alone = made("psmu-v")
    assert torch.equal(shown(both, images, a_view(make_view, both)), shown(alone, images, a_view(make_view, alone)))
    for margin, params in [("probability", {}), ("softplus", {"gradient_margin": "softplus"})]:
        both = made("psmu-pp", **params)
        psmu = SyntheticMaliciousUsers(SyntheticMaliciousUsers.Params(**SMALL, margin=margin))
        uploads, others = (each.craft(make_view(each.card, "vncf", targets=TARGETS)) for each in (both, psmu))
        assert torch.equal(uploads.all_rows().values, others.all_rows().values)
        for name, value in others.dense.total().items():
            assert torch.equal(uploads.dense.total()[name], value)
        assert float(uploads.dense.total()["E"].abs().max()) > 0


def popular(hook: str = "mean", **params: Any) -> PopularImages:
    return PopularImages(PopularImages.Params(hook=hook, **params))


POPULARITY = torch.arange(20).flip(0)  # item 0 (a target) is the most popular, then 1, 2, ..


@pytest.mark.parametrize("hook", ["mean", "top1", "nearest"])
def test_popular_looks_equal_a_plain_loop(hook: str, make_view: MakeView) -> None:
    there = torch.ones(20, dtype=torch.bool)
    there[[1, 18, 19]] = False
    images = album(there=there)  # of 17 images 20 % is 4: items 2, 3, 4 and 5, as 0 is a target and 1 has none
    attack = popular(hook, share=0.2, eps=9, steps=5)
    pixels = shown(attack, images, a_view(make_view, attack, item_popularity=POPULARITY))
    looks = images.extract(images.pixels[[2, 3, 4, 5]])
    for place, t in enumerate(TARGETS):
        original = images.pixels[t].float()
        near = min(looks, key=lambda look, t=t: float((look - images.extract(images.pixels[t][None])[0]).norm()))  # type: ignore[misc]
        wish = {"mean": looks.mean(0), "top1": looks[0], "nearest": near}[hook]
        x = original
        for _ in range(5):
            leaf = x.round().requires_grad_()
            loss = ((images.extract(leaf[None])[0] - wish) ** 2).sum()
            x = x - 2.25 * torch.sign(torch.autograd.grad(loss, leaf)[0])
            x = (original + (x - original).clamp(-9, 9)).clamp(0, 255)
        assert torch.equal(pixels[place].float(), x.round())


def test_without_another_item_there_is_nothing_to_look_like(make_view: MakeView) -> None:
    attack, there = popular(), torch.zeros(20, dtype=torch.bool)
    there[list(TARGETS)] = True
    with pytest.raises(UserError, match="every item with an image is a target; there is none to look like"):
        attack.perturb(album(there=there), a_view(make_view, attack, item_popularity=POPULARITY))


def test_popular_looks_are_the_same_in_every_epoch(make_view: MakeView) -> None:
    attack, images = popular(eps=16), album()
    first = shown(attack, images, a_view(make_view, attack, item_popularity=POPULARITY, seed=1))
    assert attack.perturb(images, a_view(make_view, attack, item_popularity=POPULARITY, seed=2)) is None
    later = popular(eps=16)  # that starts at other parameters, with another stream
    view = a_view(make_view, later, "lightvgcn", item_popularity=POPULARITY, seed=2)
    assert torch.equal(first, shown(later, images, view))
    wish = images.extract(images.pixels[[1, 2]]).mean(0)
    before, after = (images.extract(each) - wish for each in (images.pixels[list(TARGETS)], first))
    assert (after.norm(dim=1) < before.norm(dim=1)).all()


def blur(pixels: torch.Tensor) -> torch.Tensor:
    """Every pixel becomes the mean of itself, its neighbours and theirs: 3 x 3, the border repeated, in integers."""
    wide = torch.nn.functional.pad(pixels.float(), (1, 1, 1, 1), mode="replicate")
    return torch.nn.functional.avg_pool2d(wide, 3, 1).round().to(torch.uint8)


def test_who_knows_the_blur_does_better_behind_it(make_view: MakeView) -> None:
    images = album(side=12)
    losses = {}
    for name, params in {
        "psmu-v": {},
        "psmu-v-adaptive": {},
        "identity": {"backward": "identity"},
    }.items():
        attack = made("psmu-v-adaptive" if params else name, eps=16, steps=40, keep="best", **params)
        assert isinstance(attack, SyntheticUserImages)
        pixels = shown(attack, images, a_view(make_view, attack, purify=blur))
        losses[name] = loss_of(attack, a_view(make_view, attack), images.extract(blur(pixels)))
    assert (losses["psmu-v-adaptive"] < losses["psmu-v"]).all()
    assert (losses["psmu-v-adaptive"] < losses["identity"]).all()


def test_the_response_of_filters_is_known() -> None:
    g = torch.Generator().manual_seed(0)
    grey = torch.full((32, 3, 24, 16), 128, dtype=torch.uint8)
    assert torch.allclose(response(lambda x: x, grey, 4, g), torch.ones(24, 9), atol=1e-5)
    half = response(lambda x: x // 2, grey, 40, g)
    assert torch.allclose(half, torch.full((24, 9), 0.5), atol=1e-5)
    # The mean of a pixel and its right neighbour, on a circle: (1 + exp(2 pi i f)) / 2, whose real part is averaged over
    # all directions of equal |f|: 1 at f = 0, and 0 would come at f = 1/2 across alone.
    across = torch.fft.rfftfreq(16)
    exact = ((1 + torch.cos(2 * torch.pi * across)) / 2).expand(24, 9)
    measured = response(lambda x: ((x.int() + x.roll(1, 3).int()) // 2).to(torch.uint8), grey, 40, g)
    ring = (torch.hypot(torch.fft.fftfreq(24)[:, None], across) * 24).round()
    weight = torch.ones(24, 9)
    weight[:, 1:8] = 1.0  # half the plane stands for the whole
    for each in ring.unique():
        here = ring == each
        expected = (exact * weight)[here].sum() / weight[here].sum()
        assert torch.allclose(measured[here], expected.clamp(min=0).expand(int(here.sum())), atol=0.08)
    g = torch.Generator().manual_seed(3)
    assert float(response(lambda x: torch.full_like(x, 7), grey, 4, g).max()) == 0


def test_a_filter_of_ones_changes_nothing() -> None:
    values = torch.randn(2, 3, 7, 9)
    assert torch.allclose(filtered(torch.ones(7, 5))(values), values, atol=1e-6)
    mean = torch.zeros(7, 5)
    mean[0, 0] = 1
    assert torch.allclose(filtered(mean)(values), values.mean((2, 3), keepdim=True).expand_as(values), atol=1e-6)


def test_without_a_purifier_it_is_psmu_v(make_view: MakeView) -> None:
    images = album()
    adaptive, plain = made("psmu-v-adaptive", eps=8, steps=4), made("psmu-v", eps=8, steps=4, keep="best")
    views = [a_view(make_view, each) for each in (adaptive, plain)]
    for _ in range(2):  # in the second epoch too the streams are alike
        assert torch.equal(shown(adaptive, images, views[0]), shown(plain, images, views[1]))


class Noise:
    """A purifier that only adds noise; counts its calls, and keeps what it was given."""

    def __init__(self, size: float) -> None:
        self.size, self.generator, self.given = size, torch.Generator().manual_seed(9), []

    given: list[torch.Tensor]

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        assert pixels.dtype == torch.uint8
        self.given.append(pixels)
        noise = torch.randn(pixels.shape, generator=self.generator) * self.size
        return (pixels.float() + noise).round().clamp(0, 255).to(torch.uint8)


def test_random_purifiers_are_averaged_over(make_view: MakeView) -> None:
    images, noise = album(), Noise(20.0)
    attack = made("psmu-v-adaptive", eps=6, steps=3, samples=2)
    pixels = shown(attack, images, a_view(make_view, attack, purify=noise))
    assert [len(each) for each in noise.given] == [6, 6, 18, 18] + [3] * 8
    assert len(noise.given[2]) >= PROBES
    for step in range(4):
        assert torch.equal(noise.given[4 + 2 * step], noise.given[5 + 2 * step])
    candidates = noise.given[4::2]
    for place, each in enumerate(pixels):
        assert any(torch.equal(each, candidate[place]) for candidate in candidates)


def test_purifiers_that_are_not_random_need_one_sample(make_view: MakeView) -> None:
    given = []

    def dark(pixels: torch.Tensor) -> torch.Tensor:
        given.append(pixels)
        return pixels // 2

    attack = made("psmu-v-adaptive", steps=3, backward="identity")
    shown(attack, album(), a_view(make_view, attack, purify=dark))
    assert [len(each) for each in given] == [6] * 2 + [3] * 4


def bit_depth(pixels: torch.Tensor) -> torch.Tensor:
    """16 shades: multiples of 17."""
    return ((pixels.float() / 17).round() * 17).to(torch.uint8)


@pytest.mark.parametrize("purify", [bit_depth, blur])
def test_images_that_the_purifier_leaves_as_they_are_do_not_hide_it(
    purify: Callable[[torch.Tensor], torch.Tensor], make_view: MakeView
) -> None:
    images, given = album(), []
    pixels = bit_depth(images.pixels) if purify is bit_depth else images.pixels[..., :1, :1].expand(-1, -1, 4, 4)
    images = replace(images, pixels=pixels.contiguous())
    assert torch.equal(purify(images.pixels), images.pixels)

    def server(pixels: torch.Tensor) -> torch.Tensor:
        given.append(pixels)
        return purify(pixels)

    attack = made("psmu-v-adaptive", eps=12, steps=4)
    assert isinstance(attack, SyntheticUserImages)
    found = shown(attack, images, a_view(make_view, attack, purify=server))
    assert [len(each) for each in given] == [6, 6, 18, 18] + [3] * 5, "every step is seen through the purifier"
    before, after = (
        loss_of(attack, a_view(make_view, attack), images.extract(purify(each)))
        for each in (images.pixels[list(TARGETS)], found)
    )
    assert (after < before).all()


@pytest.mark.parametrize("name", NAMES)
def test_nobody_knows_more_than_the_card_says(name: str, make_view: MakeView) -> None:
    attack = made(name)
    view = a_view(make_view, attack)
    reaches: dict[str, Callable[[], object]] = {
        "item_popularity": lambda: view.item_popularity,
        "defense": lambda: view.purify(album().pixels),
        "own_data": lambda: view.own_data,
        "cohort_size": lambda: view.cohort_size,
    }
    for knowledge, reach in reaches.items():
        if knowledge in attack.card.knowledge:
            reach()
        else:
            with pytest.raises(ThreatModelViolation):
                reach()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("model", ["vncf", "lightvgcn"])
def test_a_federation_runs_with_them(name: str, model: str) -> None:
    task = replace(small_task(num_malicious=3, targets=(7, 3)), images=album(40))

    def federation(attack: Attack | None) -> Any:
        model_params = {"embedding_size": 4, "hidden": (5, 3)}
        start = {"attack_start": 2}
        mine = task if attack else replace(task, num_malicious=0)
        return small_federation(model, attack, task=mine, model_params=model_params, **start)

    federated = federation(made(name, eps=16))
    for epoch in (1, 2, 3):
        federated.train_epoch()
        federated.check_finite()
        uploads = [upload.epoch for upload in federated.gallery.uploads]
        assert uploads == ([2] if name == "popularity-image" else [2, 3])[: max(0, epoch - 1)]
    clean = federation(None)
    original = clean.params.features
    moved = (federated.params.features != original).any(1).nonzero().squeeze(1)
    assert moved.tolist() == [3, 7]


@pytest.mark.parametrize("name", ["p1", "p2", "pipattack", "fedrecattack", "pieck-uea", "a-hum", "psmu"])
def test_attacks_by_gradient_run_where_images_are_read(name: str) -> None:
    cls = ATTACKS.get(name)
    task = replace(small_task(num_malicious=3), images=album(40))
    federation = small_federation(
        "vncf",
        cls(cls.Params(**SMALL if name == "psmu" else {})),
        task=task,
        model_params={"embedding_size": 4, "hidden": (5, 3)},
        malicious_clients=max(cls.card.clients),
    )
    federation.train_epoch()
    federation.check_finite()


def test_images_of_the_engine_are_not_written_to(make_view: MakeView) -> None:
    images = album()
    before = images.pixels.clone()
    for name in NAMES:
        attack = made(name, eps=255)
        replaced = attack.perturb(images, a_view(make_view, attack))
        assert isinstance(replaced, ReplacedImages)
        replaced.pixels.zero_()
        assert torch.equal(images.pixels, before)
        assert images.pixels._version == 0


def test_classes_are_registered() -> None:
    assert [ATTACKS.get(name) for name in NAMES] == [
        SyntheticUserImages,
        SyntheticUserImagesAndGradients,
        AdaptiveSyntheticUserImages,
        PopularImages,
    ]
