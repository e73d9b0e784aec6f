from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedbench.attacks.pieck_ipe import PieckIPE
from fedbench.attacks.pieck_uea import PieckUEA, published_weights
from fedbench.attacks.popular_items import PopularItemMiner, delta_norm
from fedbench.federation.updates import Updates
from fedbench.federation.view import AttackerView
from fedbench.models import PublicParams

MakeView = Callable[..., AttackerView]
CPU = torch.device("cpu")


def rows_of(updates: Updates, m: int, targets: int) -> torch.Tensor:
    return updates.all_rows().values.view(m, targets, -1)


def two_rounds(make_view: MakeView, attack: PieckIPE | PieckUEA, **options: Any) -> tuple[AttackerView, Updates]:
    """Let all sampled clients take part twice with moved embeddings in between; the second round and its uploads."""
    first = make_view(attack.card, round=0, **options)
    attack.start(make_view(attack.card, in_round=False, **options))
    nothing = attack.craft(first)
    assert not nothing.all_rows().values.any()
    drift = torch.randn(first.params.items.shape, generator=torch.Generator().manual_seed(9)) * 0.1
    params = PublicParams(first.params.items + drift, first.params.dense)
    second = make_view(attack.card, round=1, params=params, **options)
    return second, attack.craft(second)


def test_delta_norm_by_hand() -> None:
    old = torch.tensor([[0.0, 0], [1, 1], [2, 0]])
    new = torch.tensor([[3.0, 4], [1, 1], [2, 2]])
    assert delta_norm(old, new).tolist() == [5, 0, 2]


def test_each_client_mines_between_its_own_participations() -> None:
    rounds = [
        torch.tensor([[float(x)], [float(y)], [float(z)], [0.0]])
        for x, y, z in [(0, 0, 0), (5, 1, 2), (6, 9, 2), (6, 9, 9)]
    ]
    miner = PopularItemMiner(4, 2, 1, torch.tensor([3]), False, 4, CPU)
    popular, mined = miner.observe(torch.tensor([0, 1]), rounds[0])
    assert popular.tolist() == [[0, 1], [0, 1]]  # arbitrary: the first by id
    assert mined.tolist() == [False, False]
    popular, mined = miner.observe(torch.tensor([0]), rounds[1])  # moved by 5, 1, 2
    assert popular.tolist() == [[0, 2]]
    assert mined.tolist() == [True]
    popular, mined = miner.observe(torch.tensor([2, 1]), rounds[2])  # client 1 since round 0: 6, 9, 2
    assert mined.tolist() == [False, True]
    assert popular[1].tolist() == [1, 0]
    popular, mined = miner.observe(torch.tensor([0, 1, 2]), rounds[3])  # client 2 since round 2: 0, 0, 7
    assert popular.tolist() == [[0, 2], [1, 0], [2, 0]]
    assert mined.all()


def test_embeddings_are_kept_only_while_a_client_needs_them() -> None:
    miner = PopularItemMiner(3, 1, 1, torch.tensor([0]), False, 4, CPU)
    first, second = torch.zeros(4, 1), torch.ones(4, 1)
    miner.observe(torch.tensor([0, 1]), first)
    miner.observe(torch.tensor([2]), second)
    miner.observe(torch.tensor([0]), second)
    assert {id(h.last) for h in miner._histories.values()} == {id(first), id(second)}  # client 1 needs the first one
    miner.observe(torch.tensor([1]), second)
    assert {id(h.last) for h in miner._histories.values()} == {id(second)}
    miner.observe(torch.tensor([2]), first)
    assert not miner._histories


def test_two_differences_add_up_over_three_participations() -> None:
    rounds = [
        torch.tensor([[0.0], [0.0], [0.0]]),
        torch.tensor([[4.0], [3.0], [0.0]]),
        torch.tensor([[4.0], [0.0], [1.0]]),
    ]
    miner = PopularItemMiner(1, 1, 2, torch.tensor([], dtype=torch.int64), False, 3, CPU)
    for r in rounds[:2]:
        assert miner.observe(torch.tensor([0]), r)[1].tolist() == [False]
    popular, mined = miner.observe(torch.tensor([0]), rounds[2])  # 4 + 0, 3 + 3, 0 + 1
    assert mined.all()
    assert popular.tolist() == [[1]]


def test_targets_are_never_mined_unless_the_order_is_turned_round() -> None:
    moved = torch.tensor([[9.0], [1.0], [2.0], [3.0]])
    for least, expected in ((False, [3, 2]), (True, [0, 1])):
        miner = PopularItemMiner(1, 2, 1, torch.tensor([0]), least, 4, CPU)
        miner.observe(torch.tensor([0]), torch.zeros(4, 1))
        assert miner.observe(torch.tensor([0]), moved)[0][0].tolist() == expected


