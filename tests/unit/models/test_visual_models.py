"""lightgcn, vncf and lightvgcn: by hand, beside autograd client by client, and against each other."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedbench.federation.batch import Batch
from fedbench.federation.clients import TrainingRows, draw_negatives
from fedbench.federation.losses import Loss
from fedbench.federation.model import Histories
from fedbench.federation.updates import Updates
from fedbench.models import MODELS, PublicParams, Recommender
from fedbench.models.lightgcn import LightGraphConvolution
from fedbench.models.lightvgcn import VisualLightGraphConvolution
from fedbench.models.perceptron import PerceptronRecommender
from fedbench.models.vncf import VisualNeuralCollaborativeFiltering
from fedbench.testing import small_federation

C, M, F, D = 12, 25, 9, 4
NAMES = ["lightgcn", "vncf", "lightvgcn"]
POOLED = [("lightgcn", "sum"), ("lightgcn", "mean"), ("vncf", "sum"), ("lightvgcn", "sum"), ("lightvgcn", "mean")]


def recommender(name: str, pool: str = "sum") -> PerceptronRecommender:
    cls = MODELS.get(name)
    extra = {} if name == "vncf" else {"pool": pool}
    model = cls(cls.Params(**({"embedding_size": D, "hidden": (6, 5), "init_std": 0.5} | extra)))
    assert isinstance(model, PerceptronRecommender)
    return model


def parameters(model: Recommender, seed: int = 1) -> PublicParams:
    """Features of a few items are zero: those without an image."""
    g = torch.Generator().manual_seed(seed)
    drawn = model.init_params(M, g)
    dense = dict(drawn.dense)
    dense |= {name: torch.randn(value.shape, generator=g) / 4 for name, value in dense.items() if name.startswith("b")}
    if not model.reads_features:
        return PublicParams(drawn.items, dense)
    features = torch.randn(M, F, generator=g)
    features[::6] = 0
    return PublicParams(drawn.items, dense | dict(model.init_feature_params(F, g)), features)


def training_rows(q: int = 3, pairwise: bool = False) -> tuple[TrainingRows, torch.Tensor]:
    """Rows of C clients, of whom client 0 has none; some negatives are positives too."""
    g = torch.Generator().manual_seed(0)
    key = torch.unique(torch.randint(M, C * M, (90,), generator=g))
    user, item = key // M, key % M
    negative = draw_negatives(user, item, C, M, q, g)
    negative[::5, 0] = item[::5]
    users = torch.randn(C, D, generator=g) / 2
    return TrainingRows.build(user, item, negative, C, M, pairwise=pairwise), users


def plain_loss(
    model: PerceptronRecommender,
    params: PublicParams,
    user: torch.Tensor,
    batch: Batch,
    loss: Loss,
) -> torch.Tensor:
    """The loss of the one client of ``batch``, written out item by item."""
    dense, items = params.dense, params.items
    convolves = isinstance(model, LightGraphConvolution)
    pool = 0.5 if convolves and model.params.pool == "mean" else 1.0

    def look(j: int) -> torch.Tensor:
        if params.features is None:
            return items.new_zeros(D)
        return dense["E"] @ params.features[j]

    leaves = [int(j) for j, y in zip(batch.item, batch.positive, strict=True) if y > 0] if convolves else []
    shown = user
    for j in leaves:
        shown = shown + (items[j] + look(j)) / math.sqrt(len(leaves))
    logits = []
    for j in batch.item.tolist():
        own = items[j] + user / math.sqrt(len(leaves)) if j in leaves else items[j]
        a = torch.cat([pool * shown, pool * own] + ([look(j)] if params.features is not None else []))
        for layer in range(1, len(model.params.hidden) + 1):
            a = torch.relu(dense[f"W{layer}"] @ a + dense[f"b{layer}"])
        logits.append((dense["h"] @ a + dense["bh"])[0])
    value = loss.value(torch.stack(logits), batch).sum()
    return value + loss.regularization / 2 * (user.square().sum() + items[batch.item].square().sum())


@pytest.mark.parametrize(("name", "pool"), POOLED)
@pytest.mark.parametrize("loss", [Loss(), Loss("bce", "sum", 0.1), Loss("bpr")], ids=["bce", "bce, sum, l2", "bpr"])
def test_local_steps_equal_autograd_of_each_clients_own_loss(name: str, pool: str, loss: Loss) -> None:
    model = recommender(name, pool)
    params = parameters(model)
    rows, users = training_rows(1 if loss.kind == "bpr" else 3, loss.kind == "bpr")
    clients = torch.tensor([3, 0, 1, 7, 11, 4])
    batch = rows.select(clients)
    step = model.local_step(params, users[clients], batch, loss)
    total, stacked = step.dense.total(), step.dense.stacked()
    (block,) = step.rows
    made = block.grad()
    assert list(total) == list(stacked) == list(params.dense)
    sums = {key: torch.zeros_like(value) for key, value in params.dense.items()}
    by_item, weighted = torch.zeros_like(params.items), {key: value.clone() for key, value in sums.items()}
    factor = torch.tensor([0.5, 3, 2, 0, 1, -1])
    for i, client in enumerate(clients.tolist()):
        if client == 0:
            assert not any(bool(value[i].any()) for value in (step.users, *stacked.values())) or loss.regularization
            continue
        items, own = params.items.clone().requires_grad_(), users[client].clone().requires_grad_()
        dense = {key: value.clone().requires_grad_() for key, value in params.dense.items()}
        alone = rows.select(torch.tensor([client]))
        value = plain_loss(model, PublicParams(items, dense, params.features), own, alone, loss)
        gradients = torch.autograd.grad(value, [items, own, *dense.values()], allow_unused=True)
        by_item += gradients[0]
        mine = batch.client == i
        assert torch.allclose(made[mine], gradients[0][batch.item[mine]], atol=1e-5)
        assert torch.allclose(step.users[i], gradients[1], atol=1e-5)
        for key, gradient in zip(dense, gradients[2:], strict=True):
            expected = torch.zeros_like(dense[key]) if gradient is None else gradient
            assert torch.allclose(stacked[key][i], expected, atol=1e-5), key
            sums[key] += expected
            weighted[key] += factor[i] * expected
    assert torch.allclose(block.sum(M), by_item, atol=1e-5)
    scaled = step.dense.scaled(factor).total()
    for key in sums:
        assert torch.allclose(total[key], sums[key], atol=1e-5), key
        assert torch.allclose(scaled[key], weighted[key], atol=2e-5), key


@pytest.mark.parametrize("name", ["lightgcn", "lightvgcn"])
def test_rows_through_a_star_keep_the_contract_of_rows(name: str) -> None:
    model = recommender(name)
    rows, users = training_rows()
    batch = rows.select(torch.arange(C))
    (block,) = model.local_step(parameters(model), users, batch, Loss()).rows
    made, g = block.grad(), torch.Generator().manual_seed(3)
    assert torch.allclose(block.grad(), made)
    assert torch.allclose(block.norms(), made.norm(dim=1))
    factor, some = torch.rand(len(made), generator=g), torch.randperm(len(made), generator=g)[:7]
    assert torch.allclose(block.scaled(factor).grad(), made * factor[:, None], atol=1e-6)
    expected = torch.zeros(M, D).index_add_(0, batch.item, made * factor[:, None])
    assert torch.allclose(block.scaled(factor).sum(M), expected, atol=1e-6)
    assert torch.allclose(block.take(some).grad(), made[some])
    assert torch.equal(block.take(some).item, batch.item[some])
    assert torch.equal(block.renumbered(batch.client + 5).client, batch.client + 5)


@pytest.mark.parametrize("name", NAMES)
def test_with_rows_that_hold_one_repeat_the_clients_own_gradients_stay(name: str) -> None:
    model = recommender(name)
    params = parameters(model)
    rows, users = training_rows()
    batch = rows.select(torch.arange(C))
    summed, last = (model.local_step(params, users, batch, Loss(duplicate_rows=kind)) for kind in ("sum", "last"))
    assert torch.equal(summed.users, last.users)
    once = batch.weight == 1
    a, b = summed.rows[0].grad(), last.rows[0].grad()
    assert torch.allclose(a[once], b[once])
    assert not torch.allclose(a[~once], b[~once])


def test_vncf_by_hand() -> None:
    cls = VisualNeuralCollaborativeFiltering
    model = cls(cls.Params(embedding_size=1, hidden=(2,)))
    dense = {
        "W1": torch.tensor([[1.0, 1.0, 2.0], [0.0, -1.0, 1.0]]),
        "b1": torch.tensor([0.5, 0.0]),
        "h": torch.tensor([[2.0, 3.0]]),
        "bh": torch.tensor([-5.0]),
        "E": torch.tensor([[0.5, -1.0]]),
    }
    # z = (1, 0). Item 0: a = (1 + 1 + 2 + .5, 0), s = 4; item 1, without image: a = (0, 2), s = 1.
    params = PublicParams(torch.tensor([[1.0], [-2.0]]), dense, torch.tensor([[4.0, 1.0], [0.0, 0.0]]))
    users = torch.tensor([[1.0]])
    assert model.score_all(params, users).tolist() == [[4.0, 1.0]]
    rows = TrainingRows.build(torch.tensor([0]), torch.tensor([0]), torch.tensor([[1]]), 1, 2)
    step = model.local_step(params, users, rows.select(torch.tensor([0])), Loss())
    e0, e1 = (1 / (1 + math.exp(-4)) - 1) / 2, 1 / (1 + math.exp(-1)) / 2
    assert torch.allclose(step.rows[0].sum(2), torch.tensor([[2 * e0], [-3 * e1]]))
    assert torch.allclose(step.users, torch.tensor([[2 * e0]]))
    for gradients in (step.dense.total(), {key: value[0] for key, value in step.dense.stacked().items()}):
        assert torch.allclose(gradients["W1"], torch.tensor([[2 * e0, 2 * e0, 2 * e0], [3 * e1, -6 * e1, 0]]))
        assert torch.allclose(gradients["E"], torch.tensor([[2 * 2 * e0 * 4, 2 * 2 * e0]]))  # W1z h e phi


def test_lightgcn_by_hand() -> None:
    model = LightGraphConvolution(LightGraphConvolution.Params(embedding_size=1, hidden=(1,)))
    dense = {
        "W1": torch.tensor([[1.0, 2.0]]),
        "b1": torch.tensor([0.0]),
        "h": torch.tensor([[1.0]]),
        "bh": torch.tensor([0.0]),
    }
    # Four positives, n^(-1/2) = 1/2: u = 1 + (1 + 2 + 3 + 4) / 2 = 6; v_j = v_j^0 + 1/2; item 4 stays as it is.
    params = PublicParams(torch.tensor([[1.0], [2.0], [3.0], [4.0], [-1.0], [5.0]]), dense)
    users, liked = torch.tensor([[1.0]]), torch.arange(4)
    rows = TrainingRows.build(torch.zeros(4, dtype=torch.int64), liked, torch.full((4, 1), 4), 1, 6)
    step = model.local_step(params, users, rows.select(torch.tensor([0])), Loss())
    s = torch.tensor([6 + 2 * 1.5, 6 + 2 * 2.5, 6 + 2 * 3.5, 6 + 2 * 4.5, 6 - 2.0])
    e = torch.sigmoid(s) * torch.tensor([1, 1, 1, 1, 4.0]) - torch.tensor([1, 1, 1, 1, 0.0])
    e = e / 8
    assert torch.allclose(step.rows[0].grad()[:, 0], 2 * e + torch.tensor([1, 1, 1, 1, 0]) * e.sum() / 2)
    assert torch.allclose(step.users[0, 0], e.sum() + 2 * e[:4].sum() / 2)
    by_v = (e * torch.tensor([1.5, 2.5, 3.5, 4.5, -1])).sum()
    assert torch.allclose(step.dense.total()["W1"], torch.stack([6 * e.sum(), by_v])[None])
    # For ranking: the same u, and items outside the history as they are.
    shown = model.represent(params, users, Histories(torch.tensor([0, 5]), torch.tensor([3, 0, 2, 1, 0])))
    assert shown.tolist() == [[6.0]], "a repeat counts once"
    assert model.score_all(params, shown)[0, 4:].tolist() == [4.0, 16.0]


def test_lightvgcn_by_hand() -> None:
    model = VisualLightGraphConvolution(VisualLightGraphConvolution.Params(embedding_size=1, hidden=(1,), pool="mean"))
    dense = {
        "W1": torch.tensor([[1.0, 1.0, 1.0]]),
        "b1": torch.tensor([0.0]),
        "h": torch.tensor([[1.0]]),
        "bh": torch.tensor([0.0]),
        "E": torch.tensor([[2.0]]),
    }
    # z = (2, 6). One positive: u = (4 + 1 + 2) / 2, v_0 = (1 + 4) / 2, and item 1 has 3 / 2.
    params = PublicParams(torch.tensor([[1.0], [3.0]]), dense, torch.tensor([[1.0], [3.0]]))
    users = torch.tensor([[4.0]])
    rows = TrainingRows.build(torch.tensor([0]), torch.tensor([0]), torch.tensor([[1]]), 1, 2)
    step = model.local_step(params, users, rows.select(torch.tensor([0])), Loss())
    e0, e1 = (torch.sigmoid(torch.tensor([3.5 + 2.5 + 2, 3.5 + 1.5 + 6])) - torch.tensor([1.0, 0])) / 2
    through_u = (e0 + e1) / 2
    assert torch.allclose(step.rows[0].sum(2), torch.stack([e0 / 2 + through_u, e1 / 2])[:, None])
    assert torch.allclose(step.users, through_u + e0 / 2)
    assert torch.allclose(step.dense.total()["E"], 1 * (e0 + through_u) + 3 * e1)
    shown = model.represent(params, users, Histories(torch.tensor([0, 1]), torch.tensor([0])))
    assert model.score_all(params, shown)[0, 1].item() == 3.5 + 1.5 + 6


def test_without_a_projection_lightvgcn_is_lightgcn() -> None:
    visual, plain = recommender("lightvgcn"), recommender("lightgcn")
    full = parameters(visual)
    assert full.features is not None
    blind = PublicParams(full.items, full.dense | {"E": torch.zeros(D, F)}, full.features)
    dense = {key: value for key, value in full.dense.items() if key != "E"}
    dense["W1"] = full.dense["W1"][:, : 2 * D]
    narrow = PublicParams(full.items, dense)
    rows, users = training_rows()
    batch = rows.select(torch.arange(C))
    a, b = visual.local_step(blind, users, batch, Loss()), plain.local_step(narrow, users, batch, Loss())
    assert torch.allclose(a.users, b.users, atol=1e-6)
    assert torch.allclose(a.rows[0].sum(M), b.rows[0].sum(M), atol=1e-6)
    assert torch.allclose(a.dense.total()["W1"][:, : 2 * D], b.dense.total()["W1"], atol=1e-6)
    assert torch.allclose(visual.score_all(blind, users), plain.score_all(narrow, users), atol=1e-6)
    histories = Histories(torch.arange(C + 1) * 2, torch.arange(2 * C))
    shown = visual.represent(blind, users, histories)
    assert torch.allclose(shown, plain.represent(narrow, users, histories), atol=1e-6)


def test_items_without_an_image_are_seen_by_their_embedding_alone() -> None:
    model = recommender("vncf")
    params = parameters(model)
    other = PublicParams(params.items, params.dense | {"E": params.dense["E"] + 1}, params.features)
    users = torch.randn(3, D, generator=torch.Generator().manual_seed(0))
    before, after = model.score_all(params, users), model.score_all(other, users)
    assert torch.equal(before[:, ::6], after[:, ::6])
    assert not torch.allclose(before, after)


@pytest.mark.parametrize(("name", "pool"), POOLED)
def test_every_way_to_score_gives_the_same_logit(name: str, pool: str) -> None:
    model = recommender(name, pool)
    params = parameters(model)
    g = torch.Generator().manual_seed(2)
    users = torch.randn(C, D, generator=g)
    table, described = model.score_all(params, users), params.described(torch.arange(M))
    assert torch.allclose(table, model.logits(params.dense, users[:, None], described), atol=1e-5)
    assert torch.allclose(table[:3, 4], model.logits(params.dense, users[:3], described[4:5]), atol=1e-5)
    stacked = {key: torch.stack([value, 2 * value]) for key, value in params.dense.items()}
    each = model.logits(stacked, users[:2, None].expand(2, M, -1), described)
    assert torch.allclose(each[0], table[0], atol=1e-5)
    double = replace(params, dense={key: 2 * value for key, value in params.dense.items()})
    assert torch.allclose(each[1], model.score_all(double, users[1:2])[0], atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=15, deadline=None)
@given(order=st.permutations(range(C)), kept=st.integers(1, C))
def test_clients_do_not_see_each_other(name: str, order: list[int], kept: int) -> None:
    """In any order, and one by one, a cohort's gradients are those of its clients."""
    model = recommender(name)
    params = parameters(model)
    rows, users = training_rows()
    mixed = torch.tensor(order[:kept])
    whole = model.local_step(params, users[mixed], rows.select(mixed), Loss())
    total, stacked = whole.dense.total(), whole.dense.stacked()
    by_item = torch.zeros(M, D)
    for i, client in enumerate(mixed.tolist()):
        alone = model.local_step(params, users[client : client + 1], rows.select(mixed[i : i + 1]), Loss())
        assert torch.allclose(whole.users[i], alone.users[0], atol=1e-6)
        by_item += alone.rows[0].sum(M)
        for key, value in alone.dense.total().items():
            assert torch.allclose(stacked[key][i], value, atol=1e-5), key
            total[key].sub_(value)
    assert torch.allclose(whole.rows[0].sum(M), by_item, atol=1e-5)
    assert all(float(value.abs().max()) < 1e-4 for value in total.values())


