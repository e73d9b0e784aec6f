from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from fedbench.attacks import ua_fedrec
from fedbench.attacks.ua_fedrec import UAFedRec, extremes, similarity_gradient
from fedbench.federation.updates import Updates
from fedbench.federation.view import AttackerView, Profiles
from fedbench.models import PublicParams

MakeView = Callable[..., AttackerView]


def started(make_view: MakeView, **params: Any) -> UAFedRec:
    attack = UAFedRec(UAFedRec.Params(**params))
    attack.start(make_view(UAFedRec.card, in_round=False))
    return attack


def test_three_items_by_hand() -> None:
    items = torch.tensor([[1.0], [2.0], [-1.0]])
    near, far = extremes(items)
    assert near.tolist() == [1, 0, 0]  # products of item 2 are -1 and -2
    assert far.tolist() == [2, 2, 1]
    # L = (1/1) [(1+1)^2 - (1-2)^2 + (2+1)^2 - (2-1)^2 + (-1-2)^2 - (-1-1)^2]; by v_0: 2(2) - 2(-1) - 2(1)(-1) ...
    gradient = similarity_gradient(items, near, far, 1)
    expected = [
        2 * 2 - 2 * -1 + 2 * 1 + 2 * -2,  # own pairs; as nearest of 1: +2 (v_1 - v_0); as nearest of 2: +2 (v_2 - v_0)
        2 * 3 - 2 * 1 + 2 * -1 - 2 * -3,  # own pairs; as nearest of 0; as farthest of 2
        2 * -3 - 2 * -2 - 2 * 2 - 2 * 3,  # own pairs; as farthest of 0 and of 1
    ]
    assert gradient.flatten().tolist() == pytest.approx(expected)


