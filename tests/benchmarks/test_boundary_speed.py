"""What the boundary around attacks costs, in this process and with a process of its own: `make benchmarks`.

Every ratio is of two times of one test, taken in turns, so it can be judged on any machine.
"""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from entry_source import source_of

from fedbench.attacks import ATTACKS
from fedbench.data import load_split
from fedbench.defenses import DEFENSES
from fedbench.entries.cards import Knowledge
from fedbench.errors import DataError
from fedbench.federation.adversary import Adversary
from fedbench.federation.modes import Modes
from fedbench.federation.rows import Rows, copied
from fedbench.federation.simulation import Federation
from fedbench.federation.updates import DenseGradients, Updates
from fedbench.federation.view import RoundState
from fedbench.isolation.entries import isolated_class
from fedbench.isolation.limits import Limits
from fedbench.isolation.nursery import close
from fedbench.runs.run import keep_freed_memory
from fedbench.runs.task import task_of
from fedbench.scenarios.scenario import Scenario

EPOCHS = 25
CHECKS = 0.05
"""The share of a round that copies and checks are to take; where :class:`Least` takes more, none can."""
MOST = {"label-flip": 0.25}
"""At which the benchmark fails: label-flip is lent copies of all that its clients train on, twice; the others 0.15, since a
busy machine finds nothing in its caches."""
ISOLATION = 2.0
"""The times that a round may take with an entry in a process of its own."""


class Unguarded(Adversary):
    """Hands an attack the engine's own objects, and takes what it returns as it is."""

    least = False

    def updates(self, index: torch.Tensor, honest: Updates, epoch: int, number: int) -> Updates:
        population, training = self._population, self._training
        own = self.fakes if population.injected else self._genuine()
        work = None if own is None else self._own_work(own, index)
        shown = honest.disclosed() if Knowledge.HONEST_UPDATES in self.card.knowledge else None
        params = self._copied(training.params) if self.least else training.params
        if self.least and work is not None:
            copied(work.batch())
        state = RoundState(params, index.to(population.device), epoch, number, work, shown)
        before = Modes.now() if self.least else None
        made = self.attack.craft(self.view.in_round(state))
        if before is not None:
            before.restore()
            looked_at(made)
        if training.moves_late and work is not None:
            work.settle()
        total = made.dense.total()  # which the server asks for, whoever has made it before
        dense = DenseGradients(lambda: total, made.dense.stacked, made.dense.weighted)
        clients = population.malicious[index].to(population.device)
        return Updates(clients, made.rows, dense, made.weights, made.common)


class Least(Unguarded):
    """The least that copies and looks: one operation for each array, without a rule, a message or an object.

    Parameters and training rows are copied, and so is what comes back, client by client, in both forms of the dense
    gradients; the least and the largest number of every array are read, and how torch computes.
    """

    least = True


def looked_at(made: Updates) -> None:
    parts = [part for block in made.rows for part in (block, *vars(block).values()) if isinstance(part, Rows)]
    arrays = [value for part in parts for value in vars(part).values() if isinstance(value, torch.Tensor)]
    for value in (*arrays, made.weights, *made.dense.stacked().values()):
        if value.numel():
            low, high = torch.aminmax(value.clone())
            assert float(low) <= float(high)


class Timed:
    """A federation's rounds, and the attacker's parts of them.

    Attributes:
        rounds, parts: seconds of this thread. passed: seconds, of rounds as well.
    """

    def __init__(self, federation: Federation) -> None:
        assert federation.adversary is not None
        self.federation = federation
        self.rounds: list[float] = []
        self.parts: list[float] = []
        self.passed: list[float] = []
        cohorts, updates = federation.population.cohorts, federation.adversary.updates

        def timed_updates(*given: Any) -> Updates:
            begin = time.thread_time()
            made = updates(*given)
            self.parts.append(time.thread_time() - begin)
            return made

        def timed_cohorts(epoch: int) -> Any:
            for cohort in cohorts(epoch):
                begin, passed = time.thread_time(), time.perf_counter()
                yield cohort
                self.rounds.append(time.thread_time() - begin)
                self.passed.append(time.perf_counter() - passed)

        federation.population.cohorts, federation.adversary.updates = timed_cohorts, timed_updates  # type: ignore[method-assign]

    def epoch(self) -> None:
        self.federation.train_epoch()
        # The last cohort of an epoch is a small one.
        for times in (self.rounds, self.parts, self.passed):
            times.pop()


