"""The robust rules against hand-computed cases and against the plain oracles, in both scopes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from federations import small_federation
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from robust_oracles import RULES, aggregated, by_client, by_item, foolsgold_factors, make_updates, server_of, variant_of

from fedbench.defenses import DEFENSES
from fedbench.defenses.foolsgold import FoolsGold
from fedbench.defenses.grouped import RowsByItem
from fedbench.defenses.robust import weighted_sum
from fedbench.errors import UserError
from fedbench.federation.model import PublicParams
from fedbench.federation.rows import FullRows
from fedbench.federation.updates import DenseGradients, Updates

ROBUST = ("median", "trimmed-mean", "krum", "multi-krum", "bulyan", "rfa", "foolsgold", "dnc", "mixed")
every_rule = pytest.mark.parametrize(("name", "variant"), [pytest.param(*key, id="-".join(key)) for key in RULES])
both_scopes = pytest.mark.parametrize("scope", ["item", "client"])


def column(*values: float, ids: list[int] | None = None) -> Updates:
    """One item with d = 1, a row from each client."""
    n = len(values)
    rows = FullRows(torch.arange(n), torch.zeros(n, dtype=torch.int64), torch.tensor(values)[:, None])
    return Updates(torch.tensor(ids or list(range(n))), (rows,), DenseGradients.of({}), torch.ones(n))


def one(name: str, updates: Updates, ratio: float = 0.0, **params: Any) -> float:
    return float(aggregated(name, updates, 1, 1, ratio, **params)["items"][0, 0])


# ------------------------------------------------------------------------------------------------------ by hand


@both_scopes
def test_by_hand(scope: str) -> None:
    values = column(0.0, 1.0, 2.0, 4.0, 100.0)
    assert one("median", values, scope=scope) == 5 * 2
    assert one("median", column(0.0, 1.0, 2.0, 100.0), scope=scope) == 4 * 1.5
    assert one("trimmed-mean", values, 0.2, scope=scope) == pytest.approx(5 * (1 + 2 + 4) / 3)
    assert one("trimmed-mean", values, 0.2, scope=scope, trim="nearest-median") == pytest.approx(
        5 * (0 + 1 + 2 + 4) / 4
    )
    # f = 1, two nearest others: 0: 1 + 4, 1: 1 + 1, 2: 1 + 4, 4: 4 + 9, 100: 96^2 + 98^2.
    assert one("krum", values, 0.2, scope=scope) == 5 * 1
    assert one("multi-krum", values, 0.2, scope=scope) == pytest.approx(5 * (0 + 1 + 2 + 4) / 4)
    # Published: f = 1, all four distances of |x|: 0: 107, 1: 104, 2: 103, 4: 105.
    assert one("krum", values, 0.2, scope=scope, variant="icde24-code") == 5 * 2


@both_scopes
def test_bulyan_by_hand(scope: str) -> None:
    # c = 7, f = 1: five are selected, of which the 5 - 2 nearest to their median stay.
    values = column(0.0, 1.0, 2.0, 3.0, 4.0, 50.0, 90.0)
    assert one("bulyan", values, 0.15 if scope == "item" else 0.14, scope=scope) == pytest.approx(7 * 2)
    # c = 6 < 4 f + 3: the sum.
    assert one("bulyan", column(0.0, 1.0, 2.0, 3.0, 4.0, 50.0), 0.17, scope=scope) == pytest.approx(60)


def test_the_geometric_median_of_three_corners_is_the_right_one() -> None:
    """Equal distances from the mean change nothing; an outlier pulls less than it pulls the mean."""
    assert one("rfa", column(0.0, 0.0, 0.0, 0.0, 100.0), iterations=50) == pytest.approx(0.0, abs=1e-2)
    # From the mean 20: weights 1/20 four times and 1/80: z = (100/80) / (4/20 + 1/80) = 5.882.
    assert one("rfa", column(0.0, 0.0, 0.0, 0.0, 100.0), iterations=1) == pytest.approx(5 * 100 / 17, rel=1e-5)


@both_scopes
@given(share=st.floats(0, 1), seed=st.integers(0, 1000))
@settings(max_examples=10, deadline=None)
def test_mixed_aggregation_lies_between_the_geometric_median_and_the_mean(scope: str, share: float, seed: int) -> None:
    """By hand one step from the mean 20 leads to 100 / 17, as for rfa; then 0.7 and 0.3 of the two."""
    outlier = column(0.0, 0.0, 0.0, 0.0, 100.0)
    expected = 5 * (0.7 * 100 / 17 + 0.3 * 20)
    assert one("mixed", outlier, scope=scope, iterations=1) == pytest.approx(expected, rel=1e-5)
    updates = make_updates(9, 4, 3, seed)
    found = aggregated("mixed", updates, 4, 3, scope=scope, median_share=share)
    median = aggregated("rfa", updates, 4, 3, scope=scope, iterations=4, smoothing=1e-5)
    for key, mean in {"items": updates.sum_rows(4, 3), **updates.dense.total()}.items():
        np.testing.assert_allclose(found[key], share * median[key] + (1 - share) * mean.numpy(), rtol=1e-4, atol=1e-4)


def test_foolsgold_by_hand() -> None:
    """Two sybils with the same direction count nothing, orthogonal clients fully."""
    rows = FullRows(
        torch.tensor([0, 1, 2, 3]),
        torch.zeros(4, dtype=torch.int64),
        torch.tensor([[1.0, 0, 0], [0, 2.0, 0], [0, 0, 5.0], [0, 0, 7.0]]),
    )
    updates = Updates(torch.arange(4), (rows,), DenseGradients.of({}), torch.ones(4))
    for scope in ("item", "client"):
        found = aggregated("foolsgold", updates, 1, 3, scope=scope)["items"]
        np.testing.assert_allclose(found, [[1, 2, 0]], atol=1e-6)
    # a = 1 - 0.6 = 0.4 of the largest, 0.99 after the cut at 0.4 / 0.4: both alike, so both count fully.
    both = FullRows(torch.tensor([0, 1]), torch.zeros(2, dtype=torch.int64), torch.tensor([[1.0, 0], [0.6, 0.8]]))
    pair = Updates(torch.arange(2), (both,), DenseGradients.of({}), torch.ones(2))
    np.testing.assert_allclose(aggregated("foolsgold", pair, 1, 2)["items"], [[1.6, 0.8]], atol=1e-6)


def test_foolsgold_that_remembers_by_hand() -> None:
    """Clients 5 and 3 send x, then y, then apart: their sums (2, 1) and (1, 2) have cosine .8, and they count nothing.

    ``1 - .8`` is .2 of the honest client's 1, and ``ln(.2 / .8) + .5 < 0``. Without memory all three count fully.
    """
    remembering, forgetful = (FoolsGold(FoolsGold.Params(memory=memory)) for memory in (True, False))
    x, y, z = [1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]
    for first, second, without in ((x, x, z), (y, y, z), (x, y, [1.0, 1.0, 1.0])):
        rows = FullRows(torch.arange(3), torch.zeros(3, dtype=torch.int64), torch.tensor([first, second, z]))
        updates = Updates(torch.tensor([5, 3, 9]), (rows,), DenseGradients.of({}), torch.ones(3))
        server = server_of(updates, 1, 3)
        assert remembering.aggregate(updates, server).items[0].tolist() == z
        assert forgetful.aggregate(updates, server).items[0].tolist() == without


def remember(sums: dict[int, np.ndarray], clients: list[int], x: list[np.ndarray]) -> np.ndarray:
    for client, vector in zip(clients, x, strict=True):
        sums[client] = sums.get(client, np.zeros_like(vector)) + vector
    return x[0]


@given(seed=st.integers(0, 1000), dense=st.booleans())
@settings(max_examples=6, deadline=None)
def test_foolsgold_that_remembers_agrees_with_the_oracle(seed: int, dense: bool) -> None:
    """Four rounds of changing cohorts: the factors are the oracle's for each client's sum, laid out in full."""
    rule = FoolsGold(FoolsGold.Params(memory=True))
    sums: dict[int, np.ndarray] = {}
    for number in range(4):
        ids = torch.randperm(20, generator=torch.Generator().manual_seed(seed + number))[:12]
        updates = replace(make_updates(12, 7, 4, seed + number, density=0.5, dense=dense), clients=ids)

        own = sorted(ids.tolist())
        by_client(updates, 7, 4, 0.0, lambda x, f, own=own: remember(sums, own, x))
        factors = foolsgold_factors([sums[client] for client in own])
        weighted = lambda x, f, factors=factors: sum(a * each for a, each in zip(factors, x, strict=True))  # noqa: E731
        expected = by_client(updates, 7, 4, 0.0, weighted)
        found = rule.aggregate(updates, server_of(updates, 7, 4))
        for key, value in {"items": found.items, **found.dense}.items():
            np.testing.assert_allclose(value.numpy(), expected[key], rtol=1e-3, atol=1e-3)


def test_foolsgold_with_too_much_to_remember_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedbench.defenses.foolsgold.MOST", 100)
    with pytest.raises(UserError, match="use memory = false"):
        aggregated("foolsgold", make_updates(12, 7, 4, 0), 7, 4, memory=True)
    with pytest.raises(ValidationError, match="scope = 'client'"):
        aggregated("foolsgold", make_updates(12, 7, 4, 0), 7, 4, memory=True, scope="item")


@both_scopes
def test_dnc_by_hand(scope: str) -> None:
    values = column(0.0, 1.0, 2.0, 4.0, 100.0)
    assert one("dnc", values, 0.2, scope=scope) == pytest.approx(5 * 7 / 4)
    assert one("dnc", values, 0.2, scope=scope, filter_fraction=0.5) == pytest.approx(107)


# ------------------------------------------------------------------------------------- agreement with the oracles


@every_rule
@pytest.mark.parametrize("share", [0.0, 0.05, 0.21, 0.4])
@pytest.mark.parametrize("seed", [0, 1])
def test_item_scope_agrees_with_the_oracle(name: str, variant: str, share: float, seed: int) -> None:
    updates = make_updates(27, 7, 4, seed, density=[0.9, 0.4][seed], copies=5 * seed)
    expected = by_item(updates, 7, 4, share, RULES[name, variant])
    found = aggregated(name, updates, 7, 4, share, scope="item", **variant_of(name, variant))
    for key, value in expected.items():
        np.testing.assert_allclose(found[key], value, rtol=1e-3, atol=1e-3, err_msg=key)


@every_rule
@pytest.mark.parametrize("share", [0.0, 0.05, 0.21, 0.4])
@pytest.mark.parametrize("seed", [0, 1])
def test_client_scope_agrees_with_the_oracle(name: str, variant: str, share: float, seed: int) -> None:
    updates = make_updates(17, 6, 3, seed, density=[0.9, 0.3][seed], copies=3 * seed)
    expected = by_client(updates, 6, 3, share, RULES[name, variant])
    found = aggregated(name, updates, 6, 3, share, scope="client", **variant_of(name, variant))
    for key, value in expected.items():
        np.testing.assert_allclose(found[key], value, rtol=1e-4, atol=1e-4, err_msg=key)


@pytest.mark.parametrize(
    ("name", "variant"),
    [key for key in RULES if key[1] != "icde24-code" and key[0] not in ("rfa", "foolsgold", "dnc", "mixed")],
)
@both_scopes
@pytest.mark.parametrize("seed", range(4))
def test_ties_agree_with_the_oracle(name: str, variant: str, scope: str, seed: int) -> None:
    """Small whole numbers: distances tie everywhere, and sums of them are exact (those of roots are not)."""
    updates = make_updates(12, 5, 2, seed, dense=seed % 2 == 0, whole_numbers=True, copies=3 * (seed // 2))
    oracle = by_item if scope == "item" else by_client
    expected = oracle(updates, 5, 2, 0.2, RULES[name, variant])
    found = aggregated(name, updates, 5, 2, 0.2, scope=scope, **variant_of(name, variant))
    for key, value in expected.items():
        np.testing.assert_allclose(found[key], value, rtol=1e-5, atol=1e-5, err_msg=key)


# --------------------------------------------------------------------------------------------------- edge cases


@pytest.mark.parametrize("name", ROBUST)
@both_scopes
def test_one_client_is_the_sum(name: str, scope: str) -> None:
    updates = make_updates(1, 5, 3, 0, density=0.7)
    found = aggregated(name, updates, 5, 3, 0.4, scope=scope)
    np.testing.assert_allclose(found["items"], updates.sum_rows(5, 3), rtol=1e-5)
    np.testing.assert_allclose(found["W1"], updates.dense.total()["W1"], rtol=1e-5)


@pytest.mark.parametrize("name", ROBUST)
@both_scopes
def test_nobody_sends_anything(name: str, scope: str) -> None:
    nothing = Updates(torch.zeros(0, dtype=torch.int64), (), DenseGradients.of({}), torch.zeros(0))
    assert not aggregated(name, nothing, 3, 2, 0.1, scope=scope)["items"].any()
    silent = Updates(torch.arange(4), (), DenseGradients.of({"W1": torch.zeros(4, 2, 2)}), torch.zeros(4))
    found = aggregated(name, silent, 3, 2, 0.1, scope=scope)
    assert not found["items"].any()
    assert not found["W1"].any()


@pytest.mark.parametrize("name", [name for name in ROBUST if name != "foolsgold"])
@both_scopes
def test_equal_gradients_are_summed(name: str, scope: str) -> None:
    found = one(name, column(*[0.5] * 20), 0.1, scope=scope)
    assert found == pytest.approx(10.0, rel=1e-5)


def test_krum_takes_the_lowest_client_id_of_a_tie() -> None:
    assert one("krum", column(3.0, 5.0, ids=[8, 2])) == 2 * 5.0
    assert one("krum", column(3.0, 5.0, ids=[2, 8])) == 2 * 3.0
    assert one("krum", column(3.0, 5.0, ids=[8, 2]), scope="client") == 2 * 5.0


def test_a_cold_item_is_not_defended_by_rules_that_round_down() -> None:
    """f = floor(19 x 0.05) = 0: three rules are the sum there, whoever sends (addenda, section 1)."""
    attacked = column(*[0.0] * 7, *[1.0] * 12)
    for name in ("trimmed-mean", "multi-krum", "bulyan"):
        assert one(name, attacked, 0.05) == pytest.approx(12.0)
    assert one("median", attacked) == 19.0


@pytest.mark.parametrize("name", ROBUST)
@both_scopes
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf, 1e20])
@pytest.mark.parametrize("first", [True, False])
def test_what_is_not_a_finite_number_is_left_out(name: str, scope: str, value: float, first: bool) -> None:
    """One entry of two clients' uploads, of a row or of a dense gradient, by the lowest or the highest ids."""
    updates = make_updates(14, 5, 3, 1, density=0.9)
    order = torch.argsort(updates.clients, descending=not first)
    bad = torch.isin(torch.arange(14), order[:2])
    rows = updates.all_rows()
    values = torch.where((bad[rows.client] & (rows.client == order[0]))[:, None], value, rows.values)
    dense = dict(updates.dense.stacked())
    dense["b1"] = torch.where((torch.arange(14) == order[1])[:, None], value, dense["b1"])
    attacked = Updates(
        updates.clients, (FullRows(rows.client, rows.item, values),), DenseGradients.of(dense), updates.weights
    )
    found = aggregated(name, attacked, 5, 3, 0.2, scope=scope)
    expected = aggregated(name, updates.keep(~bad), 5, 3, 0.2, scope=scope)
    for key, own in expected.items():
        assert np.isfinite(own).all()
        np.testing.assert_allclose(found[key], own, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("far", [1e4, 1e6, 1e8])
@pytest.mark.parametrize("name", ["krum", "multi-krum", "bulyan"])
@both_scopes
def test_far_attackers_do_not_drown_the_distances_of_the_others(name: str, scope: str, far: float) -> None:
    updates = make_updates(20, 3, 4, 6, density=1.0, dense=False)
    rows = updates.all_rows()
    honest = torch.argsort(updates.clients) < 18
    values = torch.where(honest[rows.client][:, None], rows.values, far * rows.values.sign())
    attacked = Updates(updates.clients, (FullRows(rows.client, rows.item, values),), updates.dense, updates.weights)
    oracle = by_item if scope == "item" else by_client
    expected = oracle(attacked, 3, 4, 0.1, RULES[name, "definition"])["items"]
    np.testing.assert_allclose(
        aggregated(name, attacked, 3, 4, 0.1, scope=scope)["items"], expected, rtol=1e-3, atol=1e-3
    )


def test_shares_that_floats_do_not_hold_exactly_are_counted_right() -> None:
    """100 x 0.07 is a little more than 7 in floating point, and 100 x 0.29 a little less than 29."""
    values = column(*map(float, range(100)))
    assert one("trimmed-mean", values, 0.07, scope="client") == pytest.approx(100 * 49.5)
    ramp = column(*[float(2**k if k < 40 else 0) for k in range(100)])
    seven = sorted([2.0**k for k in range(40)] + [0.0] * 60)[7:93]
    assert one("trimmed-mean", ramp, 0.07, scope="client") == pytest.approx(100 * sum(seven) / 86)
    many = sorted([2.0**k for k in range(40)] + [0.0] * 60)[29:71]
    assert one("trimmed-mean", ramp, 0.29) == pytest.approx(100 * sum(many) / 42)


def test_parameters_of_the_newcomers_are_used() -> None:
    """RFA's smoothing, FoolsGold's confidence."""
    outlier = column(0.0, 0.0, 0.0, 0.0, 100.0)
    # nu above all distances: every weight is the same, and the mean stays.
    assert one("rfa", outlier, smoothing=1e3) == pytest.approx(100.0)
    rows = FullRows(torch.arange(3), torch.zeros(3, dtype=torch.int64), torch.tensor([[1.0, 0], [0.6, 0.8], [0, -1]]))
    three = Updates(torch.arange(3), (rows,), DenseGradients.of({}), torch.ones(3))
    # Cosines: 0.6 between the first two, below 0 with the third: a = 0.4, 0.4, 1; then kappa (ln(2/3) + 0.5) = 0.0945 kappa.
    for kappa in (1.0, 0.5):
        share = kappa * (np.log(0.4 / 0.6) + 0.5)
        last = min(1.0, kappa * (np.log(99) + 0.5))
        expected = [1.6 * share, 0.8 * share - last]
        np.testing.assert_allclose(
            aggregated("foolsgold", three, 1, 2, confidence=kappa)["items"], [expected], rtol=1e-4
        )


def test_a_stated_share_replaces_the_true_one() -> None:
    values = column(0.0, 1.0, 2.0, 4.0, 100.0)
    assert one("trimmed-mean", values, 0.2, assumed_ratio=0.0) == pytest.approx(107)
    assert one("trimmed-mean", values, 0.0, assumed_ratio=0.2) == pytest.approx(5 * 7 / 3)
    assert one("trimmed-mean", values, 0.0, assumed_ratio=0.4) == pytest.approx(5 * 2)


@pytest.mark.parametrize("name", ["median", "krum", "bulyan"])
def test_a_rule_for_one_part_leaves_the_other_to_the_sum(name: str) -> None:
    updates = make_updates(17, 6, 3, 0, density=0.9, copies=4)
    whole = aggregated(name, updates, 6, 3, 0.1, scope="item")
    items = aggregated(name, updates, 6, 3, 0.1, scope="item", parts="items")
    dense = aggregated(name, updates, 6, 3, 0.1, scope="item", parts="dense")
    plain = {"items": updates.sum_rows(6, 3), **updates.dense.total()}
    assert np.array_equal(items["items"], whole["items"])
    np.testing.assert_allclose(items["W1"], plain["W1"], rtol=1e-5)
    np.testing.assert_allclose(dense["items"], plain["items"], rtol=1e-5, atol=1e-6)
    assert np.array_equal(dense["b1"], whole["b1"])
    assert not np.allclose(whole["b1"], plain["b1"])


@pytest.mark.parametrize("name", ["median", "multi-krum"])
@pytest.mark.parametrize("aggregation", ["sum", "weighted"])
@both_scopes
def test_the_part_without_a_rule_is_what_it_is_without_a_defense(name: str, aggregation: str, scope: str) -> None:
    """The mean by numbers of samples where the server has it, and without those that a filter rejected."""
    updates = make_updates(9, 6, 3, 0)
    rejected = torch.arange(9) == 4
    left = updates.keep(~rejected)
    factors = torch.ones(8) if aggregation == "sum" else left.weights / left.weights.sum()
    plain = weighted_sum(left, factors, PublicParams(torch.zeros(6, 3), {}))
    for seen in (left, replace(updates, rejected=rejected)):
        items = aggregated(name, seen, 6, 3, 0.2, aggregation, scope=scope, parts="items")
        dense = aggregated(name, seen, 6, 3, 0.2, aggregation, scope=scope, parts="dense")
        np.testing.assert_allclose(items["W1"], plain.dense["W1"], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(dense["items"], plain.items, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ROBUST)
@both_scopes
def test_under_a_mean_protocol_the_result_is_divided_by_the_cohort(name: str, scope: str) -> None:
    updates = make_updates(9, 4, 3, 5)
    total = aggregated(name, updates, 4, 3, 0.2, scope=scope)
    mean = aggregated(name, updates, 4, 3, 0.2, "mean", scope=scope)
    for key, value in total.items():
        np.testing.assert_allclose(mean[key], value / 9, rtol=1e-5, atol=1e-7)


def test_memory_is_bounded_by_pieces() -> None:
    """No piece of a round has more cells than allowed, unless a single item has; and no row is lost."""
    updates = make_updates(60, 30, 4, 0, dense=False)
    rows = RowsByItem(updates, 30)
    whole, cut = list(rows.groups(pairwise=True)), list(rows.groups(pairwise=True, cells=5000))
    assert len(cut) > len(whole)
    for groups in (whole, cut):
        assert sorted(torch.cat([group.item for group in groups]).tolist()) == list(range(30))
        assert sum(int(group.there.sum()) for group in groups) == len(updates.all_rows().item)
    assert all(len(group.item) == 1 or group.there.numel() * group.there.shape[1] <= 5000 for group in cut)


@pytest.mark.parametrize("model", ["mf", "ncf"])
@pytest.mark.parametrize("name", ROBUST)
@both_scopes
def test_every_rule_trains(model: str, name: str, scope: str) -> None:
    cls = DEFENSES.get(name)
    federation = small_federation(model, defense=cls(cls.Params(scope=scope)))
    before = federation.params.items.clone()
    for _ in range(2):
        federation.train_epoch()
    federation.check_finite()
    assert not torch.equal(before, federation.params.items)


def test_factored_rows_are_read_as_they_are() -> None:
    """A round of matrix factorisation, whose rows are factors: the same as of the rows written out."""
    federation = small_federation("mf")
    view = federation.server_view()
    updates = federation.training.honest_updates(federation.population.rows, torch.arange(8), federation.defense, view)
    full = Updates(updates.clients, (updates.all_rows(),), updates.dense, updates.weights)
    m, d = federation.params.items.shape
    for name in ROBUST:
        for scope in ("item", "client"):
            cls = DEFENSES.get(name)
            rule = cls(cls.Params(scope=scope))
            server = server_of(updates, m, d, 0.2)
            assert torch.allclose(rule.aggregate(updates, server).items, rule.aggregate(full, server).items, atol=1e-6)
