"""Centered clipping against hand-computed rounds and a plain loop, in both scopes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from robust_oracles import full, make_updates, server_of

from fedbench.defenses.centered_clipping import CenteredClipping
from fedbench.federation.rows import FullRows
from fedbench.federation.updates import Common, DenseGradients, Updates

both_scopes = pytest.mark.parametrize("scope", ["item", "client"])
M, D = 6, 3


def rule(**params: Any) -> CenteredClipping:
    return CenteredClipping(CenteredClipping.Params(**params))


def sent(item: int, *values: float) -> Updates:
    """A row of one number for ``item`` from each client."""
    n = len(values)
    rows = FullRows(torch.arange(n), torch.full((n,), item), torch.tensor(values)[:, None])
    return Updates(torch.arange(n), (rows,), DenseGradients.of({}), torch.arange(1.0, n + 1))


def after(defense: CenteredClipping, updates: Updates, aggregation: str = "sum") -> list[float]:
    """The gradient of two items of one number each."""
    return defense.aggregate(updates, server_of(updates, 2, 1, aggregation=aggregation)).items[:, 0].tolist()


@both_scopes
def test_by_hand(scope: str) -> None:
    """Clients that send 0, 1 and 10, and a radius of 1: the centre is 0, then 2/3, then 8/9."""
    defense = rule(scope=scope, radius=1.0)
    assert after(defense, sent(0, 0.0, 1.0, 10.0)) == pytest.approx([3 * 2 / 3, 0])
    assert after(defense, sent(0, 0.0, 1.0, 10.0)) == pytest.approx([3 * 8 / 9, 0])
    twice = rule(scope=scope, radius=1.0, iterations=2)
    assert after(twice, sent(0, 0.0, 1.0, 10.0)) == pytest.approx([3 * 8 / 9, 0])
    assert after(rule(scope=scope, radius=100.0), sent(0, 0.0, 1.0, 10.0)) == pytest.approx([11, 0])


def test_an_item_that_nobody_touches_keeps_its_centre_by_item_and_fades_over_whole_updates() -> None:
    by_item, by_client = rule(scope="item", radius=1.0), rule(scope="client", radius=1.0)
    for defense in (by_item, by_client):
        after(defense, sent(0, 0.0, 1.0, 10.0))
    assert after(by_item, sent(1, 0.5, 0.5)) == pytest.approx([0, 1])
    assert after(by_item, sent(0, 0.0, 1.0, 10.0))[0] == pytest.approx(3 * 8 / 9)
    # From (2/3, 0) to (0, 0.5) it is 5/6, within the radius.
    assert after(by_client, sent(1, 0.5, 0.5)) == pytest.approx([0, 1])
    # From (0, 0.5) to (3, 0.5) it is 3: both are drawn up to a third of the way.
    assert after(by_client, sent(0, 3.0, 3.0)) == pytest.approx([2 * 3 / 9.25**0.5, 2 * (0.5 - 0.5 / 9.25**0.5)])


def test_numbers_of_samples_weigh_the_mean_over_whole_updates() -> None:
    defense = rule(scope="client", radius=1.0)
    assert after(defense, sent(0, 0.0, 0.5, 10.0), "weighted")[0] == pytest.approx((2 * 0.5 + 3 * 1) / 6)


class Plain:
    """One client and one vector after another."""

    def __init__(self, radius: float, steps: int) -> None:
        self.radius, self.steps = radius, steps
        self.centres: dict[str, np.ndarray] = {}

    def typical(self, name: str, vectors: list[np.ndarray]) -> np.ndarray:
        centre = self.centres.get(name, np.zeros_like(vectors[0]))
        for _ in range(self.steps):
            moves = [
                (each - centre) * min(1, self.radius / max(np.linalg.norm(each - centre), 1e-30)) for each in vectors
            ]
            centre = centre + sum(moves) / len(moves)
        self.centres[name] = centre
        return len(vectors) * centre

    def aggregate(self, updates: Updates, scope: str) -> dict[str, np.ndarray]:
        dense = {name: value.double().numpy() for name, value in updates.dense.stacked().items()}
        table = full(updates, M).double().numpy()
        if scope == "client":
            whole = [
                np.concatenate([table[i].ravel(), *(v[i].ravel() for v in dense.values())]) for i in range(len(table))
            ]
            total = self.typical("", whole)
            lengths = [M * D, *(v[0].size for v in dense.values())]
            parts = np.split(total, np.cumsum(lengths)[:-1])
            found = {"items": parts[0].reshape(M, D)}
            return found | {n: p.reshape(v.shape[1:]) for (n, v), p in zip(dense.items(), parts[1:], strict=True)}
        rows = updates.all_rows()
        items = np.zeros((M, D))
        for item in range(M):
            own = [vector.double().numpy() for vector in rows.values[rows.item == item]]
            if own:
                items[item] = self.typical(f"item {item}", own)
        return {"items": items} | {name: self.typical(name, list(value)) for name, value in dense.items()}


@both_scopes
@pytest.mark.parametrize("steps", [1, 3])
def test_three_rounds_agree_with_the_plain_loop(scope: str, steps: int) -> None:
    defense, plain = rule(scope=scope, radius=1.5, iterations=steps), Plain(1.5, steps)
    for seed in range(3):
        updates = make_updates(8, M, D, seed, density=0.5)
        total = defense.aggregate(updates, server_of(updates, M, D))
        for key, value in plain.aggregate(updates, scope).items():
            found = total.items if key == "items" else total.dense[key]
            np.testing.assert_allclose(found, value, rtol=1e-4, atol=1e-4)


@both_scopes
@given(seed=st.integers(0, 1000), strength=st.floats(-1e6, 1e6), radius=st.floats(0.01, 10))
@settings(max_examples=10, deadline=None)
def test_a_client_moves_the_mean_by_its_share_of_the_radius(
    scope: str, seed: int, strength: float, radius: float
) -> None:
    """Between two uploads of its own lie at most two radii, over the number of clients."""
    updates = make_updates(8, M, D, seed, density=1.0, dense=False)
    other = updates.scaled(torch.where(torch.arange(8) == 3, strength, 1.0))
    totals = []
    for each in (updates, other):
        defense = rule(scope=scope, radius=radius)
        defense.aggregate(updates, server_of(updates, M, D))
        totals.append(defense.aggregate(each, server_of(each, M, D)).items / 8)
    moved = (totals[0] - totals[1]).norm() if scope == "client" else (totals[0] - totals[1]).norm(dim=1).max()
    assert moved <= 2 * radius / 8 * 1.001


@both_scopes
@pytest.mark.parametrize("value", [torch.nan, torch.inf, 1e20])
def test_what_is_not_a_finite_number_is_left_out_and_forgotten(scope: str, value: float) -> None:
    honest = make_updates(8, M, D, 1)
    rows, bad = honest.all_rows(), torch.arange(8) == 5
    attacked = replace(honest, rows=(replace(rows, values=torch.where(bad[rows.client][:, None], value, rows.values)),))
    one, two = rule(scope=scope, radius=0.5), rule(scope=scope, radius=0.5)
    for _ in range(2):
        found = one.aggregate(attacked, server_of(attacked, M, D))
        expected = two.aggregate(honest.keep(~bad), server_of(honest, M, D))
        assert torch.allclose(found.items, expected.items, rtol=1e-4, atol=1e-5)
        assert torch.allclose(found.dense["W1"], expected.dense["W1"], rtol=1e-4, atol=1e-5)


@both_scopes
def test_what_is_common_to_all_uploads_is_no_part_of_the_centre(scope: str) -> None:
    updates, gradient = make_updates(8, M, D, 2), torch.full((M, D), 7.0)
    defense, other = rule(scope=scope, radius=0.5), rule(scope=scope, radius=0.5)
    for _ in range(2):
        found = defense.aggregate(replace(updates, common=Common(gradient, torch.ones(8))), server_of(updates, M, D))
        plain = other.aggregate(updates, server_of(updates, M, D))
        assert torch.allclose(found.items, plain.items + 8 * gradient, rtol=1e-5)


@pytest.mark.parametrize("parts", ["items", "dense"])
@both_scopes
def test_a_rule_for_one_part_leaves_the_other_to_the_sum(scope: str, parts: str) -> None:
    updates = make_updates(8, M, D, 2)
    total = rule(scope=scope, radius=0.1, parts=parts).aggregate(updates, server_of(updates, M, D))
    plain, moved = updates.dense.total()["W1"], total.dense["W1"]
    assert torch.allclose(moved, plain, rtol=1e-5) == (parts == "items")
    assert torch.allclose(total.items, updates.sum_rows(M, D), rtol=1e-5, atol=1e-6) == (parts == "dense")
