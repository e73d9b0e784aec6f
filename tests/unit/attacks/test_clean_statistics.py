from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from fedbench.attacks.clean_statistics import clean_statistics, item_norms, spread, upload_of_all_items
from fedbench.attacks.statistical import Lie
from fedbench.federation.rows import FullRows
from fedbench.federation.updates import Common, DenseGradients, Updates
from fedbench.federation.view import AttackerView

MakeView = Callable[..., AttackerView]


def uploads(
    client: list[int], item: list[int], values: list[float], clients: int, common: Common | None = None
) -> Updates:
    """Rows of size 1."""
    rows = FullRows(torch.tensor(client), torch.tensor(item), torch.tensor(values)[:, None])
    return Updates(torch.arange(clients), (rows,), DenseGradients.of({}), torch.ones(clients), common)


def test_two_clients_by_hand() -> None:
    common = Common(torch.tensor([[1.0], [2.0], [3.0]]), torch.ones(2))
    seen = clean_statistics(uploads([0, 1, 1], [0, 0, 1], [2.0, 4.0, 6.0], 2, common), 3).items
    # With what is common: item 0 has 3 and 5, item 1 has 2 and 8, item 2 has 3 and 3.
    assert seen.mean.flatten().tolist() == [4.0, 5.0, 3.0]
    assert seen.std.flatten().tolist() == pytest.approx([math.sqrt(2), math.sqrt(18), 0.0])


def test_without_what_is_common_untouched_rows_are_zero() -> None:
    seen = clean_statistics(uploads([0, 1], [0, 0], [2.0, -2.0], 2), 2).items
    assert seen.mean.flatten().tolist() == [0.0, 0.0]
    assert seen.std.flatten().tolist() == pytest.approx([math.sqrt(8), 0.0])


def test_a_single_client_has_no_spread() -> None:
    seen = clean_statistics(uploads([0, 0], [0, 1], [0.1, 3.0], 1), 2).items
    assert torch.equal(seen.mean, torch.tensor([[0.1], [3.0]]))
    assert not seen.std.any()
    assert not spread(torch.tensor([[0.1, 0.7]])).std.any()


def test_equal_uploads_have_no_spread_to_speak_of() -> None:
    seen = clean_statistics(uploads(list(range(7)), [1] * 7, [0.1] * 7, 7), 2).items
    assert seen.mean[1].item() == pytest.approx(0.1)
    assert seen.std.abs().max() < 1e-8


def test_a_small_spread_around_a_large_mean_keeps_its_digits() -> None:
    values = [1 + 1e-4 * i for i in range(50)]
    seen = clean_statistics(uploads(list(range(50)), [0] * 50, values, 50), 1).items
    expected = 1e-4 * math.sqrt(sum((i - 24.5) ** 2 for i in range(50)) / 49)
    assert seen.std.item() == pytest.approx(expected, rel=1e-3)  # float32 sums of squares: off by half


@pytest.mark.parametrize("shares", [None, [1.0, 1.0, 1.0, 1.0], [1.0, 0.0, 2.0, 1.0]])
def test_agreement_with_the_matrix_of_every_client(shares: list[float] | None) -> None:
    g = torch.Generator().manual_seed(0)
    client, item = (torch.rand(4, 9, generator=g) < 0.4).nonzero().T
    values = torch.randn(len(item), 3, generator=g)
    common = None if shares is None else Common(torch.randn(9, 3, generator=g), torch.tensor(shares))
    dense = {"W": torch.randn(4, 2, 5, generator=g)}
    half = len(item) // 2
    blocks = (FullRows(client[:half], item[:half], values[:half]), FullRows(client[half:], item[half:], values[half:]))
    updates = Updates(torch.arange(4), blocks, DenseGradients.of(dense), torch.ones(4), common)

    full = torch.zeros(4, 9, 3)
    for i in range(4):
        for c, j, row in zip(client, item, values, strict=True):
            if c == i:
                full[i, j] += row
        if common is not None:
            full[i] += common.share[i] * common.gradient
    seen = clean_statistics(updates, 9)
    assert torch.allclose(seen.items.mean, full.mean(0), atol=1e-6)
    assert torch.allclose(seen.items.std, full.std(0), atol=1e-6)
    assert torch.allclose(seen.dense["W"].mean, dense["W"].mean(0), atol=1e-6)
    assert torch.allclose(seen.dense["W"].std, dense["W"].std(0), atol=1e-6)
    assert torch.allclose(item_norms(updates), full.flatten(1).norm(dim=1), atol=1e-5)


def test_an_upload_of_all_items_is_absolute(make_view: MakeView) -> None:
    view = make_view(Lie.card, "ncf", m=2)
    items = torch.randn(20, 4, generator=torch.Generator().manual_seed(0))
    dense = {name: torch.full_like(value, 3.0) for name, value in view.params.dense.items()}
    updates = upload_of_all_items(view, items, dense, torch.tensor([5.0, 6.0]))
    assert updates.common is None
    assert torch.equal(updates.all_rows().values.view(2, 20, 4), items.expand(2, 20, 4))
    assert updates.all_rows().client.view(2, 20).tolist() == [[0] * 20, [1] * 20]
    assert updates.all_rows().item.view(2, 20).tolist() == [list(range(20))] * 2
    assert torch.allclose(updates.sum_rows(20, 4), 2 * items)
    for name, value in dense.items():
        assert torch.equal(updates.dense.stacked()[name], value.expand(2, *value.shape))
        assert torch.equal(updates.dense.total()[name], 2 * value)
