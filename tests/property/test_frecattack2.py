"""What must hold of FRecAttack2's hard items and gradients, and of GuardCQ's cut, whatever the numbers."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedbench.attacks.frecattack2 import silhouette, taught
from fedbench.defenses.guardcq import below_the_gap
from fedbench.defenses.score_trend import ScoreTrend
from fedbench.models import MODELS, PublicParams


@settings(max_examples=30, deadline=None)
@given(
    num_items=st.integers(2, 12),
    seed=st.integers(0, 999),
    switch=st.sampled_from(["patience", "majority"]),
    patience=st.integers(1, 3),
)
def test_a_guess_has_as_many_items_at_either_end(num_items: int, seed: int, switch: str, patience: int) -> None:
    g = torch.Generator().manual_seed(seed)
    count = num_items // 2
    trend = ScoreTrend(count, switch, patience, 1, patience)  # type: ignore[arg-type]
    turned = False
    for _ in range(12):
        chosen = trend.look(torch.randn(num_items, 1, generator=g), lambda table: table[:, 0])
        assert chosen.shape == (2, num_items)
        assert chosen.sum(1).tolist() == [count, count]
        assert trend.by_score or not turned
        turned = trend.by_score


@settings(max_examples=30, deadline=None)
@given(
    n=st.integers(1, 5), num_items=st.integers(2, 9), seed=st.integers(0, 999), scale=st.sampled_from([0.01, 1.0, 9.0])
)
def test_labels_turned_round_move_rows_by_the_users(n: int, num_items: int, seed: int, scale: float) -> None:
    """On mf the rows of an item liked and disliked differ by the mean user over r, whatever the scores."""
    g = torch.Generator().manual_seed(seed)
    cls = MODELS.get("mf")
    model, params = cls(cls.Params(embedding_size=3)), PublicParams(scale * torch.randn(num_items, 3, generator=g), {})
    users = scale * torch.randn(n, 3, generator=g)
    liked = torch.rand(num_items, generator=g) < 0.5
    one, other = taught(model, params, users, liked, ~liked), taught(model, params, users, ~liked, liked)
    sign = torch.where(liked, 1.0, -1.0)[:, None]
    torch.testing.assert_close((other[1] - one[1]) * sign, (users.mean(0) / num_items).expand(num_items, 3))
    if n == 1:  # a step along the upload raises what a user gives to what it likes, and lowers the rest
        assert bool((-(one[1] @ users.T) * sign >= 0).all())


@settings(max_examples=60, deadline=None)
@given(values=st.lists(st.integers(0, 20), min_size=1, max_size=9), least=st.integers(0, 12), shift=st.integers(-5, 5))
def test_whoever_is_cut_off_lies_below_everybody_else(values: list[int], least: int, shift: int) -> None:
    column = torch.tensor(values, dtype=torch.float32)[:, None]
    below = below_the_gap(column, float(least)).squeeze(1)
    assert not bool(below.all())
    if bool(below.any()):
        gap = column[~below].min() - column[below].max()
        ordered = column.sort(0).values
        assert gap >= least
        assert gap == (ordered[1:] - ordered[:-1]).max()
    assert torch.equal(below_the_gap(column + shift, float(least)).squeeze(1), below)


@settings(max_examples=30, deadline=None)
@given(n=st.integers(2, 12), count=st.integers(1, 4), seed=st.integers(0, 999), scale=st.sampled_from([1e-3, 1.0, 1e3]))
def test_silhouettes_are_between_minus_one_and_one_at_any_scale(n: int, count: int, seed: int, scale: float) -> None:
    g = torch.Generator().manual_seed(seed)
    points, labels = torch.randn(n, 2, generator=g), torch.randint(0, count, (n,), generator=g)
    value = float(silhouette(points, labels, count))
    assert -1 <= value <= 1
    assert abs(float(silhouette(points * scale, labels, count)) - value) < 1e-3
