from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedbench.federation.clients import TrainingRows, draw_negatives
from fedbench.federation.losses import Loss
from fedbench.models import MODELS, PublicParams, Recommender
from fedbench.models.mf import MatrixFactorization, dropout_masks, kept_coordinates
from fedbench.models.ncf import NeuralCollaborativeFiltering
from fedbench.models.neumf import NeuralMatrixFactorization

C, M = 12, 25


def recommender(name: str, **params: object) -> Recommender:
    cls = MODELS.get(name)
    return cls(cls.Params(**({"init_std": 0.5} | params)))  # type: ignore[arg-type]


def interactions(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    key = torch.unique(torch.randint(0, C * M, (90,), generator=g))
    return key // M, key % M


def test_mf_by_hand() -> None:
    model = MatrixFactorization(MatrixFactorization.Params(embedding_size=2))
    params = PublicParams(torch.tensor([[1.0, 0], [0, 2], [1, 1]]), {})
    users = torch.tensor([[0.5, 1.0]])
    rows = TrainingRows.build(torch.tensor([0]), torch.tensor([1]), torch.tensor([[2]]), 1, 3)
    step = model.local_step(params, users, rows.select(torch.tensor([0])), Loss())
    e1, e2 = (1 / (1 + math.exp(-2)) - 1) / 2, 1 / (1 + math.exp(-1.5)) / 2
    assert torch.allclose(step.rows[0].sum(3), torch.tensor([[0, 0], [e1 * 0.5, e1], [e2 * 0.5, e2]]))
    assert torch.allclose(step.users, torch.tensor([[e2, 2 * e1 + e2]]))
    assert torch.allclose(model.score_all(params, users), torch.tensor([[0.5, 2.0, 1.5]]))


def test_ncf_by_hand() -> None:
    model = NeuralCollaborativeFiltering(NeuralCollaborativeFiltering.Params(embedding_size=1, hidden=(2,)))
    dense = {
        "W1": torch.tensor([[1.0, 1.0], [0.0, -1.0]]),
        "b1": torch.tensor([0.5, 0.0]),
        "h": torch.tensor([[2.0, 3.0]]),
        "bh": torch.tensor([-1.0]),
    }
    params = PublicParams(torch.tensor([[1.0], [-2.0]]), dense)
    # item 0: a = (1 + 1 + .5, 0); item 1: a = (0, 2)
    assert model.score_all(params, torch.tensor([[1.0]])).tolist() == [[4.0, 5.0]]
    rows = TrainingRows.build(torch.tensor([0]), torch.tensor([0]), torch.tensor([[1]]), 1, 2)
    step = model.local_step(params, torch.tensor([[1.0]]), rows.select(torch.tensor([0])), Loss())
    e0, e1 = (1 / (1 + math.exp(-4)) - 1) / 2, 1 / (1 + math.exp(-5)) / 2
    assert torch.allclose(step.rows[0].sum(2), torch.tensor([[2 * e0], [-3 * e1]]))
    assert torch.allclose(step.users, torch.tensor([[2 * e0]]))
    total = step.dense.total()
    assert torch.allclose(total["W1"], torch.tensor([[2 * e0, 2 * e0], [3 * e1, -6 * e1]]))
    assert torch.allclose(total["h"], torch.tensor([[2.5 * e0, 2 * e1]]))
    assert torch.allclose(total["bh"], torch.tensor([e0 + e1]))


def test_neumf_by_hand() -> None:
    model = NeuralMatrixFactorization(NeuralMatrixFactorization.Params(embedding_size=1, hidden=(2,)))
    dense = {
        "W1": torch.tensor([[1.0, 1.0], [0.0, -1.0]]),
        "b1": torch.tensor([0.5, 0.0]),
        "h": torch.tensor([[2.0, 3.0, 4.0]]),
        "bh": torch.tensor([-1.0]),
    }
    params = PublicParams(torch.tensor([[1.0], [-2.0]]), dense)
    user = torch.tensor([[0.5]])
    # item 0: a = (.5 + 1 + .5, 0), product .5; item 1: a = (0, 2), product -1
    assert model.score_all(params, user).tolist() == [[5.0, 1.0]]
    rows = TrainingRows.build(torch.tensor([0]), torch.tensor([0]), torch.tensor([[1]]), 1, 2)
    step = model.local_step(params, user, rows.select(torch.tensor([0])), Loss())
    e0, e1 = (1 / (1 + math.exp(-5)) - 1) / 2, 1 / (1 + math.exp(-1)) / 2
    assert torch.allclose(step.rows[0].sum(2), torch.tensor([[(2 + 4 * 0.5) * e0], [(-3 + 4 * 0.5) * e1]]))
    assert torch.allclose(step.users, torch.tensor([[(2 + 4) * e0 + 4 * -2 * e1]]))
    total = step.dense.total()
    assert torch.allclose(total["W1"], torch.tensor([[2 * e0 * 0.5, 2 * e0], [3 * e1 * 0.5, -6 * e1]]))
    assert torch.allclose(total["h"], torch.tensor([[2 * e0, 2 * e1, 0.5 * e0 - e1]]))
    assert torch.allclose(total["bh"], torch.tensor([e0 + e1]))


@pytest.mark.parametrize("name", ["mf", "ncf", "neumf"])
@pytest.mark.parametrize("kind", ["bce", "bpr"])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("q", [1, 3])
def test_local_steps_equal_autograd_of_each_clients_own_loss(name: str, kind: str, reduction: str, q: int) -> None:
    g = torch.Generator().manual_seed(1)
    user, item = interactions()
    negative = draw_negatives(user, item, C, M, q, g)
    rows = TrainingRows.build(user, item, negative, C, M, pairwise=kind == "bpr")
    model = recommender(name)
    params, users = model.init_params(M, g), model.init_users(C, g)
    clients = torch.tensor([3, 1, 7, 11, 4])
    step = model.local_step(params, users[clients], rows.select(clients), Loss(kind, reduction))
    row_sum = torch.zeros_like(params.items)
    for i, client in enumerate(clients.tolist()):
        items = params.items.clone().requires_grad_()
        own = users[client].clone().requires_grad_()
        dense = {key: value.clone().requires_grad_() for key, value in params.dense.items()}
        mine = user == client
        plus, minus = item[mine].repeat_interleave(q), negative[mine].reshape(-1)
        if kind == "bce":
            both = torch.cat([item[mine], minus])
            label = (torch.arange(len(both)) < mine.sum()).float()
            logits = model.logits(dense, own.expand(len(both), -1), items[both])
            loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, label, reduction=reduction)
        else:
            margin = model.logits(dense, own.expand(len(plus), -1), items[plus])
            margin = margin - model.logits(dense, own.expand(len(plus), -1), items[minus])
            loss = torch.nn.functional.softplus(-margin)
            loss = loss.mean() if reduction == "mean" else loss.sum()
        gradients = torch.autograd.grad(loss, [items, own, *dense.values()], allow_unused=True)
        row_sum += gradients[0]
        assert torch.allclose(step.users[i], gradients[1], atol=1e-5)
        for key, gradient in zip(dense, gradients[2:], strict=True):
            expected = torch.zeros_like(dense[key]) if gradient is None else gradient
            assert torch.allclose(step.dense.stacked()[key][i], expected, atol=1e-5), key
    assert torch.allclose(step.rows[0].sum(M), row_sum, atol=1e-5)
    for key, value in step.dense.total().items():
        assert torch.allclose(value, step.dense.stacked()[key].sum(0), atol=1e-5), key


