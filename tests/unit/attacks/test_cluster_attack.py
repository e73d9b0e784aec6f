from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from federations import small_federation, small_task
from robust_oracles import full

from fedbench.attacks import ATTACKS
from fedbench.attacks.cluster_attack import (
    EPSILON,
    AdaptiveClusters,
    ClusterAttack,
    ContrastiveClusterAttack,
    k_means,
    norm_statistics,
    shared_rows,
)
from fedbench.defenses.union import Union, contrastive
from fedbench.entries.cards import parse_parameters
from fedbench.errors import UserError
from fedbench.federation.rows import FullRows, SharedRows
from fedbench.federation.updates import Common, DenseGradients, Updates
from fedbench.federation.view import AttackerView
from fedbench.models import PublicParams

MakeView = Callable[..., AttackerView]


def attack(view: AttackerView, cls: type[ClusterAttack] = ClusterAttack, **params: Any) -> ClusterAttack:
    made = cls(cls.Params(**params))
    made.start(view)
    return made


def uploads(n: int, rows: FullRows, common: Common | None = None) -> Updates:
    return Updates(torch.arange(n), (rows,), DenseGradients.of({}), torch.ones(n), common)


# ----------------------------------------------------------------------------------------------------- norm statistics


def test_norm_statistics_by_hand() -> None:
    # Two clients, two items; norms 5, 0 and 0, 1: mean 1.5, squares 26, variance (26 - 4 * 2.25) / 3.
    rows = FullRows(torch.tensor([0, 1]), torch.tensor([0, 1]), torch.tensor([[3.0, 4.0], [1.0, 0.0]]))
    mean, deviation = norm_statistics(uploads(2, rows), 2)
    assert float(mean) == pytest.approx(1.5)
    assert float(deviation) == pytest.approx(math.sqrt(17 / 3))


def test_norm_statistics_count_what_is_common() -> None:
    # Items (2, 0) and (0, 1) of the common gradient; client 0 adds (1, 4) to the first, client 1 has half a share alone.
    common = Common(torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([1.0, 0.5]))
    rows = FullRows(torch.tensor([0]), torch.tensor([0]), torch.tensor([[1.0, 4.0]]))
    mean, deviation = norm_statistics(uploads(2, rows, common), 2)
    expected = torch.tensor([5.0, 1.0, 1.0, 0.5])
    assert float(mean) == pytest.approx(float(expected.mean()))
    assert float(deviation) == pytest.approx(float(expected.std()))


@pytest.mark.parametrize("shares", [None, [1.0, 1.0, 1.0, 1.0], [1.0, 0.0, 2.0, 0.5]])
def test_norm_statistics_agree_with_the_whole_matrix(shares: list[float] | None) -> None:
    g = torch.Generator().manual_seed(4)
    client, item = (torch.rand(4, 9, generator=g) < 0.4).nonzero(as_tuple=True)
    rows = FullRows(client, item, torch.randn(len(item), 3, generator=g))
    common = None if shares is None else Common(torch.randn(9, 3, generator=g), torch.tensor(shares))
    updates = uploads(4, rows, common)
    norms = full(updates, 9).norm(dim=2).double()
    mean, deviation = norm_statistics(updates, 9)
    assert float(mean) == pytest.approx(float(norms.mean()), rel=1e-5)
    assert float(deviation) == pytest.approx(float(norms.std()), rel=1e-5)


def test_norm_statistics_of_one_row_and_of_none() -> None:
    rows = FullRows(torch.tensor([0]), torch.tensor([0]), torch.tensor([[3.0, 4.0]]))
    assert [float(x) for x in norm_statistics(uploads(1, rows), 1)] == [5.0, 0.0]
    nothing = Updates(torch.arange(3), (), DenseGradients.of({}), torch.ones(3))
    assert [float(x) for x in norm_statistics(nothing, 4)] == [0.0, 0.0]


# --------------------------------------------------------------------------------------------------------------- k-means


