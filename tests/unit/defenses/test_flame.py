"""FLAME, and the majority that it keeps: by hand, against plain loops, and against HDBSCAN itself."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from federations import small_federation
from hypothesis import given, settings
from hypothesis import strategies as st
from robust_oracles import full, make_updates, server_of

from fedbench.defenses.flame import Flame
from fedbench.defenses.majority import densest_majority
from fedbench.federation.defense import Notes, ServerView
from fedbench.federation.model import PublicParams
from fedbench.federation.rows import FullRows
from fedbench.federation.updates import Common, DenseGradients, Updates

both_scopes = pytest.mark.parametrize("scope", ["item", "client"])
few = settings(max_examples=10, deadline=None)
M, D, RATE = 5, 3, 0.5


def rule(noise: float = 0.0, **params: Any) -> Flame:
    return Flame(Flame.Params(noise=noise, **params))


def server(updates: Updates, aggregation: str = "sum", items: int = M, size: int = D) -> ServerView:
    """With a model of its own, and a learning rate of 0.5."""
    view = server_of(updates, items, size, aggregation=aggregation)
    g = torch.Generator().manual_seed(7)
    params = PublicParams(
        torch.randn(items, size, generator=g),
        {name: torch.randn(value.shape, generator=g) for name, value in view.params.dense.items()},
    )
    return replace(view, params=params, learning_rate=RATE)


# ----------------------------------------------------------------------------------------------------- majority


def points(seed: int, kind: str) -> np.ndarray:
    """float64 [c, c]: distances of 2 to 20 points; ``ties``: many of them equal, ``groups``: half of them close together."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(int(rng.integers(2, 21)), 2))
    if kind == "ties":
        x = x.round()
    if kind == "groups":
        x[: len(x) // 2] *= 0.01
    return np.linalg.norm(x[:, None] - x, axis=2)


def majority(*sets: np.ndarray) -> list[np.ndarray]:
    """All sets in one batch, padded."""
    count = torch.tensor([len(each) for each in sets])
    width = int(count.max()) + 1
    batch = torch.zeros(len(sets), width, width, dtype=torch.float64)
    for k, each in enumerate(sets):
        batch[k, : len(each), : len(each)] = torch.from_numpy(each)
    kept = densest_majority(batch, torch.arange(width) < count[:, None], count)
    return [row[: len(each)].numpy() for row, each in zip(kept, sets, strict=True)]


def test_the_majority_by_hand() -> None:
    """5 and 5.2 are the first pair, but 0, 1 and 1.5 the first three that hang together; 2.5 does, too, at 1."""
    line = np.array([0.0, 5.2, 1.0, 5.0, 1.5])
    assert majority(abs(line[:, None] - line))[0].tolist() == [True, False, True, False, True]
    line = np.array([0.0, 5.2, 1.0, 5.0, 1.5, 2.5])
    assert majority(abs(line[:, None] - line))[0].tolist() == [True, False, True, False, True, True]
    assert majority(np.zeros((2, 2)))[0].tolist() == [True, True]


def hangs_together(distances: np.ndarray) -> np.ndarray:
    """The first set of more than half of the points, whatever the distance that it takes."""
    for h in np.unique(distances):
        for start in range(len(distances)):
            found = distances[start] <= h
            while True:
                more = found | (distances[found] <= h).any(0)
                if (more == found).all():
                    break
                found = more
            if found.sum() > len(distances) / 2:
                return found
    raise AssertionError


@given(seed=st.integers(0, 10**6), kind=st.sampled_from(["plain", "ties", "groups"]))
@few
def test_the_majority_is_the_first_that_hangs_together(seed: int, kind: str) -> None:
    sets = [points(seed + k, kind) for k in range(3)]
    for found, distances in zip(majority(*sets), sets, strict=True):
        assert (found == hangs_together(distances)).all()


@given(seed=st.integers(0, 10**6), kind=st.sampled_from(["plain", "ties", "groups"]))
@few
def test_the_majority_is_hdbscan_s(seed: int, kind: str) -> None:
    cluster = pytest.importorskip("sklearn.cluster", reason="scikit-learn is not installed")
    distances = points(seed, kind)
    found = cluster.HDBSCAN(
        min_cluster_size=max(len(distances) // 2 + 1, 2),
        min_samples=1,
        metric="precomputed",
        allow_single_cluster=True,
        copy=True,
    ).fit_predict(distances)
    assert ((found == 0) == majority(distances)[0]).all()


# ------------------------------------------------------------------------------------------------------ the rule


@both_scopes
def test_by_hand(scope: str) -> None:
    """The model is (1, 0), the rate 1: clients move it to 45, 50 and -27 degrees. The median length 1 clips the second."""
    values = torch.tensor([[0.0, -1.0], [0.0, -1.2], [0.0, 0.5]])
    rows = FullRows(torch.arange(3), torch.zeros(3, dtype=torch.int64), values)
    updates = Updates(torch.arange(3), (rows,), DenseGradients.of({}), torch.tensor([1.0, 3.0, 9.0]))
    view = replace(server_of(updates, 1, 2), params=PublicParams(torch.tensor([[1.0, 0.0]]), {}), notes=Notes())
    assert rule(scope=scope).aggregate(updates, view).items.tolist() == [pytest.approx([0, -3])]
    assert view.notes is not None
    if scope == "client":
        assert [(name, out.tolist()) for name, out in view.notes.left_out] == [("flame", [2])]
        shorter = updates.scaled(torch.tensor([0.1, 1.0, 1.0]))
        mean = rule(scope=scope).aggregate(shorter, replace(view, aggregation="weighted")).items
        assert mean[0].tolist() == pytest.approx([0, (1 * -0.1 + 9 * 0.5) / 10])


def plain(vectors: list[np.ndarray], model: np.ndarray) -> np.ndarray:
    if len(vectors) <= 2:
        return sum(vectors)
    moved = [model - RATE * each for each in vectors]
    moved = [each / np.linalg.norm(each) for each in moved]
    kept = hangs_together(np.array([[1 - one @ two if one is not two else 0 for two in moved] for one in moved]))
    lengths = [np.linalg.norm(each) for each in vectors]
    median = sorted(lengths)[(len(lengths) - 1) // 2]
    clipped = [x * min(1, median / length) for x, length, own in zip(vectors, lengths, kept, strict=True) if own]
    return len(vectors) * sum(clipped) / len(clipped)


@both_scopes
@pytest.mark.parametrize("seed", range(3))
def test_it_agrees_with_the_plain_loop(scope: str, seed: int) -> None:
    updates = make_updates(11, M, D, seed, density=0.6, copies=3 * seed)
    view = server(updates)
    found = rule(scope=scope).aggregate(updates, view)
    items = view.params.items.double().numpy()
    dense = {name: value.double().numpy() for name, value in updates.dense.stacked().items()}
    models = {name: value.double().numpy() for name, value in view.params.dense.items()}
    if scope == "client":
        table = full(updates, M).double().numpy()
        whole = [np.concatenate([table[i].ravel(), *(v[i].ravel() for v in dense.values())]) for i in range(11)]
        total = plain(whole, np.concatenate([items.ravel(), *(v.ravel() for v in models.values())]))
        flat = torch.cat([found.items.flatten(), *(value.flatten() for value in found.dense.values())])
        np.testing.assert_allclose(flat, total, rtol=1e-4, atol=1e-4)
        return
    rows = updates.all_rows()
    for item in range(M):
        own = [each.double().numpy() for each in rows.values[rows.item == item]]
        np.testing.assert_allclose(found.items[item], plain(own, items[item]) if own else np.zeros(D), atol=1e-4)
    for name, value in dense.items():
        total = plain([each.ravel() for each in value], models[name].ravel())
        np.testing.assert_allclose(found.dense[name].flatten(), total, rtol=1e-4, atol=1e-4)


def test_models_that_hardly_move_are_told_apart() -> None:
    """Gradients a million times shorter than the model: distances of models are below what float32 resolves."""
    updates = make_updates(12, M, D, 3, copies=4)
    tiny = updates.scaled(torch.full((12,), 1e-6))
    for scope in ("item", "client"):
        found = rule(scope=scope).aggregate(tiny, server(updates))
        expected = rule(scope=scope).aggregate(updates.scaled(torch.full((12,), 1e-3)), server(updates))
        assert torch.allclose(found.items * 1e3, expected.items, rtol=1e-2, atol=1e-5)


@both_scopes
@given(seed=st.integers(0, 1000), strength=st.floats(-1e6, 1e6))
@few
def test_fewer_than_half_move_nothing_beyond_what_the_others_could(scope: str, seed: int, strength: float) -> None:
    """The median length is an honest one's, at most the longest; nothing longer is added up."""
    updates = make_updates(9, M, D, seed, density=1.0, dense=False)
    honest = torch.arange(9) < 5
    attacked = updates.scaled(torch.where(honest, 1.0, strength))
    total = rule(scope=scope).aggregate(attacked, server(updates)).items
    if scope == "client":
        assert total.norm() <= 9 * updates.keep(honest).square_norms().sqrt().max() * 1.001
    else:
        assert (total.norm(dim=1) <= 9 * full(updates.keep(honest), M).norm(dim=2).amax(0) * 1.001).all()


@both_scopes
def test_noise_goes_by_the_median_length(scope: str) -> None:
    n, rows, columns = 5, 120, 100
    value = torch.ones(n, rows, columns) * torch.tensor([0.5, 0.8, 1.0, 2.0, 3.0])[:, None, None]
    updates = Updates(torch.arange(n), (), DenseGradients.of({"W": value}), torch.ones(n))
    quiet, loud = (rule(noise, scope=scope).aggregate(updates, server(updates)).dense["W"] for noise in (0.0, 0.1))
    median = (rows * columns) ** 0.5
    assert (loud - quiet).std().item() == pytest.approx(n * 0.1 * median, rel=0.03)
    assert abs((loud - quiet).mean().item()) < n * 0.1 * median * 4 / median
    two = updates.keep(torch.arange(n) < 2)
    assert torch.allclose(rule(0.1, scope=scope).aggregate(two, server(updates)).dense["W"], value[:2].sum(0))


@both_scopes
@pytest.mark.parametrize("value", [torch.nan, torch.inf, 1e20])
def test_what_is_not_a_finite_number_is_left_out(scope: str, value: float) -> None:
    honest = make_updates(9, M, D, 1)
    rows, bad = honest.all_rows(), torch.arange(9) == 5
    attacked = replace(honest, rows=(replace(rows, values=torch.where(bad[rows.client][:, None], value, rows.values)),))
    found = rule(scope=scope).aggregate(attacked, server(honest))
    expected = rule(scope=scope).aggregate(honest.keep(~bad), server(honest))
    assert torch.allclose(found.items, expected.items, rtol=1e-4, atol=1e-5)
    gradient = torch.full((M, D), 7.0)
    common = replace(honest.keep(~bad), common=Common(gradient, torch.ones(8)))
    assert torch.allclose(rule(scope=scope).aggregate(common, server(honest)).items, expected.items + 8 * gradient)


@pytest.mark.parametrize("parts", ["items", "dense"])
@both_scopes
def test_a_rule_for_one_part_leaves_the_other_to_the_sum(scope: str, parts: str) -> None:
    updates = make_updates(8, M, D, 2)
    total = rule(scope=scope, parts=parts).aggregate(updates, server(updates))
    assert torch.allclose(total.dense["W1"], updates.dense.total()["W1"], rtol=1e-5) == (parts == "items")
    assert torch.allclose(total.items, updates.sum_rows(M, D), rtol=1e-5, atol=1e-6) == (parts == "dense")


@both_scopes
def test_it_trains(scope: str) -> None:
    federation = small_federation("ncf", defense=rule(0.01, scope=scope))
    before = federation.params.items.clone()
    federation.train_epoch()
    federation.check_finite()
    assert not torch.equal(before, federation.params.items)
