"""A step of psmu-v on posters' size, beside a plain loop over targets, users and lists, on one core: `make benchmarks`."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
import torch

from fedbench.attacks.image_descent import DescentParameters, descend
from fedbench.attacks.psmu_v import SyntheticUserImages
from fedbench.errors import UserError
from fedbench.federation.images import ItemImages
from fedbench.federation.model import PublicParams
from fedbench.federation.view import AttackerView, RoundState, Surroundings
from fedbench.models.vncf import VisualNeuralCollaborativeFiltering as Vncf
from fedbench.vision.features import feature_reader

ITEMS, SIDE = 3706, 128
"""As ML-1M with posters."""
USERS = 6
"""Synthetic ones: 0.1 % of 6,040."""


def setting(targets: int, extractor: str) -> tuple[SyntheticUserImages, ItemImages, AttackerView]:
    g = torch.Generator().manual_seed(0)
    try:
        reader = feature_reader(extractor)
    except UserError as error:
        pytest.skip(str(error))
    model = Vncf(Vncf.Params(extractor=extractor))
    fresh = model.init_params(ITEMS, g)
    features = 4 * torch.nn.functional.normalize(torch.rand(ITEMS, reader.features, generator=g), dim=1)
    dense = {**fresh.dense, **model.init_feature_params(reader.features, g)}
    public = PublicParams(fresh.items, dense, features)
    pixels = torch.zeros(ITEMS, 3, SIDE, SIDE, dtype=torch.uint8)
    ids = torch.arange(targets)
    pixels[:targets] = torch.randint(0, 256, (targets, 3, SIDE, SIDE), generator=g).to(torch.uint8)
    attack = SyntheticUserImages(SyntheticUserImages.Params())
    surroundings = Surroundings(model, ITEMS, USERS, 1e-3, "sum", ids, torch.device("cpu"), g)
    view = AttackerView(attack.card, surroundings, state=RoundState(public, ids[:0], 8, 0))
    return attack, ItemImages(pixels, reader), view


def timed(run: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = run()
    return time.perf_counter() - start, result


@pytest.mark.parametrize("extractor", ["random-conv", "efficientnet-lite0"])
@pytest.mark.parametrize("targets", [1, 20])
def test_a_step_beside_the_plain_loop(benchmark: Any, targets: int, extractor: str) -> None:
    torch.set_num_threads(1)
    attack, images, view = setting(targets, extractor)
    made_up, (users, listed) = timed(lambda: attack.make_up(view, USERS))
    wanted, public = attack.wanted(view, users, listed), view.params

    def steps(count: int) -> torch.Tensor:
        return descend(images, view.targets, wanted, DescentParameters(steps=count))

    def score(user: torch.Tensor, item: int, look: torch.Tensor) -> torch.Tensor:
        described = torch.cat([public.items[item], look])
        return torch.sigmoid(view.model.logits(public.dense, user[None], described[None])[0])

    def plain(t: int) -> torch.Tensor:
        assert public.features is not None
        x = images.pixels[t][None].float().requires_grad_()
        loss = torch.zeros(())
        for user, row in zip(users, listed.tolist(), strict=True):
            for j in row:
                if j >= targets:
                    mine = score(user, t, images.extract(x)[0])
                    loss = loss + torch.sigmoid(score(user, j, public.features[j]) - mine)
        return (x - torch.autograd.grad(loss, x)[0].sign()).detach().clamp(0, 255)[0].to(torch.uint8)

    benchmark.pedantic(steps, args=(1,), rounds=3, warmup_rounds=1)
    seconds = benchmark.stats.stats.min
    slow, by_hand = timed(lambda: plain(0))  # runs the network again for each comparison; the others take as long
    slow *= targets
    agree = float((by_hand == steps(1)[0]).float().mean())
    benchmark.extra_info.update(made_up=made_up, seconds=seconds, plain=slow, agreement=agree)
    print(
        f"\n{extractor}, {targets} targets: {seconds:.3f} s a step, plain {slow:.2f} s"
        f" ({slow / seconds:.0f} times), synthetic users {made_up:.2f} s"
    )
    assert agree > 0.99
    assert slow > 5 * seconds
