from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from federations import small_federation, small_task
from robust_oracles import full

from fedbench.attacks import ATTACKS
from fedbench.attacks.spattack import IgnorantSpattack, OmniscientSpattack, Spattack, draw_by_popularity
from fedbench.defenses.none import NoDefense
from fedbench.entries.cards import NoParameters
from fedbench.federation import server
from fedbench.federation.protocol import Protocol
from fedbench.federation.rows import FullRows
from fedbench.federation.simulation import Federation
from fedbench.federation.updates import Common, DenseGradients, Updates, concat
from fedbench.federation.view import AttackerView
from fedbench.models import MODELS

MakeView = Callable[..., AttackerView]
AGGREGATIONS = ("sum", "mean", "weighted")


def attack(view: AttackerView, cls: type[Spattack], **params: Any) -> Spattack:
    made = cls(cls.Params(**params))
    made.start(view)
    return made


def honest_uploads(num_items: int = 20, size: int = 4, common: bool = False) -> Updates:
    """Five honest clients of 3, 5, ... samples that touch a third of the items each."""
    g = torch.Generator().manual_seed(8)
    client, item = (torch.rand(5, num_items, generator=g) < 0.3).nonzero(as_tuple=True)
    return Updates(
        torch.arange(5),
        (FullRows(client, item, torch.randn(len(item), size, generator=g)),),
        DenseGradients.of({}),
        torch.arange(3.0, 13.0, 2.0),
        Common(torch.randn(num_items, size, generator=g), torch.ones(5)) if common else None,
    )


# ------------------------------------------------------------------------------------------------------------ omniscient


def test_a_sum_is_cancelled_by_hand(make_view: MakeView) -> None:
    # Item 0 gets 2 and 4, item 2 gets 1: two malicious clients send -3 and -1/2 each, and 0 for item 1.
    rows = FullRows(torch.tensor([0, 1, 1]), torch.tensor([0, 0, 2]), torch.tensor([[2.0], [4.0], [1.0]]))
    honest = Updates(torch.arange(2), (rows,), DenseGradients.of({}), torch.tensor([1.0, 3.0]))
    view = make_view(OmniscientSpattack.card, m=2, num_items=3, embedding_size=1, honest_updates=honest, targets=())
    sent = full(attack(view, OmniscientSpattack).craft(view), 3)
    assert sent[:, :, 0].tolist() == [[-3.0, 0.0, -0.5]] * 2


def test_a_weighted_mean_is_cancelled_by_hand(make_view: MakeView) -> None:
    # Weights 1 and 3: item 0 gets 2 + 12 = 14, item 2 gets 3, and each item 2 (1 + 3) from what is common. The two
    # malicious clients have two samples each.
    rows = FullRows(torch.tensor([0, 1, 1]), torch.tensor([0, 0, 2]), torch.tensor([[2.0], [4.0], [1.0]]))
    common = Common(torch.full((3, 1), 2.0), torch.ones(2))
    honest = Updates(torch.arange(2), (rows,), DenseGradients.of({}), torch.tensor([1.0, 3.0]), common)
    view = make_view(
        OmniscientSpattack.card,
        m=2,
        num_items=3,
        embedding_size=1,
        honest_updates=honest,
        aggregation="weighted",
        targets=(),
    )
    updates = attack(view, OmniscientSpattack).craft(view)
    assert updates.weights.tolist() == [2.0, 2.0]
    assert full(updates, 3)[:, :, 0].tolist() == [[-22 / 4, -8 / 4, -11 / 4]] * 2


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
@pytest.mark.parametrize("items", ["dense", "sampled"])
@pytest.mark.parametrize("common", [False, True])
@pytest.mark.parametrize("m", [1, 3])
def test_uploads_agree_with_plain_loops(
    aggregation: str, items: str, common: bool, m: int, make_view: MakeView
) -> None:
    honest = honest_uploads(common=common)
    view = make_view(OmniscientSpattack.card, m=m, honest_updates=honest, aggregation=aggregation, targets=())
    made = attack(view, OmniscientSpattack, items=items, items_per_client=9)
    updates = made.craft(view)
    weights = updates.weights.tolist() if aggregation == "weighted" else [1.0] * m
    shares = honest.weights.tolist() if aggregation == "weighted" else [1.0] * 5
    table = full(honest, 20)
    chosen = [[items == "dense" or bool(made._chosen[c, j]) for j in range(20)] for c in view.clients.tolist()]
    expected = torch.zeros(m, 20, 4)
    for j in range(20):
        total = sum(share * row for share, row in zip(shares, table[:, j], strict=True))
        behind = sum(w for w, c in zip(weights, chosen, strict=True) if c[j])
        for client in range(m):
            if chosen[client][j]:
                expected[client, j] = -total / behind
    assert torch.allclose(full(updates, 20), expected, atol=1e-5)
    if items == "sampled":
        assert [sum(each) for each in chosen] == [9] * m
    received = concat([honest, updates])
    left = server.aggregate(received, view.params, aggregation).items
    hit = torch.tensor(chosen).any(0)
    assert bool((left[hit].abs() < 1e-5).all())
    if not hit.all():
        assert bool((left[~hit] != 0).any())


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_dense_gradients_are_left_alone_or_cancelled(aggregation: str, make_view: MakeView) -> None:
    shapes = {n: tuple(v.shape) for n, v in make_view(OmniscientSpattack.card, "ncf").params.dense.items()}
    g = torch.Generator().manual_seed(1)
    gradients = {name: torch.randn(5, *shape, generator=g) for name, shape in shapes.items()}
    honest = replace(honest_uploads(), dense=DenseGradients.of(gradients))
    view = make_view(OmniscientSpattack.card, "ncf", honest_updates=honest, aggregation=aggregation)
    idle = attack(view, OmniscientSpattack).craft(view)
    assert all(bool((value == 0).all()) for value in idle.dense.stacked().values())
    assert {name: tuple(value.shape[1:]) for name, value in idle.dense.stacked().items()} == shapes
    both = concat([honest, attack(view, OmniscientSpattack, poison_dense=True).craft(view)])
    for value in server.aggregate(both, view.params, aggregation).dense.values():
        assert bool((value.abs() < 1e-5).all())


