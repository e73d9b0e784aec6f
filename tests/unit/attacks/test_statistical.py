"""Gaussian, LIE, Fang and IPM."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from fedbench.attacks.clean_statistics import Spread
from fedbench.attacks.statistical import PUBLISHED_Z, Fang, Gaussian, InnerProduct, Lie, StatisticalAttack, rule_z
from fedbench.entries.cards import parse_parameters
from fedbench.errors import UserError
from fedbench.federation.view import AttackerView

MakeView = Callable[..., AttackerView]

SEEN = Spread(torch.tensor([2.0, -1.0, 0.0]), torch.tensor([0.5, 1.0, 4.0]))


def of(cls: type[StatisticalAttack], **params: Any) -> StatisticalAttack:
    return cls(cls.Params(**params))


def test_lie_by_hand(make_view: MakeView) -> None:
    view = make_view(Lie.card)
    assert of(Lie).poisoned(view, SEEN).tolist() == [2 - 0.75, -1 - 1.5, -6.0]
    assert of(Lie, z=0.0).poisoned(view, SEEN).tolist() == SEEN.mean.tolist()
    assert of(Lie, z=-2.0).poisoned(view, SEEN).tolist() == [3.0, 1.0, 8.0]


def test_fang_by_hand(make_view: MakeView) -> None:
    view = make_view(Fang.card)
    fixed = of(Fang, low=3.0, high=3.0)
    assert fixed.poisoned(view, SEEN).tolist() == [2 - 1.5, -1 + 3.0, 0.0]


def test_ipm_by_hand(make_view: MakeView) -> None:
    assert of(InnerProduct, epsilon=0.5).poisoned(make_view(InnerProduct.card), SEEN).tolist() == [-1.0, 0.5, 0.0]


def test_factors_of_fang_fill_their_range_coordinate_by_coordinate(make_view: MakeView) -> None:
    n = 20_000
    seen = Spread(torch.full((n,), -1.0), torch.full((n,), 2.0))
    factor = (of(Fang).poisoned(make_view(Fang.card), seen) + 1) / 2
    assert 3 <= float(factor.min()) < 3.01
    assert 3.99 < float(factor.max()) <= 4.0001
    assert float(factor.mean()) == pytest.approx(3.5, abs=0.01)


def test_gaussian_noise_has_the_mean_and_the_spread_of_honest_uploads(make_view: MakeView) -> None:
    view = make_view(Gaussian.card, m=20_000)
    sent = of(Gaussian).poisoned(view, SEEN)
    assert sent.shape == (20_000, 3)
    assert torch.allclose(sent.mean(0), SEEN.mean, atol=0.1)
    assert torch.allclose(sent.std(0), SEEN.std, rtol=0.03)


@pytest.mark.parametrize(
    ("cohort", "malicious", "z"),
    [
        (50, 1, -0.0256),  # s = 26 - 1 = 25; (49 - 25) / 49 = 0.4898
        (50, 3, 0.0267),
        (50, 12, 0.3360),
        (50, 24, 1.4261),
        (6040, 60, 0.0122),
        (50, 26, PUBLISHED_Z),  # a majority needs nobody
        (50, 50, PUBLISHED_Z),
        (1, 1, PUBLISHED_Z),
        (2, 1, PUBLISHED_Z),  # one honest client, and it is needed
    ],
)
def test_the_rule_for_z_by_hand(cohort: int, malicious: int, z: float) -> None:
    assert rule_z(cohort, malicious) == pytest.approx(z, abs=2e-4)


def test_the_rule_counts_the_clients_of_the_round(make_view: MakeView) -> None:
    view = make_view(Lie.card, m=4, cohort_size=10)  # s = 6 - 4 = 2; (6 - 2) / 6
    sent = of(Lie, z="rule").poisoned(view, SEEN)
    assert torch.allclose(sent, SEEN.mean - 0.4307 * SEEN.std, atol=1e-3)


def test_a_range_that_is_upside_down_is_one_line() -> None:
    with pytest.raises(UserError, match=r"high = 2 is below low = 3"):
        parse_parameters(Fang.Params, {"high": 2.0}, "attack 'fang'")


@pytest.mark.parametrize("model", ["mf", "ncf"])
@pytest.mark.parametrize("cls", [Gaussian, Lie, Fang, InnerProduct])
@pytest.mark.parametrize("m", [1, 3])
@pytest.mark.parametrize("colluders", [1, 3, 50])
def test_uploads_agree_with_a_loop_over_clients_and_coordinates(
    make_view: MakeView, model: str, cls: type[StatisticalAttack], m: int, colluders: int
) -> None:
    options: dict[str, Any] = {"low": 3.0, "high": 3.0} if cls is Fang else {}
    view = make_view(cls.card, model, m=m, num_malicious=5, loss="bpr")
    sent = of(cls, colluders=colluders, **options).craft(view)
    clean = view.colluding(colluders)
    parts = {"items": torch.zeros(len(clean.clients), 20, 4), **clean.dense.stacked()}
    rows = clean.all_rows()
    for c, j, row in zip(rows.client, rows.item, rows.values, strict=True):
        parts["items"][c, j] += row
    got = {"items": sent.all_rows().values.view(m, 20, 4), **sent.dense.stacked()}
    draws = torch.Generator().manual_seed(0)
    assert got.keys() == parts.keys()
    for name, honest in parts.items():
        flat = honest.flatten(1)
        noise = torch.randn(m, *honest.shape[1:], generator=draws).flatten(1) if cls is Gaussian else None
        for k in range(flat.shape[1]):
            values = flat[:, k].tolist()
            mu = sum(values) / len(values)
            sigma = (sum((x - mu) ** 2 for x in values) / max(len(values) - 1, 1)) ** 0.5
            for c in range(m):
                match cls.card.name:
                    case "lie":
                        expected = mu - 1.5 * sigma
                    case "fang":
                        expected = mu - ((mu > 0) - (mu < 0)) * 3 * sigma
                    case "ipm":
                        expected = -0.1 * mu
                    case _:
                        assert noise is not None
                        expected = mu + sigma * float(noise[c, k])
                assert got[name][c].flatten()[k].item() == pytest.approx(expected, abs=1e-6)
    assert torch.equal(sent.weights, view.honest().updates.weights)
    assert sent.clients.tolist() == view.clients.tolist()
