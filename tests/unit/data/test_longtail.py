from __future__ import annotations

import numpy as np
import pytest

from fedbench.data import load_split, resolve
from fedbench.data.longtail import SHAPES, Shape, generate
from fedbench.data.records import Split


def popularity_hit_ratio(split: Split) -> float:
    """HR@10 of ranking by training popularity, against 99 negatives in expectation (ties against the test item)."""
    counts = np.bincount(split.train.item, minlength=split.num_items)
    seen = np.zeros((split.num_users, split.num_items), dtype=bool)
    seen[split.train.user, split.train.item] = True
    unseen = ~seen[split.test.user]
    above = (unseen & (counts[None, :] >= counts[split.test.item][:, None])).sum(axis=1) - 1
    share = above / (unseen.sum(axis=1) - 1)
    draws = np.random.default_rng(0).binomial(99, np.repeat(share, 200))
    return float((draws < 10).mean())


def test_longtail_is_an_alias_of_the_small_one() -> None:
    assert resolve("longtail").name == "longtail-small"
    assert load_split("longtail", "4:1").dataset == "longtail-small"


@pytest.mark.parametrize("name", ["longtail-small", "longtail-100k"])
def test_catalogue_counts_are_those_of_the_data(name: str) -> None:
    entry, table = resolve(name), generate(SHAPES[name])
    rows = table.parts["all"]
    assert (entry.users, entry.items, entry.interactions) == (table.num_users, table.num_items, len(rows))
    keys = rows.user.astype(np.int64) * table.num_items + rows.item
    assert len(np.unique(keys)) == len(keys)
    assert rows.user.dtype == rows.item.dtype == np.int32
    assert bool((np.diff(rows.user) >= 0).all())
    lengths = np.bincount(rows.user, minlength=table.num_users)
    assert lengths.min() > SHAPES[name].minimum_length
    assert lengths.max() > 4 * np.median(lengths) or name == "longtail-small"
    assert lengths.max() <= table.num_items // 4


def test_data_are_the_same_everywhere_and_for_ever() -> None:
    # A change here changes the embedded dataset, and with it numbers on the leaderboard.
    split = load_split("longtail", "leave-one-out")
    assert split.fingerprint == "7d38994b7d1561fd091884c69cbf731383c7c2bb82701cc56f40f789fbf199f1"
    assert len(split.test) == split.num_users == 300


@pytest.mark.parametrize("name", ["longtail-small", "longtail-100k"])
def test_popularity_is_long_tailed_and_worth_knowing(name: str) -> None:
    split = load_split(name, "leave-one-out")
    counts = np.sort(np.bincount(split.train.item, minlength=split.num_items))[::-1]
    top = counts[: split.num_items // 10].sum() / counts.sum()
    assert 0.35 < top < 0.45  # MovieLens-100K and -1M: 0.43, 0.44
    assert counts[-1] <= 3
    assert 0.36 < popularity_hit_ratio(split) < 0.44  # MovieLens-100K: 0.41


def test_taste_makes_users_alike_in_groups() -> None:
    # With one favourite genre of five at 75 %, two users agree far more often than popularity alone explains.
    split = load_split("longtail", "leave-one-out")
    matrix = np.zeros((split.num_users, split.num_items))
    matrix[split.train.user, split.train.item] = 1
    expected = matrix.sum(axis=1, keepdims=True) * matrix.mean(axis=0) / matrix.mean(axis=0).sum()
    spectrum = np.linalg.svd(matrix - expected, compute_uv=False)
    assert (spectrum[:4] > 1.4 * spectrum[5]).all()  # five genres are four contrasts


@pytest.mark.parametrize(("users", "items"), [(1, 8), (3, 4), (70_000, 12)])
def test_extreme_sizes(users: int, items: int) -> None:
    table = generate(Shape("tiny", users, items, 2.0, 1, 0.5, 3, 1.0, 1.0, (0.5, 0.3, 0.1)))
    lengths = np.bincount(table.parts["all"].user, minlength=users)
    assert lengths.min() >= 1
    assert lengths.max() <= max(items // 4, 1)


def test_many_blocks_are_joined_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedbench.data.longtail._CELLS", 400 * 37)
    rows = generate(SHAPES["longtail-small"]).parts["all"]
    assert len(rows) == resolve("longtail").interactions
    assert bool((np.diff(rows.user) >= 0).all())
    keys = rows.user.astype(np.int64) * 400 + rows.item
    assert len(np.unique(keys)) == len(keys)
