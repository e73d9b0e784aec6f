from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedbench.data.splits import LEAVE_ONE_OUT_VALIDATION
from fedbench.errors import UserError
from fedbench.evaluation.evaluator import EvaluationSettings, Evaluator
from fedbench.federation.population import Task
from fedbench.federation.simulation import Federation
from fedbench.models import MODELS
from fedbench.models.pfedrec import PersonalTables
from fedbench.scenarios import protocols
from fedbench.scenarios.scenario import Scenario
from fedbench.testing.federations import small_federation, small_task

PUBLISHED: dict[str, Any] = {"aggregation": "mean", "learning_rate": 3.0, "client_learning_rate": 0.5}


class Plain:
    """PFedRec client by client, with a whole table for each: the oracle.

    Args:
        federation: before its first epoch; the same start and training rows.
    """

    def __init__(self, federation: Federation) -> None:
        f = self.federation = federation
        self.table, self.users = f.params.items.clone(), f.users.clone()
        self.own: dict[int, torch.Tensor] = {}

    def loss(self, client: int, user: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
        batch = self.federation.population.rows.select(torch.tensor([client]))
        logits = table[batch.item] @ user
        if batch.pair_positive is not None and batch.pair_negative is not None:
            return torch.nn.functional.softplus(logits[batch.pair_negative] - logits[batch.pair_positive]).mean()
        plus, minus = torch.nn.functional.softplus(-logits), torch.nn.functional.softplus(logits)
        return (batch.positive * plus + (batch.weight - batch.positive) * minus).sum() / batch.weight.sum()

    def epoch(self) -> None:
        protocol = self.federation.protocol
        assert isinstance(protocol.client_learning_rate, float)
        for cohort in self.federation.population.cohorts(self.federation.epoch + 1):
            sent = []
            for client in cohort.honest.tolist():
                user = self.users[client].clone().requires_grad_()
                (by_user,) = torch.autograd.grad(self.loss(client, user, self.table), user)
                self.users[client] -= protocol.client_learning_rate * by_user
                table = self.table.clone().requires_grad_()
                (by_table,) = torch.autograd.grad(self.loss(client, self.users[client], table), table)
                self.own[client] = self.table - protocol.learning_rate * by_table
                sent.append(self.own[client])
            self.table = torch.stack(sent).mean(0)

    def scores(self) -> torch.Tensor:
        tables = [self.own.get(client, self.table) for client in range(len(self.users))]
        return torch.stack([table @ user for table, user in zip(tables, self.users, strict=True)])


def scores(f: Federation, clients: torch.Tensor | None = None) -> torch.Tensor:
    assert f.training.tables is not None
    clients = torch.arange(f.task.num_users) if clients is None else clients
    return f.training.tables.scores(f.model, f.params, clients, f.users[clients])


def test_a_round_by_hand() -> None:
    """One user likes item 0 and drew item 1: w steps first, then both rows by the new w; item 2 is as it was received."""
    task = Task(1, 3, torch.tensor([0]), torch.tensor([0]), torch.tensor([2]), 0)
    model = PersonalTables(PersonalTables.Params(embedding_size=2))
    f = small_federation(model, task=task, **PUBLISHED)
    f.params.items.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [2.0, 2.0]]))
    f.users.copy_(torch.tensor([[0.0, 1.0]]))
    batch = f.population.rows.select(torch.tensor([0]))
    (drawn,) = set(batch.item.tolist()) - {0}
    v = f.params.items[[0, drawn]].clone()
    up, down = 1 / (1 + math.exp(float(v[0, 1]))), 1 / (1 + math.exp(-float(v[1, 1])))
    w = torch.tensor([0.0, 1.0]) + 0.5 * (up * v[0] - down * v[1]) / 2
    f.train_epoch()
    assert torch.allclose(f.users[0], w)
    after = torch.stack([v[0] + 3 * torch.sigmoid(-v[0] @ w) / 2 * w, v[1] - 3 * torch.sigmoid(v[1] @ w) / 2 * w])
    assert torch.allclose(f.params.items[[0, drawn]], after)
    assert torch.allclose(scores(f)[0, [0, drawn]], after @ w)
    rest = 3 - drawn
    assert float(scores(f)[0, rest]) == pytest.approx(float(f.params.items[rest] @ w))