@pytest.mark.parametrize("name", ["mf", "ncf", "neumf"])
def test_every_way_to_score_gives_the_same_logit(name: str) -> None:
    g = torch.Generator().manual_seed(2)
    model = recommender(name)
    params, users = model.init_params(M, g), model.init_users(C, g)
    table = model.score_all(params, users)
    aligned = model.logits(params.dense, users[:, None].expand(C, M, -1), params.items.expand(C, M, -1))
    assert torch.allclose(table, aligned, atol=1e-5)
    stacked = {key: torch.stack([value, 2 * value]) for key, value in params.dense.items()}
    pairs = users[:2, None].expand(2, M, -1)
    each = model.logits(stacked, pairs, params.items.expand(2, M, -1))
    assert torch.allclose(each[0], table[0], atol=1e-5)
    double = {key: 2 * value for key, value in params.dense.items()}
    assert torch.allclose(each[1], model.logits(double, pairs[1], params.items), atol=1e-5)


@pytest.mark.parametrize("name", ["mf", "ncf", "neumf"])
@settings(max_examples=20, deadline=None)
@given(order=st.permutations(range(C)), kept=st.integers(1, C))
def test_gradients_do_not_depend_on_the_order_of_clients(name: str, order: list[int], kept: int) -> None:
    g = torch.Generator().manual_seed(1)
    user, item = interactions()
    rows = TrainingRows.build(user, item, draw_negatives(user, item, C, M, 2, g), C, M)
    model = recommender(name)
    params, users = model.init_params(M, g), model.init_users(C, g)
    mixed = torch.tensor(order[:kept])
    straight = mixed.sort().values
    a = model.local_step(params, users[mixed], rows.select(mixed), Loss())
    b = model.local_step(params, users[straight], rows.select(straight), Loss())
    assert torch.allclose(a.rows[0].sum(M), b.rows[0].sum(M), atol=1e-5)
    assert torch.allclose(a.users[mixed.argsort()], b.users, atol=1e-6)


