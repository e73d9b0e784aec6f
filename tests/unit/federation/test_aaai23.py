"""Protocol aaai23: whole rounds against a per-client loop with autograd, and who is malicious or evaluated."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
import torch
from federations import small_federation, small_task
from sasrec_oracle import PlainSequential
from untargeted_oracle import PlainUntargeted

from fedbench.attacks.label_flip import LabelFlip
from fedbench.entries.cards import AttackCard, Channel, Goal, Knowledge, NoParameters
from fedbench.errors import ThreatModelViolation, UserError
from fedbench.federation.attack import Attack
from fedbench.federation.clients import draw_negatives
from fedbench.federation.simulation import Federation
from fedbench.federation.updates import Updates
from fedbench.federation.view import AttackerView
from fedbench.scenarios.protocols import preset
from fedbench.scenarios.scenario import Scenario

FIELDS = preset("aaai23", "mf", "ml-1m").model_dump()
LAMBDA = 0.03


def federation(num_malicious: int = 0, attack: Attack | None = None, seed: int = 0, **fields: Any) -> Federation:
    settings = FIELDS | {
        "clients_per_round": 8,
        "rounds_per_epoch": 5,
        "regularization": LAMBDA,
        "learning_rate": 0.05,
        "malicious_pool": 0.4,
    }
    return small_federation(
        attack=attack,
        task=small_task(num_malicious=num_malicious, targets=()),
        seed=seed,
        **({"model_params": {"embedding_size": 4, "init": "xavier"}} | settings | fields),
    )


class Loyal(Attack):
    """Uploads what an honest client would."""

    card = AttackCard(
        name="loyal",
        title="none",
        paper="none",
        goal=Goal.DEGRADE,
        channel=Channel.GRADIENT,
        knowledge=frozenset({Knowledge.OWN_DATA, Knowledge.HONEST_UPDATES}),
    )

    def craft(self, view: AttackerView) -> Updates:
        assert len(view.honest_updates.clients) > 0
        return view.honest().updates


def drawn_cohorts(made: Federation) -> list[list[int]]:
    """Those of the first epoch, users' ids."""
    made.epoch = 1
    cohorts = [
        torch.cat([each.honest, made.population.malicious[each.malicious]]).tolist()
        for each in made.population.cohorts(made.epoch)
    ]
    made.epoch = 0
    return cohorts


@pytest.mark.parametrize("attacked", [False, True])
def test_rounds_agree_with_a_loop_over_clients_with_autograd_and_torchs_adam(attacked: bool) -> None:
    """Also with clients that are the attacker's, but upload honestly."""
    ours = federation(num_malicious=6 if attacked else 0, attack=Loyal(NoParameters()) if attacked else None)
    task = ours.task
    negatives = draw_negatives(task.train_user, task.train_item, 30, 40, 1, ours.population.stream("negatives", 0))
    plain = PlainUntargeted(ours, negatives)
    for cohort in drawn_cohorts(ours):
        plain.round(cohort)
    ours.train_epoch()
    assert torch.allclose(ours.params.items, plain.items.detach(), atol=1e-5)
    assert torch.allclose(ours.users, plain.users.detach(), atol=1e-5)
    assert ours.round == 5


@pytest.mark.parametrize("max_length", [4, 50])
def test_rounds_of_a_model_of_sequences_agree_with_such_a_loop(max_length: int) -> None:
    """L2 on everything but biases, means by positions, Adam on dense parameters too; sequences cut and whole."""
    ours = federation(model="sasrec", model_params={"embedding_size": 4, "max_length": max_length, "dropout": 0.0})
    task = ours.task
    negatives = draw_negatives(task.train_user, task.train_item, 30, 40, 1, ours.population.stream("negatives", 0))
    plain = PlainSequential(ours, negatives)
    before = {name: value.clone() for name, value in ours.params.dense.items()}
    for cohort in drawn_cohorts(ours):
        plain.round(cohort)
    ours.train_epoch()
    assert torch.allclose(ours.params.items, plain.items.detach(), atol=1e-4)
    for name, value in ours.params.dense.items():
        if re.fullmatch(r"b\d_key", name):
            continue  # softmax does not see it: its gradient is rounding, which Adam makes steps of
        assert torch.allclose(value, plain.dense[name].detach(), atol=1e-4), name
        assert not torch.allclose(value, before[name], atol=1e-3), f"{name} has not moved"


