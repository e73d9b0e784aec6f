"""Blocks of rows out of arrays: every kind of :class:`~fedbench.federation.rows.Rows` that an upload may have, built anew."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from fedbench.federation.arrays import Arrays
from fedbench.federation.rows import FullRows, OuterRows, PiecedRows, ProjectedRows, Rows, SharedRows, StarRows
from fedbench.federation.updates import DenseGradients, Tensors

CANCELLATION = 1e4
"""How many times longer than a row the pieces that it is made of may be, all together."""
LARGEST = 1e15
"""The largest number in the factors of rows."""

FIELDS: dict[type[Rows], tuple[str, ...]] = {
    FullRows: ("values",),
    PiecedRows: ("place", "coef", "values"),
    OuterRows: ("coef", "source", "vectors"),
    ProjectedRows: ("coef", "matrix"),
    SharedRows: ("coef", "table"),
    StarRows: ("plain.coef", "plain.matrix", "place", "leaves.coef", "leaves.source", "leaves.vectors"),
}
"""The kinds of rows that pass, and what each is made of beside ``client`` and ``item``."""
_NAMES = {kind.__name__: kind for kind in FIELDS}


@dataclass(frozen=True)
class Room:
    """What an upload must fit into.

    Attributes:
        attack: its name. clients: m, those sampled. num_items: M. size: d. dense: the dense parameters, for their shapes.
        samples: how many any one client of this federation can have. device: where tensors live.
        pull: float32 [M, d], the gradient that this round's clients have in common, where they do.
        handed: dense gradients that the engine made and handed out in this round.
    """

    attack: str
    clients: int
    num_items: int
    size: int
    dense: Tensors
    samples: int
    device: torch.device
    pull: torch.Tensor | None = None
    handed: Sequence[DenseGradients] = ()


def block_of(arrays: Arrays, made: tuple[object, ...], room: Room) -> Rows:
    """One block of rows, of the kind that it says it is."""
    name, client, item, *parts = made
    kind = _NAMES.get(name) if type(name) is str else None
    if kind is None or len(parts) != len(FIELDS[kind]):
        arrays.refuse("of an unknown kind", "rows")
    client = arrays.array(client, "rows: client", torch.int64, (None,), room.clients * room.num_items)
    item = arrays.array(item, "rows: item", torch.int64, (len(client),))
    arrays.within(client, room.clients, "rows: client")
    arrays.within(item, room.num_items, "rows: item")
    block = _BUILD[kind](arrays, room, client, item, *parts)
    return block if _sums_as_its_rows(block) else FullRows(client, item, block.grad())


def _sums_as_its_rows(block: Rows) -> bool:
    """Whether what a block adds up to is, but for rounding, the sum of its rows, whose norms defenses look at.

    It is not where pieces much longer than the row that they make cancel out, or overflow in another order, and where a
    factor that no row needs is not finite. Such rows are written out.
    """
    if isinstance(block, FullRows):
        return True
    factors = [value for part in _parts(block) for value in vars(part).values() if isinstance(value, torch.Tensor)]
    if not all(bool((value.abs() <= LARGEST).all()) for value in factors if value.is_floating_point()):
        return False
    one_piece = isinstance(block, OuterRows | SharedRows)  # which cannot cancel out
    return one_piece or bool((_lengths(block) <= CANCELLATION * block.norms()).all())


def _parts(block: Rows) -> tuple[Rows, ...]:
    return (block.plain, block.leaves) if isinstance(block, StarRows) else (block,)


def _lengths(block: Rows) -> torch.Tensor:
    """float32 [R]: of every row, the sum of the lengths of the pieces that it is the sum of."""
    if isinstance(block, PiecedRows):
        own = block.coef.abs() * block.values.norm(dim=1)
        return own.new_zeros(len(block.item)).index_add_(0, block.place, own)
    if isinstance(block, ProjectedRows):
        return block.coef.abs() @ block.matrix.norm(dim=1)
    if isinstance(block, StarRows):
        return _lengths(block.plain).index_add_(0, block.place, block.leaves.norms())
    return block.norms()


def _full(arrays: Arrays, room: Room, client: torch.Tensor, item: torch.Tensor, values: object) -> FullRows:
    return FullRows(client, item, arrays.array(values, "rows: values", torch.float32, (len(item), room.size)))


def _pieced(
    arrays: Arrays, room: Room, client: torch.Tensor, item: torch.Tensor, place: object, coef: object, values: object
) -> PiecedRows:
    # A sample of a pair makes a piece for each of its two items.
    place = arrays.array(place, "rows: place", torch.int64, (None,), 2 * room.clients * room.samples)
    arrays.within(place, len(item), "rows: place")
    coef = arrays.array(coef, "rows: coef", torch.float32, (len(place),))
    values = arrays.array(values, "rows: values", torch.float32, (len(place), room.size))
    return PiecedRows(client, item, place, coef, values)


def _outer(
    arrays: Arrays, room: Room, client: torch.Tensor, item: torch.Tensor, coef: object, source: object, vectors: object
) -> OuterRows:
    coef = arrays.array(coef, "rows: coef", torch.float32, (len(item),))
    source = arrays.array(source, "rows: source", torch.int64, (len(item),))
    vectors = arrays.array(vectors, "rows: vectors", torch.float32, (None, room.size), max(room.clients, len(item)))
    arrays.within(source, len(vectors), "rows: source")
    return OuterRows(client, item, coef, source, vectors)


def _projected(
    arrays: Arrays, room: Room, client: torch.Tensor, item: torch.Tensor, coef: object, matrix: object
) -> ProjectedRows:
    widest = max((max(value.shape, default=1) for value in room.dense.values()), default=1)
    matrix = arrays.array(matrix, "rows: matrix", torch.float32, (None, room.size), widest)
    coef = arrays.array(coef, "rows: coef", torch.float32, (len(item), len(matrix)))
    return ProjectedRows(client, item, coef, matrix)


def _shared(
    arrays: Arrays, room: Room, client: torch.Tensor, item: torch.Tensor, coef: object, table: object
) -> SharedRows:
    coef = arrays.array(coef, "rows: coef", torch.float32, (len(item),))
    table = arrays.array(table, "rows: table", torch.float32, (room.num_items, room.size))
    return SharedRows(client, item, coef, table)


def _star(
    arrays: Arrays,
    room: Room,
    client: torch.Tensor,
    item: torch.Tensor,
    coef: object,
    matrix: object,
    place: object,
    *leaves: object,
) -> StarRows:
    place = arrays.array(place, "rows: place", torch.int64, (None,), len(item))
    arrays.within(place, len(item), "rows: place")
    plain = _projected(arrays, room, client, item, coef, matrix)
    return StarRows(
        client,
        item,
        plain,
        place,
        _outer(arrays, room, client.index_select(0, place), item.index_select(0, place), *leaves),
    )


_BUILD: dict[type[Rows], Callable[..., Rows]] = {
    FullRows: _full,
    PiecedRows: _pieced,
    OuterRows: _outer,
    ProjectedRows: _projected,
    SharedRows: _shared,
    StarRows: _star,
}
