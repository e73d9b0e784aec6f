from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from federations import small_federation
from pydantic import ValidationError

from fedbench.defenses import DEFENSES, ServerView
from fedbench.defenses.hics import HierarchicalClipping
from fedbench.federation.rows import FullRows, OuterRows
from fedbench.federation.updates import DenseGradients, Updates, no_updates
from fedbench.models import PublicParams


def make(**params: Any) -> HierarchicalClipping:
    return HierarchicalClipping(HierarchicalClipping.Params(**params))


def server(
    num_items: int = 4, size: int = 2, aggregation: str = "sum", dense: dict[str, torch.Tensor] | None = None
) -> ServerView:
    return ServerView(
        PublicParams(torch.zeros(num_items, size), dense or {}), 1.0, aggregation, None, 1, 0, torch.Generator()
    )


def uploads(entries: list[tuple[int, int, list[float]]], clients: int) -> Updates:
    """Rows (client, item, gradient) of ``clients`` clients, without dense gradients."""
    rows = FullRows(
        torch.tensor([entry[0] for entry in entries]),
        torch.tensor([entry[1] for entry in entries]),
        torch.tensor([entry[2] for entry in entries]),
    )
    return Updates(torch.arange(clients), (rows,), DenseGradients.of({}), torch.ones(clients))


def plain_round(
    bank: list[list[float]],
    received: list[tuple[int, int, list[float]]],
    bound: float,
    share: float,
    quantile: float | None,
) -> tuple[list[list[float]], list[list[float]]]:
    """What is applied and the bank afterwards, one number at a time."""
    bank = [list(row) for row in bank]
    for _, item, row in received:
        length = math.hypot(*row)
        factor = min(1.0, bound / length) if length > 0 else 1.0
        bank[item] = [b + factor * g for b, g in zip(bank[item], row, strict=True)]
    norms = [math.hypot(*row) for row in bank]
    order = sorted(range(len(bank)), key=lambda j: (-norms[j], j))[: math.ceil(share * len(bank) - 1e-9)]
    if quantile is None:
        second = sum(norms[j] for j in order) / len(order)
    else:
        ranked = sorted(norms[j] for j in order)
        place = quantile * (len(ranked) - 1)
        low = math.floor(place)
        high = min(low + 1, len(ranked) - 1)
        second = ranked[low] + (place - low) * (ranked[high] - ranked[low])
    applied = [[0.0] * len(row) for row in bank]
    for j in order:
        factor = min(1.0, second / norms[j]) if norms[j] > 0 else 1.0
        applied[j] = [factor * b for b in bank[j]]
        bank[j] = [0.0] * len(bank[j])
    return applied, bank


def test_two_rounds_by_hand() -> None:
    defense = make(clip=5.0, share=0.5)
    # Item 0: (6, 8) is clipped to (3, 4), norm 5. Item 1: norm 1. Item 2: (0, 3). Item 3: nothing. J = {0, 2}, c2 = 4.
    first = uploads([(0, 0, [6.0, 8.0]), (0, 1, [1.0, 0.0]), (1, 2, [0.0, 3.0])], 2)
    applied = defense.aggregate(first, server()).items
    assert torch.allclose(applied, torch.tensor([[2.4, 3.2], [0, 0], [0, 3], [0, 0]]))
    assert defense.bank is not None
    assert torch.allclose(defense.bank, torch.tensor([[0.0, 0], [1, 0], [0, 0], [0, 0]]))
    # Item 1 has 1 in the bank and gets 3 more: 4. Item 0 gets 2, item 2 gets 1. J = {1, 0}, c2 = 3.
    second = uploads([(0, 1, [3.0, 0.0]), (0, 0, [0.0, 2.0]), (1, 2, [1.0, 0.0])], 2)
    applied = defense.aggregate(second, server()).items
    assert torch.allclose(applied, torch.tensor([[0.0, 2], [3, 0], [0, 0], [0, 0]]))
    assert torch.allclose(defense.bank, torch.tensor([[0.0, 0], [0, 0], [1, 0], [0, 0]]))


