"""Whatever an attack uploads: it is refused by name, or it is an upload like any other."""

from __future__ import annotations

import contextlib
import functools
from typing import Any

import pytest
import torch
from federations import small_federation
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from fedbench.attacks import Attack
from fedbench.defenses.hics import HierarchicalClipping
from fedbench.defenses.norm_bound import NormBound
from fedbench.entries.cards import AttackCard, Channel, Goal, NoParameters
from fedbench.errors import ThreatModelViolation
from fedbench.federation.boundary import FIELDS
from fedbench.federation.defense import Defense, ServerView
from fedbench.federation.rows import FullRows, OuterRows, PiecedRows, ProjectedRows, SharedRows
from fedbench.federation.simulation import Federation
from fedbench.federation.updates import Common, DenseGradients, Updates
from fedbench.federation.view import AttackerView

M = 40
BOUND = 0.01
NUMBERS = [0.0, 1.0, -3.0, 1e-30, 1e18, 1e19, 1e38, -1e38, float("nan"), float("inf"), -float("inf")]


class Liar(FullRows):
    """Says that it is small."""

    def norms(self) -> torch.Tensor:
        return torch.zeros(len(self.item))


class Sub(torch.Tensor):
    """A tensor that may do anything."""


class Uploading(Attack):
    card = AttackCard("uploading", "Uploads what it is told", "", Goal.DEGRADE, Channel.GRADIENT)
    data: Any = None

    def craft(self, view: AttackerView) -> Updates:
        return upload(self.data, view) if self.data is not None else super().craft(view)


