from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from federations import small_federation, small_task

from fedbench.attacks.pieck_uea import PieckUEA
from fedbench.defenses import DEFENSES
from fedbench.defenses.chain import Chain
from fedbench.defenses.norm_bound import NormBound
from fedbench.defenses.pieck_regularizer import PieckRegularizer, pull_to_popular, push_from_popular, rank_weights
from fedbench.federation.batch import Batch
from fedbench.federation.clients import TrainingRows, sample_rows
from fedbench.federation.defense import ClientRegularization, ServerView
from fedbench.federation.simulation import Federation
from fedbench.models import PublicParams

CPU = torch.device("cpu")


def batch_of(rows: list[list[int]], clients: list[int] | None = None) -> Batch:
    """One row for each item of each client, all of them positive."""
    item = torch.tensor([item for mine in rows for item in sorted(mine)], dtype=torch.int64)
    size = torch.tensor([len(mine) for mine in rows], dtype=torch.int64)
    starts = torch.cat([size.new_zeros(1), size.cumsum(0)])
    client = torch.repeat_interleave(torch.arange(len(rows)), size)
    ones = torch.ones(len(item))
    return Batch(
        torch.tensor(clients or range(len(rows)), dtype=torch.int64), starts, client, item, ones, ones, size.float()
    )


def server(params: PublicParams, number: int = 0) -> ServerView:
    return ServerView(params, 1.0, "sum", None, 1 + number, number, torch.Generator())


def regularized(defense: PieckRegularizer, rounds: list[torch.Tensor], **options: Any) -> ClientRegularization:
    """Let one batch take part in rounds with these embeddings; what the last one gives."""
    users, batch, dense = options["users"], options["batch"], options.get("dense", {})
    for number, items in enumerate(rounds):
        params = PublicParams(items, dense)
        result = defense.regularize(params, users, batch, server(params, number))
        assert result is not None
    return result


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("quadratic", [9 / 14, 4 / 14, 1 / 14]),
        ("exponential", [math.exp(-r) / (1 + math.exp(-1) + math.exp(-2)) for r in range(3)]),
    ],
)
def test_rank_weights_fall_and_sum_to_one(kind: str, expected: list[float]) -> None:
    assert torch.allclose(rank_weights(3, kind, CPU), torch.tensor(expected))


def test_exponential_weights_of_a_long_list_are_finite() -> None:
    assert math.isclose(float(rank_weights(1000, "exponential", CPU).sum()), 1, rel_tol=1e-5)


def test_re1_by_hand() -> None:
    """v_2 = (0, 2) and v_3 = (3, 0) are pulled towards w = 0.75 (1, 0) + 0.25 (0, 1); popular item 0 is left alone."""
    items = torch.tensor([[5.0, 0], [0, 7], [0, 2], [3, 0]])
    rows = pull_to_popular(
        items, batch_of([[0, 2, 3]]), torch.tensor([[0, 1]]), torch.tensor([1.0]), torch.tensor([0.75, 0.25])
    )
    # (w - cos v^) / |v|, halved for two other items: ((0.75, 0.25) - 0.25 (0, 1)) / 2 and (... - 0.75 (1, 0)) / 3.
    assert torch.allclose(rows, torch.tensor([[0, 0], [0.75 / 2 / 2, 0], [0, 0.25 / 3 / 2]]))


def test_re2_by_hand() -> None:
    """softmax(u) = (1/2, 1/2), softmax(v) = (1/4, 3/4): a = (log 2, log 2/3), whose mean is log(4/3) / 2."""
    items = torch.tensor([[0.0, math.log(3)]])
    gradient = push_from_popular(items, torch.zeros(1, 2), torch.tensor([[0]]), torch.ones(1))
    half = (math.log(2) - math.log(4 / 3) / 2) / 4
    assert torch.allclose(gradient, torch.tensor([[half, -half]]))


def test_the_signs_pull_items_towards_popular_ones_and_push_users_away() -> None:
    """A step against the gradients must raise Re1 and Re2: clients descend L - beta Re1 - gamma Re2."""
    draw = torch.Generator().manual_seed(0)
    start = torch.randn(6, 4, generator=draw)
    items = start.clone()
    items[0] += 1  # the only item that moved: popular
    users = torch.randn(1, 4, generator=draw)
    made = regularized(
        PieckRegularizer(PieckRegularizer.Params(popular_items=1)),
        [start, items],
        users=users,
        batch=batch_of([[0, 3]]),
    )
    assert made.rows is not None
    assert made.users is not None

    def cosine(v: torch.Tensor) -> float:
        return float(torch.cosine_similarity(items[0], v, dim=0))

    def distance(u: torch.Tensor) -> float:
        p, q = torch.softmax(u, 0), torch.softmax(items[0], 0)
        return float((p * (p / q).log()).sum())

    assert not made.rows[0].any()
    assert cosine(items[3] - 0.1 * made.rows[1]) > cosine(items[3])
    assert distance(users[0] - 0.1 * made.users[0]) > distance(users[0])