def test_published_initialisation_of_ncf() -> None:
    model = recommender("ncf", init_std=0.01)
    params = model.init_params(5000, torch.Generator().manual_seed(0))
    assert sum(value.numel() for value in params.dense.values()) == 217
    assert params.items.std().item() == pytest.approx(0.01, rel=0.05)
    assert params.dense["W1"].abs().max().item() <= math.sqrt(6 / 16)
    assert params.dense["h"].abs().max().item() <= math.sqrt(6 / 8)
    assert params.dense["W1"].abs().max().item() > 0.9 * math.sqrt(6 / 16)
    assert not params.dense["b1"].any()


def test_published_initialisation_of_neumf() -> None:
    model = NeuralMatrixFactorization(NeuralMatrixFactorization.Params())
    params = model.init_params(5000, torch.Generator().manual_seed(0))
    assert {name: tuple(value.shape) for name, value in params.dense.items() if name[0] != "b"} == {
        "W1": (64, 32),
        "W2": (32, 64),
        "W3": (16, 32),
        "W4": (8, 16),
        "W5": (16, 8),
        "h": (1, 32),
    }
    assert params.items.std().item() == pytest.approx(0.01, rel=0.05)
    for name, value in params.dense.items():
        bound = 0 if name[0] == "b" else math.sqrt(6 / value.shape[1])
        assert 0.8 * bound <= value.abs().max().item() <= bound, name


def test_the_gathering_product_serves_where_the_sparse_one_cannot(monkeypatch: pytest.MonkeyPatch) -> None:
    g = torch.Generator().manual_seed(1)
    user, item = interactions()
    rows = TrainingRows.build(user, item, draw_negatives(user, item, C, M, 2, g), C, M)
    model = recommender("mf")
    params, users = model.init_params(M, g), model.init_users(C, g)
    batch = rows.select(torch.arange(C))
    sparse = model.local_step(params, users, batch, Loss())
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: False)
    gathered = model.local_step(params, users, batch, Loss())
    assert torch.allclose(sparse.users, gathered.users, atol=1e-6)
    assert torch.allclose(sparse.rows[0].sum(M), gathered.rows[0].sum(M), atol=1e-6)


def test_loss_values_by_hand() -> None:
    rows = TrainingRows.build(torch.tensor([0]), torch.tensor([1]), torch.tensor([[2]]), 1, 3, pairwise=True)
    batch = rows.select(torch.tensor([0]))
    logits = torch.tensor([1.0, -1.0])
    assert Loss("bce").value(logits, batch).item() == pytest.approx(math.log1p(math.exp(-1)))
    assert Loss("bce", "sum").value(logits, batch).item() == pytest.approx(2 * math.log1p(math.exp(-1)))
    assert Loss("bpr").value(logits, batch).item() == pytest.approx(math.log1p(math.exp(-2)))


