from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedbench.attacks.poisonfrs import PoisonFRS, popular, standard_noise
from fedbench.federation.updates import Updates
from fedbench.federation.view import AttackerView
from fedbench.models import PublicParams
from fedbench.testing import Budget, check_attack, failures

MakeView = Callable[..., AttackerView]
START = torch.tensor([[1.0, 0.0], [-2.0, 1.0], [3.0, 0.0], [0.5, 0.5]])
LATER = torch.tensor([[1.0, 0.0], [-2.0, 3.0], [3.0, 1.0], [-4.5, 0.5]])


def attack(view: AttackerView, **params: Any) -> PoisonFRS:
    made = PoisonFRS(PoisonFRS.Params(**{"wait_rounds": 0} | params))
    made.start(view)
    return made


def rows(updates: Updates) -> dict[tuple[int, int], list[float]]:
    every = updates.all_rows()
    return dict(zip(zip(every.client.tolist(), every.item.tolist(), strict=True), every.values.tolist(), strict=True))


def test_two_rounds_by_hand(make_view: MakeView) -> None:
    """The mean row is (0.625, 0.375): inner products 0.625, -0.875, 1.875, 0.5. Item 1 is popular, the goal -2 x 10, 10."""
    options = {"num_items": 4, "embedding_size": 2, "targets": (3,), "m": 2, "learning_rate": 0.5}
    first, second = (
        make_view(PoisonFRS.card, params=PublicParams(items, {}), round=at, **options)
        for at, items in enumerate((START, LATER))
    )
    made = attack(first, popular_items=1, items_per_client=3, noise=0.0, alpha=0.5)
    # Nothing has moved yet: the lowest ids are fillers, and stay. Divided by -0.5 and by two clients.
    start = {3: [10.25, -4.75], 0: [0.0, 0.0], 1: [0.0, 0.0]}
    assert rows(made.craft(first)) == {(c, j): row for c in (0, 1) for j, row in start.items()}
    # Items 1 and 2 have moved by (0, 2) and (0, 1), the target by more. Goal and old rows are those of the first round.
    later = {3: [7.75, -4.75], 1: [0.0, 2.0], 2: [0.0, 1.0]}
    assert rows(made.craft(second)) == {(c, j): row for c in (0, 1) for j, row in later.items()}


@pytest.mark.parametrize(("model", "wait", "rounds"), [("mf", None, 50), ("ncf", None, 100), ("ncf", 7, 7)])
def test_clients_wait_and_look_at_the_first_round_thereafter(
    make_view: MakeView, model: str, wait: int | None, rounds: int
) -> None:
    early, late = (make_view(PoisonFRS.card, model, round=at, seed=at) for at in (rounds - 1, rounds))
    made = attack(early, wait_rounds=wait, items_per_client=1)
    sent = made.craft(early)
    assert set(rows(sent)) == {(0, 7), (1, 7), (2, 7)}
    assert not sent.all_rows().values.any()
    goal = 10 * late.params.items[popular(late.params.items, 5, "least-aligned")].mean(0)
    assert torch.allclose(made.craft(late).all_rows().values, (late.params.items[7] - goal) / (0.5 * 3))


def test_popular_items_by_hand() -> None:
    found = {by: popular(START, 2, by).tolist() for by in ("least-aligned", "most-aligned", "smallest", "largest")}
    assert found == {"least-aligned": [1, 3], "most-aligned": [2, 0], "smallest": [3, 0], "largest": [2, 1]}


