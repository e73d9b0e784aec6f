from __future__ import annotations

import pytest
import torch
from federations import small_federation, small_task
from oracles import PlainFederation

from fedbench.attacks import Attack
from fedbench.attacks.uploads import target_updates
from fedbench.defenses import ClientRegularization, Defense
from fedbench.defenses.chain import Chain
from fedbench.entries.cards import AttackCard, Channel, DefenseCard, Goal, Knowledge, NoParameters
from fedbench.errors import Diverged, ThreatModelViolation
from fedbench.federation.batch import Batch
from fedbench.federation.clients import draw_negatives
from fedbench.federation.defense import ServerView
from fedbench.federation.rows import FullRows
from fedbench.federation.simulation import Federation
from fedbench.federation.updates import DenseGradients, Updates, no_updates
from fedbench.federation.view import AttackerView, Profiles
from fedbench.models import PublicParams


def negatives_of(federation: Federation) -> torch.Tensor:
    t, q = federation.task, federation.protocol.negatives_per_positive
    stream = federation.population.stream("negatives", 0)
    return draw_negatives(t.train_user, t.train_item, t.num_users, t.num_items, q, stream)


def assert_same(ours: PublicParams, plain: PublicParams) -> None:
    assert torch.allclose(ours.items, plain.items, atol=2e-5)
    for name, value in ours.dense.items():
        assert torch.allclose(value, plain.dense[name], atol=2e-5), name


@pytest.mark.parametrize("model", ["mf", "ncf"])
@pytest.mark.parametrize("aggregation", ["sum", "mean"])
@pytest.mark.parametrize("q", [1, 3])
@pytest.mark.parametrize("duplicate_rows", ["sum", "last"])
def test_batched_rounds_equal_the_plain_loop_over_clients(
    model: str, aggregation: str, q: int, duplicate_rows: str
) -> None:
    federation = small_federation(
        model, aggregation=aggregation, negatives_per_positive=q, duplicate_rows=duplicate_rows, learning_rate=0.1
    )
    plain = PlainFederation.like(federation, negatives_of(federation))
    for _ in range(3):
        federation.epoch += 1
        cohorts = list(federation.population.cohorts(federation.epoch))
        federation.epoch -= 1
        federation.train_epoch()
        for cohort in cohorts:
            plain.round(cohort.honest)
    assert_same(federation.params, plain.params)
    embeddings = torch.stack([client.embedding for client in plain.clients])
    assert torch.allclose(federation.users, embeddings, atol=2e-5)


def test_every_client_is_visited_once_an_epoch() -> None:
    federation = small_federation(num_malicious=5)
    federation.epoch = 1
    cohorts = list(federation.population.cohorts(federation.epoch))
    assert [len(c.honest) + len(c.malicious) for c in cohorts] == [8, 8, 8, 8, 3]
    assert sorted(torch.cat([c.honest for c in cohorts]).tolist()) == list(range(30))
    assert sorted(torch.cat([c.malicious for c in cohorts]).tolist()) == list(range(5))


def test_honest_clients_keep_their_order_whatever_the_attack() -> None:
    def order(num_malicious: int) -> list[int]:
        federation = small_federation(num_malicious=num_malicious)
        federation.epoch = 4
        return torch.cat([c.honest for c in federation.population.cohorts(federation.epoch)]).tolist()

    assert order(0) == order(5) == order(9)


def test_independent_rounds_draw_anew() -> None:
    federation = small_federation(schedule="independent", clients_per_round=0.2)
    federation.epoch = 1
    cohorts = [set(c.honest.tolist()) for c in federation.population.cohorts(federation.epoch)]
    assert [len(c) for c in cohorts] == [6] * 5
    assert len(set().union(*cohorts)) < 30


def test_an_attack_that_uploads_nothing_leaves_the_clean_run_as_it_was_under_a_sum() -> None:
    clean = small_federation(clients_per_round=100)
    silent = small_federation(attack=Attack2(NoParameters()), num_malicious=4, clients_per_round=100)
    for federation in (clean, silent):
        for _ in range(3):
            federation.train_epoch()
    assert torch.equal(clean.params.items, silent.params.items)
    assert torch.equal(clean.users, silent.users[:30])


class Attack2(Attack):
    card = AttackCard("silent", "Silent", "", Goal.PROMOTE, Channel.GRADIENT)


class Push(Attack):
    """Uploads the same row for the target in every round."""

    card = AttackCard("push", "Push", "", Goal.PROMOTE, Channel.GRADIENT)

    def craft(self, view: AttackerView) -> Updates:
        return target_updates(view, torch.ones(len(view.clients), 1, view.embedding_size))


def test_a_crafted_row_moves_its_item_by_rate_times_row_for_each_client() -> None:
    clean = small_federation(clients_per_round=100)
    pushed = small_federation(attack=Push(NoParameters()), num_malicious=3, clients_per_round=100)
    clean.train_epoch()
    pushed.train_epoch()
    difference = clean.params.items - pushed.params.items
    assert torch.allclose(difference[7], torch.full((32,), 0.5 * 3))
    difference[7] = 0
    assert torch.count_nonzero(difference) == 0


