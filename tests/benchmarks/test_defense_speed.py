"""Robust rules beside the published loops' figures and beside the plain oracles, on one core: `make benchmarks`.

Each test notes its ratio in the table's extra columns (``--benchmark-json`` keeps them) and prints it.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from robust_oracles import RULES, by_client, by_item

from fedbench.data import load_split
from fedbench.defenses import DEFENSES
from fedbench.errors import DataError
from fedbench.federation.defense import ServerView
from fedbench.federation.population import Task
from fedbench.federation.simulation import Federation
from fedbench.federation.updates import Updates, concat
from fedbench.runs.run import keep_freed_memory
from fedbench.runs.task import count_malicious
from fedbench.scenarios.scenario import Scenario

PUBLISHED = {"median": 6.5, "trimmed-mean": 9.2, "multi-krum": 16.0, "krum": 30.0, "bulyan": 30.0}
"""Seconds of the authors' code for an epoch of 990 clients, MF on ML-100K, one core, training and evaluation."""
EVERY = 20
"""The oracle gets one of so many items."""
FEW = 48
"""Clients of the round on which Bulyan in client scope is compared: its oracle takes n^3 distances of M d coordinates."""
RATIO = 0.05


def build(
    defense: str,
    dataset: str = "ml-100k",
    model: str = "mf",
    keep_freed: bool = True,
    attack: str = "pieck-uea",
    **params: Any,
) -> Federation:
    """A federation under attack: 943 honest and 47 malicious clients on ML-100K."""
    if keep_freed:
        keep_freed_memory()  # as every run does
    torch.set_num_threads(1)
    scenario = Scenario(dataset, model, attack, defense, RATIO, defense_params=params)
    r = scenario.resolved
    try:
        split = load_split(dataset, r.protocol.split)
    except DataError as error:
        pytest.skip(str(error))
    user, item = torch.from_numpy(split.train.user), torch.from_numpy(split.train.item)
    malicious = count_malicious(split.num_users, RATIO)
    task = Task(split.num_users, split.num_items, user, item, torch.tensor([467]), malicious)
    federation = Federation(task, r.model, r.attack(), r.defense(), RATIO, r.protocol, 0)
    federation.train_epoch()  # the attack has to mine first
    return federation


def received(federation: Federation) -> tuple[Updates, ServerView]:
    """What the server receives in one round, and its view."""
    federation.epoch += 1
    cohort = next(c for c in federation.population.cohorts(federation.epoch) if len(c.malicious))
    view = replace(federation.server_view(), malicious_ratio=RATIO)
    honest = federation.training.honest_updates(federation.population.rows, cohort.honest, federation.defense, view)
    assert federation.adversary is not None
    return concat([honest, federation.adversary.updates(cohort.malicious, honest, federation.epoch, 0)]), view


@pytest.mark.parametrize("name", ["median", "norm-bound"])
def test_an_epoch_under_an_attack_that_simulates_the_defense(benchmark: Any, name: str) -> None:
    """Every round ten runs of the rule on as many clients as a real one has, and their honest steps."""
    fixed, begin = build(name), time.perf_counter()
    for _ in range(3):
        fixed.train_epoch()
    without = (time.perf_counter() - begin) / 3
    federation = build(name, attack="adaptive")
    benchmark.group = "epoch of 990 clients, mf, ml-100k, adaptive"
    benchmark.pedantic(federation.train_epoch, rounds=3, warmup_rounds=1)
    ratio = benchmark.stats.stats.median / without
    benchmark.extra_info["times as long as under the attack itself"] = round(ratio, 1)
    print(f"\n{name}: {ratio:.1f} times as long as under the attack itself")
    assert ratio < 30


@pytest.mark.parametrize("scope", ["item", "client"])
@pytest.mark.parametrize(
    "name", ["median", "trimmed-mean", "krum", "multi-krum", "bulyan", "rfa", "foolsgold", "dnc", "mixed"]
)
def test_an_epoch_of_990_clients(benchmark: Any, name: str, scope: str) -> None:
    """Training with the defense. Target in item scope: 100 times the published loops."""
    federation = build(name, scope=scope)
    benchmark.group = f"epoch of 990 clients, mf, ml-100k, {scope} scope"
    benchmark.pedantic(federation.train_epoch, rounds=5, warmup_rounds=1)
    if name in PUBLISHED and scope == "item":
        ratio = PUBLISHED[name] / benchmark.stats.stats.median
        benchmark.extra_info["times faster than the published loop"] = round(ratio)
        print(f"\n{name}: {ratio:.0f} times faster than the published loop")


