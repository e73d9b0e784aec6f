"""UNION: the contrastive task against autograd, the uniformity against all pairs, the clusters against brute force."""

from __future__ import annotations

import copy
import itertools
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from federations import small_federation
from robust_oracles import make_updates, server_of

from fedbench.defenses import ServerView
from fedbench.defenses import union as union_module
from fedbench.defenses.gap_statistic import dispersion, two_clusters
from fedbench.defenses.union import Union, contrastive, draw_outside, spread_of, uniformity
from fedbench.federation.optimizers import Adam, Descent, ServerOptimizer
from fedbench.federation.rows import FullRows, coalesced
from fedbench.federation.updates import Common, DenseGradients, Updates
from fedbench.models import PublicParams


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# ------------------------------------------------------------------------------------------------- 1-D clusters


def test_two_clusters_by_hand() -> None:
    one, two, split = dispersion(torch.tensor([[0.0, 1.0, 10.0, 11.0]], dtype=torch.float64))
    assert (one.item(), two.item(), split.item()) == (pytest.approx(101), pytest.approx(1), 2)
    minor, several = two_clusters(
        torch.tensor([5.0, 0.0, 0.1, 0.05, 0.0, 0.02, 0.1], dtype=torch.float64), 50, stream()
    )
    assert minor.tolist() == [True, *[False] * 6]
    assert bool(several)


def test_equal_values_are_one_cluster() -> None:
    minor, several = two_clusters(torch.full((6,), 3.0, dtype=torch.float64), 20, stream())
    assert not minor.any()
    assert not bool(several)


def test_two_values_are_two_clusters_and_the_smaller_one_loses_a_tie() -> None:
    minor, several = two_clusters(torch.tensor([4.0, 1.0, 4.0, 1.0], dtype=torch.float64), 20, stream())
    assert minor.tolist() == [False, True, False, True]
    assert bool(several)


@pytest.mark.parametrize("n", [2, 3, 5, 9])
@pytest.mark.parametrize("seed", range(5))
def test_two_means_is_exact(n: int, seed: int) -> None:
    x = torch.randn(n, generator=stream(seed), dtype=torch.float64)
    best = min(
        sum(((x[torch.tensor(part)] - x[torch.tensor(part)].mean()) ** 2).sum() for part in parts if part)
        for size in range(1, n)
        for chosen in itertools.combinations(range(n), size)
        for parts in [(list(chosen), [i for i in range(n) if i not in chosen])]
    )
    one, two, _ = dispersion(torch.sort(x)[0][None])
    assert two.item() == pytest.approx(float(best), abs=1e-12)
    assert one.item() == pytest.approx(float(((x - x.mean()) ** 2).sum()))
    assert two.item() <= one.item()


@pytest.mark.parametrize(("n", "log_one", "log_two"), [(20, 0.438, -1.055), (50, 1.400, -0.028), (100, 2.105, 0.700)])
def test_reference_dispersions_have_the_known_means(n: int, log_one: float, log_two: float) -> None:
    drawn = torch.sort(torch.rand(20_000, n, generator=stream(), dtype=torch.float64), dim=1)[0]
    one, two, _ = dispersion(drawn)
    assert one.log().mean().item() == pytest.approx(log_one, abs=0.01)
    assert two.log().mean().item() == pytest.approx(log_two, abs=0.01)


# --------------------------------------------------------------------------------------------------- uniformity


@pytest.mark.parametrize("distance", ["squared", "euclidean"])
@pytest.mark.parametrize("sampled", [[0, 1, 2, 3, 4, 5, 6, 7], [6, 1, 3]])
def test_uniformity_is_the_mean_over_all_pairs_after_each_clients_step(distance: str, sampled: list[int]) -> None:
    updates = make_updates(5, 8, 3, 2, density=0.5, dense=False)
    items = torch.randn(8, 3, generator=stream())
    rows = updates.all_rows()
    expected = []
    for client in range(5):
        moved = items.double().clone()
        mine = rows.client == client
        moved[rows.item[mine]] -= 0.3 * rows.values[mine].double()
        pairs = [(moved[i] - moved[j]).norm() for i, j in itertools.combinations(sampled, 2)]
        expected.append(sum(p**2 if distance == "squared" else p for p in pairs) / len(pairs))
    found = uniformity(updates, items, torch.tensor(sampled), 0.3, distance)
    torch.testing.assert_close(found, torch.stack(expected))