def test_the_attack_waits_for_its_first_epoch() -> None:
    late = small_federation(attack=Push(NoParameters()), num_malicious=3, attack_start=3, clients_per_round=100)
    clean = small_federation(clients_per_round=100)
    for epoch in (1, 2, 3):
        late.train_epoch()
        clean.train_epoch()
        assert torch.equal(late.params.items, clean.params.items) == (epoch < 3)


def test_compromised_clients_are_real_users_and_honest_before_the_attack() -> None:
    options = {"malicious_clients": "compromised", "attack_start": 2, "clients_per_round": 100}
    federation = small_federation(attack=Push(NoParameters()), num_malicious=6, **options)
    clean = small_federation(clients_per_round=100)
    assert federation.population.num_clients == 30
    assert len(federation.population.evaluated_users) == 24
    assert not set(federation.population.malicious.tolist()) & set(federation.population.evaluated_users.tolist())
    for each in (federation, clean):
        each.train_epoch()
    assert torch.allclose(federation.params.items, clean.params.items, atol=1e-6)
    federation.train_epoch()
    clean.train_epoch()
    assert not torch.allclose(federation.params.items, clean.params.items, atol=1e-3)


class OneProfile(Attack):
    card = AttackCard("profile", "Profile", "", Goal.PROMOTE, Channel.PROFILE)

    def profiles(self, view: AttackerView) -> Profiles:
        return Profiles(torch.tensor([0, 0, 1]), torch.tensor([7, 2, 7]))


@pytest.mark.parametrize("model", ["mf", "ncf"])
def test_fake_profiles_are_trained_like_an_honest_client(model: str) -> None:
    attacked = small_federation(model, attack=OneProfile(NoParameters()), num_malicious=2, clients_per_round=100)
    before = attacked.users[30:].clone()
    start, table = attacked.params, attacked.adversary.fakes.rows
    assert table is not None
    clean = small_federation(model, clients_per_round=100)
    attacked.train_epoch()
    clean.train_epoch()
    expected = torch.zeros_like(start.items)
    for fake in (0, 1):
        batch = table.select(torch.tensor([fake]))
        step = attacked.model.local_step(start, before[[fake]], batch, attacked.training.loss)
        expected += step.rows[0].sum(40)
        assert torch.allclose(attacked.users[30 + fake], before[fake] - 0.5 * step.users[0], atol=1e-6)
    assert torch.allclose(clean.params.items - attacked.params.items, 0.5 * expected, atol=1e-5)


class Honest(Attack):
    """Uploads what its clients would have uploaded honestly."""

    card = AttackCard("honest", "Honest", "", Goal.PROMOTE, Channel.GRADIENT, frozenset({Knowledge.OWN_DATA}))

    def craft(self, view: AttackerView) -> Updates:
        return view.honest().updates


def test_honest_uploads_of_compromised_clients_make_the_clean_run() -> None:
    options = {"malicious_clients": "compromised", "clients_per_round": 100}
    attacked = small_federation("ncf", attack=Honest(NoParameters()), num_malicious=6, **options)
    clean = small_federation("ncf", clients_per_round=100)
    for _ in range(3):
        attacked.train_epoch()
        clean.train_epoch()
    assert_same(attacked.params, clean.params)
    assert torch.allclose(attacked.users, clean.users, atol=1e-5)


def test_diverged_parameters_are_detected() -> None:
    federation = small_federation()
    federation.check_finite()
    federation.params.items[3, 0] = torch.nan
    with pytest.raises(Diverged, match="epoch 0"):
        federation.check_finite()
    federation = small_federation()
    federation.users[2, 1] = torch.inf
    with pytest.raises(Diverged):
        federation.check_finite()


class InPlace(Attack):
    card = AttackCard("in-place", "In place", "", Goal.PROMOTE, Channel.GRADIENT)

    def craft(self, view: AttackerView) -> Updates:
        view.params.items[view.targets] += 1
        return no_updates(view.clients, view.params.dense, view.embedding_size)


class TooMany(Attack):
    card = AttackCard("too-many", "Too many", "", Goal.PROMOTE, Channel.GRADIENT)

    def craft(self, view: AttackerView) -> Updates:
        rows = FullRows(torch.zeros(1).long(), view.targets, torch.ones(1, view.embedding_size))
        return Updates(torch.arange(99), (rows,), DenseGradients.of({}), torch.ones(99))


@pytest.mark.parametrize(("attack", "message"), [(InPlace, "in place"), (TooMany, "99 clients; 3 of its")])
def test_an_attack_cannot_write_to_the_model_nor_speak_for_others(attack: type[Attack], message: str) -> None:
    federation = small_federation(attack=attack(NoParameters()), num_malicious=3, clients_per_round=100)
    with pytest.raises(ThreatModelViolation, match=message):
        federation.train_epoch()


