"""NNM and bucketing before robust rules: by hand, against plain loops, and what they leave as it was."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from federations import small_federation
from hypothesis import given, settings
from hypothesis import strategies as st
from robust_oracles import RULES, Rule, Vectors, by_client, by_item, make_updates, server_of

from fedbench.defenses.mixing import Mixing
from fedbench.federation import server as plain
from fedbench.federation.defense import Defense, Notes
from fedbench.federation.model import PublicParams
from fedbench.federation.rows import FullRows
from fedbench.federation.updates import Common, DenseGradients, Updates
from fedbench.runs.diagnostics import droppers
from fedbench.scenarios.scenario import Scenario

both_scopes = pytest.mark.parametrize("scope", ["item", "client"])
few = settings(max_examples=10, deadline=None)
M, D = 6, 3


def chain(name: str, protocol: str = "icde24", **params: Any) -> Any:
    """The defense of a scenario, as a run gets it."""
    target = "none" if protocol == "aaai23" else "random:1"
    return Scenario(
        "longtail-small", "mf", defense=name, defense_params=params, protocol=protocol, target=target
    ).resolved.defense()


def scoped(name: str, scope: str, **params: Any) -> Any:
    """A mixing and a rule in one scope; ``params`` are the mixing's."""
    mixing, rule = name.split("+")
    return chain(name, **{mixing: params, rule: {"scope": scope}})


def column(*values: float) -> Updates:
    """One item with d = 1, a row from each client."""
    n = len(values)
    rows = FullRows(torch.arange(n), torch.zeros(n, dtype=torch.int64), torch.tensor(values)[:, None])
    return Updates(torch.arange(n), (rows,), DenseGradients.of({}), torch.ones(n))


def total(
    defense: Defense, updates: Updates, share: float = 0.0, aggregation: str = "sum", items: int = M, size: int = D
) -> dict[str, np.ndarray]:
    """What a round becomes, also without a rule."""
    server = server_of(updates, items, size, share, aggregation)
    kept = defense.filter(updates, server)
    found = defense.aggregate(kept, server) or plain.aggregate(kept, server.params, aggregation)
    return {"items": found.items.double().numpy()} | {key: value.double().numpy() for key, value in found.dense.items()}


# ---------------------------------------------------------------------------------------------------------- NNM


@both_scopes
def test_nnm_by_hand(scope: str) -> None:
    """f = 1: the first four become the mean of each other, 1.75, and 100 that of 100, 4, 2 and 1."""
    updates = column(0.0, 1.0, 2.0, 4.0, 100.0)
    alone = chain("nnm", scope=scope).filter(updates, server_of(updates, 1, 1, 0.2)).all_rows()
    assert alone.values[torch.argsort(alone.client), 0].tolist() == pytest.approx([1.75, 1.75, 1.75, 1.75, 26.75])
    for rule in ("median", "krum"):
        assert total(scoped(f"nnm+{rule}", scope), updates, 0.2, items=1, size=1)["items"] == pytest.approx(5 * 1.75)


def nnm(x: Vectors, f: int) -> Vectors:
    mixed = []
    for i in range(len(x)):
        order = sorted(range(len(x)), key=lambda k: (float(((x[i] - x[k]) ** 2).sum()), k))
        mixed.append(sum(x[k] for k in order[: len(x) - f]) / (len(x) - f))
    return mixed


def after_nnm(rule: Rule) -> Rule:
    return lambda x, f: rule(nnm(x, f), f)


@both_scopes
@pytest.mark.parametrize("share", [0.0, 0.21, 0.4])
@pytest.mark.parametrize("rule", ["median", "krum", "rfa"])
def test_nnm_agrees_with_the_plain_loop(rule: str, scope: str, share: float) -> None:
    oracle = by_item if scope == "item" else by_client
    key = (rule, "definition" if rule == "krum" else "")
    for seed, whole in ((0, False), (1, True)):
        updates = make_updates(13, M, D, seed, density=0.7, copies=3 * seed, whole_numbers=whole and rule == "median")
        expected = oracle(updates, M, D, share, after_nnm(RULES[key]))
        for name, found in total(scoped(f"nnm+{rule}", scope), updates, share).items():
            np.testing.assert_allclose(found, expected[name], rtol=1e-3, atol=1e-3, err_msg=name)


