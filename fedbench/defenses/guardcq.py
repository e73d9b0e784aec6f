"""GuardCQ: clients are dropped whose uploads seldom raise the scores of popular items."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch
from pydantic import Field

from fedbench.defenses.score_trend import ScoreTrend, liking
from fedbench.entries.cards import DefenseCard, DefenseFamily, Parameters
from fedbench.errors import UserError
from fedbench.federation.defense import Defense, ServerView
from fedbench.federation.model import PublicParams, Recommender
from fedbench.federation.rows import FullRows, occurrences
from fedbench.federation.updates import Updates

VIEWS = 3
"""Guesses of what is popular."""
ROUNDING = 1e-12
"""Of sums of scores in float64, of at most 10,000 users: a smaller change is none."""


class GuardCQ(Defense):
    """Filter by each client's contribution to what users at large think of popular items (Hao et al., CCS 2024).

    In every round, with ``users`` random embeddings ``N(0, user_std^2 I)`` and the scores ``r_j = sum over them of
    sigma(s(p, v_j))``:

    1. Popular items, guessed in three ways, a ``share`` of all each: those of the largest r; those whose r rises most from
       round to round, later those of the largest r too (:class:`fedbench.defenses.score_trend.ScoreTrend`, with the code's
       patience); and of the items uploaded since the epoch began those that most clients uploaded.
    2. A client uploads rows of c of the items of a guess. Of u of them r is larger with its own upload alone applied,
       ``V - eta g_i`` and its dense gradients alike, than without. Its contribution is ``sum (u + 1) / sum (c + 1)`` over
       its last ``window`` participations.
    3. The contributions to each guess are sorted. Where the largest gap between neighbours (of several the highest) is at
       least ``gap``, whoever lies below it is suspicious. Clients that are suspicious by all three guesses are dropped.

    Clients that send what is not a finite number are dropped first. Scores are compared in float64. Protocols whose honest
    uploads all hold an L2 pull on all items count the rows that a client states.

    Readings: ``velocity``: the code means to keep the embeddings of the round before, but keeps a reference to those that it
    updates in place, so that no score ever changes and its second guess is of scores after ten rounds of arbitrary items.
    ``exempt``: clients with at most ``few`` popular items by every guess are to pass; the code forgets all of them but the
    round's last. With both at the code's side it is the published filter but for ties.
    """

    card = DefenseCard(
        name="guardcq",
        title="GuardCQ: contribution to the scores of popular items",
        paper="Hao et al., CCS 2024",
        family=DefenseFamily.FILTER,
        needs_users=True,
        notes="The server must see each client's upload, and know it again: not with secure aggregation.",
    )

    class Params(Parameters):
        """Parameters."""

        users: int = Field(20, ge=1, le=10_000, description="random users of the server's [code: 20]")
        user_std: float = Field(0.01, gt=0, description="standard deviation of their embeddings [code: 0.01]")
        share: float = Field(0.05, gt=0, le=0.5, description="of the items that are taken for popular [code: 1/20]")
        window: int = Field(50, ge=1, le=10_000, description="participations that count [code: 50]")
        gap: float = Field(0.1, ge=0, description="the least gap below which clients are suspicious [code: 0.1]")
        few: int = Field(3, ge=0, description="clients with so few popular items by every guess pass [code: 3]")
        exempt: Literal["all", "last"] = Field(
            "all", description="who passes with few popular items [all: what the code means to do; last: code]"
        )
        velocity: Literal["change", "score"] = Field(
            "change",
            description="what the second guess ranks by at first [change: README; score: what the code comes to]",
        )
        start: int = Field(
            1,
            ge=1,
            description="first epoch in which it acts [code: 1; on ML-1M after 50 of its epochs, a tenth of a pass each: 6]",
        )

    params: GuardCQ.Params

    def __init__(self, params: Parameters) -> None:
        super().__init__(params)
        self._trend: ScoreTrend | None = None
        self._epoch, self._uploads = 0, torch.zeros(0)
        self._seen = torch.zeros(0, dtype=torch.long)
        self._history = torch.zeros(0, self.params.window, VIEWS, 2)

    def filter(self, updates: Updates, server: ServerView) -> Updates:
        if server.model is None:
            raise UserError("defense 'guardcq' scores items: it needs server.model, which is None.")
        usable = updates.usable()
        if not bool(usable.all()):
            updates = updates.keep(usable)
        self._count(updates, server)
        if server.epoch < self.params.start or not len(updates.clients):
            return updates
        model, params, generator = server.model, in_float64(server.params), server.generator
        shape = (self.params.users, model.embedding_size)
        users = self.params.user_std * torch.randn(shape, generator=generator, device=generator.device).to(params.items)
        before = liking(model, params, users, params.items)
        popular = self._popular(model, params, users, before)
        rows = stated(updates, popular.any(0))
        after = self._alone(model, params, users, updates, rows, server.learning_rate)
        of_guess = popular[:, rows.item].T
        none = torch.zeros(len(updates.clients), VIEWS, device=of_guess.device)
        count = none.index_add(0, rows.client, of_guess.float())
        rises = (after - before[rows.item] > ROUNDING)[:, None] & of_guess
        raised = none.index_add(0, rows.client, rises.float())
        suspicious = below_the_gap(self._remembered(updates.clients, raised, count), self.params.gap).all(1)
        passes = (count <= self.params.few).all(1)
        if self.params.exempt == "last":
            passes[:-1] = False
        dropped = suspicious & ~passes
        return updates.keep(~dropped) if bool(dropped.any()) else updates

    def _count(self, updates: Updates, server: ServerView) -> None:
        """How many clients have uploaded each item since the epoch began."""
        if server.epoch != self._epoch:
            self._epoch, self._uploads = server.epoch, torch.zeros_like(server.params.items[:, 0])
        for block in updates.rows:
            self._uploads += occurrences(block.item, len(self._uploads))

    def _popular(
        self, model: Recommender, params: PublicParams, users: torch.Tensor, scores: torch.Tensor
    ) -> torch.Tensor:
        """Bool [3, M]: popular by the ``scores`` of now, by their change, by uploads."""
        count = max(1, int(self.params.share * len(scores) + 1e-9))
        if self._trend is None:
            self._trend = ScoreTrend(count, by_score=self.params.velocity == "score")

        def with_table(items: torch.Tensor) -> torch.Tensor:
            return scores if items is params.items else liking(model, params, users, items)

        by_change = self._trend.look(params.items, with_table)[0]
        uploaded = int(self.params.share * int((self._uploads > 0).sum()) + 1e-9)
        return torch.stack([highest(scores, count), by_change, highest(self._uploads, uploaded)])

    def _alone(
        self,
        model: Recommender,
        params: PublicParams,
        users: torch.Tensor,
        updates: Updates,
        rows: FullRows,
        learning_rate: float,
    ) -> torch.Tensor:
        """float64 [R]: the scores of the items of ``rows``, had the server taken their clients' uploads alone.

        Args:
            rows: in order of clients.
        """
        if not len(rows.item):
            return params.items.new_zeros(0)
        items = params.items[rows.item] - learning_rate * rows.values
        features = None if params.features is None else params.features[rows.item]
        if not params.dense:
            return liking(model, PublicParams(items, {}, features), users, items)
        stacked, length = updates.dense.stacked(), torch.bincount(rows.client, minlength=len(updates.clients)).tolist()
        scores = []
        # Client by client, each with a network of its own: a dozen matrix products.
        for i, (own, looks) in enumerate(zip(items.split(length), _split(features, length), strict=True)):
            if len(own):
                dense = {
                    name: value - learning_rate * stacked[name][i].double() for name, value in params.dense.items()
                }
                scores.append(liking(model, PublicParams(own, dense, looks), users, own))
        return torch.cat(scores)

    def _remembered(self, clients: torch.Tensor, raised: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
        """float32 [n, 3]: each client's contributions, with those of this round.

        Args:
            clients: int64 [n], their ids. raised, count: float32 [n, 3].
        """
        more = int(clients.max()) + 1 - len(self._seen)
        if more > 0:
            self._seen = torch.cat([self._seen.to(clients.device), clients.new_zeros(more)])
            self._history = torch.cat([self._history.to(raised), raised.new_zeros(more, *self._history.shape[1:])])
        self._history[clients, self._seen[clients] % self.params.window] = torch.stack([raised, count], dim=2) + 1
        self._seen[clients] += 1
        total = self._history[clients].sum(1)
        return total[:, :, 0] / total[:, :, 1]


def _split(values: torch.Tensor | None, length: list[int]) -> Sequence[torch.Tensor | None]:
    return [None] * len(length) if values is None else values.split(length)


def in_float64(params: PublicParams) -> PublicParams:
    """The parameters, in which the change of a score by one upload can be seen."""
    features = None if params.features is None else params.features.double()
    return PublicParams(params.items.double(), {name: value.double() for name, value in params.dense.items()}, features)


def highest(values: torch.Tensor, count: int) -> torch.Tensor:
    """Bool [M]: the ``count`` largest of ``values`` [M]; of equal ones the first."""
    chosen = torch.zeros(len(values), dtype=torch.bool, device=values.device)
    chosen[values.argsort(descending=True, stable=True)[:count]] = True
    return chosen


def stated(updates: Updates, wanted: torch.Tensor) -> FullRows:
    """The rows that clients state of the items where ``wanted``, bool [M], by client; float64, with what is common."""
    blocks = [block.take(wanted[block.item].nonzero().squeeze(1)) for block in updates.rows]
    found = replace(updates, rows=tuple(blocks)).all_rows()
    found = found.take(found.client.argsort(stable=True))
    values = found.values.double()
    if updates.common is not None:
        values += updates.common.share[found.client, None] * updates.common.gradient[found.item]
    return replace(found, values=values)


def below_the_gap(values: torch.Tensor, least: float) -> torch.Tensor:
    """Bool [n, k]: which of the values of each column lie below its largest gap, if that is at least ``least``.

    Args:
        values: float32 [n, k].
    """
    if len(values) < 2:
        return torch.zeros_like(values, dtype=torch.bool)
    ordered, order = values.sort(dim=0, descending=True, stable=True)
    gaps = ordered[:-1] - ordered[1:]
    first = gaps.argmax(0)
    return (order.argsort(0) > first) & (gaps.amax(0) >= least)
