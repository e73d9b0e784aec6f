"""What must hold of HiCS whatever is uploaded."""

from __future__ import annotations

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedbench.defenses.hics import HierarchicalClipping
from fedbench.federation.defense import ServerView
from fedbench.federation.rows import FullRows
from fedbench.federation.server import clip_rows
from fedbench.federation.updates import DenseGradients, Updates
from fedbench.models import PublicParams


@st.composite
def rounds(draw: st.DrawFn) -> tuple[int, list[Updates]]:
    """M, and the uploads of one to four rounds over M items of size 3."""
    num_items = draw(st.integers(1, 12))
    g = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    found = []
    for _ in range(draw(st.integers(1, 4))):
        clients = draw(st.integers(1, 5))
        client, item = (
            (torch.rand(clients, num_items, generator=g) < draw(st.sampled_from([0.0, 0.3, 1.0]))).nonzero().T
        )
        values = torch.randn(len(item), 3, generator=g) * draw(st.sampled_from([0.0, 1e-3, 1.0, 1e3]))
        found.append(
            Updates(
                torch.arange(clients), (FullRows(client, item, values),), DenseGradients.of({}), torch.ones(clients)
            )
        )
    return num_items, found


def view(num_items: int) -> ServerView:
    return ServerView(PublicParams(torch.zeros(num_items, 3), {}), 1.0, "sum", None, 1, 0, torch.Generator())


def defense(clip: float, share: float, quantile: float | None) -> HierarchicalClipping:
    return HierarchicalClipping(HierarchicalClipping.Params(clip=clip, share=share, quantile=quantile))


CLIPS = st.floats(1e-3, 1e3)
SHARES = st.floats(0.01, 1.0)


@settings(max_examples=60, deadline=None)
@given(case=rounds(), clip=CLIPS, share=SHARES)
def test_nothing_is_lost_without_the_second_level(case: tuple[int, list[Updates]], clip: float, share: float) -> None:
    num_items, received = case
    hics = defense(clip, share, 1.0)
    applied, arrived = torch.zeros(num_items, 3), torch.zeros(num_items, 3)
    for updates in received:
        applied += hics.aggregate(updates, view(num_items)).items
        arrived += clip_rows(updates, clip).sum_rows(num_items, 3)
    assert hics.bank is not None
    assert torch.allclose(applied + hics.bank, arrived, rtol=1e-4, atol=1e-4 * float(arrived.abs().max()))


@settings(max_examples=60, deadline=None)
@given(case=rounds(), clip=CLIPS, share=SHARES, quantile=st.none() | st.floats(0, 1))
def test_few_items_move_none_beyond_the_bound_and_none_is_left_that_is_longer(
    case: tuple[int, list[Updates]], clip: float, share: float, quantile: float | None
) -> None:
    num_items, received = case
    hics, loose = defense(clip, share, quantile), defense(clip, share, 1.0)
    for updates in received:
        moved = hics.aggregate(updates, view(num_items)).items
        full = loose.aggregate(updates, view(num_items)).items.norm(dim=1)
        count = math.ceil(share * num_items - 1e-9)
        assert int((moved.norm(dim=1) > 0).sum()) <= count
        assert bool((moved.norm(dim=1) <= full * 1.0001).all())
        largest = full.sort(descending=True).values[:count]
        second = largest.mean() if quantile is None else torch.quantile(largest, quantile)
        assert bool((moved.norm(dim=1) <= second * 1.0001).all())
        assert hics.bank is not None
        assert bool((hics.bank.norm(dim=1) <= largest[-1] * 1.0001).all())


@settings(max_examples=60, deadline=None)
@given(case=rounds(), clip=CLIPS, share=SHARES, factor=st.sampled_from([0.25, 2.0, 8.0]))
def test_it_scales_with_the_gradients_and_the_clip(
    case: tuple[int, list[Updates]], clip: float, share: float, factor: float
) -> None:
    num_items, received = case
    one, two = defense(clip, share, None), defense(clip * factor, share, None)
    for updates in received:
        larger = Updates(
            updates.clients,
            tuple(block.scaled(torch.full((len(block.item),), factor)) for block in updates.rows),
            updates.dense,
            updates.weights,
        )
        before, after = (h.aggregate(u, view(num_items)).items for h, u in ((one, updates), (two, larger)))
        assert torch.allclose(before * factor, after, rtol=1e-4, atol=1e-6)
