"""Uploads that share a gradient of all items agree with those that state every row."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from robust_oracles import RULES, aggregated, by_client, make_updates, server_of, variant_of

from fedbench.defenses.norm_bound import NormBound
from fedbench.federation.rows import FullRows
from fedbench.federation.server import aggregate
from fedbench.federation.updates import Common, Updates, concat
from fedbench.models import PublicParams

M, D = 6, 3


def shared(n: int = 7, seed: int = 0, shares: list[float] | None = None) -> Updates:
    updates = make_updates(n, M, D, seed)
    g = torch.Generator().manual_seed(seed + 50)
    share = torch.ones(n) if shares is None else torch.tensor(shares)
    return replace(
        updates,
        common=Common(torch.randn(M, D, generator=g), share),
        weights=torch.randint(1, 9, (n,), generator=g).float(),
    )


MIXED = [1.0, 1.0, 0.0, 1.0, 0.5, 1.0, -2.0]


@pytest.mark.parametrize("shares", [None, MIXED])
def test_written_out_every_upload_has_a_row_of_each_item(shares: list[float] | None) -> None:
    updates = shared(shares=shares)
    assert updates.common is not None
    rows = updates.explicit().all_rows()
    whole = torch.zeros(7, M, D)
    for client, item, value in zip(rows.client, rows.item, rows.values, strict=True):
        whole[client, item] += value
    expected = updates.common.share[:, None, None] * updates.common.gradient
    sparse = updates.all_rows()
    expected = expected.expand(7, M, D).clone().index_put_((sparse.client, sparse.item), sparse.values, accumulate=True)
    assert torch.allclose(whole, expected, atol=1e-6)
    assert updates.explicit().common is None


@pytest.mark.parametrize("shares", [None, MIXED])
def test_sums_norms_factors_and_subsets_are_those_of_the_rows_written_out(shares: list[float] | None) -> None:
    updates = shared(shares=shares)
    full = updates.explicit()
    assert torch.allclose(updates.sum_rows(M, D), full.sum_rows(M, D), atol=1e-5)
    assert torch.allclose(updates.square_norms(), full.square_norms(), rtol=1e-5)
    factor = torch.linspace(-1, 2, 7)
    assert torch.allclose(updates.scaled(factor).sum_rows(M, D), full.scaled(factor).sum_rows(M, D), atol=1e-5)
    assert torch.allclose(
        updates.scaled(factor).dense.total()["W1"], full.scaled(factor).dense.total()["W1"], atol=1e-5
    )
    mask = torch.tensor([True, False, True, True, False, True, True])
    assert torch.allclose(updates.keep(mask).sum_rows(M, D), full.keep(mask).sum_rows(M, D), atol=1e-5)
    relative = updates.relative()
    assert relative.common is not None
    assert relative.common.share.tolist() == [1.0] * 7
    assert torch.allclose(relative.explicit().sum_rows(M, D), full.sum_rows(M, D), atol=1e-5)


def test_uploads_with_and_without_what_is_shared_come_together() -> None:
    honest, crafted = shared(4), make_updates(2, M, D, 9)
    both = concat([honest, crafted])
    assert both.common is not None
    assert both.common.share.tolist() == [1, 1, 1, 1, 0, 0]
    assert torch.allclose(both.sum_rows(M, D), honest.sum_rows(M, D) + crafted.sum_rows(M, D), atol=1e-5)
    foreign = shared(2, seed=4)
    mixed = concat([honest, foreign])
    assert torch.allclose(mixed.sum_rows(M, D), honest.sum_rows(M, D) + foreign.sum_rows(M, D), atol=1e-5)


def test_the_weighted_mean_by_hand() -> None:
    one = FullRows(torch.tensor([0, 1]), torch.tensor([0, 0]), torch.tensor([[1.0], [5.0]]))
    dense = make_updates(2, 1, 1, 0, dense=False).dense
    updates = Updates(
        torch.tensor([4, 2]),
        (one,),
        dense,
        torch.tensor([3.0, 1.0]),
        Common(torch.tensor([[0.5], [2.0]]), torch.tensor([1.0, 0.0])),
    )
    # (3 (1 + .5) + 1 * 5) / 4 and (3 * 2 + 0) / 4
    assert aggregate(updates, PublicParams(torch.zeros(2, 1), {}), "weighted").items.tolist() == [[2.375], [1.5]]


@pytest.mark.parametrize("shares", [None, MIXED])
@pytest.mark.parametrize(("name", "variant"), [key for key in RULES if key[0] not in ("foolsgold", "bulyan")])
def test_robust_rules_over_clients_agree_with_rows_written_out(
    name: str, variant: str, shares: list[float] | None
) -> None:
    """Equivariance to a translation: what is shared may be left out of the comparison and added again."""
    updates = shared(shares=shares)
    found = aggregated(name, updates, M, D, 0.2, scope="client", **variant_of(name, variant))
    expected = by_client(updates.explicit(), M, D, 0.2, RULES[name, variant])
    for key, value in expected.items():
        np.testing.assert_allclose(found[key], value, atol=2e-4)


def test_a_bound_on_whole_updates_counts_what_is_shared() -> None:
    updates = shared(shares=MIXED)
    server = server_of(updates, M, D)
    clipped = NormBound(NormBound.Params(bound=2.0, scope="client")).filter(updates, server)
    norms = clipped.explicit().square_norms().sqrt()
    before = updates.explicit().square_norms().sqrt()
    assert torch.allclose(norms, before.clamp(max=2.0), rtol=1e-5)
    by_row = NormBound(NormBound.Params(bound=0.5, scope="row")).filter(updates, server)
    assert by_row.all_rows().values.norm(dim=1).max() <= 0.5 + 1e-6
    assert len(by_row.all_rows().item) >= 7 * M - 14


def test_multi_krum_averages_what_it_keeps_by_numbers_of_samples() -> None:
    updates = shared()
    found = aggregated("multi-krum", updates, M, D, 1 / 7, "weighted", scope="client")
    whole = updates.explicit()
    vectors = []
    for client in range(7):
        only = torch.zeros(7)
        only[client] = 1
        each = whole.scaled(only)
        vectors.append(torch.cat([each.sum_rows(M, D).flatten(), *(v.flatten() for v in each.dense.total().values())]))
    x = torch.stack(vectors).double()
    distances = torch.cdist(x, x).square()
    scores = distances.sort(dim=1).values[:, 1:5].sum(1)  # n - f - 2 = 4 nearest of 6
    weights = updates.weights.double().clone()
    weights[scores.argmax()] = 0
    expected = (weights[:, None] * x).sum(0) / weights.sum()
    np.testing.assert_allclose(found["items"].ravel(), expected[: M * D], atol=1e-4)


def test_rejected_clients_are_seen_by_multi_krum_alone() -> None:
    updates = replace(shared(), common=None, weights=torch.ones(7))
    rejected = torch.tensor([False, True, False, False, False, False, False])
    marked = replace(updates, rejected=rejected)
    assert torch.equal(marked.settled().clients, updates.clients[~rejected])
    assert marked.settled().rejected is None
    everybody = replace(updates, rejected=torch.ones(7, dtype=torch.bool))
    assert torch.equal(everybody.settled().clients, updates.clients)

    plain = aggregated("multi-krum", updates, M, D, 1 / 7, "mean", scope="client")
    both = aggregated("multi-krum", marked, M, D, 1 / 7, "mean", scope="client")
    after = aggregated("multi-krum", updates.keep(~rejected), M, D, 1 / 6, "mean", scope="client")
    x = updates.explicit()
    sums = []
    for client in range(7):
        only = torch.zeros(7)
        only[client] = 1
        sums.append(x.scaled(only).sum_rows(M, D).double().numpy())
    dropped = [c for c in range(7) if not np.allclose(plain["items"], sum(s for k, s in enumerate(sums) if k != c) / 6)]
    (worst,) = set(range(7)) - set(dropped)
    kept = [s for k, s in enumerate(sums) if k not in (worst, 1)]
    np.testing.assert_allclose(both["items"], sum(kept) / len(kept), atol=1e-5)
    assert after["items"].shape == both["items"].shape
    assert np.allclose(
        aggregated("krum", marked, M, D, 1 / 6, scope="client")["items"],
        aggregated("krum", updates.keep(~rejected), M, D, 1 / 6, scope="client")["items"],
    )