def test_with_lazy_adam_absent_users_stay() -> None:
    ours = federation(user_optimizer="lazy-adam", rounds_per_epoch=1)
    before = ours.users.clone()
    (cohort,) = drawn_cohorts(ours)
    ours.train_epoch()
    ours.epoch = 1
    absent = sorted(set(range(30)) - set(cohort))
    assert torch.equal(ours.users[absent], before[absent])
    assert bool((ours.users[cohort] != before[cohort]).any(1).all())
    dense = federation(rounds_per_epoch=2)
    dense.train_epoch()
    assert (dense.users != before).any(1).sum() > 8


def test_malicious_users_come_from_a_pool_that_no_run_changes_and_nobody_of_it_is_evaluated() -> None:
    clean, one, many = federation(), federation(3, Loyal(NoParameters()), seed=1), federation(12, Loyal(NoParameters()))
    assert len(clean.population.evaluated_users) == 18
    assert torch.equal(clean.population.evaluated_users, one.population.evaluated_users)
    assert torch.equal(clean.population.evaluated_users, many.population.evaluated_users)
    assert len(many.population.malicious) == 12
    for each in (one, many):
        assert not set(each.population.malicious.tolist()) & set(each.population.evaluated_users.tolist())
    other = federation(3, Loyal(NoParameters()), seed=2)
    assert not torch.equal(one.population.malicious, other.population.malicious)
    with pytest.raises(UserError, match=r"13 malicious clients are more than the 12 users"):
        federation(13, Loyal(NoParameters()))


def test_negatives_are_no_held_out_items() -> None:
    task = small_task(targets=())
    taken = set(zip(task.train_user.tolist(), task.train_item.tolist(), strict=True))
    # Everything but two items of each user is in training or held out.
    free = {user: [item for item in range(40) if (user, item) not in taken][:2] for user in range(30)}
    held_out = [(u, i) for u in range(30) for i in range(40) if (u, i) not in taken and i not in free[u]]
    columns = torch.tensor(held_out).T
    both = replace(task, held_out=(columns[0], columns[1]))
    for exclude, only in (("all", True), ("train", False)):
        made = small_federation(task=both, **(FIELDS | {"negatives_exclude": exclude}), model_params={"init": "xavier"})
        batch = made.population.rows.select(torch.arange(30))
        assert batch.pair_negative is not None
        drawn = zip(batch.client[batch.pair_negative].tolist(), batch.item[batch.pair_negative].tolist(), strict=True)
        assert all(item in free[user] for user, item in drawn) is only


def test_dropout_leaves_the_draws_of_everything_else_alone() -> None:
    with_it = small_federation(
        task=small_task(targets=()),
        model_params={"embedding_size": 4, "init": "xavier", "dropout": 0.5},
        **(FIELDS | {"rounds_per_epoch": 1}),
    )
    without = small_federation(
        task=small_task(targets=()),
        model_params={"embedding_size": 4, "init": "xavier"},
        **(FIELDS | {"rounds_per_epoch": 1}),
    )
    assert torch.equal(with_it.population.rows.item, without.population.rows.item)
    assert torch.equal(with_it.params.items, without.params.items)
    with_it.train_epoch()
    without.train_epoch()
    assert not torch.equal(with_it.params.items, without.params.items)


class Curious(Loyal):
    """Looks at everything that own data give."""

    def craft(self, view: AttackerView) -> Updates:
        batch = view.own_batch
        assert torch.equal(batch.clients, view.honest().updates.clients)
        self.seen = view.trained(batch), view.honest().updates, view.own_users, view.honest().users
        self.crowd = view.colluding(4), view.colluding(100)
        return view.honest().updates


def test_own_data_give_honest_uploads_of_the_sampled_and_of_all_malicious_clients() -> None:
    attack = Curious(NoParameters())
    made = federation(7, attack, rounds_per_epoch=4)
    made.train_epoch()
    trained, honest, own, users = attack.seen
    assert torch.allclose(trained.sum_rows(40, 4), honest.sum_rows(40, 4), atol=1e-6)
    assert torch.equal(own, users)
    few, all_of_them = attack.crowd
    assert len(few.clients) == 4
    assert sorted(all_of_them.clients.tolist()) == made.population.malicious.tolist()
    assert few.common is not None
    assert torch.allclose(few.common.gradient, LAMBDA * made.params.items, atol=1e-2)


