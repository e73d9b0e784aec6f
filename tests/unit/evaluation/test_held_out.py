from __future__ import annotations

from typing import Literal

import pytest
import torch

from fedbench.evaluation import held_out as module
from fedbench.evaluation.held_out import HeldOut
from fedbench.evaluation.pairs import Pairs

NUM_ITEMS = 200


def held_out(
    train: list[tuple[int, int]],
    test: list[tuple[int, int]],
    num_users: int,
    seen_held_out: Literal["ranked", "missed"] = "ranked",
) -> HeldOut:
    parts = [
        Pairs.of(torch.tensor(sorted(u * NUM_ITEMS + i for u, i in part), dtype=torch.int64), num_users, NUM_ITEMS)
        for part in (train, test)
    ]
    return HeldOut(*parts, num_negatives=99, seen_held_out=seen_held_out)


def test_single_items_by_hand() -> None:
    # User 0 holds out item 3, user 1 nothing, user 2 item 5, which it has in training, too.
    its = held_out([(0, 0), (0, 1), (1, 7), (2, 5)], [(0, 3), (2, 5)], 3)
    assert its.single
    assert its.tested.tolist() == [0, 2]
    assert its.item.tolist() == [3, 0, 5]
    assert its.leaked.tolist() == [0, 0, 1]
    assert its.pool[its.tested].tolist() == [NUM_ITEMS - 2 - 1, NUM_ITEMS - 1]
    found = its.by_ranks(torch.tensor([4.0, 0.0, 12.0]))
    assert found.metrics["hr_full_5"] == 0.5
    assert found.metrics["hr_full_20"] == 1.0
    assert found.each_user["hr_full_10"].tolist() == [1.0, 0.0]
    missed = held_out([(0, 0), (0, 1), (1, 7), (2, 5)], [(0, 3), (2, 5)], 3, "missed").by_ranks(torch.zeros(3))
    assert missed.metrics["hr_full_20"] == 0.5
    assert missed.metrics["hr_20"] == 0.5


def test_parts_of_users_are_those_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    its = held_out([(u, 0) for u in range(20)], [(u, 1 + u) for u in range(0, 20, 2)], 20)
    rank = torch.arange(20, dtype=torch.float32)
    whole = its.by_ranks(rank)
    monkeypatch.setattr(module, "TESTED", 3)
    parts = its.by_ranks(rank)
    assert {k: v.item() for k, v in parts.metrics.items()} == pytest.approx(
        {k: v.item() for k, v in whole.metrics.items()}, abs=1e-12
    )
    for name, each in whole.each_user.items():
        assert torch.equal(parts.each_user[name], each)


def test_nobody_is_tested() -> None:
    its = held_out([(0, 0)], [], 2)
    assert not len(its.tested)
    assert its.decided() == {}
