"""A defense that does not come with fedbench cannot tell clients by their ids, their order or the form of their rows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedbench.defenses import DEFENSES, Defense
from fedbench.entries.cards import DefenseCard, DefenseFamily
from fedbench.federation.defense import Notes, ServerView
from fedbench.federation.model import PublicParams
from fedbench.federation.rows import FullRows, OuterRows
from fedbench.federation.unnamed import Names, unnamed
from fedbench.federation.updates import Common, DenseGradients, Updates, concat
from fedbench.runs.run import run
from fedbench.scenarios.scenario import Scenario

M, D = 12, 3


def uploads(n: int, first: int, draws: torch.Generator, outer: bool) -> Updates:
    """Of n clients, some rows each, as factors or written out."""
    client, item = (torch.rand(n, M, generator=draws) < 0.4).nonzero().unbind(1)
    vectors, coef = torch.randn(n, D, generator=draws), torch.randn(len(item), generator=draws)
    rows: Any = OuterRows(client, item, coef, client, vectors)
    if not outer:
        order = torch.randperm(len(item), generator=draws)
        rows = FullRows(client[order], item[order], rows.grad()[order])
    dense = DenseGradients.of({"w": torch.randn(n, 2, generator=draws)})
    share = torch.randint(2, (n,), generator=draws).float()
    common = Common(torch.ones(M, D), share)
    return Updates(torch.arange(first, first + n), (rows,), dense, torch.rand(n, generator=draws), common)


def view() -> ServerView:
    params = PublicParams(torch.zeros(M, D), {"w": torch.zeros(2)})
    return ServerView(params, 0.1, "sum", None, 1, 0, torch.Generator(), notes=Notes())


def same(one: Updates, other: Updates) -> bool:
    (a,), (b,) = one.rows, other.rows
    assert one.common is not None
    assert other.common is not None
    pairs = (
        (one.clients, other.clients), (a.client, b.client), (a.item, b.item), (a.grad(), b.grad()),
        (one.weights, other.weights), (one.common.share, other.common.share),
        (one.dense.stacked()["w"], other.dense.stacked()["w"]),
    )  # fmt: skip
    return type(a) is type(b) and all(torch.equal(x, y) for x, y in pairs)


@settings(max_examples=20, deadline=None)
@given(n=st.integers(1, 6), m=st.integers(1, 4), seed=st.integers(0, 99), outer=st.booleans())
def test_who_stands_where_in_which_form_changes_nothing(n: int, m: int, seed: int, outer: bool) -> None:
    """Malicious clients with high ids behind, or in front with other ids and in another order: the same is shown."""
    draws = torch.Generator().manual_seed(seed)
    gradient = torch.ones(M, D)
    honest, malicious = uploads(n, 0, draws, True), uploads(m, 100, draws, outer)
    honest, malicious = (replace(each, common=replace(each.common, gradient=gradient)) for each in (honest, malicious))
    one = concat([honest, malicious])
    other = concat([malicious, honest]).keep(torch.arange(n + m) > -1)
    other = replace(other, clients=other.clients.flip(0) + 7)
    names = Names()
    shown = names.shown(one)
    assert same(shown, Names().shown(other))
    assert sorted(shown.clients.tolist()) == list(range(n + m))
    (block,) = shown.rows
    assert isinstance(block, OuterRows), "one kind, whatever the malicious ones send"
    key = block.client * M + block.item
    assert bool((key[1:] > key[:-1]).all())
    torch.testing.assert_close(block.vectors.abs().amax(1), torch.ones(len(block.vectors)))
    assert bool((block.source[1:] <= block.source.cummax(0).values[:-1] + 1).all()), "vectors in the order of the rows"
    # What each sent is what it sent.
    for place, name in enumerate(shown.clients.tolist()):
        at = int((one.clients == names.ids[name]).nonzero())
        of, sent = shown.all_rows(), one.all_rows()
        expected = torch.zeros(M, D).index_add_(0, sent.item[sent.client == at], sent.values[sent.client == at])
        found = torch.zeros(M, D).index_add_(0, of.item[of.client == place], of.values[of.client == place])
        torch.testing.assert_close(found, expected)
        assert float(shown.weights[place]) == float(one.weights[at])
        assert torch.equal(shown.dense.stacked()["w"][place], one.dense.stacked()["w"][at])
    # The server knows them again.
    again = names.shown(one.keep(torch.arange(n + m) % 2 == 0))
    assert torch.equal(names.ids[again.clients].sort().values, one.clients[::2].sort().values)
    assert len(names.ids) == n + m


class Shortest(Defense):
    """Keeps whoever sends the least, and notes whom it leaves out; the sum of what it keeps is its own."""

    card = DefenseCard("shortest", "The shortest", "none", DefenseFamily.FILTER)

    def filter(self, updates: Updates, server: ServerView) -> Updates:
        kept = updates.square_norms() <= updates.square_norms().median()
        assert server.notes is not None
        server.notes.left_out.append(("shortest", updates.clients[~kept]))
        return updates.keep(kept)

    def aggregate(self, updates: Updates, server: ServerView) -> PublicParams:
        return PublicParams(updates.sum_rows(M, D), dict(updates.dense.total()))


class Nothing(Defense):
    card = Shortest.card


def test_what_it_answers_is_of_the_clients_that_it_means() -> None:
    received = uploads(9, 40, torch.Generator().manual_seed(3), True)
    plain, hidden = Shortest(Shortest.Params()), unnamed(Shortest)(Shortest.Params())
    one, other = view(), view()
    expected, kept = plain.filter(received, one), hidden.filter(received, other)
    assert set(kept.clients.tolist()) == set(expected.clients.tolist())
    assert one.notes is not None
    assert other.notes is not None
    ((_, left),), ((name, found),) = one.notes.left_out, other.notes.left_out
    assert (name, set(found.tolist())) == ("shortest", set(left.tolist()))
    gradient, wanted = hidden.aggregate(kept, other), plain.aggregate(expected, one)
    torch.testing.assert_close(gradient.items, wanted.items)
    torch.testing.assert_close(gradient.dense["w"], wanted.dense["w"])
    assert unnamed(Nothing).filter is Defense.filter, "what has no filter gets none"


class LastBlock(Defense):
    """Looks for a last block, that of the malicious clients."""

    card = DefenseCard("last-block", "The last block", "none", DefenseFamily.FILTER)
    found = 0

    def filter(self, updates: Updates, server: ServerView) -> Updates:
        type(self).found += len(updates.rows) > 1
        return updates


def test_a_run_shows_one_block() -> None:
    """Of an attack whose rows are of another kind than those of honest clients."""
    told = Scenario("longtail-small", "mf", "explicit-boost", "last-block", 0.05, protocol_params={"epochs": 1})
    with DEFENSES.lent("last-block", LastBlock):
        record = run(told, 0)
    assert record.status == "ok", record.error
    assert LastBlock.found == 0