@pytest.mark.parametrize(("start", "early"), [("first-epoch", True), ("mined", False)])
def test_before_a_client_has_mined_only_re2_may_act(start: str, early: bool) -> None:
    draw = torch.Generator().manual_seed(1)
    rounds = [torch.randn(8, 3, generator=draw) for _ in range(2)]
    users, batch = torch.randn(2, 3, generator=draw), batch_of([[1, 5], [6]])
    defense = PieckRegularizer(PieckRegularizer.Params(popular_items=2, re2_start=start))  # type: ignore[arg-type]
    first = regularized(defense, rounds[:1], users=users, batch=batch)
    assert first.rows is not None
    assert first.users is not None
    assert not first.rows.any()
    expected = torch.zeros(2, 3)
    if early:  # over the first items by id
        expected = -push_from_popular(
            rounds[0], users, torch.tensor([[0, 1], [0, 1]]), rank_weights(2, "exponential", CPU)
        )
        assert expected.any()
    assert torch.allclose(first.users, expected)
    second = regularized(defense, rounds[1:], users=users, batch=batch)
    assert second.rows is not None
    assert second.users is not None
    assert second.rows.any()
    assert bool(second.users.any(dim=1).all())


def test_clients_that_join_late_mine_for_themselves() -> None:
    """Ids may appear in any order and beyond all earlier ones; each client starts at its own second participation."""
    draw = torch.Generator().manual_seed(2)
    rounds = [torch.randn(8, 3, generator=draw) for _ in range(3)]
    defense = PieckRegularizer(PieckRegularizer.Params(popular_items=2))

    def rows(number: int, clients: list[int]) -> torch.Tensor:
        params = PublicParams(rounds[number], {})
        batch = batch_of([[1, 4, 6]] * len(clients), clients)
        made = defense.regularize(params, torch.zeros(len(clients), 3), batch, server(params, number))
        assert made is not None
        assert made.rows is not None
        return made.rows.view(len(clients), -1).any(dim=1)

    assert rows(0, [3]).tolist() == [False]
    assert rows(1, [900, 3]).tolist() == [False, True]
    assert rows(2, [3, 0, 900]).tolist() == [True, False, True]


def test_the_weights_follow_the_model() -> None:
    draw = torch.Generator().manual_seed(3)
    rounds = [torch.randn(8, 3, generator=draw) for _ in range(2)]
    shared: dict[str, Any] = {"users": torch.randn(2, 3, generator=draw), "batch": batch_of([[1, 5], [6]])}
    for dense, weight in (({}, 1.0), ({"W1": torch.ones(1)}, 45.0)):
        usual = regularized(PieckRegularizer(PieckRegularizer.Params()), rounds, dense=dense, **shared)
        explicit = PieckRegularizer.Params(beta=weight, gamma=weight)
        same = regularized(PieckRegularizer(explicit), rounds, **shared)
        assert usual.rows is not None
        assert usual.users is not None
        assert same.rows is not None
        assert same.users is not None
        assert torch.equal(usual.rows, same.rows)
        assert torch.equal(usual.users, same.users)


def test_the_terms_can_be_used_alone() -> None:
    draw = torch.Generator().manual_seed(4)
    rounds = [torch.randn(8, 3, generator=draw) for _ in range(2)]
    shared: dict[str, Any] = {"users": torch.randn(1, 3, generator=draw), "batch": batch_of([[1, 5]])}
    for options in ({"re1": False}, {"beta": 0.0}):
        made = regularized(PieckRegularizer(PieckRegularizer.Params(**options)), rounds, **shared)
        assert made.rows is None
        assert made.users is not None
    for options in ({"re2": False}, {"gamma": 0.0}):
        made = regularized(PieckRegularizer(PieckRegularizer.Params(**options)), rounds, **shared)
        assert made.rows is not None
        assert made.users is None


def test_a_client_with_popular_items_only_has_no_re1() -> None:
    items = torch.randn(4, 3, generator=torch.Generator().manual_seed(5))
    rows = pull_to_popular(
        items,
        batch_of([[0, 1], [0, 3]]),
        torch.tensor([[1, 0], [1, 0]]),
        torch.ones(2),
        torch.tensor([0.8, 0.2]),
    )
    assert rows.any(dim=1).tolist() == [False, False, False, True]


