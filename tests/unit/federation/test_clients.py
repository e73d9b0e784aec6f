from __future__ import annotations

import pytest
import torch

from fedbench.federation.clients import TrainingRows, draw_negatives, sample_rows
from fedbench.randomness import generator


def test_repeats_are_merged_into_one_row_with_counts() -> None:
    user = torch.tensor([0, 0, 0, 1])
    item = torch.tensor([2, 2, 4, 1])
    negative = torch.tensor([[0], [0], [1], [3]])
    rows = TrainingRows.build(user, item, negative, num_clients=3, num_items=5)
    assert rows.starts.tolist() == [0, 4, 6, 6]
    assert rows.item.tolist() == [0, 1, 2, 4, 1, 3]
    assert rows.weight.tolist() == [2, 1, 2, 1, 1, 1]
    assert rows.positive.tolist() == [0, 0, 2, 1, 1, 0]
    assert rows.size.tolist() == [6, 2, 0]


def test_a_batch_holds_the_rows_of_its_clients_in_their_order() -> None:
    user = torch.tensor([0, 0, 1, 2])
    item = torch.tensor([0, 1, 2, 3])
    negative = torch.tensor([[4], [4], [0], [1]])
    batch = TrainingRows.build(user, item, negative, 3, 5).select(torch.tensor([2, 0]))
    assert batch.client.tolist() == [0, 0, 1, 1, 1]
    assert batch.item.tolist() == [1, 3, 0, 1, 4]
    assert batch.starts.tolist() == [0, 2, 5]
    assert batch.size.tolist() == [2, 4]


def test_pairs_point_at_the_rows_of_their_positive_and_negative() -> None:
    user = torch.tensor([0, 0, 1])
    item = torch.tensor([3, 1, 2])
    negative = torch.tensor([[0, 4], [4, 4], [0, 1]])
    rows = TrainingRows.build(user, item, negative, 2, 5, pairwise=True)
    batch = rows.select(torch.tensor([1, 0]))
    assert batch.pair_positive is not None
    assert batch.pair_negative is not None
    pairs = list(zip(batch.item[batch.pair_positive].tolist(), batch.item[batch.pair_negative].tolist(), strict=True))
    assert pairs == [(2, 0), (2, 1), (3, 0), (3, 4), (1, 4), (1, 4)]
    assert batch.client[batch.pair_positive].tolist() == [0, 0, 1, 1, 1, 1]


@pytest.mark.parametrize("q", [1, 4])
def test_negatives_are_uniform_over_what_the_client_has_not(q: int) -> None:
    user = torch.tensor([0] * 3 + [1] * 2)
    item = torch.tensor([1, 3, 4, 0, 5])
    draws = [draw_negatives(user, item, 2, 6, q, generator(seed, "negatives")) for seed in range(2000)]
    drawn = torch.stack(draws)
    assert drawn.shape == (2000, 5, q)
    first = torch.bincount(drawn[:, :3].reshape(-1), minlength=6) / (2000 * 3 * q)
    second = torch.bincount(drawn[:, 3:].reshape(-1), minlength=6) / (2000 * 2 * q)
    assert torch.allclose(first, torch.tensor([1, 0, 1, 0, 0, 1]) / 3, atol=0.03)
    assert torch.allclose(second, torch.tensor([0, 1, 1, 1, 1, 0]) / 4, atol=0.03)


def test_a_client_that_has_every_item_gets_a_positive_back() -> None:
    user, item = torch.tensor([0, 0, 1]), torch.tensor([0, 1, 0])
    drawn = draw_negatives(user, item, 2, 2, 1, generator(0, "negatives"))
    assert drawn[:2].squeeze(1).tolist() == [0, 1]
    assert drawn[2].item() == 1


def test_a_local_batch_samples_rows_without_repetition() -> None:
    user = torch.tensor([0] * 10 + [1] * 2)
    item = torch.tensor([*range(10), 0, 1])
    negative = torch.arange(10, 22)[:, None]
    batch = TrainingRows.build(user, item, negative, 2, 22).select(torch.tensor([0, 1]))
    small = sample_rows(batch, 5, generator(0, "local batch"))
    assert small.starts.tolist() == [0, 5, 9]
    assert small.client.tolist() == [0] * 5 + [1] * 4
    assert len(set(small.item[:5].tolist())) == 5
    assert small.size.tolist() == [5, 4]
    again = sample_rows(batch, 5, generator(1, "local batch"))
    assert small.item[:5].tolist() != again.item[:5].tolist()


@pytest.mark.parametrize("block", [1, 100, 700])
def test_clients_laid_out_block_by_block_are_the_same(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    draws = generator(1, "case")
    user = torch.randint(50, (700,), generator=draws).sort().values
    item = torch.randint(40, (700,), generator=draws)
    also = torch.randint(50, (90,), generator=draws), torch.randint(40, (90,), generator=draws)

    def made() -> tuple[torch.Tensor, TrainingRows]:
        negative = draw_negatives(user, item, 52, 40, 2, generator(5, "negatives"), also)
        return negative, TrainingRows.build(user, item, negative, 52, 40, pairwise=True)

    whole, rows = made()
    monkeypatch.setattr("fedbench.federation.clients.BLOCK", block)
    negative, joined = made()
    assert torch.equal(negative, whole)
    for name, value in vars(rows).items():
        assert torch.equal(getattr(joined, name), value), name
