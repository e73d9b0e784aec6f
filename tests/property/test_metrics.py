"""What must hold of the metrics for any scores, splits and targets."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedbench.errors import UserError
from fedbench.evaluation import metrics
from fedbench.evaluation.evaluator import EvaluationSettings, Evaluator
from fedbench.models import PublicParams
from fedbench.models.mf import MatrixFactorization


@dataclass(frozen=True)
class Case:
    """Whole-number scores [N, M], so that shifts are exact and ties frequent, and which pairs are train and test."""

    scores: torch.Tensor
    train: torch.Tensor
    test: torch.Tensor
    targets: torch.Tensor
    users: torch.Tensor
    settings: EvaluationSettings

    def evaluate(self) -> dict[str, float]:
        n, m = self.scores.shape
        (train_user, train_item), (test_user, test_item) = self.train.nonzero().T, self.test.nonzero().T
        counted = Evaluator(
            num_users=n,
            num_items=m,
            train_user=train_user,
            train_item=train_item,
            test_user=test_user,
            test_item=test_item,
            targets=self.targets,
            evaluated_users=self.users,
            settings=self.settings,
            device=torch.device("cpu"),
        )
        model = MatrixFactorization(MatrixFactorization.Params(embedding_size=m))
        return counted(model, PublicParams(torch.eye(m), {}), self.scores)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    n, m = draw(st.integers(1, 9)), draw(st.integers(4, 60))
    g = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    levels = draw(st.sampled_from([0, 1, 5, 1000]))
    train = torch.rand(n, m, generator=g) < draw(st.sampled_from([0.0, 0.1, 0.6]))
    targets = torch.randperm(m, generator=g)[: draw(st.integers(1, 3))]
    train[0, targets] = False  # somebody can be shown every target
    test = torch.zeros(n, m, dtype=torch.bool)
    several = draw(st.sampled_from([1, 4]))
    test[torch.arange(n)[:, None], torch.randint(0, m, (n, several), generator=g)] = True
    test[0, targets] = False
    return Case(
        torch.randint(-levels, levels + 1, (n, m), generator=g).float(),
        train,
        test & ~train,
        targets,
        torch.arange(n),
        EvaluationSettings(
            draw(st.sampled_from(["train", "train+test"])),
            draw(st.sampled_from(["train", "train+test"])),
            draw(st.sampled_from(["eligible", "all"])),
            num_negatives=draw(st.sampled_from([5, 99])),
        ),
    )


def same(one: dict[str, float], other: dict[str, float]) -> None:
    assert one == pytest.approx(other, abs=1e-12)


@given(cases())
@settings(max_examples=60, deadline=None)
def test_longer_lists_find_more(case: Case) -> None:
    found = case.evaluate()
    assert all(-1e-12 <= value <= 1 + 1e-12 for value in found.values())
    for name in ("er", "hr", "ndcg", "hr_full", "recall"):
        values = [found[f"{name}_{k}"] for k in (5, 10, 20, 30) if f"{name}_{k}" in found]
        assert all(short <= long + 1e-12 for short, long in pairwise(values))


@given(cases(), st.integers(0, 2**31))
@settings(max_examples=40, deadline=None)
def test_names_of_items_do_not_matter(case: Case, seed: int) -> None:
    order = torch.randperm(case.scores.shape[1], generator=torch.Generator().manual_seed(seed))
    moved = replace(
        case,
        scores=case.scores[:, order],
        train=case.train[:, order],
        test=case.test[:, order],
        targets=order.argsort()[case.targets],
    )
    same(moved.evaluate(), case.evaluate())


@given(cases(), st.integers(0, 2**31))
@settings(max_examples=40, deadline=None)
def test_order_of_users_does_not_matter(case: Case, seed: int) -> None:
    order = torch.randperm(len(case.scores), generator=torch.Generator().manual_seed(seed))
    moved = replace(case, scores=case.scores[order], train=case.train[order], test=case.test[order])
    same(moved.evaluate(), case.evaluate())


@given(cases(), st.integers(0, 2**31))
@settings(max_examples=40, deadline=None)
def test_only_the_order_of_each_users_scores_matters(case: Case, seed: int) -> None:
    shift = torch.randint(-9, 10, (len(case.scores), 1), generator=torch.Generator().manual_seed(seed))
    assert replace(case, scores=case.scores + shift).evaluate() == case.evaluate()
    assert replace(case, scores=case.scores**3).evaluate() == case.evaluate()


@given(cases())
@settings(max_examples=40, deadline=None)
def test_a_higher_target_is_exposed_more(case: Case) -> None:
    raised = case.scores.clone()
    raised[:, case.targets[0]] += 3
    before, after = (replace(case, scores=s, targets=case.targets[:1]).evaluate() for s in (case.scores, raised))
    assert all(after[f"er_{k}"] >= before[f"er_{k}"] for k in metrics.EXPOSURE_CUTOFFS)


@given(cases())
@settings(max_examples=40, deadline=None)
def test_users_who_do_not_count_change_nothing(case: Case) -> None:
    """Malicious users are as if they were not there, whatever they hold."""
    extra = replace(
        case,
        scores=torch.cat([case.scores, case.scores[:1] + 1000]),
        train=torch.cat([case.train, ~case.train[:1]]),
        test=torch.cat([case.test, case.train[:1]]),
    )
    assert extra.evaluate() == case.evaluate()


@given(st.integers(0, 3_000), st.data())
@settings(max_examples=100, deadline=None)
def test_more_items_above_never_help(pool: int, data: st.DataObject) -> None:
    above = data.draw(st.integers(0, pool))
    more = data.draw(st.integers(above, pool))
    negatives = data.draw(st.sampled_from([1, 20, 99, 500]))
    chances = metrics.sampled_rank_distribution(torch.tensor([above, more]), torch.tensor([pool, pool]), negatives, 20)
    for cutoff in metrics.CUTOFFS:
        for expected in (metrics.expected_hits(chances, cutoff), metrics.expected_gain(chances, cutoff)):
            assert float(expected[0]) >= float(expected[1]) - 1e-12
            assert 0 <= float(expected[1]) <= float(expected[0]) + 1e-12 <= 1 + 2e-12


@given(cases())
@settings(max_examples=20, deadline=None)
def test_a_target_is_refused_exactly_when_every_user_has_it(case: Case) -> None:
    train = case.train.clone()
    train[:, case.targets[0]] = True
    with pytest.raises(UserError):
        replace(case, train=train, test=case.test & ~train).evaluate()
    train[0, case.targets[0]] = False
    replace(case, train=train, test=case.test & ~train).evaluate()