def test_zero_embeddings_and_empty_cohorts_give_zeros() -> None:
    items = torch.tensor([[1.0, 0], [0, 0], [0, 0]])
    one = torch.ones(1)
    assert not pull_to_popular(items, batch_of([[1, 2]]), torch.tensor([[0]]), one, one).any()
    assert not pull_to_popular(items, batch_of([[0, 2]]), torch.tensor([[1]]), one, one).any()
    nobody = batch_of([])
    defense = PieckRegularizer(PieckRegularizer.Params(popular_items=1))
    made = regularized(defense, [items, items], users=torch.zeros(0, 2), batch=nobody)
    assert made.rows is not None
    assert made.users is not None
    assert made.rows.shape == made.users.shape == (0, 2)


def test_equal_embeddings_have_nothing_to_be_pulled_to() -> None:
    items = torch.tensor([[0.3, -0.4]]).repeat(12, 1)
    kappa = rank_weights(3, "quadratic", CPU)
    popular = torch.tensor([[0, 1, 2]])
    rows = pull_to_popular(items, batch_of([list(range(12))]), popular, torch.ones(1), kappa)
    assert torch.allclose(rows, torch.zeros(12, 2), atol=1e-6)
    assert torch.allclose(push_from_popular(items, items[:1], popular, kappa), torch.zeros(1, 2), atol=1e-7)


def test_more_popular_items_than_there_are_items() -> None:
    draw = torch.Generator().manual_seed(6)
    rounds = [torch.randn(4, 3, generator=draw) for _ in range(2)]
    defense = PieckRegularizer(PieckRegularizer.Params(popular_items=10))
    made = regularized(defense, rounds, users=torch.randn(1, 3, generator=draw), batch=batch_of([[1, 2]]))
    assert made.rows is not None
    assert made.users is not None
    assert not made.rows.any()  # every item is popular
    assert made.users.any()


def test_rows_of_honest_clients_ascend_by_client_and_item() -> None:
    """What the search for popular items among them relies on."""
    task = small_task()
    negative = torch.randint(0, task.num_items, (len(task.train_user), 4), generator=torch.Generator().manual_seed(7))
    table = TrainingRows.build(task.train_user, task.train_item, negative, task.num_users, task.num_items)
    batch = table.select(torch.tensor([9, 2, 17, 0]))
    for each in (batch, sample_rows(batch, 5, torch.Generator().manual_seed(8))):
        key = each.client * task.num_items + each.item
        assert bool((key[1:] > key[:-1]).all())


class PlainRegularizedClients:
    """The federation with one loop over clients, items and ranks, and autograd of each client's whole loss."""

    def __init__(self, federation: Federation, params: PieckRegularizer.Params) -> None:
        self.federation, self.p = federation, params
        self.items = federation.params.items.clone()
        self.dense = {name: value.clone() for name, value in federation.params.dense.items()}
        self.users = federation.users.clone()
        self.seen: dict[int, list[torch.Tensor]] = {}

    def round(self, cohort: torch.Tensor) -> None:
        rate = self.federation.protocol.learning_rate
        items, dense = self.items.clone(), {name: value.clone() for name, value in self.dense.items()}
        for client in cohort.tolist():
            leaves = [
                value.clone().requires_grad_() for value in (self.items, self.users[client], *self.dense.values())
            ]
            loss = self.loss(client, leaves[0], leaves[1], dict(zip(self.dense, leaves[2:], strict=True)))
            gradients = torch.autograd.grad(loss, leaves)
            items -= rate * gradients[0]
            self.users[client] -= rate * gradients[1]
            for name, gradient in zip(self.dense, gradients[2:], strict=True):
                dense[name] -= rate * gradient
        self.items, self.dense = items, dense

    def loss(
        self, client: int, items: torch.Tensor, user: torch.Tensor, dense: dict[str, torch.Tensor]
    ) -> torch.Tensor:
        p, rows = self.p, self.federation.population.rows
        mine = slice(int(rows.starts[client]), int(rows.starts[client + 1]))
        sample, label = [], []
        for item, weight, positive in zip(rows.item[mine], rows.weight[mine], rows.positive[mine], strict=True):
            for repeat in range(int(weight)):
                sample.append(int(item))
                label.append(float(repeat < int(positive)))
        chosen = items[sample]
        logits = self.federation.model.logits(dense, user.expand(len(sample), -1), chosen)
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, torch.tensor(label))

        seen = self.seen.setdefault(client, [])
        if len(seen) <= p.mining_differences:
            seen.append(self.items)
        mined = len(seen) > p.mining_differences
        popular = list(range(p.popular_items))
        if mined:
            moved = [
                sum(float((seen[r + 1][j] - seen[r][j]).norm()) for r in range(p.mining_differences))
                for j in range(len(self.items))
            ]
            popular = sorted(range(len(moved)), key=lambda j: -moved[j])[: p.popular_items]
        n = p.popular_items
        kappa = [math.exp(n - r) if p.rank_weights == "exponential" else float((n - r) ** 2) for r in range(n)]
        kappa = [value / sum(kappa) for value in kappa]
        usual = 45.0 if dense else 1.0

        others = sorted(set(sample) - set(popular))
        if p.re1 and mined and others:
            re1 = sum(
                kappa[r] * torch.cosine_similarity(self.items[k], items[j], dim=0)
                for j in others
                for r, k in enumerate(popular)
            )
            loss = loss - (usual if p.beta is None else p.beta) * re1 / len(others)
        if p.re2 and (mined or p.re2_start == "first-epoch"):
            re2 = sum(
                kappa[r]
                * torch.nn.functional.kl_div(
                    torch.log_softmax(self.items[k], 0), torch.softmax(user, 0), reduction="none"
                ).mean()
                for r, k in enumerate(popular)
            )
            loss = loss - (usual if p.gamma is None else p.gamma) * re2
        return loss


