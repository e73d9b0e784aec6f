"""Models that are their logits alone: gradients and scores follow by automatic differentiation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from pydantic import Field

from fedbench.entries.cards import Parameters
from fedbench.federation.batch import Batch
from fedbench.federation.losses import Loss
from fedbench.federation.model import LARGEST_SIZE, LocalStep, PublicParams, Recommender
from fedbench.federation.rows import PiecedRows
from fedbench.federation.updates import DenseGradients, Tensors

_SCORES = 2**18
"""Pairs of a user and an item that are scored at a time."""
_PADDED = 2**18
"""Rows, with padding, of clients whose own gradients are made at a time."""


class AutogradRecommender(Recommender):
    """Base of models that only say what the logit of a user and an item is.

    A subclass has a card, :meth:`logits` and, where it has dense parameters, :meth:`init_dense`; all else may be overridden,
    too, for speed. With ``e_r = dL/ds_r`` of every row r, as the loss has it, a backward pass of ``sum_r e_r s_r`` gives the
    gradient of each row's item and user; gradients of dense parameters client by client, which few defenses ask for, take
    another pass in which every client has parameters of its own, the leading dimensions that ``logits`` allows.
    """

    class Params(Parameters):
        """What every such model has; add your own."""

        embedding_size: int = Field(32, ge=1, le=LARGEST_SIZE, description="d, length of the embeddings [ours]")
        init_std: float = Field(0.01, gt=0, description="standard deviation of the initial embeddings [ours]")

    params: AutogradRecommender.Params

    @property
    def embedding_size(self) -> int:
        return self.params.embedding_size

    def init_params(self, num_items: int, generator: torch.Generator) -> PublicParams:
        """Item embeddings from ``N(0, init_std^2)``, then :meth:`init_dense`."""
        items = torch.randn(num_items, self.embedding_size, generator=generator) * self.params.init_std
        return PublicParams(items, self.init_dense(generator))

    def init_dense(self, generator: torch.Generator) -> Mapping[str, torch.Tensor]:
        """Fresh dense parameters by name, float32, drawn on the CPU; names of biases begin with b. Else none."""
        return {}

    def init_users(self, count: int, generator: torch.Generator) -> torch.Tensor:
        """float32 [count, d] from ``N(0, init_std^2)``."""
        return torch.randn(count, self.embedding_size, generator=generator) * self.params.init_std

    def score_all(self, params: PublicParams, users: torch.Tensor) -> torch.Tensor:
        items = params.described(torch.arange(len(params.items), device=users.device))
        step = max(1, _SCORES // max(len(items), 1))
        scores = users.new_empty(len(users), len(items))
        with torch.no_grad():
            for k in range(0, len(users), step):
                block = users[k : k + step, None]
                shape = (len(block), len(items))
                scores[k : k + step] = self.logits(
                    params.dense, block.expand(*shape, -1), items.expand(len(block), -1, -1)
                )
        return scores

    def local_step(
        self,
        params: PublicParams,
        users: torch.Tensor,
        batch: Batch,
        loss: Loss,
        generator: torch.Generator | None = None,
    ) -> LocalStep:
        d = params.items.shape[1]
        with torch.enable_grad():
            user = users.index_select(0, batch.client).requires_grad_()
            item = params.described(batch.item).requires_grad_()
            dense = {name: value.detach().requires_grad_() for name, value in params.dense.items()}
            logits = self.logits(dense, user, item)
        own, sent = loss.derivative(logits.detach(), batch)
        if own is sent:
            of_user, of_item, *of_dense = _grad(logits, [user, item, *dense.values()], own)
        else:  # of rows alone it uploads something else
            of_user, *of_dense = _grad(logits, [user, *dense.values()], own, again=True)
            (of_item,) = _grad(logits, [item], sent)
        total = dict(zip(dense, of_dense, strict=True))
        rows = of_item[:, :d]
        own_rows = torch.arange(len(user), device=user.device)
        user_grad = torch.nn.functional.embedding_bag(own_rows, of_user, batch.starts[:-1], mode="sum")
        if loss.regularization:
            user_grad = user_grad + loss.regularization * users
            rows = rows + loss.regularization * params.items.index_select(0, batch.item)
        block = PiecedRows(batch.client, batch.item, own_rows, torch.ones_like(sent), rows.contiguous())

        def stacked() -> Tensors:
            return self._of_clients(params, users, batch, own)

        def weighted(factor: torch.Tensor) -> Tensors:
            leaves = {name: value.detach().requires_grad_() for name, value in params.dense.items()}
            with torch.enable_grad():
                again = self.logits(leaves, user.detach(), item.detach())
            found = _grad(again, list(leaves.values()), own * factor.index_select(0, batch.client))
            return dict(zip(leaves, found, strict=True))

        return LocalStep((block,), DenseGradients(lambda: total, stacked, weighted), user_grad)

    def _of_clients(self, params: PublicParams, users: torch.Tensor, batch: Batch, derivative: torch.Tensor) -> Tensors:
        """Name -> float32 [n, *shape]: the gradients of dense parameters of each client's ``sum_r derivative_r s_r``."""
        n = len(users)
        out = {name: value.new_zeros(n, *value.shape) for name, value in params.dense.items()}
        if not out:
            return out
        for clients, longest in _by_length(batch.starts.diff()):
            row = batch.starts[clients, None] + torch.arange(longest, device=users.device)
            there = row < batch.starts[clients + 1, None]
            row = torch.where(there, row, batch.starts[clients, None]).clamp(max=max(len(batch.item) - 1, 0))
            leaves = {
                name: value.detach().expand(len(clients), *value.shape).clone().requires_grad_()
                for name, value in params.dense.items()
            }
            with torch.enable_grad():
                user = users[clients, None].expand(*row.shape, -1)
                logits = self.logits(leaves, user, params.described(batch.item[row]))
            found = _grad(logits, list(leaves.values()), torch.where(there, derivative[row], 0.0))
            for name, value in zip(out, found, strict=True):
                out[name][clients] = value
        return out


def _grad(
    logits: torch.Tensor, leaves: list[torch.Tensor], derivative: torch.Tensor, again: bool = False
) -> list[torch.Tensor]:
    """The gradients of ``sum(derivative * logits)``; zeros by what the logits do not depend on."""
    if not leaves or not logits.requires_grad:
        return [torch.zeros_like(leaf) for leaf in leaves]
    found = torch.autograd.grad(logits, leaves, derivative, retain_graph=again, allow_unused=True)
    return [torch.zeros_like(leaf) if each is None else each for each, leaf in zip(found, leaves, strict=True)]


def _by_length(length: torch.Tensor) -> Iterator[tuple[torch.Tensor, int]]:
    """Clients with rows in groups of about as many: indices int64 [k], and the longest of the group."""
    order = torch.argsort(length)
    order = order[length[order] > 0]
    sizes = length[order].tolist()
    first = 0
    while first < len(sizes):
        last = first + 1
        while last < len(sizes) and (last + 1 - first) * sizes[last] <= _PADDED:
            last += 1
        yield order[first:last], sizes[last - 1]
        first = last
