"""Min-Max and Min-Sum: by hand, and beside a search that lays every upload out and halves an interval."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from fedbench.attacks.distance_bounded import DistanceBounded, MinMax, MinSum
from fedbench.federation.rows import FullRows
from fedbench.federation.updates import Common, DenseGradients, Updates
from fedbench.federation.view import AttackerView

MakeView = Callable[..., AttackerView]


def of(cls: type[DistanceBounded], **params: Any) -> DistanceBounded:
    return cls(cls.Params(**params))


def uploads(vectors: list[list[float]], common: list[float] | None = None) -> Updates:
    """One item's row of each client, [S, d]; the ids of clients are in descending order."""
    values = torch.tensor(vectors)
    count = len(values)
    shared = None if common is None else Common(torch.tensor([common]), torch.ones(count))
    rows = FullRows(torch.arange(count), torch.zeros(count, dtype=torch.long), values)
    return Updates(torch.arange(count).flip(0), (rows,), DenseGradients.of({}), torch.ones(count), shared)


@pytest.mark.parametrize(
    ("cls", "params", "vectors", "sent"),
    [
        # mu = 1, D = 3: from 3 the upload may be at 0. The farthest is 2 from mu, the nearest 1.
        *[(MinMax, {"direction": each}, [[0.0], [0.0], [3.0]], [0.0]) for each in ("std", "unit", "sign")],
        *[(MinSum, {"direction": each}, [[0.0], [0.0], [3.0]], [-1.0]) for each in ("std", "unit", "sign")],
        (MinSum, {"bound": "smallest"}, [[0.0], [0.0], [3.0]], [0.0]),
        # mu = (1, 1/3), D^2 = 10: (2 + g)^2 + (2/3 + g)^2 = 10, g = (sqrt(656) - 16) / 12.
        (MinMax, {"direction": "sign"}, [[0.0, 0.0], [0.0, 0.0], [3.0, 1.0]], [1 - 0.801041, 1 / 3 - 0.801041]),
        # sigma = (0, 2 sqrt 2), mu = (1, 2), D = 4: |x - mu| = 2, straight down by 2.
        (MinMax, {}, [[1.0, 0.0], [1.0, 4.0]], [1.0, 0.0]),
        # Nobody differs from anybody, or nothing is there: an honest upload.
        (MinMax, {}, [[1.0, 2.0]], [1.0, 2.0]),
        (MinSum, {"direction": "unit"}, [[1.0, 2.0]] * 3, [1.0, 2.0]),
        (MinMax, {"direction": "unit"}, [[0.0, 0.0], [0.0, 0.0]], [0.0, 0.0]),
        (MinMax, {"direction": "unit"}, [[1.0, 0.0], [-1.0, 0.0]], [0.0, 0.0]),
    ],
)
def test_by_hand(
    make_view: MakeView, cls: type[DistanceBounded], params: Any, vectors: list[list[float]], sent: list[float]
) -> None:
    view = make_view(cls.card, num_items=1, embedding_size=len(sent))
    items, _ = of(cls, **params).made_of(view, uploads(vectors))
    assert items.flatten().tolist() == pytest.approx(sent, abs=1e-5)


def test_what_is_common_is_turned_with_the_mean_and_leaves_distances_alone(make_view: MakeView) -> None:
    # The mean is 2 + 1, so the unit direction is down; D = 3 and the farthest upload is 2 from the mean.
    view = make_view(MinMax.card, num_items=1, embedding_size=1)
    items, _ = of(MinMax, direction="unit").made_of(view, uploads([[0.0], [0.0], [3.0]], [2.0]))
    assert items.tolist() == [[pytest.approx(2.0)]]


def laid_out(updates: Updates, num_items: int, size: int) -> torch.Tensor:
    """float64 [S, M d + ...]: whole uploads."""
    table = torch.zeros(len(updates.clients), num_items, size)
    rows = updates.all_rows()
    for c, j, row in zip(rows.client, rows.item, rows.values, strict=True):
        table[c, j] += row
    return torch.cat([table.flatten(1), *(v.flatten(1) for v in updates.dense.stacked().values())], 1).double()


def searched(x: torch.Tensor, cls: type[DistanceBounded], direction: str, bound: str) -> torch.Tensor:
    """The malicious upload, by halving an interval of gammas of which the lower end is allowed and the upper one is not."""
    mu = x.mean(0)
    p = {"std": -x.std(0) if len(x) > 1 else mu * 0, "unit": -mu / mu.norm(), "sign": -mu.sign()}[direction]

    def allowed(gamma: float) -> bool:
        apart = torch.stack([(x - other).square().sum(1) for other in x])
        mine = (x - (mu + gamma * p)).square().sum(1)
        if cls is MinMax:
            return bool(mine.max() <= apart.max())
        sums = apart.sum(1)
        return bool(mine.sum() <= (sums.max() if bound == "largest" else sums.min()))

    if len(x) == 1:
        return mu
    low, high = 0.0, 1.0
    while allowed(high):
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if allowed(middle) else (low, middle)
    return mu + low * p


@pytest.mark.parametrize("model", ["mf", "ncf", "lightgcn"])
@pytest.mark.parametrize("colluders", [1, 4])
@pytest.mark.parametrize("direction", ["std", "unit", "sign"])
@pytest.mark.parametrize(("cls", "bound"), [(MinMax, ""), (MinSum, "largest"), (MinSum, "smallest")])
def test_uploads_agree_with_a_search(
    make_view: MakeView, model: str, colluders: int, direction: str, cls: type[DistanceBounded], bound: str
) -> None:
    params = {"colluders": colluders, "direction": direction} | ({"bound": bound} if bound else {})
    view = make_view(cls.card, model, m=2, num_malicious=5, loss="bpr")
    sent = of(cls, **params).craft(view)
    expected = searched(laid_out(view.colluding(colluders), 20, 4), cls, direction, bound)
    got = laid_out(sent, 20, 4)
    assert got.shape == (2, len(expected))
    for each in got:
        assert torch.allclose(each, expected, rtol=1e-4, atol=1e-6)
    assert torch.equal(sent.weights, view.honest().updates.weights)
