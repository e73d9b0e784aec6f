"""What must hold of PIECK's regularizers for any embeddings, training rows and popular items."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedbench.defenses.pieck_regularizer import PieckRegularizer, pull_to_popular, push_from_popular, rank_weights
from fedbench.federation.batch import Batch
from fedbench.federation.defense import ServerView
from fedbench.models import PublicParams


@dataclass(frozen=True)
class Case:
    """n clients with their rows among M items of size d; some have mined."""

    items: torch.Tensor
    users: torch.Tensor
    batch: Batch
    popular: torch.Tensor
    mined: torch.Tensor
    kappa: torch.Tensor

    def pull(self, items: torch.Tensor | None = None) -> torch.Tensor:
        return pull_to_popular(
            self.items if items is None else items, self.batch, self.popular, self.mined.float(), self.kappa
        )


@st.composite
def cases(draw: st.DrawFn) -> Case:
    n, m, d = draw(st.integers(1, 6)), draw(st.integers(2, 20)), draw(st.integers(2, 9))
    count = draw(st.integers(1, m))
    g = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    owned = torch.rand(n, m, generator=g) < draw(st.sampled_from([0.0, 0.3, 1.0]))
    client, item = owned.nonzero().T
    ones, length = torch.ones(len(item)), owned.sum(1)
    starts = torch.cat([length.new_zeros(1), length.cumsum(0)])
    return Case(
        torch.randn(m, d, generator=g),
        torch.randn(n, d, generator=g),
        Batch(torch.arange(n), starts, client, item, ones, ones, length.float()),
        torch.rand(n, m, generator=g).argsort(1)[:, :count],
        torch.rand(n, generator=g) < 0.7,
        rank_weights(count, draw(st.sampled_from(["exponential", "quadratic"])), torch.device("cpu")),
    )


@settings(max_examples=100, deadline=None)
@given(cases())
def test_gradients_are_those_of_the_terms(case: Case) -> None:
    """Autograd of each client's Re1 and Re2, written as in the paper."""
    rows, users = torch.zeros(len(case.batch.item), case.items.shape[1]), torch.zeros_like(case.users)
    for i in range(len(case.users)):
        u = case.users[i].clone().requires_grad_()
        re2 = torch.zeros(())
        for weight, k in zip(case.kappa, case.popular[i], strict=True):
            p, q = torch.softmax(u, 0), torch.softmax(case.items[k], 0)
            re2 = re2 + weight * (p * (p.log() - q.log())).mean()
        users[i] = torch.autograd.grad(re2, u)[0]
        mine = [r for r in range(len(rows)) if case.batch.client[r] == i and case.batch.item[r] not in case.popular[i]]
        if not mine or not case.mined[i]:
            continue
        v = case.items[case.batch.item[mine]].clone().requires_grad_()
        cosines = torch.cosine_similarity(v[:, None], case.items[case.popular[i]][None], dim=-1)
        rows[mine] = torch.autograd.grad((cosines @ case.kappa).mean(), v)[0]
    assert torch.allclose(case.pull(), rows, atol=1e-5, rtol=1e-4)
    assert torch.allclose(
        push_from_popular(case.items, case.users, case.popular, case.kappa), users, atol=1e-6, rtol=1e-4
    )


@settings(max_examples=60, deadline=None)
@given(cases(), st.floats(0.1, 10), st.floats(-3, 3))
def test_cosines_know_no_length_and_softmax_no_shift(case: Case, factor: float, shift: float) -> None:
    """Re1's gradient is orthogonal to its row's embedding and shrinks as it grows; Re2's sums to zero."""
    pulled = case.pull()
    own = case.items.index_select(0, case.batch.item)
    bound = 1e-5 * (1 + own.norm(dim=1) * pulled.norm(dim=1))
    assert bool(((pulled * own).sum(1).abs() <= bound).all())
    assert torch.allclose(case.pull(case.items * factor), pulled / factor, atol=1e-5, rtol=1e-3)
    pushed = push_from_popular(case.items, case.users, case.popular, case.kappa)
    assert torch.allclose(pushed.sum(1), torch.zeros(len(pushed)), atol=1e-6)
    shifted = push_from_popular(case.items + shift, case.users - shift, case.popular, case.kappa)
    assert torch.allclose(shifted, pushed, atol=1e-5)


@settings(max_examples=60, deadline=None)
@given(cases())
def test_popular_items_and_clients_without_a_list_are_left_alone(case: Case) -> None:
    mine = (case.popular.index_select(0, case.batch.client) == case.batch.item[:, None]).any(1)
    silent = mine | ~case.mined.index_select(0, case.batch.client)
    assert not case.pull()[silent].any()


@settings(max_examples=40, deadline=None)
@given(cases(), st.floats(0, 50), st.floats(0, 50))
def test_both_terms_are_linear_in_their_weights(case: Case, beta: float, gamma: float) -> None:
    def second_round(beta: float, gamma: float) -> tuple[torch.Tensor, torch.Tensor]:
        defense = PieckRegularizer(PieckRegularizer.Params(beta=beta, gamma=gamma, popular_items=2))
        for number, items in enumerate((case.items, case.items.roll(1, 0))):
            params = PublicParams(items, {})
            view = ServerView(params, 1.0, "sum", None, 1 + number, number, torch.Generator())
            made = defense.regularize(params, case.users, case.batch, view)
        assert made is not None
        zero = torch.zeros(len(case.batch.item), case.items.shape[1])
        return zero if made.rows is None else made.rows, zero[:0] if made.users is None else made.users

    rows, users = second_round(beta, gamma)
    unit_rows, unit_users = second_round(1.0, 1.0)
    assert torch.allclose(rows, beta * unit_rows, atol=1e-5, rtol=1e-4)
    if gamma:
        assert torch.allclose(users, gamma * unit_users, atol=1e-5, rtol=1e-4)
