"""Untargeted attacks that know their own data, inside the engine and within their threat models."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from federations import small_federation, small_task

from fedbench.attacks import ATTACKS, Attack
from fedbench.attacks.clean_statistics import clean_statistics
from fedbench.attacks.label_flip import flipped
from fedbench.attacks.ua_fedrec import extremes, similarity_gradient
from fedbench.entries.cards import Channel, Goal, Knowledge
from fedbench.errors import ThreatModelViolation
from fedbench.federation.population import Task
from fedbench.federation.simulation import Federation
from fedbench.federation.view import AttackerView

MakeView = Callable[..., AttackerView]

COLLUDING = ["gaussian", "lie", "fang", "ipm", "min-sum", "min-max"]
"""They share the making of their uploads: the last one, which uses all of it, is tried under every protocol."""
NAMES = ["label-flip", "fed-attack", "sign-flip", *COLLUDING, "ua-fedrec", "frecattack2"]

AAAI23: dict[str, Any] = {
    "loss": "bpr",
    "regularized": "all",
    "regularization": 0.01,
    "aggregation": "weighted",
    "learning_rate": 0.01,
    "server_optimizer": "adam",
    "user_optimizer": "adam",
    "schedule": "independent",
}
PROTOCOLS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "icde24": ("mf", {}, {}),
    "icde24, q = 3, last duplicate": ("mf", {"negatives_per_positive": 3, "duplicate_rows": "last"}, {}),
    "icde24, bpr, q = 3": ("mf", {"negatives_per_positive": 3, "loss": "bpr"}, {}),
    "icde24, ncf": ("ncf", {}, {}),
    "wsdm22, ncf": ("ncf", {"local_batch": 4, "aggregation": "mean"}, {}),
    "aaai23": ("mf", AAAI23, {"dropout": 0.2}),
    "aaai23, ncf": ("ncf", AAAI23, {}),
    "aaai23, lazy": ("mf", AAAI23 | {"user_optimizer": "lazy-adam"}, {}),
}


def attack(name: str, loyal: bool = False) -> Attack:
    """The attack, or one that does all the same but uploads what honest clients would."""
    cls = ATTACKS.get(name)
    made = cls(cls.Params(profile_size=6))
    if loyal:
        made.craft = lambda view: view.honest().updates  # type: ignore[method-assign]
    return made


def untargeted(num_malicious: int) -> Task:
    return replace(small_task(num_malicious=num_malicious), targets=torch.zeros(0, dtype=torch.long))


def federation(name: str | None, protocol: str, kind: str, loyal: bool = False, **more: Any) -> Federation:
    """Five of 30 users are malicious, or all are honest without a name."""
    model, settings, model_params = PROTOCOLS[protocol]
    return small_federation(
        model,
        attack(name, loyal) if name else None,
        task=untargeted(5 if name else 0),
        model_params=model_params,
        **({"malicious_clients": kind} | settings | more),
    )


@pytest.mark.parametrize(
    ("name", "protocol"),
    [(n, p) for n in NAMES for p in PROTOCOLS if n not in COLLUDING[:-1] or p == "aaai23, ncf"],
)
@pytest.mark.parametrize("kind", ["injected", "compromised"])
def test_whole_federations_run_and_are_changed(name: str, protocol: str, kind: str) -> None:
    attacked, honest = federation(name, protocol, kind), federation(name, protocol, kind, loyal=True)
    for _ in range(3):
        attacked.train_epoch()
        honest.train_epoch()
        attacked.check_finite()
    assert not torch.equal(attacked.params.items, honest.params.items)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("kind", ["injected", "compromised"])
def test_federations_whose_attackers_upload_honestly_are_alike(protocol: str, kind: str) -> None:
    """So it is the uploads that change the federations of the test above."""
    one, other = (federation(name, protocol, kind, loyal=True) for name in ("label-flip", "lie"))
    for _ in range(3):
        one.train_epoch()
        other.train_epoch()
    assert torch.equal(one.params.items, other.params.items)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("protocol", ["aaai23", "icde24, ncf"])
def test_equal_seeds_give_equal_runs_and_global_random_numbers_are_left_alone(name: str, protocol: str) -> None:
    runs = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        made = federation(name, protocol, "compromised")
        made.train_epoch()
        assert torch.equal(torch.get_rng_state(), before)
        runs.append(made)
    assert torch.equal(runs[0].params.items, runs[1].params.items)
    assert torch.equal(runs[0].users, runs[1].users)
    for one, two in zip(runs[0].params.dense.values(), runs[1].params.dense.values(), strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("protocol", ["icde24", "icde24, ncf", "aaai23, ncf"])
def test_compromised_users_follow_their_own_data(name: str, protocol: str) -> None:
    """After one round of everybody, all users are where they would be without an attack."""
    attacked, clean = (federation(each, protocol, "compromised", clients_per_round=30) for each in (name, None))
    start = clean.users.clone()
    attacked.train_epoch()
    clean.train_epoch()
    assert not torch.equal(attacked.params.items, clean.params.items)
    assert torch.allclose(attacked.users, clean.users, atol=1e-6)
    assert bool((attacked.users != start).any(dim=1).all())


@pytest.mark.parametrize("name", ["label-flip", "fed-attack"])
def test_data_poisoning_keeps_the_regularisation_and_the_samples(name: str) -> None:
    made = federation(name, "aaai23", "compromised", clients_per_round=30)
    seen = []
    craft = made.attack.craft

    def watched(view: AttackerView) -> Any:
        seen.append((craft(view), view.honest().updates))
        return seen[-1][0]

    made.attack.craft = watched  # type: ignore[method-assign]
    made.train_epoch()
    for sent, honest in seen:
        assert sent.common is not None
        assert honest.common is not None
        assert torch.equal(sent.common.gradient, honest.common.gradient)
        assert torch.equal(sent.common.share, honest.common.share)
        assert torch.equal(sent.weights, honest.weights)


def test_statistics_hold_what_is_common() -> None:
    """Under an L2 term on all parameters an item that no colluder touches is sent as ``lambda v_j``."""
    made = federation("lie", "aaai23", "compromised", clients_per_round=30)
    sent = []
    craft = made.attack.craft

    def watched(view: AttackerView) -> Any:
        sent.append((craft(view), view.params.items, view.colluding(50)))
        return sent[-1][0]

    made.attack.craft = watched  # type: ignore[method-assign]
    made.train_epoch()
    ((updates, items, clean),) = sent
    touched = torch.zeros(40, dtype=torch.bool)
    touched[clean.all_rows().item] = True
    assert 0 < int(touched.sum()) < 40
    rows = updates.all_rows().values[:40]
    assert torch.allclose(rows[~touched], 0.01 * items[~touched])
    assert not torch.allclose(rows[touched], 0.01 * items[touched], atol=1e-3)
    assert updates.common is None


@pytest.mark.parametrize("name", ["label-flip", "lie", "ua-fedrec"])
def test_uploads_are_made_before_the_clients_own_embeddings_move(name: str) -> None:
    made = federation(name, "icde24", "compromised", clients_per_round=30)
    seen = []
    craft = made.attack.craft

    def watched(view: AttackerView) -> Any:
        clean = view.colluding(50)
        if name == "label-flip":
            expected = view.trained(flipped(view.own_batch)).sum_rows(40, 32)
        elif name == "lie":
            spread = clean_statistics(clean, 40).items
            expected = 5 * (spread.mean - 1.5 * spread.std)
        else:
            norms = clean.square_norms().sqrt()
            gradient = similarity_gradient(view.params.items, *extremes(view.params.items), 128)
            expected = 5 * gradient / gradient.norm() * (norms.mean() + 3 * norms.std())
        sent = craft(view)
        seen.append((sent.sum_rows(40, 32), expected))
        return sent

    made.attack.craft = watched  # type: ignore[method-assign]
    made.train_epoch()
    ((sent, expected),) = seen
    assert torch.allclose(sent, expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_cards_say_untargeted_and_grant_what_is_used(name: str, make_view: MakeView) -> None:
    made = attack(name)
    card = made.card
    assert card.name == name
    assert (card.goal, card.channel) == (Goal.DEGRADE, Channel.GRADIENT)
    assert card.clients == {"injected", "compromised"}
    made.start(make_view(card, targets=(), in_round=False))
    blind = make_view(replace(card, knowledge=card.knowledge - {Knowledge.OWN_DATA}))
    with pytest.raises(ThreatModelViolation, match="own_data"):
        made.craft(blind)
    unused = card.knowledge - {Knowledge.OWN_DATA}
    assert unused == ({Knowledge.COHORT_SIZE} if name == "lie" else set())
    made.craft(make_view(replace(card, knowledge=frozenset({Knowledge.OWN_DATA}))))


def test_the_cohort_size_is_read_for_the_rule_of_lie_alone(make_view: MakeView) -> None:
    cls = ATTACKS.get("lie")
    with pytest.raises(ThreatModelViolation, match="cohort_size"):
        cls(cls.Params(z="rule")).craft(make_view(replace(cls.card, knowledge=frozenset({Knowledge.OWN_DATA}))))
