"""The door through which everything comes that a defense made in a process of its own: what can be told of it is checked.

A defense may make of the uploads what it likes, so its numbers are its own. But every array has the type and the shape that
it must have, rows are of clients and items that there are, and a filter leaves none but those who were there. Arrays that
come back as they were sent are the engine's own.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from fedbench.federation.arrays import Arrays, readable
from fedbench.federation.batch import Batch
from fedbench.federation.blocks import FIELDS, PARTS, Room, built
from fedbench.federation.defense import ClientRegularization
from fedbench.federation.model import LocalStep, PublicParams
from fedbench.federation.rows import FullRows, Rows
from fedbench.federation.updates import Common, DenseGradients, Tensors, Updates

_MOST_SAMPLES = 1 << 20
"""Of a client, for the room that pieces of rows may take."""


def array(made: object, name: str, dtype: torch.dtype, like: torch.Tensor, source: str) -> torch.Tensor:
    """An array of the length of ``like``: for images of its shape, else of one dimension."""
    with readable(source):
        return Arrays(source, like.device, copies=False).array(made, name, dtype, tuple(like.shape))


def aggregate(made: object, params: PublicParams, source: str) -> PublicParams:
    """A gradient for the public parameters."""
    with readable(source):
        arrays = Arrays(source, params.items.device, copies=False)
        if type(made) is not PublicParams:
            arrays.refuse("no PublicParams", "aggregate()")
        items = arrays.array(made.items, "aggregate(): items", torch.float32, tuple(params.items.shape))
        return PublicParams(items, _tensors(arrays, made.dense, params.dense, "aggregate(): dense"))


def regularization(
    made: object, batch: Batch, users: torch.Tensor, params: PublicParams, source: str
) -> ClientRegularization:
    """What clients add to their gradients."""
    with readable(source):
        arrays = Arrays(source, params.items.device, copies=False)
        if type(made) is not ClientRegularization:
            arrays.refuse("no ClientRegularization", "regularize()")
        rows, own, extra = made.rows, made.users, made.extra
        if rows is not None:
            size = (len(batch.item), params.items.shape[1])
            rows = arrays.array(rows, "regularize(): rows", torch.float32, size)
        if own is not None:
            own = arrays.array(own, "regularize(): users", torch.float32, tuple(users.shape))
        if extra is not None:
            found = _rows(arrays, (extra,), _room(batch.clients, params, source))[0]
            extra = FullRows(found.client, found.item, found.grad())
        return ClientRegularization(rows, own, extra)


def local_step(made: object, before: LocalStep, batch: Batch, params: PublicParams, source: str) -> LocalStep:
    """What honest clients send and apply to themselves."""
    with readable(source):
        arrays = Arrays(source, params.items.device, copies=False)
        if type(made) is not LocalStep:
            arrays.refuse("no LocalStep", "client_update()")
        rows = _rows(arrays, made.rows, _room(batch.clients, params, source))
        dense = _dense(arrays, made.dense, before.dense, len(batch.clients), len(batch.clients), params)
        users = arrays.array(made.users, "client_update(): users", torch.float32, tuple(before.users.shape))
        return LocalStep(rows, dense, users)


def filtered(made: object, received: Updates, params: PublicParams, source: str) -> Updates:
    """What a filter has left of the uploads that were received."""
    with readable(source):
        arrays = Arrays(source, params.items.device, copies=False)
        if type(made) is not Updates:
            arrays.refuse("no Updates", "filter()")
        clients = arrays.array(made.clients, "filter(): clients", torch.int64, (None,), len(received.clients))
        n = len(clients)
        if n > len(set(clients.tolist()) & set(received.clients.tolist())):
            arrays.refuse("some twice, or that were not there", "filter(): clients")
        common, rejected = made.common, made.rejected
        if common is not None:
            gradient = arrays.array(common.gradient, "filter(): common", torch.float32, tuple(params.items.shape))
            common = Common(gradient, arrays.array(common.share, "filter(): share", torch.float32, (n,)))
        if rejected is not None:
            rejected = arrays.array(rejected, "filter(): rejected", torch.bool, (n,))
        return Updates(
            clients,
            _rows(arrays, made.rows, _room(clients, params, source, sum(len(block.item) for block in received.rows))),
            _dense(arrays, made.dense, received.dense, n, len(received.clients), params),
            arrays.array(made.weights, "filter(): weights", torch.float32, (n,)),
            common,
            rejected,
            received.mixed,
        )


def _room(clients: torch.Tensor, params: PublicParams, source: str, before: int = 0) -> Room:
    count, size = params.items.shape
    return Room(source, clients, count, size, params.dense, _MOST_SAMPLES, params.items.device, before=before)


def _rows(arrays: Arrays, made: Sequence[Rows], room: Room) -> tuple[Rows, ...]:
    for block in made:
        if type(block) not in FIELDS:
            arrays.refuse("of a class that the engine does not know", "rows")
    return tuple(built(arrays, (type(block).__name__, *PARTS[type(block)](block)), room) for block in made)


def _dense(
    arrays: Arrays, made: DenseGradients, before: DenseGradients, n: int, received: int, params: PublicParams
) -> DenseGradients:
    """Gradients of ``n`` clients: those of the ``received`` ones as they were, or others."""
    if made is before and n == received:
        return before
    total = _tensors(arrays, made.total(), params.dense, "dense")
    stacked = _tensors(arrays, made.stacked(), params.dense, "dense", (n,))
    return DenseGradients(lambda: total, lambda: stacked)


def _tensors(arrays: Arrays, made: Tensors, like: Tensors, name: str, first: tuple[int, ...] = ()) -> Tensors:
    """Tensors of the names and the types of ``like``, with ``first`` before their shapes."""
    if set(made) != set(like):
        arrays.refuse(f"other names than {', '.join(like) or 'none'}", name)
    return {
        each: arrays.array(made[each], f"{name}[{each!r}]", value.dtype, (*first, *value.shape))
        for each, value in like.items()
    }
