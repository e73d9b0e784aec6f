from __future__ import annotations

import pytest
import torch

from fedbench.federation.optimizers import Descent
from fedbench.federation.rows import FullRows, OuterRows, PiecedRows, ProjectedRows, Rows, by_item
from fedbench.federation.server import aggregate, clip_rows
from fedbench.federation.updates import DenseGradients, Updates, concat, no_updates
from fedbench.models import PublicParams

CLIENT = torch.tensor([0, 0, 1, 2])
ITEM = torch.tensor([3, 1, 3, 0])


def all_kinds() -> list[Rows]:
    g = torch.Generator().manual_seed(0)
    vectors, matrix = torch.randn(3, 2, generator=g), torch.randn(5, 2, generator=g)
    coef, wide = torch.randn(4, generator=g), torch.randn(4, 5, generator=g)
    return [
        FullRows(CLIENT, ITEM, torch.randn(4, 2, generator=g)),
        OuterRows(CLIENT, ITEM, coef, CLIENT, vectors),
        ProjectedRows(CLIENT, ITEM, wide, matrix),
        PiecedRows(
            CLIENT,
            ITEM,
            torch.tensor([1, 1, 3, 0, 1]),
            torch.randn(5, generator=g),
            torch.randn(5, 2, generator=g),
        ),
    ]


@pytest.mark.parametrize("rows", all_kinds(), ids=lambda rows: type(rows).__name__)
def test_every_kind_of_rows_agrees_with_the_rows_it_stands_for(rows: Rows) -> None:
    made = rows.grad()
    total = torch.zeros(5, 2)
    for r in range(4):
        total[ITEM[r]] += made[r]
    assert torch.allclose(rows.sum(5), total, atol=1e-6)
    assert torch.allclose(rows.norms(), made.norm(dim=1), atol=1e-6)
    factor = torch.tensor([0.0, 1.0, 2.0, 0.5])
    assert torch.allclose(rows.scaled(factor).grad(), made * factor[:, None], atol=1e-6)
    index = torch.tensor([3, 1])
    taken = rows.take(index)
    assert torch.equal(taken.client, CLIENT[index])
    assert torch.equal(taken.item, ITEM[index])
    assert torch.allclose(taken.grad(), made[index], atol=1e-6)


def updates_of(rows: Rows, n: int = 3) -> Updates:
    dense = {"W": torch.arange(n * 4, dtype=torch.float32).view(n, 2, 2)}
    return Updates(torch.arange(n) + 10, (rows,), DenseGradients.of(dense), torch.ones(n))


@pytest.mark.parametrize("rows", all_kinds(), ids=lambda rows: type(rows).__name__)
def test_dropping_a_client_drops_its_rows_and_dense_gradients(rows: Rows) -> None:
    kept = updates_of(rows).keep(torch.tensor([True, False, True]))
    assert kept.clients.tolist() == [10, 12]
    assert kept.all_rows().client.tolist() == [0, 0, 1]
    assert torch.allclose(kept.all_rows().values, rows.grad()[[0, 1, 3]], atol=1e-6)
    assert torch.equal(kept.dense.stacked()["W"], updates_of(rows).dense.stacked()["W"][[0, 2]])
    assert torch.equal(kept.dense.total()["W"], kept.dense.stacked()["W"].sum(0))


def test_concat_renumbers_clients_and_keeps_everything() -> None:
    first, second = updates_of(all_kinds()[0]), updates_of(all_kinds()[1])
    both = concat([first, second])
    assert both.clients.tolist() == [10, 11, 12, 10, 11, 12]
    assert both.all_rows().client.tolist() == [0, 0, 1, 2, 3, 3, 4, 5]
    assert torch.allclose(both.sum_rows(5, 2), first.sum_rows(5, 2) + second.sum_rows(5, 2), atol=1e-6)
    assert both.dense.stacked()["W"].shape == (6, 2, 2)
    assert torch.equal(both.dense.total()["W"], both.dense.stacked()["W"].sum(0))


def test_sum_and_mean_aggregation_and_the_step() -> None:
    rows = FullRows(CLIENT, ITEM, torch.tensor([[1.0, 0], [2, 0], [3, 0], [4, 0]]))
    params = PublicParams(torch.zeros(5, 2), {"W": torch.zeros(2, 2)})
    updates = updates_of(rows)
    total = aggregate(updates, params, "sum")
    assert total.items[:, 0].tolist() == [4, 2, 0, 4, 0]
    assert total.dense["W"].tolist() == [[12, 15], [18, 21]]
    mean = aggregate(updates, params, "mean")
    assert torch.allclose(mean.items * 3, total.items)
    assert torch.allclose(mean.dense["W"] * 3, total.dense["W"])
    moved = Descent(0.5).step(params, total)
    assert moved.items[:, 0].tolist() == [-2, -1, 0, -2, 0]


def test_a_silent_client_counts_in_the_mean_only() -> None:
    params = PublicParams(torch.zeros(5, 2), {"W": torch.zeros(2, 2)})
    loud = updates_of(all_kinds()[0])
    both = concat([loud, no_updates(torch.tensor([7]), params.dense, 2)])
    assert torch.allclose(aggregate(both, params, "sum").items, aggregate(loud, params, "sum").items)
    assert torch.allclose(aggregate(both, params, "mean").items * 4, aggregate(loud, params, "mean").items * 3)


def test_the_server_clips_rows_to_a_bound() -> None:
    rows = FullRows(CLIENT, ITEM, torch.tensor([[3.0, 4], [0.3, 0.4], [0, 0], [0, 2]]))
    clipped = clip_rows(updates_of(rows), 1.0).rows[0].grad()
    assert torch.allclose(clipped, torch.tensor([[0.6, 0.8], [0.3, 0.4], [0, 0], [0, 1]]))


def test_dense_gradients_with_factors_of_the_clients() -> None:
    first, second = updates_of(all_kinds()[0]), updates_of(all_kinds()[1])
    factor = torch.tensor([1.0, 0.0, -2.0, 0.5, 3.0, 1.0])
    both = concat([first, second]).scaled(factor)
    each = torch.cat([first.dense.stacked()["W"], second.dense.stacked()["W"]]) * factor[:, None, None]
    assert torch.allclose(both.dense.stacked()["W"], each)
    assert torch.allclose(both.dense.total()["W"], each.sum(0))
    twice = both.scaled(factor)
    assert torch.allclose(twice.dense.total()["W"], (each * factor[:, None, None]).sum(0))


def test_reading_rows_item_by_item_is_a_stable_sort_however_many_items_there_are() -> None:
    item = torch.randint(0, 50, (400,), generator=torch.Generator().manual_seed(1))
    item[item == 7] = 8  # an item without rows
    expected = torch.sort(item, stable=True)
    for num_items in (50, 2**15, 2**15 + 1):
        order, starts = by_item(item, num_items)
        assert torch.equal(order, expected.indices)
        assert torch.equal(starts, torch.searchsorted(expected.values, torch.arange(num_items)))