def plain_k_means(points: torch.Tensor, count: int, generator: torch.Generator) -> tuple[list[int], torch.Tensor]:
    centroids = [points[i].clone() for i in torch.randperm(len(points), generator=generator)[:count].tolist()]
    for _ in range(300):
        labels = []
        for point in points:
            distances = [float((point - centroid).square().sum()) for centroid in centroids]
            labels.append(distances.index(min(distances)))
        before = torch.stack(centroids)
        for k in range(count):
            mine = [point for point, label in zip(points, labels, strict=True) if label == k]
            if mine:
                centroids[k] = torch.stack(mine).mean(0)
        if float((torch.stack(centroids) - before).norm()) < 1e-4:
            break
    return labels, torch.stack(centroids)


def test_two_clusters_by_hand() -> None:
    points = torch.tensor([[0.0], [2.0], [10.0], [14.0]])
    for seed in range(20):  # from any two seeds: the only fixed point of the four
        labels, centroids = k_means(points, 2, torch.Generator().manual_seed(seed))
        assert centroids.sort(dim=0).values.flatten().tolist() == [1.0, 12.0]
        assert centroids[labels].flatten().tolist() == [1.0, 1.0, 12.0, 12.0]


def test_one_cluster_and_as_many_as_points() -> None:
    points = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    labels, centroids = k_means(points, 1, torch.Generator())
    assert labels.tolist() == [0] * 6
    assert torch.allclose(centroids[0], points.mean(0))
    labels, centroids = k_means(points, 6, torch.Generator())
    assert sorted(labels.tolist()) == list(range(6))
    assert torch.equal(centroids[labels], points)


def test_an_empty_cluster_keeps_its_centroid() -> None:
    # Equal points all go to the first of the equal centroids; the other has none.
    points = torch.ones(5, 2)
    labels, centroids = k_means(points, 2, torch.Generator())
    assert labels.tolist() == [0] * 5
    assert torch.equal(centroids, torch.ones(2, 2))


@pytest.mark.parametrize("count", [1, 2, 5, 12])
def test_k_means_agrees_with_plain_loops(count: int) -> None:
    for seed in range(5):
        points = torch.randn(40, 3, generator=torch.Generator().manual_seed(seed))
        labels, centroids = k_means(points, count, torch.Generator().manual_seed(9))
        expected = plain_k_means(points, count, torch.Generator().manual_seed(9))
        assert labels.tolist() == expected[0]
        assert torch.allclose(centroids, expected[1], atol=1e-5)


# ------------------------------------------------------------------------------------------------------- the schedule of K


def test_the_schedule_step_by_step() -> None:
    # beta = 1/2 and R = 2; corrected is e / (1 - 2^-t).
    k = AdaptiveClusters(2, 1, 50, threshold=2, decay=0.5)
    k.advance(2.0)  # e = 1, corrected 2
    assert (k.average, k.last, k.rises, k.falls) == (1.0, 2.0, 0, 0)
    k.advance(5.0)  # e = 3, corrected 4: a rise
    assert (k.average, k.last, k.rises, k.falls) == (3.0, 4.0, 1, 0)
    k.advance(0.5)  # e = 1.75, corrected 2: a fall
    assert (k.last, k.rises, k.falls, k.count) == (2.0, 1, 1, 2)
    k.advance(9.0)
    assert (k.rises, k.falls, k.count) == (2, 1, 2)
    k.advance(20.0)  # three rises, one fall: K = round(2 + sqrt(48)) = round(8.93)
    assert (k.count, k.average, k.steps, k.last, k.rises, k.falls) == (9, 0.0, 0, None, 0, 0)
    for loss in (4.0, 2.0, 1.0):
        k.advance(loss)
    assert k.count == 6  # round(9 - sqrt(8)) = round(6.17)


@pytest.mark.parametrize(
    ("to_integer", "ups", "downs"),
    [(round, [2, 9, 15, 21, 26, 31], [6, 4, 2, 1, 1]), (math.floor, [2, 8, 14, 20, 25, 30], [6, 3, 1, 1])],
)
def test_the_path_of_k(to_integer: Callable[[float], int], ups: list[int], downs: list[int]) -> None:
    k = AdaptiveClusters(2, threshold=1, decay=0.5, to_integer=to_integer)
    for before, after in itertools.pairwise(ups):
        assert k.count == before
        k.advance(1.0)
        k.advance(2.0)
        assert k.count == after
    k = AdaptiveClusters(9, threshold=1, decay=0.5, to_integer=to_integer)
    for after in downs:
        k.advance(2.0)
        k.advance(1.0)
        assert k.count == after