@pytest.mark.parametrize("name", ["lightgcn", "lightvgcn"])
@settings(max_examples=15, deadline=None)
@given(st.lists(st.lists(st.integers(0, M - 1), max_size=6), min_size=1, max_size=5))
def test_a_user_is_represented_by_the_items_that_it_likes(name: str, liked: list[list[int]]) -> None:
    model = recommender(name)
    params = parameters(model)
    users = torch.randn(len(liked), D, generator=torch.Generator().manual_seed(2))
    starts = torch.tensor([0] + [len(each) for each in liked]).cumsum(0)
    item = torch.tensor([j for each in liked for j in each], dtype=torch.int64)
    shown = model.represent(params, users, Histories(starts, item))
    for u, each in enumerate(liked):
        expected = users[u].clone()
        for j in set(each):
            look = 0 if params.features is None else params.dense["E"] @ params.features[j]
            expected += (params.items[j] + look) / math.sqrt(len(set(each)))
        assert torch.allclose(shown[u], expected, atol=1e-5)


def test_initial_parameters() -> None:
    cls = VisualLightGraphConvolution
    model = cls(cls.Params())
    g = torch.Generator().manual_seed(0)
    dense = model.init_params(500, g).dense
    shapes = [tuple(dense[key].shape) for key in ("W1", "b1", "W2", "b2", "h", "bh")]
    assert shapes == [(32, 96), (32,), (16, 32), (16,), (1, 16), (1,)]
    e = model.init_feature_params(1280, g)["E"]
    assert e.shape == (32, 1280)
    assert e.std().item() == pytest.approx(1280**-0.5, rel=0.02)
    assert LightGraphConvolution(LightGraphConvolution.Params()).init_feature_params(1280, g) == {}


@pytest.mark.parametrize("name", NAMES)
def test_a_federation_trains_it_and_the_projection_never_is_made_for_each_client(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    federation = small_federation(name)
    before = federation.params
    with monkeypatch.context() as patched:
        patched.setattr("fedbench.models.perceptron._Pass.stacked", None)
        federation.train_epoch()
    federation.check_finite()
    now = federation.params
    assert all(not torch.equal(now.dense[key], value) for key, value in before.dense.items() if key != "bh")
    batch = federation.population.rows.select(torch.arange(5))
    step = federation.model.local_step(now, federation.users[:5], batch, Loss())
    updates = Updates(batch.clients, step.rows, step.dense, batch.size)
    by_row = torch.zeros(5).index_add_(0, batch.client, updates.all_rows().values.square().sum(1))
    dense = sum(value.flatten(1).square().sum(1) for value in step.dense.stacked().values())
    assert torch.allclose(updates.square_norms(), by_row + dense, rtol=1e-4)