def test_clients_without_rows_have_the_uniformity_of_the_model() -> None:
    nothing = Updates(torch.arange(3), (), DenseGradients.of({}), torch.ones(3))
    items = torch.tensor([[0.0], [1.0], [3.0]])
    for distance, value in (("squared", (1 + 9 + 4) / 3), ("euclidean", 2.0)):
        assert uniformity(nothing, items, torch.arange(3), 1.0, distance).tolist() == pytest.approx([value] * 3)


# ------------------------------------------------------------------------------------------------------- filter


def collapsed(n: int = 20, bad: int = 1) -> tuple[Updates, ServerView]:
    """Clients that barely move the items, and ``bad`` last ones that pull all of them to the origin."""
    items = torch.randn(10, 4, generator=stream(1))
    client, item = torch.meshgrid(torch.arange(n), torch.arange(10), indexing="ij")
    values = 0.01 * torch.randn(n, 10, 4, generator=stream(2))
    values[n - bad :] = items
    rows = FullRows(client.flatten(), item.flatten(), values.flatten(0, 1))
    updates = Updates(torch.arange(n), (rows,), DenseGradients.of({}), torch.ones(n))
    view = server_of(updates, 10, 4, 0.05)
    return updates, ServerView(type(view.params)(items, {}), 1.0, "sum", 0.05, 1, 0, stream(3))


@pytest.mark.parametrize("distance", ["squared", "euclidean"])
def test_clients_that_collapse_the_items_are_dropped(distance: str) -> None:
    updates, view = collapsed(bad=3)
    kept = Union(Union.Params(distance=distance)).filter(updates, view)
    assert kept.clients.tolist() == list(range(17))


def test_the_rule_for_lone_outliers_uses_the_assumed_number() -> None:
    """One mild outlier: the gap statistic sees one cluster; the published code drops it all the same."""
    updates, view = collapsed()
    mild = updates.rows[0].scaled(torch.where(updates.rows[0].client == 19, 0.012, 1.0))
    updates = Updates(updates.clients, (mild,), updates.dense, updates.weights)
    spread = uniformity(updates, view.params.items, torch.arange(10), 1.0, "squared")
    minor, several = two_clusters(spread, 50, stream(3))
    assert not bool(several)
    few = int(minor.sum())
    with_rule = Union(Union.Params(assumed_ratio=few / 20)).filter(updates, view)
    assert len(with_rule.clients) == 20 - few
    without = Union(Union.Params(assumed_ratio=few / 20, lone_rule=False)).filter(updates, view)
    nobody = Union(Union.Params(assumed_ratio=0.0)).filter(updates, view)
    assert len(without.clients) == len(nobody.clients) == 20


def test_a_client_that_sends_what_is_not_a_number_cannot_blind_the_filter() -> None:
    updates, view = collapsed(bad=3)
    rows = updates.all_rows()
    values = torch.where(rows.client[:, None] == 17, torch.nan, rows.values)
    blinding = Updates(updates.clients, (FullRows(rows.client, rows.item, values),), updates.dense, updates.weights)
    assert Union(Union.Params()).filter(blinding, view).clients.tolist() == list(range(17))


def test_the_number_of_attackers_is_rounded_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """30 clients at 5 %: f = ceil(1.5) = 2, so a cluster of two goes although the gap statistic sees one cluster."""
    minor = torch.arange(30) >= 28
    monkeypatch.setattr("fedbench.defenses.union.two_clusters", lambda *_: (minor, torch.tensor(False)))
    updates, view = collapsed(n=30)
    for share, kept in ((0.05, 28), (2 / 30, 28), (1 / 30, 30), (0.03, 30)):
        assert len(Union(Union.Params(assumed_ratio=share)).filter(updates, view).clients) == kept


def test_one_client_is_never_filtered() -> None:
    updates, view = collapsed(n=1, bad=1)
    assert len(Union(Union.Params()).filter(updates, view).clients) == 1


