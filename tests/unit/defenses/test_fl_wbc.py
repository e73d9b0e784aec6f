from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from federations import small_federation

from fedbench.attacks.explicit_boost import ExplicitBoost
from fedbench.defenses import DEFENSES, Defense, ServerView
from fedbench.defenses.chain import Chain
from fedbench.defenses.fl_wbc import MF_SCALE, NCF_SCALE, WhiteBloodCells, masked_noise
from fedbench.entries.cards import DefenseCard, NoParameters
from fedbench.federation.batch import Batch
from fedbench.federation.model import LocalStep
from fedbench.federation.rows import FullRows, OuterRows
from fedbench.federation.updates import DenseGradients
from fedbench.models import PublicParams


def make(**params: Any) -> WhiteBloodCells:
    return WhiteBloodCells(WhiteBloodCells.Params(**params))


def view(params: PublicParams, seed: int = 0) -> ServerView:
    return ServerView(params, 1.0, "sum", None, 1, 0, torch.Generator().manual_seed(seed))


def batch_of(clients: list[int], client: list[int], item: list[int]) -> Batch:
    """A batch of which only the ids matter."""
    c = torch.tensor(client, dtype=torch.int64)
    ones = torch.ones(len(client))
    starts = torch.searchsorted(c, torch.arange(len(clients) + 1))
    return Batch(
        torch.tensor(clients), starts, c, torch.tensor(item, dtype=torch.int64), ones, ones, torch.ones(len(clients))
    )


def step_of(batch: Batch, values: torch.Tensor, dense: dict[str, torch.Tensor] | None = None) -> LocalStep:
    rows = FullRows(batch.client, batch.item, values)
    return LocalStep((rows,), DenseGradients.of(dense or {}), torch.full((len(batch.clients), values.shape[1]), 0.5))


class PlainWhiteBloodCells:
    """A dictionary for each client, and one number at a time; the noise is handed in."""

    def __init__(self) -> None:
        self.last: dict[int, dict[tuple[Any, ...], float]] = {}

    def send(
        self, client: int, gradient: dict[tuple[Any, ...], float], noise: dict[tuple[Any, ...], float]
    ) -> dict[tuple[Any, ...], float]:
        """``gradient`` has every coordinate that is kept, ``noise`` those that may be perturbed."""
        before = self.last.get(client, {})
        sent = dict.fromkeys(noise, 0.0) | gradient
        for place, y in noise.items():
            now = gradient.get(place, 0.0)
            if abs(now - before.get(place, 0.0)) <= abs(y):
                sent[place] = now - y
        self.last[client] = dict(gradient)
        return sent


def drawn(count: int, size: int, scale: float, seed: int) -> torch.Tensor:
    """The noise of [count, size] coordinates, laid bare: a change of 0 lets all of it through."""
    return masked_noise(torch.zeros(count, size), scale, torch.Generator().manual_seed(seed))


def test_noise_goes_where_the_gradient_hardly_changed_by_hand() -> None:
    params = PublicParams(torch.zeros(3, 2), {})
    batch = batch_of([4], [0, 0], [0, 2])
    first = torch.tensor([[5.0, -5.0], [9.0, 9.0]])
    second = torch.tensor([[5.0, 5.0], [9.0, -9.0]])
    defense = make(scale=0.01)
    # Everything changes by 5 or more from the zero of the start: |Y| never reaches that.
    sent = defense.client_update(step_of(batch, first), params, torch.zeros(1, 2), batch, view(params))
    assert torch.equal(sent.rows[0].grad(), first)
    # (0, 0) and (2, 0) are as they were: they get the noise, the other two do not.
    sent = defense.client_update(step_of(batch, second), params, torch.zeros(1, 2), batch, view(params, 7))
    noise = drawn(2, 2, 0.01, 7)
    assert bool((noise != 0).all())
    assert torch.allclose(sent.rows[0].grad(), second - noise * torch.tensor([[1.0, 0], [1, 0]]))
    assert torch.equal(sent.users, torch.full((1, 2), 0.5))


