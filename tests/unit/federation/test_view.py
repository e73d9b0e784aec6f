from __future__ import annotations

import pytest
import torch
from federations import small_federation

from fedbench.attacks import Attack
from fedbench.entries.cards import AttackCard, Channel, Goal, Knowledge, NoParameters
from fedbench.errors import ThreatModelViolation
from fedbench.federation.rows import FullRows
from fedbench.federation.updates import Updates
from fedbench.federation.view import AttackerView, Profiles, PublicInteractions, Surroundings
from fedbench.testing.federations import small_model


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
    "own_batch": "own_data",
    "own_users": "own_data",
    "honest_updates": "honest_updates",
    "item_popularity": "item_popularity",
    "subgroup_items": "subgroup_items",
    "public_interactions": "public_interactions",
    "cohort_size": "cohort_size",
    "malicious_per_round": "cohort_size",
}


def test_what_is_not_declared_is_not_even_held() -> None:
    card = AttackCard("blind", "Knows nothing", "", Goal.PROMOTE, Channel.GRADIENT)
    none, ids = torch.zeros(0, dtype=torch.int64), torch.arange(3)
    surroundings = Surroundings(small_model("mf"), 3, 1, 0.1, "sum", none, torch.device("cpu"), torch.Generator())
    view = AttackerView(
        card,
        surroundings,
        own_data=Profiles(ids, ids),
        item_popularity=ids,
        subgroup_items=ids,
        public_interactions=PublicInteractions(ids, ids, 3),
        cohort_size=3,
        malicious_per_round=1.0,
    )
    assert {name for name, value in vars(view).items() if value is not None} == {"_card", "_surroundings"}


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
    for index, user in enumerate(federation.population.malicious.tolist()):
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


AAAI23 = {
    "loss": "bpr",
    "regularization": 0.01,
    "regularized": "all",
    "aggregation": "weighted",
    "malicious_clients": "compromised",
    "clients_per_round": 100,
}


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_honest_uploads_do_not_show_what_they_are_made_of(dropout: float) -> None:
    """The factors of a row of matrix factorisation are the client's private embedding and its samples."""

    class Looking(Attack):
        card = AttackCard("looking", "", "", Goal.DEGRADE, Channel.GRADIENT, frozenset({Knowledge.HONEST_UPDATES}))

        def craft(self, view: AttackerView) -> Updates:
            self.seen = view.honest_updates
            return super().craft(view)

    attack = Looking(NoParameters())
    federation = small_federation(attack=attack, num_malicious=3, model_params={"dropout": dropout}, **AAAI23)
    federation.train_epoch()
    assert {type(block) for block in attack.seen.rows} == {FullRows}


def spoil_honest_uploads(view: AttackerView) -> None:
    honest = view.honest_updates
    assert honest.common is not None
    for value in (honest.rows[0].grad(), honest.rows[0].item, honest.weights, honest.common.gradient, honest.clients):
        value.zero_()
    for tensors in (honest.dense.total(), honest.dense.stacked()):
        for value in tensors.values():
            value.zero_()


@pytest.mark.parametrize("model", ["mf", "ncf"])
def test_honest_uploads_are_the_attackers_own_copy(model: str) -> None:
    class Spoiling(Attack):
        card = AttackCard("spoiling", "", "", Goal.DEGRADE, Channel.GRADIENT, frozenset({Knowledge.HONEST_UPDATES}))
        spoils = True

        def craft(self, view: AttackerView) -> Updates:
            if self.spoils:
                spoil_honest_uploads(view)
            return super().craft(view)

    items = []
    for spoils in (False, True):
        attack = Spoiling(NoParameters())
        attack.spoils = spoils
        federation = small_federation(model, attack, num_malicious=3, **AAAI23)
        federation.train_epoch()
        items.append(federation.params.items)
    assert torch.equal(*items)


def test_what_is_common_to_all_uploads_may_not_be_changed_through_the_attackers_own() -> None:
    class Spoiling(Attack):
        card = AttackCard("spoiling", "", "", Goal.DEGRADE, Channel.GRADIENT, frozenset({Knowledge.OWN_DATA}))

        def craft(self, view: AttackerView) -> Updates:
            updates = view.honest().updates
            assert updates.common is not None
            updates.common.gradient.mul_(-100)
            return updates

    federation = small_federation(attack=Spoiling(NoParameters()), num_malicious=3, **AAAI23)
    with pytest.raises(ThreatModelViolation, match="not the gradient that the clients of this round have in common"):
        federation.train_epoch()
