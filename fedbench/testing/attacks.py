"""The contract of an attack, as checks that anyone can run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from fedbench.entries.cards import Goal, Knowledge
from fedbench.errors import Diverged
from fedbench.federation.attack import Attack
from fedbench.federation.simulation import Federation
from fedbench.isolation.attack import RemoteAttack
from fedbench.models import MODELS
from fedbench.testing.federations import small_federation, small_task, tried_models
from fedbench.testing.finding import (
    Budget,
    Finding,
    Trials,
    check_identity,
    check_memory,
    check_repeats,
    check_time,
    measured,
    source_file,
)
from fedbench.testing.showing import seeing, shown
from fedbench.testing.watching import OWN_DATA, Notes, WatchedAttack
from fedbench.texts import count
from fedbench.threads import threads

USERS, ITEMS = 60, 200
TARGETS = (7, 31, 150)
EPOCHS = 2
ROUNDS = 3
"""So many are timed; the quickest counts, as other work on the machine only adds."""
WHOLE = 10
"""Epochs of the federation that must not diverge."""


@dataclass(frozen=True)
class Case:
    """A small federation in which an attack is tried."""

    name: str
    model: str
    clients: str
    malicious: int = 4
    targets: int = 1
    protocol: dict[str, Any] = field(default_factory=dict)


def check_attack(cls: type[Attack], budget: Budget | None = None, models: list[str] | None = None) -> Iterator[Finding]:
    """Every check of an attack, one after the other.

    It is tried with its default parameters in small federations: on each model and with each way to have clients that its
    card declares (models of logits alone only where it names them), with one malicious client and with many, with one
    target and several (none for an attack that degrades). All the while it is watched: what it asks for, changes, draws
    and uploads.

    Args:
        cls: the attack's class; it need not be registered. budget: of time and memory.
        models: names of models to try instead of all that the card declares.
    """
    findings = list(check_identity("attack", cls))
    yield from findings
    if cls.card.goal == Goal.NONE or not all(each.ok for each in findings):
        return
    trials, notes = Trials(source_file(cls)), Notes()
    cases = list(_cases(cls, models))
    for case in cases:
        with trials.trial(case.name) as trial:
            _train(_federation(cls, case, notes), EPOCHS)
        yield trials.ran(trial, "Correct the error; `fedbench show` lists what the view grants to this card.")
    yield from _check_behaviour(cls, cases[0], trials, notes)
    yield _check_whole(cls, cases[0], trials)
    yield from _check_cost(cls, cases[0], trials, budget or Budget())


def _cases(cls: type[Attack], models: list[str] | None) -> Iterator[Case]:
    card = cls.card
    some = 0 if card.goal == Goal.DEGRADE else 1
    declared = tried_models(card.models)
    declared = [name for name in declared if not (card.invents_users and MODELS.get(name).reads_sequences)]
    declared = seeing(declared, card.channel.shows_images)
    declared = [name for name in declared if models is None or name in models] or declared[:1]
    for name in declared:
        for clients in sorted(card.clients, reverse=True):
            yield Case(f"runs on {name}, {clients} clients", name, clients, targets=some)
    first, clients = declared[0], max(card.clients)
    yield Case("one malicious client", first, clients, malicious=1, targets=some)
    everybody = {"clients_per_round": 2 * USERS}
    yield Case("many malicious clients", first, clients, malicious=USERS - 10, targets=some, protocol=everybody)
    if some:
        yield Case("several targets", first, clients, targets=len(TARGETS))


def _federation(cls: type[Attack], case: Case, notes: Notes | None, seed: int = 0, **task: int) -> Federation:
    attack = cls(cls.Params())
    size = {"num_users": USERS, "num_items": ITEMS, "num_malicious": case.malicious} | task
    return small_federation(
        case.model,
        attack if notes is None else WatchedAttack.of(attack, notes),
        task=small_task(**size, targets=TARGETS[: case.targets]),
        seed=seed,
        **(_protocol(cls, case) | case.protocol),
    )


def _protocol(cls: type[Attack], case: Case) -> dict[str, Any]:
    """As in the protocols where such attacks are run: aaai23 for those that degrade, else icde24 or wsdm22."""
    values: dict[str, Any] = {"malicious_clients": case.clients, "learning_rate": 0.1}
    if case.clients == "compromised" and cls.card.goal == Goal.DEGRADE:
        values |= {"loss": "bpr", "aggregation": "weighted", "regularization": 1e-5, "regularized": "all"}
        if not MODELS.get(case.model).personal:  # those need plain descent
            values |= {"server_optimizer": "adam", "user_optimizer": "adam", "learning_rate": 0.01}
    elif case.clients == "compromised":
        values["aggregation"] = "mean"
    if MODELS.get(case.model).reads_sequences:
        values["loss"] = "bpr"
    return values


def _train(federation: Federation, epochs: int) -> None:
    for _ in range(epochs):
        federation.train_epoch()


def _check_behaviour(cls: type[Attack], case: Case, trials: Trials, notes: Notes) -> Iterator[Finding]:
    yield trials.kept(
        "threat model",
        f"asked for nothing that the card does not declare ({', '.join(sorted(cls.card.knowledge)) or 'nothing'})",
        "Declare the knowledge on the card (it stands beside the attack's name on the leaderboard), or do without.",
    )
    if Knowledge.OWN_DATA in cls.card.knowledge:
        yield trials.kept(
            OWN_DATA,
            "its clients have data wherever it asks for them",
            "Override profiles(): `return random_profiles(view, 30)` gives injected users 30 items each. Or have real users"
            ' alone, who have data: clients=frozenset({"compromised"}) on the card, malicious_clients = "compromised" in'
            " the protocol.",
        )
    unused = sorted(cls.card.knowledge - notes.used)
    if unused and not trials.broken:
        yield Finding(
            "declared knowledge",
            "warning",
            f"declared and not used with default parameters: {', '.join(unused)}",
            "Take it off the card unless other parameters need it: an attack that knows less ranks beside weaker ones.",
        )
    yield trials.kept(
        "shapes",
        "uploads are of the sampled clients, items in range, float32",
        "target_updates(view, rows) makes the usual upload; `Updates` says the shapes.",
    )
    if cls.card.channel.shows_images:
        yield from shown(trials, notes.images)
    yield trials.kept(
        "finite",
        "no NaN or infinite number in an upload",
        "Look for a division by a norm or a count that can be 0, a logarithm of 0, or a step that grows without bound.",
    )
    yield trials.kept(
        "inputs unchanged",
        "what the view hands out stays as it is",
        "Work on a copy: value.clone(), value.detach(), a + b instead of a += b.",
    )
    yield trials.generators_kept()
    yield from _check_deterministic(cls, case, trials)


def _check_deterministic(cls: type[Attack], case: Case, trials: Trials) -> Iterator[Finding]:
    if trials.broken:
        yield Finding("deterministic", "skipped", "not every run came to an end")
        return

    def uploads(count: int) -> list[torch.Tensor]:
        notes = Notes()
        tried = type(cls.__name__, (cls,), {"threads": count}) if issubclass(cls, RemoteAttack) else cls
        with Trials(trials.file).trial("again, with the same seed"), threads(count):
            _train(_federation(tried, case, notes), EPOCHS)
        return notes.uploads

    todo = "Draw from view.generator only, keep nothing in the class or the module, and rely on no order of a set."
    yield from check_repeats(
        uploads,
        "the same seed gives the same uploads, bit for bit",
        "two runs with the same seed uploaded different numbers",
        todo,
    )


def _check_whole(cls: type[Attack], case: Case, trials: Trials) -> Finding:
    name = "whole federation"
    if trials.broken:
        return Finding(name, "skipped", "not every run came to an end")
    federation = _federation(cls, case, None)
    todo = "Bound the upload, for example by the norm of an honest one: a run that diverges is ranked as such."
    try:
        for _ in range(WHOLE):
            _train(federation, 1)
            federation.check_finite()
    except Diverged as error:
        return Finding(name, "failed", str(error), todo)
    if federation.refused:
        what = f"the server refused {count(federation.refused, 'upload')} in {WHOLE} epochs: not finite, or too long"
        return Finding(name, "failed", what, todo)
    return Finding(name, "ok", f"{WHOLE} epochs on {case.model} without diverging")


def _check_cost(cls: type[Attack], case: Case, trials: Trials, budget: Budget) -> Iterator[Finding]:
    if trials.broken:
        yield from (Finding(name, "skipped", "not every run came to an end") for name in ("time", "memory"))
        return
    everybody = replace(case, protocol=case.protocol | {"clients_per_round": 315})
    federation = _federation(cls, everybody, None, num_users=300, num_items=600, num_malicious=15)
    own, honest = [], []

    def one_round() -> None:
        before = federation.seconds.attack, federation.seconds.train
        federation.train_epoch()
        own.append(federation.seconds.attack - before[0])
        honest.append(federation.seconds.train - before[1])

    attack = federation.adversary.attack if federation.adversary else None
    _, extra = measured(one_round, ROUNDS, attack.peak if isinstance(attack, RemoteAttack) else None)
    yield check_time(min(own), min(honest), budget, "for 15 clients a round")
    yield check_memory(extra, budget)