@given(
    st.integers(1, 3),
    st.lists(st.lists(st.integers(0, 4), min_size=1, max_size=5, unique=True), min_size=1, max_size=12),
    st.sampled_from([5, None]),
)
@settings(max_examples=60, deadline=None)
def test_mining_equals_every_client_for_itself(
    differences: int, cohorts: list[list[int]], num_clients: int | None
) -> None:
    draw = torch.Generator().manual_seed(len(cohorts))
    miner = PopularItemMiner(num_clients, 3, differences, torch.tensor([2]), False, 8, CPU)
    seen: dict[int, list[torch.Tensor]] = {}
    for cohort in cohorts:
        items = torch.randn(8, 3, generator=draw)
        popular, mined = miner.observe(torch.tensor(cohort), items)
        for place, client in enumerate(cohort):
            mine = seen.setdefault(client, [])
            mine.append(items)
            assert bool(mined[place]) == (len(mine) > differences)
            if len(mine) > differences:
                score = [
                    sum(float((mine[r][j] - mine[r - 1][j]).norm()) for r in range(1, differences + 1))
                    for j in range(8)
                ]
                ranked = sorted((j for j in range(8) if j != 2), key=lambda j: -score[j])
                assert popular[place].tolist() == ranked[:3]


def test_uea_on_mf_by_hand(make_view: MakeView) -> None:
    attack = PieckUEA(PieckUEA.Params(popular_items=1, accumulation="none"))
    items = torch.zeros(20, 4)
    items[7] = torch.tensor([1.0, 0, 0, 0])
    attack.start(make_view(attack.card, in_round=False, m=1))
    attack.craft(make_view(attack.card, m=1, params=PublicParams(items, {})))
    moved = items.clone()
    moved[3] = torch.tensor([2.0, 1, 0, 0])
    view = make_view(attack.card, m=1, round=1, params=PublicParams(moved, {}))
    row = attack.craft(view).all_rows()
    factor = 1 - 1 / (1 + math.exp(-2))  # 1 - sigma(v_3 . v_7)
    assert row.item.tolist() == [7]
    assert torch.allclose(row.values, -factor * torch.tensor([[2.0, 1, 0, 0]]))


def test_published_weights_are_those_of_the_code() -> None:
    weights = published_weights(150, 1, 5, 3)
    assert torch.allclose(weights[::30, 0] * 30, torch.tensor([2.8, 2.2, 1.6, 1.0, 0.4]))
    assert weights.sum().item() == pytest.approx(8.0)
    several = published_weights(50, 3, 5, 3)
    assert torch.allclose(several.sum(0) / 3, torch.tensor([9 - (3 * t + 1) / 3 for t in range(3)]))


@pytest.mark.parametrize("targets", [(7,), (7, 2, 11)])
def test_published_accumulation_equals_a_buffer_that_is_never_zeroed(
    make_view: MakeView, targets: tuple[int, ...]
) -> None:
    attack = PieckUEA(PieckUEA.Params(popular_items=10, accumulation="published", multi_target="together"))
    view, updates = two_rounds(make_view, attack, targets=targets, m=2, num_items=30)
    popular, _ = attack.miner.observe(view.clients, view.params.items)
    for c in range(2):
        mine = popular[c].view(5, 2)
        items = view.params.items.clone().requires_grad_()
        total = torch.zeros(len(targets), 4)
        for batch in mine:
            for target in targets:
                for _ in range(3):
                    logits = items[batch].detach() @ items[target]
                    loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, torch.ones(2))
                    (loss / 5 / len(targets)).backward()
                    assert items.grad is not None
                    # A third of the whole buffer is added: what earlier steps left in every target's row, too.
                    total += items.grad[list(targets)] / 3
        assert torch.allclose(rows_of(updates, 2, len(targets))[c], total, atol=1e-5)


@pytest.mark.parametrize("model", ["mf", "ncf"])
@pytest.mark.parametrize("targets", [(7,), (7, 2, 11)])
@pytest.mark.parametrize("dense", [False, True])
def test_uea_equals_autograd_of_eq_10(make_view: MakeView, model: str, targets: tuple[int, ...], dense: bool) -> None:
    params = PieckUEA.Params(popular_items=6, accumulation="none", multi_target="together", poison_dense=dense)
    attack = PieckUEA(params)
    view, updates = two_rounds(make_view, attack, model=model, targets=targets, m=3)
    popular, _ = attack.miner.observe(view.clients, view.params.items)
    stacked = updates.dense.stacked()
    for c in range(3):
        target = view.params.items[list(targets)].clone().requires_grad_()
        own = {name: value.clone().requires_grad_() for name, value in view.params.dense.items()}
        loss = torch.zeros(())
        for k in popular[c].tolist():
            for t in range(len(targets)):
                s = view.model.logits(own, view.params.items[k][None], target[t][None])
                loss = loss - torch.nn.functional.logsigmoid(s).sum() / (6 * len(targets))
        grads = torch.autograd.grad(loss, [target, *own.values()])
        assert torch.allclose(rows_of(updates, 3, len(targets))[c], grads[0], atol=1e-6)
        for name, expected in zip(own, grads[1:], strict=True):
            assert torch.allclose(stacked[name][c], expected if dense else torch.zeros_like(expected), atol=1e-6)


