"""SASRec as it is defined, one client after the other, without padding, by autograd alone: the oracle of its tests."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from fedbench.federation.batch import Batch
from fedbench.federation.clients import TrainingRows, draw_negatives
from fedbench.federation.simulation import Federation
from fedbench.models import PublicParams
from fedbench.models.sasrec import SelfAttentiveSequentialRecommender

Drop = Callable[[torch.Tensor], torch.Tensor]


def kept_whole(x: torch.Tensor) -> torch.Tensor:
    """No dropout."""
    return x


def outputs(
    model: SelfAttentiveSequentialRecommender, params: PublicParams, items: torch.Tensor, drop: Drop = kept_whole
) -> torch.Tensor:
    """F at every event of one sequence ``items`` [t], t <= L. ``drop`` is applied in the order of the layers."""
    p, dense, d, t = model.params, params.dense, model.embedding_size, len(items)

    def norm(name: str, x: torch.Tensor) -> torch.Tensor:
        centred = x - x.mean(-1, keepdim=True)
        return centred / (centred.square().mean(-1, keepdim=True) + 1e-8).sqrt() * dense["g" + name] + dense["b" + name]

    def linear(name: str, x: torch.Tensor) -> torch.Tensor:
        return x @ dense["W" + name].T + dense["b" + name]

    h = drop(math.sqrt(d) * params.items[items] + dense["P"][p.max_length - t :])
    future = torch.ones(t, t).triu(1).bool()
    for i in range(1, p.blocks + 1):
        q = norm(f"{i}_attention", h)
        source = h if p.residual == "query" else q
        query, key, value = linear(f"{i}_query", q), linear(f"{i}_key", source), linear(f"{i}_value", source)
        size = d // p.heads
        logits = torch.stack(
            [
                query[:, k * size : (k + 1) * size] @ key[:, k * size : (k + 1) * size].T / math.sqrt(size)
                for k in range(p.heads)
            ]
        )
        weights = drop(torch.softmax(logits.masked_fill(future, -torch.inf), -1))
        out = torch.cat([weights[k] @ value[:, k * size : (k + 1) * size] for k in range(p.heads)], 1)
        h = (q if p.residual == "query" else h) + linear(f"{i}_output", out)
        x = norm(f"{i}_feedforward", h)
        if p.residual == "query":
            h = x
        h = h + drop(linear(f"{i}_outer", drop(torch.relu(linear(f"{i}_inner", x)))))
    return norm("_last", h)


def client_loss(
    model: SelfAttentiveSequentialRecommender,
    params: PublicParams,
    positive: torch.Tensor,
    negative: torch.Tensor,
    reduction: str = "mean",
    drop: Drop = kept_whole,
) -> torch.Tensor:
    """The loss of a client with the events ``positive`` [m] in the order of time and the negative of each."""
    count = min(len(positive) - 1, model.params.max_length)
    if count < 1:
        return torch.zeros(())
    f = outputs(model, params, positive[-count - 1 : -1], drop)
    margin = (f * (params.items[positive[-count:]] - params.items[negative[-count:]])).sum(1)
    terms = torch.nn.functional.softplus(-margin)
    return terms.mean() if reduction == "mean" else terms.sum()


def client_gradients(
    model: SelfAttentiveSequentialRecommender,
    params: PublicParams,
    positive: torch.Tensor,
    negative: torch.Tensor,
    reduction: str = "mean",
    drop: Drop = kept_whole,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Of one client: the gradient of all items [M, d], and those of the dense parameters."""
    items = params.items.clone().requires_grad_()
    dense = {name: value.clone().requires_grad_() for name, value in params.dense.items()}
    loss = client_loss(model, PublicParams(items, dense), positive, negative, reduction, drop)
    if not loss.requires_grad:
        return torch.zeros_like(items), {name: torch.zeros_like(value) for name, value in dense.items()}
    found = torch.autograd.grad(loss, [items, *dense.values()])
    return found[0], dict(zip(dense, found[1:], strict=True))


class PlainSequential:
    """Rounds of protocol aaai23 with SASRec: one client after the other, and torch's Adam on all parameters.

    Args:
        federation: before its first epoch; the same start, training sequences and negatives. negatives: int64 [P, 1],
            those of its training pairs. dropout: torch's own.
    """

    def __init__(self, federation: Federation, negatives: torch.Tensor, dropout: float = 0.0) -> None:
        assert isinstance(federation.model, SelfAttentiveSequentialRecommender)
        task, protocol = federation.task, federation.protocol
        self.model, self.l2, self.dropout = federation.model, protocol.regularization, dropout
        self.items = federation.params.items.clone().requires_grad_()
        self.dense = {name: value.clone().requires_grad_() for name, value in federation.params.dense.items()}
        self.everything = [self.items, *self.dense.values()]
        self.penalized = [self.items, *(value for name, value in self.dense.items() if not name.startswith("b"))]
        counts = torch.bincount(task.train_user, minlength=task.num_users).tolist()
        self.pairs = list(zip(task.train_item.split(counts), negatives[:, 0].split(counts), strict=True))
        self.optimizer = torch.optim.Adam(self.everything, lr=protocol.learning_rate)

    def upload(self, user: int) -> torch.Tensor:
        """A client's gradient by all parameters, one after the other; the L2 term is over all but biases."""

        def drop(x: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.dropout(x, self.dropout)

        loss = client_loss(self.model, PublicParams(self.items, self.dense), *self.pairs[user], drop=drop)
        loss = loss + self.l2 / 2 * torch.stack([value.square().sum() for value in self.penalized]).sum()
        found = torch.autograd.grad(loss, self.everything, allow_unused=True, materialize_grads=True)
        return torch.cat([each.flatten() for each in found])

    def round(self, cohort: list[int]) -> None:
        """The mean of the uploads by numbers of positions, and a step of Adam."""
        uploads = torch.stack([self.upload(user) for user in cohort])
        longest = self.model.params.max_length
        samples = torch.tensor([float(min(max(len(self.pairs[user][0]) - 1, 0), longest)) for user in cohort])
        mean = torch.matmul(samples / samples.sum(), uploads)
        sizes = [value.numel() for value in self.everything]
        for value, gradient in zip(self.everything, mean.split(sizes), strict=True):
            value.grad = gradient.view_as(value)
        self.optimizer.step()


def sequences(
    lengths: list[int], num_items: int, seed: int = 0
) -> tuple[list[torch.Tensor], list[torch.Tensor], TrainingRows]:
    """Sequences of distinct items, a negative for each event, and both as training rows."""
    g = torch.Generator().manual_seed(seed)
    positives = [torch.randperm(num_items, generator=g)[:length] for length in lengths]
    user = torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths))
    item = torch.cat(positives)
    drawn = draw_negatives(user, item, len(lengths), num_items, 1, g)
    rows = TrainingRows.build(user, item, drawn, len(lengths), num_items, pairwise=True)
    return positives, list(drawn.squeeze(1).split(lengths)), rows


def noisy(params: PublicParams, seed: int = 0) -> PublicParams:
    """The parameters with biases, gains and positions moved off their initial values, and items far apart."""
    g = torch.Generator().manual_seed(seed)
    dense = {name: value + 0.3 * torch.randn(value.shape, generator=g) for name, value in params.dense.items()}
    return PublicParams(torch.randn(params.items.shape, generator=g), dense)


def all_clients(rows: TrainingRows) -> Batch:
    """The batch of everybody."""
    return rows.select(torch.arange(len(rows.size)))
