"""The attacks without knowledge inside the engine: on both models, for both kinds of clients."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from federations import small_federation, small_task

from fedbench.attacks import ATTACKS

SMALL: dict[str, dict[str, Any]] = {
    "explicit-boost": {"negatives": 2},
    "a-ra": {},
    "a-hum": {},
    "poisonfrs": {"wait_rounds": 0, "items_per_client": 6},
    "psmu": {"profile_size": 6, "fit_steps": 5},
}


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("model", ["mf", "ncf"])
@pytest.mark.parametrize("malicious_clients", ["injected", "compromised"])
def test_the_targets_move_as_soon_as_the_attack_starts(name: str, model: str, malicious_clients: str) -> None:
    cls = ATTACKS.get(name)
    task = small_task(num_malicious=5, targets=(7, 3))  # cohorts of 8 hold from none to several of the five
    early, late = (
        small_federation(
            model, cls(cls.Params(**SMALL[name])), task=task, malicious_clients=malicious_clients, attack_start=start
        )
        for start in (2, 99)
    )
    for epoch in (1, 2):
        early.train_epoch()
        late.train_epoch()
        early.check_finite()
        moved = (early.params.items[[7, 3]] != late.params.items[[7, 3]]).any(dim=1)
        assert moved.tolist() == [epoch == 2] * 2


@pytest.mark.parametrize("name", SMALL)
def test_equal_seeds_give_equal_runs(name: str) -> None:
    cls = ATTACKS.get(name)
    runs = [small_federation("ncf", cls(cls.Params(**SMALL[name])), num_malicious=3) for _ in range(2)]
    for federation in runs:
        federation.train_epoch()
    assert torch.equal(runs[0].params.items, runs[1].params.items)
    assert torch.equal(runs[0].params.dense["W1"], runs[1].params.dense["W1"])
