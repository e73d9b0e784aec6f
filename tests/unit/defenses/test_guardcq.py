"""GuardCQ beside a plain loop over clients, users and items, and by hand."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from federations import small_federation, small_task
from trend_oracle import PlainTrend

from fedbench.attacks.explicit_boost import ExplicitBoost
from fedbench.defenses import ServerView
from fedbench.defenses.guardcq import GuardCQ, below_the_gap
from fedbench.errors import UserError
from fedbench.federation.rows import FullRows
from fedbench.federation.updates import Common, DenseGradients, Updates
from fedbench.models import MODELS, PublicParams, Recommender
from fedbench.testing.showing import Painter


def recommender(name: str, **values: Any) -> Recommender:
    cls = MODELS.get(name)
    return cls(cls.Params(**values))


def view_of(
    model: Recommender | None, params: PublicParams, epoch: int = 1, number: int = 0, seed: int = 0
) -> ServerView:
    generator = torch.Generator().manual_seed(seed)
    return ServerView(params, 0.5, "sum", None, epoch, number, generator, model=model)


# ------------------------------------------------------------------------------------------------------- by hand


def one_that_lowers(place: int, clients: int = 5) -> tuple[Updates, ServerView]:
    """Clients with rows of all 20 items, in one dimension: they raise what the server's users give, but for one."""
    drawn = torch.randn(20, 1, generator=torch.Generator().manual_seed(0))
    raising = -float(drawn.sum().sign())
    values = torch.full((clients, 20), raising)
    values[place] = -raising
    client, item = torch.meshgrid(torch.arange(clients), torch.arange(20), indexing="ij")
    rows = FullRows(client.flatten(), item.flatten(), values.flatten()[:, None])
    updates = Updates(10 + torch.arange(clients), (rows,), DenseGradients.of({}), torch.ones(clients))
    return updates, view_of(recommender("mf", embedding_size=1), PublicParams(torch.zeros(20, 1), {}))


@pytest.mark.parametrize("place", [0, 4])
def test_whoever_lowers_popular_items_is_dropped(place: int) -> None:
    """One popular item by every guess: the others contribute (1 + 1) / (1 + 1), it (0 + 1) / (1 + 1)."""
    updates, view = one_that_lowers(place)
    left = [10 + i for i in range(5) if i != place]
    assert GuardCQ(GuardCQ.Params(few=0)).filter(updates, view).clients.tolist() == left
    everybody = list(range(10, 15))
    updates, view = one_that_lowers(place)
    assert GuardCQ(GuardCQ.Params(few=0, gap=0.51)).filter(updates, view).clients.tolist() == everybody
    updates, view = one_that_lowers(place)
    assert GuardCQ(GuardCQ.Params()).filter(updates, view).clients.tolist() == everybody  # has one item, and passes
    updates, view = one_that_lowers(place)
    # In the published loop only the last client of the round may pass.
    kept = GuardCQ(GuardCQ.Params(exempt="last")).filter(updates, view).clients.tolist()
    assert kept == (everybody if place == 4 else left)


@pytest.mark.parametrize(("window", "left"), [(2, [10, 11, 12, 13, 14]), (1, [11, 12, 13, 14])])
def test_what_is_remembered_speaks_for_a_client(window: int, left: list[int]) -> None:
    """10 raised an item once and lowers one now: (2 + 1) / (2 + 2) of both participations, 1/2 of the last alone."""
    defense = GuardCQ(GuardCQ.Params(few=0, window=window, gap=0.3))
    updates, view = one_that_lowers(3)
    assert len(defense.filter(updates, view).clients) == 4
    updates, view = one_that_lowers(0)
    assert defense.filter(updates, view).clients.tolist() == left


def test_it_waits_and_says_what_it_lacks() -> None:
    updates, view = one_that_lowers(0)
    assert len(GuardCQ(GuardCQ.Params(few=0, start=2)).filter(updates, view).clients) == 5
    with pytest.raises(UserError, match=r"server\.model"):
        GuardCQ(GuardCQ.Params()).filter(updates, view_of(None, view.params))


def test_what_is_not_finite_and_who_sends_nothing() -> None:
    updates, view = one_that_lowers(0)
    rows = updates.rows[0]
    assert isinstance(rows, FullRows)
    rows.values[25] = torch.nan
    assert GuardCQ(GuardCQ.Params(few=0)).filter(updates, view).clients.tolist() == [12, 13, 14]
    nothing = Updates(torch.arange(3), (), DenseGradients.of({}), torch.ones(3))
    assert len(GuardCQ(GuardCQ.Params(few=0)).filter(nothing, view).clients) == 3


@pytest.mark.parametrize(
    ("values", "least", "below"),
    [
        ([0.9, 0.2, 1.0, 0.3], 0.1, [1, 3]),
        ([0.9, 0.2, 1.0, 0.3], 0.7, []),
        ([0.5, 0.25, 0.75], 0.25, [0, 1]),  # of equal gaps the highest
        ([0.5, 0.5], 0.1, []),
        ([0.5], 0.0, []),
    ],
)
def test_below_the_gap(values: list[float], least: float, below: list[int]) -> None:
    assert below_the_gap(torch.tensor(values)[:, None], least).squeeze(1).nonzero().squeeze(1).tolist() == below


# -------------------------------------------------------------------------------------------------- the plain loop


