"""The adaptive wrapper: its search by hand, its uploads beside plain sums, and every defense simulated, untouched."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from federations import small_federation, small_task
from hypothesis import given, settings
from hypothesis import strategies as st
from robust_oracles import full, make_updates

import fedbench
from fedbench.attacks import ATTACKS
from fedbench.attacks import adaptive as module
from fedbench.attacks.adaptive import Adaptive, Choice, mixed, moved, searched
from fedbench.defenses import DEFENSES, Defense
from fedbench.defenses.chain import Chain
from fedbench.entries.cards import Channel, DefenseCard, Goal, Knowledge, NoParameters
from fedbench.errors import ThreatModelViolation, UserError
from fedbench.federation.attack import Attack
from fedbench.federation.defense import ServerView
from fedbench.federation.model import PublicParams
from fedbench.federation.simulation import Federation
from fedbench.federation.updates import Common, Updates
from fedbench.federation.view import AttackerView
from fedbench.scenarios.scenario import Scenario

UNTARGETED = {
    "loss": "bpr", "aggregation": "weighted", "regularization": 1e-5, "regularized": "all", "server_optimizer": "adam",
    "user_optimizer": "adam", "learning_rate": 0.01, "malicious_clients": "compromised",
}  # fmt: skip


def adaptive(attack: str, **params: Any) -> Adaptive:
    given = Adaptive.Params(attack=attack, **params)
    made = Adaptive.for_params(given)(given)
    assert isinstance(made, Adaptive)
    return made


def federation(attack: Attack, defense: Defense | None = None, model: str = "mf", **protocol: Any) -> Federation:
    degrades = type(attack).card.goal == Goal.DEGRADE
    task = small_task(num_malicious=5, targets=() if degrades else (7, 3))
    settings = {"clients_per_round": 20} | (UNTARGETED if degrades else {}) | protocol
    return small_federation(model, attack, defense, task=task, **settings)


def of(name: str, **params: Any) -> Defense:
    cls = DEFENSES.get(name)
    return cls(cls.Params(**params))


# The search.


def asked(worth: Callable[[Choice], float], **options: Any) -> tuple[list[Choice], Choice]:
    """What a search asks for, and what it chooses."""
    seen: list[Choice] = []

    def noted(choice: Choice) -> float:
        seen.append(choice)
        return worth(choice)

    given: dict[str, Any] = {"start": (1.0, 0.0), "mixes": (0.0, 1.0), "largest": 20.0, "evaluations": 8}
    return seen, searched(noted, **(given | options))


def test_the_search_by_hand() -> None:
    # A rule that drops whoever is longer than 1/4, with U of length 1: what gets through is the longest below it.
    seen, best = asked(lambda choice: choice[0] if choice[0] <= 0.25 else 0.0)
    root = 8**0.5
    assert seen[:4] == [(1.0, 0.0), (8.0, 0.0), (0.125, 0.0), (1.0, 1.0)], "eight times as long and short, then mixed"
    assert seen[4:] == [(0.125 * root, 0.0), (0.125 / root, 0.0), (0.125, 1.0), (0.125 * root**0.5, 0.0)]
    assert best == (pytest.approx(0.125 * 8**0.25), 0.0)


def test_while_nothing_gets_through_scales_become_ever_smaller() -> None:
    seen, best = asked(lambda choice: choice[0] if choice[0] <= 1e-3 else 0.0, evaluations=12)
    assert seen[4:8] == [(8.0**-k, 0.0) for k in (2, 3, 4)] + [(8**-3.5, 0.0)]
    assert best[0] == pytest.approx(8**-3.5)
    seen, best = asked(lambda choice: 0.0, evaluations=50)
    assert best == (1.0, 0.0)
    assert min(seen) == (1e-6, 0.0)


def test_of_equals_the_upload_as_it_is_counts_and_a_search_ends_where_there_is_enough() -> None:
    assert asked(lambda choice: 0.5)[1] == (1.0, 0.0)
    assert asked(lambda choice: 1.0, enough=1.0) == ([(1.0, 0.0)], (1.0, 0.0))
    assert asked(lambda choice: float("nan"))[1] == (1.0, 0.0)
    assert asked(lambda choice: float("nan") if choice[0] > 1 else choice[0])[1] == (1.0, 0.0)


def test_no_scale_is_larger_than_allowed_and_the_last_choice_is_tried_first() -> None:
    seen, best = asked(lambda choice: choice[0] + choice[1], start=(6.0, 1.0), largest=7.0)
    assert seen[:2] == [(1.0, 0.0), (6.0, 1.0)]
    assert max(scale for scale, _ in seen) == 7.0
    assert best == (7.0, 1.0)


@settings(max_examples=30, deadline=None)
@given(st.floats(-6, 6), st.integers(1, 12), st.sampled_from([(0.0,), (0.0, 1.0), (0.25, 0.5, 1.0)]))
def test_no_choice_that_was_tried_is_better(peak: float, evaluations: int, mixes: tuple[float, ...]) -> None:
    def worth(choice: Choice) -> float:
        return -abs(torch.tensor(choice[0]).log2().item() - peak) - abs(choice[1] - 0.5)

    seen, best = asked(worth, evaluations=evaluations, mixes=mixes)
    assert len(seen) == len(set(seen)) <= evaluations
    assert best in seen
    assert worth(best) >= max(map(worth, seen)) - 1e-4
    assert {mix for _, mix in seen} <= {0.0, *mixes}


# Its uploads.


@settings(max_examples=20, deadline=None)
@given(st.floats(0, 20, width=32), st.sampled_from([0.0, 0.5, 1.0]), st.booleans(), st.integers(0, 99))
def test_uploads_are_plain_sums(gamma: float, part: float, common: bool, seed: int) -> None:
    upload, honest = make_updates(4, 6, 3, seed, density=0.3), make_updates(4, 6, 3, seed + 100)
    if common:
        shared = torch.randn(6, 3, generator=torch.Generator().manual_seed(seed))
        honest = honest.__class__(**{**vars(honest), "common": Common(shared, torch.ones(4))})
    made = mixed(upload, honest, (gamma, part), 6)
    assert torch.allclose(full(made, 6), gamma * full(upload, 6) + part * full(honest, 6), atol=1e-4)
    for name, value in made.dense.stacked().items():
        expected = gamma * upload.dense.stacked()[name] + part * honest.dense.stacked()[name]
        assert torch.allclose(value, expected, atol=1e-4)
        assert torch.allclose(made.dense.total()[name], expected.sum(0), atol=1e-3)


def test_a_distance_by_hand() -> None:
    before = PublicParams(torch.zeros(3, 2), {"W1": torch.zeros(1)})
    after = PublicParams(torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 4.0]]), {"W1": torch.tensor([12.0])})
    targets = torch.tensor([2, 0])
    assert moved(after, before, torch.tensor([[0.0, 1.0], [0.0, 0.0]]), targets) == 4.0
    assert moved(after, before, torch.tensor([[3.0, 4.0], [0.0, 0.0]]), targets) == 5.0
    assert moved(after, before, None, targets) == pytest.approx((1 + 4 + 25 + 144) ** 0.5)


@pytest.mark.parametrize(
    ("attack", "model"), [("pieck-uea", "mf"), ("pieck-ipe", "ncf"), ("fang", "mf"), ("lie", "ncf")]
)
def test_without_a_rule_it_is_the_attack_itself(attack: str, model: str) -> None:
    cls = ATTACKS.get(attack)
    plain = federation(cls(cls.Params()), model=model)
    tuned = federation(adaptive(attack, aim="base"), model=model)
    for _ in range(3):
        plain.train_epoch()
        tuned.train_epoch()
    assert torch.equal(plain.params.items, tuned.params.items)
    assert all(torch.equal(value, tuned.params.dense[name]) for name, value in plain.params.dense.items())


class TooLong(Defense):
    """Drops whoever uploads more than ``bound``, and counts the rounds that it has seen."""

    card = DefenseCard(name="too-long", title="Too long", paper="")
    bound = 0.1

    def __init__(self, params: Any) -> None:
        super().__init__(params)
        self.rounds = 0

    def filter(self, updates: Updates, server: ServerView) -> Updates:
        self.rounds += 1
        return updates.keep(updates.square_norms().sqrt() <= self.bound)


def test_it_gets_through_a_rule_that_stops_the_attack(monkeypatch: pytest.MonkeyPatch) -> None:
    cls = ATTACKS.get("pieck-uea")
    monkeypatch.setattr(TooLong, "bound", 2.0)
    long = {"scale": 1000.0}
    moves = {}
    for name, attack in {
        "plain": cls(cls.Params(**long)),
        "tuned": adaptive("pieck-uea", params=long, evaluations=20),
    }.items():
        run = federation(attack, TooLong(NoParameters()))
        before = run.params.items[7].clone()
        for _ in range(4):
            run.train_epoch()
        moves[name] = float((run.params.items[7] - before).norm())
        made = run.defense
        assert isinstance(made, TooLong)
        assert made.rounds == run.round, "the real one has seen the real rounds and no other"
    assert moves["tuned"] > 5 * moves["plain"]


CHAINS = ["union+multi-krum", "nnm+krum", "pieck-regularizer+norm-bound"]
RULES = [
    *CHAINS,
    *(each for each in DEFENSES.names() if DEFENSES.get(each).card.family not in ("purification", "none")),
]


@pytest.mark.parametrize(("defense", "attack"), [*zip(RULES, itertools.cycle(["p1", "fang"]), strict=False)])
def test_what_it_chooses_is_worth_at_least_the_attack_itself(
    defense: str, attack: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []

    def noted(worth: Callable[[Choice], float], *rest: Any) -> Choice:
        chosen = searched(worth, *rest)
        found.append((worth(chosen), worth(module.AS_IT_IS), worth(chosen)))
        return chosen

    monkeypatch.setattr(module, "searched", noted)
    parts = [of(name) for name in defense.split("+")]
    run = federation(adaptive(attack, every=2), parts[0] if len(parts) == 1 else Chain(parts))
    run.train_epoch()
    run.check_finite()
    assert found
    for value, as_it_is, again in found:
        assert value >= as_it_is - 1e-4 * abs(as_it_is)
        assert value == again, "what is tried leaves no trace: same state, same draws"


def test_a_rule_with_a_memory_remembers_the_simulated_rounds() -> None:
    run = federation(adaptive("p1"), of("hics", clip=0.5))
    assert run.adversary is not None
    simulated = run.adversary._simulated
    assert simulated is not None
    run.train_epoch()
    copy, real = simulated.defense, run.defense
    assert copy is not real
    assert copy.params == real.params
    assert copy.bank is not None  # type: ignore[attr-defined]
    assert not torch.equal(copy.bank, real.bank)  # type: ignore[attr-defined]


def test_the_simulated_cohort_is_as_large_as_the_real_one_and_nobody_is_in_it_twice() -> None:
    seen: list[Updates] = []

    class Watching(TooLong):
        def filter(self, updates: Updates, server: ServerView) -> Updates:
            seen.append(updates)
            return updates

    run = federation(adaptive("p1", every=100), Watching(NoParameters()))
    run.train_epoch()
    # On honest clients alone, eight choices, the one to remember; then the real round.
    simulated, real = seen[:10], seen[10]
    crafting = int((real.clients >= 30).sum())
    assert [len(each.clients) for each in simulated] == [20 - crafting] + [20] * 9
    for updates in simulated:
        assert len(updates.clients.unique()) == len(updates.clients)
    # Clients stand for several, with other negatives each time.
    whole = full(simulated[0], 40)
    assert (torch.cdist(whole.flatten(1), whole.flatten(1)) + torch.eye(len(whole)) > 1e-7).all()


# What it may know, and what does not fit.


def test_a_view_is_narrowed_to_what_an_attack_declares() -> None:
    asked: list[str] = []

    class Nosy(ATTACKS.get("pieck-uea")):  # type: ignore[misc]
        def craft(self, view: AttackerView) -> Updates:
            asked.append("craft")
            view.honest()
            return super().craft(view)

    attack = adaptive("pieck-uea")
    attack.inner = Nosy(Nosy.Params())
    run = federation(attack)
    with pytest.raises(
        ThreatModelViolation, match=r"reached for 'honest' \(knowledge 'own_data'\); its card declares nothing"
    ):
        run.train_epoch()
    assert asked


def test_nobody_simulates_who_does_not_say_so() -> None:
    class Nosy(ATTACKS.get("lie")):  # type: ignore[misc]
        def craft(self, view: AttackerView) -> Updates:
            view.simulation.begin(3)
            return super().craft(view)

    with pytest.raises(ThreatModelViolation, match=r"'simulation' \(knowledge 'defense'\)"):
        federation(Nosy(Nosy.Params())).train_epoch()


def test_who_has_no_data_is_told_what_is_missing() -> None:
    base = ATTACKS.get("pieck-uea")

    class NoData(base):  # type: ignore[misc, valid-type]
        card = base.card.__class__(**{**vars(base.card), "knowledge": frozenset({Knowledge.DEFENSE})})

        def craft(self, view: AttackerView) -> Updates:
            view.simulation.begin(3)
            return super().craft(view)

    with pytest.raises(ThreatModelViolation, match="nobody can stand for honest clients"):
        federation(NoData(NoData.Params())).train_epoch()


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"attack": "pieck-ue"}, "Unknown attack 'pieck-ue'. Did you mean 'pieck-uea'?"),
        ({"attack": "adaptive"}, "parameter attack = 'adaptive' must be another that comes with fedbench"),
        ({"attack": "random"}, "parameter attack = 'random' has channel 'profile'"),
        ({"attack": "none"}, "parameter attack = 'none' has channel 'none'"),
        ({"params": {"sale": 2}}, "Unknown parameter of attack 'adaptive': attack 'pieck-uea': 'sale'"),
        ({"mixes": [2]}, "mixes = .*from 0 to 1"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(params: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        _ = Scenario("longtail-small", "mf", "adaptive", "none", 0.1, attack_params=params).resolved
    assert "\n" not in str(error.value)


def test_card_and_id_are_those_of_what_is_tuned() -> None:
    def made(**params: Any) -> Scenario:
        return Scenario("longtail-small", "mf", "adaptive", "median", 0.1, target="none", attack_params=params)

    fang = made(attack="fang").resolved.attack_class
    assert (fang.card.goal, fang.card.name, fang.tunes) == (Goal.DEGRADE, "adaptive", ATTACKS.get("fang"))
    assert fang is made(attack="fang", every=3).resolved.attack_class
    ids = {made(attack=name).id for name in ("fang", "lie", "ipm")} | {made(attack="fang", params={"low": 2.0}).id}
    assert len(ids) == 4
    assert made(attack="fang", params={"low": 3.0}).id == made(attack="fang").id
    knows = adaptive("pipattack").card.knowledge
    assert knows == {Knowledge.ITEM_POPULARITY, Knowledge.OWN_DATA, Knowledge.COHORT_SIZE, Knowledge.DEFENSE}
    with pytest.raises(UserError, match="needs target items"):
        _ = made(attack="pieck-uea").resolved


@pytest.mark.parametrize(
    "attack",
    [
        name
        for name in ATTACKS.names()
        if ATTACKS.get(name).card.channel == Channel.GRADIENT and name not in ("none", "adaptive")
    ],
)
def test_every_attack_that_makes_uploads_can_be_tuned(attack: str) -> None:
    """Each goal where it is run: a run against a median ends well."""
    card = ATTACKS.get(attack).card
    params: dict[str, Any] = {"epochs": 1, "evaluate_every": 1}
    target = {Goal.DEGRADE: "none", Goal.DEMOTE: "most-popular"}.get(card.goal, "random:0")
    sequences = card.models == {"sasrec"}
    protocol, model = "icde24", "ncf" if attack.startswith(("a-ra", "psmu")) else "mf"
    if sequences or card.goal == Goal.DEGRADE:
        protocol, model, params = "aaai23", "sasrec" if sequences else "mf", params | {"rounds_per_epoch": 3}
    if Knowledge.SUBGROUP_ITEMS in card.knowledge:
        params |= {"subgroup": 2}
    tuned = {"attack": attack, "stand_ins": 6, "evaluations": 4}
    scenario = Scenario(
        "longtail-small", model, "adaptive", "median", 0.05, protocol, target,
        attack_params=tuned, protocol_params=params,
    )  # fmt: skip
    record = fedbench.run(scenario, 0)
    assert record.status == "ok", record.error
