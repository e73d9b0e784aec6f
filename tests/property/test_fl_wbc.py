"""What must hold of FL-WBC whatever the clients compute."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedbench.defenses.fl_wbc import _LastGradients, masked_noise


@settings(max_examples=60, deadline=None)
@given(scale=st.floats(1e-6, 1e3), spread=st.sampled_from([0.0, 1e-3, 1.0, 1e3]), seed=st.integers(0, 2**31))
def test_noise_is_all_or_nothing_and_never_smaller_than_the_change(scale: float, spread: float, seed: int) -> None:
    change = spread * torch.randn(20, 5, generator=torch.Generator().manual_seed(1))
    all_of_it = masked_noise(torch.zeros(20, 5), scale, torch.Generator().manual_seed(seed))
    noise = masked_noise(change, scale, torch.Generator().manual_seed(seed))
    assert bool(noise.isfinite().all())
    assert bool(((noise == all_of_it) | (noise == 0)).all())
    assert torch.equal(noise == all_of_it, (change.abs() <= all_of_it.abs()) | (all_of_it == 0))


@settings(max_examples=60, deadline=None)
@given(data=st.data(), width=st.integers(1, 6))
def test_the_memory_is_a_dictionary_of_the_last_rows(data: st.DataObject, width: int) -> None:
    memory = _LastGradients(width)
    plain: dict[int, dict[int, float]] = {}
    written = 0.0
    for _ in range(data.draw(st.integers(1, 8))):
        clients = data.draw(st.lists(st.integers(0, 5), unique=True, max_size=6))
        items = [
            sorted(
                data.draw(
                    st.sets(st.integers(0, width - 1)) if data.draw(st.booleans()) else st.just(plain.get(c, {}).keys())
                )
            )
            for c in clients
        ]
        pairs = [(c, j) for c, own in zip(clients, items, strict=True) for j in own]
        everything = torch.arange(6 * width)
        before = memory.recall(torch.arange(6), everything)
        expected = [[plain.get(key // width, {}).get(key % width, 0.0)] for key in range(6 * width)]
        assert torch.equal(torch.zeros(6 * width, 1) + before, torch.tensor(expected))
        values = [written + 1 + i for i in range(len(pairs))]
        written += len(pairs)
        memory.replace(
            torch.tensor(clients, dtype=torch.int64),
            torch.tensor([c * width + j for c, j in pairs], dtype=torch.int64),
            torch.tensor(values).view(-1, 1),
        )
        for c in clients:
            plain[c] = {}
        for (c, j), value in zip(pairs, values, strict=True):
            plain[c][j] = value
