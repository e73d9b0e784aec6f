from __future__ import annotations

import pytest
import torch
from federations import small_federation
from hypothesis import given, settings
from hypothesis import strategies as st

from fedbench.defenses.norm_bound import NormBound
from fedbench.federation.defense import ServerView
from fedbench.federation.rows import FullRows
from fedbench.federation.updates import DenseGradients, Updates
from fedbench.models import PublicParams


def server(dense: bool) -> ServerView:
    params = PublicParams(torch.zeros(4, 2), {"W": torch.zeros(2, 2), "b": torch.zeros(2)} if dense else {})
    return ServerView(params, 1.0, "sum", None, 1, 0, torch.Generator())


def uploads(scale: float = 1.0) -> Updates:
    rows = FullRows(
        torch.tensor([0, 0, 1]), torch.tensor([2, 3, 2]), scale * torch.tensor([[3.0, 4], [0.3, 0.4], [0, -2]])
    )
    dense = {
        "W": scale * torch.tensor([[[0.0, 5], [0.6, 0]], [[1, 0], [0, 0]]]),
        "b": scale * torch.tensor([[3.0, 4.0], [0.1, 0.0]]),
    }
    return Updates(torch.tensor([0, 1]), (rows,), DenseGradients.of(dense), torch.ones(2))


def test_each_row_and_each_bias_is_clipped_alone() -> None:
    clipped = NormBound(NormBound.Params(bound=1.0)).filter(uploads(), server(dense=True))
    assert torch.allclose(clipped.all_rows().values, torch.tensor([[0.6, 0.8], [0.3, 0.4], [0, -1]]))
    dense = clipped.dense.stacked()
    assert torch.allclose(dense["W"], torch.tensor([[[0.0, 1], [0.6, 0]], [[1, 0], [0, 0]]]))
    assert torch.allclose(dense["b"], torch.tensor([[0.6, 0.8], [0.1, 0]]))
    assert torch.allclose(clipped.dense.total()["W"], dense["W"].sum(0))


def test_a_whole_update_is_clipped_as_one_vector() -> None:
    clipped = NormBound(NormBound.Params(bound=1.0, scope="client")).filter(uploads(), server(dense=True))
    for client in (0, 1):
        before = [uploads().all_rows().values[uploads().all_rows().client == client].flatten()]
        before += [value[client].flatten() for value in uploads().dense.stacked().values()]
        after = [clipped.all_rows().values[clipped.all_rows().client == client].flatten()]
        after += [value[client].flatten() for value in clipped.dense.stacked().values()]
        whole = torch.cat(before)
        assert torch.allclose(torch.cat(after), whole / max(1.0, whole.norm().item()))


def test_clipped_dense_gradients_are_summed_to_the_last_bit() -> None:
    """Records of runs before weighted aggregation stay what they were."""
    g = torch.Generator().manual_seed(0)
    dense = {"W": torch.randn(40, 9, 7, generator=g)}
    updates = Updates(torch.arange(40), (), DenseGradients.of(dense), torch.ones(40))
    clipped = NormBound(NormBound.Params(bound=1.0, scope="client")).filter(updates, server(dense=True)).dense
    assert torch.equal(clipped.total()["W"], clipped.stacked()["W"].sum(0))


@pytest.mark.parametrize(
    ("dense", "bound", "preset"),
    [(False, 1e-3, "published"), (True, 0.5, "published"), (False, 2e-4, "tight"), (True, 0.02, "tight")],
)
def test_the_preset_bounds_follow_the_model(dense: bool, bound: float, preset: str) -> None:
    params = NormBound.Params(preset=preset)  # type: ignore[arg-type]
    clipped = NormBound(params).filter(uploads(100.0), server(dense))
    assert torch.allclose(clipped.all_rows().norms(), torch.full((3,), bound))


@settings(max_examples=30, deadline=None)
@given(bound=st.floats(1e-3, 1e3), scope=st.sampled_from(["row", "client"]), factor=st.floats(1e-3, 1e3))
def test_nothing_is_longer_than_the_bound_and_short_ones_are_left_alone(
    bound: float, scope: str, factor: float
) -> None:
    defense = NormBound(NormBound.Params(bound=bound, scope=scope))  # type: ignore[arg-type]
    clipped = defense.filter(uploads(factor), server(dense=True))
    assert bool((clipped.all_rows().norms() <= bound * 1.0001).all())
    loose = NormBound(NormBound.Params(bound=1e6, scope=scope))  # type: ignore[arg-type]
    same = loose.filter(uploads(factor), server(dense=True))
    assert torch.equal(same.all_rows().values, uploads(factor).all_rows().values)


@pytest.mark.parametrize("model", ["mf", "ncf"])
@pytest.mark.parametrize("scope", ["row", "client"])
def test_an_infinite_bound_is_no_defense_and_a_tiny_one_stops_training(model: str, scope: str) -> None:
    clean = small_federation(model)
    loose = small_federation(model, defense=NormBound(NormBound.Params(bound=1e9, scope=scope)))  # type: ignore[arg-type]
    tight = small_federation(model, defense=NormBound(NormBound.Params(bound=1e-9, scope=scope)))  # type: ignore[arg-type]
    start = tight.params.items.clone()
    for federation in (clean, loose, tight):
        federation.train_epoch()
    assert torch.allclose(clean.params.items, loose.params.items, atol=1e-6)
    assert torch.allclose(tight.params.items, start, atol=1e-6)
