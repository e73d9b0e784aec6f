from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from fedbench.attacks.approximation import HardUserMining, RandomApproximation
from fedbench.federation.updates import Updates
from fedbench.federation.view import AttackerView
from fedbench.models import PublicParams

MakeView = Callable[..., AttackerView]
ALL_MODELS = ["mf", "ncf", "lightgcn", "vncf", "lightvgcn"]


def a_ra(**params: Any) -> RandomApproximation:
    return RandomApproximation(RandomApproximation.Params(**params))


def a_hum(**params: Any) -> HardUserMining:
    return HardUserMining(HardUserMining.Params(**params))


def rows_of(updates: Updates, targets: tuple[int, ...]) -> torch.Tensor:
    """float32 [m, T, d]: the only rows there are."""
    rows = updates.all_rows()
    m, count = len(updates.clients), len(targets)
    assert rows.client.tolist() == [c for c in range(m) for _ in range(count)]
    assert rows.item.tolist() == list(targets) * m
    return rows.values.view(m, count, -1)


def drawn(shape: tuple[int, ...], std: float, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * std


def seen(view: AttackerView, vector: torch.Tensor, item: int) -> torch.Tensor:
    """The row ``vector`` of an item as the model's logits take it: float32 [1, ...]."""
    features = view.params.features
    return vector[None] if features is None else torch.cat([vector, features[item]])[None]


def plain_upload(view: AttackerView, pseudo: list[list[torch.Tensor]]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """One client's gradients of -(1/(n T)) sum_t sum_i log sigma(s(p_i^t, v_t)); ``pseudo[t]`` lists p_1^t .. p_n^t."""
    targets = [view.params.items[t].clone().requires_grad_() for t in view.targets.tolist()]
    dense = {name: value.clone().requires_grad_() for name, value in view.params.dense.items()}
    loss = torch.zeros(())
    for target, t, mine in zip(targets, view.targets.tolist(), pseudo, strict=True):
        for p in mine:
            logit = view.model.logits(dense, p[None], seen(view, target, t))[0]
            loss = loss - F.logsigmoid(logit) / (len(mine) * len(targets))
    grads = torch.autograd.grad(loss, [*targets, *dense.values()])
    return torch.stack(grads[: len(targets)]), dict(zip(dense, grads[len(targets) :], strict=True))


def plain_mining(view: AttackerView, p: torch.Tensor, targets: list[int], rate: float, steps: int) -> torch.Tensor:
    """Steps down the mean over ``targets`` of -log(1 - sigma(s(p, v_t)))."""
    for _ in range(steps):
        p = p.clone().requires_grad_()
        loss = torch.zeros(())
        for t in targets:
            logit = view.model.logits(view.params.dense, p[None], seen(view, view.params.items[t], t))[0]
            loss = loss - torch.log(1 - torch.sigmoid(logit)) / len(targets)
        p = (p - rate * torch.autograd.grad(loss, p)[0]).detach()
    return p


def assert_upload(updates: Updates, view: AttackerView, expected: list[tuple[Any, dict[str, torch.Tensor]]]) -> None:
    made = rows_of(updates, tuple(view.targets.tolist()))
    stacked, total = updates.dense.stacked(), updates.dense.total()
    assert stacked.keys() == total.keys() == view.params.dense.keys()
    for n, (rows, dense) in enumerate(expected):
        assert torch.allclose(made[n], rows, rtol=1e-4, atol=1e-7)
        for name, value in dense.items():
            assert torch.allclose(stacked[name][n], value, rtol=1e-4, atol=1e-7), name
    for name in total:
        assert torch.allclose(total[name], stacked[name].sum(0), atol=1e-6)


def test_a_ra_at_the_origin_by_hand(make_view: MakeView) -> None:
    # v = 0 scores 0 for everyone: the row is minus half the mean pseudo-user, halved again for two targets.
    params = PublicParams(torch.zeros(20, 4), {})
    p = drawn((2, 10, 4), 0.01)
    one = make_view(RandomApproximation.card, m=2, params=params)
    assert torch.allclose(rows_of(a_ra().craft(one), (7,))[:, 0], -0.5 * p.mean(1), atol=1e-9)
    two = make_view(RandomApproximation.card, m=2, targets=(7, 3), params=params)
    assert torch.allclose(
        rows_of(a_ra().craft(two), (7, 3)), -0.25 * p.mean(1, keepdim=True).expand(2, 2, 4), atol=1e-9
    )


def test_one_mining_step_on_mf_by_hand(make_view: MakeView) -> None:
    # From p = 0 and v = (2, 0): p becomes -0.1 * 0.5 * (2, 0) = (-0.1, 0); s = -0.2, 1 - sigma(-0.2) = 0.549834, so
    # the row is 0.549834 * (0.1, 0).
    items = torch.zeros(8, 2)
    items[7, 0] = 2.0
    view = make_view(HardUserMining.card, m=1, num_items=8, embedding_size=2, params=PublicParams(items, {}))
    made = rows_of(a_hum(init_std=1e-12, mining_steps=1, pseudo_users=3).craft(view), (7,))
    assert torch.allclose(made, torch.tensor([[[0.0549834, 0.0]]]), atol=1e-7)


@pytest.mark.parametrize("model", ALL_MODELS)
@pytest.mark.parametrize("targets", [(7,), (7, 0, 12)])
@pytest.mark.parametrize("m", [1, 3])
def test_a_ra_equals_a_plain_loop(model: str, targets: tuple[int, ...], m: int, make_view: MakeView) -> None:
    view = make_view(RandomApproximation.card, model, m, targets)
    pseudo = drawn((m, 5, 4), 0.3)
    updates = a_ra(pseudo_users=5, init_std=0.3).craft(view)
    assert_upload(updates, view, [plain_upload(view, [list(mine)] * len(targets)) for mine in pseudo])


@pytest.mark.parametrize("model", ALL_MODELS)
@pytest.mark.parametrize("targets", [(7,), (7, 0, 12)])
@pytest.mark.parametrize("rate", [None, 0.3])
def test_a_hum_equals_a_plain_loop(
    model: str, targets: tuple[int, ...], rate: float | None, make_view: MakeView
) -> None:
    view = make_view(HardUserMining.card, model, 2, targets, learning_rate=0.2)
    expected_rate = rate or (0.1 if model == "mf" else 0.2)
    expected = []
    for mine in drawn((2, 3, len(targets), 4), 0.3):
        hard = [
            [plain_mining(view, p[t], [target], expected_rate, 4) for p in mine] for t, target in enumerate(targets)
        ]
        expected.append(plain_upload(view, hard))
    updates = a_hum(pseudo_users=3, init_std=0.3, mining_steps=4, mining_rate=rate).craft(view)
    assert_upload(updates, view, expected)


@pytest.mark.parametrize("model", ALL_MODELS)
@pytest.mark.parametrize("targets", [(7,), (7, 0, 12)])
def test_shared_mining_equals_a_plain_loop(model: str, targets: tuple[int, ...], make_view: MakeView) -> None:
    view = make_view(HardUserMining.card, model, 2, targets)
    expected = []
    for mine in drawn((2, 3, 4), 0.3):
        hard = [plain_mining(view, p, list(targets), 0.25, 4) for p in mine]
        expected.append(plain_upload(view, [hard] * len(targets)))
    updates = a_hum(pseudo_users=3, init_std=0.3, mining_steps=4, mining_rate=0.25, mining="shared").craft(view)
    assert_upload(updates, view, expected)


@pytest.mark.parametrize("model", ["mf", "ncf"])
def test_one_target_makes_both_minings_the_same(model: str, make_view: MakeView) -> None:
    own, shared = (a_hum(mining=kind).craft(make_view(HardUserMining.card, model)) for kind in ("per-target", "shared"))
    assert torch.equal(rows_of(own, (7,)), rows_of(shared, (7,)))


@pytest.mark.parametrize("model", ["mf", "ncf"])
def test_without_mining_a_hum_is_a_ra(model: str, make_view: MakeView) -> None:
    targets = (7, 2)
    hum = a_hum(mining_steps=0, mining="shared").craft(make_view(HardUserMining.card, model, targets=targets))
    ra = a_ra().craft(make_view(RandomApproximation.card, model, targets=targets))
    assert torch.equal(rows_of(hum, targets), rows_of(ra, targets))
    for name, value in ra.dense.total().items():
        assert torch.equal(hum.dense.total()[name], value)


@pytest.mark.parametrize("model", ["mf", "ncf"])
def test_mined_users_like_the_target_less_so_the_push_is_harder(model: str, make_view: MakeView) -> None:
    """The upload is (1 - sigma(s)) ds/dv: lower s, larger factor. b_h's gradient is exactly minus that factor."""
    if model == "ncf":
        soft = a_ra().craft(make_view(RandomApproximation.card, model)).dense.total()["bh"]
        hard = a_hum(mining_rate=0.5).craft(make_view(HardUserMining.card, model)).dense.total()["bh"]
        assert float(hard) < float(soft) < 0
    else:
        # On mf p ends opposite to v, so the upload -(1 - sigma) p points along v: the server moves v against itself.
        view = make_view(HardUserMining.card)
        made = rows_of(a_hum(init_std=1e-6).craft(view), (7,))[:, 0]
        v = view.params.items[7]
        assert torch.allclose(F.normalize(made, dim=1), F.normalize(v, dim=0).expand(3, 4), atol=1e-4)
        assert math.isfinite(float(made.norm()))


def test_targets_in_another_order_give_the_same_rows(make_view: MakeView) -> None:
    first = rows_of(a_ra().craft(make_view(RandomApproximation.card, targets=(7, 0, 12))), (7, 0, 12))
    turned = rows_of(a_ra().craft(make_view(RandomApproximation.card, targets=(12, 7, 0))), (12, 7, 0))
    assert torch.allclose(first[:, [2, 0, 1]], turned)


def test_pseudo_users_are_fresh_each_round_and_nothing_else_is_kept(make_view: MakeView) -> None:
    attack, view = a_ra(), make_view(RandomApproximation.card)
    first, second = (rows_of(attack.craft(view), (7,)) for _ in range(2))
    assert not torch.equal(first, second)
    assert len({tuple(row) for row in first[:, 0].tolist()}) == 3
    assert torch.equal(rows_of(attack.craft(make_view(RandomApproximation.card)), (7,)), first)


@pytest.mark.parametrize("cls", [RandomApproximation, HardUserMining])
def test_strength_scales_the_whole_upload(cls: type[RandomApproximation], make_view: MakeView) -> None:
    one = cls(cls.Params()).craft(make_view(cls.card, "ncf"))
    five = cls(cls.Params(strength=5.0)).craft(make_view(cls.card, "ncf"))
    assert torch.allclose(rows_of(five, (7,)), 5 * rows_of(one, (7,)))
    for name, value in one.dense.total().items():
        assert torch.allclose(five.dense.total()[name], 5 * value)
        assert torch.allclose(five.dense.stacked()[name], 5 * one.dense.stacked()[name])
    assert one.dense.total()["bh"].abs() > 0
