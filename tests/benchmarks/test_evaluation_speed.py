"""Evaluation beside the plain user-by-user one, in one run on one core: `make benchmarks`.

Everything that an evaluation of a leave-one-out split gives: exposure of one target at four cutoffs, and HR and NDCG
both against 99 negatives and by full ranking. The plain one makes a top-k list for each user and metric, and samples.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from oracles import Client, evaluate_one_by_one

from fedbench.data import Split, load_split
from fedbench.errors import DataError
from fedbench.evaluation.evaluator import EvaluationSettings, Evaluator
from fedbench.models import MODELS, PublicParams, Recommender
from fedbench.runs.run import keep_freed_memory

TARGET = 467
TARGET_SECONDS = {"100k": 0.010, "1m": 0.060}
PATIENCE = 3
"""A slower machine may take so many times the target before the benchmark fails."""


def load(dataset: str, split: str = "leave-one-out") -> Split:
    try:
        return load_split(dataset, split)
    except DataError as error:
        pytest.skip(str(error))


def evaluator_of(split: Split) -> Evaluator:
    return Evaluator(
        num_users=split.num_users,
        num_items=split.num_items,
        train_user=torch.from_numpy(split.train.user),
        train_item=torch.from_numpy(split.train.item),
        test_user=torch.from_numpy(split.test.user),
        test_item=torch.from_numpy(split.test.item),
        targets=torch.tensor([TARGET]),
        evaluated_users=torch.arange(split.num_users),
        settings=EvaluationSettings(),
        device=torch.device("cpu"),
    )


def model_of(name: str, split: Split) -> tuple[Recommender, PublicParams, torch.Tensor]:
    cls = MODELS.get(name)
    model = cls(cls.Params.model_validate({"init_std": 0.3}))
    g = torch.Generator().manual_seed(0)
    return model, model.init_params(split.num_items, g), model.init_users(split.num_users, g)


@pytest.mark.parametrize("dataset", ["longtail-100k", "ml-100k", "longtail-1m", "ml-1m"])
def test_evaluation_of_mf(benchmark: Any, dataset: str) -> None:
    """Targets on one core: 10 ms with 943 users and 1,682 items, 60 ms with 6,040 and 3,706."""
    keep_freed_memory()  # as a run does
    split = load(dataset)
    evaluator, (model, params, users) = evaluator_of(split), model_of("mf", split)
    benchmark.group = f"evaluation, mf, {dataset}"
    found = benchmark(evaluator, model, params, users)
    target = TARGET_SECONDS[dataset.rpartition("-")[2]]
    benchmark.extra_info |= {"target_seconds": target, **found}
    assert benchmark.stats.stats.min <= PATIENCE * target


@pytest.mark.parametrize("dataset", ["longtail-100k", "ml-100k"])
def test_plain_evaluation_of_mf(benchmark: Any, dataset: str) -> None:
    """The plain evaluation of the same model, whose results must be those of the batched one."""
    split = load(dataset)
    evaluator, (model, params, users) = evaluator_of(split), model_of("mf", split)
    user, item = torch.from_numpy(split.train.user), torch.from_numpy(split.train.item)
    held_out = dict(zip(split.test.user.tolist(), split.test.item.tolist(), strict=True))
    tested = sorted(held_out)
    assert len(tested) == split.num_users
    none = torch.empty(0)
    clients = [Client(users[u], none, none) for u in tested]
    train = [item[user == u] for u in tested]
    test = [held_out[u] for u in tested]
    stream = torch.Generator().manual_seed(0)
    benchmark.group = f"evaluation, mf, {dataset}"
    plain = benchmark.pedantic(
        evaluate_one_by_one, (model, params, clients, train, test, TARGET, stream), rounds=3, warmup_rounds=1
    )
    ours = evaluator(model, params, users)
    assert plain.keys() == ours.keys()
    for name, value in plain.items():
        sampled = name.startswith(("hr_", "ndcg_")) and "full" not in name
        assert value == pytest.approx(ours[name], abs=0.05 if sampled else 2 / split.num_users)


@pytest.mark.parametrize("dataset", ["longtail-100k", "ml-100k"])
def test_evaluation_of_ncf(benchmark: Any, dataset: str) -> None:
    """A perceptron for each pair of user and item: nearly all the time is the model's."""
    keep_freed_memory()
    split = load(dataset)
    evaluator, (model, params, users) = evaluator_of(split), model_of("ncf", split)
    benchmark.group = f"evaluation, ncf, {dataset}"
    found = benchmark(evaluator, model, params, users)
    assert 0 < found["hr_10"] < 1


@pytest.mark.parametrize("dataset", ["longtail-1m", "ml-1m"])
def test_evaluation_of_lists(benchmark: Any, dataset: str) -> None:
    """Several held-out items of each user: top-20 lists, and ranks of a fifth of all interactions."""
    keep_freed_memory()
    split = load(dataset, "4:1")
    evaluator, (model, params, users) = evaluator_of(split), model_of("mf", split)
    benchmark.group = f"evaluation of top-20 lists, mf, {dataset}"
    found = benchmark(evaluator, model, params, users)
    assert 0 < found["recall_20"] < 1
