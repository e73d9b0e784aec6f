"""What passes between a run and the process of an entry: a closed set of values, as JSON and plain arrays.

Nothing that arrives is executed or unpickled. A message is a length, a line of JSON in which arrays are numbers, and the
arrays' bytes. Objects that may travel are named in :data:`PASSING`; what arrives has exactly their fields, of their types.

An array that comes back untouched is the run's own again, and is not sent. Dense gradients are functions. The run lends
them: the other process asks for their values when it needs them, and one that comes back untouched is the run's own again.
What an entry makes itself travels as arrays.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import socket
import struct
import time
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any

import torch

from fedbench.errors import FedbenchError
from fedbench.federation import rows
from fedbench.federation.batch import Batch
from fedbench.federation.defense import ClientRegularization
from fedbench.federation.images import ReplacedImages
from fedbench.federation.model import LocalStep, PublicParams
from fedbench.federation.updates import Common, DenseGradients, Updates
from fedbench.federation.view import HonestStep, Profiles, PublicInteractions

PASSING: dict[str, type[Any]] = {
    cls.__name__: cls
    for cls in (
        *(each for each in vars(rows).values() if isinstance(each, type) and issubclass(each, rows.Rows)),
        *(Batch, ClientRegularization, Common, HonestStep, LocalStep, Profiles, PublicInteractions, PublicParams),
        *(ReplacedImages, Updates),
    )
    if cls is not rows.Rows
}
_DTYPES = ("float32", "float64", "int64", "int32", "int16", "uint8", "bool")
_HEAD = struct.Struct("<IQ")
_LONGEST = 4 << 20
"""Bytes of JSON that a message may have."""
_MOST = 10_000
"""Arrays that a message may have."""


LATE = "it did not answer in time"


class Broken(FedbenchError):
    """Raised when the other side is gone, is too slow, or says what it must not; its message says which."""


class Line:
    """One end of the connection between a run and the process of an entry.

    Args:
        connected: a stream socket. most: bytes that a message may have.
        ask: how to ask for values of dense gradients, at the end of the entry; None at that of the run, which lends them.
    """

    def __init__(self, connected: socket.socket, most: int, ask: Callable[..., Any] | None = None) -> None:
        self._socket, self._most, self._ask = connected, most, ask
        self.forget_lent()

    def forget_lent(self) -> None:
        """A new call begins: what was lent in the one before is no longer answered for."""
        self._lent: list[DenseGradients] = []
        self._borrowed: dict[int, tuple[int, DenseGradients]] = {}
        self._shown: list[torch.Tensor] = []
        self._seen: dict[int, tuple[int, int, torch.Tensor]] = {}

    def lent(self, number: object, form: object, factor: object) -> Mapping[str, torch.Tensor]:
        """What the other side asks of dense gradients that it was lent."""
        if type(number) is not int or not 0 <= number < len(self._lent):
            raise Broken("it asked for gradients that it was not given")
        dense = self._lent[number]
        if form == "total":
            return dense.total()
        if form == "stacked":
            return dense.stacked()
        if form != "weighted" or dense.weighted is None or not isinstance(factor, torch.Tensor):
            raise Broken("it asked for gradients in a form that there is none of")
        return dense.weighted(factor)

    def send(self, body: Any, deadline: float | None = None) -> None:
        """Send a value; raises :class:`Broken` when nobody is there, or nobody has taken it at ``deadline``."""
        arrays: list[torch.Tensor] = []
        tree = self._plain(body, arrays)
        described = [[str(each.dtype).removeprefix("torch."), list(each.shape)] for each in arrays]
        text = json.dumps([tree, described]).encode()
        flat = [memoryview(each.reshape(-1).view(torch.uint8).numpy().data) for each in arrays if each.numel()]
        try:
            for part in (memoryview(_HEAD.pack(len(text), sum(map(len, flat))) + text), *flat):
                self._socket.settimeout(_left(deadline))
                self._socket.sendall(part)
        except TimeoutError:
            raise Broken(LATE) from None
        except OSError as error:
            raise Broken("its process ended") from error

    def receive(self, deadline: float | None = None) -> Any:
        """The next value; ``deadline`` in seconds of ``time.monotonic``.

        Raises:
            Broken: nobody is there, time is up, or it is no such value.
        """
        length, size = _HEAD.unpack(self._exactly(_HEAD.size, deadline))
        if length > _LONGEST or size > self._most:
            raise Broken(f"it sent a message of {length + size:,} bytes")
        text, content = self._exactly(length, deadline), self._exactly(size, deadline)
        try:
            tree, described = json.loads(bytes(text))
            arrays = _arrays(described, content)
            if self._ask is not None:  # the end of the entry
                for each in arrays:
                    self._seen[id(each)] = len(self._seen), each._version, each
            return self._value(tree, arrays)
        except (ValueError, TypeError, KeyError, RecursionError, OverflowError, RuntimeError, AttributeError) as error:
            raise Broken(f"it sent something that is no answer ({type(error).__name__})") from None

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    def _exactly(self, count: int, deadline: float | None) -> bytearray:
        found = bytearray(count)
        rest = memoryview(found)
        try:
            while len(rest):
                self._socket.settimeout(_left(deadline))
                got = self._socket.recv_into(rest)
                if not got:
                    raise Broken("its process ended")
                rest = rest[got:]
        except TimeoutError:
            raise Broken(LATE) from None
        except OSError:
            raise Broken("its process ended") from None
        return found

    def _plain(self, value: Any, arrays: list[torch.Tensor]) -> Any:
        """The value as JSON; its arrays are put beside it."""
        if value is None or type(value) in (bool, int, float, str):
            return value
        if isinstance(value, torch.Tensor):
            number, version, _ = self._seen.get(id(value), (-1, -1, None))
            if number >= 0 and version == value._version:
                return {"seen": number}
            if self._ask is None:
                self._shown.append(value)
            if value.layout != torch.strided:
                value = value.to_dense()
            arrays.append(value.detach().cpu().contiguous())
            return {"array": len(arrays) - 1}
        if isinstance(value, list | tuple):
            return [self._plain(each, arrays) for each in value]
        if isinstance(value, Mapping):
            return {"map": {str(key): self._plain(each, arrays) for key, each in value.items()}}
        if type(value) is DenseGradients:
            return {"dense": self._dense(value, arrays)}
        name = type(value).__name__
        if PASSING.get(name) is not type(value):
            if isinstance(value, rows.Rows):  # of a model that brings its own: as it is written out
                if not type(value).__module__.startswith("fedbench."):
                    raise TypeError("rows of a class that the engine does not know; use FullRows(client, item, values)")
                return self._plain(rows.FullRows(value.client, value.item, value.grad()), arrays)
            raise TypeError(f"{name} is none of what an entry may return")
        content = {each.name: self._plain(getattr(value, each.name), arrays) for each in dataclasses.fields(value)}
        return {"object": name, "fields": content}

    def _dense(self, value: DenseGradients, arrays: list[torch.Tensor]) -> Any:
        back = self._borrowed.get(id(value))
        if back is not None:
            return {"back": back[0]}
        if self._ask is None:
            self._lent.append(value)
            return {"lent": len(self._lent) - 1, "weighted": value.weighted is not None}
        return {
            "total": self._plain(dict(value.total()), arrays),
            "stacked": self._plain(dict(value.stacked()), arrays),
        }

    def _value(self, tree: Any, arrays: list[torch.Tensor]) -> Any:
        if isinstance(tree, list):
            return tuple(self._value(each, arrays) for each in tree)
        if not isinstance(tree, dict):
            return tree
        match tree:
            case {"array": int(number)} if 0 <= number < len(arrays):
                return arrays[number]
            case {"seen": int(number)} if 0 <= number < len(self._shown):
                return self._shown[number]
            case {"map": dict(content)}:
                return {key: self._value(each, arrays) for key, each in content.items()}
            case {"dense": dict(content)}:
                return self._gradients(content, arrays)
            case {"object": str(name), "fields": dict(content)}:
                return _built(PASSING[name], {key: self._value(each, arrays) for key, each in content.items()})
        raise ValueError("no such value")

    def _gradients(self, tree: dict[str, Any], arrays: list[torch.Tensor]) -> DenseGradients:
        if self._ask is None and "back" in tree:
            number = tree["back"]
            if type(number) is not int or not 0 <= number < len(self._lent):
                raise ValueError("not lent")
            return self._lent[number]
        if self._ask is not None and "lent" in tree:
            number, ask = tree["lent"], functools.partial(self._ask, "lent", tree["lent"])
            made = DenseGradients(
                functools.partial(ask, "total", None),
                functools.partial(ask, "stacked", None),
                functools.partial(ask, "weighted") if tree["weighted"] else None,
            )
            self._borrowed[id(made)] = number, made
            return made
        total, stacked = self._value(tree["total"], arrays), self._value(tree["stacked"], arrays)
        for each in (total, stacked):
            if not isinstance(each, dict) or not all(isinstance(value, torch.Tensor) for value in each.values()):
                raise ValueError("no tensors")
        return DenseGradients(lambda: total, lambda: stacked)


def _left(deadline: float | None) -> float | None:
    """Seconds until then."""
    if deadline is None:
        return None
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _arrays(described: Any, content: bytearray) -> list[torch.Tensor]:
    """The arrays that lie one behind the other in ``content``; they are views of it."""
    if not isinstance(described, list) or len(described) > _MOST:
        raise ValueError("no list of arrays")
    made, start = [], 0
    for name, shape in described:
        if name not in _DTYPES:
            raise ValueError("no type of numbers")
        dtype: torch.dtype = getattr(torch, name)
        if not isinstance(shape, list) or not all(type(each) is int and 0 <= each < 1 << 40 for each in shape):
            raise ValueError("no shape")
        count = 1
        for each in shape:
            count *= each
        size = count * dtype.itemsize
        if start + size > len(content):
            raise ValueError("too few bytes")
        if dtype == torch.bool and any(content[start : start + size].translate(None, b"\x00\x01")):
            raise ValueError("no booleans")
        whole = torch.empty(0, dtype=dtype)
        if count:
            piece = (
                content[start : start + size] if start % dtype.itemsize else memoryview(content)[start : start + size]
            )
            whole = torch.frombuffer(piece, dtype=dtype)
        made.append(whole.reshape(shape))
        start += size
    if start != len(content):
        raise ValueError("bytes too many")
    return made


def _built(cls: type[Any], content: dict[str, Any]) -> Any:
    """An object of ``cls`` with exactly its fields, each of its type."""
    hints = _hints(cls)  # type: ignore[arg-type]
    if set(content) != set(hints):
        raise ValueError("other fields")
    for key, hint in hints.items():
        if not _fits(content[key], hint):
            raise TypeError(key)
    return cls(**content)


@functools.cache
def _hints(cls: type[Any]) -> dict[str, Any]:
    known = typing.get_type_hints(cls)
    return {each.name: known[each.name] for each in dataclasses.fields(cls)}


def _fits(value: object, hint: Any) -> bool:
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, each) for each in inner)
    if origin is tuple:
        return isinstance(value, tuple) and all(_fits(each, inner[0]) for each in value)
    if origin is not None:  # a mapping of names to tensors
        return isinstance(value, dict) and all(_fits(each, inner[1]) for each in value.values())
    if hint in (int, float, str, bool, torch.Tensor, type(None)):
        return type(value) is hint
    return isinstance(value, hint)
