"""The door through which everything comes that an attack made: arrays go in, the engine's own objects come out.

It has two halves. The attack's side (:func:`plain_upload`) reads arrays out of what an attack returned, and runs code of
the attack's where that is made of functions. The engine's side (:func:`upload`, :func:`profiles`, :func:`images`,
:func:`batch`) takes arrays alone, copies them, checks them, and builds objects of its own from the copies: it calls no
method of an object that an attack made, and nothing that the attack keeps leads to what was built. An attack in another
process sends its arrays through the same half.

Checks cost a few sums over what malicious clients upload, whatever the honest ones do.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from fedbench.errors import ThreatModelViolation
from fedbench.federation.arrays import Arrays, check_distinct, readable, refuse
from fedbench.federation.batch import Batch
from fedbench.federation.blocks import FIELDS, Room, block_of
from fedbench.federation.images import ItemImages, ReplacedImages
from fedbench.federation.rows import FullRows, Rows
from fedbench.federation.updates import Common, DenseGradients, Tensors, Updates
from fedbench.federation.view import Profiles

AGREEMENT, ROUNDING = 1e-4, 1e-5
"""How far the sum of a dense gradient may be from that of the clients' own: as a share of its largest absolute sum, and of
that of all parameters (rounding, up to 2e-7 of it where the gradient itself is 0)."""


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
    if type(made) is not Updates or type(made.rows) is not tuple or type(made.dense) is not DenseGradients:
        refuse(attack, "it is no Updates of a tuple of rows and DenseGradients", "an upload")
    rows = []
    for block in made.rows:
        kind = type(block)
        if kind in FIELDS:
            parts = [operator.attrgetter(field)(block) for field in FIELDS[kind]]
            rows.append((kind.__name__, block.client, block.item, *parts))
        elif kind in also:
            rows.append((FullRows.__name__, block.client, block.item, block.grad()))
        else:
            refuse(
                attack, "rows of a class that the engine does not know; use FullRows(client, item, values)", "an upload"
            )
    if made.common is not None and type(made.common) is not Common:
        refuse(attack, "common is no Common", "an upload")
    common = None if made.common is None else (made.common.gradient, made.common.share)
    clients = made.clients
    count = len(clients) if type(clients) is torch.Tensor and clients.dim() == 1 else -1
    number = next((k for k, dense in enumerate(handed) if dense is made.dense), None)
    total: dict[str, object] = {}
    stacked: dict[str, object] = {}
    if number is None:
        with readable(attack):
            total, stacked = dict(made.dense.total()), dict(made.dense.stacked())
    return PlainUpload(count, tuple(rows), made.weights, total, stacked, number, common)


# The engine's side.


def upload(made: PlainUpload, room: Room) -> tuple[Updates, torch.Tensor]:
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
        the upload, its ``clients`` 0 to m - 1, and bool [m]: whose is finite. One with NaN or an infinite number is not, nor
        one so long that squared distances to it are infinite in float32.

    Raises:
        ThreatModelViolation: a rule was broken.
    """
    with readable(room.attack):
        arrays, m = Arrays(room.attack, room.device), room.clients
        if made.clients != m:
            raise ThreatModelViolation(
                f"attack {room.attack!r} returned uploads of {max(made.clients, 0)} clients; {m} of its were sampled."
            )
        rows = tuple(block_of(arrays, block, room) for block in made.rows)
        check_distinct(arrays, [(block.client, block.item) for block in rows], m, room.num_items, "rows")
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
    with readable(attack):
        arrays = Arrays(attack, device)
        if type(made) is not Profiles:
            arrays.refuse("no Profiles", "profiles()")
        most = num_malicious * num_items
        client = arrays.array(made.client, "client", torch.int64, (None,), most)
        item = arrays.array(made.item, "item", torch.int64, (len(client),))
        arrays.within(client, num_malicious, "client")
        arrays.within(item, num_items, "item")
        check_distinct(arrays, [(client, item)], num_malicious, num_items, "profiles")
        return Profiles(client, item)


def batch(made: object, own: Batch, attack: str, num_items: int) -> Batch:
    """The engine's own copy of training rows that an attack made for its clients out of ``own``, the rows that they have.

    Clients and their numbers of samples are those of ``own``; rows stand client by client, each of an existing item, with as
    many occurrences as its client has samples at most, and there are no more pairs.
    """
    with readable(attack):
        arrays, n = Arrays(attack, own.item.device), len(own.clients)
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
    with readable(attack):
        if type(made) is not ReplacedImages:
            refuse(attack, "no ReplacedImages", "perturb()")
        items = Arrays(attack, targets.device).array(made.items, "items", torch.int64, (None,), len(pixels))
        arrays = Arrays(attack, pixels.device)
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


def _common(arrays: Arrays, made: tuple[object, object] | None, room: Room) -> Common | None:
    """What comes to all rows: the round's own gradient and nothing else, for it is not compared with anything."""
    if made is None:
        return None
    gradient = arrays.array(made[0], "common.gradient", torch.float32, (room.num_items, room.size))
    share = arrays.array(made[1], "common.share", torch.float32, (room.clients,))
    if room.pull is None or not torch.equal(gradient, room.pull):
        arrays.refuse("not the gradient that the clients of this round have in common", "common.gradient")
    return Common(room.pull, share)


def _dense(arrays: Arrays, made: PlainUpload, room: Room) -> tuple[DenseGradients, bool]:
    """The gradients of the dense parameters, and whether their sum is that of the clients' own."""
    for found in (made.total, made.stacked):
        if type(found) is not dict or len(found) != len(room.dense) or any(name not in found for name in room.dense):
            arrays.refuse(f"other names than {', '.join(room.dense) or 'none'}", "dense")
    total, stacked = {}, {}
    for name, like in room.dense.items():
        total[name] = arrays.array(made.total[name], f"dense[{name!r}]", like.dtype, tuple(like.shape))
        stacked[name] = arrays.array(made.stacked[name], f"dense[{name!r}]", like.dtype, (room.clients, *like.shape))
    return DenseGradients(lambda: total, lambda: stacked), _agree(total, stacked)


def _agree(total: Tensors, stacked: Tensors) -> bool:
    """Whether sums are those of the clients' own gradients, but for rounding; never where one is not finite."""
    there = [name for name, value in stacked.items() if value.numel()]
    if not there:
        return True
    off = torch.stack([(total[name] - stacked[name].sum(0)).abs().max() for name in there])
    scale = torch.stack([stacked[name].abs().sum(0).max() for name in there])
    # The gradient of a parameter that changes nothing, such as the bias of an attention's keys, is rounding alone.
    return bool((off <= AGREEMENT * scale + ROUNDING * scale.max()).all())