@pytest.mark.parametrize("at_once", [1, 50, 2**22])
def test_extremes_agree_with_a_plain_loop(monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    monkeypatch.setattr(ua_fedrec, "SCORES_AT_ONCE", at_once)
    items = torch.randn(23, 3, generator=torch.Generator().manual_seed(0))
    near, far = extremes(items)
    for j in range(23):
        others = [k for k in range(23) if k != j]
        products = {k: float(items[j] @ items[k]) for k in others}
        assert near[j] == max(others, key=products.__getitem__)
        assert far[j] == min(others, key=products.__getitem__)


def test_equal_items_go_to_the_lowest_id_and_a_single_item_to_itself() -> None:
    near, far = extremes(torch.zeros(4, 2))
    assert near.tolist() == far.tolist() == [1, 0, 0, 0]
    near, far = extremes(torch.ones(1, 2))
    assert near.tolist() == far.tolist() == [0]
    assert not similarity_gradient(torch.ones(1, 2), near, far, 128).any()


@pytest.mark.parametrize("batch_size", [1, 128])
def test_the_gradient_is_autograds(batch_size: int) -> None:
    items = torch.randn(12, 5, generator=torch.Generator().manual_seed(1)).requires_grad_()
    near, far = extremes(items.detach())
    total = torch.zeros(())
    for j in range(12):
        away = ((items[j] - items[near[j]]) ** 2).mean()
        towards = ((items[j] - items[far[j]]) ** 2).mean()
        total = total + (towards - away) / batch_size
    (expected,) = torch.autograd.grad(total, items)
    assert torch.allclose(similarity_gradient(items.detach(), near, far, batch_size), expected, atol=1e-6)


def test_descending_it_takes_neighbours_apart() -> None:
    items = torch.randn(12, 5, generator=torch.Generator().manual_seed(1))
    near, far = extremes(items)
    moved = items - 0.01 * similarity_gradient(items, near, far, 1)
    apart = [(x - x[near]).square().sum() - (x - x[far]).square().sum() for x in (items, moved)]
    assert apart[1] > apart[0]


def clean_norms(clean: Updates) -> list[float]:
    rows = clean.all_rows()
    return [float(rows.values[rows.client == c].norm()) for c in range(len(clean.clients))]


def mean_and_std(values: list[float]) -> tuple[float, float]:
    mean = sum(values) / len(values)
    return mean, math.sqrt(sum((x - mean) ** 2 for x in values) / max(len(values) - 1, 1))


@pytest.mark.parametrize("model", ["mf", "ncf"])
@pytest.mark.parametrize("m", [1, 3])
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("colluders", [1, 4, 50])
def test_every_part_agrees_with_a_plain_loop(
    make_view: MakeView, model: str, m: int, sign: int, colluders: int
) -> None:
    own = Profiles(
        torch.tensor([0, 0, 0, 1, 2, 2, 3, 3, 4]), torch.tensor([1, 5, 9, 3, 2, 8, 0, 6, 4])
    )  # numbers of samples differ
    view = make_view(UAFedRec.card, model, m=m, num_malicious=5, own_data=own, loss="bpr")
    factors = {"norm_factor": 2.0, "dense_factor": 1.5, "quantity_factor": 2.5}
    sent = started(make_view, sign=sign, colluders=colluders, **factors).craft(view)
    clean = view.colluding(colluders)

    gradient = sign * similarity_gradient(view.params.items, *extremes(view.params.items), 128)
    mean, std = mean_and_std(clean_norms(clean))
    expected = gradient / gradient.norm() * (mean + 2 * std)
    values = sent.all_rows().values.view(m, 20, 4)
    assert torch.allclose(values, expected.expand(m, 20, 4), rtol=1e-3, atol=1e-7)
    for name, honest in clean.dense.stacked().items():
        for k, column in enumerate(honest.flatten(1).T.tolist()):
            mu, sigma = mean_and_std(column)
            wanted = mu - 1.5 * ((mu > 0) - (mu < 0)) * sigma
            assert sent.dense.stacked()[name].flatten(1)[:, k].tolist() == pytest.approx([wanted] * m, abs=1e-6)
    mu, sigma = mean_and_std(clean.weights.tolist())
    assert sent.weights.tolist() == [math.floor(mu + 2.5 * sigma)] * m


def test_factors_of_zero_are_the_honest_means(make_view: MakeView) -> None:
    view = make_view(UAFedRec.card, "ncf", m=2)
    sent = started(make_view, norm_factor=0, dense_factor=0, quantity_factor=0).craft(view)
    clean = view.colluding(50)
    assert sent.all_rows().values[:20].norm().item() == pytest.approx(mean_and_std(clean_norms(clean))[0], rel=1e-3)
    for name, value in clean.dense.stacked().items():
        assert torch.allclose(
            sent.dense.stacked()[name], value.mean(0).expand_as(sent.dense.stacked()[name]), atol=1e-6
        )
    assert sent.weights.tolist() == [12.0, 12.0]  # six items and six negatives each


def test_without_rescaling_the_gradient_is_sent_as_it_is(make_view: MakeView) -> None:
    view = make_view(UAFedRec.card, m=1)
    sent = started(make_view, norm="none", batch_size=7).craft(view)
    expected = similarity_gradient(view.params.items, *extremes(view.params.items), 7)
    assert torch.equal(sent.all_rows().values, expected)


def test_neighbours_are_found_again_after_a_hundred_rounds(make_view: MakeView) -> None:
    attack = started(make_view, norm="none")
    g = torch.Generator().manual_seed(5)
    tables = [torch.randn(20, 4, generator=g) for _ in range(3)]
    sent = []
    for number, table in zip((7, 106, 107), tables, strict=True):
        view = make_view(UAFedRec.card, m=1, round=number, params=PublicParams(table, {}))
        sent.append(attack.craft(view).all_rows().values)
    old = extremes(tables[0])
    assert torch.equal(sent[1], similarity_gradient(tables[1], *old, 128))
    assert torch.equal(sent[2], similarity_gradient(tables[2], *extremes(tables[2]), 128))
    assert not torch.equal(extremes(tables[2])[0], old[0])


def test_all_items_equal_gives_no_gradient_and_no_nan(make_view: MakeView) -> None:
    view = make_view(UAFedRec.card, m=2, params=PublicParams(torch.ones(20, 4), {}))
    assert not started(make_view).craft(view).all_rows().values.any()