@pytest.mark.parametrize("model", ["mf", "ncf", "lightgcn"])
@pytest.mark.parametrize("aggregation", ["sum", "mean"])
@pytest.mark.parametrize(("share", "targets"), [("together", (7,)), ("each", (7, 2))])
def test_uploads_agree_with_a_loop_over_clients(
    make_view: MakeView, model: str, aggregation: str, share: str, targets: tuple[int, ...]
) -> None:
    views = [
        make_view(PoisonFRS.card, model, targets=targets, aggregation=aggregation, seed=seed, round=seed)
        for seed in (0, 1)
    ]
    made = attack(views[0], share=share, items_per_client=8, popular_items=3, scale=2.0, noise=0.1)
    made.craft(views[0])
    sent = made.craft(views[1])
    before, now = (view.params.items for view in views)
    middle = sum(row for row in before) / 20
    p = sum(before[j] for j in sorted(range(20), key=lambda j: float(before[j] @ middle))[:3]) / 3
    others = [j for j in range(20) if j not in targets]
    fillers = sorted(others, key=lambda j: -float((before[j] - now[j]).norm()))[: 8 - len(targets)]
    drawn = torch.randn(3, 8, 4, generator=torch.Generator().manual_seed(1))
    expected = {}
    for c in range(3):
        for at, j in enumerate([*targets, *fillers]):
            change = 2 * p - now[j] if j in targets else before[j] - now[j]
            change = change + 0.1 * (drawn[c, at] - drawn[c, at].mean()) / drawn[c, at].std()
            expected[c, j] = change / -0.5 / (3 if share == "together" and aggregation == "sum" else 1)
    got = rows(sent)
    assert set(got) == set(expected)
    for key, row in expected.items():
        assert torch.allclose(torch.tensor(got[key]), row, atol=1e-5)
    assert sent.weights.tolist() == [8.0] * 3
    assert all(not value.any() for value in sent.dense.stacked().values())


@pytest.mark.parametrize("largest", [200.0, 40.0])
def test_lambda_doubles_until_the_goal_has_come_nearer_twice(make_view: MakeView, largest: float) -> None:
    """Popular is (1, 0). By the Lambdas 2, 4, 8, 16, 32 the distances are 2, 4, 1, 6, 1: they fall twice."""
    scales = []
    made = attack(make_view(PoisonFRS.card), scale=2.0, adapt=True, largest_scale=largest, items_per_client=1,
                  popular_items=1, popular_by="most-aligned")  # fmt: skip
    for at, place in enumerate([0.0, 0.0, 7.0, 10.0, 31.0, 50.0, 64.0]):
        params = PublicParams(torch.tensor([[1.0, 0.0], [1.0, 0.0], [place, 0.0]]), {})
        view = make_view(PoisonFRS.card, num_items=3, embedding_size=2, targets=(2,), m=1, round=at, params=params,
                         learning_rate=1.0)  # fmt: skip
        (sent,) = rows(made.craft(view)).values()
        scales.append(place - sent[0])
    assert scales == [4.0, 8.0, 16.0, 32.0, *[min(64.0, largest)] * 3]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    m=st.integers(1, 5),
    size=st.integers(1, 5),
    limit=st.integers(1, 12),
    scale=st.floats(0.5, 50),
    seed=st.integers(0, 99),
)
def test_together_the_clients_go_all_of_the_way(
    make_view: MakeView, m: int, size: int, limit: int, scale: float, seed: int
) -> None:
    options = {"num_items": 10, "embedding_size": size, "targets": (3, 8), "m": m}
    views = [make_view(PoisonFRS.card, round=at, seed=seed + at, **options) for at in (0, 1)]
    made = attack(views[0], items_per_client=limit, scale=scale, noise=0.0)
    made.craft(views[0])
    before, now = (view.params.items for view in views)
    after = now - views[1].learning_rate * made.craft(views[1]).sum_rows(10, size)
    goal = scale * before[popular(before, 5, "least-aligned")].mean(0)
    assert torch.allclose(after[[3, 8]], goal.expand(2, size), atol=1e-4, rtol=1e-4)
    back = [j for j in range(10) if not torch.equal(after[j], now[j]) and j not in (3, 8)]
    assert len(back) == max(min(limit, 10) - 2, 0)
    assert torch.allclose(after[back], before[back], atol=1e-5)


def test_noise_has_mean_zero_and_deviation_one() -> None:
    drawn = standard_noise(torch.Size((3, 4, 6)), torch.Generator().manual_seed(0))
    assert torch.allclose(drawn.mean(-1), torch.zeros(3, 4), atol=1e-6)
    assert torch.allclose(drawn.std(-1), torch.ones(3, 4), atol=1e-6)
    assert not standard_noise(torch.Size((3, 1)), torch.Generator().manual_seed(0)).any()


def test_the_contract_holds_once_the_wait_is_over() -> None:
    """With the default wait the contract's short federations see rows of zeros alone."""

    class Hasty(PoisonFRS):
        """PoisonFRS without the wait."""

        card = PoisonFRS.card

        def start(self, view: AttackerView) -> None:
            super().start(view)
            self.params = self.params.model_copy(update={"wait_rounds": 0, "scale": 2.0, "noise": 0.01})

    assert failures(check_attack(Hasty, Budget(times=1000, seconds=10), ["mf"])) == []