@pytest.mark.parametrize("rows", ["touched", "all"])
def test_agrees_with_the_plain_loop_over_rounds_and_changing_rows(rows: str) -> None:
    num_items, size, scale = 6, 2, 0.5
    g = torch.Generator().manual_seed(5)
    defense, plain = make(scale=scale, rows=rows), PlainWhiteBloodCells()
    params = PublicParams(torch.zeros(num_items, size), {})
    touched = torch.rand(9, num_items, generator=g) < 0.5
    for r, cohort in enumerate([[3, 8], [1], [8, 1, 3], [3, 1], [1, 3], [8, 0, 1, 3], [3, 8, 0, 1]]):
        if r in (2, 3):  # some rows come, some go; afterwards they stay
            touched = torch.rand(9, num_items, generator=g) < 0.5
        client, item = touched[cohort].nonzero().T
        batch = batch_of(cohort, client.tolist(), item.tolist())
        values = torch.randn(len(item), size, generator=g)
        sent = defense.client_update(step_of(batch, values), params, torch.zeros(1), batch, view(params, r)).rows[0]
        if rows == "all":
            assert sent.client.tolist() == [c for c in range(len(cohort)) for _ in range(num_items)]
            assert sent.item.tolist() == list(range(num_items)) * len(cohort)
        noise = drawn(len(sent.item), size, scale, r)
        for c, user in enumerate(cohort):
            gradient = {
                (j, k): float(values[i, k]) for i, j in enumerate(item.tolist()) if client[i] == c for k in range(size)
            }
            at = [i for i in range(len(sent.item)) if sent.client[i] == c]
            handed = {(int(sent.item[i]), k): float(noise[i, k]) for i in at for k in range(size)}
            expected = plain.send(user, gradient, handed)
            found = {(int(sent.item[i]), k): float(sent.grad()[i, k]) for i in at for k in range(size)}
            assert found == pytest.approx(expected)


def test_weights_of_dense_parameters_get_noise_and_biases_do_not() -> None:
    params = PublicParams(torch.zeros(3, 2), {"W1": torch.zeros(2, 3), "b1": torch.zeros(2), "bh": torch.zeros(1)})
    g = torch.Generator().manual_seed(0)
    defense, plain = make(scale=0.3), PlainWhiteBloodCells()
    for r, cohort in enumerate([[2, 5], [5, 7], [7, 2, 5]]):
        batch = batch_of(cohort, list(range(len(cohort))), [0] * len(cohort))
        values = torch.randn(len(cohort), 2, generator=g)
        dense = {name: torch.randn(len(cohort), *value.shape, generator=g) for name, value in params.dense.items()}
        sent = defense.client_update(
            step_of(batch, values, dense), params, torch.zeros(1), batch, view(params, r)
        ).dense
        for name in ("b1", "bh"):
            assert torch.equal(sent.stacked()[name], dense[name])
        noise = drawn(len(cohort), 6, 0.3, r)
        for c, user in enumerate(cohort):
            flat = dense["W1"][c].flatten()
            expected = plain.send(
                user, {(k,): float(flat[k]) for k in range(6)}, {(k,): float(noise[c, k]) for k in range(6)}
            )
            assert sent.stacked()["W1"][c].flatten().tolist() == pytest.approx(list(expected.values()))
        assert torch.allclose(sent.total()["W1"], sent.stacked()["W1"].sum(0))


def test_the_noise_is_laplace() -> None:
    noise = drawn(1000, 200, 0.4, 3).double().flatten()
    assert len(noise.unique()) > 100_000
    assert bool(noise.isfinite().all())
    assert float(noise.mean()) == pytest.approx(0, abs=0.01)
    assert float(noise.abs().mean()) == pytest.approx(0.4, rel=0.02)
    assert float(noise.std()) == pytest.approx(0.4 * math.sqrt(2), rel=0.02)
    for t in (0.1, 0.5, 2.0):
        assert float((noise > t).double().mean()) == pytest.approx(0.5 * math.exp(-t / 0.4), abs=0.005)
        assert float((noise < -t).double().mean()) == pytest.approx(0.5 * math.exp(-t / 0.4), abs=0.005)


def test_the_extremes_of_the_uniform_number_give_finite_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    edges = torch.tensor([0.0, 2**-24, 0.5, 1 - 2**-24])
    monkeypatch.setattr(torch, "rand", lambda *_, **__: edges.clone())
    noise = masked_noise(torch.zeros(4), 2.0, torch.Generator())
    assert noise.abs().tolist() == pytest.approx([46 * math.log(2), 46 * math.log(2), 0, 46 * math.log(2)])
    assert noise[0] < 0 < noise[3]


@pytest.mark.parametrize("model", ["mf", "ncf"])
def test_hardly_any_noise_is_no_defense_and_users_never_get_any(model: str) -> None:
    clean = small_federation(model, clients_per_round=100)
    faint = small_federation(model, defense=make(scale=1e-9), clients_per_round=100)
    loud = small_federation(model, defense=make(scale=0.1), clients_per_round=100)
    for federation in (clean, faint, loud):
        federation.train_epoch()
    assert torch.equal(clean.users, loud.users)
    assert not torch.allclose(clean.params.items, loud.params.items, atol=1e-3)
    for _ in range(2):
        clean.train_epoch()
        faint.train_epoch()
    assert torch.allclose(clean.params.items, faint.params.items, atol=1e-5)
    for name, value in clean.params.dense.items():
        assert torch.allclose(value, faint.params.dense[name], atol=1e-5)


@pytest.mark.parametrize("model", ["mf", "ncf"])
def test_one_seed_gives_the_same_noise_and_a_client_s_rows_stay_in_one_place(model: str) -> None:
    runs = [small_federation(model, defense=make(scale=0.01, rows=rows)) for rows in ("touched", "touched", "all")]
    for federation in runs:
        for _ in range(3):
            federation.train_epoch()
    assert torch.equal(runs[0].params.items, runs[1].params.items)
    assert not torch.equal(runs[0].params.items, runs[2].params.items)


