from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

from fedbench.attacks.explicit_boost import ExplicitBoost
from fedbench.errors import UserError
from fedbench.federation.updates import Updates
from fedbench.federation.view import AttackerView
from fedbench.models import PublicParams

MakeView = Callable[..., AttackerView]
Upload = tuple[dict[int, torch.Tensor], dict[str, torch.Tensor]]


def attack(**params: float) -> ExplicitBoost:
    return ExplicitBoost(ExplicitBoost.Params(**params))


def per_client(updates: Updates) -> list[Upload]:
    """For every client its rows by item, and its dense gradients."""
    rows, stacked = updates.all_rows(), updates.dense.stacked()
    return [
        (
            {int(i): g for c, i, g in zip(rows.client, rows.item, rows.values, strict=True) if int(c) == n},
            {name: value[n] for name, value in stacked.items()},
        )
        for n in range(len(updates.clients))
    ]


def plain(view: AttackerView, user: torch.Tensor, items: list[int], labels: list[float]) -> tuple[Upload, torch.Tensor]:
    """One client's upload and its next embedding, from the loss as it is written."""
    u = user.clone().requires_grad_()
    rows = [view.params.items[item].clone().requires_grad_() for item in items]
    dense = {name: value.clone().requires_grad_() for name, value in view.params.dense.items()}
    loss = torch.zeros(())
    for row, label in zip(rows, labels, strict=True):
        logit = view.model.logits(dense, u[None], row[None])[0]
        loss = loss - (F.logsigmoid(logit) if label else F.logsigmoid(-logit)) / len(items)
    grads = torch.autograd.grad(loss, [u, *rows, *dense.values()])
    by_item = dict(zip(items, grads[1 : 1 + len(items)], strict=True))
    upload = by_item, dict(zip(dense, grads[1 + len(items) :], strict=True))
    return upload, user - view.learning_rate * grads[0]


def assert_uploads(ours: Upload, expected: Upload) -> None:
    assert ours[0].keys() == expected[0].keys()
    assert ours[1].keys() == expected[1].keys()
    for item, row in ours[0].items():
        assert torch.allclose(row, expected[0][item], atol=1e-6), item
    for name, value in ours[1].items():
        assert torch.allclose(value, expected[1][name], atol=1e-6), name


def test_one_client_on_mf_by_hand(make_view: MakeView) -> None:
    # u.v = ln 3, sigma = 3/4: the row is -(1/4) u, and u moves by +0.5 (1/4) v.
    items = torch.zeros(8, 2)
    items[7] = torch.tensor([math.log(3), 5.0])
    view = make_view(ExplicitBoost.card, m=1, num_items=8, embedding_size=2, params=PublicParams(items, {}))
    boost = attack()
    boost.start(view)
    boost.users[2] = torch.tensor([1.0, 0.0])
    rows = boost.craft(view).all_rows()
    assert rows.item.tolist() == [7]
    assert torch.allclose(rows.values, torch.tensor([[-0.25, 0.0]]))
    assert torch.allclose(boost.users[2], torch.tensor([1 + 0.125 * math.log(3), 0.625]))


@pytest.mark.parametrize("model", ["mf", "ncf"])
@pytest.mark.parametrize("targets", [(7,), (7, 0, 12)])
@pytest.mark.parametrize("negatives", [0, 2])
def test_uploads_and_embeddings_equal_a_plain_loop_over_clients_and_rounds(
    model: str, targets: tuple[int, ...], negatives: int, make_view: MakeView
) -> None:
    boost = attack(negatives=negatives)
    cohorts = [[0, 2, 3], [2, 1], [3]]  # 2 and 3 come back, 4 never comes
    boost.start(make_view(ExplicitBoost.card, model, targets=targets, num_malicious=5, in_round=False))
    users = list(boost.users.clone())
    for number, cohort in enumerate(cohorts):
        view = make_view(ExplicitBoost.card, model, targets=targets, clients=cohort, num_malicious=5, seed=number)
        updates = boost.craft(view)
        assert updates.clients.tolist() == cohort
        assert updates.weights.tolist() == [len(targets) * (1 + negatives)] * len(cohort)
        for client, ours in zip(cohort, per_client(updates), strict=True):
            items = boost.items[client].tolist()
            labels = [1.0] * len(targets) + [0.0] * (negatives * len(targets))
            expected, users[client] = plain(view, users[client], items, labels)
            assert_uploads(ours, expected)
        assert torch.allclose(boost.users, torch.stack(users), atol=1e-6)


