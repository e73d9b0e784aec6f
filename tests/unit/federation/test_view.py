from __future__ import annotations

import pytest
import torch
from federations import small_federation

from fedbench.attacks import Attack
from fedbench.cards import AttackCard, Channel, Goal, Knowledge, NoParameters
from fedbench.errors import ThreatModelViolation
from fedbench.federation.updates import Updates
from fedbench.federation.view import AttackerView


def reaching(name: str, knowledge: frozenset[Knowledge] = frozenset()) -> type[Attack]:
    class Reaching(Attack):
        card = AttackCard("reaching", "Reaches for more", "", Goal.PROMOTE, Channel.GRADIENT, knowledge)

        def craft(self, view: AttackerView) -> Updates:
            value = getattr(view, name)
            if callable(value):
                value()
            return super().craft(view)

    return Reaching


@pytest.mark.parametrize(
    "name",
    ["users", "benign_users", "benign_updates", "train", "interactions", "streams", "rows", "federation", "seed"],
)
def test_what_no_attacker_is_given_cannot_be_reached(name: str) -> None:
    federation = small_federation(attack=reaching(name)(NoParameters()), num_malicious=3, clients_per_round=100)
    with pytest.raises(ThreatModelViolation, match=f"'reaching' reached for '{name}', which no attacker is given"):
        federation.train_epoch()


UNDECLARED = {
    "own_data": "own_data",
    "honest": "own_data",
    "item_popularity": "item_popularity",
    "public_interactions": "public_interactions",
    "cohort_size": "cohort_size",
    "malicious_per_round": "cohort_size",
}


@pytest.mark.parametrize(("name", "knowledge"), UNDECLARED.items())
def test_knowledge_that_the_card_does_not_declare_is_refused_by_name(name: str, knowledge: str) -> None:
    others = frozenset(k for k in Knowledge if k != knowledge)
    for declared in (frozenset[Knowledge](), others):
        attack = reaching(name, declared)(NoParameters())
        federation = small_federation(
            attack=attack, num_malicious=3, clients_per_round=100, malicious_clients="compromised"
        )
        with pytest.raises(ThreatModelViolation, match=f"reached for '{name}' .*'{knowledge}'"):
            federation.train_epoch()


@pytest.mark.parametrize(("name", "knowledge"), UNDECLARED.items())
def test_declared_knowledge_is_granted(name: str, knowledge: str) -> None:
    attack = reaching(name, frozenset({Knowledge(knowledge)}))(NoParameters())
    federation = small_federation(
        attack=attack, num_malicious=3, clients_per_round=100, malicious_clients="compromised"
    )
    federation.train_epoch()


def test_what_is_granted_is_right() -> None:
    seen: dict[str, object] = {}

    class Looking(Attack):
        card = AttackCard("looking", "Looks", "", Goal.PROMOTE, Channel.GRADIENT, frozenset(Knowledge))
        public_fraction = 0.5

        def craft(self, view: AttackerView) -> Updates:
            seen.update(popularity=view.item_popularity, own=view.own_data, public=view.public_interactions)
            seen.update(cohort=view.cohort_size, expected=view.malicious_per_round, clients=view.clients)
            return super().craft(view)

    federation = small_federation(attack=Looking(NoParameters()), num_malicious=3, malicious_clients="compromised")
    federation.train_epoch()
    task = federation.task
    assert torch.equal(seen["popularity"], torch.bincount(task.train_item, minlength=40))  # type: ignore[arg-type]
    own = seen["own"]
    for index, user in enumerate(federation.malicious.tolist()):
        mine = task.train_item[task.train_user == user]
        assert sorted(own.item[own.client == index].tolist()) == sorted(mine.tolist())  # type: ignore[attr-defined]
    public = seen["public"]
    for user in range(task.num_users):
        has = set(task.train_item[task.train_user == user].tolist())
        shown = public.item[public.user == user].tolist()  # type: ignore[attr-defined]
        assert len(shown) == -(-len(has) // 2)
        assert set(shown) <= has
    assert seen["cohort"] == 8
    assert seen["expected"] == pytest.approx(8 * 3 / 30)


def test_a_round_cannot_be_looked_at_before_it_is_there() -> None:
    class Early(Attack):
        card = AttackCard("early", "Early", "", Goal.PROMOTE, Channel.GRADIENT)

        def start(self, view: AttackerView) -> None:
            _ = view.params

    with pytest.raises(ThreatModelViolation, match="'params' outside a round"):
        small_federation(attack=Early(NoParameters()), num_malicious=3)


def test_the_attack_draws_from_a_stream_of_its_own() -> None:
    class Drawing(Attack):
        card = AttackCard("drawing", "Draws", "", Goal.PROMOTE, Channel.GRADIENT)

        def craft(self, view: AttackerView) -> Updates:
            torch.rand(1000, generator=view.generator)
            return super().craft(view)

    class Quiet(Drawing):
        def craft(self, view: AttackerView) -> Updates:
            return Attack.craft(self, view)

    results = []
    for attack in (Drawing, Quiet):
        federation = small_federation("ncf", attack=attack(NoParameters()), num_malicious=3)
        for _ in range(2):
            federation.train_epoch()
        results.append(federation.params.items)
    assert torch.equal(*results)
