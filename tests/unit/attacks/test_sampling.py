from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedbench.attacks.sampling import distinct, others, outside


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@given(rows=st.integers(0, 5), population=st.integers(0, 12), data=st.data(), seed=st.integers(0, 99))
def test_subsets_hold_different_numbers_of_the_population(
    rows: int, population: int, data: st.DataObject, seed: int
) -> None:
    count = data.draw(st.integers(0, population))
    drawn = distinct(rows, count, population, stream(seed))
    assert drawn.shape == (rows, count)
    assert all(len(set(row)) == count and set(row) <= set(range(population)) for row in drawn.tolist())


def test_every_subset_is_equally_likely() -> None:
    drawn = distinct(30_000, 2, 4, stream()).sort(dim=1).values
    share = torch.bincount(drawn[:, 0] * 4 + drawn[:, 1], minlength=16) / 30_000
    pairs = share[[1, 2, 3, 6, 7, 11]]
    assert torch.allclose(pairs, torch.full((6,), 1 / 6), atol=0.01)  # five standard deviations of a share
    assert float(pairs.sum()) == pytest.approx(1)


def test_more_than_there_are_cannot_be_drawn() -> None:
    with pytest.raises(ValueError, match="5 distinct numbers cannot be drawn from 4"):
        distinct(1, 5, 4, stream())


def test_ranks_outside_a_set_by_hand() -> None:
    # Free of {0, 3, 4}: 1, 2, 5, 6.  Free of {1, 2, 6}: 0, 3, 4, 5.
    ranks = torch.tensor([[0, 1, 2, 3], [3, 2, 1, 0]])
    assert outside(torch.tensor([[3, 0, 4], [1, 6, 2]]), ranks).tolist() == [[1, 2, 5, 6], [5, 4, 3, 0]]


@given(taken=st.sets(st.integers(0, 15)), seed=st.integers(0, 99))
def test_ranks_outside_a_set_enumerate_its_complement(taken: set[int], seed: int) -> None:
    order = torch.randperm(len(taken), generator=stream(seed))
    found = outside(torch.tensor(sorted(taken), dtype=torch.long)[order][None], torch.arange(16 - len(taken))[None])
    assert found[0].tolist() == [number for number in range(16) if number not in taken]


def test_others_are_all_items_but_the_targets() -> None:
    assert others(5, torch.tensor([3, 0])).tolist() == [1, 2, 4]
