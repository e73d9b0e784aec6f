"""Chains of real defenses: what each part does to a round, and what cannot be joined."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from federations import small_federation
from robust_oracles import make_updates, server_of

from fedbench.defenses import DEFENSES, ClientRegularization, Defense, ServerView
from fedbench.defenses.chain import Chain
from fedbench.entries.cards import DefenseCard, NoParameters
from fedbench.errors import UserError
from fedbench.federation.updates import Updates
from fedbench.scenarios.scenario import Scenario


def chain(name: str, **params: Any) -> Defense:
    """The defense of a scenario, as a run gets it."""
    return Scenario("longtail-small", "mf", defense=name, defense_params=params).resolved.defense()


def outcome(defense: Defense, seed: int = 0) -> torch.Tensor:
    """The items' gradient of a round after filters and aggregation."""
    updates = make_updates(20, 6, 3, seed, dense=False, copies=4)
    server = server_of(updates, 6, 3, 0.2)
    total = defense.aggregate(defense.filter(updates, server), server)
    return updates.sum_rows(6, 3) if total is None else total.items


def test_a_filter_comes_before_the_aggregator() -> None:
    bounded = chain("norm-bound", bound=0.5)
    median = chain("median")
    updates = make_updates(20, 6, 3, 0, dense=False, copies=4)
    server = server_of(updates, 6, 3, 0.2)
    expected = median.aggregate(bounded.filter(updates, server), server)
    assert expected is not None
    for order in ("norm-bound+median", "median+norm-bound"):
        joined = chain(order, **{"norm-bound": {"bound": 0.5}})
        assert torch.equal(outcome(joined), expected.items)
    assert not torch.equal(outcome(median), expected.items)


def test_of_two_aggregators_the_last_one_acts() -> None:
    assert torch.equal(outcome(chain("krum+median")), outcome(chain("median")))
    assert torch.equal(outcome(chain("median+krum")), outcome(chain("krum")))
    assert not torch.equal(outcome(chain("median")), outcome(chain("krum")))


def test_the_aggregator_sees_only_the_clients_that_union_kept() -> None:
    """Twenty clients, of which UNION drops some: Multi-Krum then works on the rest, with its share of fewer clients."""
    union = chain("union", alpha=0.0, assumed_ratio=0.4)
    updates = make_updates(20, 6, 3, 3, dense=False, copies=4)
    server = server_of(updates, 6, 3, 0.2)
    kept = union.filter(updates, server)
    assert 0 < len(kept.clients) < 20
    expected = chain("multi-krum").aggregate(kept, server)
    joined = chain("union+multi-krum", union={"alpha": 0.0, "assumed_ratio": 0.4})
    server.generator.manual_seed(0)
    found = joined.aggregate(joined.filter(updates, server), server)
    assert expected is not None
    assert found is not None
    assert torch.equal(found.items, expected.items)


def test_client_sides_add_up() -> None:
    """What two client-side defenses add to a client's rows and to its own embedding is the sum of what each adds."""
    federation = small_federation("mf")
    batch = federation.population.rows.select(torch.arange(8))
    users = federation.users[:8]

    def added(defense: Defense) -> ClientRegularization:
        view = federation.server_view()
        view.generator.manual_seed(0)
        found = defense.regularize(federation.params, users, batch, view)
        assert found is not None
        return found

    own = added(chain("pieck-regularizer", gamma=0.3))
    union = added(chain("union", negatives=3))
    both = added(chain("union+pieck-regularizer", **{"union": {"negatives": 3}, "pieck-regularizer": {"gamma": 0.3}}))
    assert torch.equal(both.rows, union.rows + own.rows)
    assert own.users.any()
    assert torch.equal(both.users, own.users)
    assert torch.equal(both.extra.values, union.extra.values)
    twice = added(chain("union+pieck-regularizer+norm-bound", union={"negatives": 3}))
    assert torch.equal(twice.extra.item, union.extra.item)


def test_a_chain_carries_the_families_and_knowledge_of_its_parts() -> None:
    card = chain("union+norm-bound").card
    assert card.name == "union+norm-bound"
    assert card.family == "filter+clipping"
    assert card.knowledge == {"malicious_ratio"}
    assert card.assumes == chain("union").card.assumes
    assert chain("norm-bound+median").card.assumes == "nothing"


