"""Layers that keep what the gradients of their parameters, client by client, are made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from fedbench.federation.updates import Tensors
from fedbench.models.buckets import Bucket
from fedbench.models.mf import dropout_masks

EPSILON = 1e-8
"""Added to the variance in layer normalisation [Kang and McAuley's code]."""


class Weights:
    """The dense parameters; matrices that meet the same input are put side by side once.

    Args:
        dense: name -> tensor.
    """

    def __init__(self, dense: Mapping[str, torch.Tensor]) -> None:
        self.dense = dense
        self._made: dict[tuple[str, ...], tuple[torch.Tensor, torch.Tensor]] = {}

    def side_by_side(self, names: tuple[str, ...]) -> tuple[torch.Tensor, torch.Tensor]:
        """float32 [k d, d] and [k d]: weights and biases of k layers."""
        if names not in self._made:
            pair = (torch.cat([self.dense[letter + name] for name in names]) for letter in "Wb")
            self._made[names] = next(pair), next(pair)
        return self._made[names]


@dataclass
class Layers:
    """The layers with parameters and the dropout of one forward pass; under autograd, what went through them.

    Attributes:
        linear: names, input and output of every linear layer. norms: name, normalised input and output of every norm.
    """

    weights: Weights
    dropout: float = 0.0
    generator: torch.Generator | None = None
    linear: list[tuple[tuple[str, ...], torch.Tensor, torch.Tensor]] = field(default_factory=list)
    norms: list[tuple[str, torch.Tensor, torch.Tensor]] = field(default_factory=list)

    def project(self, names: tuple[str, ...], x: torch.Tensor) -> torch.Tensor:
        """The linear layers ``names`` of x, side by side."""
        z = torch.nn.functional.linear(x, *self.weights.side_by_side(names))
        if z.requires_grad:
            self.linear.append((names, x, z))
        return z

    def norm(self, name: str, x: torch.Tensor) -> torch.Tensor:
        """``g (x - mean(x)) / sqrt(var(x) + EPSILON) + b`` over the last dimension."""
        normal = torch.nn.functional.layer_norm(x, x.shape[-1:], eps=EPSILON)
        y = torch.addcmul(self.weights.dense["b" + name], normal, self.weights.dense["g" + name])
        if y.requires_grad:
            self.norms.append((name, normal, y))
        return y

    def mask(self, shape: torch.Size, device: torch.device) -> torch.Tensor | None:
        """A mask of dropout, or None without."""
        if not self.dropout or self.generator is None:
            return None
        return dropout_masks(tuple(shape), self.dropout, self.generator, device)

    def drop(self, x: torch.Tensor) -> torch.Tensor:
        keep = self.mask(x.shape, x.device)
        return x if keep is None else x * keep


@dataclass(frozen=True)
class Record:
    """What the gradients of the dense parameters are made of, for one bucket.

    Attributes:
        first: float32 [b, t, d], dL/dP at each event. linear: names, input and dL/doutput of every linear layer.
        norms: name, normalised input and dL/doutput of every norm.
    """

    bucket: Bucket
    first: torch.Tensor
    linear: list[tuple[tuple[str, ...], torch.Tensor, torch.Tensor]]
    norms: list[tuple[str, torch.Tensor, torch.Tensor]]

    def add_total(self, sums: Tensors, factor: torch.Tensor | None = None) -> None:
        """Add the sums over the clients, each times its factor, float32 [n], to ``sums``, name -> float32 [*shape]."""
        share = None if factor is None else factor.index_select(0, self.bucket.client)[:, None, None]
        for names, x, each in self.linear:
            delta = each if share is None else each * share
            weight = delta.flatten(0, 1).T @ x.flatten(0, 1)
            for name, value in _named(names, weight, delta.sum((0, 1)), 0).items():
                sums[name].add_(value)
        for name, normal, each in self.norms:
            delta = each if share is None else each * share
            sums["g" + name].add_((delta * normal).sum((0, 1)))
            sums["b" + name].add_(delta.sum((0, 1)))
        first = self.first if share is None else self.first * share
        sums["P"].index_add_(0, self.bucket.positions().flatten(), first.flatten(0, 1))

    def stacked(self) -> Tensors:
        """Name -> float32 [b, *shape], client by client."""
        out: dict[str, torch.Tensor] = {}
        for names, x, delta in self.linear:
            out |= _named(names, delta.transpose(1, 2) @ x, delta.sum(1), 1)
        for name, normal, delta in self.norms:
            out |= {"g" + name: (delta * normal).sum(1), "b" + name: delta.sum(1)}
        b, _, d = self.first.shape
        index = self.bucket.positions()[:, :, None].expand_as(self.first)
        out["P"] = self.first.new_zeros(b, self.bucket.limit, d).scatter_add_(1, index, self.first)
        return out


def _named(names: tuple[str, ...], weight: torch.Tensor, bias: torch.Tensor, dim: int) -> Tensors:
    """Gradients of layers that were computed side by side, each by its name."""
    parts = zip(names, weight.chunk(len(names), dim), bias.chunk(len(names), dim), strict=True)
    return {letter + name: value for name, w, b in parts for letter, value in (("W", w), ("b", b))}
