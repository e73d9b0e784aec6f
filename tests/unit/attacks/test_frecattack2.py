"""FRecAttack2 beside loops over clients, virtual users and items with autograd, and its clusters beside plain loops."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from trend_oracle import PlainTrend

from fedbench.attacks.frecattack2 import Clusters, FRecAttack2, clusters, silhouette, taught
from fedbench.federation.view import AttackerView
from fedbench.models import MODELS, PublicParams

MakeView = Callable[..., AttackerView]


def recommender(name: str, **values: Any) -> Any:
    cls = MODELS.get(name)
    return cls(cls.Params(**values))


def test_what_a_user_is_taught_by_hand() -> None:
    """``sigma(ln 3) = 3/4``: one user ln 3, and items 1 (liked), -1 (disliked), 0 (both); three items left alone."""
    params = PublicParams(torch.tensor([[5.0], [1.0], [-1.0], [5.0], [0.0], [5.0]]), {})
    user = torch.tensor([[math.log(3)]])
    liked = torch.tensor([False, True, False, False, True, False])
    disliked = torch.tensor([False, False, True, False, True, False])
    item, rows, dense = taught(recommender("mf", embedding_size=1), params, user, liked, disliked)
    assert item.tolist() == [1, 2, 4]
    expected = torch.tensor([[(0.75 - 1) / 4], [0.25 / 4], [(2 * 0.5 - 1) / 4]]) * math.log(3)
    torch.testing.assert_close(rows, expected)
    assert dense == {}


@pytest.mark.parametrize("model", ["mf", "ncf", "lightgcn"])
def test_rounds_are_those_of_the_plain_loop(make_view: MakeView, model: str) -> None:
    attack = FRecAttack2(FRecAttack2.Params(virtual_users=3, share=0.2, patience=1, later_patience=1, sigma=0.5))
    attack.start(make_view(FRecAttack2.card, model, targets=(), in_round=False))
    trends: dict[int, PlainTrend] = {}
    before: dict[int, torch.Tensor] = {}
    changed = 0
    for number, clients in enumerate([[0, 2], [2], [0, 2], [2, 4], [0, 2], [0, 2], [0, 2], [0, 2], [0, 2]]):
        made = make_view(
            FRecAttack2.card, model, targets=(), clients=clients, num_malicious=5, round=number, seed=number
        )
        options: dict[str, Any] = {
            "targets": (),
            "clients": clients,
            "num_malicious": 5,
            "round": number,
            "seed": number,
        }
        params = PublicParams(made.params.items, made.params.dense, made.params.features)
        sent = attack.craft(made)
        view = make_view(FRecAttack2.card, model, **options)
        draws = torch.randn(len(clients), 3, 4, generator=view.generator)
        own, rows, stacked = view.own_users, sent.all_rows(), sent.dense.stacked()
        for place, client in enumerate(clients):
            virtual = [own[place] + 0.5 * draws[place, k] for k in range(3)]

            def scores(
                items: torch.Tensor, virtual: Any = virtual, params: Any = params, view: Any = view
            ) -> list[float]:
                described = PublicParams(items, {}, params.features).described(torch.arange(len(items)))
                return [
                    sum(float(view.model.logits(params.dense, u[None], described[j][None]).sigmoid()) for u in virtual)
                    for j in range(len(items))
                ]

            plain = trends.setdefault(client, PlainTrend(4, 1, 1))
            value = scores(params.items)
            if client in before and not plain.by_score:
                value = [now - then for now, then in zip(value, scores(before[client]), strict=True)]
                changed += 1
            before[client] = params.items
            high, low = plain.look(value)
            items = params.items.clone().requires_grad_()
            dense = {name: each.clone().requires_grad_() for name, each in params.dense.items()}
            described = PublicParams(items, {}, params.features).described(torch.arange(20))
            terms = []
            for user in virtual:
                for sign, end in ((-1, low), (1, high)):
                    logits = [view.model.logits(dense, user[None], described[j][None])[0] for j in end]
                    terms += [torch.nn.functional.softplus(sign * each) for each in logits]
            torch.stack(terms).mean().backward()
            mine = rows.client == place
            assert set(rows.item[mine].tolist()) == high | low
            got = torch.zeros_like(items).index_add_(0, rows.item[mine], rows.values[mine])
            torch.testing.assert_close(got, items.grad, atol=1e-6, rtol=1e-4)
            for name, each in dense.items():
                torch.testing.assert_close(stacked[name][place], each.grad, atol=1e-6, rtol=1e-4)
        assert sent.weights.tolist() == [8.0] * len(clients)
    assert changed >= 4
    assert any(each.by_score for each in trends.values())


def test_colluding_clients_share_clusters_of_their_embeddings(make_view: MakeView) -> None:
    users = torch.tensor([[0.0, 0.0], [0.1, 0.0], [8.0, 8.0], [8.1, 8.0], [8.2, 8.0], [4.0, -9.0]])
    attack = FRecAttack2(FRecAttack2.Params(collusion="colluding", virtual_users=10, sigma=1e-6, share=0.5))
    options: dict[str, Any] = {"targets": (), "num_malicious": 6, "users": users, "embedding_size": 2}
    attack.start(make_view(FRecAttack2.card, in_round=False, **options))

    def centers(clients: list[int], epoch: int = 1) -> list[list[float]]:
        view = make_view(FRecAttack2.card, clients=clients, epoch=epoch, **options)
        virtual = attack._virtual(view)
        assert len(virtual) == len(clients)
        assert torch.allclose(virtual, virtual[:1], atol=1e-4)
        return sorted([round(x, 2) for x in each] for each in virtual[0].tolist())

    assert centers([0]) == [[0.0, 0.0]] * 10
    assert centers([2, 3]) == [[0.0, 0.0]] * 3 + [[8.05, 8.0]] * 6
    assert centers([1]) == [[0.0, 0.0]] * 3 + [[8.05, 8.0]] * 6  # four, after three at the last time: as before
    assert centers([1], epoch=2) == [[0.05, 0.0]] * 5 + [[8.05, 8.0]] * 5
    assert centers([4], epoch=3) == [[0.05, 0.0]] * 4 + [[8.1, 8.0]] * 6


@pytest.mark.parametrize("model", ["mf", "ncf"])
def test_own_embeddings_may_take_steps_of_their_own(make_view: MakeView, model: str) -> None:
    """Two participations, three steps after each; what the federation holds of the client is looked at once."""
    attack = FRecAttack2(FRecAttack2.Params(virtual_users=2, sigma=1e-9, own_steps=3))
    options: dict[str, Any] = {"targets": (), "num_malicious": 2, "clients": [1]}
    attack.start(make_view(FRecAttack2.card, model, in_round=False, **options))
    expected = make_view(FRecAttack2.card, model, **options).own_users
    for seed in (0, 0, 1):
        view = make_view(FRecAttack2.card, model, seed=seed, **options)
        torch.testing.assert_close(attack._virtual(view), expected[:, None].expand(1, 2, -1))
        attack.craft(view)
        batch = view.own_batch
        for _ in range(3):
            user = expected.clone().requires_grad_()
            logits = view.model.logits(
                view.params.dense, user.expand(len(batch.item), -1), view.params.items[batch.item]
            )
            terms = batch.positive * torch.nn.functional.softplus(-logits)
            terms = terms + (batch.weight - batch.positive) * torch.nn.functional.softplus(logits)
            (gradient,) = torch.autograd.grad(terms.sum() / batch.size, user)
            expected = expected - 0.5 * gradient


def test_virtual_users_of_clusters_by_hand() -> None:
    found = Clusters(torch.tensor([[1.0], [2.0], [3.0]]), torch.tensor([5, 3, 2]))
    center, spread = found.users(10, 0.5)
    assert center.squeeze(1).tolist() == [1.0] * 5 + [2.0] * 3 + [3.0] * 2
    assert spread.tolist() == pytest.approx([0.5] * 5 + [0.3] * 3 + [0.2] * 2)
    center, _ = found.users(4, 0.5)  # 2.0, 1.2 and 0.8 of them
    assert center.squeeze(1).tolist() == [1.0, 1.0, 2.0]
    center, _ = found.users(1, 0.5)
    assert center.squeeze(1).tolist() == [1.0]


@pytest.mark.parametrize("n", [1, 2])
def test_few_points_are_one_cluster(n: int) -> None:
    points = torch.arange(float(n))[:, None]
    found = clusters(points, torch.Generator().manual_seed(0))
    assert found.sizes.tolist() == [n]
    assert found.centers.tolist() == [[(n - 1) / 2]]


@pytest.mark.parametrize("count", [2, 3, 4])
def test_as_many_clusters_as_there_are(count: int) -> None:
    g = torch.Generator().manual_seed(count)
    middle = torch.tensor([[0.0, 0.0], [20.0, 0.0], [0.0, 20.0], [20.0, 20.0]])[:count]
    points = (middle[:, None] + torch.randn(count, 6, 2, generator=g)).flatten(0, 1)
    found = clusters(points, g)
    assert found.sizes.tolist() == [6] * count
    assert sorted(found.centers.round().tolist()) == sorted(points.view(count, 6, 2).mean(1).round().tolist())


@pytest.mark.parametrize("seed", range(4))
def test_the_silhouette_is_that_of_the_plain_loop(seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    points, labels = torch.randn(9, 2, generator=g), torch.randint(0, 3, (9,), generator=g)
    labels[0] = 3  # alone
    values = []
    for i in range(9):
        near = {
            k: [float((points[i] - points[j]).norm()) for j in range(9) if labels[j] == k and j != i] for k in range(5)
        }
        own = int(labels[i])
        if not near[own]:
            values.append(0.0)
            continue
        a = sum(near[own]) / len(near[own])
        b = min(sum(each) / len(each) for k, each in near.items() if k != own and each)
        values.append((b - a) / max(a, b))
    assert float(silhouette(points, labels, 5)) == pytest.approx(sum(values) / 9, abs=1e-5)


def test_embeddings_of_then_are_scored_for_the_users_of_now(make_view: MakeView) -> None:
    """mf with one virtual user at its client, all but exactly: the second sees that the second coordinate has halved."""
    attack = FRecAttack2(FRecAttack2.Params(virtual_users=1, sigma=1e-9, share=0.1))
    users = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    options: dict[str, Any] = {"targets": (), "num_malicious": 1, "clients": [0], "embedding_size": 2}
    attack.start(make_view(FRecAttack2.card, in_round=False, **options))
    tables = [torch.zeros(20, 2), torch.zeros(20, 2)]
    tables[0][:, 0] = torch.linspace(0, 1, 20)
    tables[0][:, 1] = torch.linspace(0, 2, 20)
    tables[1][:, 1] = torch.linspace(0, 1, 20)
    for number, (user, expected) in enumerate(zip(users, ([18, 19], [0, 1]), strict=True)):
        view = make_view(
            FRecAttack2.card, params=PublicParams(tables[number], {}), users=user[None], round=number, **options
        )
        rows = attack.craft(view).all_rows()
        pushed_down = [int(j) for j, row in zip(rows.item, rows.values, strict=True) if row.sum() > 0]
        assert pushed_down == expected


def test_parameters_that_cannot_be() -> None:
    for name, value in {"share": 0.6, "sigma": 0.0, "virtual_users": 0, "switch": "never"}.items():
        with pytest.raises(ValueError, match=name):
            FRecAttack2.Params(**{name: value})
