"""The door through which everything comes that an attack made: arrays go in, the engine's own objects come out.

It has two halves. The attack's side (:func:`plain_upload`) reads arrays out of what an attack returned, and runs code of
the attack's where that is made of functions. The engine's side (:func:`upload`, :func:`profiles`, :func:`images`,
:func:`batch`) takes arrays alone, copies them, checks them, and builds objects of its own from the copies: it calls no
method of an object that an attack made, and nothing that the attack keeps leads to what was built. An attack in another
process sends its arrays through the same half.

Checks cost a few sums over what malicious clients upload, whatever the honest ones do.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import NoReturn

import torch

from fedbench.errors import ThreatModelViolation
from fedbench.federation.batch import Batch
from fedbench.federation.images import ItemImages, ReplacedImages
from fedbench.federation.rows import FullRows, OuterRows, PiecedRows, ProjectedRows, Rows, SharedRows, StarRows
from fedbench.federation.updates import Common, DenseGradients, Tensors, Updates
from fedbench.federation.view import Profiles

AGREEMENT = 1e-4
"""How far the sum of dense gradients may be from that of the clients' own, as a share of the largest of all these sums."""

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
class PlainUpload:
    """An upload as arrays.

    Attributes:
        clients: how many uploads there are.
        rows: of each block the name of its kind, ``client``, ``item``, and the arrays of :data:`FIELDS`.
        weights: numbers of samples.
        total, stacked: gradients of dense parameters, summed and client by client.
        handed: in their place, which of the dense gradients that the engine handed out in this round.
        common: ``gradient`` and ``share``.
    """

    clients: int
    rows: tuple[tuple[object, ...], ...]
    weights: object
    total: Mapping[str, object]
    stacked: Mapping[str, object]
    handed: int | None = None
    common: tuple[object, object] | None = None


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


# The attack's side.


def plain_upload(
    made: object, attack: str, handed: Sequence[DenseGradients] = (), also: frozenset[type[Rows]] = frozenset()
) -> PlainUpload:
    """The arrays of what ``craft`` returned.

    Args:
        made: what it returned. attack: its name.
        handed: dense gradients as the attack received them: those that come back untouched are not made once more.
        also: kinds of rows that the model brings along; they travel written out.

    Raises:
        ThreatModelViolation: it is no :class:`Updates` of blocks of known kinds.
    """
    refuse = functools.partial(_refuse, attack)
    if type(made) is not Updates or type(made.rows) is not tuple or type(made.dense) is not DenseGradients:
        refuse("it is no Updates of a tuple of rows and DenseGradients", "an upload")
    rows = []
    for block in made.rows:
        kind = type(block)
        if kind in FIELDS:
            parts = [operator.attrgetter(field)(block) for field in FIELDS[kind]]
            rows.append((kind.__name__, block.client, block.item, *parts))
        elif kind in also:
            rows.append((FullRows.__name__, block.client, block.item, block.grad()))
        else:
            refuse("rows of a class that the engine does not know; use FullRows(client, item, values)", "an upload")
    if made.common is not None and type(made.common) is not Common:
        refuse("common is no Common", "an upload")
    common = None if made.common is None else (made.common.gradient, made.common.share)
    clients = made.clients
    count = len(clients) if type(clients) is torch.Tensor and clients.dim() == 1 else -1
    number = next((k for k, dense in enumerate(handed) if dense is made.dense), None)
    total: dict[str, object] = {}
    stacked: dict[str, object] = {}
    if number is None:
        with _readable(attack):
            total, stacked = dict(made.dense.total()), dict(made.dense.stacked())
    return PlainUpload(count, tuple(rows), made.weights, total, stacked, number, common)


# The engine's side.