def test_k_stays_at_its_bounds_and_an_equal_loss_counts_as_a_fall() -> None:
    k = AdaptiveClusters(50, threshold=1, decay=0.5)
    k.advance(1.0)
    k.advance(2.0)
    assert k.count == 50
    k = AdaptiveClusters(5, threshold=3, decay=0.5)
    for _ in range(3):
        k.advance(1.0)
    assert (k.falls, k.count) == (2, 5)
    k.advance(1.0)
    assert k.count == 3


def test_a_hundred_more_rises_than_falls_by_default_and_growing_patience() -> None:
    k = AdaptiveClusters(2)
    for step in range(100):
        k.advance(float(step))
        assert k.count == 2
    k.advance(100.0)
    assert k.count == 9
    k = AdaptiveClusters(2, threshold=2, growth=0.5, decay=0.5)
    for loss in (1.0, 2.0, 3.0):
        k.advance(loss)
    assert (k.count, k.threshold) == (9, 3.0)


# ------------------------------------------------------------------------------------------------------------ shared rows


def some_shared_rows() -> SharedRows:
    g = torch.Generator().manual_seed(2)
    mask = torch.rand(3, 6, generator=g) < 0.6
    return shared_rows(mask, torch.randn(3, 6, generator=g), torch.randn(6, 2, generator=g))


def test_shared_rows_are_the_rows_that_they_stand_for() -> None:
    rows = some_shared_rows()
    same = FullRows(rows.client, rows.item, rows.grad())
    assert torch.equal(rows.grad()[2], rows.coef[2] * rows.table[rows.item[2]])
    assert torch.allclose(rows.sum(6), same.sum(6))
    assert torch.allclose(rows.norms(), same.norms())
    index, factor = torch.tensor([4, 0, 0]), torch.linspace(-1, 2, len(rows.item))
    assert torch.allclose(rows.scaled(factor).grad(), same.scaled(factor).grad())
    taken, expected = rows.take(index), same.take(index)
    assert torch.equal(taken.grad(), expected.grad())
    assert torch.equal(taken.item, expected.item)
    assert torch.equal(taken.client, expected.client)


# ------------------------------------------------------------------------------------------------------------- the attack


def test_one_round_by_hand(make_view: MakeView) -> None:
    # Items 0, 2, 10, 14 on a line, K = 2: centroids 1 and 12, G = 2 (v - c) / 2 = -1, 1, -2, 2. Without a spread every row
    # gets the norm mu; the loss is (1 + 1 + 4 + 4) / 2.
    params = PublicParams(torch.tensor([[0.0], [2.0], [10.0], [14.0]]), {})
    view = make_view(ClusterAttack.card, m=1, num_items=4, embedding_size=1, params=params, targets=())
    made = attack(view, spread=0.0)
    mean, _ = norm_statistics(view.colluding(50), 4)
    updates = made.craft(view)
    assert torch.allclose(full(updates, 4)[0, :, 0], torch.tensor([-1.0, 1.0, -1.0, 1.0]) * mean)
    assert made.clusters.last == pytest.approx(5.0)
    assert torch.equal(updates.weights, view.honest().updates.weights)
    assert float(mean) > 0


def test_clipping_leaves_short_rows_as_they_are(make_view: MakeView) -> None:
    params = PublicParams(torch.tensor([[0.0], [0.0002], [10.0], [14.0]]), {})
    view = make_view(ClusterAttack.card, m=1, num_items=4, embedding_size=1, params=params)
    mean = float(norm_statistics(view.colluding(50), 4)[0])
    sent = full(attack(view, spread=0.0, norm="clip").craft(view), 4)[0, :, 0]
    assert sent.tolist() == pytest.approx([-0.0001, 0.0001, -mean, mean], rel=1e-4)