@pytest.mark.parametrize(
    "name",
    [
        "centered-clipping",
        "flame",
        "nnm+median",
        "nnm+rfa",
        "bucketing+krum",
        "hics",
        "norm-bound",
        "pieck-regularizer",
        "fl-wbc",
        "union",
    ],
)
def test_an_epoch_of_990_clients_with_other_defenses(benchmark: Any, name: str) -> None:
    """Training with the defense."""
    federation = build(name)
    benchmark.group = "epoch of 990 clients, mf, ml-100k, other defenses"
    benchmark.pedantic(federation.train_epoch, rounds=5, warmup_rounds=1)


@pytest.mark.parametrize("scope", ["item", "client"])
@pytest.mark.parametrize(
    "name", ["median", "trimmed-mean", "krum", "multi-krum", "bulyan", "rfa", "foolsgold", "dnc", "mixed"]
)
def test_a_round_beside_the_oracle(benchmark: Any, name: str, scope: str) -> None:
    """The rule alone. Target: 100 times the oracle.

    Item scope: a whole round of 256 clients for us, every 20th item for
    the oracle, its time multiplied by 20. Client scope: the same round for both, of 48 clients for Bulyan.
    """
    federation = build("none")
    updates, view = received(federation)
    num_items, size = view.params.items.shape
    if scope == "client" and name == "bulyan":
        last = len(updates.clients) - FEW
        updates = updates.keep(torch.arange(len(updates.clients)) >= last)
    cls = DEFENSES.get(name)
    rule = cls(cls.Params(scope=scope))
    benchmark.group = f"one round, mf, ml-100k, {scope} scope, the rule alone"
    benchmark.pedantic(rule.aggregate, args=(updates, view), rounds=5, warmup_rounds=1)

    oracle = RULES[name, {"trimmed-mean": "ends"}.get(name, "definition" if (name, "definition") in RULES else "")]
    parts = 1
    if scope == "item":
        rows = updates.all_rows()
        order = torch.argsort(torch.bincount(rows.item, minlength=num_items))
        chosen = torch.zeros(num_items, dtype=torch.bool)
        chosen[order[EVERY // 2 :: EVERY]] = True
        updates = replace(updates, rows=(rows.take(chosen[rows.item].nonzero().squeeze(1)),))
        parts = EVERY
    begin = time.perf_counter()
    (by_item if scope == "item" else by_client)(updates, num_items, size, RATIO, oracle)
    seconds = (time.perf_counter() - begin) * parts
    ratio = seconds / benchmark.stats.stats.median
    benchmark.extra_info |= {"oracle, seconds": round(seconds, 3), "times faster than the oracle": round(ratio)}
    print(f"\n{name}, {scope} scope: oracle {seconds:.2f} s, {ratio:.0f} times")


@pytest.mark.parametrize(("dataset", "model"), [("amazon-music", "mf"), ("ml-1m", "mf"), ("ml-1m", "ncf")])
@pytest.mark.parametrize("name", ["median", "krum", "bulyan"])
def test_memory_of_large_rounds(benchmark: Any, dataset: str, model: str, name: str) -> None:
    """Rounds of amazon-music (1,024 clients) and ml-1m (256): time, and the most memory that tensors took at once."""
    updates, view = received(build("none", dataset, model))
    benchmark.group = f"one round, {model}, {dataset}, item scope"
    cls = DEFENSES.get(name)
    rule = cls(cls.Params(scope="item"))
    benchmark.pedantic(rule.aggregate, args=(updates, view), rounds=3, warmup_rounds=1)
    for scope in ("item", "client"):
        # A process of its own, which gives freed memory back.
        with multiprocessing.get_context("spawn").Pool(1) as fresh:
            taken = fresh.apply(_memory, (name, scope, dataset, model))
        benchmark.extra_info[f"{scope} scope, MiB more"] = taken
        assert 0 < taken < 256, f"{name} took {taken} MiB more in {scope} scope"
    print(f"\n{name}, {dataset}, {model}: {benchmark.extra_info}")


def _memory(name: str, scope: str, dataset: str, model: str) -> int:
    """MiB by which one aggregation raises the resident memory of its process at its highest (Linux)."""
    updates, view = received(build("none", dataset, model, keep_freed=False))
    cls = DEFENSES.get(name)
    rule = cls(cls.Params(scope=scope))
    ctypes.CDLL(None).malloc_trim(0)  # what the set-up freed must not hide what the rule takes
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew
    before = _resident("VmRSS")
    rule.aggregate(updates, view)
    return (_resident("VmHWM") - before) // 1024


def _resident(field: str) -> int:
    """KiB, from the process's status."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{field}:"))
    return int(line.split()[1])
