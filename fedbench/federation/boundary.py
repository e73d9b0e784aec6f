"""The door through which everything comes that an attack made: arrays go in, the engine's own objects come out.

It has two halves. The attack's side (:func:`plain_upload`) reads arrays out of what an attack returned, and runs code of
the attack's where that is made of functions. The engine's side (:func:`upload`, :func:`profiles`, :func:`images`,
:func:`batch`) takes arrays alone, copies them, checks them, and builds objects of its own from the copies: it calls no
method of an object that an attack made, and nothing that the attack keeps leads to what was built. An attack in another
process sends its arrays through the same half.

Checks cost a few sums over what malicious clients upload, whatever the honest ones do.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from fedbench.errors import ThreatModelViolation
from fedbench.federation.arrays import Arrays, check_distinct, largest, readable, refuse, same
from fedbench.federation.batch import Batch
from fedbench.federation.blocks import FIELDS, PARTS, Room, block_of
from fedbench.federation.images import ItemImages, ReplacedImages
from fedbench.federation.rows import FullRows, Rows
from fedbench.federation.updates import Common, DenseGradients, Tensors, Updates
from fedbench.federation.view import Profiles

AGREEMENT, ROUNDING = 1e-4, 1e-5
"""How far the sum of a dense gradient may be from that of the clients' own: as a share of its largest absolute sum, and of
that of all parameters (rounding, up to 2e-7 of it where the gradient itself is 0)."""
SMALL = 1e3
"""Up to this size of factors nothing overflows: a row is a sum of up to 1e8 products of two, an upload 1e9 numbers."""


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


# The attack's side.


def plain_upload(
    made: object, source: str, handed: Sequence[DenseGradients] = (), also: frozenset[type[Rows]] = frozenset()
) -> PlainUpload:
    """The arrays of what ``craft`` returned.

    Args:
        made: what it returned. source: whose it is, as messages say it.
        handed: dense gradients as the attack received them: those that come back untouched are not made once more.
        also: kinds of rows that the model brings along; they travel written out.

    Raises:
        ThreatModelViolation: it is no :class:`Updates` of blocks of known kinds.
    """
    if type(made) is not Updates or type(made.rows) is not tuple or type(made.dense) is not DenseGradients:
        refuse(source, "it is no Updates of a tuple of rows and DenseGradients", "an upload")
    rows = []
    for block in made.rows:
        kind = type(block)
        if kind in FIELDS:
            rows.append((kind.__name__, *PARTS[kind](block)))
        elif kind in also:
            rows.append((FullRows.__name__, block.client, block.item, block.grad()))
        else:
            refuse(
                source, "rows of a class that the engine does not know; use FullRows(client, item, values)", "an upload"
            )
    if made.common is not None and type(made.common) is not Common:
        refuse(source, "common is no Common", "an upload")
    common = None if made.common is None else (made.common.gradient, made.common.share)
    clients = made.clients
    count = len(clients) if type(clients) is torch.Tensor and clients.dim() == 1 else -1
    number = next((k for k, dense in enumerate(handed) if dense is made.dense), None)
    total: dict[str, object] = {}
    stacked: dict[str, object] = {}
    if number is None:
        with readable(source):
            total, stacked = dict(made.dense.total()), dict(made.dense.stacked())
    return PlainUpload(count, tuple(rows), made.weights, total, stacked, number, common)


# The engine's side.


def upload(made: PlainUpload, room: Room) -> tuple[Updates, torch.Tensor | None]:
    """The engine's own upload of these arrays, in the order of the sampled clients.

    Kinds of rows and their order stay, and so does every bit of what is summed, except where pieces much longer than their
    row cancel out: such a block is written out. Rules:

    * every array has the type and the shape that it must have, and lies where the engine computes;
    * rows are of sampled clients and existing items, and no (client, item) occurs twice, in one block or in several;
    * ``weights`` are numbers of samples: whole, not negative, and no more than a client of this federation can have, be it
      the most active user or one who has interacted with every item;
    * dense gradients have the names and shapes of the model's parameters, and their sum is the sum of the clients' own;
    * what is ``common`` is the gradient that this round's clients share.

    Returns:
        the upload, and bool [m], whose is finite; None: everybody's. One with NaN or an infinite
        number is not, nor one so long that squared distances to it are infinite in float32.

    Raises:
        ThreatModelViolation: a rule was broken.
    """
    with readable(room.source):
        arrays, m = Arrays(room.source, room.device), room.clients
        if made.clients != m:
            raise ThreatModelViolation(
                f"{room.source} returned uploads of {max(made.clients, 0)} clients; {m} of its were sampled."
            )
        found = [block_of(arrays, block, room) for block in made.rows]
        rows, size = tuple(block for block, _ in found), sum(size for _, size in found)
        pairs = [(block.client, block.item) for block in rows]
        if (
            room.own is None
            or len(pairs) != 1
            or pairs[0][0] is not room.own.client
            or pairs[0][1] is not room.own.item
        ):
            check_distinct(arrays, pairs, m, room.num_items, "rows")
        weights = arrays.array(made.weights, "weights", torch.float32, (m,))
        for weight in weights.tolist():
            if not 0 <= weight <= room.samples or weight != int(weight):
                arrays.refuse(f"{weight:g} among them; they must be whole, 0 to {room.samples}", "weights")
        common = _common(arrays, made.common, room)
        if common is not None:
            size += largest(common.gradient) + largest(common.share)
        if made.handed is not None:
            if not 0 <= made.handed < len(room.handed):
                arrays.refuse("a number that was not handed out", "dense")
            dense, count = room.handed[made.handed].dense, len(room.handed[made.handed].clients)
            if count != m:
                arrays.refuse(f"gradients of {count} clients; {m} of its were sampled", "dense")
            total = dense.total()  # made once: the server asks for it again
            dense = DenseGradients(lambda: total, dense.stacked, dense.weighted)
            built = Updates(room.ids, rows, dense, weights, common)
            good = _finite(replace(built, dense=DenseGradients.of({})), size)
            if not all(math.isfinite(largest(value)) for value in total.values()):
                usable = built.usable()
                good = usable if good is None else good & usable
            return built, good
        dense, agreed, largest_own = _dense(arrays, made, room)
        built = Updates(room.ids, rows, dense, weights, common)
        good = _finite(built, size + largest_own)
        if not agreed and (good is None or bool(good.all())):
            arrays.refuse("a sum that is not that of the clients' own", "dense")
        return built, good


def profiles(made: object, source: str, num_malicious: int, num_items: int, device: torch.device) -> Profiles:
    """The engine's own copy of interactions that an attack made up: distinct pairs of its clients and existing items."""
    with readable(source):
        arrays = Arrays(source, device)
        if type(made) is not Profiles:
            arrays.refuse("no Profiles", "profiles()")
        most = num_malicious * num_items
        client = arrays.array(made.client, "client", torch.int64, (None,), most)
        item = arrays.array(made.item, "item", torch.int64, (len(client),))
        arrays.within(client, num_malicious, "client")
        arrays.within(item, num_items, "item")
        check_distinct(arrays, [(client, item)], num_malicious, num_items, "profiles")
        return Profiles(client, item)