def test_own_embeddings_follow_clean_or_poisoned_data_once_a_round() -> None:
    """One step of gradient descent of every malicious client, by autograd over its pairs as they are or exchanged."""
    for own_embedding, exchanged in (("clean", False), ("poisoned", True)):
        attack = LabelFlip(LabelFlip.Params(own_embedding=own_embedding))
        options = {"user_optimizer": "sgd", "server_optimizer": "sgd", "clients_per_round": 30, "rounds_per_epoch": 1}
        made = federation(6, attack, **options)
        before, items = made.users.clone(), made.params.items.clone()
        batch = made.population.rows.select(made.population.malicious)
        made.train_epoch()
        for place, user in enumerate(made.population.malicious.tolist()):
            assert batch.pair_positive is not None
            assert batch.pair_negative is not None
            mine = batch.client[batch.pair_positive] == place
            sides = items[batch.item[batch.pair_positive[mine]]], items[batch.item[batch.pair_negative[mine]]]
            plus, minus = reversed(sides) if exchanged else sides
            own = before[user].clone().requires_grad_()
            loss = torch.nn.functional.softplus(-((plus - minus) @ own)).mean() + LAMBDA / 2 * own.square().sum()
            (gradient,) = torch.autograd.grad(loss, own)
            assert torch.allclose(made.users[user], before[user] - 0.05 * gradient, atol=1e-6)


class TooLate(Loyal):
    """Would move its clients' embeddings twice."""

    def craft(self, view: AttackerView) -> Updates:
        view.honest()
        return view.trained(view.own_batch, move=True)


class Silent(Attack):
    """Uploads nothing, and does not ask what an honest client would."""

    card = replace(Loyal.card, name="silent", knowledge=frozenset())


@pytest.mark.parametrize("optimizer", ["adam", "lazy-adam"])
def test_own_embeddings_follow_their_data_whatever_is_uploaded(optimizer: str) -> None:
    everybody = {"rounds_per_epoch": 1, "clients_per_round": 30, "user_optimizer": optimizer}
    loyal, silent = (federation(6, cls(NoParameters()), **everybody) for cls in (Loyal, Silent))
    start = loyal.users.clone()
    for made in (loyal, silent):
        made.train_epoch()
    malicious = loyal.population.malicious
    assert bool((silent.users[malicious] != start[malicious]).any(1).all())
    assert torch.equal(silent.users, loyal.users)
    assert not torch.equal(silent.params.items, loyal.params.items)


def test_own_embeddings_move_once_a_round_only() -> None:
    with pytest.raises(ThreatModelViolation, match="once a round"):
        federation(6, TooLate(NoParameters())).train_epoch()
    made = federation(
        6, LabelFlip(LabelFlip.Params(own_embedding="poisoned")), rounds_per_epoch=1, clients_per_round=30
    )
    moved: list[int] = []
    move = made.training.move

    def spy(clients: torch.Tensor, users: torch.Tensor, gradient: torch.Tensor) -> None:
        moved.extend(clients.tolist())
        move(clients, users, gradient)

    made.training.move = spy  # type: ignore[method-assign]
    made.train_epoch()
    assert sorted(moved) == list(range(30))


@pytest.mark.parametrize(
    ("dataset", "model", "clusters", "bound", "length", "l2"),
    [
        ("ml-1m", "mf", 2, 0.1, None, 1e-5),
        ("ml-1m", "sasrec", 2, 1.5, 200, 1e-5),
        ("gowalla", "mf", 8, 0.1, None, 1e-6),
        ("gowalla", "sasrec", 8, 2.5, 100, 1e-5),
    ],
)
def test_hyper_parameters_are_those_of_appendix_a(
    dataset: str, model: str, clusters: int, bound: float, length: int | None, l2: float
) -> None:
    for attack in ("cluster-attack", "cluster-attack-cl"):
        found = Scenario(dataset, model, attack, "union+norm-bound", 0.01, "aaai23", "none").resolved
        assert found.attack_params.model_dump()["initial_clusters"] == clusters
        union, norm_bound = (params.model_dump() for _, params in found.defenses)
        assert (norm_bound["bound"], norm_bound["scope"]) == (bound, "client")
        assert (union["step"], union["order"]) == ("server", "parallel")
        assert found.model.params.model_dump().get("max_length") == length
        assert found.protocol.regularization == l2


def test_what_a_scenario_states_stands_above_the_presets() -> None:
    own = Scenario(
        "gowalla",
        "sasrec",
        "cluster-attack",
        "norm-bound",
        0.01,
        "aaai23",
        "none",
        model_params={"max_length": 7},
        attack_params={"initial_clusters": 3},
        defense_params={"bound": 9.0},
    ).resolved
    assert own.model.params.model_dump()["max_length"] == 7
    assert own.attack_params.model_dump()["initial_clusters"] == 3
    assert own.defenses[0][1].model_dump()["bound"] == 9.0
    elsewhere = Scenario("gowalla", "mf", "cluster-attack", "norm-bound", 0.01, "icde24", "none").resolved
    assert elsewhere.attack_params.model_dump()["initial_clusters"] == 2
