"""The contracts of defenses, models and datasets: what comes along keeps them, what breaks one rule fails that check."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from fedbench.data import Dataset, DatasetCard
from fedbench.data.records import Interactions, Table
from fedbench.defenses import DEFENSES, Defense, ServerView
from fedbench.entries.cards import DefenseCard, DefenseFamily, ModelCard
from fedbench.errors import UserError
from fedbench.federation import server as plain
from fedbench.federation.updates import Updates
from fedbench.models import MODELS, LocalStep, PublicParams
from fedbench.models.autograd import AutogradRecommender
from fedbench.models.mf import MatrixFactorization
from fedbench.runs.run import keep_freed_memory
from fedbench.scenarios.scenario import Scenario
from fedbench.testing import Budget, Finding, check_dataset, check_defense, check_model, failures
from fedbench.testing.finding import Trials, measured
from fedbench.testing.learning import check_learning
from fedbench.vision.denoisers import DENOISERS
from fedbench.vision.denoisers.identity import IdentityDenoiser

MB = 1 << 20
AMPLE = Budget(times=1000, seconds=60)
TIGHT = Budget(times=0, seconds=0.02)
ON_LINUX = sys.platform.startswith("linux")


def assert_only(findings: list[Finding], check: str, what: str) -> None:
    """That the findings are failures of one check."""
    assert {each.name for each in findings} == {check}, findings
    assert what in findings[0].what, findings[0].what
    assert findings[0].todo


# --------------------------------------------------------------------------------------------------------- defenses


@pytest.mark.parametrize("name", DEFENSES.names())
def test_every_defense_that_comes_along_keeps_the_contract(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FEDBENCH_CACHE", str(tmp_path))
    every = ["mf", "ncf", "sasrec", "lightvgcn"]  # the last has all that vncf and lightgcn have
    models = every if name in ("norm-bound", "krum", "pieck-regularizer") else ["mf", "ncf"]
    with DENOISERS.lent("ddpm-small", IdentityDenoiser):  # the network would take minutes
        assert failures(check_defense(DEFENSES.get(name), AMPLE, models)) == []


def test_a_defense_that_needs_users_is_refused_where_there_are_none() -> None:
    with pytest.raises(UserError, match=r"'pieck-regularizer' does not apply to model 'sasrec', which has no emb"):
        _ = Scenario("longtail-small", "sasrec", defense="pieck-regularizer", protocol="aaai23").resolved


Aggregate = Callable[[Updates, ServerView, PublicParams], Any]


def defense(change: Aggregate, **card: Any) -> type[Defense]:
    """The plain sum, which ``change`` may replace."""

    class Bad(Defense):
        """A plain sum but for one thing."""

        def aggregate(self, updates: Updates, server: ServerView) -> PublicParams | None:
            total = plain.aggregate(updates.settled(), server.params, "sum")
            made = change(updates, server, total)
            return total if made is None else made

    Bad.card = DefenseCard(**{"name": "bad", "title": "Bad", "paper": "nobody", "family": DefenseFamily.FILTER, **card})
    return Bad


def times(params: PublicParams, factor: float) -> PublicParams:
    return PublicParams(params.items * factor, {name: value * factor for name, value in params.dense.items()})


def first_alone(updates: Updates, server: ServerView, total: PublicParams) -> PublicParams:
    return plain.aggregate(updates.keep(torch.arange(len(updates.clients)) == 0), server.params, "sum")


def noisy(updates: Updates, server: ServerView, total: PublicParams) -> PublicParams:
    fresh = torch.Generator()
    fresh.seed()
    return times(total, 1 + 1e-6 * float(torch.rand(1, generator=fresh)))


def sized(when: Callable[[int], bool]) -> Aggregate:
    def change(updates: Updates, server: ServerView, total: PublicParams) -> None:
        if when(len(updates.clients)):
            raise ValueError("no such number")

    return change


def in_place(updates: Updates, server: ServerView, total: PublicParams) -> None:
    updates.weights.add_(1)


DEFENSE_CASES: dict[str, tuple[str, type[Defense], str]] = {
    "paper": ("card", defense(lambda *_: None, paper=""), "empty: paper"),
    "error": ("runs on mf", defense(lambda u, s, t: 1 / 0 if s.round == 1 else None), "ZeroDivisionError"),
    "one": ("one client", defense(sized(lambda n: n == 1)), "no such number"),
    "many": ("many clients", defense(sized(lambda n: n == 40)), "no such number"),
    "order": ("order of clients", defense(first_alone), "another order of the clients"),
    "undeclared": ("threat model", defense(lambda u, s, t: times(t, s.malicious_ratio or 1)), "malicious_ratio, which"),
    "shape": ("shapes", defense(lambda u, s, t: PublicParams(t.items[1:], t.dense)), "gradient.items is torch.float32"),
    "type": ("shapes", defense(lambda u, s, t: t.items), "returned Tensor instead of PublicParams"),
    "names": ("shapes", defense(lambda u, s, t: PublicParams(t.items, {"x": t.items})), "gave dense gradients ['x']"),
    "NaN": ("finite", defense(lambda u, s, t: times(t, float("nan"))), "gradient.items has NaN"),
    "in place": ("inputs unchanged", defense(in_place), "aggregate() changed updates.weights in place"),
    "global": ("global random state", defense(lambda u, s, t: torch.rand(1) and None), "aggregate() moved the global"),
    "noise": ("deterministic", defense(noisy), "different parameters"),
    "collapse": ("without attackers", defense(lambda u, s, t: times(t, -3)), "share of pairs ranked right"),
    "slow": ("time", defense(lambda u, s, t: time.sleep(0.06)), "at most"),
}


@pytest.mark.parametrize("case", DEFENSE_CASES)
def test_a_defense_that_breaks_one_rule_fails_that_check_alone(case: str) -> None:
    check, cls, what = DEFENSE_CASES[case]
    found = [each for each in check_defense(cls, TIGHT if check == "time" else AMPLE, ["mf"]) if not each.ok]
    assert_only(found, check, what)


@pytest.mark.skipif(not ON_LINUX, reason="the peak of memory is measured on Linux")
def test_the_memory_of_a_defense_is_bounded() -> None:
    def large(updates: Updates, server: ServerView, total: PublicParams) -> None:
        if len(total.items) > 300:
            torch.zeros(64 * MB // 4).fill_(1)

    found = [each for each in check_defense(defense(large), Budget(1000, 60, 16 * MB), ["mf"]) if not each.ok]
    assert_only(found, "memory", "at most 16 MiB")


@pytest.mark.skipif(not ON_LINUX, reason="the peak of memory is measured on Linux")
def test_memory_is_seen_that_the_c_library_had_kept() -> None:
    """As in a process that has run federations before: what they freed is still resident."""
    keep_freed_memory()
    blocks = [torch.ones(MB // 4) for _ in range(300)]
    del blocks
    _, extra = measured(lambda: torch.zeros(64 * MB // 4).fill_(1))
    assert extra is not None
    assert extra > 48 * MB


def test_a_share_that_is_declared_and_not_used_is_a_warning() -> None:
    unused = defense(lambda *_: None, knowledge=frozenset({"malicious_ratio"}))
    assert [each.name for each in check_defense(unused, AMPLE, ["mf"]) if each.status == "warning"] == [
        "declared knowledge"
    ]
    assert not [each for each in check_defense(DEFENSES.get("krum"), AMPLE, ["mf"]) if each.status == "warning"]


# ----------------------------------------------------------------------------------------------------------- models


@pytest.mark.parametrize("name", MODELS.names())
def test_every_model_that_comes_along_keeps_the_contract(name: str) -> None:
    assert failures(check_model(MODELS.get(name), AMPLE)) == []


Step = Callable[[PublicParams, LocalStep], LocalStep | None]


class Good(MatrixFactorization):
    """Matrix factorisation."""

    card: ClassVar[ModelCard] = ModelCard("good", "Good", "nobody")


def model(step: Step | None = None, score: float = 1.0, init: bool = False, constant: bool = False) -> type[Good]:
    """Matrix factorisation but for one thing."""

    class Bad(Good):
        """Matrix factorisation but for one thing."""

        card: ClassVar[ModelCard] = Good.card

        def init_params(self, num_items: int, generator: torch.Generator) -> PublicParams:
            if init:
                generator = torch.Generator()
                generator.seed()
            return super().init_params(num_items, generator)

        def logits(self, dense: Mapping[str, torch.Tensor], users: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
            return super().logits(dense, users, items) * (0 if constant else 1)

        def score_all(self, params: PublicParams, users: torch.Tensor) -> torch.Tensor:
            return super().score_all(params, users) * (0 if constant else score)

        def local_step(
            self, params: PublicParams, users: Any, batch: Any, loss: Any, generator: Any = None
        ) -> LocalStep:
            local = super().local_step(params, users, batch, loss, generator)
            if constant:
                rows = tuple(block.scaled(torch.zeros(len(block.item))) for block in local.rows)
                return dataclasses.replace(local, rows=rows, users=local.users * 0)
            return (step(params, local) if step is not None else None) or local

    return Bad


def users_times(factor: float) -> Step:
    return lambda params, local: dataclasses.replace(local, users=local.users * factor)


def touched(params: PublicParams, local: LocalStep) -> None:
    params.items.add_(0)


MODEL_CASES: dict[str, tuple[str, type[Good], str]] = {
    "shape": ("shapes", model(lambda p, s: dataclasses.replace(s, users=s.users[:, 1:])), "local_step().users is"),
    "scores": ("scores", model(score=2.0), "score_all() and logits() give the same pair as different numbers"),
    "cohort": (
        "clients by themselves",
        model(lambda p, s: users_times(0.5)(p, s) if len(s.users) == 1 else None),
        "a cohort's step and a client's own",
    ),
    "gradient": ("gradients", model(users_times(2)), "automatic differentiation give the user's gradient"),
    "NaN": ("finite", model(lambda p, s: users_times(float("nan"))(p, s)), "NaN"),
    "in place": ("inputs unchanged", model(touched), "it changed params.items in place"),
    "global": (
        "global random state",
        model(lambda p, s: torch.rand(1) and None),
        "moved the global generator of torch",
    ),
    "init": ("deterministic", model(init=True), "different parameters"),
    "constant": ("training", model(constant=True), "0.00 before and 0.00 after"),
    "slow": ("time", model(lambda p, s: time.sleep(0.06)), "at most"),
}


@pytest.mark.parametrize("case", MODEL_CASES)
def test_a_model_that_breaks_one_rule_fails_that_check_alone(case: str) -> None:
    check, cls, what = MODEL_CASES[case]
    found = [each for each in check_model(cls, TIGHT if check == "time" else AMPLE) if not each.ok]
    assert {each.name.partition(",")[0] for each in found} == {check}, found
    assert what in found[0].what, found[0].what


def warned(cls: type[Good]) -> dict[str, Finding]:
    """The warnings of a model that passes its checks."""
    found = list(check_model(cls, AMPLE))
    assert failures(found) == []
    return {each.name: each for each in found if each.status == "warning"}


def test_a_model_that_does_not_learn_is_warned_of() -> None:
    class Timid(AutogradRecommender):
        """Scores next to nothing."""

        card: ClassVar[ModelCard] = ModelCard("timid", "Timid", "nobody")

        def logits(self, dense: Mapping[str, torch.Tensor], users: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
            return 1e-6 * (users * items).sum(-1)

    found = warned(Timid)["learning"]
    assert "after 200 epochs of icde24 on longtail-small; by popularity it is 0.39" in found.what
    assert "--set learning_rate=10 (or 0.1) or --set model.init_std=0.3" in found.todo


def test_a_model_much_slower_than_mf_is_told_what_to_write_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = warned(model(lambda p, s: time.sleep(0.02)))["speed"]
    assert " times as long as one of mf" in slow.what
    assert "local_step()" in slow.todo
    assert "score_all()" in slow.todo
    monkeypatch.setattr("fedbench.testing.models.SLOW", 1e6)
    assert "speed" not in warned(Good)


def test_models_that_come_along_learn() -> None:
    for name in ("mf", "ncf", "neumf", "lightgcn", "pfedrec"):
        found = check_learning(MODELS.get(name), Trials(""))
        assert found.status == "ok", found


def test_a_model_that_depends_on_threads_is_warned_of() -> None:
    class Threaded(Good):
        """Begins elsewhere with every number of threads."""

        card: ClassVar[ModelCard] = Good.card

        def init_params(self, num_items: int, generator: torch.Generator) -> PublicParams:
            return times(super().init_params(num_items, generator), torch.get_num_threads())

    assert "threads" in warned(Threaded)
    assert "threads" not in warned(Good)


# --------------------------------------------------------------------------------------------------------- datasets

USERS, ITEMS, LENGTH = 12, 15, 5


def pairs() -> tuple[Any, Any]:
    user = np.repeat(np.arange(USERS), LENGTH)
    return user, (user + np.tile(np.arange(LENGTH), USERS)) % ITEMS


CALLS = iter(range(1000))


def dataset(make: Callable[[Any, Any], Any], **card: Any) -> type[Dataset]:
    class Ring(Dataset):
        """Every user takes the items that follow its number."""

        def table(self) -> Table:
            made = make(*pairs())
            return (
                Table({"all": Interactions(*made)}, USERS, ITEMS, True, "as made") if isinstance(made, tuple) else made
            )

    values = {
        "name": "ring",
        "title": "Ring",
        "timestamps": "yes",
        "source": "here",
        "licence": "MIT",
        "citation": "no",
    }
    Ring.card = DatasetCard(**{**values, "users": USERS, "items": ITEMS, "interactions": USERS * LENGTH, **card})
    return Ring


def test_a_good_dataset_passes_every_check() -> None:
    findings = list(check_dataset(dataset(lambda user, item: (user, item))))
    assert {each.status for each in findings} <= {"ok", "skipped"}
    assert {"table", "dense ids", "duplicates", "splits"} <= {each.name for each in findings}


def repeated(user: Any, item: Any) -> tuple[Any, Any]:
    """One row more: the first again."""
    return np.concatenate([user[:1], user]), np.concatenate([item[:1], item])


def lonely(user: Any, item: Any) -> Table:
    """Users with one interaction."""
    ids = np.arange(USERS)
    return Table({"all": Interactions(ids, ids)}, USERS, USERS, True, "as made")


DATASET_CASES: dict[str, tuple[str, type[Dataset], str]] = {
    "licence": ("card", dataset(lambda u, i: (u, i), licence=""), "empty: licence"),
    "type": ("table", dataset(lambda u, i: None), "returned NoneType instead of Table"),
    "parts": (
        "table",
        dataset(lambda u, i: Table({"train": Interactions(u, i)}, USERS, ITEMS, True, "")),
        "'all' alone",
    ),
    "error": ("table", dataset(lambda u, i: 1 / 0), "ZeroDivisionError"),
    "range": ("table", dataset(lambda u, i: (u, i + 1)), "item ids must be within 0 to 14"),
    "floats": ("table", dataset(lambda u, i: (u, i * 1.0)), "item must be an array of integers"),
    "lengths": ("table", dataset(lambda u, i: (u, i[1:])), "60 users and 59 items"),
    "order": ("table", dataset(lambda u, i: (u[::-1], i)), "grouped by user, ascending"),
    "gap": (
        "dense ids",
        dataset(lambda u, i: Table({"all": Interactions(u, i)}, USERS, 16, True, ""), items=16),
        "1 of 16 item ids",
    ),
    "twice": ("duplicates", dataset(repeated, interactions=61), "1 rows repeat"),
    "one each": ("splits", dataset(lonely, items=USERS, interactions=USERS), "no user has a test item"),
    "counts": ("counts", dataset(lambda u, i: (u, i), interactions=61), "interactions = 61, the table has 60"),
    "other": ("deterministic", dataset(lambda u, i: (u, (i + next(CALLS)) % ITEMS)), "another table"),
    "global": ("global random state", dataset(lambda u, i: (u, i) if np.random.rand() else None), "numpy"),  # noqa: NPY002
}


@pytest.mark.parametrize("case", DATASET_CASES)
def test_a_dataset_that_breaks_one_rule_fails_that_check_alone(case: str) -> None:
    check, cls, what = DATASET_CASES[case]
    assert_only([each for each in check_dataset(cls) if not each.ok], check, what)