def batch(made: object, own: Batch, source: str, num_items: int) -> Batch:
    """The engine's own copy of training rows that an attack made for its clients out of ``own``, the rows that they have.

    Clients and their numbers of samples are those of ``own``; rows stand client by client, each of an existing item, with as
    many occurrences as its client has samples at most, and there are no more pairs.
    """
    with readable(source):
        arrays, n = Arrays(source, own.item.device), len(own.clients)
        if type(made) is not Batch:
            arrays.refuse("no Batch", "trained()")
        client, starts, item, weight = own.client, own.starts, own.item, own.weight
        if not same(made.client, client):
            client = arrays.array(made.client, "batch.client", torch.int64, (None,), n * num_items)
            arrays.within(client, n, "batch.client")
            if len(client) > 1 and int(client.diff().min()) < 0:
                arrays.refuse("clients out of order", "batch.client")
            starts = torch.searchsorted(client, torch.arange(n + 1, device=client.device))
        size = (len(client),)
        if not same(made.item, item):
            item = arrays.array(made.item, "batch.item", torch.int64, size)
            arrays.within(item, num_items, "batch.item")
        if not same(made.weight, weight):
            weight = arrays.array(made.weight, "batch.weight", torch.float32, size)
        positive = arrays.array(made.positive, "batch.positive", torch.float32, size)
        room = [positive, weight - positive]
        if weight is not own.weight or client is not own.client:
            room.append(own.size.index_select(0, client) - weight)
        for each in room:
            if len(client) and not float(each.min()) >= 0:
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
        return Batch(own.clients, starts, client, item, weight, positive, own.size, *places)


