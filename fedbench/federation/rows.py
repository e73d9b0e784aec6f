"""The rows of an upload: gradients of item embeddings, in the form that their model has them without further work.

A gradient row of matrix factorization is (one number) x (the client's own vector), and one of training on pairs is a sum
of such pieces: only the factors are kept, and the [R, d] rows are made when a defense reads them.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch


@dataclass(frozen=True)
class Rows(ABC):
    """Gradient rows of a round, one for each distinct (client, item).

    Attributes:
        client: int64 [R], index into the round's clients.
        item: int64 [R].
    """

    client: torch.Tensor
    item: torch.Tensor

    @abstractmethod
    def grad(self) -> torch.Tensor:
        """float32 [R, d]: the rows themselves."""

    @abstractmethod
    def sum(self, num_items: int) -> torch.Tensor:
        """float32 [num_items, d]: for every item the sum of its rows."""

    @abstractmethod
    def norms(self) -> torch.Tensor:
        """float32 [R]: the Euclidean norm of every row."""

    @abstractmethod
    def scaled(self, factor: torch.Tensor) -> Rows:
        """The rows times ``factor``, float32 [R]."""

    @abstractmethod
    def take(self, index: torch.Tensor) -> Rows:
        """The rows at the positions ``index``, int64 [k]."""

    def renumbered(self, client: torch.Tensor) -> Rows:
        """The same rows with other client indices."""
        return replace(self, client=client)

    def reassigned(self, item: torch.Tensor) -> Rows:
        """The same rows as rows of other items."""
        return replace(self, item=item)

    def among(self, ids: torch.Tensor, place: torch.Tensor) -> Rows:
        """The same rows in a table of the items ``ids``, int64 [T], alone; ``place``, int64 [M], is where each is in it."""
        return self.reassigned(place.index_select(0, self.item))


@dataclass(frozen=True)
class FullRows(Rows):
    """Rows that are stored as they are: ``values`` float32 [R, d]."""

    values: torch.Tensor

    def grad(self) -> torch.Tensor:
        return self.values

    def sum(self, num_items: int) -> torch.Tensor:
        return self.values.new_zeros(num_items, self.values.shape[1]).index_add_(0, self.item, self.values)

    def norms(self) -> torch.Tensor:
        return self.values.norm(dim=1)

    def scaled(self, factor: torch.Tensor) -> FullRows:
        return replace(self, values=self.values * factor[:, None])

    def take(self, index: torch.Tensor) -> FullRows:
        return FullRows(
            self.client.index_select(0, index), self.item.index_select(0, index), self.values.index_select(0, index)
        )


@dataclass(frozen=True)
class PiecedRows(Rows):
    """Rows that are sums of pieces, as training on pairs makes them: ``grad[r] = sum of coef[s] values[s], place[s] = r``.

    Attributes:
        place: int64 [S]. coef: float32 [S]. values: float32 [S, d].
    """

    place: torch.Tensor
    coef: torch.Tensor
    values: torch.Tensor

    def grad(self) -> torch.Tensor:
        return self._made

    @functools.cached_property
    def _made(self) -> torch.Tensor:
        return self._into(len(self.item), self.place)

    def sum(self, num_items: int) -> torch.Tensor:
        return self._into(num_items, self.item.index_select(0, self.place))

    def _into(self, count: int, names: torch.Tensor) -> torch.Tensor:
        order, starts = by_item(names, count)
        return torch.nn.functional.embedding_bag(
            order, self.values, starts, mode="sum", per_sample_weights=self.coef.index_select(0, order)
        )

    def norms(self) -> torch.Tensor:
        return self.grad().norm(dim=1)

    def scaled(self, factor: torch.Tensor) -> PiecedRows:
        return replace(self, coef=self.coef * factor.index_select(0, self.place))

    def take(self, index: torch.Tensor) -> FullRows:
        return FullRows(self.client, self.item, self.grad()).take(index)


@dataclass(frozen=True)
class OuterRows(Rows):
    """Rows ``coef[r] * vectors[source[r]]``, as matrix factorisation makes them.

    Attributes:
        coef: float32 [R]. source: int64 [R]. vectors: float32 [n, d].
    """

    coef: torch.Tensor
    source: torch.Tensor
    vectors: torch.Tensor

    def grad(self) -> torch.Tensor:
        return self.vectors.index_select(0, self.source) * self.coef[:, None]

    def sum(self, num_items: int) -> torch.Tensor:
        order, starts = by_item(self.item, num_items)
        return torch.nn.functional.embedding_bag(
            self.source.index_select(0, order),
            self.vectors,
            starts,
            mode="sum",
            per_sample_weights=self.coef.index_select(0, order),
        )

    def norms(self) -> torch.Tensor:
        return self.coef.abs() * self.vectors.norm(dim=1).index_select(0, self.source)

    def scaled(self, factor: torch.Tensor) -> OuterRows:
        return replace(self, coef=self.coef * factor)

    def take(self, index: torch.Tensor) -> OuterRows:
        return OuterRows(self.client[index], self.item[index], self.coef[index], self.source[index], self.vectors)


@dataclass(frozen=True)
class ProjectedRows(Rows):
    """Rows ``coef[r] @ matrix``, as a perceptron's first layer makes them.

    Attributes:
        coef: float32 [R, k]. matrix: float32 [k, d].
    """

    coef: torch.Tensor
    matrix: torch.Tensor

    def grad(self) -> torch.Tensor:
        return self.coef @ self.matrix

    def sum(self, num_items: int) -> torch.Tensor:
        return self.coef_sum(num_items) @ self.matrix

    def coef_sum(self, num_items: int) -> torch.Tensor:
        """float32 [num_items, k]: for every item the sum of its coefficients; not to be written to, for it is kept."""
        if num_items not in self._sums:
            order, starts = by_item(self.item, num_items)
            self._sums[num_items] = torch.nn.functional.embedding_bag(order, self.coef, starts, mode="sum")
        return self._sums[num_items]

    @functools.cached_property
    def _sums(self) -> dict[int, torch.Tensor]:
        """Of so many items: the gradient of the first layer of a perceptron is made of the same sums."""
        return {}

    def norms(self) -> torch.Tensor:
        return self.grad().norm(dim=1)

    def scaled(self, factor: torch.Tensor) -> ProjectedRows:
        return replace(self, coef=self.coef * factor[:, None])

    def take(self, index: torch.Tensor) -> ProjectedRows:
        return ProjectedRows(self.client[index], self.item[index], self.coef[index], self.matrix)


@dataclass(frozen=True)
class SharedRows(Rows):
    """Rows ``coef[r] * table[item[r]]``: clients that send the same row of an item but for a factor.

    Attributes:
        coef: float32 [R]. table: float32 [M, d], of all items: what renumbers ``item`` must write the rows out first.
    """

    coef: torch.Tensor
    table: torch.Tensor

    def grad(self) -> torch.Tensor:
        return self.table.index_select(0, self.item) * self.coef[:, None]

    def sum(self, num_items: int) -> torch.Tensor:
        # One weight for each item, whatever the number of clients.
        weight = self.coef.new_zeros(len(self.table)).index_add_(0, self.item, self.coef)
        return self.table * weight[:, None]

    def norms(self) -> torch.Tensor:
        return self.coef.abs() * self.table.norm(dim=1).index_select(0, self.item)

    def scaled(self, factor: torch.Tensor) -> SharedRows:
        return SharedRows(self.client, self.item, self.coef * factor, self.table)

    def among(self, ids: torch.Tensor, place: torch.Tensor) -> SharedRows:
        return SharedRows(self.client, place.index_select(0, self.item), self.coef, self.table.index_select(0, ids))

    def take(self, index: torch.Tensor) -> SharedRows:
        return SharedRows(self.client[index], self.item[index], self.coef[index], self.table)


@dataclass(frozen=True)
class StarRows(Rows):
    """Rows of a perceptron's first layer, of which some also pass on what reaches the user through its graph.

    Attributes:
        plain: float32 [R, d], all rows without that. place: int64 [Q], which rows are leaves. leaves: [Q, d], what these add.
    """

    plain: ProjectedRows
    place: torch.Tensor
    leaves: OuterRows

    def grad(self) -> torch.Tensor:
        return self.plain.grad().index_add_(0, self.place, self.leaves.grad())

    def sum(self, num_items: int) -> torch.Tensor:
        return self.plain.sum(num_items) + self.leaves.sum(num_items)

    def norms(self) -> torch.Tensor:
        return self.grad().norm(dim=1)

    def reassigned(self, item: torch.Tensor) -> StarRows:
        leaves = replace(self.leaves, item=item.index_select(0, self.place))
        return StarRows(self.client, item, replace(self.plain, item=item), self.place, leaves)

    def scaled(self, factor: torch.Tensor) -> StarRows:
        leaves = self.leaves.scaled(factor.index_select(0, self.place))
        return StarRows(self.client, self.item, self.plain.scaled(factor), self.place, leaves)

    def take(self, index: torch.Tensor) -> FullRows:
        return FullRows(self.client, self.item, self.grad()).take(index)


def copied(made: Any) -> Any:
    """The same rows or batch, of the same kind, that share no tensor with ``made``."""
    return replace(made, **{each.name: _copied(getattr(made, each.name)) for each in fields(made)})


def _copied(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.clone()
    return copied(value) if isinstance(value, Rows) else value


def coalesced(rows: FullRows, num_items: int) -> FullRows:
    """The same rows with those of equal (client, item) added up, sorted by both."""
    key, order = torch.sort(rows.client * num_items + rows.item)
    key, lengths = torch.unique_consecutive(key, return_counts=True)
    starts = lengths.cumsum(0) - lengths
    values = torch.nn.functional.embedding_bag(order, rows.values, starts, mode="sum")
    return FullRows(key // num_items, key % num_items, values)


def occurrences(index: torch.Tensor, size: int) -> torch.Tensor:
    """int64 [size]: how often each of 0 to ``size`` - 1 is in ``index``, int64 [R]."""
    if index.is_cuda:  # where bincount would make the host wait, to read the largest
        return torch.zeros(size, dtype=torch.int64, device=index.device).index_add_(0, index, torch.ones_like(index))
    return torch.bincount(index, minlength=size)


def by_item(item: torch.Tensor, num_items: int) -> tuple[torch.Tensor, torch.Tensor]:
    """How to read rows item by item.

    Args:
        item: int64 [R]. num_items: M.

    Returns:
        order int64 [R], the rows sorted by item (stable), and starts int64 [M], where each item's rows begin in it.
    """
    if num_items <= 2**15 and not item.is_cuda:
        # numpy sorts 16-bit integers digit by digit: 0.05 ms for 14,000 rows, torch's sort 0.7.
        order = torch.from_numpy(np.argsort(item.to(torch.int16).numpy(), kind="stable"))
        count = torch.bincount(item, minlength=num_items)
        return order, count.cumsum(0) - count
    key = item.to(torch.int16) if num_items <= 2**15 else item.to(torch.int32)
    ordered, order = torch.sort(key, stable=True)
    return order, torch.searchsorted(ordered, torch.arange(num_items, device=item.device, dtype=ordered.dtype))
