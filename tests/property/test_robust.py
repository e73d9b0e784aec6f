"""What must hold of every robust rule, for any round."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from robust_oracles import RULES, aggregated, make_updates, variant_of

from fedbench.federation.rows import FullRows
from fedbench.federation.updates import DenseGradients, Updates

every_rule = pytest.mark.parametrize(("name", "variant"), [pytest.param(*key, id="-".join(key)) for key in RULES])
both_scopes = pytest.mark.parametrize("scope", ["item", "client"])
COORDINATEWISE = ("median", "trimmed-mean")
ALWAYS_ACT = ("median", "krum", "rfa", "mixed", "foolsgold")
"""Rules that are not the sum even where nobody is assumed to attack."""
cases = given(
    n=st.integers(1, 13), density=st.sampled_from([0.2, 0.7, 1.0]), seed=st.integers(0, 2**16), share=st.floats(0, 0.45)
)


def permuted(updates: Updates, order: torch.Tensor) -> Updates:
    """The same uploads, arriving in another order; ids stay with their clients."""
    place = torch.argsort(order)
    rows = tuple(
        FullRows(place[block.client], block.item, block.grad()).take(torch.randperm(len(block.item)))
        for block in updates.rows
    )
    dense = {name: value[order] for name, value in updates.dense.stacked().items()}
    return Updates(updates.clients[order], rows[::-1], DenseGradients.of(dense), updates.weights[order])


def times(updates: Updates, factor: float) -> Updates:
    rows = tuple(block.scaled(torch.full((len(block.item),), factor)) for block in updates.rows)
    dense = {name: value * factor for name, value in updates.dense.stacked().items()}
    return replace(updates, rows=rows, dense=DenseGradients.of(dense))


@every_rule
@both_scopes
@cases
@settings(max_examples=25, deadline=None)
def test_the_order_of_arrival_does_not_matter(
    name: str, variant: str, scope: str, n: int, density: float, seed: int, share: float
) -> None:
    updates = make_updates(n, 4, 3, seed, density)
    other = permuted(updates, torch.randperm(n, generator=torch.Generator().manual_seed(seed)))
    first = aggregated(name, updates, 4, 3, share, scope=scope, **variant_of(name, variant))
    second = aggregated(name, other, 4, 3, share, scope=scope, **variant_of(name, variant))
    for key, value in first.items():
        np.testing.assert_allclose(second[key], value, rtol=1e-3, atol=1e-3, err_msg=key)


@every_rule
@both_scopes
@cases
@settings(max_examples=25, deadline=None)
def test_a_power_of_two_passes_through(
    name: str, variant: str, scope: str, n: int, density: float, seed: int, share: float
) -> None:
    """Rules are equivariant to scale; a power of two keeps all digits, so that ties stay what they are."""
    updates = make_updates(n, 4, 3, seed, density)
    first = aggregated(name, updates, 4, 3, share, scope=scope, **variant_of(name, variant))
    second = aggregated(name, times(updates, 4.0), 4, 3, share, scope=scope, **variant_of(name, variant))
    for key, value in first.items():
        np.testing.assert_allclose(second[key], 4 * value, rtol=1e-3, atol=1e-3, err_msg=key)


@pytest.mark.parametrize(("name", "variant"), [key for key in RULES if key[0] != "foolsgold"])
@given(n=st.integers(1, 13), seed=st.integers(0, 2**16), share=st.floats(0, 0.45))
@settings(max_examples=25, deadline=None)
def test_a_common_shift_passes_through(name: str, variant: str, n: int, seed: int, share: float) -> None:
    """All but FoolsGold, which looks at directions from zero, are equivariant to translation of an item's rows."""
    updates = make_updates(n, 4, 3, seed, 0.8, dense=False)
    shift = torch.arange(12.0).view(4, 3) / 4
    count = torch.zeros(4).index_add_(0, updates.all_rows().item, torch.ones(len(updates.all_rows().item)))
    shifted = replace(
        updates, rows=tuple(replace(block, values=block.grad() + shift[block.item]) for block in updates.rows)
    )
    first = aggregated(name, updates, 4, 3, share, scope="item", **variant_of(name, variant))["items"]
    second = aggregated(name, shifted, 4, 3, share, scope="item", **variant_of(name, variant))["items"]
    stands_for = count.numpy()
    if name in ("bulyan", "multi-krum") and variant == "icde24-code":
        f = np.minimum(np.floor(stands_for * share + 1e-9), np.maximum(stands_for - 1, 0) // 2)
        stands_for = np.where(stands_for >= 4 * f + 3, stands_for - 2 * f, stands_for)
    np.testing.assert_allclose(second, first + stands_for[:, None] * shift.numpy(), rtol=1e-3, atol=2e-3)


@pytest.mark.parametrize(("name", "variant"), [key for key in RULES if key[0] not in ALWAYS_ACT])
@both_scopes
@given(n=st.integers(1, 13), density=st.sampled_from([0.2, 0.7, 1.0]), seed=st.integers(0, 2**16))
@settings(max_examples=25, deadline=None)
def test_without_attackers_and_trimming_it_is_the_sum(
    name: str, variant: str, scope: str, n: int, density: float, seed: int
) -> None:
    updates = make_updates(n, 4, 3, seed, density)
    found = aggregated(name, updates, 4, 3, 0.0, scope=scope, **variant_of(name, variant))
    np.testing.assert_allclose(found["items"], updates.sum_rows(4, 3), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found["W1"], updates.dense.total()["W1"], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", [*COORDINATEWISE, "krum", "multi-krum", "bulyan", "rfa"])
@given(n=st.integers(1, 13), seed=st.integers(0, 2**16), share=st.floats(0, 0.45))
@settings(max_examples=25, deadline=None)
def test_every_coordinate_stays_within_what_was_sent(name: str, n: int, seed: int, share: float) -> None:
    updates = make_updates(n, 4, 3, seed, 0.9, dense=False)
    rows = updates.all_rows()
    found = aggregated(name, updates, 4, 3, share, scope="item")["items"]
    for item in range(4):
        own = rows.values[rows.item == item].numpy()
        if len(own):
            assert (found[item] / len(own) >= own.min(0) - 1e-3).all()
            assert (found[item] / len(own) <= own.max(0) + 1e-3).all()
        else:
            assert not found[item].any()


@given(seed=st.integers(0, 2**16), far=st.sampled_from([10.0, 1e3, 1e6]))
@settings(max_examples=40, deadline=None)
@pytest.mark.parametrize("name", ["median", "trimmed-mean", "krum", "multi-krum", "bulyan"])
def test_a_few_far_outliers_cannot_carry_it_away(name: str, seed: int, far: float) -> None:
    """Two of twenty gradients at any distance: the result stays near the others'."""
    updates = make_updates(20, 1, 3, seed, 1.0, dense=False)
    rows = updates.all_rows()
    values = torch.where(rows.client[:, None] >= 18, far, rows.values)
    attacked = replace(updates, rows=(replace(rows, values=values),))
    found = aggregated(name, attacked, 1, 3, 0.1, scope="item")["items"][0] / 20
    honest = rows.values[rows.client < 18]
    assert (np.abs(found) <= honest.abs().max().item() + 1e-3).all()
