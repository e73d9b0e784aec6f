"""An attack under observation: what it asks for, what it changes, and whether its uploads are what they should be."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import torch

from fedbench.entries.cards import AttackCard, Channel, declared
from fedbench.errors import ThreatModelViolation
from fedbench.federation.attack import Attack
from fedbench.federation.images import ItemImages, ReplacedImages
from fedbench.federation.updates import Updates
from fedbench.federation.view import NO_DATA, AttackerView, Profiles
from fedbench.isolation import watching
from fedbench.isolation.attack import RemoteAttack
from fedbench.isolation.watching import Tensors, WatchedView, global_state
from fedbench.isolation.watching import tensors_of as tensors_of
from fedbench.testing.finding import Stop, check_global_state, generators_moved
from fedbench.testing.showing import check_images

OWN_DATA = "own data"
"""The check that an attack makes the data that it asks for."""


@dataclass
class Notes(watching.Notes):
    """What was seen of an attack.

    Attributes:
        uploads: everything that it uploaded, call by call. images: how many of them were images.
    """

    uploads: list[torch.Tensor] = field(default_factory=list)
    images: int = 0


class Untouched(watching.Untouched):
    """Tensors that were handed out and must stay as they are."""

    def check(self, where: str) -> None:
        """Raise :class:`Stop` when one of them is no longer what it was."""
        if name := self.changed():
            raise Stop("inputs unchanged", f"{where} changed {name} in place")


class WatchedAttack(Attack):
    """``inner``, watched at every call; a check that fails raises :class:`Stop`.

    Args:
        inner: the attack. notes: where what it does is noted.
    """

    @classmethod
    def of(cls, inner: Attack, notes: Notes) -> WatchedAttack:
        """``inner``, watched, with the card of its class."""
        card = declared(type(inner), AttackCard)
        watched: type[WatchedAttack] = type(cls.__name__, (cls,), {"card": card})
        return watched(inner, notes)

    def __init__(self, inner: Attack, notes: Notes) -> None:
        self.inner, self.notes = inner, notes
        self.params = inner.params
        self.public_fraction = inner.public_fraction

    def start(self, view: AttackerView) -> None:
        with self._watched(view, "start()") as seen:
            self.inner.start(seen)

    def profiles(self, view: AttackerView) -> Profiles | None:
        with self._watched(view, "profiles()") as seen:
            made = self.inner.profiles(seen)
        check_profiles(made, view, self.card.channel == Channel.PROFILE)
        if made is not None:
            self.notes.uploads += [made.client.clone(), made.item.clone()]
        return made

    def craft(self, view: AttackerView) -> Updates:
        with self._watched(view, "craft()") as seen:
            made = self.inner.craft(seen)
        check_upload(made, view)
        content = made.disclosed()
        self.notes.uploads += [tensor for _, tensor in tensors_of("", content)]
        self.notes.uploads += [value.clone() for value in content.dense.stacked().values()]
        return made

    def perturb(self, images: ItemImages, view: AttackerView) -> ReplacedImages | None:
        with self._watched(view, "perturb()", images=images) as seen:
            made = self.inner.perturb(images, seen)
        check_images(made, images, view, self.eps)
        if made is not None:
            self.notes.uploads += [made.items.clone(), made.pixels.clone()]
            self.notes.images += len(made.items)
        return made

    @contextlib.contextmanager
    def _watched(self, view: AttackerView, where: str, **given: object) -> Iterator[AttackerView]:
        if isinstance(self.inner, RemoteAttack):
            with self._told(self.inner, where):
                yield view
            return
        before, untouched = global_state(), Untouched()
        for name, value in given.items():
            untouched.add(name, value)
        try:
            yield WatchedView.of(view, self.notes, untouched)
        except ThreatModelViolation as error:
            if not self._reached() and NO_DATA in str(error):
                raise Stop(OWN_DATA, f"{where}: {error}") from None
            raise Stop("threat model", f"{where} asked for {self._reached() or error}") from None
        if self.notes.reached:
            raise Stop("threat model", f"{where} asked for {self._reached()}, and hid the refusal")
        check_global_state(before, where)
        untouched.check(where)

    @contextlib.contextmanager
    def _told(self, inner: RemoteAttack, where: str) -> Iterator[None]:
        """The same of an attack in another process, which is watched there."""
        try:
            yield
        except ThreatModelViolation as error:
            raise Stop(OWN_DATA if NO_DATA in str(error) else "threat model", f"{where}: {error}") from None
        self.notes.used |= inner.told.used
        if inner.told.moved:
            raise generators_moved(inner.told.moved, where)
        if inner.told.changed:
            raise Stop("inputs unchanged", f"{where} changed {inner.told.changed} in place")

    def _reached(self) -> str:
        return self.notes.reached[0] if self.notes.reached else ""


def check_profiles(made: object, view: AttackerView, needed: bool) -> None:
    """Raise :class:`Stop` unless profiles are distinct pairs of a malicious client and an item."""
    if made is None and not needed:
        return
    if not isinstance(made, Profiles):
        raise Stop("shapes", f"profiles() returned {type(made).__name__} instead of Profiles")
    for name, tensor, size in (("client", made.client, view.num_malicious), ("item", made.item, view.num_items)):
        _is(tensor, torch.int64, (len(made.client),), f"profiles().{name}")
        _within(tensor, size, f"profiles().{name}")
    if len(torch.unique(made.client * view.num_items + made.item)) < len(made.client):
        raise Stop("shapes", "profiles() has a (client, item) twice")


def check_upload(made: object, view: AttackerView) -> None:
    """Raise :class:`Stop` unless an upload has the right shapes and types, and every number in it is finite."""
    if not isinstance(made, Updates):
        raise Stop("shapes", f"craft() returned {type(made).__name__} instead of Updates")
    m, d = len(view.clients), view.embedding_size
    _is(made.clients, torch.int64, (m,), "clients (one for each of view.clients, in that order)")
    _is(made.weights, torch.float32, (m,), "weights")
    for number, block in enumerate(made.rows):
        count = len(block.item)
        _is(block.client, torch.int64, (count,), f"rows[{number}].client")
        _is(block.item, torch.int64, (count,), f"rows[{number}].item")
        _within(block.client, m, f"rows[{number}].client (an index into view.clients)")
        _within(block.item, view.num_items, f"rows[{number}].item")
        _is(block.grad(), torch.float32, (count, d), f"rows[{number}].grad()")
    pairs = [block.client * view.num_items + block.item for block in made.rows]
    if pairs and len(torch.unique(torch.cat(pairs))) < sum(map(len, pairs)):
        raise Stop("shapes", "rows has a (client, item) twice")
    stacked = made.dense.stacked()
    shapes = {name: (m, *value.shape) for name, value in view.params.dense.items()}
    if set(stacked) != set(shapes):
        raise Stop("shapes", f"dense has {_names(stacked)}; the model has {_names(shapes)}")
    for name, value in stacked.items():
        _is(value, torch.float32, shapes[name], f"dense[{name!r}]")
    if made.common is not None:
        _is(made.common.gradient, torch.float32, (view.num_items, d), "common.gradient")
        _is(made.common.share, torch.float32, (m,), "common.share")
    numbers: Tensors = [(f"rows[{number}]", block.grad()) for number, block in enumerate(made.rows)]
    numbers += [(f"dense[{name!r}]", value) for name, value in stacked.items()]
    numbers += [*tensors_of("common", made.common), ("weights", made.weights)]
    for name, value in numbers:
        if not bool(torch.isfinite(value).all()):
            raise Stop("finite", f"{name} of an upload has NaN or infinite numbers")
    sends = torch.zeros_like(made.weights, dtype=torch.bool)
    for block in made.rows:
        sends[block.client] = True
    if bool((made.weights < 0).any()) or bool((made.weights[sends] <= 0).any()):
        raise Stop("shapes", "weights must be positive: the number of samples that a client claims")


def _is(tensor: object, dtype: torch.dtype, shape: tuple[int, ...], name: str) -> None:
    if not isinstance(tensor, torch.Tensor):
        raise Stop("shapes", f"{name} is {type(tensor).__name__} instead of a tensor")
    if tensor.dtype != dtype or tuple(tensor.shape) != shape:
        raise Stop("shapes", f"{name} is {tensor.dtype} {list(tensor.shape)} instead of {dtype} {list(shape)}")


def _within(index: torch.Tensor, size: int, name: str) -> None:
    if len(index) and not (int(index.min()) >= 0 and int(index.max()) < size):
        raise Stop(
            "shapes", f"{name} goes from {int(index.min())} to {int(index.max())}; it must be within 0 to {size - 1}"
        )


def _names(values: Mapping[str, object]) -> str:
    return ", ".join(sorted(values)) or "nothing"