def upload(made: PlainUpload, room: Room) -> tuple[Updates, torch.Tensor]:
    """The engine's own upload of these arrays, in the order of the sampled clients.

    Kinds of rows and their order stay, and so does every bit of what is summed. Rules:

    * every array has the type and the shape that it must have, and lies where the engine computes;
    * rows are of sampled clients and existing items, and no (client, item) occurs twice, in one block or in several;
    * ``weights`` are numbers of samples: whole, not negative, and no more than a client of this federation can have, be it
      the most active user or one who has interacted with every item;
    * dense gradients have the names and shapes of the model's parameters, and their sum is the sum of the clients' own;
    * what is ``common`` is the gradient that this round's clients share.

    Returns:
        the upload, its ``clients`` 0 to m - 1, and bool [m]: whose is finite. One with NaN or an infinite number is not, nor
        one so long that squared distances to it are infinite in float32.

    Raises:
        ThreatModelViolation: a rule was broken.
    """
    with _readable(room.attack):
        arrays, m = _Arrays(room.attack, room.device), room.clients
        if made.clients != m:
            raise ThreatModelViolation(
                f"attack {room.attack!r} returned uploads of {max(made.clients, 0)} clients; {m} of its were sampled."
            )
        rows = tuple(_block(arrays, block, room) for block in made.rows)
        _check_distinct(arrays, [(block.client, block.item) for block in rows], m, room.num_items, "rows")
        weights = arrays.array(made.weights, "weights", torch.float32, (m,))
        right = (weights >= 0) & (weights <= room.samples) & (weights == weights.floor())
        if not bool(right.all()):
            arrays.refuse(
                f"{float(weights[~right][0]):g} among them; they must be whole, 0 to {room.samples}", "weights"
            )
        common = _common(arrays, made.common, room)
        index = torch.arange(m, device=room.device)
        if made.handed is not None:
            if not 0 <= made.handed < len(room.handed):
                arrays.refuse("a number that was not handed out", "dense")
            built = Updates(index, rows, room.handed[made.handed], weights, common)
            good = _finite(replace(built, dense=DenseGradients.of({})))
            if not all(bool(value.isfinite().all()) for value in built.dense.total().values()):
                good &= built.usable()
            return built, good
        dense, agreed = _dense(arrays, made, room)
        built = Updates(index, rows, dense, weights, common)
        good = _finite(built)
        if not agreed and bool(good.all()):
            arrays.refuse("a sum that is not that of the clients' own", "dense")
        return built, good


def profiles(made: object, attack: str, num_malicious: int, num_items: int, device: torch.device) -> Profiles:
    """The engine's own copy of interactions that an attack made up: distinct pairs of its clients and existing items."""
    with _readable(attack):
        arrays = _Arrays(attack, device)
        if type(made) is not Profiles:
            arrays.refuse("no Profiles", "profiles()")
        most = num_malicious * num_items
        client = arrays.array(made.client, "client", torch.int64, (None,), most)
        item = arrays.array(made.item, "item", torch.int64, (len(client),))
        arrays.within(client, num_malicious, "client")
        arrays.within(item, num_items, "item")
        _check_distinct(arrays, [(client, item)], num_malicious, num_items, "profiles")
        return Profiles(client, item)


def batch(made: object, own: Batch, attack: str, num_items: int) -> Batch:
    """The engine's own copy of training rows that an attack made for its clients out of ``own``, the rows that they have.

    Clients and their numbers of samples are those of ``own``; rows stand client by client, each of an existing item, with as
    many occurrences as its client has samples at most, and there are no more pairs.
    """
    with _readable(attack):
        arrays, n = _Arrays(attack, own.item.device), len(own.clients)
        if type(made) is not Batch:
            arrays.refuse("no Batch", "trained()")
        client = arrays.array(made.client, "batch.client", torch.int64, (None,), n * num_items)
        size = (len(client),)
        item = arrays.array(made.item, "batch.item", torch.int64, size)
        arrays.within(client, n, "batch.client")
        arrays.within(item, num_items, "batch.item")
        if bool((client.diff() < 0).any()):
            arrays.refuse("clients out of order", "batch.client")
        weight = arrays.array(made.weight, "batch.weight", torch.float32, size)
        positive = arrays.array(made.positive, "batch.positive", torch.float32, size)
        most = own.size.index_select(0, client)
        if not bool(((positive >= 0) & (positive <= weight) & (weight <= most)).all()):
            arrays.refuse("occurrences that no client can have", "batch.weight or batch.positive")
        pairs = 0 if own.pair_positive is None else len(own.pair_positive)
        places = []
        for name in ("pair_positive", "pair_negative", "sequence"):
            place = getattr(made, name)
            if place is not None:
                place = arrays.array(place, f"batch.{name}", torch.int64, (None,), pairs)
                arrays.within(place, len(client), f"batch.{name}")
            places.append(place)
        if len({None if place is None else len(place) for place in places[:2]}) > 1:
            arrays.refuse("more of one than of the other", "batch.pair_positive and batch.pair_negative")
        starts = torch.searchsorted(client, torch.arange(n + 1, device=client.device))
        return Batch(own.clients.clone(), starts, client, item, weight, positive, own.size.clone(), *places)