@pytest.mark.parametrize("quantile", [None, 0.0, 0.4, 1.0])
@pytest.mark.parametrize("share", [0.05, 0.3, 1.0])
def test_agrees_with_the_plain_loop_over_several_rounds(quantile: float | None, share: float) -> None:
    g = torch.Generator().manual_seed(1)
    defense = make(clip=0.8, share=share, quantile=quantile)
    bank = [[0.0] * 3 for _ in range(7)]
    for _ in range(5):
        entries = [(c, j, torch.randn(3, generator=g).tolist()) for c in range(4) for j in range(7) if (c + j) % 3]
        applied = defense.aggregate(uploads(entries, 4), server(7, 3)).items
        expected, bank = plain_round(bank, entries, 0.8, share, quantile)
        assert torch.allclose(applied, torch.tensor(expected), atol=1e-6)
        assert defense.bank is not None
        assert torch.allclose(defense.bank, torch.tensor(bank), atol=1e-6)


@pytest.mark.parametrize("aggregation", ["sum", "mean"])
@pytest.mark.parametrize("model", ["mf", "ncf"])
def test_without_any_bound_it_is_the_server_s_own_rule(model: str, aggregation: str) -> None:
    plain = small_federation(model, aggregation=aggregation)
    defended = small_federation(model, defense=make(clip=1e9, share=1.0, quantile=1.0), aggregation=aggregation)
    for _ in range(3):
        plain.train_epoch()
        defended.train_epoch()
    assert torch.allclose(plain.params.items, defended.params.items, atol=1e-6)
    for name, value in plain.params.dense.items():
        assert torch.allclose(value, defended.params.dense[name], atol=1e-6)


def test_a_mean_divides_what_enters_the_bank_by_the_number_of_clients() -> None:
    entries = [(0, 0, [3.0, 0.0]), (1, 1, [1.0, 0.0])]
    defense = make(clip=1e9, share=0.25, quantile=1.0)
    applied = defense.aggregate(uploads(entries, 4), server(aggregation="mean")).items
    assert torch.allclose(applied[0], torch.tensor([0.75, 0.0]))
    assert defense.bank is not None
    assert torch.allclose(defense.bank[1], torch.tensor([0.25, 0.0]))


def test_dense_gradients_are_clipped_for_each_client_and_tensor_and_never_kept() -> None:
    dense = {"W1": torch.tensor([[[3.0, 0], [0, 4]], [[0.3, 0], [0, 0]]]), "b1": torch.tensor([[0.0, 2], [0.5, 0]])}
    received = Updates(torch.arange(2), (), DenseGradients.of(dense), torch.ones(2))
    shapes = {name: torch.zeros_like(value[0]) for name, value in dense.items()}
    for aggregation, share in (("sum", 1.0), ("mean", 0.5)):
        defense = make(clip=1.0)
        for _ in range(2):
            found = defense.aggregate(received, server(aggregation=aggregation, dense=shapes))
            assert torch.allclose(found.dense["W1"], share * torch.tensor([[0.9, 0], [0, 0.8]]))
            assert torch.allclose(found.dense["b1"], share * torch.tensor([0.5, 1.0]))
            assert torch.equal(found.items, torch.zeros(4, 2))


def test_whole_uploads_by_hand() -> None:
    """Client 0 sends (3, 0), (0, 4) and (12) densely, norm 13, and is halved to 6.5; client 1, of norm 5, is let through."""
    defense = make(clip=6.5, share=0.5, quantile=1.0, unit="client")
    rows = uploads([(0, 0, [3.0, 0.0]), (0, 1, [0.0, 4.0]), (1, 2, [3.0, 4.0])], 2)
    updates = replace(rows, dense=DenseGradients.of({"w": torch.tensor([[12.0], [0.0]])}))
    found = defense.aggregate(updates, server(dense={"w": torch.zeros(1)}))
    # Norms 1.5, 2 and 5: items 2 and 1 are applied, item 0 waits.
    assert torch.allclose(found.items, torch.tensor([[0.0, 0], [0, 2], [3, 4], [0, 0]]))
    assert torch.allclose(found.dense["w"], torch.tensor([6.0]))
    assert defense.bank is not None
    assert torch.allclose(defense.bank[0], torch.tensor([1.5, 0.0]))


