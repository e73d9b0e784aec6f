from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from sasrec_oracle import all_clients, client_gradients, noisy, outputs, sequences

from fedbench.attacks.none import NoAttack
from fedbench.defenses.none import NoDefense
from fedbench.defenses.norm_bound import NormBound
from fedbench.entries.cards import NoParameters, parse_parameters
from fedbench.errors import UserError
from fedbench.federation.clients import TrainingRows
from fedbench.federation.losses import Loss
from fedbench.federation.model import Histories
from fedbench.federation.population import Task
from fedbench.federation.protocol import Protocol
from fedbench.federation.simulation import Federation
from fedbench.models import MODELS, PublicParams, buckets, sasrec
from fedbench.models.mf import dropout_masks
from fedbench.models.sasrec import SelfAttentiveSequentialRecommender

M = 30
LENGTHS = [5, 1, 9, 2, 14, 5]


def recommender(**params: object) -> SelfAttentiveSequentialRecommender:
    settings = {"embedding_size": 8, "max_length": 10, "dropout": 0.0} | params
    return SelfAttentiveSequentialRecommender(SelfAttentiveSequentialRecommender.Params.model_validate(settings))


def close(a: torch.Tensor, b: torch.Tensor) -> bool:
    return torch.allclose(a, b, rtol=1e-4, atol=1e-5)


