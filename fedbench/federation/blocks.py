"""Blocks of rows out of arrays: every kind of :class:`~fedbench.federation.rows.Rows` that an upload may have, built anew."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from fedbench.federation.arrays import Arrays, largest, same
from fedbench.federation.batch import Batch
from fedbench.federation.rows import FullRows, OuterRows, PiecedRows, ProjectedRows, Rows, SharedRows, StarRows
from fedbench.federation.updates import Tensors, Updates

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
PARTS = {kind: operator.attrgetter("client", "item", *fields) for kind, fields in FIELDS.items()}
"""The arrays of a block."""
_NAMES = {kind.__name__: kind for kind in FIELDS}


@dataclass(frozen=True)
class Room:
    """What an upload must fit into.

    Attributes:
        source: whose it is, as messages say it. ids: int64 [m], of the clients that were sampled. num_items: M. size: d.
        dense: the dense parameters, for their shapes.
        samples: how many any one client of this federation can have. device: where tensors live.
        pull: float32 [M, d], the gradient that this round's clients have in common, where they do.
        handed: uploads that the engine made and handed out in this round. own: the clients' training rows, as the engine has
            them; None: they have none, or nobody has asked.
        before: rows of which some may have been left out, with their vectors still there.
    """

    source: str
    ids: torch.Tensor
    num_items: int
    size: int
    dense: Tensors
    samples: int
    device: torch.device
    pull: torch.Tensor | None = None
    handed: Sequence[Updates] = ()
    own: Batch | None = None
    before: int = 0

    @property
    def clients(self) -> int:
        """m, how many were sampled."""
        return len(self.ids)


def block_of(arrays: Arrays, made: tuple[object, ...], room: Room) -> tuple[Rows, float]:
    """One block of rows, of the kind that it says it is, and the sum of the largest absolute values of its factors."""
    handed = (each for each in room.handed if len(each.clients) == room.clients)
    own = next((block for each in handed for block in each.rows if _is(made, block)), None)
    if own is not None:
        return own, sum(_sizes(own))
    block = built(arrays, made, room)
    sizes = _sizes(block)
    if not _sums_as_its_rows(block, sizes):
        block = FullRows(block.client, block.item, block.grad())
        sizes = [largest(block.values)]
    return block, sum(sizes)


def built(arrays: Arrays, made: tuple[object, ...], room: Room) -> Rows:
    """One block of rows of sampled clients and existing items, whatever its numbers are."""
    name, client, item, *parts = made
    kind = _NAMES.get(name) if type(name) is str else None
    if kind is None or len(parts) != len(FIELDS[kind]):
        arrays.refuse("of an unknown kind", "rows")
    client = arrays.array(client, "rows: client", torch.int64, (None,), room.clients * room.num_items)
    item = arrays.array(item, "rows: item", torch.int64, (len(client),))
    arrays.within(client, room.clients, "rows: client")
    arrays.within(item, room.num_items, "rows: item")
    return _BUILD[kind](arrays, room, client, item, *parts)


def _is(made: tuple[object, ...], own: Rows) -> bool:
    """Whether arrays are those of a block that the engine has made itself, of training rows that it has checked."""
    if type(own) not in FIELDS or made[0] != type(own).__name__ or len(made) != 3 + len(FIELDS[type(own)]):
        return False
    return all(map(same, made[1:], PARTS[type(own)](own)))


def _sizes(block: Rows) -> list[float]:
    """The largest absolute values of the factors."""
    values = (value for part in _parts(block) for value in vars(part).values())
    return [largest(value) for value in values if isinstance(value, torch.Tensor) and value.is_floating_point()]


def _sums_as_its_rows(block: Rows, sizes: Sequence[float]) -> bool:
    """Whether what a block adds up to is, but for rounding, the sum of its rows, whose norms defenses look at.

    It is not where pieces much longer than the row that they make cancel out, or overflow in another order, and where a
    factor that no row needs is not finite. Such rows are written out.

    Args:
        sizes: the largest absolute values of its factors.
    """
    if type(block) is FullRows:
        return True
    if not all(size <= LARGEST for size in sizes):
        return False
    if type(block) in (OuterRows, SharedRows) or not len(block.item):  # one piece cannot cancel out
        return True
    return float((CANCELLATION * block.norms()).sub_(_lengths(block)).min()) >= 0


def _parts(block: Rows) -> tuple[Rows, ...]:
    return (block.plain, block.leaves) if type(block) is StarRows else (block,)


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
    most = max(room.clients, len(item), room.before)
    vectors = arrays.array(vectors, "rows: vectors", torch.float32, (None, room.size), most)
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
