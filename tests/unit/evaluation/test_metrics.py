from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch
from scipy.stats import hypergeom

from fedbench.evaluation import metrics


def exact(above: int, pool: int, negatives: int, x: int) -> float:
    return float(Fraction(math.comb(above, x) * math.comb(pool - above, negatives - x), math.comb(pool, negatives)))


def test_hits_and_gain_of_one_item() -> None:
    rank = torch.tensor([0, 2, 4, 5])
    assert metrics.hits(rank, 5).tolist() == [1, 1, 1, 0]
    assert metrics.discounted_gain(rank, 5).tolist() == pytest.approx([1, 0.5, 1 / math.log2(6), 0])


def test_exposure_is_the_mean_over_targets_of_shares_of_counted_users() -> None:
    rank = torch.tensor([[0, 9], [7, 0], [3, 0]])
    counted = torch.tensor([[True, True], [True, True], [False, True]])
    # Target 0: one of two counted users. Target 1: two of three.
    assert float(metrics.exposure_ratio(rank, counted, counted.sum(0), 5)) == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert float(metrics.exposure_ratio(rank, counted, 3, 5)) == pytest.approx((1 / 3 + 2 / 3) / 2)


@pytest.mark.parametrize("pool", [1, 98, 99, 100, 197, 198, 199, 1_593, 3_606, 11_789, 199_950])
def test_chances_of_ranks_agree_with_exact_fractions(pool: int) -> None:
    aboves = sorted({0, 1, 5, 19, 20, 98, 99, 100, pool // 100, pool // 7, pool // 2, pool - 5, pool - 1, pool})
    aboves = [above for above in aboves if 0 <= above <= pool]
    chances = metrics.sampled_rank_distribution(torch.tensor(aboves), torch.full((len(aboves),), pool), 99, 20)
    size = min(99, pool)
    expected = [[exact(above, pool, size, x) if x <= size else 0.0 for x in range(20)] for above in aboves]
    torch.testing.assert_close(chances, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-12)


def test_chances_of_ranks_agree_with_scipy() -> None:
    g = torch.Generator().manual_seed(0)
    pool = torch.randint(100, 4_000, (500,), generator=g)
    above = (pool * torch.rand(500, generator=g) ** 4).long()
    chances = metrics.sampled_rank_distribution(above, pool, 99, 20)
    expected = hypergeom.pmf(torch.arange(20)[None].numpy(), pool[:, None].numpy(), above[:, None].numpy(), 99)
    torch.testing.assert_close(chances, torch.from_numpy(expected), rtol=0, atol=1e-12)


def test_all_ranks_together_are_certain() -> None:
    above, pool = torch.tensor([0, 3, 250, 700]), torch.tensor([700, 700, 700, 700])
    total = metrics.sampled_rank_distribution(above, pool, 99, 100).sum(1)
    torch.testing.assert_close(total, torch.ones(4, dtype=torch.float64), rtol=0, atol=1e-12)


def test_a_pool_smaller_than_the_sample_is_taken_whole() -> None:
    chances = metrics.sampled_rank_distribution(torch.tensor([0, 7, 40]), torch.tensor([0, 40, 40]), 99, 20)
    assert chances[0].tolist() == pytest.approx([1.0] + [0.0] * 19)
    assert chances[1].tolist() == pytest.approx([float(x == 7) for x in range(20)])
    assert chances[2].tolist() == [0.0] * 20


def test_nobody_gives_no_chances() -> None:
    none = torch.empty(0, dtype=torch.int64)
    assert metrics.sampled_rank_distribution(none, none, 99, 20).shape == (0, 20)


@pytest.mark.parametrize(("above", "cutoff"), [(15, 5), (30, 10), (60, 20)])
def test_expectation_is_what_sampling_gives_on_average(above: int, cutoff: int) -> None:
    pool, draws = 300, 5_000
    g = torch.Generator().manual_seed(1)
    sampled = torch.rand(draws, pool, generator=g).topk(99, dim=1).indices
    rank = (sampled < above).sum(1)
    chances = metrics.sampled_rank_distribution(torch.tensor([above]), torch.tensor([pool]), 99, 20)
    for expected, values in (
        (metrics.expected_hits(chances, cutoff), metrics.hits(rank, cutoff)),
        (metrics.expected_gain(chances, cutoff), metrics.discounted_gain(rank, cutoff)),
    ):
        error = float(values.std()) / math.sqrt(draws)
        assert float(values.mean()) == pytest.approx(float(expected), abs=4 * error)
        assert 0.05 < float(expected) < 0.95  # a comparison of zeros or ones would prove nothing


def test_several_held_out_items_of_a_user() -> None:
    # User 0 holds three items: the best has 1 other item ahead, the two tied ones 2. User 1 holds one, user 2 none.
    ahead = torch.tensor([2, 1, 2, 6])
    score = torch.tensor([0.5, 0.9, 0.5, -3.0])
    owner, starts = torch.tensor([0, 0, 0, 1]), torch.tensor([0, 3, 4])
    rank = metrics.list_ranks(ahead, score, starts, owner)
    assert rank[1] == 1
    assert sorted(rank[[0, 2]].tolist()) == [3, 4]
    assert rank[3] == 6

    relevant = torch.tensor([3, 1, 0])
    recall, precision, gain = metrics.list_metrics(rank, owner, relevant, 4)
    assert recall[:2].tolist() == pytest.approx([2 / 3, 0])
    assert precision.tolist() == pytest.approx([2 / 4, 0, 0])
    ideal = 1 + 1 / math.log2(3) + 1 / 2
    assert gain[:2].tolist() == pytest.approx([(1 / math.log2(3) + 1 / math.log2(5)) / ideal, 0])
    assert recall[2].isnan()
    assert gain[2].isnan()


def test_a_perfect_list_has_a_gain_of_one_also_when_it_is_too_short_for_all() -> None:
    rank, owner = torch.arange(7), torch.zeros(7, dtype=torch.int64)
    recall, precision, gain = metrics.list_metrics(rank, owner, torch.tensor([7]), 5)
    assert float(gain) == pytest.approx(1)
    assert float(precision) == pytest.approx(1)
    assert float(recall) == pytest.approx(5 / 7)
