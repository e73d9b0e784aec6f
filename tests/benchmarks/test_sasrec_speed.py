"""Gradients of SASRec beside the plain per-client loop, on one core: `make benchmarks`.

Whole rounds are in test_untargeted_speed.
"""

from __future__ import annotations

import time
from typing import Any

import pytest
import torch
from sasrec_oracle import client_gradients

from fedbench.data import load_split
from fedbench.errors import DataError
from fedbench.federation.batch import Batch
from fedbench.federation.clients import TrainingRows, draw_negatives
from fedbench.federation.losses import Loss
from fedbench.federation.model import Histories
from fedbench.models import PublicParams
from fedbench.models.sasrec import SelfAttentiveSequentialRecommender
from fedbench.runs.run import keep_freed_memory

CLIENTS = 50
LEAST_RATIO = 1.5
"""Times that a round must be faster than the loop, on a busy machine too.

Not ten times: the loop pads nothing and its matrix products, most of the work of both, run at the same speed (100 GFLOP/s
on one core, about 35 ms of a round at the least).
"""


def build(dropout: float) -> tuple[SelfAttentiveSequentialRecommender, PublicParams, TrainingRows]:
    """The published model on ML-1M; the order of the rows does not matter for the time."""
    keep_freed_memory()  # as every run does
    torch.set_num_threads(1)
    try:
        split = load_split("ml-1m", "leave-one-out")
    except DataError as error:
        pytest.skip(str(error))
    user, item = torch.from_numpy(split.train.user), torch.from_numpy(split.train.item)
    g = torch.Generator().manual_seed(0)
    drawn = draw_negatives(user, item, split.num_users, split.num_items, 1, g)
    rows = TrainingRows.build(user, item, drawn, split.num_users, split.num_items, pairwise=True)
    model = SelfAttentiveSequentialRecommender(SelfAttentiveSequentialRecommender.Params(dropout=dropout))
    return model, model.init_params(split.num_items, g), rows


@pytest.mark.parametrize("gradients", ["total", "stacked"])
@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_a_round(benchmark: Any, dropout: float, gradients: str) -> None:
    """50 clients of ML-1M: 5,200 positions on average, d = 64, two blocks. Without dropout also the plain loop."""
    model, params, rows = build(dropout)
    clients = torch.randperm(len(rows.size), generator=torch.Generator().manual_seed(1))[:CLIENTS]
    batch = rows.select(clients)
    users = torch.zeros(CLIENTS, 0)
    stream = torch.Generator().manual_seed(2)

    def ours() -> None:
        step = model.local_step(params, users, batch, Loss("bpr"), stream)
        step.rows[0].sum(len(params.items))
        step.dense.stacked() if gradients == "stacked" else step.dense.total()

    benchmark.group = "round of 50 clients, sasrec, ml-1m"
    benchmark.pedantic(ours, rounds=10, warmup_rounds=2)
    if dropout:
        return
    begin = time.perf_counter()
    plain_round(model, params, batch)
    ratio = (time.perf_counter() - begin) / benchmark.stats.stats.median
    benchmark.extra_info["times faster than the plain loop"] = round(ratio, 1)
    print(f"\n{gradients}: {ratio:.1f} times faster than the plain loop")
    assert ratio > LEAST_RATIO


def plain_round(model: SelfAttentiveSequentialRecommender, params: PublicParams, batch: Batch) -> None:
    """One client after the other: sequences cut from the batch, autograd for each, gradients added up."""
    assert batch.pair_positive is not None
    assert batch.pair_negative is not None
    owner = batch.client[batch.pair_positive]
    positive, negative = batch.item[batch.pair_positive], batch.item[batch.pair_negative]
    items = torch.zeros_like(params.items)
    dense = {name: torch.zeros_like(value) for name, value in params.dense.items()}
    for client in range(len(batch.clients)):
        mine = owner == client
        by_item, by_name = client_gradients(model, params, positive[mine], negative[mine])
        items += by_item
        for name, value in by_name.items():
            dense[name] += value


def test_representations_of_all_users(benchmark: Any) -> None:
    """What an evaluation needs before it scores: 6,040 histories."""
    model, params, rows = build(0.0)
    assert rows.pair_starts is not None
    assert rows.pair_positive is not None
    owner = torch.repeat_interleave(rows.pair_starts.diff())
    item = rows.item[rows.pair_positive + rows.starts[owner]]
    histories = Histories(rows.pair_starts, item)
    users = torch.zeros(len(rows.size), 0)
    benchmark.group = "representations, sasrec, ml-1m"
    benchmark.pedantic(model.represent, args=(params, users, histories), rounds=2, warmup_rounds=0)