@given(seed=st.integers(0, 1000), n=st.integers(1, 12), scope=st.sampled_from(["item", "client"]))
@few
def test_nnm_that_assumes_no_attacker_is_the_sum_before_any_rule(seed: int, n: int, scope: str) -> None:
    updates = make_updates(n, M, D, seed)
    for rule in ("median", "rfa"):
        found = total(scoped(f"nnm+{rule}", scope), updates)
        np.testing.assert_allclose(found["items"], updates.sum_rows(M, D), rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(found["W1"], updates.dense.total()["W1"], rtol=1e-3, atol=1e-3)


def test_nnm_over_whole_updates_weighs_by_numbers_of_samples() -> None:
    updates = replace(column(0.0, 1.0, 2.0, 4.0, 100.0), weights=torch.tensor([1.0, 2.0, 3.0, 2.0, -5.0]))
    server = server_of(updates, 1, 1, 0.2, "weighted")
    found = chain("nnm", scope="client").filter(updates, server)
    assert found.all_rows().values[:, 0].tolist() == pytest.approx([2.0] * 4 + [16 / 7])
    assert found.weights.tolist() == [1, 2, 3, 2, 0]


# ---------------------------------------------------------------------------------------------------- bucketing


@given(n=st.integers(1, 20), s=st.integers(1, 5), seed=st.integers(0, 1000), scope=st.sampled_from(["item", "client"]))
@few
def test_every_upload_is_in_one_bucket_and_all_but_the_last_are_full(n: int, s: int, seed: int, scope: str) -> None:
    """Client k sends 2^k of both items: sums say who is in a bucket. By item the order is each item's own."""
    whole = torch.full((n, 2, 1), 2.0).pow(torch.arange(n).float()[:, None, None])
    client = torch.arange(n).repeat_interleave(2)
    rows = FullRows(client, torch.tensor([0, 1]).repeat(n), whole.flatten(0, 1))
    updates = Updates(torch.arange(n), (rows,), DenseGradients.of({"W": whole[:, 0]}), torch.ones(n))
    server = server_of(updates, 2, 1)
    server.generator.manual_seed(seed)
    mixing = chain("bucketing", scope=scope, size=s, last="short")
    found = mixing.filter(updates, server)
    buckets = -(-n // s)
    assert found.mixed == s
    assert len(found.clients) == buckets == len(set(found.clients.tolist()))
    parts = [found.all_rows().values[found.all_rows().item == item, 0] for item in (0, 1)]
    for part in (*parts, found.dense.stacked()["W"][:, 0]):
        members = [[k for k in range(n) if int(each) >> k & 1] for each in part.tolist()]
        assert sorted(k for each in members for k in each) == list(range(n))
        assert sorted(map(len, members))[1:] == [s] * (buckets - 1)
    if scope == "client":
        assert torch.equal(parts[0], parts[1])
        assert torch.equal(found.dense.stacked()["W"][:, 0], parts[0])
        assert found.clients.tolist() == [int(each).bit_length() - 1 for each in (parts[0].long() & -parts[0].long())]


def test_a_last_bucket_that_is_not_full() -> None:
    """Of three in buckets of two: 1.5 times the means, or the sums; divided by 3 in the end where the server averages."""
    updates = column(2.0, 2.0, 2.0)
    for scope in ("item", "client"):
        for last, expected in (("mean", [3.0, 3.0]), ("short", [2.0, 4.0])):
            mixing = chain("bucketing", scope=scope, last=last)
            found = mixing.filter(updates, server_of(updates, 1, 1)).all_rows().values
            assert sorted(found[:, 0].tolist()) == pytest.approx(expected)
            mean = mixing.filter(updates, server_of(updates, 1, 1, aggregation="mean")).all_rows().values
            assert torch.allclose(mean.sort(dim=0).values, found.sort(dim=0).values * 2 / 3)


@given(
    seed=st.integers(0, 1000),
    scope=st.sampled_from(["item", "client"]),
    aggregation=st.sampled_from(["sum", "mean"]),
)
@few
def test_buckets_stand_for_what_is_in_them(seed: int, scope: str, aggregation: str) -> None:
    """With every bucket short or full the sum, or mean, is what it was; equal uploads are what they were before a rule."""
    updates = make_updates(7, M, D, seed)
    params = server_of(updates, M, D).params
    before = plain.aggregate(updates, params, aggregation)
    found = total(chain("bucketing", scope=scope, last="short", size=3), updates, aggregation=aggregation)
    np.testing.assert_allclose(found["items"], before.items, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found["W1"], before.dense["W1"], rtol=1e-4, atol=1e-5)
    alike = make_updates(7, M, D, seed, density=1.0, copies=7)
    before = plain.aggregate(alike, params, aggregation)
    found = total(scoped("bucketing+median", scope), alike, aggregation=aggregation)
    np.testing.assert_allclose(found["items"], before.items, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found["W1"], before.dense["W1"], rtol=1e-4, atol=1e-5)


def test_buckets_of_whole_updates_weigh_by_numbers_of_samples() -> None:
    updates = replace(make_updates(7, M, D, 0), weights=torch.arange(1.0, 8.0))
    before = plain.aggregate(updates, server_of(updates, M, D).params, "weighted")
    for size in (2, 3):
        found = total(chain("bucketing", scope="client", size=size), updates, aggregation="weighted")
        np.testing.assert_allclose(found["items"], before.items, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(found["b1"], before.dense["b1"], rtol=1e-4, atol=1e-5)


@both_scopes
@pytest.mark.parametrize("rule", ["trimmed-mean", "krum"])
def test_a_rule_assumes_a_larger_share_of_buckets(rule: str, scope: str) -> None:
    updates = make_updates(24, M, D, 0, density=0.9)
    defense = scoped(f"bucketing+{rule}", scope, size=3)
    server = server_of(updates, M, D, 0.1)
    kept = defense.filter(updates, server)
    found = defense.aggregate(kept, server)
    oracle = by_item if scope == "item" else by_client
    expected = oracle(kept, M, D, 0.3, RULES[rule, "ends" if rule == "trimmed-mean" else "definition"])
    np.testing.assert_allclose(found.items, expected["items"], rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(found.dense["W1"], expected["W1"], rtol=1e-3, atol=1e-3)
    both = chain("bucketing+nnm+median", bucketing={"size": 3, "scope": scope}, median={"scope": scope})
    server.generator.manual_seed(0)
    found = both.aggregate(both.filter(updates, server), server)
    expected = oracle(kept, M, D, 0.3, after_nnm(RULES["median", ""]))
    np.testing.assert_allclose(found.items, expected["items"], rtol=1e-3, atol=1e-3)


# --------------------------------------------------------------------------------------------------------- both


def test_a_mixing_has_the_scope_of_the_rule_that_it_is_chained_with() -> None:
    def scope(name: str, **more: Any) -> str:
        (mixing,) = (part for part in chain(name, **more).parts if isinstance(part, Mixing))
        return mixing.scope

    assert scope("nnm+median") == scope("median+nnm") == scope("bucketing+norm-bound") == "item"
    assert scope("nnm+rfa") == scope("bucketing+krum", krum={"scope": "client"}) == "client"
    assert scope("nnm+krum", protocol="aaai23") == "client"
    assert scope("nnm+rfa", nnm={"scope": "item"}) == "item"
    assert chain("bucketing").scope == "item"


@both_scopes
@pytest.mark.parametrize("name", ["nnm+krum", "bucketing+krum"])
def test_rejected_and_unusable_clients_have_no_part(name: str, scope: str) -> None:
    updates = make_updates(12, M, D, 1)
    rows, bad = updates.all_rows(), torch.arange(12) == 4
    rejected = torch.arange(12) == 7
    attacked = replace(
        updates,
        rows=(replace(rows, values=torch.where(bad[rows.client][:, None], torch.nan, rows.values)),),
        rejected=rejected,
    )
    left = replace(updates, rows=(rows,)).keep(~bad & ~rejected)
    for key, value in total(scoped(name, scope), left, 0.2).items():
        np.testing.assert_allclose(total(scoped(name, scope), attacked, 0.2)[key], value, rtol=1e-4, atol=1e-5)


@both_scopes
@pytest.mark.parametrize("aggregation", ["sum", "mean"])
@pytest.mark.parametrize("name", ["nnm+median", "bucketing+median"])
def test_what_is_common_to_all_uploads_stays_what_it_is(name: str, scope: str, aggregation: str) -> None:
    updates, gradient = make_updates(9, M, D, 1), torch.linspace(-1, 1, M * D).view(M, D)
    shared = replace(updates, common=Common(gradient, torch.ones(9)))
    times = 9 if aggregation == "sum" else 1
    found = total(scoped(name, scope), shared, 0.2, aggregation)["items"]
    expected = total(scoped(name, scope), updates, 0.2, aggregation)["items"] + times * gradient.numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["nnm+krum", "bucketing+krum"])
def test_nobody_is_left_out_of_what_is_mixed(name: str) -> None:
    updates = make_updates(12, M, D, 1)
    server = replace(server_of(updates, M, D, 0.2), notes=Notes())
    defense = scoped(name, "client")
    kept = defense.filter(updates, server)
    defense.aggregate(kept, server)
    assert server.notes is not None
    assert server.notes.left_out == []
    clients = torch.sort(updates.clients).values
    steps = [(before, after) for _, before, after in server.notes.filtered]
    assert droppers(clients, steps).eq(-1).all()


@both_scopes
@pytest.mark.parametrize("name", ["nnm+median", "bucketing+krum", "nnm+hics", "norm-bound+bucketing+multi-krum"])
def test_chains_train(name: str, scope: str) -> None:
    mixing = "nnm" if "nnm" in name else "bucketing"
    defense = chain(name, **{mixing: {"scope": scope}})
    federation = small_federation("ncf", defense=defense)
    before = federation.params.items.clone()
    federation.train_epoch()
    federation.check_finite()
    assert not torch.equal(before, federation.params.items)


@both_scopes
@pytest.mark.parametrize("name", ["nnm", "bucketing"])
def test_nobody_sends_anything(name: str, scope: str) -> None:
    nothing = Updates(torch.zeros(0, dtype=torch.int64), (), DenseGradients.of({}), torch.zeros(0))
    assert not total(chain(name, scope=scope), nothing)["items"].any()
    silent = Updates(torch.arange(4), (), DenseGradients.of({"W1": torch.ones(4, 2, 2)}), torch.ones(4))
    server = replace(server_of(silent, M, D), params=PublicParams(torch.zeros(M, D), {"W1": torch.zeros(2, 2)}))
    kept = chain(name, scope=scope).filter(silent, server)
    assert torch.allclose(plain.aggregate(kept, server.params, "sum").dense["W1"], torch.full((2, 2), 4.0))
