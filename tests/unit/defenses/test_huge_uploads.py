"""What the defenses' own arithmetic makes of numbers near the end of float32, and of what is no number."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from fedbench.defenses import DEFENSES
from fedbench.defenses.chain import Chain
from fedbench.defenses.hics import HierarchicalClipping
from fedbench.defenses.norm_bound import NormBound
from fedbench.federation.defense import Defense, ServerView
from fedbench.federation.rows import FullRows
from fedbench.federation.server import clip_rows
from fedbench.federation.updates import DenseGradients, Updates
from fedbench.models import PublicParams

HUGE = [1e19, 1e25, 1e38, 3.4e38]


def server(aggregation: str = "sum", ratio: float = 0.2) -> ServerView:
    params = PublicParams(torch.zeros(3, 4), {"W": torch.zeros(2, 4)})
    return ServerView(params, 1.0, aggregation, ratio, 1, 0, torch.Generator())


def uploads(sent: float, attackers: int = 1, honest: int = 9, weight: float = 1.0) -> Updates:
    """Honest clients send ordinary rows of all items and W; the attackers, who come last, all send ``sent``."""
    g = torch.Generator().manual_seed(1)
    n = honest + attackers
    rows, dense = torch.randn(n, 3, 4, generator=g) * 0.1, torch.randn(n, 2, 4, generator=g) * 0.1
    rows[honest:], dense[honest:] = sent, sent
    item, client = torch.arange(3).repeat(n), torch.arange(n).repeat_interleave(3)
    weights = torch.ones(n)
    weights[honest:] = weight
    return Updates(
        torch.arange(n), (FullRows(client, item, rows.flatten(0, 1)),), DenseGradients.of({"W": dense}), weights
    )


@pytest.mark.parametrize("sent", HUGE)
@pytest.mark.parametrize("scope", ["row", "client"])
def test_norm_bounding_shortens_a_huge_upload_to_the_bound(sent: float, scope: str) -> None:
    bounded = NormBound(NormBound.Params(bound=0.5, scope=scope))
    left = bounded.filter(uploads(sent), server())
    rows, w = left.all_rows(), left.dense.stacked()["W"]
    if scope == "row":
        last = torch.cat([rows.values[rows.client == 9], w[9]])
        assert torch.allclose(last, torch.full_like(last, 0.5 / 2))
        assert torch.allclose(left.dense.total()["W"], w.sum(0))
    else:
        last = torch.cat([rows.values[rows.client == 9].flatten(), w[9].flatten()])
        assert torch.allclose(last, torch.full_like(last, 0.5 / math.sqrt(20)))
    # Nobody else is touched by it.
    alone = bounded.filter(uploads(0.0), server()).all_rows()
    assert torch.equal(rows.values[rows.client < 9], alone.values[alone.client < 9])


@pytest.mark.parametrize("sent", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("scope", ["row", "client"])
def test_norm_bounding_lets_nothing_through_that_is_no_number(sent: float, scope: str) -> None:
    left = NormBound(NormBound.Params(bound=0.5, scope=scope)).filter(uploads(sent), server())
    total = left.sum_rows(3, 4)
    assert total.isfinite().all()
    without = NormBound(NormBound.Params(bound=0.5, scope=scope)).filter(uploads(0.0), server())
    assert torch.allclose(total, without.sum_rows(3, 4))
    assert torch.allclose(left.dense.total()["W"], without.dense.total()["W"])


@pytest.mark.parametrize("sent", [*HUGE, math.nan, math.inf])
def test_hics_moves_by_no_more_than_its_bound_for_each_upload(sent: float) -> None:
    whole: dict[str, Any] = {"clip": 0.01, "share": 1.0, "quantile": 1.0}
    with_it, without = (
        HierarchicalClipping(HierarchicalClipping.Params(**whole)).aggregate(uploads(value), server())
        for value in (sent, 0.0)
    )
    moved = 0.01 if math.isfinite(sent) else 0.0
    # Several such rows would be below what float32 resolves only beside a sum that is itself out of range.
    assert torch.allclose((with_it.items - without.items).norm(dim=1), torch.full((3,), moved), atol=1e-6)
    assert (with_it.dense["W"] - without.dense["W"]).norm().item() == pytest.approx(moved, abs=1e-6)


@pytest.mark.parametrize("sent", [*HUGE, math.nan])
def test_the_server_s_own_clipping_does_the_same(sent: float) -> None:
    rows = clip_rows(uploads(sent), 0.2).all_rows()
    last = rows.values[rows.client == 9]
    assert torch.allclose(last, torch.full_like(last, 0.1 if math.isfinite(sent) else 0.0))


RULES = ["median", "trimmed-mean", "krum", "multi-krum", "bulyan", "rfa", "dnc", "centered-clipping", "flame"]


def rule(name: str, scope: str) -> Defense:
    cls = DEFENSES.get(name)
    return cls(cls.Params.model_validate({"scope": scope}))


@pytest.mark.parametrize("sent", [1.2e18, 4e18, 6e18, 9e18, *HUGE, math.nan])
@pytest.mark.parametrize("scope", ["item", "client"])
@pytest.mark.parametrize("name", RULES)
def test_robust_rules_are_not_carried_away_by_equal_huge_uploads(name: str, scope: str, sent: float) -> None:
    """Squared distances of such uploads overflow float32: infinity less infinity must not look like the nearest."""
    found = rule(name, scope).aggregate(uploads(sent, attackers=2, honest=13), server())
    assert found is not None
    limit = 0.05 * sent if name == "rfa" and sent < 4e18 else 15.0  # three steps from the mean on do not arrive
    assert found.items.abs().max().item() < limit
    assert found.dense["W"].abs().max().item() < limit


@pytest.mark.parametrize("weight", [-1e6, math.nan, -math.inf])
@pytest.mark.parametrize("name", ["krum", "multi-krum", "rfa", "dnc", "mixed", "centered-clipping", "flame"])
def test_numbers_of_samples_that_nobody_can_have_count_as_none(name: str, weight: float) -> None:
    found = rule(name, "client").aggregate(uploads(0.1, weight=weight), server("weighted"))
    expected = rule(name, "client").aggregate(uploads(0.1, weight=0.0), server("weighted"))
    assert found is not None
    assert expected is not None
    assert torch.equal(found.items, expected.items)


@pytest.mark.parametrize(
    ("name", "scope", "n", "ratio", "said"),
    [
        (
            "krum",
            "client",
            4,
            0.2,
            "krum is made for n >= 2 f + 3 clients, f of them malicious; 2 of 2 rounds had fewer",
        ),
        ("krum", "client", 5, 0.2, ""),
        ("multi-krum", "client", 20, 0.5, "(20 clients and f = 10)"),
        ("bulyan", "client", 10, 0.2, "bulyan is made for n >= 4 f + 3 clients"),
        ("bulyan", "client", 11, 0.15, ""),
        ("bulyan", "item", 10, 0.25, "(a share of 0.25)"),
        ("bulyan", "item", 10, 0.05, ""),
        ("median", "client", 10, 0.9, ""),
        ("trimmed-mean", "client", 10, 0.6, "trimmed-mean is made for n >= 2 f + 1 clients"),
    ],
)
def test_too_few_clients_are_said(name: str, scope: str, n: int, ratio: float, said: str) -> None:
    defense = rule(name, scope)
    for _ in range(2):
        defense.aggregate(uploads(0.1, honest=n - 1), server(ratio=ratio))
    assert len(defense.warnings()) == bool(said)
    assert all(said in warning for warning in defense.warnings())


@pytest.mark.parametrize("sent", [1.2e18, 6e18, HUGE[0], math.nan])
@pytest.mark.parametrize("scope", ["item", "client"])
@pytest.mark.parametrize("name", ["nnm", "bucketing"])
def test_mixing_leaves_the_rule_what_it_can_tell_apart(name: str, scope: str, sent: float) -> None:
    """Two of twenty; in buckets of two they spoil two of ten, among neighbours none but each other."""
    made = Chain([rule(name, scope), rule("krum", scope)])
    found = made.aggregate(made.filter(uploads(sent, attackers=2, honest=18), server(ratio=0.1)), server(ratio=0.1))
    assert found is not None
    assert found.items.abs().max().item() < 15
    assert found.dense["W"].abs().max().item() < 15