class Shrink(Defense):
    """A client-side regulariser with both gradients."""

    card = DefenseCard("shrink", "Shrink", "")

    def regularize(
        self, params: PublicParams, users: torch.Tensor, batch: Batch, server: ServerView
    ) -> ClientRegularization:
        return ClientRegularization(rows=0.1 * params.items[batch.item], users=0.1 * users)


class DropFirst(Defense):
    card = DefenseCard("drop-first", "Drop the first client", "")

    def filter(self, updates: Updates, server: ServerView) -> Updates:
        return updates.keep(updates.clients != 0)


class Nothing(Defense):
    card = DefenseCard("nothing", "Learn nothing", "")

    def aggregate(self, updates: Updates, server: ServerView) -> PublicParams:
        return PublicParams(torch.zeros_like(server.params.items), {})


class Half(Defense):
    card = DefenseCard("half", "Half of the sum", "", knowledge=frozenset({"malicious_ratio"}))

    def aggregate(self, updates: Updates, server: ServerView) -> PublicParams:
        assert server.malicious_ratio == 0.0
        return PublicParams(updates.sum_rows(*server.params.items.shape) / 2, {})


def test_a_client_side_regulariser_is_added_to_rows_and_users() -> None:
    shrink = small_federation(defense=Shrink(NoParameters()), clients_per_round=100)
    clean = small_federation(clients_per_round=100)
    items, users = clean.params.items.clone(), clean.users.clone()
    rows = clean.population.rows.select(torch.arange(30))
    shrink.train_epoch()
    clean.train_epoch()
    touched = torch.bincount(rows.item, minlength=40)
    assert torch.allclose(clean.params.items - shrink.params.items, 0.05 * touched[:, None] * items, atol=1e-5)
    assert torch.allclose(clean.users - shrink.users, 0.05 * users, atol=1e-6)


def test_filters_run_in_order_and_the_last_aggregator_wins() -> None:
    parts = [Half(NoParameters()), DropFirst(NoParameters()), Nothing(NoParameters())]
    stuck = small_federation(defense=Chain([*parts]), clients_per_round=100)
    start = stuck.params.items.clone()
    stuck.train_epoch()
    assert torch.equal(stuck.params.items, start)
    halved = small_federation(defense=Chain([Nothing(NoParameters()), parts[1], parts[0]]), clients_per_round=100)
    only = small_federation(defense=DropFirst(NoParameters()), clients_per_round=100)
    halved.train_epoch()
    only.train_epoch()
    assert torch.allclose(halved.params.items - start, (only.params.items - start) / 2, atol=1e-6)


def test_same_seed_same_numbers_and_another_seed_others() -> None:
    def trained(seed: int) -> torch.Tensor:
        federation = small_federation("ncf", attack=Push(NoParameters()), num_malicious=3, seed=seed)
        for _ in range(3):
            federation.train_epoch()
        return federation.params.items

    assert torch.equal(trained(1), trained(1))
    assert not torch.equal(trained(1), trained(2))


def test_pairwise_loss_and_regularisation_follow_autograd() -> None:
    options = {
        "loss": "bpr",
        "reduction": "sum",
        "regularization": 0.1,
        "clients_per_round": 100,
        "learning_rate": 0.05,
    }
    federation = small_federation("mf", task=small_task(num_users=6), **options)
    start, users = federation.params.items.clone(), federation.users.clone()
    negatives, task = negatives_of(federation), federation.task
    federation.train_epoch()
    items = start.clone().requires_grad_()
    own = users.clone().requires_grad_()
    loss = torch.zeros(())
    for u in range(6):
        mine = task.train_user == u
        positive, negative = task.train_item[mine], negatives[mine].squeeze(1)
        loss = loss - torch.nn.functional.logsigmoid((items[positive] - items[negative]) @ own[u]).sum()
        touched = torch.cat([positive, negative]).unique()
        loss = loss + 0.05 * (own[u].square().sum() + items[touched].square().sum())
    gradient = torch.autograd.grad(loss, [items, own])
    assert torch.allclose(federation.params.items, start - 0.05 * gradient[0], atol=1e-5)
    assert torch.allclose(federation.users, users - 0.05 * gradient[1], atol=1e-5)


def test_private_embeddings_move_at_a_rate_of_their_own() -> None:
    """A round with the clients' rate is one with the server's, but for the length of the private steps."""
    same, slow, each = (
        small_federation(clients_per_round=30, learning_rate=0.5, client_learning_rate=rate)
        for rate in (None, 0.05, (0.0001, 1.0))
    )
    start = same.users.clone()
    for federation in (same, slow, each):
        assert torch.equal(federation.users, start)
        federation.train_epoch()
    assert torch.equal(same.params.items, slow.params.items)
    assert torch.equal(same.params.items, each.params.items)
    assert torch.allclose(slow.users - start, 0.1 * (same.users - start), atol=1e-6)
    rates = 0.5 * (each.users - start).norm(dim=1) / (same.users - start).norm(dim=1)
    assert 0.0001 <= rates.min() < 0.2
    assert 0.8 < rates.max() <= 1.0001
