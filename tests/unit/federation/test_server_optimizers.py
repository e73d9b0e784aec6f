"""Server-side Adam against torch's, what it would do without doing it, and steps of few rows in place."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from fedbench.defenses.chain import Chain
from fedbench.defenses.median import Median
from fedbench.defenses.none import NoDefense
from fedbench.defenses.norm_bound import NormBound
from fedbench.federation import server
from fedbench.federation.optimizers import Adam, Descent
from fedbench.federation.rows import FullRows, OuterRows, PiecedRows, ProjectedRows, Rows, SharedRows
from fedbench.federation.updates import DenseGradients, no_updates
from fedbench.models import PublicParams
from fedbench.randomness import generator


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


KINDS = ("full", "outer", "pieced", "projected", "shared")


def _rows(kind: str, item: torch.Tensor, num_items: int) -> Rows:
    draws = generator(4, kind)
    count, client = len(item), torch.arange(len(item)) % 3

    def drawn(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=draws)

    if kind == "full":
        return FullRows(client, item, drawn(count, 5))
    if kind == "outer":
        return OuterRows(client, item, drawn(count), client, drawn(3, 5))
    if kind == "pieced":
        return PiecedRows(client, item, torch.arange(2 * count) // 2, drawn(2 * count), drawn(2 * count, 5))
    if kind == "projected":
        return ProjectedRows(client, item, drawn(count, 4), drawn(4, 5))
    return SharedRows(client, item, drawn(count), drawn(num_items, 5))


@pytest.mark.parametrize("rule", ["sum", "mean", "weighted"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_step_of_few_rows_in_place_is_the_step_of_all_to_the_bit(kind: str, rule: str) -> None:
    m = 400
    item = torch.randint(m, (60,), generator=generator(9, "items"))
    item[:3] = torch.tensor([0, m - 1, 7])
    nothing = no_updates(torch.arange(3), {"w": torch.zeros(2, 2)}, 5)
    updates = replace(
        nothing,
        rows=(_rows(kind, item, m), _rows("full", item[:9], m)),
        dense=DenseGradients.of({"w": torch.randn(3, 2, 2, generator=generator(9, "w"))}),
        weights=torch.tensor([1.0, 2.0, 5.0]),
    )
    items = torch.randn(m, 5, generator=generator(9, "table"))
    params = PublicParams(items.clone(), {"w": torch.ones(2, 2)})
    whole = server.step(updates, params, rule, Descent(0.7), in_place=False)
    assert torch.equal(params.items, items), "nothing was changed in place"
    few = server.step(updates, params, rule, Descent(0.7), in_place=True)
    assert few.items is params.items
    assert torch.equal(few.items, whole.items)
    assert torch.equal(few.dense["w"], whole.dense["w"])


def test_what_moves_by_momentum_or_is_sent_for_many_items_is_never_stepped_in_place() -> None:
    items = torch.randn(50, 5, generator=generator(9, "table"))
    nothing = no_updates(torch.arange(3), {}, 5)
    few = replace(nothing, rows=(_rows("full", torch.arange(9), 50),))
    many = replace(nothing, rows=(_rows("full", torch.arange(40), 50),))
    for updates, optimizer in ((few, Adam(0.1)), (many, Descent(0.1))):
        assert server.step(updates, PublicParams(items, {}), "sum", optimizer, in_place=True).items is not items


def test_only_a_server_whose_defense_keeps_no_parameters_steps_in_place() -> None:
    assert not NoDefense(NoDefense.Params()).keeps_params
    assert Median(Median.Params()).keeps_params
    assert Chain([NormBound(NormBound.Params()), Median(Median.Params())]).keeps_params
