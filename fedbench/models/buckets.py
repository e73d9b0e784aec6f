"""Sequences of unlike length as padded batches: clients of similar length go through a network together."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch

BUCKET_TOKENS = {"cpu": 3 * 2**10, "cuda": 2**17}
"""Events that go through the network at a time: on a CPU about as many as its cache holds the activations of."""

SHORTEST = 0.6
"""On a CPU a bucket's shortest sequence has about this share of its longest, or more: what fills up is work too."""


@dataclass(frozen=True)
class Bucket:
    """Clients of similar lengths, whose events are laid out [b, t], left-aligned.

    Attributes:
        client: int64 [b]. start, length: int64 [b], where each one's events begin, and how many there are.
        longest: t. limit: L.
    """

    client: torch.Tensor
    start: torch.Tensor
    length: torch.Tensor
    longest: int
    limit: int

    def _place(self) -> torch.Tensor:
        """int64 [b, t]: 0, 1, ...; places past a client's last event repeat that event."""
        place = torch.arange(self.longest, device=self.length.device)
        return torch.minimum(place, self.length[:, None] - 1)

    def events(self) -> torch.Tensor:
        """int64 [b, t]: indices of the events."""
        return self.start[:, None] + self._place()

    def positions(self) -> torch.Tensor:
        """int64 [b, t]: positions, the newest event having L - 1."""
        return self._place() + (self.limit - self.length)[:, None]

    def real(self) -> torch.Tensor:
        """Bool [b, t]: whether there is an event."""
        return torch.arange(self.longest, device=self.length.device) < self.length[:, None]


def in_buckets(start: torch.Tensor, length: torch.Tensor, limit: int) -> Iterator[Bucket]:
    """Buckets of the last ``limit`` events of each client that has any, the longest sequences first.

    Args:
        start, length: int64 [n], where each one's events begin, and how many there are. limit: L.
    """
    start = start + (length - limit).clamp(min=0)
    length, client = length.clamp(max=limit).sort(descending=True, stable=True)
    start = start.index_select(0, client)
    host = length.cpu()  # the one transfer of a step: shapes depend on it
    host = host[host > 0]
    if not len(host):
        return
    part = (host.cumsum(0) - host) // BUCKET_TOKENS["cuda" if length.is_cuda else "cpu"]
    if not length.is_cuda:
        part += (torch.log(host / host[0]) / math.log(SHORTEST)).long()
    begins = torch.cat([torch.ones(1, dtype=torch.bool), part.diff() > 0]).nonzero().squeeze(1)
    bounds = [*begins.tolist(), len(host)]
    longest = host[begins].tolist()
    for a, b, t in zip(bounds[:-1], bounds[1:], longest, strict=True):
        yield Bucket(client[a:b], start[a:b], length[a:b], t, limit)