def images(made: object, original: ItemImages, targets: torch.Tensor, eps: float, attack: str) -> ReplacedImages:
    """The engine's own copy of images that an attack shows: 8-bit ones, of the right size, of targets that have one, each
    once, and within ``eps`` of the original.
    """
    pixels = original.pixels
    with _readable(attack):
        if type(made) is not ReplacedImages:
            _refuse(attack, "no ReplacedImages", "perturb()")
        items = _Arrays(attack, targets.device).array(made.items, "items", torch.int64, (None,), len(pixels))
        arrays = _Arrays(attack, pixels.device)
        shown = made.pixels
        size = (len(items), *pixels.shape[1:])
        if type(shown) is torch.Tensor and (shown.dtype != torch.uint8 or tuple(shown.shape) != size):
            raise ThreatModelViolation(
                f"attack {attack!r} returned images of {shown.dtype} {tuple(shown.shape)}; they must be torch.uint8 {size}."
            )
        shown = arrays.array(shown, "pixels", torch.uint8, size)
        if len(torch.unique(items)) < len(items):
            raise ThreatModelViolation(f"attack {attack!r} returned two images of one item.")
        if not bool(torch.isin(items, targets).all()):
            raise ThreatModelViolation(f"attack {attack!r} replaced images of items that are no targets.")
        there = items.to(pixels.device)
        if original.there is not None and not bool(original.there[there].all()):
            raise ThreatModelViolation(f"attack {attack!r} replaced the image of an item that has none.")
        change = (shown.short() - pixels[there].short()).abs()
        if len(items) and int(change.max()) > eps:
            raise ThreatModelViolation(
                f"attack {attack!r} changed a pixel by {int(change.max())}, more than its eps = {eps:g}."
            )
        return ReplacedImages(items, shown)


def _finite(updates: Updates) -> torch.Tensor:
    """Bool [n]: whose whole upload is so, squared distances to it as well: see :meth:`Updates.usable`."""
    return (8 * updates.square_norms()).isfinite()


class _Arrays:
    """Reads the arrays of one attack: what passes is a copy of the right type and shape."""

    def __init__(self, attack: str, device: torch.device) -> None:
        self.attack, self._device = attack, device

    def array(
        self, value: object, name: str, dtype: torch.dtype, shape: tuple[int | None, ...], most: int | None = None
    ) -> torch.Tensor:
        """A copy of ``value``; None in ``shape``: any length, ``most`` at most."""
        if type(value) is not torch.Tensor or value.layout != torch.strided:
            self.refuse("no plain torch.Tensor", name)
        found = tuple(value.shape)
        fits = len(found) == len(shape) and all(
            there == wanted if wanted is not None else most is None or there <= most
            for there, wanted in zip(found, shape, strict=True)
        )
        if value.dtype != dtype or not fits or value.device.type != self._device.type:
            lengths = ", ".join(
                "any" if n is None and most is None else f"up to {most}" if n is None else str(n) for n in shape
            )
            self.refuse(
                f"{value.dtype} {list(found)} on {value.device.type}; it must be {dtype} [{lengths}] on"
                f" {self._device.type}",
                name,
            )
        # Through the class: a tensor may hold attributes of these names.
        return torch.Tensor.clone(torch.Tensor.detach(value))

    def within(self, index: torch.Tensor, size: int, name: str) -> None:
        """Refuses an index below 0, or of ``size`` and more."""
        if len(index):
            low, high = map(int, torch.aminmax(index))
            if low < 0 or high >= size:
                self.refuse(f"{low} to {high}; it must be within 0 to {size - 1}", name)

    def refuse(self, what: str, name: str) -> NoReturn:
        _refuse(self.attack, what, name)


def _refuse(attack: str, what: str, name: str) -> NoReturn:
    raise ThreatModelViolation(f"attack {attack!r} returned {name} that the server refuses: {what}.")