@pytest.mark.parametrize("targets", [(7,), (7, 2, 11)])
@pytest.mark.parametrize("scope", ["P", "side"])
@pytest.mark.parametrize("one_sided", ["multiply", "divide"])
def test_ipe_equals_autograd_of_eq_8(make_view: MakeView, targets: tuple[int, ...], scope: str, one_sided: str) -> None:
    n, strength = 5, 0.7
    params = PieckIPE.Params(
        popular_items=n,
        strength=strength,
        kappa_scope=scope,
        one_sided=one_sided,  # type: ignore[arg-type]
        multi_target="together",
    )
    attack = PieckIPE(params)
    view, updates = two_rounds(make_view, attack, targets=targets, m=2)
    popular, _ = attack.miner.observe(view.clients, view.params.items)
    for c in range(2):
        target = view.params.items[list(targets)].clone().requires_grad_()
        loss = torch.zeros(())
        for t in range(len(targets)):
            cos = torch.nn.functional.cosine_similarity(view.params.items[popular[c]], target[t][None], dim=1)
            for side in (cos > 0, cos <= 0):
                if not side.any():
                    continue
                kappa = torch.arange(n, 0, -1).float()
                kappa = kappa / (kappa.sum() if scope == "P" else kappa[side].sum())
                factor = 1 / strength if one_sided == "divide" and side.all() else strength
                loss = loss - factor / side.sum() * (kappa[side] * cos[side]).sum() / len(targets)
        (gradient,) = torch.autograd.grad(loss, [target])
        assert torch.allclose(rows_of(updates, 2, len(targets))[c], gradient, atol=1e-5)


@pytest.mark.parametrize("similarity", ["cosine", "kl"])
@pytest.mark.parametrize("ranks", [True, False])
@pytest.mark.parametrize("partition", [True, False])
def test_ablations_of_ipe_equal_autograd(make_view: MakeView, similarity: str, ranks: bool, partition: bool) -> None:
    n = 5
    params = PieckIPE.Params(
        popular_items=n,
        strength=0.7,
        similarity=similarity,  # type: ignore[arg-type]
        rank_weights=ranks,
        partition=partition,
    )
    attack = PieckIPE(params)
    view, updates = two_rounds(make_view, attack, m=2)
    popular, _ = attack.miner.observe(view.clients, view.params.items)
    for c in range(2):
        target = view.params.items[view.targets[0]].clone().requires_grad_()
        theirs = view.params.items[popular[c]]
        cos = torch.nn.functional.cosine_similarity(theirs, target[None], dim=1)
        closeness = cos
        if similarity == "kl":
            p = torch.softmax(theirs, dim=1)
            closeness = -(p * (p.log() - torch.log_softmax(target, dim=0))).sum(1)
        loss = torch.zeros(())
        for side in (cos > 0, cos <= 0) if partition else (torch.ones(n, dtype=torch.bool),):
            kappa = torch.arange(n, 0, -1).float() if ranks else torch.ones(n)
            if side.any():
                weights = kappa[side] / kappa[side].sum()
                loss = loss - 0.7 / side.sum() * (weights * closeness[side]).sum()
        (gradient,) = torch.autograd.grad(loss, [target])
        assert torch.allclose(rows_of(updates, 2, 1)[c, 0], gradient, atol=1e-5)


def test_ipe_turns_the_target_and_never_stretches_it(make_view: MakeView) -> None:
    attack = PieckIPE(PieckIPE.Params(popular_items=4))
    view, updates = two_rounds(make_view, attack, m=3)
    rows = rows_of(updates, 3, 1)
    assert torch.allclose(rows @ view.params.items[7], torch.zeros(3, 1), atol=1e-6)
    assert rows.norm(dim=-1).min() > 0


