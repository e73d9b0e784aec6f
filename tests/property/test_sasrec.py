from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sasrec_oracle import client_gradients, noisy, outputs, sequences

from fedbench.federation.losses import Loss
from fedbench.federation.model import Histories
from fedbench.models import PublicParams, buckets, recording
from fedbench.models.sasrec import SelfAttentiveSequentialRecommender

M, LONGEST, LIMIT = 24, 12, 7


def recommender(residual: str = "query", heads: int = 1) -> tuple[SelfAttentiveSequentialRecommender, PublicParams]:
    settings = {"embedding_size": 4, "max_length": LIMIT, "dropout": 0.0, "residual": residual, "heads": heads}
    model = SelfAttentiveSequentialRecommender(SelfAttentiveSequentialRecommender.Params.model_validate(settings))
    return model, noisy(model.init_params(M, torch.Generator().manual_seed(0)))


def close(a: torch.Tensor, b: torch.Tensor) -> bool:
    return torch.allclose(a, b, rtol=1e-3, atol=1e-4)


lengths_of = st.lists(st.integers(1, LONGEST), min_size=1, max_size=6)
shapes = {"residual": st.sampled_from(["query", "input"]), "heads": st.sampled_from([1, 2])}


@settings(max_examples=25, deadline=None)
@given(lengths=lengths_of, seed=st.integers(0, 99), tokens=st.integers(1, 40), **shapes)
def test_any_cohort_gives_the_gradients_of_the_clients_alone(
    lengths: list[int], seed: int, tokens: int, residual: str, heads: int
) -> None:
    model, params = recommender(residual, heads)
    positives, negatives, rows = sequences(lengths, M, seed)
    n = len(lengths)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(buckets.BUCKET_TOKENS, "cpu", tokens)
        step = model.local_step(params, torch.zeros(n, 0), rows.select(torch.arange(n)), Loss("bpr"))
    expected = torch.zeros_like(params.items)
    for client in range(n):
        items, dense = client_gradients(model, params, positives[client], negatives[client])
        expected += items
        for name, value in dense.items():
            assert close(step.dense.stacked()[name][client], value), name
    assert close(step.rows[0].sum(M), expected)


@settings(max_examples=20, deadline=None)
@given(lengths=lengths_of, data=st.data())
def test_gradients_do_not_depend_on_the_order_of_clients(lengths: list[int], data: st.DataObject) -> None:
    model, params = recommender()
    rows = sequences(lengths, M)[2]
    n = len(lengths)
    order = torch.tensor(data.draw(st.permutations(range(n))))
    mixed = model.local_step(params, torch.zeros(n, 0), rows.select(order), Loss("bpr"))
    straight = model.local_step(params, torch.zeros(n, 0), rows.select(torch.arange(n)), Loss("bpr"))
    assert close(mixed.rows[0].sum(M), straight.rows[0].sum(M))
    for name, value in straight.dense.stacked().items():
        assert close(mixed.dense.stacked()[name], value[order]), name
        assert close(mixed.dense.total()[name], straight.dense.total()[name]), name


@settings(max_examples=25, deadline=None)
@given(lengths=st.lists(st.integers(0, LONGEST), min_size=1, max_size=6), tokens=st.integers(1, 40), **shapes)
def test_a_representation_is_the_output_at_the_last_event(
    lengths: list[int], tokens: int, residual: str, heads: int
) -> None:
    model, params = recommender(residual, heads)
    g = torch.Generator().manual_seed(1)
    events = [torch.randint(0, M, (length,), generator=g) for length in lengths]
    starts = torch.tensor([0, *lengths]).cumsum(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(buckets.BUCKET_TOKENS, "cpu", tokens)
        made = model.represent(params, torch.zeros(len(lengths), 0), Histories(starts, torch.cat(events)))
    for f, mine in zip(made, events, strict=True):
        assert close(f, outputs(model, params, mine[-LIMIT:])[-1] if len(mine) else torch.zeros(4))


@settings(max_examples=25, deadline=None)
@given(length=st.integers(2, LIMIT), other=st.integers(0, M - 1), data=st.data(), **shapes)
def test_a_later_event_changes_no_earlier_output(
    length: int, other: int, data: st.DataObject, residual: str, heads: int
) -> None:
    model, params = recommender(residual, heads)
    changed = data.draw(st.integers(1, length - 1))
    g = torch.Generator().manual_seed(length)
    item = torch.randint(0, M, (length,), generator=g)
    altered = item.clone()
    altered[changed] = (item[changed] + 1 + other) % M
    start, full = torch.zeros(1, dtype=torch.int64), torch.tensor([length])
    [bucket] = buckets.in_buckets(start, full, LIMIT)

    def every_output(items: torch.Tensor) -> torch.Tensor:
        return model._transform(recording.Layers(recording.Weights(params.dense)), model._embed(params, items, bucket))[
            0
        ]

    before, after = every_output(item), every_output(altered)
    assert close(before, outputs(model, params, item))
    assert torch.equal(before[:changed], after[:changed])
    if other != M - 1:
        assert not torch.allclose(before[changed], after[changed], atol=1e-6)