def test_without_honest_uploads_there_is_nothing_to_cancel(make_view: MakeView) -> None:
    for aggregation in AGGREGATIONS:
        view = make_view(
            OmniscientSpattack.card,
            honest_updates=honest_uploads().keep(torch.zeros(5, dtype=torch.bool)),
            aggregation=aggregation,
        )
        assert bool((full(attack(view, OmniscientSpattack).craft(view), 20) == 0).all())


def test_the_largest_honest_upload_sets_how_many_items_are_sampled(make_view: MakeView) -> None:
    honest = honest_uploads()
    view = make_view(OmniscientSpattack.card, honest_updates=honest, item_popularity=torch.ones(20, dtype=torch.int64))
    made = attack(view, OmniscientSpattack, items="sampled")
    sent = full(made.craft(view), 20)
    largest = int(torch.bincount(honest.rows[0].client).max())
    assert made._chosen.sum(1).tolist() == [largest] * view.num_malicious
    assert 0 < largest < 20
    before = made._chosen.clone()
    assert torch.equal(full(made.craft(view), 20), sent)  # the items stay
    assert torch.equal(made._chosen, before)


# -------------------------------------------------------------------------------------------------------------- ignorant


def test_all_clients_send_the_same_rows_in_every_round(make_view: MakeView) -> None:
    view = make_view(IgnorantSpattack.card, num_items=500, targets=())
    made = attack(view, IgnorantSpattack, scale=2.0)
    one, two = full(made.craft(view), 500), full(made.craft(view), 500)
    assert torch.equal(one, two)
    assert torch.equal(one[0], one[1])
    assert float(one[0].std()) == pytest.approx(2.0, rel=0.1)
    assert float(one[0].mean()) == pytest.approx(0.0, abs=0.2)


def test_sampled_rows_are_those_of_its_items(make_view: MakeView) -> None:
    view = make_view(IgnorantSpattack.card)
    made = attack(view, IgnorantSpattack, items="sampled")
    sent = full(made.craft(view), 20)
    for row, client in zip(sent, view.clients.tolist(), strict=True):
        chosen = made._chosen[client]
        assert int(chosen.sum()) == 12  # six positives each, and as many negatives
        assert torch.equal(row[chosen], made.drift[chosen])
        assert bool((row[~chosen] == 0).all())


def test_random_dense_gradients_stay_the_same(make_view: MakeView) -> None:
    view = make_view(IgnorantSpattack.card, "ncf")
    made = attack(view, IgnorantSpattack, poison_dense=True)
    one, two = made.craft(view).dense.stacked(), made.craft(view).dense.stacked()
    for name, value in one.items():
        assert value.shape == (3, *view.params.dense[name].shape)
        assert torch.equal(value, two[name])
        assert torch.equal(value[0], value[2])
        assert bool((value[0] != 0).all())


def test_weights_are_the_numbers_of_samples(make_view: MakeView) -> None:
    view = make_view(IgnorantSpattack.card, loss="bpr")
    assert attack(view, IgnorantSpattack).craft(view).weights.tolist() == [12.0] * 3


@pytest.mark.parametrize("cls", [OmniscientSpattack, IgnorantSpattack])
def test_seeds_decide_and_the_global_stream_is_left_alone(cls: type[Spattack], make_view: MakeView) -> None:
    state = torch.random.get_rng_state()
    sent = []
    for seed in (0, 0, 1):
        view = make_view(cls.card, honest_updates=honest_uploads(), seed=seed)
        sent.append(full(attack(view, cls, items="sampled", items_per_client=5).craft(view), 20))
    assert torch.equal(sent[0], sent[1])
    assert not torch.equal(sent[0], sent[2])
    assert torch.equal(torch.random.get_rng_state(), state)


