"""What the boundary around attacks costs, in this process and with a process of its own: `make benchmarks`.

Every ratio is of two times of one test, taken in turns, so it can be judged on any machine.
"""

from __future__ import annotations

import time
from typing import Any

import pytest
import torch

from fedbench.data import load_split
from fedbench.entries.cards import Knowledge
from fedbench.errors import DataError
from fedbench.federation.adversary import Adversary
from fedbench.federation.simulation import Federation
from fedbench.federation.updates import DenseGradients, Updates
from fedbench.federation.view import RoundState
from fedbench.runs.run import keep_freed_memory
from fedbench.runs.task import task_of
from fedbench.scenarios.scenario import Scenario

EPOCHS = 25
CHECKS = 0.05
"""The share of a round that copies and checks are to take."""
PATIENCE = 3
"""So many times that on a busy machine, and of attacks that are lent all that their clients train on."""


class Unguarded(Adversary):
    """Hands an attack the engine's own objects, and takes what it returns as it is."""

    def updates(self, index: torch.Tensor, honest: Updates, epoch: int, number: int) -> Updates:
        population, training = self._population, self._training
        own = self.fakes if population.injected else self._genuine()
        work = None if own is None else self._own_work(own, index)
        shown = honest.disclosed() if Knowledge.HONEST_UPDATES in self.card.knowledge else None
        state = RoundState(training.params, index.to(population.device), epoch, number, work, shown)
        made = self.attack.craft(self.view.in_round(state))
        if training.moves_late and work is not None:
            work.settle()
        total = made.dense.total()  # which the server asks for, whoever has made it before
        dense = DenseGradients(lambda: total, made.dense.stacked, made.dense.weighted)
        clients = population.malicious[index].to(population.device)
        return Updates(clients, made.rows, dense, made.weights, made.common)


class Timed:
    """The quickest of a federation's rounds, and of the attacker's parts of them: seconds of this thread."""

    def __init__(self, federation: Federation) -> None:
        self.federation, self.rounds, self.parts = federation, [], []
        cohorts, updates = federation.population.cohorts, federation.adversary.updates

        def timed_updates(*given: Any) -> Updates:
            begin = time.thread_time()
            made = updates(*given)
            self.parts.append(time.thread_time() - begin)
            return made

        def timed_cohorts(epoch: int) -> Any:
            for cohort in cohorts(epoch):
                begin = time.thread_time()
                yield cohort
                self.rounds.append(time.thread_time() - begin)

        federation.population.cohorts, federation.adversary.updates = timed_cohorts, timed_updates  # type: ignore[method-assign]

    def epoch(self) -> None:
        self.federation.train_epoch()
        # The last cohort of an epoch is a small one.
        self.rounds.pop(), self.parts.pop()


def build(dataset: str, model: str, attack: str, guarded: bool) -> Timed:
    keep_freed_memory()  # as every run does
    scenario = Scenario(dataset, model, attack, "none", 0.05, target="none" if attack == "label-flip" else "random:1")
    r = scenario.resolved
    try:
        split = load_split(dataset, r.protocol.split)
    except DataError as error:
        pytest.skip(str(error))
    task = task_of(scenario, split, torch.device("cpu"))
    federation = Federation(task, r.model, r.attack(), r.defense(), 0.05, r.protocol, 0)
    if not guarded:
        federation.adversary = Unguarded(r.attack(), federation.population, federation.training)
    return Timed(federation)


@pytest.mark.parametrize("dataset", ["longtail-100k", "ml-100k"])
@pytest.mark.parametrize("attack", ["explicit-boost", "a-hum", "label-flip", "pieck-uea"])
@pytest.mark.parametrize("model", ["mf", "ncf"])
def test_copies_and_checks(benchmark: Any, model: str, attack: str, dataset: str) -> None:
    """What they take of a round in which 5 % of the users are malicious."""
    guarded, unguarded = (build(dataset, model, attack, each) for each in (True, False))

    def both() -> None:
        guarded.epoch()
        unguarded.epoch()

    benchmark.group = f"two epochs, with the boundary and without it, {model}, {dataset}"
    benchmark.pedantic(both, rounds=EPOCHS, warmup_rounds=2)
    cost = (min(guarded.parts) - min(unguarded.parts)) / min(unguarded.rounds)
    benchmark.extra_info["share of a round"] = round(cost, 3)
    print(f"\n{model}, {attack}, {dataset}: copies and checks take {cost:.1%} of a round")
    assert cost <= PATIENCE * CHECKS
