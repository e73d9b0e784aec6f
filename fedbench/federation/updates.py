"""What the server receives in one round: gradient rows of item embeddings and gradients of the dense parameters.

A client touches few items, so an upload is a list of rows (see ``rows``), never a matrix with a row for every item.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from fedbench.federation.rows import FullRows, Rows

Tensors = Mapping[str, "torch.Tensor"]

FEW = 4
"""Rows are few where there are so many times more items: then it pays to look which have any."""


@dataclass(frozen=True)
class DenseGradients:
    """Gradients of the dense parameters, summed over clients or client by client, whichever is asked for.

    Most rounds only need the sum, which costs one matrix product; the per-client form is made when a defense reads it.

    Attributes:
        total: gives name -> float32 [*shape], the sum over the clients.
        stacked: gives name -> float32 [n, *shape].
        weighted: gives the sum over the clients, each times its factor, float32 [n]; None: made from ``stacked``.
    """

    total: Callable[[], Tensors]
    stacked: Callable[[], Tensors]
    weighted: Callable[[torch.Tensor], Tensors] | None = None

    @classmethod
    def of(cls, stacked: Tensors) -> DenseGradients:
        """From gradients that are already there client by client."""
        return cls(lambda: {name: value.sum(0) for name, value in stacked.items()}, lambda: stacked)

    def scaled(self, factor: torch.Tensor) -> DenseGradients:
        """Every client's gradients times its ``factor``, float32 [n]."""

        def stacked() -> Tensors:
            values = self.stacked()
            return {name: value * factor.view(-1, *[1] * (value.dim() - 1)) for name, value in values.items()}

        def total() -> Tensors:
            if self.weighted is not None:
                return self.weighted(factor)
            return {name: torch.tensordot(factor, value, 1) for name, value in self.stacked().items()}

        return DenseGradients(total, stacked)


@dataclass(frozen=True)
class Common:
    """A gradient of all items that is part of many uploads, such as ``lambda V`` of an L2 term on all parameters.

    Attributes:
        gradient: float32 [M, d]. share: float32 [n], how often it is in each client's upload; 0: not at all.
    """

    gradient: torch.Tensor
    share: torch.Tensor