# --------------------------------------------------------------------------------------------- contrastive task


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("negatives_per", ["anchor", "client"])
def test_the_contrastive_gradient_is_that_of_autograd(
    negatives_per: str, reduction: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fedbench.defenses import union as module

    drawn: list[torch.Tensor] = []
    original = module.draw_outside

    def noting(*args: torch.Tensor) -> torch.Tensor:
        drawn.append(original(*args))
        return drawn[-1]

    picks: list[torch.Tensor] = []
    uniform = module._uniform

    def noting_uniform(*args: object) -> torch.Tensor:
        picks.append(uniform(*args))
        return picks[-1]

    monkeypatch.setattr(module, "draw_outside", noting)
    monkeypatch.setattr(module, "_uniform", noting_uniform)
    federation = small_federation("mf")
    batch = federation.population.rows.select(torch.tensor([3, 0, 7]))
    params = Union.Params(alpha=0.7, negatives=4, negatives_per=negatives_per, reduction=reduction)
    view = federation.server_view()
    found = Union(params).regularize(federation.params, torch.zeros(3, 32), batch, view)
    assert found is not None
    assert found.rows is not None
    assert found.extra is not None

    items = federation.params.items.clone().requires_grad_()
    choice, negatives = iter(picks[0].tolist()), drawn[0]
    total = torch.zeros(())
    gradients = []
    row = 0
    for client in range(3):
        mine = batch.item[(batch.client == client) & (batch.positive > 0)].tolist()
        losses = []
        for k, anchor in enumerate(mine):
            others = [each for each in mine if each != anchor]
            positive = others[min(int(next(choice) * (len(mine) - 1)), len(mine) - 2)]
            own = negatives[row + k] if negatives_per == "anchor" else negatives[client]
            assert not set(own.tolist()) & set(mine)
            assert len(set(own.tolist())) == 4
            logits = items[[positive, *own.tolist()]] @ items[anchor]
            losses.append(-torch.log_softmax(logits, 0)[0])
        row += len(mine)
        total = 0.7 * (torch.stack(losses).mean() if reduction == "mean" else torch.stack(losses).sum())
        gradients.append(torch.autograd.grad(total, items)[0])
    expected = torch.stack(gradients)
    dense = torch.zeros(3, federation.task.num_items, 32)
    both = Updates(
        batch.clients, (FullRows(batch.client, batch.item, found.rows), found.extra), DenseGradients.of({}), batch.size
    ).all_rows()
    merged = coalesced(both, federation.task.num_items)
    dense[merged.client, merged.item] = merged.values
    torch.testing.assert_close(dense, expected, rtol=1e-4, atol=1e-6)


def test_a_client_with_one_positive_has_no_contrastive_task() -> None:
    federation = small_federation("mf")
    batch = federation.population.rows.select(torch.tensor([2]))
    lone = (batch.positive > 0).nonzero()[0]
    positive = torch.zeros_like(batch.positive)
    positive[lone] = 1
    only = type(batch)(batch.clients, batch.starts, batch.client, batch.item, batch.weight, positive, batch.size)
    found = Union(Union.Params()).regularize(federation.params, torch.zeros(1, 32), only, federation.server_view())
    assert found is not None
    assert not found.rows.any()
    assert not found.extra.values.any()


def test_items_are_drawn_uniformly_outside_without_repetition() -> None:
    taken = torch.tensor([1, 4, 6 + 0, 6 + 5])  # of client 0 items 1 and 4, of client 1 items 0 and 5; M = 6
    owners = torch.tensor([0, 1]).repeat_interleave(6000)
    drawn = draw_outside(taken, owners, 6, 2, 3, stream())
    for client, free in ((0, {0, 2, 3, 5}), (1, {1, 2, 3, 4})):
        own = drawn[owners == client]
        assert {tuple(sorted(each)) for each in own.tolist()} == set(itertools.combinations(sorted(free), 3))
        share = torch.bincount(own.flatten(), minlength=6)[sorted(free)] / len(own)
        assert torch.allclose(share, torch.full((4,), 0.75), atol=4 * math.sqrt(0.75 * 0.25 / 6000))
    # Fewer free items than wanted: what there is, again and again, and never an item outside of the data.
    few = draw_outside(torch.arange(5), torch.zeros(9, dtype=torch.int64), 6, 1, 3, stream())
    assert set(few.flatten().tolist()) == {5}
    # None at all: the last item, and the next client's draw is its own.
    none = draw_outside(torch.arange(6), torch.tensor([0, 0, 1]), 6, 2, 3, stream())
    assert (none[:2] == 5).all()
    assert none[2].sort().values.diff().min() > 0


@pytest.mark.parametrize("model", ["mf", "ncf"])
@pytest.mark.parametrize("negatives_per", ["anchor", "client"])
def test_union_trains_and_sends_each_row_once(model: str, negatives_per: str) -> None:
    federation = small_federation(
        model, defense=Union(Union.Params(negatives=3, negatives_per=negatives_per, sampled_items=20))
    )
    sent = federation.training.honest_updates(
        federation.population.rows, torch.arange(8), federation.defense, federation.server_view()
    ).all_rows()
    key = sent.client * 40 + sent.item
    assert len(torch.unique(key)) == len(key)
    federation.train_epoch()
    federation.check_finite()


# ------------------------------------------------------------------------- the readings of the AAAI'23 code


def with_common(updates: Updates) -> Updates:
    gradient = torch.randn(8, 3, generator=stream(7))
    return replace(updates, common=Common(gradient, torch.linspace(0, 1, len(updates.clients))))


@pytest.mark.parametrize("distance", ["squared", "euclidean"])
@pytest.mark.parametrize("adam", [False, True])
@pytest.mark.parametrize("common", [False, True])
@pytest.mark.parametrize("sampled", [[6, 1, 3, 4], [[6, 1, 3], [0, 1, 2], [5, 7, 3], [7, 0, 6], [4, 5, 2]]])
def test_uniformity_after_the_servers_own_step(
    distance: str, adam: bool, common: bool, sampled: list[int] | list[list[int]]
) -> None:
    """Every client's update as if it were the aggregate: a real step of a copy of the server."""
    updates = make_updates(5, 8, 3, 2, density=0.5, dense=False)
    updates = with_common(updates) if common else updates
    params = PublicParams(torch.randn(8, 3, generator=stream()), {})
    server: ServerOptimizer = Adam(0.3) if adam else Descent(0.3)
    for seed in range(3):
        gradient = torch.randn(8, 3, generator=stream(seed))
        params = server.step(params, PublicParams(gradient, {}))
    expected = []
    for client, items in enumerate(torch.tensor(sampled).expand(5, -1).tolist()):
        alone = updates.explicit().keep(torch.arange(5) == client).sum_rows(8, 3)
        moved = copy.deepcopy(server).step(params, PublicParams(alone, {})).items.double()
        pairs = [(moved[i] - moved[j]).norm() for i, j in itertools.combinations(items, 2)]
        expected.append(sum(p**2 if distance == "squared" else p for p in pairs) / len(pairs))
    view = replace(server_of(updates, 8, 3), params=params, learning_rate=0.3, optimizer=server)
    union = Union(Union.Params(distance=distance, step="server" if adam else "gradient"))
    found = union._spread(updates, torch.tensor(sampled), view)
    torch.testing.assert_close(found, torch.stack(expected), rtol=1e-5, atol=1e-6)


def test_every_client_gets_its_own_items_where_the_paper_draws_them_so() -> None:
    union = Union(Union.Params(sampled_items=30, sampled_per="client"))
    sampled = union._sampled(4000, 40, stream())
    assert sampled.shape == (4000, 30)
    counts = torch.zeros(4000, 40).scatter_add_(1, sampled, torch.ones(4000, 30))
    assert counts.max() == 1
    assert (counts.mean(0) - 0.75).abs().max() < 5 * math.sqrt(0.75 * 0.25 / 4000)
    assert Union(Union.Params(sampled_items=50, sampled_per="client"))._sampled(3, 40, stream()).shape == (3, 40)


def test_with_all_items_it_makes_no_difference_who_draws_them() -> None:
    for own in ("round", "client"):
        updates, view = collapsed(bad=3)
        kept = Union(Union.Params(sampled_per=own, sampled_items=10)).filter(updates, view)
        assert kept.clients.tolist() == list(range(17))


@pytest.mark.parametrize("distance", ["squared", "euclidean"])
def test_clients_are_told_apart_after_a_step_smaller_than_float32_resolves(distance: str) -> None:
    """Items in two tight clusters, rows of 1e-4 and a learning rate of 2e-3, as in protocol aaai23."""
    items = torch.randn(2, 16, generator=stream()).repeat(50, 1) * 0.3
    items += 2e-3 * torch.randn(100, 16, generator=stream(1))
    rows = make_updates(12, 100, 16, 3, density=0.2, dense=False).all_rows()
    updates = Updates(
        torch.arange(12),
        (replace(rows, values=1e-4 * rows.values),),
        make_updates(12, 100, 16, 3, dense=False).dense,
        torch.ones(12),
        Common(1e-5 * items, torch.ones(12)),
    )
    whole = updates.explicit().all_rows()
    moved = items.double().repeat(12, 1, 1)
    moved.index_put_((whole.client, whole.item), -2e-3 * whole.values.double(), accumulate=True)
    distances = torch.stack([torch.pdist(each) for each in moved])
    expected = (distances.square() if distance == "squared" else distances).mean(1)
    view = replace(server_of(updates, 100, 16), params=PublicParams(items, {}), learning_rate=2e-3)
    found = Union(Union.Params(distance=distance))._spread(updates, torch.arange(100), view)
    error = (found - found.mean()) - (expected - expected.mean())
    assert error.std() < 1e-2 * expected.std()


@pytest.mark.parametrize("distance", ["squared", "euclidean"])
def test_the_spread_of_sets_that_differ_in_the_fourth_digit_keeps_its_order(distance: str) -> None:
    base = 3 + torch.randn(200, 16, generator=stream())
    vectors = base * (1 + 1e-4 * torch.arange(6)[:, None, None])
    found = spread_of(vectors, distance)
    exact = torch.stack([torch.pdist(each.double()).pow(2 if distance == "squared" else 1).mean() for each in vectors])
    assert found.argsort().tolist() == list(range(6))
    torch.testing.assert_close(found, exact, rtol=1e-6, atol=0)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_the_contrastive_gradient_with_dropout_is_that_of_autograd_under_the_same_masks(reduction: str) -> None:
    federation = small_federation("mf")
    batch = federation.population.rows.select(torch.tensor([3, 0, 7]))
    items = federation.params.items
    params = Union.Params(alpha=0.7, negatives=4, dropout=0.3, reduction=reduction)
    drawn: list[torch.Tensor] = []
    with pytest.MonkeyPatch.context() as patch:
        original = union_module.kept_coordinates

        def noting(*args: Any) -> torch.Tensor:
            drawn.append(original(*args))
            return drawn[-1].clone()

        lists: list[torch.Tensor] = []
        inner = union_module._with_dropout

        def noting_lists(*args: Any) -> Any:
            lists.extend([args[2], args[3], args[4]])
            return inner(*args)

        patch.setattr(union_module, "kept_coordinates", noting)
        patch.setattr(union_module, "_with_dropout", noting_lists)
        found = contrastive(items, batch, params, stream(4))
    anchors, other, candidates = lists
    keep_anchor, keep = (each / 0.7 for each in drawn)
    v = items.clone().requires_grad_()
    owners = batch.client[anchors]
    total = torch.zeros(())
    for a in range(len(anchors)):
        assert candidates[a, 0] == batch.item[anchors[other[a]]]
        anchor = v[batch.item[anchors[a]]] * keep_anchor[a]
        scores = (v[candidates[a]] * keep[a]) @ anchor
        count = (owners == owners[a]).sum() if reduction == "mean" else 1
        total = total - 0.7 * scores.log_softmax(0)[0] / count
    (expected,) = torch.autograd.grad(total, [v])
    assert found.rows is not None
    assert found.extra is not None
    gradient = torch.zeros_like(items).index_add_(0, batch.item, found.rows)
    gradient.index_add_(0, found.extra.item, found.extra.values)
    torch.testing.assert_close(gradient, expected, rtol=1e-5, atol=1e-6)
    assert len(torch.unique(found.extra.client * 40 + found.extra.item)) == len(found.extra.item)


def test_in_parallel_order_the_rejected_stay_to_be_looked_at() -> None:
    updates, view = collapsed(bad=3)
    left = Union(Union.Params(order="parallel")).filter(updates, view)
    assert left.rejected is not None
    assert left.rejected.nonzero().squeeze(1).tolist() == [17, 18, 19]
    assert left.settled().clients.tolist() == list(range(17))
