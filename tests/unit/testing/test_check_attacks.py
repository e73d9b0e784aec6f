"""The contract of attacks: everything that comes along keeps it, and what breaks one rule fails that check alone."""

from __future__ import annotations

import contextlib
import inspect
import random
import sys
import time
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from pydantic import Field, create_model

from fedbench.attacks import ATTACKS, Attack
from fedbench.attacks.uploads import target_updates
from fedbench.entries.cards import AttackCard, Channel, Goal, Knowledge, Parameters
from fedbench.errors import ThreatModelViolation
from fedbench.federation.updates import DenseGradients, Updates
from fedbench.federation.view import AttackerView, Profiles
from fedbench.testing import Budget, Finding, check_attack, failures
from fedbench.testing.federations import tried_models

MB = 1 << 20


@pytest.mark.parametrize("name", ATTACKS.names())
def test_every_attack_that_comes_along_keeps_the_contract(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, few in (("WHOLE", 3), ("ROUNDS", 1)):
        monkeypatch.setattr(f"fedbench.testing.attacks.{number}", few)
    # One model here; tests/unit/attacks try the others.
    every = ["mf", "ncf", "sasrec", "lightvgcn"]  # the last has all that vncf and lightgcn have
    models = every if name in ("random", "label-flip", "explicit-boost") else ["mf"]
    assert failures(check_attack(quicker(ATTACKS.get(name)), Budget(times=1000, seconds=10), models)) == []


def quicker(cls: type[Attack]) -> type[Attack]:
    """The same with fewer steps of fits and repeats by default, which the contract does not depend on."""
    fits = ("fit_steps", "estimator_steps", "local_steps", "repeats")
    steps = {name: info for name, info in cls.Params.model_fields.items() if name in fits}
    if not steps:
        return cls
    few: Any = {name: (int, Field(5, description=info.description)) for name, info in steps.items()}
    params = create_model("Params", __base__=cls.Params, __doc__=cls.Params.__doc__, **few)
    doc = f"{inspect.getdoc(cls)}\n\nQuicker."
    return type(cls.__name__, (cls,), {"Params": params, "__module__": cls.__module__, "__doc__": doc})


class Good(Attack):
    """Pulls every target along a random direction."""

    card: ClassVar[AttackCard] = AttackCard("good", "Good", "nobody, 2024", Goal.PROMOTE, Channel.GRADIENT)

    class Params(Parameters):
        """Parameters."""

        step: float = Field(0.1, gt=0, description="length of the step [ours]")

    params: Params

    def craft(self, view: AttackerView) -> Updates:
        shape = (len(view.clients), len(view.targets), view.embedding_size)
        rows = torch.randn(shape, generator=view.generator) * self.params.step
        return self.changed(view, target_updates(view, rows))

    def changed(self, view: AttackerView, updates: Updates) -> Updates:
        return updates


def bad(change: Callable[[AttackerView, Updates], Updates | None], **on_card: Any) -> type[Good]:
    """An attack that does ``change`` in every round, and is good otherwise."""

    class Bad(Good):
        """A good attack but for one thing."""

        card: ClassVar[AttackCard] = AttackCard(
            **{
                "name": "bad",
                "title": "Bad",
                "paper": "nobody, 2024",
                "goal": Goal.PROMOTE,
                "channel": Channel.GRADIENT,
                **on_card,
            }
        )

        def changed(self, view: AttackerView, updates: Updates) -> Updates:
            return change(view, updates) or updates

    return Bad


def failed(cls: type[Attack], budget: Budget | None = None, models: tuple[str, ...] = ("mf",)) -> list[Finding]:
    return [each for each in check_attack(cls, budget, list(models)) if not each.ok]


def test_a_good_attack_passes_every_check() -> None:
    findings = list(check_attack(Good, Budget(seconds=10)))
    assert {each.status for each in findings} <= {"ok", "skipped"}
    assert [each.name for each in findings if each.status == "skipped"] in ([], ["memory"])
    assert {each.name for each in findings} == {
        *("card", "parameters", "one malicious client", "many malicious clients", "several targets", "threat model"),
        *("shapes", "finite", "inputs unchanged", "global random state", "deterministic", "whole federation"),
        *("time", "memory"),
        *(f"runs on {m}, {clients} clients" for m in tried_models(None) for clients in ("injected", "compromised")),
    }
    assert failures(findings) == []


def raising(when: Callable[[AttackerView], bool]) -> Callable[[AttackerView, Updates], None]:
    def change(view: AttackerView, updates: Updates) -> None:
        if when(view):
            raise ValueError("no such case")

    return change


def rows_with(value: float, dtype: torch.dtype = torch.float32) -> Callable[[AttackerView, Updates], Updates]:
    def change(view: AttackerView, updates: Updates) -> Updates:
        return target_updates(
            view, torch.full((len(view.clients), len(view.targets), view.embedding_size), value).to(dtype)
        )

    return change


def hidden(view: AttackerView, updates: Updates) -> None:
    with contextlib.suppress(ThreatModelViolation):
        _ = view.item_popularity


def renumbered(view: AttackerView, updates: Updates) -> Updates:
    return Updates(
        updates.clients, (updates.rows[0].renumbered(updates.rows[0].client + 1),), updates.dense, updates.weights
    )


def twice(view: AttackerView, updates: Updates) -> Updates:
    return Updates(updates.clients, updates.rows * 2, updates.dense, updates.weights)


def out_of_range(view: AttackerView, updates: Updates) -> Updates:
    rows = torch.zeros(len(view.clients), 1, view.embedding_size)
    return target_updates(view, rows, items=torch.tensor([view.num_items]))


def without_dense(view: AttackerView, updates: Updates) -> Updates:
    return Updates(updates.clients, updates.rows, DenseGradients.of({}), updates.weights)


def too_few(view: AttackerView, updates: Updates) -> Updates:
    return updates.keep(torch.arange(len(updates.clients)) > 0)


def weightless(view: AttackerView, updates: Updates) -> Updates:
    return Updates(updates.clients, updates.rows, updates.dense, torch.zeros_like(updates.weights))


def drawn_anew(view: AttackerView, updates: Updates) -> Updates:
    fresh = torch.Generator()
    fresh.seed()
    shape = (len(view.clients), len(view.targets), view.embedding_size)
    return target_updates(view, torch.randn(shape, generator=fresh))


def mutated(view: AttackerView, updates: Updates) -> None:
    view.params.items[view.targets] += 1


def marked(view: AttackerView, updates: Updates) -> None:
    view.params.items.requires_grad_()


def mutated_targets(view: AttackerView, updates: Updates) -> None:
    view.targets.numpy().sort()
    view.targets.numpy()[:] = 0


def mutated_batch(view: AttackerView, updates: Updates) -> None:
    view.own_batch.positive.zero_()


def overflowing(view: AttackerView, updates: Updates) -> Updates:
    return updates.scaled(updates.weights.new_full((len(view.clients),), 1e37))


OWN = {"knowledge": frozenset({Knowledge.OWN_DATA}), "clients": frozenset({"compromised"})}
POPULARITY = {"knowledge": frozenset({Knowledge.ITEM_POPULARITY})}
CASES: dict[str, tuple[str, type[Attack], str]] = {
    "title": ("card", bad(lambda *_: None, title=" "), "empty: title"),
    "paper": ("card", bad(lambda *_: None, paper=""), "empty: paper"),
    "goal": ("card", bad(lambda *_: None, goal="up"), "goal = 'up' must be a Goal"),
    "a case that it has not thought of": (
        "runs on ncf, injected clients",
        bad(raising(lambda v: "W1" in v.params.dense)),
        "no such case",
    ),
    "one": ("one malicious client", bad(raising(lambda v: v.num_malicious == 1)), "ValueError: no such case"),
    "many": ("many malicious clients", bad(raising(lambda v: v.num_malicious > 20)), "ValueError: no such case"),
    "targets": ("several targets", bad(raising(lambda v: len(v.targets) > 1)), "ValueError: no such case"),
    "undeclared": (
        "threat model",
        bad(lambda v, u: v.item_popularity and None),
        "asked for 'item_popularity' (knowledge 'item_popularity'), which the card does not declare",
    ),
    "undeclared and hidden": ("threat model", bad(hidden), "hid the refusal"),
    "unheard of": ("threat model", bad(lambda v, u: v.test_items and None), "'test_items', which no attacker is given"),
    "private": ("threat model", bad(lambda v, u: v._state and None), "'_state', which is private"),
    "double precision": ("shapes", bad(rows_with(0.1, torch.float64)), "float64"),
    "other client": ("shapes", bad(renumbered), "must be within 0 to"),
    "twice": ("shapes", bad(twice), "has a (client, item) twice"),
    "no such item": ("shapes", bad(out_of_range), "item goes from 200 to 200"),
    "no dense": ("shapes", bad(without_dense, models=frozenset({"ncf"})), "dense has nothing; the model has W1"),
    "too few": ("shapes", bad(too_few), "clients (one for each of view.clients"),
    "weights": ("shapes", bad(weightless), "weights must be positive"),
    "something else": ("shapes", bad(lambda v, u: "upload"), "returned str instead of Updates"),  # type: ignore[arg-type,return-value]
    "NaN": ("finite", bad(rows_with(float("nan"))), "rows[0] of an upload has NaN"),
    "infinite": ("finite", bad(rows_with(float("inf"))), "rows[0] of an upload has NaN or infinite"),
    "params": ("inputs unchanged", bad(mutated), "changed view.params.items in place"),
    "requires grad": ("inputs unchanged", bad(marked), "changed view.params.items in place"),
    "through NumPy": ("inputs unchanged", bad(mutated_targets), "changed view.targets in place"),
    "own batch": ("inputs unchanged", bad(mutated_batch, **OWN), "changed view.own_batch.positive in place"),
    "torch": ("global random state", bad(lambda v, u: torch.rand(1) and None), "generator of torch"),
    "numpy": ("global random state", bad(lambda v, u: np.random.rand() and None), "generator of numpy"),  # noqa: NPY002
    "random": ("global random state", bad(lambda v, u: random.random() and None), "generator of random"),
    "other generator": ("deterministic", bad(drawn_anew), "uploaded different numbers"),
    "overflowing": ("whole federation", bad(overflowing), "the server refused 40 uploads in 10 epochs"),
    "slow": ("time", bad(lambda v, u: time.sleep(0.05)), "at most"),
}


@pytest.mark.parametrize("case", CASES)
def test_what_breaks_one_rule_fails_that_check_alone(case: str) -> None:
    check, cls, what = CASES[case]
    models = ("mf", "ncf") if "ncf" in check or cls.card.models else ("mf",)
    budget = Budget(times=0, seconds=0.02) if check == "time" else Budget(times=1000, seconds=60)
    found = failed(cls, budget, models)
    assert {each.name.partition(",")[0] for each in found} == {check.partition(",")[0]}, found
    assert what in found[0].what
    assert found[0].todo
    assert "\n" not in found[0].what


def test_parameters_need_a_default_and_a_description() -> None:
    class Silent(Good):
        """Says nothing of its parameter."""

        card: ClassVar[AttackCard] = Good.card

        class Params(Parameters):
            """Parameters."""

            step: float = 0.1

    class Required(Good):
        """Has no default."""

        card: ClassVar[AttackCard] = Good.card

        class Params(Parameters):
            """Parameters."""

            step: float = Field(description="length")

    assert [each.what for each in failed(Silent)] == ["without description: step"]
    assert [each.what for each in failed(Required)] == ["without default: step"]


def test_numbers_that_depend_on_threads_are_a_warning() -> None:
    def threaded(view: AttackerView, updates: Updates) -> Updates:
        return updates.scaled(updates.weights * 0 + 1 / torch.get_num_threads())

    before = torch.get_num_threads()
    found = list(check_attack(bad(threaded), Budget(times=1000, seconds=60), ["mf"]))
    assert failures(found) == []
    (warning,) = [each for each in found if each.status == "warning"]
    assert warning.name == "threads"
    assert "OMP_NUM_THREADS=1" in warning.todo
    assert torch.get_num_threads() == before
    rounded = bad(lambda v, u: u.scaled(u.weights * 0 + 1 + 1e-6 * torch.get_num_threads()))
    assert "threads" not in [each.name for each in check_attack(rounded, models=["mf"])]


def test_whoever_asks_for_own_data_and_makes_none_is_told_to_make_some() -> None:
    own: dict[str, Any] = {"knowledge": frozenset({Knowledge.OWN_DATA})}
    for ask in (lambda v, u: v.honest().updates, lambda v, u: u if len(v.own_data.item) else None):
        (found,) = failed(bad(ask, **own))
        assert found.name == "own data"
        assert "its clients are injected users, for whom profiles() has made no data" in found.what
        assert "Override profiles()" in found.todo
        assert 'malicious_clients = "compromised" in the protocol' in found.todo
        assert failed(bad(ask, **OWN), Budget(times=1000, seconds=60)) == []


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the peak of memory is measured on Linux")
def test_memory_is_bounded() -> None:
    def large(view: AttackerView, updates: Updates) -> None:
        if view.num_items > 300:
            torch.zeros(64 * MB // 4).fill_(1)

    (found,) = failed(bad(large), Budget(times=1000, seconds=60, bytes=16 * MB))
    assert found.name == "memory"
    assert failed(bad(large), Budget(times=1000, seconds=60, bytes=256 * MB)) == []


def test_knowledge_that_is_never_used_is_a_warning() -> None:
    findings = list(check_attack(bad(lambda *_: None, **POPULARITY), models=["mf"]))
    (warning,) = [each for each in findings if each.status == "warning"]
    assert warning.name == "declared knowledge"
    assert "item_popularity" in warning.what
    assert warning.ok
    used = bad(lambda v, u: u.scaled(u.weights * 0 + v.item_popularity.float().mean()), **POPULARITY)
    assert not [each for each in check_attack(used, models=["mf"]) if each.status == "warning"]


def test_profiles_are_pairs_of_a_malicious_client_and_an_item() -> None:
    def profiled(make: Callable[[AttackerView], Any]) -> type[Attack]:
        class Profiled(Attack):
            """Fake profiles."""

            card: ClassVar[AttackCard] = AttackCard(
                "fake", "Fake", "nobody", Goal.PROMOTE, Channel.PROFILE, clients=frozenset({"injected"})
            )

            def profiles(self, view: AttackerView) -> Profiles:
                return make(view)

        return Profiled

    def pairs(view: AttackerView) -> Profiles:
        return Profiles(torch.arange(view.num_malicious), view.targets[:1].repeat(view.num_malicious))

    assert failed(profiled(pairs), Budget(times=1000, seconds=60)) == []
    for make, what in {
        lambda view: None: "NoneType instead of Profiles",
        lambda view: Profiles(pairs(view).client + 1, pairs(view).item): "profiles().client goes from 1 to",
        lambda view: Profiles(pairs(view).client * 0, pairs(view).item): "has a (client, item) twice",
        lambda view: Profiles(pairs(view).client.int(), pairs(view).item): "torch.int32",
    }.items():
        found = failed(profiled(make))
        assert [each.name for each in found] == ["shapes"]
        assert what in found[0].what


def test_the_global_generators_are_as_before() -> None:
    before = torch.get_rng_state(), random.getstate()
    list(check_attack(Good, models=["mf"]))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
