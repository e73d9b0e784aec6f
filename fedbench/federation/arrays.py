"""Arrays from an attack: what is read of them is a copy of the type and shape that it must have."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import torch

from fedbench.errors import ThreatModelViolation


class Arrays:
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
        refuse(self.attack, what, name)


def check_distinct(
    arrays: Arrays, pairs: list[tuple[torch.Tensor, torch.Tensor]], num_clients: int, num_items: int, name: str
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


def refuse(attack: str, what: str, name: str) -> NoReturn:
    """Raises the :class:`ThreatModelViolation` that ends the run: ``what`` is wrong with ``name``."""
    raise ThreatModelViolation(f"attack {attack!r} returned {name} that the server refuses: {what}.")


@contextmanager
def readable(attack: str) -> Iterator[None]:
    """Whatever goes wrong while arrays are read is the attack's fault."""
    try:
        yield
    except (RuntimeError, ValueError, TypeError, IndexError, AttributeError, OverflowError, MemoryError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ThreatModelViolation(f"attack {attack!r} returned what cannot be read: {reason}") from None