class PlainGuard:
    """One client, one user, one item at a time."""

    def __init__(self, params: GuardCQ.Params, model: Recommender) -> None:
        self.p, self.model = params, model
        self.trend: PlainTrend | None = None
        self.before: list[float] | None = None
        self.table: PublicParams | None = None
        self.epoch, self.uploaded = 0, [0] * 0
        self.history: dict[int, list[list[tuple[int, int]]]] = {}

    def scores(self, params: PublicParams, users: torch.Tensor) -> list[float]:
        dense = {name: value.double() for name, value in params.dense.items()}
        items = params.items.double()
        each = [self.model.logits(dense, u.expand(len(items), -1), items).sigmoid() for u in users.double()]
        return torch.stack(each).sum(0).tolist()

    def kept(self, updates: Updates, view: ServerView) -> list[int]:
        p, num_items = self.p, len(view.params.items)
        if view.epoch != self.epoch:
            self.epoch, self.uploaded = view.epoch, [0] * num_items
        rows = updates.all_rows()
        for item in rows.item.tolist():
            self.uploaded[item] += 1
        users = p.user_std * torch.randn(p.users, self.model.embedding_size, generator=view.generator)
        now = self.scores(view.params, users)
        if self.trend is None:
            self.trend = PlainTrend(int(p.share * num_items))
        change = now
        if self.table is not None and not self.trend.by_score:
            change = [a - b for a, b in zip(now, self.scores(self.table, users), strict=True)]
        self.table = PublicParams(view.params.items, view.params.dense)
        if self.trend.by_score:
            change = now
        by_change, _ = self.trend.look(change)
        order = sorted(range(num_items), key=lambda j: (-now[j], j))
        known = sum(count > 0 for count in self.uploaded)
        counted = sorted(range(num_items), key=lambda j: (-self.uploaded[j], j))
        guesses = [set(order[: int(p.share * num_items)]), by_change, set(counted[: int(p.share * known)])]
        shares, few = [], []
        for i, client in enumerate(updates.clients.tolist()):
            items = view.params.items.double().clone()
            mine = (rows.client == i).nonzero().squeeze(1).tolist()
            for r in mine:
                items[rows.item[r]] -= 0.5 * rows.values[r].double()
                if updates.common is not None:
                    items[rows.item[r]] -= 0.5 * updates.common.share[i] * updates.common.gradient[rows.item[r]]
            stacked = updates.dense.stacked()
            dense = {
                name: value.double() - 0.5 * stacked[name][i].double() for name, value in view.params.dense.items()
            }
            after = self.scores(PublicParams(items, dense), users)
            own = {int(rows.item[r]) for r in mine}
            entry = [
                (sum(after[j] - now[j] > 1e-12 for j in own & guess) + 1, len(own & guess) + 1) for guess in guesses
            ]
            few.append(all(count - 1 <= p.few for _, count in entry))
            past = self.history.setdefault(client, [])
            past.append(entry)
            recent = past[-p.window :]
            shares.append([sum(e[v][0] for e in recent) / sum(e[v][1] for e in recent) for v in range(3)])
        suspects = []
        for v in range(3):
            ranked = sorted(range(len(shares)), key=lambda i: (-shares[i][v], i))
            gaps = [shares[a][v] - shares[b][v] for a, b in itertools.pairwise(ranked)]
            cut = max(range(len(gaps)), key=lambda k: (gaps[k], -k))
            suspects.append(set(ranked[cut + 1 :]) if gaps[cut] >= p.gap else set())
        bad = set.intersection(*suspects) - {i for i, small in enumerate(few) if small}
        return [client for i, client in enumerate(updates.clients.tolist()) if i not in bad]


@pytest.mark.parametrize(("name", "common"), [("mf", True), ("mf", False), ("ncf", False)])
def test_rounds_are_those_of_the_plain_loop(name: str, common: bool) -> None:
    """Six clients, of whom two to four are in a round, with uploads at random; items drift one way."""
    model = recommender(name, embedding_size=3, **({"hidden": (4,)} if name == "ncf" else {}))
    p = GuardCQ.Params(users=3, share=0.2, window=2, few=1, user_std=0.5, gap=0.12)
    defense, plain = GuardCQ(p), PlainGuard(p, model)
    g = torch.Generator().manual_seed(5)
    params = model.init_params(20, g)
    drift = 0.2 * torch.randn(20, 3, generator=g)
    dropped = 0
    for number in range(16):
        params = PublicParams(params.items + drift, params.dense)
        clients = torch.randperm(6, generator=g)[: 3 + number % 3]
        client, item = (torch.rand(len(clients), 20, generator=g) < 0.6).nonzero(as_tuple=True)
        half = len(client) // 2
        order = torch.randperm(len(client), generator=g)
        values = torch.randn(len(client), 3, generator=g)
        blocks = tuple(FullRows(client[o], item[o], values[o]) for o in (order[:half], order[half:]))
        dense = {n: 0.1 * torch.randn(len(clients), *v.shape, generator=g) for n, v in params.dense.items()}
        shared = Common(torch.randn(20, 3, generator=g), torch.rand(len(clients), generator=g)) if common else None
        updates = Updates(clients, blocks, DenseGradients.of(dense), torch.ones(len(clients)), shared)
        seen = 1 + number // 4, number, number
        kept = defense.filter(updates, view_of(model, params, *seen)).clients.tolist()
        assert kept == plain.kept(updates, view_of(model, params, *seen))
        dropped += len(kept) < len(clients)
    assert dropped >= 2


@pytest.mark.parametrize("velocity", ["change", "score"])
@pytest.mark.parametrize("model", ["mf", "vncf"])
def test_federations_run_with_it(velocity: str, model: str) -> None:
    attack = Painter() if model == "vncf" else ExplicitBoost(ExplicitBoost.Params())
    defense = GuardCQ(GuardCQ.Params(velocity=velocity))
    federation = small_federation(model, attack, defense, task=small_task(num_malicious=4), clients_per_round=12)
    for _ in range(3):
        federation.train_epoch()
    federation.check_finite()
