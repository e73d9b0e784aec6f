"""Geometry of uploads: what must hold whatever clients send."""

from __future__ import annotations

import itertools

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from robust_oracles import make_updates

from fedbench.runs.diagnostics import Geometry, droppers, geometry

NAMES = list(Geometry.__dataclass_fields__)


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 10**6),
    n=st.integers(1, 9),
    density=st.floats(0, 1),
    copies=st.integers(0, 2),
    dense=st.booleans(),
)
def test_what_holds_for_any_uploads(seed: int, n: int, density: float, copies: int, dense: bool) -> None:
    updates = make_updates(n, 6, 3, seed, density=density, dense=dense, copies=min(copies, n))
    malicious = torch.rand(n, generator=torch.Generator().manual_seed(seed)) < 0.5
    found = geometry(updates, malicious, 6)
    for cosine in (found.cosine_benign, found.cosine_malicious):
        defined = cosine[~cosine.isnan()]
        assert (defined.abs() <= 1 + 1e-5).all()
    # Components are those of centred vectors, the first has the larger variance, and none leaves the vector's length.
    scale = float(found.norm.max()) + 1e-9
    assert abs(float(found.x.sum())) < 1e-3 * scale * n
    assert found.x.square().sum() >= found.y.square().sum() - 1e-9
    assert (found.x.square() + found.y.square() <= found.from_mean.square() + 1e-5 * scale**2).all()
    assert abs(float((found.x * found.y).sum())) < 1e-4 * scale**2 * n
    # Twice the uploads: the same angles, everything else twice.
    twice = geometry(updates.scaled(torch.full((n,), 2.0)), malicious, 6)
    for name in NAMES:
        factor = 1 if name.startswith("cosine") else 2
        a, b = getattr(found, name).abs(), getattr(twice, name).abs()
        if name not in ("x", "y"):
            np.testing.assert_allclose(b, factor * a, rtol=1e-4, atol=1e-4 * scale)
    # The other group, exchanged.
    other = geometry(updates, ~malicious, 6)
    np.testing.assert_array_equal(other.cosine_benign, found.cosine_malicious)
    np.testing.assert_array_equal(other.cosine_malicious, found.cosine_benign)


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10**6), kept=st.lists(st.lists(st.booleans(), min_size=6, max_size=6), max_size=4))
def test_everybody_is_dropped_once_or_left(seed: int, kept: list[list[bool]]) -> None:
    left = [make_updates(6, 4, 2, seed)]
    for mask in kept:
        chosen = torch.tensor(mask)[: len(left[-1].clients)]
        left.append(left[-1].keep(chosen))
    clients = torch.sort(left[0].clients).values
    found = droppers(clients, list(itertools.pairwise(left)))
    for client, step in zip(clients.tolist(), found.tolist(), strict=True):
        expected = next((k for k, each in enumerate(left[1:]) if client not in each.clients.tolist()), -1)
        assert step == expected