# ---------------------------------------------------------------------------------------------------- items by popularity


def test_popular_items_are_drawn_in_proportion() -> None:
    popularity = torch.tensor([0, 1, 3, 4])
    g = torch.Generator().manual_seed(0)
    one = draw_by_popularity(popularity, 8000, 1, g).float()
    assert one.sum(1).tolist() == [1.0] * 8000
    assert one.mean(0).tolist() == pytest.approx([0, 1 / 8, 3 / 8, 1 / 2], abs=0.02)
    # Two without replacement: item 1 first (1/8), or after item 2 (3/8 * 1/5) or item 3 (1/2 * 1/4).
    two = draw_by_popularity(popularity, 8000, 2, g).float()
    assert float(two.mean(0)[1]) == pytest.approx(1 / 8 + 3 / 40 + 1 / 8, abs=0.02)
    assert two.sum(1).tolist() == [2.0] * 8000


def test_no_more_items_than_there_are_popular_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    popularity = torch.tensor([0, 1, 3, 4])
    assert draw_by_popularity(popularity, 3, 9, torch.Generator()).tolist() == [[False, True, True, True]] * 3
    assert not draw_by_popularity(torch.zeros(4, dtype=torch.int64), 3, 2, torch.Generator()).any()
    monkeypatch.setattr("fedbench.attacks.spattack.CHUNK", 8)
    assert draw_by_popularity(popularity, 5, 2, torch.Generator()).sum(1).tolist() == [2] * 5


# ------------------------------------------------------------------------------------------------------- in a federation

AAAI23: dict[str, Any] = {
    "regularized": "all",
    "regularization": 0.01,
    "loss": "bpr",
    "aggregation": "weighted",
    "server_optimizer": "adam",
    "user_optimizer": "adam",
    "malicious_clients": "compromised",
    "learning_rate": 0.02,
}
SETTINGS: list[tuple[str, dict[str, Any]]] = [("mf", {}), ("ncf", {}), ("mf", AAAI23), ("ncf", AAAI23)]


@pytest.mark.parametrize("name", ["spattack-o", "spattack-l"])
@pytest.mark.parametrize("items", ["dense", "sampled"])
@pytest.mark.parametrize(("model", "protocol"), SETTINGS)
def test_whole_federations(name: str, items: str, model: str, protocol: dict[str, Any]) -> None:
    cls = ATTACKS.get(name)
    task = replace(small_task(num_malicious=4), targets=torch.empty(0, dtype=torch.int64))
    runs = []
    for start in (2, 2, 99):
        made = cls(cls.Params(items=items, profile_size=5, poison_dense=start == 2))
        federation = small_federation(model, made, task=task, attack_start=start, **protocol)
        federation.train_epoch()
        before = federation.params.items.clone()
        federation.train_epoch()
        federation.check_finite()
        runs.append((before, federation.params.items))
    assert torch.equal(runs[0][1], runs[1][1])
    assert torch.equal(runs[0][0], runs[2][0])
    assert not torch.equal(runs[0][1], runs[2][1])


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_items_stay_where_they_are_when_every_round_has_a_malicious_client(aggregation: str) -> None:
    cls = ATTACKS.get("spattack-o")
    federation = small_federation(
        "mf", cls(cls.Params()), num_malicious=3, aggregation=aggregation, clients_per_round=100, loss="bpr"
    )
    before = federation.params.items.clone()
    users = federation.users.clone()
    for _ in range(3):
        federation.train_epoch()
    assert torch.allclose(federation.params.items, before, atol=1e-5)
    assert float((federation.users - users).abs().max()) > 1e-3


@pytest.mark.parametrize("name", ["spattack-o", "spattack-l"])
def test_sequences_count_as_an_honest_client_counts_them(name: str) -> None:
    """SASRec weighs by positions with a target, not by rows: an upload must not claim twice as many."""
    cls = ATTACKS.get(name)
    seen: list[tuple[Updates, Updates]] = []

    class Spy(cls):  # type: ignore[misc, valid-type]
        def craft(self, view: AttackerView) -> Updates:
            crafted: Updates = super().craft(view)
            seen.append((crafted, view.honest().updates))
            return crafted

    task = replace(small_task(num_malicious=4), targets=torch.empty(0, dtype=torch.int64))
    model = MODELS.get("sasrec")
    federation = Federation(
        task,
        model(model.Params(embedding_size=4, max_length=6, blocks=1)),
        Spy(cls.Params()),
        NoDefense(NoParameters()),
        4 / 30,
        Protocol(**{"clients_per_round": 8} | AAAI23),
        0,
    )
    federation.train_epoch()
    assert seen
    for crafted, honest in seen:
        assert torch.equal(crafted.weights, honest.weights)