@pytest.mark.parametrize("targets", [(7,), (7, 0, 12)])
def test_negatives_are_fixed_distinct_and_no_targets(targets: tuple[int, ...], make_view: MakeView) -> None:
    boost = attack(negatives=4)
    boost.start(make_view(ExplicitBoost.card, targets=targets, num_malicious=200, in_round=False))
    before = boost.items.clone()
    for items in boost.items.tolist():
        assert items[: len(targets)] == list(targets)
        assert len(set(items)) == 5 * len(targets)
    assert {item for items in boost.items.tolist() for item in items} == set(range(20))
    boost.craft(make_view(ExplicitBoost.card, targets=targets, clients=[5, 100]))
    assert torch.equal(boost.items, before)


@pytest.mark.parametrize("model", ["mf", "ncf"])
def test_a_client_does_not_depend_on_who_else_was_sampled(model: str, make_view: MakeView) -> None:
    def uploads(cohort: list[int]) -> dict[int, Upload]:
        boost = attack(negatives=1)
        boost.start(make_view(ExplicitBoost.card, model, num_malicious=4, in_round=False))
        updates = boost.craft(make_view(ExplicitBoost.card, model, clients=cohort, num_malicious=4))
        return dict(zip(cohort, per_client(updates), strict=True))

    together, turned, alone = uploads([0, 1, 3]), uploads([3, 0, 1]), uploads([3])
    for client in (0, 1, 3):
        assert_uploads(together[client], turned[client])
    assert_uploads(together[3], alone[3])


@pytest.mark.parametrize("model", ["mf", "ncf"])
def test_strength_scales_the_upload_and_not_the_client(model: str, make_view: MakeView) -> None:
    view = make_view(ExplicitBoost.card, model, targets=(7, 3))
    once, thrice = attack(), attack(strength=3.0)
    for boost in (once, thrice):
        boost.start(make_view(ExplicitBoost.card, model, targets=(7, 3), in_round=False))
    a, b = once.craft(view), thrice.craft(view)
    assert torch.allclose(b.sum_rows(20, 4), 3 * a.sum_rows(20, 4))
    assert a.sum_rows(20, 4)[7].abs().sum() > 0
    for name, value in a.dense.total().items():
        assert torch.allclose(b.dense.total()[name], 3 * value)
        assert torch.allclose(b.dense.stacked()[name], 3 * a.dense.stacked()[name])
    assert torch.equal(once.users, thrice.users)
    assert torch.equal(a.weights, b.weights)


def test_without_a_learning_rate_nothing_is_remembered(make_view: MakeView) -> None:
    boost = attack()
    boost.start(make_view(ExplicitBoost.card, learning_rate=0.0, in_round=False))
    before = boost.users.clone()
    boost.craft(make_view(ExplicitBoost.card, learning_rate=0.0))
    assert torch.equal(boost.users, before)


@pytest.mark.parametrize("std", [1.0, 0.01])
def test_embeddings_start_with_the_standard_deviation_asked_for(std: float, make_view: MakeView) -> None:
    boost = attack(init_std=std)
    boost.start(make_view(ExplicitBoost.card, num_malicious=2000, in_round=False))
    assert float(boost.users.std()) == pytest.approx(std, rel=0.05)
    assert ExplicitBoost.Params().init_std == 1.0


def test_more_negatives_than_items_is_one_line(make_view: MakeView) -> None:
    with pytest.raises(UserError, match=r"negatives = 7 for 3 target\(s\) needs 21 other items; the dataset has 17"):
        attack(negatives=7).start(make_view(ExplicitBoost.card, targets=(1, 2, 3), in_round=False))