def images(made: object, original: ItemImages, targets: torch.Tensor, eps: float, source: str) -> ReplacedImages:
    """The engine's own copy of images that an attack shows: 8-bit ones, of the right size, of targets that have one, each
    once, and within ``eps`` of the original.
    """
    pixels = original.pixels
    with readable(source):
        if type(made) is not ReplacedImages:
            refuse(source, "no ReplacedImages", "perturb()")
        items = Arrays(source, targets.device).array(made.items, "items", torch.int64, (None,), len(pixels))
        arrays = Arrays(source, pixels.device)
        shown = made.pixels
        size = (len(items), *pixels.shape[1:])
        if type(shown) is torch.Tensor and (shown.dtype != torch.uint8 or tuple(shown.shape) != size):
            raise ThreatModelViolation(
                f"{source} returned images of {shown.dtype} {tuple(shown.shape)}; they must be torch.uint8 {size}."
            )
        shown = arrays.array(shown, "pixels", torch.uint8, size)
        if len(torch.unique(items)) < len(items):
            raise ThreatModelViolation(f"{source} returned two images of one item.")
        if not bool(torch.isin(items, targets).all()):
            raise ThreatModelViolation(f"{source} replaced images of items that are no targets.")
        there = items.to(pixels.device)
        if original.there is not None and not bool(original.there[there].all()):
            raise ThreatModelViolation(f"{source} replaced the image of an item that has none.")
        change = (shown.short() - pixels[there].short()).abs()
        if len(items) and int(change.max()) > eps:
            raise ThreatModelViolation(f"{source} changed a pixel by {int(change.max())}, more than its eps = {eps:g}.")
        return ReplacedImages(items, shown)


def _finite(updates: Updates, size: float) -> torch.Tensor | None:
    """Bool [n]: whose whole upload is so, squared distances to it as well: see :meth:`Updates.usable`; None: everybody's.

    ``size``: at least the largest absolute value of all factors.
    """
    return None if size <= SMALL else (8 * updates.square_norms()).isfinite()


def _common(arrays: Arrays, made: tuple[object, object] | None, room: Room) -> Common | None:
    """What comes to all rows: the round's own gradient and nothing else, for it is not compared with anything."""
    if made is None:
        return None
    gradient = arrays.array(made[0], "common.gradient", torch.float32, (room.num_items, room.size))
    share = arrays.array(made[1], "common.share", torch.float32, (room.clients,))
    if room.pull is None or not torch.equal(gradient, room.pull):
        arrays.refuse("not the gradient that the clients of this round have in common", "common.gradient")
    return Common(room.pull, share)


def _dense(arrays: Arrays, made: PlainUpload, room: Room) -> tuple[DenseGradients, bool, float]:
    """The gradients of the dense parameters, whether their sum is that of the clients' own, and the largest of these."""
    for found in (made.total, made.stacked):
        if type(found) is not dict or len(found) != len(room.dense) or any(name not in found for name in room.dense):
            arrays.refuse(f"other names than {', '.join(room.dense) or 'none'}", "dense")
    total, stacked = {}, {}
    for name, like in room.dense.items():
        total[name] = arrays.array(made.total[name], f"dense[{name!r}]", like.dtype, tuple(like.shape))
        stacked[name] = arrays.array(made.stacked[name], f"dense[{name!r}]", like.dtype, (room.clients, *like.shape))
    dense, there = DenseGradients(lambda: total, lambda: stacked), [name for name in total if stacked[name].numel()]
    if not there:
        return dense, True, 0.0
    own = torch.cat([stacked[name].flatten(1) for name in there], dim=1)
    off = largest(torch.cat([total[name].flatten() for name in there]) - own.sum(0))
    agreed = off <= ROUNDING * largest(own.abs().sum(0)) or _agree(total, stacked, there)
    return dense, agreed, largest(own)


def _agree(total: Tensors, stacked: Tensors, there: Sequence[str]) -> bool:
    """Whether sums are those of the clients' own gradients, but for rounding; never where one is not finite."""
    off = torch.stack([(total[name] - stacked[name].sum(0)).abs().max() for name in there])
    scale = torch.stack([stacked[name].abs().sum(0).max() for name in there])
    # The gradient of a parameter that changes nothing, such as the bias of an attention's keys, is rounding alone.
    return bool((off <= AGREEMENT * scale + ROUNDING * scale.max()).all())