@dataclass(frozen=True)
class Updates:
    """What the server receives in one round from n clients.

    Attributes:
        clients: int64 [n], ids of the clients.
        rows: blocks of gradient rows; no (client, item) occurs twice.
        dense: gradients of the dense parameters.
        weights: float32 [n], number of training samples behind each upload.
        common: a gradient of all items that comes to the rows: client i uploads ``rows_i + share_i gradient``.
        rejected: bool [n], clients that a filter has dropped and whose uploads a later rule still looks at (UNION's
            parallel order); None: nobody.
        mixed: None: every upload is one client's own. Otherwise the server has mixed them (nnm, bucketing), so that whoever
            stands for an upload has not sent it; malicious clients have a part in so many times their share of the uploads.
    """

    clients: torch.Tensor
    rows: tuple[Rows, ...]
    dense: DenseGradients
    weights: torch.Tensor
    common: Common | None = None
    rejected: torch.Tensor | None = None
    mixed: int | None = None

    def sum_rows(self, num_items: int, size: int) -> torch.Tensor:
        """float32 [num_items, size]: for every item the sum of what all clients send for it."""
        total = self.weights.new_zeros(num_items, size) if not self.rows else self.rows[0].sum(num_items)
        for block in self.rows[1:]:
            total += block.sum(num_items)
        if self.common is not None:
            total = total + self.common.share.sum() * self.common.gradient
        return total

    def touched(self, num_items: int) -> tuple[torch.Tensor, Updates] | None:
        """The items that have rows, int64 [T], ascending, and the same uploads in a table of these alone.

        None where they may be more than one in :data:`FEW` of the M = ``num_items``, and where a gradient of all is part of
        uploads.
        """
        if self.common is not None or FEW * sum(len(block.item) for block in self.rows) > num_items:
            return None
        device = self.weights.device
        there = torch.zeros(num_items, dtype=torch.bool, device=device)
        for block in self.rows:
            there.index_fill_(0, block.item, True)
        # numpy finds them in a quarter of the time.
        ids = there.nonzero().squeeze(1) if there.is_cuda else torch.from_numpy(there.numpy().nonzero()[0])
        place = torch.empty(num_items, dtype=torch.int64, device=device)
        place.scatter_(0, ids, torch.arange(len(ids), device=device))
        return ids, replace(self, rows=tuple(block.among(ids, place) for block in self.rows))

    def all_rows(self) -> FullRows:
        """All blocks as one, with the rows made, without what is common. For defenses that read rows."""
        if not self.rows:
            empty = self.clients.new_zeros(0)
            return FullRows(empty, empty, self.weights.new_zeros(0, 0))
        return FullRows(
            torch.cat([block.client for block in self.rows]),
            torch.cat([block.item for block in self.rows]),
            torch.cat([block.grad() for block in self.rows]),
        )

    def disclosed(self) -> Updates:
        """A copy as it travels: rows, not the private factors that they are made of, and no tensor shared with this one."""

        def copies(tensors: Tensors) -> Tensors:
            return {name: value.clone() for name, value in tensors.items()}

        dense, common = self.dense, self.common
        return Updates(
            self.clients.clone(),
            (self.all_rows(),) if self.rows else (),
            DenseGradients(lambda: copies(dense.total()), lambda: copies(dense.stacked())),
            self.weights.clone(),
            None if common is None else Common(common.gradient.clone(), common.share.clone()),
        )

    def scaled(self, factor: torch.Tensor) -> Updates:
        """Every client's whole upload times its ``factor``, float32 [n]."""
        rows = tuple(block.scaled(factor.index_select(0, block.client)) for block in self.rows)
        common = None if self.common is None else replace(self.common, share=self.common.share * factor)
        return replace(self, rows=rows, common=common, dense=self.dense.scaled(factor))

    def square_norms(self) -> torch.Tensor:
        """float32 [n]: the squared Euclidean norm of every client's whole upload."""
        square = torch.zeros_like(self.weights)
        for block in self.rows:
            square.index_add_(0, block.client, block.norms().square())
        if self.common is not None:
            gradient, share = self.common.gradient, self.common.share
            inner = torch.zeros_like(square)
            for block in self.rows:
                products = (block.grad() * gradient.index_select(0, block.item)).sum(1)
                inner.index_add_(0, block.client, products)
            square = square + 2 * share * inner + share.square() * gradient.square().sum()
        for value in self.dense.stacked().values():
            square = square + value.flatten(1).square().sum(1)
        return square.clamp(min=0)

    def relative(self) -> Updates:
        """The same with ``share`` 1 for everybody: rows relative to what is common.

        Rules that are equivariant to a translation look at the rows alone then. Whoever had another share gets rows of
        all items.
        """
        if self.common is None or not bool((self.common.share != 1).any()):
            return self
        return self._written(1.0)

    def explicit(self) -> Updates:
        """The same with what is common written into rows of all items, and ``common`` None."""
        return self if self.common is None else replace(self._written(0.0), common=None)

    def _written(self, share: float) -> Updates:
        """The same with ``share`` for everybody; clients whose share changes get rows of all items."""
        assert self.common is not None
        gradient, own = self.common.gradient, self.common.share
        num_items, size = gradient.shape
        changed = own != share
        which = changed.nonzero().squeeze(1)
        place = changed.cumsum(0) - 1
        full = (own.index_select(0, which) - share)[:, None, None] * gradient
        full = full.view(-1, size)
        kept: list[Rows] = []
        for block in self.rows:
            moved = changed.index_select(0, block.client)
            taken = block.take(moved.nonzero().squeeze(1))
            full.index_add_(0, place.index_select(0, taken.client) * num_items + taken.item, taken.grad())
            kept.append(block.take((~moved).nonzero().squeeze(1)))
        items = torch.arange(num_items, device=gradient.device).repeat(len(which))
        kept.append(FullRows(which.repeat_interleave(num_items), items, full))
        return replace(self, rows=tuple(kept), common=Common(gradient, torch.full_like(own, share)))

    def settled(self) -> Updates:
        """Without the clients that a filter rejected; all of them when it rejected everybody."""
        if self.rejected is None:
            return self
        rejected, plain = self.rejected, replace(self, rejected=None)
        return plain if bool(rejected.all()) else plain.keep(~rejected)

    def usable(self) -> torch.Tensor:
        """Bool [n]: clients none of whose gradients is NaN, infinite, or so large that squared distances to it are."""
        bad = torch.zeros_like(self.weights)
        if self.rows:
            client, norms = (
                torch.cat(parts) for parts in zip(*((block.client, block.norms()) for block in self.rows), strict=True)
            )
            bad.index_add_(0, client, (~(8 * norms.square() < torch.inf)).to(bad.dtype))
        for value in self.dense.stacked().values():
            bad += ~(8 * value.flatten(1).square().sum(1)).isfinite()
        return bad == 0

    def keep(self, mask: torch.Tensor) -> Updates:
        """Without the clients where ``mask``, bool [n], is False."""
        kept = mask.nonzero().squeeze(1)
        place = mask.cumsum(0) - 1
        rows = []
        for block in self.rows:
            taken = block.take(mask[block.client].nonzero().squeeze(1))
            rows.append(taken.renumbered(place[taken.client]))
        dense = self.dense
        return Updates(
            self.clients[kept],
            tuple(rows),
            DenseGradients(
                lambda: {name: value[kept].sum(0) for name, value in dense.stacked().items()},
                lambda: {name: value[kept] for name, value in dense.stacked().items()},
            ),
            self.weights[kept],
            None if self.common is None else replace(self.common, share=self.common.share[kept]),
            None if self.rejected is None else self.rejected[kept],
            self.mixed,
        )