def upload(data: st.DataObject, view: AttackerView) -> Updates:
    """An upload that is mostly right, and now and then wrong in one thing or in many."""
    m, d = len(view.clients), view.embedding_size
    right = data.draw(st.sampled_from([True, True, False]), "mostly right")

    def one(usual: Any, *odd: Any) -> Any:
        return usual if right else data.draw(st.sampled_from([usual, usual, usual, *odd]))

    def numbers(*shape: int) -> torch.Tensor:
        count = torch.Size(shape).numel()
        pool = data.draw(st.sampled_from([[0.0, 1.0, -0.5], [1.0, -1e18], NUMBERS]))
        drawn = data.draw(st.lists(st.sampled_from(pool), min_size=1, max_size=6))
        found = torch.tensor([drawn[k % len(drawn)] for k in range(count)], dtype=torch.float32).view(shape)
        found = found.to(one(torch.float32, torch.float64, torch.int32, torch.bfloat16))
        return one(found, found[:-1], found.expand(2, *shape), found.as_subclass(Sub), found.tolist(), None)

    def index(count: int, size: int) -> torch.Tensor:
        drawn = data.draw(st.lists(st.integers(0, max(size - 1, 0)), min_size=count, max_size=count))
        found = torch.tensor(drawn, dtype=torch.int64)
        return one(found, found - 1, found + 1, found.int(), found.repeat(2), found.tolist())

    rows: list[Any] = []
    for _ in range(data.draw(st.integers(0, 2), "blocks")):
        pairs = data.draw(st.lists(st.integers(0, m * M - 1), max_size=4, unique=right))
        key = torch.tensor(pairs, dtype=torch.int64)
        client, item = one(key // M, key // M - 1, key), one(key % M, key, -key)
        r = len(key)
        two = 2 if r else 0
        kind = data.draw(st.sampled_from(["full", "outer", "shared", "pieced", "projected", one("full", "liar")]))
        if kind == "outer":
            rows.append(OuterRows(client, item, numbers(r), index(r, 2), numbers(2, d)))
        elif kind == "shared":
            rows.append(SharedRows(client, item, numbers(r), numbers(M, d)))
        elif kind == "pieced":
            rows.append(PiecedRows(client, item, index(two, r), numbers(two), numbers(two, d)))
        elif kind == "projected":
            rows.append(ProjectedRows(client, item, numbers(r, 1), numbers(1, d)))
        else:
            rows.append((Liar if kind == "liar" else FullRows)(client, item, numbers(r, d)))
    stacked = {name: numbers(m, *value.shape) for name, value in view.params.dense.items()}
    dense = one(DenseGradients.of(stacked), DenseGradients(dict, lambda: stacked), DenseGradients.of({}), stacked)
    weights = one(torch.ones(m), -torch.ones(m), torch.full((m,), 1e9), torch.full((m,), 0.5), numbers(m))
    common = one(None, Common(torch.ones(M, d), torch.ones(m)), "all of them")
    return one(
        Updates(view.clients, one(tuple(rows), rows), dense, weights, common),
        None,
        Updates(view.clients[:-1], tuple(rows), dense, weights),
    )


class Watching(Defense):
    """Keeps what arrives at ``inner``, and what comes out."""

    card = NormBound.card

    def __init__(self, inner: Defense) -> None:
        super().__init__(NoParameters())
        self.inner = inner
        self.seen: list[tuple[Updates, Updates]] = []

    def filter(self, updates: Updates, server: ServerView) -> Updates:
        kept = self.inner.filter(updates, server)
        self.seen.append((updates, kept))
        return kept

    def aggregate(self, updates: Updates, server: ServerView) -> Any:
        return self.inner.aggregate(updates, server)


DEFENSES = {
    "row": lambda: NormBound(NormBound.Params(bound=BOUND)),
    "client": lambda: NormBound(NormBound.Params(bound=BOUND, scope="client")),
    "hics": lambda: HierarchicalClipping(HierarchicalClipping.Params(clip=BOUND, share=1, quantile=1)),
}


@functools.cache
def alone(model: str) -> Federation:
    """A round in which the malicious clients send nothing."""
    federation = small_federation(model, Uploading(NoParameters()), num_malicious=4, clients_per_round=34)
    federation.train_epoch()
    return federation


@pytest.mark.parametrize("model", ["mf", "ncf"])
@pytest.mark.parametrize("name", sorted(DEFENSES))
@settings(max_examples=12, deadline=None, phases=(Phase.explicit, Phase.reuse, Phase.generate))
@given(data=st.data())
def test_any_upload(model: str, name: str, data: st.DataObject) -> None:
    """It never ends a round but as a violation, leaves honest clients alone, and passes no bound at more than its norm."""
    quiet = alone(model)
    attack, watching = Uploading(NoParameters()), Watching(DEFENSES[name]())
    attack.data = data
    federation = small_federation(model, attack, watching, num_malicious=4, clients_per_round=34)
    with contextlib.suppress(ThreatModelViolation):
        federation.train_epoch()
    if not watching.seen:
        return
    received, kept = watching.seen[0]
    assert torch.equal(federation.users[:30], quiet.users[:30])
    assert all(type(block) in FIELDS for block in received.rows)
    assert len(received.clients) == 34 - federation.refused
    assert bool(received.usable().all())
    before, after = received.all_rows(), kept.all_rows()
    assert torch.equal(before.client, after.client)
    assert torch.equal(before.item, after.item)
    if name == "row":
        norms = after.values.double().norm(dim=1)
        assert bool((norms <= before.values.double().norm(dim=1).clamp(max=BOUND) * (1 + 1e-5)).all())
    elif name == "client":
        norms = kept.square_norms().sqrt()
        assert bool(
            (norms <= torch.minimum(received.square_norms().sqrt(), norms.new_tensor(BOUND)) * (1 + 1e-4)).all()
        )
    else:  # one bounded row for each client and item, whatever was uploaded
        moved = (federation.params.items - small_federation(model, num_malicious=4).params.items).norm(dim=1)
        count = torch.bincount(received.all_rows().item, minlength=M)
        assert bool((moved <= 0.5 * BOUND * count * (1 + 1e-4) + 1e-6).all())
    assert federation.params.finite()