def kept_keys(defense: WhiteBloodCells) -> torch.Tensor:
    """The keys of all rows that it remembers."""
    memory = defense._last["items"]
    assert memory.keys is not None
    return memory.keys[memory._places(torch.arange(len(memory.starts)))]


@pytest.mark.parametrize("protocol", [{"negatives": "epoch"}, {"local_batch": 3, "schedule": "independent"}])
def test_memory_is_one_participation_of_each_client(protocol: dict[str, Any]) -> None:
    defense = make(scale=0.01)
    federation = small_federation(defense=defense, **protocol)
    for _ in range(4):
        federation.train_epoch()
    keys = kept_keys(defense)
    assert torch.equal(keys, keys.unique())
    most = 3 if "local_batch" in protocol else 24
    assert int(torch.bincount(keys // 40).max()) <= most
    table = defense._last["items"].keys
    assert table is not None
    assert len(table) <= 2 * 30 * most


def test_malicious_clients_do_not_take_part() -> None:
    defense = make(scale=0.01)
    attack = ExplicitBoost(ExplicitBoost.Params())
    federation = small_federation("mf", attack, defense, num_malicious=4, clients_per_round=100)
    federation.train_epoch()
    keys = kept_keys(defense)
    assert len(keys)
    assert int(keys.max()) // 40 < 30


@pytest.mark.parametrize(("model", "scale"), [("mf", MF_SCALE), ("ncf", NCF_SCALE)])
def test_the_default_scale_follows_the_model(model: str, scale: float) -> None:
    one, two = (small_federation(model, defense=make(**values)) for values in ({}, {"scale": scale}))
    one.train_epoch()
    two.train_epoch()
    assert torch.equal(one.params.items, two.params.items)


@pytest.mark.parametrize("rows", ["touched", "all"])
def test_clients_without_rows_and_a_cohort_without_clients(rows: str) -> None:
    params = PublicParams(torch.zeros(3, 2), {})
    defense = make(scale=0.1, rows=rows)
    for cohort in ([0], [], [0, 1]):
        batch = batch_of(cohort, [], [])
        sent = defense.client_update(step_of(batch, torch.zeros(0, 2)), params, torch.zeros(1), batch, view(params))
        assert len(sent.rows[0].item) == (0 if rows == "touched" else 3 * len(cohort))


class Double(Defense):
    card = DefenseCard("double", "Double", "")

    def client_update(
        self, local: LocalStep, params: PublicParams, users: torch.Tensor, batch: Batch, server: ServerView
    ) -> LocalStep:
        rows = tuple(block.scaled(torch.full_like(block.norms(), 2.0)) for block in local.rows)
        return LocalStep(rows, local.dense, 2 * local.users)


class AddOne(Defense):
    card = DefenseCard("add-one", "Add one", "")

    def client_update(
        self, local: LocalStep, params: PublicParams, users: torch.Tensor, batch: Batch, server: ServerView
    ) -> LocalStep:
        rows = tuple(FullRows(block.client, block.item, block.grad() + 1) for block in local.rows)
        return LocalStep(rows, local.dense, local.users + 1)


def test_client_updates_of_a_chain_run_in_order_and_reach_users_and_server() -> None:
    clean = small_federation(clients_per_round=100)
    items, users = clean.params.items.clone(), clean.users.clone()
    touched = torch.bincount(clean.population.rows.item, minlength=40)[:, None]
    one = small_federation(clients_per_round=100, defense=Chain([Double(NoParameters()), AddOne(NoParameters())]))
    two = small_federation(clients_per_round=100, defense=Chain([AddOne(NoParameters()), Double(NoParameters())]))
    for federation in (clean, one, two):
        federation.train_epoch()
    step = 2 * (clean.params.items - items)
    assert torch.allclose(one.params.items - items, step - 0.5 * touched, atol=1e-5)
    assert torch.allclose(two.params.items - items, step - touched, atol=1e-5)
    assert torch.allclose(one.users - users, 2 * (clean.users - users) - 0.5, atol=1e-5)


def test_factored_rows_are_understood() -> None:
    params = PublicParams(torch.zeros(3, 2), {})
    batch = batch_of([0, 1], [0, 1], [2, 2])
    outer = OuterRows(batch.client, batch.item, torch.tensor([3.0, -4.0]), batch.client, torch.ones(2, 2))
    local = LocalStep((outer,), DenseGradients.of({}), torch.zeros(2, 2))
    sent = make(scale=0.01).client_update(local, params, torch.zeros(2, 2), batch, view(params))
    assert torch.equal(sent.rows[0].grad(), torch.tensor([[3.0, 3.0], [-4, -4]]))


def test_it_is_in_the_registry() -> None:
    assert DEFENSES.get("fl-wbc") is WhiteBloodCells