@pytest.mark.parametrize(
    ("model", "above", "raised"),
    [
        ("mf", 0.95, True),
        ("mf", 1, False),
        ("mf", None, False),
        ("ncf", None, True),
        ("ncf", 1, False),
    ],
)
def test_ipe_raises_the_norm_of_a_target_that_is_there(
    make_view: MakeView, model: str, above: Any, raised: bool
) -> None:
    dense = make_view(PieckIPE.card, model=model).params.dense
    items = torch.ones(20, 4)
    attack = PieckIPE(PieckIPE.Params(popular_items=3, norm_boost_above=above))
    options: dict[str, Any] = {"model": model, "m": 1}
    attack.start(make_view(attack.card, in_round=False, **options))
    attack.craft(make_view(attack.card, params=PublicParams(items, dense), **options))
    updates = attack.craft(make_view(attack.card, round=1, params=PublicParams(items * 2, dense), **options))
    assert torch.allclose(updates.all_rows().values, torch.full((1, 4), -0.5 if raised else 0.0), atol=1e-6)
    assert all(not value.any() and len(value) == 1 for value in updates.dense.stacked().values())


@pytest.mark.parametrize(("model", "norm"), [("mf", 0.0), ("ncf", 1.0)])
def test_by_default_only_models_with_dense_parameters_get_the_norm_raised(
    make_view: MakeView, model: str, norm: float
) -> None:
    attack = PieckIPE(PieckIPE.Params(popular_items=3))
    attack.start(make_view(attack.card, model, in_round=False, m=1))
    dense = make_view(attack.card, model, m=1).params.dense
    attack.craft(make_view(attack.card, model, m=1, params=PublicParams(torch.ones(20, 4), dense)))
    view = make_view(attack.card, model, m=1, round=1, params=PublicParams(torch.ones(20, 4) * 2, dense))
    assert attack.craft(view).all_rows().norms().item() == pytest.approx(norm, abs=1e-6)


@pytest.mark.parametrize("cls", [PieckIPE, PieckUEA])
def test_copying_sends_the_first_targets_row_for_each(
    make_view: MakeView, cls: type[PieckIPE] | type[PieckUEA]
) -> None:
    attack = cls(cls.Params(popular_items=4, multi_target="copy"))
    _, updates = two_rounds(make_view, attack, targets=(7, 2, 11), m=2)
    rows = rows_of(updates, 2, 3)
    assert torch.equal(rows[:, 0], rows[:, 1])
    assert torch.equal(rows[:, 0], rows[:, 2])
    assert updates.all_rows().item.tolist() == [7, 2, 11, 7, 2, 11]


@pytest.mark.parametrize("cls", [PieckIPE, PieckUEA])
def test_uploads_do_not_depend_on_the_company(make_view: MakeView, cls: type[PieckIPE] | type[PieckUEA]) -> None:
    options: dict[str, Any] = {"num_malicious": 6}
    alone, together = cls(cls.Params(popular_items=4)), cls(cls.Params(popular_items=4))
    _, one = two_rounds(make_view, alone, clients=[2], **options)
    _, all_of_them = two_rounds(make_view, together, clients=[4, 2, 0], **options)
    assert torch.allclose(rows_of(one, 1, 1)[0], rows_of(all_of_them, 3, 1)[1], atol=1e-7)


@pytest.mark.parametrize("cls", [PieckIPE, PieckUEA])
def test_before_mining_the_code_uses_arbitrary_items(make_view: MakeView, cls: type[PieckIPE] | type[PieckUEA]) -> None:
    attack = cls(cls.Params(popular_items=3, before_mining="arbitrary"))
    attack.start(make_view(attack.card, in_round=False, targets=(1,)))
    assert attack.craft(make_view(attack.card, targets=(1,))).all_rows().values.any()


@pytest.mark.parametrize(
    ("cls", "model", "targets", "strategy", "length"),
    [
        (PieckUEA, "mf", 1, "copy", 150),
        (PieckUEA, "mf", 3, "copy", 250),
        (PieckUEA, "mf", 3, "together", 50),
        (PieckUEA, "ncf", 1, "copy", 10),
        (PieckIPE, "mf", 1, "copy", 10),
        (PieckIPE, "mf", 3, "copy", 15),
        (PieckIPE, "ncf", 3, "together", 5),
    ],
)
def test_lists_are_as_long_as_the_papers_say(
    make_view: MakeView, cls: type[PieckUEA] | type[PieckIPE], model: str, targets: int, strategy: str, length: int
) -> None:
    attack = cls(cls.Params(multi_target=strategy))  # type: ignore[arg-type]
    options: dict[str, Any] = {"model": model, "targets": tuple(range(targets)), "in_round": False}
    attack.start(make_view(attack.card, num_items=400, **options))
    assert attack.count == length
    attack.start(make_view(attack.card, num_items=12, **options))
    assert attack.count == min(length, 12 - targets)