@contextmanager
def _readable(attack: str) -> Iterator[None]:
    """Whatever goes wrong while arrays are read is the attack's fault."""
    try:
        yield
    except (RuntimeError, ValueError, TypeError, IndexError, AttributeError, OverflowError, MemoryError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ThreatModelViolation(f"attack {attack!r} returned what cannot be read: {reason}") from None


def _block(arrays: _Arrays, made: tuple[object, ...], room: Room) -> Rows:
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
    return bool((_lengths(block) <= CANCELLATION * block.norms()).all())


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


def _full(arrays: _Arrays, room: Room, client: torch.Tensor, item: torch.Tensor, values: object) -> FullRows:
    return FullRows(client, item, arrays.array(values, "rows: values", torch.float32, (len(item), room.size)))


def _pieced(
    arrays: _Arrays, room: Room, client: torch.Tensor, item: torch.Tensor, place: object, coef: object, values: object
) -> PiecedRows:
    # A sample of a pair makes a piece for each of its two items.
    place = arrays.array(place, "rows: place", torch.int64, (None,), 2 * room.clients * room.samples)
    arrays.within(place, len(item), "rows: place")
    coef = arrays.array(coef, "rows: coef", torch.float32, (len(place),))
    values = arrays.array(values, "rows: values", torch.float32, (len(place), room.size))
    return PiecedRows(client, item, place, coef, values)


def _outer(
    arrays: _Arrays, room: Room, client: torch.Tensor, item: torch.Tensor, coef: object, source: object, vectors: object
) -> OuterRows:
    coef = arrays.array(coef, "rows: coef", torch.float32, (len(item),))
    source = arrays.array(source, "rows: source", torch.int64, (len(item),))
    vectors = arrays.array(vectors, "rows: vectors", torch.float32, (None, room.size), max(room.clients, len(item)))
    arrays.within(source, len(vectors), "rows: source")
    return OuterRows(client, item, coef, source, vectors)


def _projected(
    arrays: _Arrays, room: Room, client: torch.Tensor, item: torch.Tensor, coef: object, matrix: object
) -> ProjectedRows:
    widest = max((max(value.shape, default=1) for value in room.dense.values()), default=1)
    matrix = arrays.array(matrix, "rows: matrix", torch.float32, (None, room.size), widest)
    coef = arrays.array(coef, "rows: coef", torch.float32, (len(item), len(matrix)))
    return ProjectedRows(client, item, coef, matrix)


def _shared(
    arrays: _Arrays, room: Room, client: torch.Tensor, item: torch.Tensor, coef: object, table: object
) -> SharedRows:
    coef = arrays.array(coef, "rows: coef", torch.float32, (len(item),))
    table = arrays.array(table, "rows: table", torch.float32, (room.num_items, room.size))
    return SharedRows(client, item, coef, table)


def _star(
    arrays: _Arrays,
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


def _check_distinct(
    arrays: _Arrays, pairs: list[tuple[torch.Tensor, torch.Tensor]], num_clients: int, num_items: int, name: str
) -> None:
    """Refuses a (client, item) that occurs twice."""
    keys = [client * num_items + item for client, item in pairs]
    count, places = sum(map(len, keys)), num_clients * num_items
    if count <= 1:
        return
    if places <= 64 * count:  # a byte for each pair that could be is faster than sorting those that are
        seen = torch.zeros(places, dtype=torch.bool, device=keys[0].device)
        for key in keys:
            seen[key] = True
        distinct = int(seen.sum())
    else:
        distinct = len(torch.unique(torch.cat(keys)))
    if distinct < count:
        arrays.refuse(f"{count - distinct} with a (client, item) that is there already", name)


def _common(arrays: _Arrays, made: tuple[object, object] | None, room: Room) -> Common | None:
    """What comes to all rows: the round's own gradient and nothing else, for it is not compared with anything."""
    if made is None:
        return None
    gradient = arrays.array(made[0], "common.gradient", torch.float32, (room.num_items, room.size))
    share = arrays.array(made[1], "common.share", torch.float32, (room.clients,))
    if room.pull is None or not torch.equal(gradient, room.pull):
        arrays.refuse("not the gradient that the clients of this round have in common", "common.gradient")
    return Common(room.pull, share)


def _dense(arrays: _Arrays, made: PlainUpload, room: Room) -> tuple[DenseGradients, bool]:
    """The gradients of the dense parameters, and whether their sum is that of the clients' own."""
    for found in (made.total, made.stacked):
        if type(found) is not dict or len(found) != len(room.dense) or any(name not in found for name in room.dense):
            arrays.refuse(f"other names than {', '.join(room.dense) or 'none'}", "dense")
    total, stacked, off, scale = {}, {}, 0.0, 0.0
    for name, like in room.dense.items():
        total[name] = arrays.array(made.total[name], f"dense[{name!r}]", like.dtype, tuple(like.shape))
        stacked[name] = arrays.array(made.stacked[name], f"dense[{name!r}]", like.dtype, (room.clients, *like.shape))
        if like.numel() and room.clients:
            off = max(off, float((total[name] - stacked[name].sum(0)).abs().max()))
            scale = max(scale, float(stacked[name].abs().sum(0).max()))
    # Of all parameters together: the gradient of one that changes nothing, such as the bias of keys, is rounding alone.
    return DenseGradients(lambda: total, lambda: stacked), off <= AGREEMENT * scale