def federation_of(dataset: str, model: str, attack: str, defense: str = "none") -> Federation:
    keep_freed_memory()  # as every run does
    target = "none" if attack == "label-flip" else "random:1"
    scenario = Scenario(dataset, model, attack, defense, 0.05, target=target)
    r = scenario.resolved
    try:
        split = load_split(dataset, r.protocol.split)
    except DataError as error:
        pytest.skip(str(error))
    task = task_of(scenario, split, torch.device("cpu"))
    return Federation(task, r.model, r.attack(), r.defense(), 0.05, r.protocol, 0)


def build(dataset: str, model: str, attack: str, adversary: type[Adversary]) -> Timed:
    federation = federation_of(dataset, model, attack)
    if adversary is not Adversary:
        fresh = type(federation.attack)(federation.attack.params)
        federation.adversary = adversary(fresh, federation.population, federation.training)
    return Timed(federation)


@pytest.mark.parametrize("dataset", ["longtail-100k", "ml-100k"])
@pytest.mark.parametrize("attack", ["explicit-boost", "a-hum", "label-flip", "pieck-uea", "poisonfrs"])
@pytest.mark.parametrize("model", ["mf", "ncf"])
def test_copies_and_checks(benchmark: Any, model: str, attack: str, dataset: str) -> None:
    """What they take of a round in which 5 % of the users are malicious."""
    guarded, least, unguarded = (build(dataset, model, attack, each) for each in (Adversary, Least, Unguarded))

    def all_three() -> None:
        for each in (guarded, least, unguarded):
            each.epoch()

    benchmark.group = f"three epochs, with the boundary, the least of it and without it, {model}, {dataset}"
    benchmark.pedantic(all_three, rounds=EPOCHS, warmup_rounds=2)
    cost, floor = ((min(each.parts) - min(unguarded.parts)) / min(unguarded.rounds) for each in (guarded, least))
    benchmark.extra_info["share of a round"], benchmark.extra_info["the least"] = round(cost, 3), round(floor, 3)
    print(f"\n{model}, {attack}, {dataset}: copies and checks take {cost:.1%} of a round, {floor:.1%} at least")
    assert cost <= MOST.get(attack, 3 * CHECKS)


@pytest.mark.parametrize(("kind", "name"), [("attack", "explicit-boost"), ("defense", "norm-bound")])
def test_a_process_of_its_own(benchmark: Any, kind: str, name: str) -> None:
    """What it takes to train with an entry of a file in a confined process, beside the same in this one."""
    registry: Any = {"attack": ATTACKS, "defense": DEFENSES}[kind]
    ours = registry.get(name)
    source = source_of(ours).encode()
    sha256 = hashlib.sha256(source).hexdigest()
    with registry.lent(name, type(ours.__name__, (ours,), {"__module__": __name__})):
        here = Timed(federation_of("ml-100k", "mf", "explicit-boost", "none" if kind == "attack" else name))
    cls = isolated_class(Path(f"{name}.py"), source, sha256, Limits(), kind)  # type: ignore[arg-type]
    with registry.lent(cls.card.name, cls):
        there = Timed(federation_of("ml-100k", "mf", "explicit-boost", "none" if kind == "attack" else name))

    def both() -> None:
        here.epoch()
        there.epoch()

    benchmark.group = f"two epochs of mf, ml-100k, with the {kind} in this process and in one of its own"
    benchmark.pedantic(both, rounds=EPOCHS, warmup_rounds=2)
    close()
    ratio = min(there.passed) / min(here.passed)
    benchmark.extra_info["times the time in this process"] = round(ratio, 2)
    print(f"\n{kind} {name}: isolated, a round takes {ratio:.2f} times as long")
    assert ratio <= ISOLATION