@pytest.mark.parametrize("model", ["mf", "ncf"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"beta": 0.7, "gamma": 3.0, "re2_start": "mined"},
        {"rank_weights": "quadratic", "mining_differences": 2, "beta": 2.0},
        {"re1": False},
        {"re2": False},
    ],
)
def test_training_equals_the_plain_loop_with_autograd(model: str, options: dict[str, Any]) -> None:
    params = PieckRegularizer.Params(**({"popular_items": 4} | options))
    federation = small_federation(
        model,
        defense=PieckRegularizer(params),
        learning_rate=0.5 if model == "mf" else 0.005,
        negatives_per_positive=2,
        schedule="independent" if "mining_differences" in options else "shuffled",
        task=small_task(num_users=20, num_items=25),
    )
    plain = PlainRegularizedClients(federation, params)
    for _ in range(5 if "mining_differences" in options else 3):
        federation.epoch += 1
        cohorts = [cohort.honest for cohort in federation.population.cohorts(federation.epoch)]
        federation.epoch -= 1
        federation.train_epoch()
        for cohort in cohorts:
            plain.round(cohort)
        assert torch.allclose(federation.params.items, plain.items, atol=2e-5)
        assert torch.allclose(federation.users, plain.users, atol=2e-5)
        for name, value in plain.dense.items():
            assert torch.allclose(federation.params.dense[name], value, atol=2e-5)


def test_only_honest_clients_are_regularized() -> None:
    """A malicious client's upload is as it was; the honest part of the same round is not."""
    seen: list[torch.Tensor] = []

    class Watching(PieckRegularizer):
        def regularize(
            self, params: PublicParams, users: torch.Tensor, batch: Batch, server: ServerView
        ) -> ClientRegularization | None:
            seen.append(batch.clients)
            return super().regularize(params, users, batch, server)

    federation = small_federation(
        attack=PieckUEA(PieckUEA.Params(popular_items=3)),
        defense=Watching(PieckRegularizer.Params()),
        num_malicious=4,
    )
    federation.train_epoch()
    assert torch.equal(torch.cat(seen).sort().values, torch.arange(federation.task.num_users))


def test_it_chains_with_a_defense_of_the_server() -> None:
    alone = small_federation(defense=PieckRegularizer(PieckRegularizer.Params(popular_items=3)))
    chain = Chain([PieckRegularizer(PieckRegularizer.Params(popular_items=3)), NormBound(NormBound.Params(bound=1e6))])
    both = small_federation(defense=chain)
    for federation in (alone, both):
        federation.train_epoch()
        federation.train_epoch()
    assert torch.equal(alone.params.items, both.params.items)


def test_it_is_registered_and_needs_no_knowledge() -> None:
    cls = DEFENSES.get("pieck-regularizer")
    assert cls is PieckRegularizer
    assert not cls.card.knowledge
    assert cls.card.family == "client-side"


def test_parameters_are_not_kept_between_runs() -> None:
    """Each run has an instance of its own, so two runs give the same numbers."""
    ends = []
    for _ in range(2):
        federation = small_federation(defense=PieckRegularizer(PieckRegularizer.Params(popular_items=3)))
        federation.train_epoch()
        federation.train_epoch()
        ends.append(federation.params.items)
    assert torch.equal(*ends)


def test_repeats_of_an_item_count_once() -> None:
    """O_i is a set: an item drawn five times weighs as much as one drawn once."""
    draw = torch.Generator().manual_seed(9)
    items = torch.randn(5, 3, generator=draw)
    batch = batch_of([[0, 2, 3]])
    often = replace(batch, weight=torch.tensor([1.0, 5.0, 1.0]), size=torch.tensor([7.0]))
    popular, one, kappa = torch.tensor([[0, 1]]), torch.ones(1), torch.tensor([0.8, 0.2])
    once = pull_to_popular(items, batch, popular, one, kappa)
    assert torch.equal(once, pull_to_popular(items, often, popular, one, kappa))