def test_by_hand() -> None:
    """One block, d = 2: two events and the target of the second.

    A normalised vector of two numbers is (1, -1) or (-1, 1), whatever they are, so all can be followed on paper.
    """
    model = recommender(embedding_size=2, max_length=2, blocks=1)
    params = model.init_params(5, torch.Generator().manual_seed(0))
    one, zero = torch.eye(2), torch.zeros(2, 2)
    dense = {
        **params.dense,
        "W1_query": zero,
        "W1_key": zero,  # attention weights are then equal: 1, and (1/2, 1/2)
        "W1_value": one,
        "W1_output": 3 * one,
        "W1_inner": one,
        "W1_outer": zero,
        "b1_outer": torch.tensor([0.5, -0.5]),
        "P": torch.tensor([[0.0, 0.0], [0.0, 1.0]]),
        "g_last": torch.tensor([2.0, 1.0]),
        "b_last": torch.tensor([0.0, 0.5]),
    }
    root = math.sqrt(2)
    items = torch.tensor([[0.0, -1.0], [2.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]) / root
    params = PublicParams(items, dense)
    # h = (0, -1), (2, 0 + 1); q = (1, -1), (1, -1); values of the mean: (0, -1), (1, 0);
    # q + 3 a = (1, -4), (4, -1); LN: (1, -1) both; plus b_outer: (1.5, -1.5); LN: (1, -1); last: (2, -0.5).
    f = torch.tensor([2.0, -0.5])
    histories = Histories(torch.tensor([0, 2]), torch.tensor([0, 1]))
    made = model.represent(params, torch.zeros(1, 0), histories)
    assert torch.allclose(made, f[None], atol=1e-5)
    scores = model.score_all(params, made)[0]
    assert torch.allclose(scores, torch.tensor([0.5, 4, 2, -0.5, 1.5]) / root, atol=1e-5)

    # Events 0, 1, 2 with the negatives 3, 3, 3: positions predict 1 and 2; F is the same at both.
    rows = TrainingRows.build(torch.zeros(3).long(), torch.arange(3), torch.full((3, 1), 3), 1, 5, pairwise=True)
    step = model.local_step(params, torch.zeros(1, 0), rows.select(torch.tensor([0])), Loss("bpr"))
    e1, e2 = 1 / (1 + math.exp(4.5 / root)) / 2, 1 / (1 + math.exp(2.5 / root)) / 2
    expected = torch.zeros(5, 2)
    expected[1], expected[2], expected[3] = -e1 * f, -e2 * f, (e1 + e2) * f
    # LN of two numbers is flat, so nothing reaches what is below it.
    assert torch.allclose(step.rows[0].sum(5), expected, atol=1e-5)
    assert torch.allclose(step.dense.total()["b_last"], -e1 * (items[1] - items[3]) - e2 * (items[2] - items[3]))
    assert torch.allclose(step.dense.total()["W1_value"], zero, atol=1e-4)
    assert step.users.shape == (1, 0)


@pytest.mark.parametrize("residual", ["query", "input"])
@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize(("tokens", "shortest", "span"), [(3, 0.6, 64), (2**11, 0.9, 3), (2**11, 1e-9, 64)])
def test_gradients_are_those_of_each_clients_own_loss(
    residual: str,
    heads: int,
    reduction: str,
    tokens: int,
    shortest: float,
    span: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(buckets.BUCKET_TOKENS, "cpu", tokens)
    monkeypatch.setattr(buckets, "SHORTEST", shortest)
    monkeypatch.setattr(sasrec, "SPAN", span)
    model = recommender(residual=residual, heads=heads)
    params = noisy(model.init_params(M, torch.Generator().manual_seed(1)))
    positives, negatives, rows = sequences(LENGTHS, M)
    clients = torch.tensor([4, 1, 2, 0, 3])
    batch = rows.select(clients)
    step = model.local_step(params, torch.zeros(5, 0), batch, Loss("bpr", reduction))
    [block] = step.rows
    assert torch.equal(block.client, batch.client)
    assert torch.equal(block.item, batch.item)
    stacked, total = step.dense.stacked(), step.dense.total()
    assert stacked.keys() == total.keys() == params.dense.keys()
    sums = {name: torch.zeros_like(value) for name, value in params.dense.items()}
    for index, client in enumerate(clients.tolist()):
        items, dense = client_gradients(model, params, positives[client], negatives[client], reduction)
        mine = block.client == index
        assert close(block.grad()[mine], items[block.item[mine]])
        items[block.item[mine]] = 0
        assert not items.any()
        for name, value in dense.items():
            assert close(stacked[name][index], value), name
            sums[name] += value
    for name, value in sums.items():
        assert close(total[name], value), name


@pytest.mark.parametrize("span", [4, 64])
def test_gradients_with_dropout_are_those_of_autograd_under_the_same_masks(
    span: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Masks are drawn bucket by bucket, for [b, t, d] embeddings, then in each block for [b heads, s, up to t]

    attention weights of each span of s queries and the two [b, t, d] of the feed-forward layer. What is drawn again
    for the gradients client by client, when they were not kept, is the same.
    """
    monkeypatch.setattr(sasrec, "SPAN", span)
    monkeypatch.setattr(buckets, "SHORTEST", 1e-9)
    model = recommender(heads=2, dropout=0.3)
    params = noisy(model.init_params(M, torch.Generator().manual_seed(1)))
    positives, negatives, rows = sequences(LENGTHS, M)
    batch = all_clients(rows)
    n, d = len(LENGTHS), 8
    step = model.local_step(params, torch.zeros(n, 0), batch, Loss("bpr"), torch.Generator().manual_seed(9))

    order = sorted((c for c in range(n) if LENGTHS[c] > 1), key=lambda c: -min(LENGTHS[c] - 1, 10))
    b, t = len(order), 10
    again = torch.Generator().manual_seed(9)

    def draw(*shape: int) -> torch.Tensor:
        return dropout_masks(shape, 0.3, again, params.items.device)

    def draw_attention() -> torch.Tensor:
        mask = torch.zeros(2 * b, t, t)
        for start in range(0, t, span):
            end = min(start + span, t)
            mask[:, start:end, :end] = draw(2 * b, end - start, end)
        return mask

    masks = [draw(b, t, d)]
    for _ in range(2):
        masks += [draw_attention(), draw(b, t, d), draw(b, t, d)]
    expected = torch.zeros(M, d)
    for place, client in enumerate(order):
        mine = iter(masks)

        def drop(x: torch.Tensor, place: int = place, mine: object = mine) -> torch.Tensor:
            mask = next(mine)  # type: ignore[call-overload]
            if x.dim() == 3:
                return x * mask[2 * place : 2 * place + 2, : x.shape[1], : x.shape[2]]
            return x * mask[place, : len(x)]

        items, dense = client_gradients(model, params, positives[client], negatives[client], drop=drop)
        expected += items
        for name, value in dense.items():
            assert close(step.dense.stacked()[name][client], value), name
    assert close(step.rows[0].sum(M), expected)

    for kept in (0, 25):
        monkeypatch.setattr(sasrec, "KEPT_TOKENS", kept)
        monkeypatch.setitem(buckets.BUCKET_TOKENS, "cpu", 12)
        stream = torch.Generator().manual_seed(9)
        step = model.local_step(params, torch.zeros(n, 0), batch, Loss("bpr"), stream)
        dropout_masks((100,), 0.3, stream, params.items.device)  # a later round
        moved = stream.get_state()
        stacked = step.dense.stacked()
        assert torch.equal(stream.get_state(), moved)
        for name, value in step.dense.total().items():
            assert close(stacked[name].sum(0), value), name
        factor = torch.linspace(-1, 2, len(next(iter(stacked.values()))))
        for name, value in step.dense.scaled(factor).total().items():
            assert close(torch.tensordot(factor, stacked[name], 1), value), name


def test_dropout_is_off_without_a_stream() -> None:
    model = recommender(dropout=0.5)
    params = noisy(model.init_params(M, torch.Generator().manual_seed(1)))
    batch = all_clients(sequences(LENGTHS, M)[2])
    users = torch.zeros(len(LENGTHS), 0)
    without = recommender().local_step(params, users, batch, Loss("bpr"))
    assert torch.equal(model.local_step(params, users, batch, Loss("bpr")).rows[0].sum(M), without.rows[0].sum(M))
    dropped = model.local_step(params, users, batch, Loss("bpr"), torch.Generator().manual_seed(0))
    assert not torch.allclose(dropped.rows[0].sum(M), without.rows[0].sum(M))


def test_a_longer_neighbour_changes_nothing() -> None:
    model = recommender()
    params = noisy(model.init_params(M, torch.Generator().manual_seed(1)))
    rows = sequences([4, 14, 1], M)[2]
    alone = model.local_step(params, torch.zeros(1, 0), rows.select(torch.tensor([0])), Loss("bpr"))
    beside = model.local_step(params, torch.zeros(3, 0), rows.select(torch.tensor([0, 1, 2])), Loss("bpr"))
    mine = beside.rows[0].client == 0
    assert close(beside.rows[0].grad()[mine], alone.rows[0].grad())
    for name, value in alone.dense.stacked().items():
        assert close(beside.dense.stacked()[name][0], value[0]), name


def test_a_single_event_gives_no_position_and_no_gradient() -> None:
    model = recommender()
    params = noisy(model.init_params(M, torch.Generator().manual_seed(1)))
    batch = all_clients(sequences([1, 1], M)[2])
    step = model.local_step(params, torch.zeros(2, 0), batch, Loss("bpr"))
    assert len(step.rows[0].item) == len(batch.item) == 4
    assert not step.rows[0].grad().any()
    for name, value in params.dense.items():
        assert torch.equal(step.dense.total()[name], torch.zeros_like(value))
        assert torch.equal(step.dense.stacked()[name], torch.zeros(2, *value.shape))


def test_only_the_last_events_count() -> None:
    model = recommender(max_length=4)
    params = noisy(model.init_params(M, torch.Generator().manual_seed(1)))
    positives, negatives, rows = sequences([9], M)
    step = model.local_step(params, torch.zeros(1, 0), all_clients(rows), Loss("bpr"))
    items, _ = client_gradients(model, params, positives[0][4:], negatives[0][4:])
    assert close(step.rows[0].sum(M), items)


def test_a_history_longer_than_the_positions_is_cut_and_an_empty_one_is_zero() -> None:
    model = recommender(max_length=6)
    params = noisy(model.init_params(M, torch.Generator().manual_seed(1)))
    events = torch.arange(9)
    histories = Histories(torch.tensor([0, 0, 9, 10, 10]), torch.cat([events, torch.tensor([3])]))
    made = model.represent(params, torch.zeros(4, 0), histories)
    assert not made[[0, 3]].any()
    assert close(made[1], outputs(model, params, events[3:])[-1])
    assert close(made[2], outputs(model, params, torch.tensor([3]))[-1])
    assert model.represent(params, torch.zeros(1, 0), Histories(torch.zeros(2).long(), events[:0])).shape == (1, 8)


def test_regularization_pulls_the_rows_that_are_touched() -> None:
    model = recommender()
    params = noisy(model.init_params(M, torch.Generator().manual_seed(1)))
    batch = all_clients(sequences(LENGTHS, M)[2])
    users = torch.zeros(len(LENGTHS), 0)
    plain = model.local_step(params, users, batch, Loss("bpr")).rows[0].grad()
    pulled = model.local_step(params, users, batch, Loss("bpr", regularization=0.1)).rows[0].grad()
    assert close(pulled - plain, 0.1 * params.items[batch.item])


def test_every_way_to_score_gives_the_same_logit() -> None:
    model = recommender()
    params = noisy(model.init_params(M, torch.Generator().manual_seed(1)))
    f = torch.randn(4, 8, generator=torch.Generator().manual_seed(2))
    aligned = model.logits(params.dense, f[:, None].expand(4, M, -1), params.items.expand(4, M, -1))
    assert close(model.score_all(params, f), aligned)


def test_sizes_and_initial_values() -> None:
    model = SelfAttentiveSequentialRecommender(SelfAttentiveSequentialRecommender.Params())
    params = model.init_params(M, torch.Generator().manual_seed(0))
    block = sum(value.numel() for name, value in params.dense.items() if name[1:2] == "1")
    assert block == 6 * (64 * 64 + 64) + 4 * 64 == 25_216
    assert sum(value.numel() for value in params.dense.values()) == 2 * block + 200 * 64 + 128
    assert params.items.abs().max() <= (6 / (M + 64)) ** 0.5
    for name, value in params.dense.items():
        if name[0] == "b":
            assert not value.any()
        elif name[0] == "g":
            assert bool((value == 1).all())
        else:
            bound = (6 / sum(value.shape)) ** 0.5
            assert 0.98 * bound < value.abs().max() <= bound
    assert model.init_users(7, torch.Generator()).shape == (7, 0)
    assert MODELS.get("sasrec") is SelfAttentiveSequentialRecommender


def test_what_does_not_fit_is_said_in_one_line() -> None:
    model = recommender()
    params = model.init_params(M, torch.Generator().manual_seed(1))
    batch = all_clients(sequences([3, 4], M)[2])
    users = torch.zeros(2, 0)
    with pytest.raises(UserError, match='loss = "bpr"'):
        model.local_step(params, users, batch, Loss("bce"))
    with pytest.raises(UserError, match='loss = "bpr"'):
        model.local_step(params, users, replace(batch, pair_positive=None, pair_negative=None), Loss("bpr"))
    user, item = torch.tensor([0, 0]), torch.tensor([1, 2])
    two = TrainingRows.build(user, item, torch.tensor([[3, 4], [5, 6]]), 1, M, pairwise=True)
    with pytest.raises(UserError, match="negatives_per_positive = 1"):
        model.local_step(params, users[:1], two.select(torch.tensor([0])), Loss("bpr"))
    with pytest.raises(UserError, match=r"parameter heads = 3: .*must divide embedding_size = 8"):
        parse_parameters(SelfAttentiveSequentialRecommender.Params, {"embedding_size": 8, "heads": 3}, "model 'sasrec'")


@pytest.mark.parametrize("defended", [False, True])
def test_a_federation_trains_it(defended: bool) -> None:
    g = torch.Generator().manual_seed(3)
    length = torch.randint(2, 9, (12,), generator=g)
    user = torch.arange(12).repeat_interleave(length)
    start = torch.randint(0, 20, (12,), generator=g)
    # Everybody goes from one item to the next: what a model of sequences learns and one of sets does not.
    rank = torch.arange(len(user)) - (length.cumsum(0) - length)[user]
    item = (start[user] + rank) % 20
    task = Task(12, 20, user, item, torch.tensor([19]), 0)
    protocol = Protocol(
        loss="bpr", negatives_per_positive=1, clients_per_round=6, learning_rate=0.5, aggregation="mean"
    )
    defense = NormBound(NormBound.Params(bound=100.0, scope="client")) if defended else NoDefense(NoParameters())
    model = recommender(embedding_size=16)
    federation = Federation(task, model, NoAttack(NoParameters()), defense, 0.0, protocol, 0)
    starts = torch.cat([length.new_zeros(1), length.cumsum(0)])

    def rank_of_the_next() -> float:
        f = model.represent(federation.params, federation.users, Histories(starts, item))
        scores = model.score_all(federation.params, f)
        following = (item[starts[1:] - 1] + 1) % 20
        return float((scores >= scores.gather(1, following[:, None])).sum(1).float().mean())

    before = rank_of_the_next()
    for _ in range(60):
        federation.train_epoch()
    federation.check_finite()
    assert rank_of_the_next() < 0.6 * before


def test_nothing_of_a_round_is_kept_for_users_without_an_embedding() -> None:
    g = torch.Generator().manual_seed(3)
    user = torch.arange(6).repeat_interleave(5)
    task = Task(6, 20, user, torch.randint(0, 20, (30,), generator=g), torch.tensor([19]), 0)
    protocol = Protocol(loss="bpr", clients_per_round=3, user_optimizer="adam")
    federation = Federation(task, recommender(), NoAttack(NoParameters()), NoDefense(NoParameters()), 0.0, protocol, 0)
    federation.train_epoch()
    assert federation.training._moves == []