@pytest.mark.parametrize(("cohort", "loss", "epochs"), [(100, "bce", 3), (8, "bce", 2), (7, "bpr", 2)])
def test_rounds_agree_with_whole_tables_client_by_client(cohort: int, loss: str, epochs: int) -> None:
    f = small_federation("pfedrec", clients_per_round=cohort, loss=loss, negatives_per_positive=3, **PUBLISHED)
    plain = Plain(f)
    for _ in range(epochs):
        f.population.begin_epoch(f.epoch + 1)
        plain.epoch()
        f.train_epoch()
    assert torch.allclose(f.params.items, plain.table, atol=1e-4)
    assert torch.allclose(f.users, plain.users, atol=1e-4)
    assert torch.allclose(scores(f), plain.scores(), atol=1e-3)
    if cohort < 30:  # most clients' tables are of rounds before the last
        server = f.model.score_all(f.params, f.users)
        assert not torch.allclose(scores(f), server, atol=1e-2)


@settings(max_examples=10, deadline=None)
@given(cohort=st.integers(1, 30), rounds=st.integers(1, 4), seed=st.integers(0, 99), split=st.integers(1, 29))
def test_only_own_rows_differ_from_the_table_received(cohort: int, rounds: int, seed: int, split: int) -> None:
    """Whatever rounds clients were in, together or in parts: what they have not touched is what some server table says."""
    f = small_federation(
        "pfedrec", seed=seed, clients_per_round=cohort, schedule="independent", rounds_per_epoch=1, **PUBLISHED
    )
    received = [f.params.items.clone()]
    for _ in range(rounds):
        f.train_epoch()
        received.append(f.params.items.clone())
    found = scores(f)
    order = torch.randperm(30, generator=torch.Generator().manual_seed(seed))
    assert torch.allclose(torch.cat([scores(f, order[:split]), scores(f, order[split:])]), found[order], atol=1e-4)
    by_table = torch.stack([f.users @ table.T for table in received])
    for client in range(30):
        touched = f.population.rows.select(torch.tensor([client])).item
        rest = torch.ones(40, dtype=torch.bool).index_fill_(0, touched, False)
        like = (by_table[:, client] - found[client])[:, rest].abs().amax(1)
        assert float(like.min()) < 1e-4


def test_exposure_and_hits_are_those_of_the_clients_own_tables() -> None:
    f = small_federation("pfedrec", negatives_per_positive=3, **PUBLISHED)
    plain = Plain(f)
    f.population.begin_epoch(1)
    plain.epoch()
    f.train_epoch()
    task = f.task
    held = torch.randint(40, (30,), generator=torch.Generator().manual_seed(1))
    evaluator = Evaluator(
        num_users=30, num_items=40, train_user=task.train_user, train_item=task.train_item, test_user=torch.arange(30),
        test_item=held, targets=task.targets, evaluated_users=torch.arange(30), settings=EvaluationSettings(),
        device=f.device,
    )  # fmt: skip
    found = evaluator(f.model, f.params, f.users, f.training.tables)
    table, seen = plain.scores(), torch.zeros(30, 40, dtype=torch.bool)
    seen[task.train_user, task.train_item] = True

    def rank(item: torch.Tensor) -> torch.Tensor:
        ahead = (table >= table.gather(1, item[:, None])) & ~seen
        return ahead.scatter(1, item[:, None], False).sum(1)

    assert found["er_5"] == pytest.approx(float((rank(task.targets.expand(30)) < 5).double().mean()))
    assert found["hr_full_10"] == pytest.approx(float((rank(held) < 10).double().mean()))
    assert found != evaluator(f.model, f.params, f.users)


def test_it_starts_as_published_and_has_a_protocol() -> None:
    model = MODELS.get("pfedrec")(PersonalTables.Params())
    g = torch.Generator().manual_seed(0)
    assert float(model.init_params(5_000, g).items.std()) == pytest.approx(1, rel=0.02)
    users = model.init_users(7, g)
    assert bool((users == users[0]).all())
    assert float(users.abs().max()) <= 1 / math.sqrt(32)
    for dataset, num_items in (("ml-100k", 1_682), ("ml-1m", 3_706)):
        made = protocols.preset("ijcai23", "pfedrec", dataset)
        assert made.learning_rate == pytest.approx(0.1 * num_items * 80)
        assert (made.client_learning_rate, made.aggregation, made.split) == (0.1, "mean", LEAVE_ONE_OUT_VALIDATION)


def test_adam_is_refused() -> None:
    with pytest.raises(UserError, match=r"model 'pfedrec' is made for plain steps .* protocol 'aaai23' has Adam"):
        _ = Scenario("longtail-small", "pfedrec", protocol="aaai23").resolved
    with pytest.raises(UserError, match=r"model 'pfedrec' moves a client's own embedding before its items"):
        small_federation("pfedrec", task=small_task(), user_optimizer="adam")
