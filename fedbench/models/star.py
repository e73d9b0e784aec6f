"""One layer of graph convolution on the graph that a client knows: itself, and the items that it likes."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from fedbench.federation.batch import Batch
from fedbench.federation.rows import OuterRows, ProjectedRows, StarRows, occurrences


@dataclass(frozen=True)
class Star:
    """The graphs of n clients, and what a layer of LightGCN makes of them.

    With n_u leaves around user u, the items x_j of its positives (each of degree 1: a client sees only itself),
    ``u^1 = n_u^(-1/2) sum_j x_j`` and ``x_j^1 = n_u^(-1/2) u^0``; a user without positives keeps ``u^1 = 0``. Layers are
    pooled, ``c (u^0 + u^1)`` and ``c (v_j^0 + v_j^1)``, with c = 1 (sum) or 1/2 (mean).

    Attributes:
        row, client, item: int64 [Q], the leaves, client by client: their rows in the batch, whose they are, and which item.
        starts: int64 [n], where each client's leaves begin.
        share: float32 [n, 1], ``c n_u^(-1/2)``, or 0. own: float32 [n, d], u^0. pool: c.
    """

    row: torch.Tensor
    client: torch.Tensor
    item: torch.Tensor
    starts: torch.Tensor
    share: torch.Tensor
    own: torch.Tensor
    pool: float

    @classmethod
    def of(cls, batch: Batch, users: torch.Tensor, pool: float) -> Star:
        """The graphs of the clients of a batch: their leaves are its rows that are positive at least once."""
        row = (batch.positive > 0).nonzero().squeeze(1)
        client = batch.client.index_select(0, row)
        starts, share = _degrees(client, len(users), pool)
        return cls(row, client, batch.item.index_select(0, row), starts, share, users, pool)

    def users(self, table: torch.Tensor) -> torch.Tensor:
        """float32 [n, d]: ``c (u^0 + u^1)``, of a table of x, float32 [M, d]."""
        return _pooled(self.own, table, self.item, self.starts, self.share, self.pool)

    def give_leaves(self, values: torch.Tensor, weight: torch.Tensor) -> None:
        """Adds ``c v_j^1 = c n_u^(-1/2) u^0``, projected by ``weight`` [k, d], to the leaves' rows of ``values`` [R, k]."""
        values.index_add_(0, self.row, ((self.share * self.own) @ weight.T).index_select(0, self.client))

    def sum_leaves(self, values: torch.Tensor) -> torch.Tensor:
        """float32 [n, k]: ``c n_u^(-1/2)`` times the sum of the leaves' rows of ``values`` [R, k]."""
        return self.share * torch.nn.functional.embedding_bag(self.row, values, self.starts, mode="sum")

    def sum_items(self, values: torch.Tensor, num_items: int) -> torch.Tensor:
        """float32 [num_items, d]: for every item the sum of ``values`` [n, d] over the clients whose leaf it is."""
        return self._leaf_rows(values).sum(num_items)

    def rows(self, plain: ProjectedRows, values: torch.Tensor) -> StarRows:
        """The rows ``plain`` with a client's ``values``, float32 [n, d], added to each of its leaves."""
        return StarRows(plain.client, plain.item, plain, self.row, self._leaf_rows(values))

    def _leaf_rows(self, values: torch.Tensor) -> OuterRows:
        return OuterRows(self.client, self.item, values.new_ones(len(self.item)), self.client, values)


def propagated(
    users: torch.Tensor, table: torch.Tensor, starts: torch.Tensor, item: torch.Tensor, pool: float
) -> torch.Tensor:
    """``c (u^0 + u^1)`` of n users by their histories, float32 [n, d]; repeats of an item are one leaf.

    Args:
        users: float32 [n, d], u^0. table: float32 [M, d], x of every item.
        starts: int64 [n + 1], item: int64 [P], the histories. pool: c.
    """
    owner = torch.repeat_interleave(starts.diff())
    leaf = torch.unique(owner * len(table) + item)
    begins, share = _degrees(leaf // len(table), len(users), pool)
    return _pooled(users, table, leaf % len(table), begins, share, pool)


def _degrees(client: torch.Tensor, count: int, pool: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Where each client's leaves begin, int64 [n], and ``c n_u^(-1/2)``, or 0: float32 [n, 1]."""
    degree = occurrences(client, count)
    share = pool * degree.clamp(min=1).rsqrt() * (degree > 0)
    return degree.cumsum(0) - degree, share[:, None]


def _pooled(
    users: torch.Tensor,
    table: torch.Tensor,
    item: torch.Tensor,
    starts: torch.Tensor,
    share: torch.Tensor,
    pool: float,
) -> torch.Tensor:
    gathered = torch.nn.functional.embedding_bag(item, table, starts, mode="sum")
    return pool * users + share * gathered
