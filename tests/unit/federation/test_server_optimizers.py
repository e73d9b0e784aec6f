"""Server-side Adam against torch's, and what it would do without doing it."""

from __future__ import annotations

import pytest
import torch

from fedbench.federation.optimizers import Adam, Descent
from fedbench.models import PublicParams


def gradients(count: int = 5) -> list[PublicParams]:
    g = torch.Generator().manual_seed(0)
    return [PublicParams(torch.randn(4, 3, generator=g), {"W": torch.randn(2, 2, generator=g)}) for _ in range(count)]


@pytest.mark.parametrize("fused", [False, True])
def test_adam_is_torchs_adam_on_every_tensor(fused: bool) -> None:
    params = PublicParams(torch.ones(4, 3), {"W": torch.zeros(2, 2)})
    items, dense = torch.ones(4, 3, requires_grad=True), torch.zeros(2, 2, requires_grad=True)
    reference = torch.optim.Adam([items, dense], lr=0.1)
    ours = Adam(0.1, fused)
    for gradient in gradients():
        received = params.items.clone()
        items.grad, dense.grad = gradient.items, gradient.dense["W"]
        reference.step()
        before, params = params, ours.step(params, gradient)
        assert torch.equal(before.items, received)
        assert torch.allclose(params.items, items.detach(), atol=1e-6)
        assert torch.allclose(params.dense["W"], dense.detach(), atol=1e-6)


def test_a_table_that_is_laid_out_by_columns_moves_alike() -> None:
    """As a model's ``init_users`` may return one."""
    g = torch.Generator().manual_seed(0)
    users, gradient = torch.randn(3, 7, generator=g).T, torch.randn(3, 7, generator=g).T
    plain, fused = Adam(0.1), Adam(0.1, fused=True)
    for _ in range(3):
        moved = plain.move("users", users.contiguous(), gradient)
        users = fused.move("users", users, gradient)
        assert torch.allclose(users, moved, atol=1e-6)


def test_a_look_ahead_is_the_step_for_those_items_and_leaves_no_trace() -> None:
    params = PublicParams(torch.ones(4, 3), {})
    ids = torch.tensor([3, 1])
    for optimizer in (Adam(0.1), Adam(0.1, fused=True), Descent(0.1)):
        for gradient in [PublicParams(each.items, {}) for each in gradients()]:
            other = torch.randn(2, 3, generator=torch.Generator().manual_seed(8))
            both = torch.stack([gradient.items[ids], other])
            seen = optimizer.peek(params, ids, both)
            again = optimizer.peek(params, ids, both)
            own = optimizer.peek(params, torch.stack([ids, ids.flip(0)]), torch.stack([both[0], both[1].flip(0)]))
            after = optimizer.step(params, gradient)
            assert torch.equal(seen, again)
            assert torch.equal(own, torch.stack([seen[0], seen[1].flip(0)]))
            assert torch.allclose(seen[0], after.items[ids], atol=1e-6)
            params = after


def test_lazy_adam_moves_only_the_rows_it_is_given() -> None:
    ours = Adam(0.1)
    table, rows = torch.ones(4, 3), torch.tensor([2, 0])
    expected = torch.ones(2, 3, requires_grad=True)
    reference = torch.optim.Adam([expected], lr=0.1)
    for gradient in gradients(3):
        expected.grad = gradient.items[:2]
        reference.step()
        table = ours.move_rows("users", table, rows, gradient.items[:2])
    assert torch.allclose(table[rows], expected.detach(), atol=1e-6)
    assert torch.equal(table[[1, 3]], torch.ones(2, 3))


def test_an_absent_row_moves_on_by_its_momentum() -> None:
    ours = Adam(0.1)
    first = ours.move("users", torch.zeros(2, 1), torch.tensor([[1.0], [0.0]]))
    second = ours.move("users", first, torch.zeros(2, 1))
    assert second[0, 0] < first[0, 0] < 0
    assert second[1, 0] == 0
