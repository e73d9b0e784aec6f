from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from fedbench.attacks.label_flip import LabelFlip, flipped
from fedbench.federation.batch import Batch
from fedbench.federation.losses import Loss
from fedbench.federation.updates import Updates
from fedbench.federation.view import AttackerView, Profiles
from fedbench.models import PublicParams

MakeView = Callable[..., AttackerView]


def craft(view: AttackerView) -> Updates:
    return LabelFlip(LabelFlip.Params()).craft(view)


def test_one_pair_by_hand(make_view: MakeView) -> None:
    # Items but number 2 are zero, u = 2, v_2 = ln(3) / 2: the margin is ln 3, so sigma(-margin of the flip) = 3/4.
    items = torch.zeros(20, 1)
    items[2] = math.log(3) / 2
    own = Profiles(torch.tensor([0]), torch.tensor([2]))
    users = torch.tensor([[2.0]])
    view = make_view(
        LabelFlip.card, clients=[0], own_data=own, users=users, params=PublicParams(items, {}), loss="bpr",
        embedding_size=1,
    )  # fmt: skip
    rows = craft(view).all_rows()
    sent = dict(zip(rows.item.tolist(), rows.values.flatten().tolist(), strict=True))
    assert len(sent) == 2
    (other,) = set(sent) - {2}
    assert sent[2] == pytest.approx(0.75 * 2)  # descent pushes the client's own item down
    assert sent[other] == pytest.approx(-0.75 * 2)


def loss_of_pairs(view: AttackerView, user: torch.Tensor, items: torch.Tensor, pairs: list[tuple[int, int]]) -> float:
    total = torch.zeros(())
    for plus, minus in pairs:
        up = view.model.logits(view.params.dense, user[None], items[plus][None])[0]
        down = view.model.logits(view.params.dense, user[None], items[minus][None])[0]
        total = total - torch.nn.functional.logsigmoid(up - down) / len(pairs)
    return total


@pytest.mark.parametrize("model", ["mf", "ncf"])
@pytest.mark.parametrize("m", [1, 3])
def test_pairs_are_swapped_as_in_a_plain_loop(make_view: MakeView, model: str, m: int) -> None:
    view = make_view(LabelFlip.card, model, m=m, loss="bpr")
    sent, batch = craft(view), view.own_batch
    users = view.own_users
    assert batch.pair_positive is not None
    assert batch.pair_negative is not None
    rows = sent.all_rows()
    for c in range(m):
        pairs = [
            (int(batch.item[n]), int(batch.item[p]))
            for p, n in zip(batch.pair_positive, batch.pair_negative, strict=True)
            if batch.client[p] == c
        ]
        items = view.params.items.clone().requires_grad_()
        (expected,) = torch.autograd.grad(loss_of_pairs(view, users[c], items, pairs), items)  # type: ignore[arg-type]
        got = torch.zeros(20, 4)
        mine = rows.client == c
        got.index_add_(0, rows.item[mine], rows.values[mine])
        assert torch.allclose(got, expected, atol=1e-6)
    assert torch.equal(sent.weights, batch.size)


@pytest.mark.parametrize("model", ["mf", "ncf"])
def test_labels_are_exchanged_under_cross_entropy(make_view: MakeView, model: str) -> None:
    view = make_view(LabelFlip.card, model)
    batch, sent = view.own_batch, craft(view)
    items = view.params.items.clone().requires_grad_()
    total = torch.zeros(())
    for r in range(len(batch.item)):
        logit = view.model.logits(view.params.dense, view.own_users[batch.client[r]][None], items[batch.item[r]][None])
        negative, positive = batch.positive[r], batch.weight[r] - batch.positive[r]
        term = positive * torch.nn.functional.softplus(-logit) + negative * torch.nn.functional.softplus(logit)
        total = total + term[0] / batch.size[batch.client[r]]
    (expected,) = torch.autograd.grad(total, items)
    assert torch.allclose(sent.sum_rows(20, 4), expected, atol=1e-6)


def row_batch(pairs: bool) -> Batch:
    return Batch(
        torch.tensor([4]),
        torch.tensor([0, 3]),
        torch.zeros(3, dtype=torch.long),
        torch.tensor([1, 2, 5]),
        torch.tensor([2.0, 1.0, 3.0]),
        torch.tensor([2.0, 0.0, 1.0]),
        torch.tensor([6.0]),
        torch.tensor([0, 0, 2]) if pairs else None,
        torch.tensor([1, 2, 2]) if pairs else None,
    )


@pytest.mark.parametrize("pairs", [True, False])
def test_flipping_twice_changes_nothing(pairs: bool) -> None:
    batch = row_batch(pairs)
    once = flipped(batch)
    assert once.positive.tolist() == [0, 1, 2]
    assert (once.pair_positive is None) is not pairs
    twice = flipped(once)
    assert torch.equal(twice.positive, batch.positive)
    for before, after in ((batch.pair_positive, twice.pair_positive), (batch.pair_negative, twice.pair_negative)):
        assert before is after
    assert once.item is batch.item
    assert once.size is batch.size


def test_the_gradient_of_a_margin_turns_and_grows_with_the_margin() -> None:
    logits, batch = torch.tensor([3.0, -1.0, 0.0]), row_batch(True)
    honest, _ = Loss("bpr").derivative(logits, batch)
    turned, _ = Loss("bpr").derivative(logits, flipped(batch))
    assert honest[0] < 0 < turned[0]
    assert turned[0] > -honest[0]  # pairs that are ranked rightly are what the flip acts on