def oracle(view: AttackerView, made: ClusterAttack, own: torch.Tensor | None = None) -> torch.Tensor:
    """[m, M, d] from loops, given what ``made`` is about to draw. ``own``: [m, M, d] added to the shared gradient."""
    p, items = made.params, view.params.items
    norms = [float(row.norm()) for client in full(view.colluding(p.colluding), len(items)) for row in client]
    mean = sum(norms) / len(norms)
    deviation = math.sqrt(sum((x - mean) ** 2 for x in norms) / (len(norms) - 1))
    labels, centroids = plain_k_means(items, made.clusters.count, made._seeding.clone_state())
    drawn = torch.rand(len(view.clients), len(items), generator=made._bounds.clone_state())
    expected = torch.zeros(len(view.clients), *items.shape)
    for client in range(len(view.clients)):
        for j, row in enumerate(items):
            gradient = 2 * (row - centroids[labels[j]]) / made.clusters.count
            if own is not None:
                gradient = gradient + own[client, j]
            bound = mean + p.spread * float(drawn[client, j]) * deviation
            size = float(gradient.norm())
            if p.norm == "rescale":
                expected[client, j] = gradient * bound / (size + EPSILON)
            else:
                expected[client, j] = gradient / max(1.0, size / bound)
    return expected


@pytest.mark.parametrize("model", ["mf", "ncf"])
@pytest.mark.parametrize("norm", ["rescale", "clip"])
@pytest.mark.parametrize("m", [1, 4])
def test_uploads_agree_with_plain_loops(model: str, norm: str, m: int, make_view: MakeView) -> None:
    view = make_view(ClusterAttack.card, model, m=m, loss="bpr", targets=())
    made = attack(view, norm=norm, initial_clusters=3)
    expected = oracle(view, made)
    updates = made.craft(view)
    assert torch.allclose(full(updates, 20), expected, atol=1e-6)
    honest = view.honest().updates
    for name, value in updates.dense.stacked().items():
        assert torch.equal(value, honest.dense.stacked()[name])
    assert torch.allclose(updates.sum_rows(20, 4), expected.sum(0), atol=1e-5)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("norm", ["rescale", "clip"])
def test_the_contrastive_variant_agrees_with_plain_loops(reduction: str, norm: str, make_view: MakeView) -> None:
    view = make_view(ContrastiveClusterAttack.card, m=3, loss="bpr", targets=())
    made = attack(view, ContrastiveClusterAttack, negatives=2, alpha=0.7, cl_reduction=reduction, norm=norm)
    batch = view.own_batch
    added = contrastive(
        view.params.items, batch, Union.Params(alpha=0.7, negatives=2, dropout=0.2), made._contrast.clone_state()
    )
    own = torch.zeros(3, 20, 4)
    assert added.rows is not None
    assert added.extra is not None
    for client, item, value in (
        *zip(batch.client.tolist(), batch.item.tolist(), added.rows, strict=True),
        *zip(added.extra.client.tolist(), added.extra.item.tolist(), added.extra.values, strict=True),
    ):
        own[client, item] += value * (6 if reduction == "sum" else 1)  # profiles have six positives
    assert 0 < int((own.norm(dim=2) > 0).sum()) < 60
    expected = oracle(view, made, own)
    updates = made.craft(view)
    assert torch.allclose(full(updates, 20), expected, atol=1e-6)
    rows = updates.all_rows()
    assert len(torch.unique(rows.client * 20 + rows.item)) == len(rows.item) == 60


def test_without_weight_the_contrastive_variant_is_the_plain_one(make_view: MakeView) -> None:
    view = make_view(ClusterAttack.card, loss="bpr")
    plain = attack(view).craft(view)
    view = make_view(ContrastiveClusterAttack.card, loss="bpr")
    none = attack(view, ContrastiveClusterAttack, alpha=0.0).craft(view)
    assert torch.equal(full(plain, 20), full(none, 20))


def test_the_state_advances_once_a_round_and_k_changes_in_the_next(make_view: MakeView) -> None:
    view = make_view(ClusterAttack.card, m=5)
    made = attack(view, patience=1, decay=0.5)
    counts = []
    for scale in (1.0, 3.0, 3.0):
        params = PublicParams(view.params.items * scale, {})
        made.craft(make_view(ClusterAttack.card, m=5, params=params))
        counts.append((made.clusters.count, made.clusters.steps))
    assert counts == [(2, 1), (9, 0), (9, 1)]


def test_fewer_items_than_clusters(make_view: MakeView) -> None:
    view = make_view(ClusterAttack.card, num_items=8)
    sent = full(attack(view, initial_clusters=50).craft(view), 8)
    assert torch.equal(sent, torch.zeros(3, 8, 4))  # every item is its own centroid


