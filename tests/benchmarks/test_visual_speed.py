"""Models that look at images: epochs beside ncf's, rounds beside the plain per-client loop, on one core: `make benchmarks`.

As large as ML-1M, with random features of efficientnet-lite0's length.
"""

from __future__ import annotations

import itertools
import math
import time
from typing import Any

import pytest
import torch

from fedbench.attacks.none import NoAttack
from fedbench.data import load_split
from fedbench.defenses.none import NoDefense
from fedbench.entries.cards import NoParameters
from fedbench.federation.batch import Batch
from fedbench.federation.images import ItemImages
from fedbench.federation.losses import Loss
from fedbench.federation.model import PublicParams
from fedbench.federation.population import Task
from fedbench.federation.simulation import Federation
from fedbench.models import MODELS
from fedbench.models.perceptron import PerceptronRecommender
from fedbench.runs.run import keep_freed_memory
from fedbench.scenarios import protocols

DATASET, FEATURES, COHORT = "longtail-1m", 1280, 256
NAMES = ("ncf", "vncf", "lightgcn", "lightvgcn")
MOST = {"vncf": 2.0, "lightgcn": 2.0, "lightvgcn": 2.5}
"""Times as long as an epoch of ncf that one may take."""
LEAST_RATIO = {"total": 2.0, "stacked": 0.5}
"""Times that the gradients of a round must be faster than the loop, on a busy machine too.

The loop's matrix products are as large as ours; what a client's own gradient of E costs is writing and reading it.
"""


def build(name: str) -> Federation:
    keep_freed_memory()  # as every run does
    torch.set_num_threads(1)
    protocol = protocols.preset("tois", name, DATASET)
    split = load_split(DATASET, protocol.split)
    g = torch.Generator().manual_seed(0)
    features = 4 * torch.nn.functional.normalize(torch.randn(split.num_items, FEATURES, generator=g))
    images = ItemImages(torch.zeros(split.num_items, 3, 1, 1, dtype=torch.uint8), lambda pixels: features)
    user, item = torch.from_numpy(split.train.user), torch.from_numpy(split.train.item)
    task = Task(split.num_users, split.num_items, user, item, torch.tensor([0]), 0, images=images)
    cls = MODELS.get(name)
    model = cls(cls.Params(**protocols.method_preset("tois", "model", name, name, DATASET)))
    return Federation(task, model, NoAttack(NoParameters()), NoDefense(NoParameters()), 0.0, protocol, 0)


def test_epochs_beside_those_of_ncf(benchmark: Any) -> None:
    """One epoch of each model in turn, three times; of each the quickest counts."""
    federations = {name: build(name) for name in NAMES}
    taken: dict[str, list[float]] = {name: [] for name in NAMES}

    def one_of_each() -> None:
        for name, federation in federations.items():
            begin = time.perf_counter()
            federation.train_epoch()
            taken[name].append(time.perf_counter() - begin)

    benchmark.group = f"an epoch of each of {', '.join(NAMES)}, {DATASET}"
    benchmark.pedantic(one_of_each, rounds=3, warmup_rounds=1)
    seconds = {name: min(each[1:]) for name, each in taken.items()}
    ratios = {name: seconds[name] / seconds["ncf"] for name in MOST}
    benchmark.extra_info["seconds"] = {name: round(value, 2) for name, value in seconds.items()}
    benchmark.extra_info["times ncf"] = {name: round(value, 2) for name, value in ratios.items()}
    print(f"\nseconds an epoch: {benchmark.extra_info['seconds']}; times ncf's: {benchmark.extra_info['times ncf']}")
    assert {name for name in MOST if ratios[name] > MOST[name]} == set()


@pytest.mark.parametrize("gradients", ["total", "stacked"])
@pytest.mark.parametrize("name", NAMES[1:])
def test_a_round_beside_the_plain_loop(benchmark: Any, name: str, gradients: str) -> None:
    """The gradients of 256 clients; ``stacked`` makes one of E, [32, 1280], for each of them."""
    federation = build(name)
    model, params = federation.model, federation.params
    assert isinstance(model, PerceptronRecommender)
    clients = torch.randperm(federation.task.num_users, generator=torch.Generator().manual_seed(1))[:COHORT]
    batch, users = federation.population.rows.select(clients), federation.users[clients]

    def ours() -> None:
        step = model.local_step(params, users, batch, Loss())
        step.rows[0].sum(len(params.items))
        step.dense.stacked() if gradients == "stacked" else step.dense.total()

    benchmark.group = f"gradients of {COHORT} clients, {name}, {DATASET}"
    benchmark.pedantic(ours, rounds=5, warmup_rounds=1)
    begin = time.perf_counter()
    plain_round(model, params, users, batch)
    ratio = (time.perf_counter() - begin) / benchmark.stats.stats.median
    benchmark.extra_info["times faster than the plain loop"] = round(ratio, 1)
    print(f"\n{name}, {gradients}: {ratio:.1f} times faster than the plain loop")
    assert ratio > LEAST_RATIO[gradients]


def plain_round(model: PerceptronRecommender, params: PublicParams, users: torch.Tensor, batch: Batch) -> None:
    """One client after the other: its rows of all tables, autograd, gradients added up."""
    by_item = torch.zeros_like(params.items)
    by_name = {name: torch.zeros_like(value) for name, value in params.dense.items()}
    bounds = batch.starts.tolist()
    for i, (start, end) in enumerate(itertools.pairwise(bounds)):
        item, positive = batch.item[start:end], batch.positive[start:end] > 0
        rows, user = params.items[item].requires_grad_(), users[i].clone().requires_grad_()
        dense = {name: value.clone().requires_grad_() for name, value in params.dense.items()}
        shown, seen, parts = user, rows, []
        if params.features is not None:
            parts.append(params.features[item] @ dense["E"].T)
        if model.card.name.startswith("light"):
            share = 1 / math.sqrt(int(positive.sum()))
            leaves = rows + parts[0] if parts else rows
            shown = user + share * leaves[positive].sum(0)
            seen = rows + share * positive[:, None] * user
        a = torch.cat([shown.expand(len(item), -1), seen, *parts], dim=1)
        for layer in range(1, len(model.params.hidden) + 1):
            a = torch.relu(a @ dense[f"W{layer}"].T + dense[f"b{layer}"])
        logits = (a @ dense["h"].T + dense["bh"]).squeeze(1)
        weight = batch.weight[start:end]
        label = batch.positive[start:end] / weight
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, label, weight, reduction="sum")
        gradients = torch.autograd.grad(loss / weight.sum(), [rows, user, *dense.values()])
        by_item.index_add_(0, item, gradients[0])
        for name, value in zip(dense, gradients[2:], strict=True):
            by_name[name] += value
