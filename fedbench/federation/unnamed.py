"""What a defense that does not come with fedbench is shown of the uploads of a round: what is in them, not who sent them.

The engine has honest clients first and malicious ones behind them, with ids above those of all users where they are injected,
in blocks of rows of other kinds: whoever goes by that needs no defense. A server knows uploads and accounts. So the clients
come in an order that their rows give, under names that the server gives them when it first sees them, with sorted rows of one
kind. What a defense does on the devices of honest clients it is told with their ids.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from fedbench.entries.cards import DefenseCard, declared
from fedbench.federation.defense import Defense, Notes, ServerView
from fedbench.federation.model import PublicParams
from fedbench.federation.rows import FullRows, OuterRows, Rows
from fedbench.federation.updates import DenseGradients, Tensors, Updates

_MADE: dict[type[Defense], type[Defense]] = {}


@dataclass
class Names:
    """The names under which a server knows clients: 0, 1, ... as they come.

    Attributes:
        ids: int64 [n], the client behind each name.
    """

    ids: torch.Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))

    def of(self, clients: torch.Tensor) -> torch.Tensor:
        """The names of clients, int64 [n], in the order in which new ones get theirs."""
        self.ids = self.ids.to(clients.device)
        self.ids = torch.cat([self.ids, clients[~torch.isin(clients, self.ids)]])
        order = self.ids.argsort()
        return order[torch.searchsorted(self.ids[order], clients)]

    def shown(self, updates: Updates) -> Updates:
        """The same uploads, under these names."""
        rows = _one_block(updates)
        order = torch.argsort(_digest(rows, len(updates.clients)), stable=True)
        place = torch.empty_like(order)
        place[order] = torch.arange(len(order), device=order.device)
        made = _sorted(replace(rows, client=place[rows.client]))
        common, rejected = updates.common, updates.rejected
        return Updates(
            self.of(updates.clients[order]),
            (made,) if len(made.item) else (),
            _reordered(updates.dense, order, place),
            updates.weights[order],
            None if common is None else replace(common, share=common.share[order]),
            None if rejected is None else rejected[order],
            updates.mixed,
        )


def unnamed(cls: type[Defense]) -> type[Defense]:
    """A subclass of a defense's class whose ``filter`` and ``aggregate`` are shown uploads in this way."""
    if cls not in _MADE:
        _MADE[cls] = _subclass(cls)
    return _MADE[cls]


def _subclass(cls: type[Defense]) -> type[Defense]:
    content: dict[str, Any] = {"card": declared(cls, DefenseCard), "__doc__": cls.__doc__, "__module__": cls.__module__}
    content["__init__"] = _with_names(cls)
    if cls.filter is not Defense.filter:
        content["filter"] = _filter(cls)
    if cls.aggregate is not Defense.aggregate:
        content["aggregate"] = _aggregate(cls)
    return type(cls.__name__, (cls,), content)


def _with_names(cls: type[Defense]) -> Callable[[Any, Any], None]:
    def init(self: Any, params: Any) -> None:
        cls.__init__(self, params)
        self._names = Names()

    return init


def _filter(cls: type[Defense]) -> Callable[[Any, Updates, ServerView], Updates]:
    def hook(self: Any, updates: Updates, server: ServerView) -> Updates:
        shown, own = self._names.shown(updates), _own_notes(server)
        made = cls.filter(self, shown, own)
        _tell(own.notes, server.notes, self._names)
        return replace(made, clients=self._names.ids[made.clients])

    return hook


def _aggregate(cls: type[Defense]) -> Callable[[Any, Updates, ServerView], PublicParams | None]:
    def hook(self: Any, updates: Updates, server: ServerView) -> PublicParams | None:
        shown, own = self._names.shown(updates), _own_notes(server)
        made = cls.aggregate(self, shown, own)
        _tell(own.notes, server.notes, self._names)
        return made

    return hook


def _own_notes(server: ServerView) -> ServerView:
    return server if server.notes is None else replace(server, notes=Notes())


def _tell(own: Notes | None, notes: Notes | None, names: Names) -> None:
    """What a defense has noted, with the clients' ids."""
    if own is None or notes is None:
        return
    notes.left_out += [(name, names.ids[clients]) for name, clients in own.left_out]
    if own.uniformity is not None:
        notes.uniformity = names.ids[own.uniformity[0]], own.uniformity[1]


def _one_block(updates: Updates) -> FullRows | OuterRows:
    """All rows as one block: as factors, the largest number of each vector being 1, where some are factors; else as rows."""
    if not any(type(block) is OuterRows for block in updates.rows):
        return updates.all_rows()
    parts = [_factors(block) for block in updates.rows]
    starts = torch.tensor([0, *(len(part.vectors) for part in parts[:-1])]).cumsum(0).tolist()
    vectors = torch.cat([part.vectors for part in parts])
    size = vectors.abs().amax(1)
    size = torch.where(size > 0, size, 1.0)
    source = torch.cat([part.source + start for part, start in zip(parts, starts, strict=True)])
    return OuterRows(
        torch.cat([part.client for part in parts]),
        torch.cat([part.item for part in parts]),
        torch.cat([part.coef for part in parts]) * size[source],
        source,
        vectors / size[:, None],
    )


def _factors(block: Rows) -> OuterRows:
    if isinstance(block, OuterRows):
        return block
    source = torch.arange(len(block.item), device=block.item.device)
    values = block.grad()
    return OuterRows(block.client, block.item, values.new_ones(len(source)), source, values)


def _sorted(rows: FullRows | OuterRows) -> FullRows | OuterRows:
    """The same by client, then item, and the vectors in the order of the rows that are made of them."""
    last = int(rows.item.max()) + 1 if len(rows.item) else 1
    rows = rows.take(torch.argsort(rows.client * last + rows.item))
    if isinstance(rows, FullRows):
        return rows
    count = len(rows.source)
    first = rows.source.new_full((len(rows.vectors),), count)
    first.scatter_reduce_(0, rows.source, torch.arange(count, device=first.device), "amin")
    used = torch.argsort(first)[: int((first < count).sum())]
    number = torch.empty_like(first)
    number[used] = torch.arange(len(used), device=first.device)
    return replace(rows, source=number[rows.source], vectors=rows.vectors[used])


def _digest(rows: FullRows | OuterRows, num_clients: int) -> torch.Tensor:
    """int64 [num_clients]: a number made of the bits of every client's rows, in whatever order they come."""
    value = rows.coef if isinstance(rows, OuterRows) else rows.values[:, :1].squeeze(1)
    bits = value.contiguous().view(torch.int32).long()
    mixed = ((bits ^ (bits >> 15)) * 0x9E3779B1) * (2 * rows.item + 1)
    mixed = (mixed ^ (mixed >> 29)) * 0x5851F42D4C957F2D
    return mixed.new_zeros(num_clients).index_add_(0, rows.client, mixed)


def _reordered(dense: DenseGradients, order: torch.Tensor, place: torch.Tensor) -> DenseGradients:
    """The same gradients, the k-th those of client ``order[k]``; ``place``: the other way round."""

    def stacked() -> Tensors:
        return {name: value[order] for name, value in dense.stacked().items()}

    weighted = dense.weighted
    return DenseGradients(
        dense.total, stacked, None if weighted is None else lambda factor: weighted(factor.index_select(0, place))
    )