def concat(parts: Sequence[Updates]) -> Updates:
    """The uploads of several groups of clients as those of one round."""
    parts = [part for part in parts if len(part.clients)] or list(parts[:1])
    if len(parts) == 1:
        return parts[0]
    shared = next((part.common.gradient for part in parts if part.common is not None), None)
    shares = []
    if shared is not None:
        parts = [part if part.common is None or part.common.gradient is shared else part.explicit() for part in parts]
        shares = [torch.zeros_like(part.weights) if part.common is None else part.common.share for part in parts]
    rows: list[Rows] = []
    start = 0
    for part in parts:
        rows += [block.renumbered(block.client + start) if start else block for block in part.rows]
        start += len(part.clients)

    def total() -> Tensors:
        sums = [part.dense.total() for part in parts]
        return {name: torch.stack([each[name] for each in sums]).sum(0) for name in sums[0]}

    def stacked() -> Tensors:
        each = [part.dense.stacked() for part in parts]
        return {name: torch.cat([one[name] for one in each]) for name in each[0]}

    def weighted(factor: torch.Tensor) -> Tensors:
        own = factor.split([len(part.clients) for part in parts])
        sums = [part.dense.scaled(each).total() for part, each in zip(parts, own, strict=True)]
        return {name: torch.stack([each[name] for each in sums]).sum(0) for name in sums[0]}

    return Updates(
        torch.cat([part.clients for part in parts]),
        tuple(rows),
        DenseGradients(total, stacked, weighted),
        torch.cat([part.weights for part in parts]),
        None if shared is None else Common(shared, torch.cat(shares)),
    )


def no_updates(clients: torch.Tensor, dense: Tensors, size: int) -> Updates:
    """The upload of clients that send nothing: no rows, zero dense gradients.

    Args:
        clients: int64 [n].
        dense: the dense parameters, for their shapes.
        size: the embedding size d.
    """
    n = len(clients)
    like = next(iter(dense.values())) if dense else torch.zeros(0, device=clients.device)
    zeros = {name: value.new_zeros(n, *value.shape) for name, value in dense.items()}
    return Updates(clients, (), DenseGradients.of(zeros), like.new_zeros(n))