def test_all_items_equal_give_nothing(make_view: MakeView) -> None:
    view = make_view(ClusterAttack.card, params=PublicParams(torch.ones(20, 4), {}))
    for norm in ("rescale", "clip"):
        assert torch.equal(full(attack(view, norm=norm).craft(view), 20), torch.zeros(3, 20, 4))


def test_seeds_decide_and_the_global_stream_is_left_alone(make_view: MakeView) -> None:
    state = torch.random.get_rng_state()
    views = [make_view(ContrastiveClusterAttack.card, seed=seed) for seed in (0, 0)]
    one, two = (full(attack(view, ContrastiveClusterAttack).craft(view), 20) for view in views)
    assert torch.equal(one, two)
    view = make_view(ContrastiveClusterAttack.card)
    made = attack(view, ContrastiveClusterAttack)
    assert not torch.equal(full(made.craft(view), 20), full(made.craft(view), 20))
    assert torch.equal(torch.random.get_rng_state(), state)


def test_who_else_was_sampled_does_not_move_the_clusters(make_view: MakeView) -> None:
    few, many = (make_view(ClusterAttack.card, m=m, num_malicious=6) for m in (1, 6))
    a, b = attack(few, spread=0.0), attack(many, spread=0.0)
    for _ in range(3):
        assert torch.equal(full(a.craft(few), 20)[0], full(b.craft(many), 20)[5])


@pytest.mark.parametrize("given", [{"max_clusters": 5}, {"min_clusters": 9}])
def test_an_initial_k_out_of_range_is_one_line_before_anything_runs(given: dict[str, int]) -> None:
    low, high = given.get("min_clusters", 1), given.get("max_clusters", 50)
    said = (
        f"attack 'cluster-attack': initial_clusters = 8 is not between min_clusters = {low} and max_clusters = {high}."
    )
    with pytest.raises(UserError, match=f"^{re.escape(said)}$"):
        parse_parameters(ClusterAttack.Params, {"initial_clusters": 8, **given}, "attack 'cluster-attack'")
    edge = low if "min_clusters" in given else high
    assert parse_parameters(ClusterAttack.Params, {"initial_clusters": edge, **given}, "it").initial_clusters == edge


# -------------------------------------------------------------------------------------------------------- in a federation

AAAI23: dict[str, Any] = {
    "regularized": "all",
    "regularization": 0.01,
    "loss": "bpr",
    "aggregation": "weighted",
    "server_optimizer": "adam",
    "user_optimizer": "adam",
    "malicious_clients": "compromised",
    "learning_rate": 0.02,
    "schedule": "independent",
}
SETTINGS: list[tuple[str, dict[str, Any]]] = [("mf", {}), ("ncf", {}), ("mf", AAAI23), ("ncf", AAAI23)]


@pytest.mark.parametrize("name", ["cluster-attack", "cluster-attack-cl"])
@pytest.mark.parametrize(("model", "protocol"), SETTINGS)
def test_whole_federations(name: str, model: str, protocol: dict[str, Any]) -> None:
    cls = ATTACKS.get(name)
    task = replace(small_task(num_malicious=4), targets=torch.empty(0, dtype=torch.int64))
    runs = []
    for start in (2, 2, 99):
        federation = small_federation(
            model, cls(cls.Params(profile_size=5)), task=task, attack_start=start, **({"epochs": 2} | protocol)
        )
        federation.train_epoch()
        before = federation.params.items.clone()
        federation.train_epoch()
        federation.check_finite()
        runs.append((before, federation.params.items))
    assert torch.equal(runs[0][1], runs[1][1])
    assert torch.equal(runs[0][0], runs[2][0])
    assert bool((runs[0][1] != runs[2][1]).any(dim=1).all())


def test_embeddings_collapse_onto_their_clusters() -> None:
    def spread(attacked: bool) -> float:
        cls = ATTACKS.get("cluster-attack")
        made = cls(cls.Params(initial_clusters=1, patience=1000))
        settings = AAAI23 | {"attack_start": 1 if attacked else 99, "clients_per_round": 30, "regularization": 1e-5}
        federation = small_federation("mf", made, num_malicious=6, **settings)
        for _ in range(40):
            federation.train_epoch()
        items = federation.params.items
        return float((items - items.mean(0)).square().sum())

    assert spread(attacked=True) < 0.5 * spread(attacked=False)