def test_whole_uploads_need_a_bound_of_their_own() -> None:
    with pytest.raises(ValidationError, match="needs clip"):
        make(unit="client")


@pytest.mark.parametrize("seed", range(4))
def test_whole_uploads_agree_with_rows_that_were_clipped_before(seed: int) -> None:
    """Clipped client by client in plain Python, then through the same rule without a first bound."""
    g = torch.Generator().manual_seed(seed)
    second_reading, plain = make(clip=1.5, share=0.4, unit="client"), make(clip=1e9, share=0.4)
    for _ in range(3):
        entries = [
            (c, j, torch.randn(2, generator=g).tolist()) for c in range(5) for j in range(4) if (c + j + seed) % 3
        ]
        lengths = [math.sqrt(sum(v * v for c, _, row in entries if c == client for v in row)) for client in range(5)]
        clipped = [(c, j, [v * min(1.0, 1.5 / lengths[c]) for v in row]) for c, j, row in entries]
        found = second_reading.aggregate(uploads(entries, 5), server()).items
        assert torch.allclose(found, plain.aggregate(uploads(clipped, 5), server()).items, atol=1e-6)


def test_a_round_without_uploads_works_the_bank_off() -> None:
    defense = make(clip=10.0, share=0.25, quantile=1.0)
    defense.aggregate(uploads([(0, 0, [3.0, 0.0]), (0, 1, [2.0, 0.0])], 1), server())
    nothing = no_updates(torch.arange(0), {}, 2)
    assert torch.allclose(defense.aggregate(nothing, server()).items[1], torch.tensor([2.0, 0.0]))
    assert torch.equal(defense.aggregate(nothing, server()).items, torch.zeros(4, 2))


def test_equal_items_are_not_clipped_again_and_the_lowest_ids_go_first() -> None:
    defense = make(clip=10.0, share=0.5)
    applied = defense.aggregate(uploads([(0, j, [0.0, 2.0]) for j in range(4)], 1), server()).items
    assert torch.equal(applied, torch.tensor([[0.0, 2], [0, 2], [0, 0], [0, 0]]))


def test_the_smallest_share_is_one_item() -> None:
    applied = make(clip=10.0, share=1e-12).aggregate(uploads([(0, j, [0.0, 1.0 + j]) for j in range(4)], 1), server())
    assert applied.items.norm(dim=1).tolist() == [0, 0, 0, 4]


def test_the_rows_are_never_made(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: OuterRows) -> torch.Tensor:
        raise AssertionError("the [R, d] rows were made")

    monkeypatch.setattr(OuterRows, "grad", fail)
    federation = small_federation("mf", defense=make())
    federation.train_epoch()
    assert federation.params.items.isfinite().all()


@pytest.mark.parametrize("model", ["mf", "ncf"])
def test_the_default_clip_follows_the_model(model: str) -> None:
    from fedbench.defenses import hics

    bound = hics.NCF_CLIP if model == "ncf" else hics.MF_CLIP
    one, two = (small_federation(model, defense=make(**values)) for values in ({}, {"clip": bound}))
    one.train_epoch()
    two.train_epoch()
    assert torch.equal(one.params.items, two.params.items)


def test_it_is_in_the_registry_and_says_that_it_is_a_reconstruction() -> None:
    assert DEFENSES.get("hics") is HierarchicalClipping
    assert "reconstruction" in HierarchicalClipping.card.notes
