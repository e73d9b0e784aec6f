"""Arrays from an entry: what is read of them has the type and the shape that it must have."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import NoReturn

import torch

from fedbench.errors import ThreatModelViolation

FEW = 64
"""Integers that are looked at faster one by one than by operations on tensors."""


class Arrays:
    """Reads the arrays of one entry: what passes has the right type and shape.

    Args:
        source: whose they are, as messages say it. device: where they must lie.
        copies: whether what passes is a copy; arrays of another process are nobody's but this one's.
    """

    def __init__(self, source: str, device: torch.device, copies: bool = True) -> None:
        self.source, self._device, self._copies = source, device, copies

    def array(
        self, value: object, name: str, dtype: torch.dtype, shape: tuple[int | None, ...], most: int | None = None
    ) -> torch.Tensor:
        """``value``, or a copy of it; None as the first of ``shape``: any length, ``most`` at most."""
        if type(value) is not torch.Tensor or value.layout != torch.strided:
            self.refuse("no plain torch.Tensor", name)
        found = tuple(value.shape)
        fits = found == shape
        if shape and shape[0] is None:
            fits = len(found) == len(shape) and found[1:] == shape[1:] and (most is None or found[0] <= most)
        if value.dtype != dtype or not fits or value.device.type != self._device.type:
            lengths = ", ".join(
                "any" if n is None and most is None else f"up to {most}" if n is None else str(n) for n in shape
            )
            self.refuse(
                f"{value.dtype} {list(found)} on {value.device.type}; it must be {dtype} [{lengths}] on"
                f" {self._device.type}",
                name,
            )
        if not self._copies:
            return value
        # Through the class: a tensor may hold attributes of these names.
        return torch.Tensor.clone(torch.Tensor.detach(value) if value.requires_grad else value)

    def within(self, index: torch.Tensor, size: int, name: str) -> None:
        """Refuses an index below 0, or of ``size`` and more."""
        if len(index):
            few = index.tolist() if len(index) <= FEW else list(map(int, _ends(index)))
            low, high = min(few), max(few)
            if low < 0 or high >= size:
                self.refuse(f"{low} to {high}; it must be within 0 to {size - 1}", name)

    def refuse(self, what: str, name: str) -> NoReturn:
        refuse(self.source, what, name)


def same(value: object, own: torch.Tensor) -> bool:
    """Whether an array is, bit for bit, one that the engine has: then there is nothing to copy or to check."""
    if value is own:
        return True
    if type(value) is not torch.Tensor or value.layout != torch.strided or value.device != own.device:
        return False
    if value.dtype != own.dtype or value.shape != own.shape:
        return False
    if own.dtype == torch.float32:  # integers are compared at once, as floats are not
        value, own = torch.Tensor.view(torch.Tensor.detach(value), torch.int32), own.view(torch.int32)
    return torch.equal(value, own)


def largest(value: torch.Tensor) -> float:
    """The largest absolute value of any, 0 of none; NaN where one is."""
    if not value.numel():
        return 0.0
    low, high = map(float, _ends(value))  # a fifth of the time of isfinite().all()
    return max(-low, high)


def _ends(value: torch.Tensor) -> Iterable[torch.Tensor | float]:
    """The smallest and the largest; from a GPU both come at once."""
    ends = torch.aminmax(value)
    return torch.stack(ends).tolist() if value.is_cuda else ends


def check_distinct(
    arrays: Arrays, pairs: list[tuple[torch.Tensor, torch.Tensor]], num_clients: int, num_items: int, name: str
) -> None:
    """Refuses a (client, item) that occurs twice."""
    count, places = sum(len(client) for client, _ in pairs), num_clients * num_items
    if count <= FEW:
        distinct = len({key for client, item in pairs for key in torch.add(item, client, alpha=num_items).tolist()})
        if distinct < count:
            arrays.refuse(f"{count - distinct} with a (client, item) that is there already", name)
        return
    keys = [torch.add(item, client, alpha=num_items) for client, item in pairs]
    if len(keys) == 1 and int(keys[0].diff().min()) > 0:  # as most come, in ascending order
        return
    if places <= 64 * count:  # a byte for each pair that could be is faster than sorting those that are
        seen = torch.zeros(places, dtype=torch.bool, device=keys[0].device)
        for key in keys:
            seen.index_fill_(0, key, True)
        distinct = int(seen.sum())
    else:
        distinct = len(torch.unique(torch.cat(keys)))
    if distinct < count:
        arrays.refuse(f"{count - distinct} with a (client, item) that is there already", name)


def refuse(source: str, what: str, name: str) -> NoReturn:
    """Raises the :class:`ThreatModelViolation` that ends the run: ``what`` is wrong with ``name``."""
    raise ThreatModelViolation(f"{source} returned {name} that the server refuses: {what}.")


@contextmanager
def readable(source: str) -> Iterator[None]:
    """Whatever goes wrong while arrays are read is the fault of whoever they are from."""
    try:
        yield
    except (RuntimeError, ValueError, TypeError, IndexError, AttributeError, OverflowError, MemoryError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ThreatModelViolation(f"{source} returned what cannot be read: {reason}") from None
