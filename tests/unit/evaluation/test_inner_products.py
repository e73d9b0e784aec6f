from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedbench.evaluation import inner_products
from fedbench.evaluation.evaluator import EvaluationSettings, Evaluator
from fedbench.federation.model import PublicParams, scores_by_inner_products
from fedbench.models.mf import MatrixFactorization
from fedbench.models.pfedrec import PersonalTables
from fedbench.randomness import generator


def plain(users: torch.Tensor, items: torch.Tensor, measured: torch.Tensor, seen: list[torch.Tensor]) -> list[int]:
    """Ranks by the definition, user by user and in float64."""
    out = []
    for user, own, known in zip(users.double(), measured.tolist(), seen, strict=True):
        scores = items.double() @ user
        counted = [j for j in range(len(items)) if j != own and j not in set(known.tolist())]
        out.append(sum(bool(scores[j] >= scores[own]) for j in counted))
    return out


def test_by_hand() -> None:
    # Lengths 3, 2, 1, .5; user 0 scores 3, -2, 1, .5, user 1 the negatives of them.
    items = torch.tensor([[3.0], [-2.0], [1.0], [0.5]])
    users = torch.tensor([[1.0], [-1.0], [0.0]])
    measured = torch.tensor([2, 2, 1])
    # User 0: item 0 is ahead, and seen. User 1 (-3, 2, -1, -.5): 1 and 3 are ahead. User 2: all are 0, three ahead.
    starts, seen = torch.tensor([0, 1, 1, 1]), torch.tensor([0])
    most = torch.full((3,), 9)
    assert inner_products.ranks(users, items, measured, starts, seen, most).tolist() == [0, 2, 3]


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 60), st.integers(2, 120), st.integers(1, 30), st.integers(1, 50))
def test_like_the_definition_however_it_is_cut(seed: int, n: int, m: int, block: int, chunk: int) -> None:
    draws = generator(seed, "case")
    users = torch.randn(n, 4, generator=draws)
    items = torch.randn(m, 4, generator=draws) * torch.rand(m, 1, generator=draws) ** 3
    measured = torch.randint(m, (n,), generator=draws)
    seen = [torch.randperm(m, generator=draws)[: int(torch.randint(m, (1,), generator=draws))] for _ in range(n)]
    starts = torch.tensor([0, *(len(each) for each in seen)]).cumsum(0)
    want = torch.tensor(plain(users, items, measured, seen))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inner_products, "_USERS", block)
        patch.setattr(inner_products, "_ITEMS", chunk)
        found = inner_products.ranks(users, items, measured, starts, torch.cat(seen), torch.full((n,), m))
        capped = inner_products.ranks(users, items, measured, starts, torch.cat(seen), torch.full((n,), 5))
    assert found.tolist() == want.tolist()
    assert capped.clamp(max=5).tolist() == want.clamp(max=5).tolist()


@pytest.mark.parametrize("mask", ["train", "train+test"])
def test_metrics_are_those_of_all_scores(monkeypatch: pytest.MonkeyPatch, mask: str) -> None:
    draws = generator(3, "case")
    n, m = 70, 200
    pairs = torch.randperm(n * m, generator=draws)[:1500]
    train, test = pairs[n:].sort().values, pairs[:n]
    test_user, test_item = torch.arange(0, n, 2), test[::2] % m
    assert torch.isin(test_user * m + test_item, train).any(), "an item is held out and in training"
    measure = Evaluator(
        num_users=n,
        num_items=m,
        train_user=train // m,
        train_item=train % m,
        test_user=test_user,
        test_item=test_item,
        targets=torch.tensor([3, 11]),
        evaluated_users=torch.arange(1, n),
        settings=EvaluationSettings(er_mask=mask),  # type: ignore[arg-type]
        device=torch.device("cpu"),
    )
    model = MatrixFactorization(MatrixFactorization.Params(embedding_size=8))
    users, items = torch.randn(n, 8, generator=draws), torch.randn(m, 8, generator=draws)
    items[3] *= 4
    items[11] *= 0.1
    all_scored, places = measure(model, PublicParams(items, {}), users), measure.target_places()
    assert 0 < all_scored["er_10"] < 1
    monkeypatch.setattr(inner_products, "LARGE", 1)
    monkeypatch.setattr("fedbench.evaluation.held_out.TESTED", 8)
    called = []
    ranks = inner_products.ranks
    monkeypatch.setattr(inner_products, "ranks", lambda *given: called.append(1) or ranks(*given))
    assert measure(model, PublicParams(items, {}), users) == pytest.approx(all_scored, abs=1e-12)
    assert measure.target_places() == places
    assert len(called) == 3, "two targets and the held-out items"


def test_a_model_that_scores_otherwise_is_not_taken_at_the_word_of_its_base() -> None:
    class Shifted(MatrixFactorization):
        def score_all(self, params: PublicParams, users: torch.Tensor) -> torch.Tensor:
            return super().score_all(params, users) + 1

    parameters = MatrixFactorization.Params()
    assert scores_by_inner_products(MatrixFactorization(parameters))
    assert scores_by_inner_products(PersonalTables(PersonalTables.Params()))
    assert not scores_by_inner_products(Shifted(parameters))