@pytest.mark.parametrize("kind", ["bpr", "bce"])
def test_gradients_of_mf_with_dropout_are_those_of_autograd_under_the_same_masks(kind: str) -> None:
    model = MatrixFactorization(MatrixFactorization.Params(embedding_size=4, init_std=0.5, dropout=0.3))
    g = torch.Generator().manual_seed(5)
    params, users = model.init_params(M, g), model.init_users(C, g)
    user, item = interactions()
    drawn = draw_negatives(user, item, C, M, 2, g)
    batch = TrainingRows.build(user, item, drawn, C, M, pairwise=kind == "bpr").select(torch.arange(C))
    loss = Loss(kind, regularization=0.1)
    step = model.local_step(params, users, batch, loss, torch.Generator().manual_seed(9))

    again = torch.Generator().manual_seed(9)
    v, u = params.items.clone().requires_grad_(), users.clone().requires_grad_()
    total = torch.zeros(())
    if kind == "bpr":
        assert batch.pair_positive is not None
        assert batch.pair_negative is not None
        owner = batch.client[batch.pair_positive]
        keep = kept_coordinates((3, len(owner), 4), 0.3, again, v.device) / 0.7
        positive, negative = batch.item[batch.pair_positive], batch.item[batch.pair_negative]
        for r in range(len(owner)):
            x = u[owner[r]] * keep[0, r]
            margin = x @ (v[positive[r]] * keep[1, r]) - x @ (v[negative[r]] * keep[2, r])
            total = total - torch.nn.functional.logsigmoid(margin) / (owner == owner[r]).sum()
    else:
        keep = kept_coordinates((2, len(batch.item), 4), 0.3, again, v.device) / 0.7
        logits = ((u[batch.client] * keep[0]) * (v[batch.item] * keep[1])).sum(1)
        total = loss.value(logits, batch).sum()
    total = total + 0.05 * (u.square().sum() + v[batch.item].square().sum())
    by_item, by_user = torch.autograd.grad(total, [v, u])
    assert torch.allclose(step.rows[0].sum(M), by_item, atol=1e-6)
    assert torch.allclose(step.users, by_user, atol=1e-6)
    whole = MatrixFactorization(MatrixFactorization.Params(embedding_size=4, init_std=0.5))
    assert torch.equal(
        model.local_step(params, users, batch, loss).users, whole.local_step(params, users, batch, loss).users
    )


@settings(max_examples=25, deadline=None)
@given(p=st.floats(0, 0.9), shape=st.tuples(st.integers(1, 4), st.integers(1, 50)), seed=st.integers(0, 99))
def test_dropout_masks_hold_two_values_and_keep_the_mean(p: float, shape: tuple[int, int], seed: int) -> None:
    keep = dropout_masks((*shape, 64), p, torch.Generator().manual_seed(seed), torch.device("cpu"))
    count = keep.numel()
    assert bool(((keep == 0) | ((keep - 1 / (1 - p)).abs() < 1e-6)).all())
    share = float((keep > 0).float().mean())
    # Of a few entries and a rate near 0, one or two that are dropped all the same are no surprise.
    assert abs(share - (1 - p)) < 6 * (p * (1 - p) / count) ** 0.5 + 3 / count + 1e-4


@settings(max_examples=25, deadline=None)
@given(p=st.one_of(st.floats(0, 0.9), st.floats(0.995, 0.9995)), seed=st.integers(0, 99))
def test_kept_coordinates_are_zeros_and_ones_whose_rate_is_exact_over_draws(p: float, seed: int) -> None:
    stream = torch.Generator().manual_seed(seed)
    drawn = torch.stack([kept_coordinates((5, 64), p, stream, torch.device("cpu")) for _ in range(200)])
    assert bool(((drawn == 0) | (drawn == 1)).all())
    # Of 64,000 entries, 12,800 thresholds that lie within 1/256 of the rate.
    deviation = (p * (1 - p) / drawn.numel() + (0.5 / 256) ** 2 / 12_800) ** 0.5
    assert abs(float(drawn.mean()) - (1 - p)) < 6 * deviation + 1e-5


def test_a_rate_between_two_bytes_is_met_by_rounding_coordinates_both_ways() -> None:
    p, rows = 51.5 / 256, 1_000_000
    kept = kept_coordinates((rows, 16), p, torch.Generator().manual_seed(0), torch.device("cpu"))
    dropped = 1 - kept.mean(0, dtype=torch.float64)
    below, above = (dropped - 51 / 256).abs(), (dropped - 52 / 256).abs()
    assert bool((torch.minimum(below, above) < 4 * (p * (1 - p) / rows) ** 0.5).all())
    assert 0 < int((above < below).sum()) < 16


def test_xavier_tables_fill_their_range() -> None:
    model = MatrixFactorization(MatrixFactorization.Params(embedding_size=6, init="xavier"))
    items = model.init_params(54, torch.Generator().manual_seed(0)).items
    assert items.abs().max() <= (6 / 60) ** 0.5
    assert items.abs().max() > 0.98 * (6 / 60) ** 0.5
    assert abs(float(items.mean())) < 0.05