@pytest.mark.parametrize(
    ("defense", "params", "message"),
    [
        ("union+multikrum", {}, "Unknown defense 'multikrum'. Did you mean 'multi-krum'"),
        ("union+union", {}, "must join different defenses"),
        ("none+median", {}, "none of them 'none'"),
        ("median+", {}, "Unknown defense ''"),
        ("union+multi-krum", {"krum": {}}, "'krum', which is not a part of it"),
        ("union+multi-krum", {"union": {"alfa": 1}}, "Unknown parameter of defense 'union': 'alfa'"),
        ("union+multi-krum", {"union": 3}, "must be a table of its parameters"),
        ("median", {"assumed_ratio": 0.1}, "Unknown parameter of defense 'median'"),
        ("krum", {"assumed_ratio": 1.0}, "assumed_ratio = 1.0"),
        ("krum", {"variant": "published"}, "variant = 'published'"),
    ],
)
def test_what_cannot_be_joined_is_one_line(defense: str, params: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        _ = Scenario("ml-100k", "mf", defense=defense, defense_params=params).id
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_defense_that_does_not_apply_to_a_model_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    class NcfOnly(Defense):
        card = DefenseCard("ncf-only", "For NCF", "", models=frozenset({"ncf"}))
        Params = NoParameters

    original = DEFENSES.get
    monkeypatch.setattr(DEFENSES, "get", lambda name: NcfOnly if name == "ncf-only" else original(name))
    for name in ("ncf-only", "median+ncf-only"):
        with pytest.raises(UserError, match="defense 'ncf-only' does not apply to model 'mf'; it applies to ncf"):
            _ = Scenario("ml-100k", "mf", defense=name).id
        assert Scenario("ml-100k", "ncf", defense=name).id


def test_a_part_is_not_told_what_only_another_one_declares() -> None:
    told: list[float | None] = []

    class Spy(Defense):
        card = DefenseCard("spy", "Looks", "")

        def filter(self, updates: Updates, server: ServerView) -> Updates:
            told.append(server.malicious_ratio)
            return updates

        def aggregate(self, updates: Updates, server: ServerView) -> None:
            told.append(server.malicious_ratio)

    krum = DEFENSES.get("krum")
    joined = Chain([krum(krum.Params()), Spy(NoParameters())])
    assert "malicious_ratio" in joined.card.knowledge
    updates = make_updates(5, 3, 2, 0, dense=False)
    joined.filter(updates, server_of(updates, 3, 2, 0.2))
    joined.aggregate(updates, server_of(updates, 3, 2, 0.2))
    assert told == [None, None]


def test_half_as_many_attackers_as_users_have_a_clean_twin() -> None:
    attacked = Scenario("ml-100k", "mf", "pieck-uea", "trimmed-mean", 0.5)
    assert attacked.clean.resolved.defenses[0][1].assumed_ratio == 0.5


def test_the_clean_twin_keeps_the_share_that_the_defense_assumes() -> None:
    """Told that nobody attacks, a defense that is given the true share would do nothing, and cost nothing."""
    attacked = Scenario("ml-100k", "mf", "pieck-uea", "trimmed-mean", 0.05)
    assert attacked.clean.defense_params == {"assumed_ratio": 0.05}
    assert attacked.clean.malicious_ratio == 0
    stated = Scenario("ml-100k", "mf", "pieck-uea", "trimmed-mean", 0.05, defense_params={"assumed_ratio": 0.0})
    assert stated.clean.defense_params == {"assumed_ratio": 0.0}
    assert stated.clean.id != attacked.clean.id
    other = Scenario("ml-100k", "mf", "a-hum", "trimmed-mean", 0.05)
    assert other.clean.id == attacked.clean.id
    chained = Scenario(
        "ml-100k", "mf", "a-hum", "union+multi-krum", 0.05, defense_params={"union": {"assumed_ratio": 0.1}}
    )
    assert chained.clean.defense_params == {"union": {"assumed_ratio": 0.1}, "multi-krum": {"assumed_ratio": 0.05}}
    assert Scenario("ml-100k", "mf", "a-hum", "norm-bound", 0.05).clean.defense_params == {}
    assert attacked.clean.clean.id == attacked.clean.id
