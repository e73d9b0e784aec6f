"""Plain, slow, obviously right versions of what the engine does in batches: one client, one row at a time.

They follow the papers' per-client loops, with autograd for every gradient, and share nothing with the engine but the
model's ``logits`` and the draws (initial parameters, negatives, cohorts), which are handed in.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from fedbench.federation.simulation import Federation
from fedbench.models import PublicParams, Recommender


@dataclass
class Client:
    """A user's device: private data and embedding."""

    embedding: torch.Tensor
    items: torch.Tensor
    labels: torch.Tensor

    def upload(
        self, model: Recommender, params: PublicParams, learning_rate: float, reduction: str = "mean"
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Gradients of its own loss: item rows, one for each sample (repeats apart), and dense; moves its embedding."""
        rows = params.items[self.items].clone().requires_grad_()
        dense = {name: value.clone().requires_grad_() for name, value in params.dense.items()}
        user = self.embedding.clone().requires_grad_()
        logits = model.logits(dense, user.expand(len(rows), -1), rows)
        loss = F.binary_cross_entropy_with_logits(logits, self.labels, reduction=reduction)
        gradients = torch.autograd.grad(loss, [rows, user, *dense.values()])
        self.embedding = self.embedding - learning_rate * gradients[1]
        return gradients[0], dict(zip(dense, gradients[2:], strict=True))


@dataclass
class PlainFederation:
    """Clients in a list, a server that adds up what they send."""

    model: Recommender
    params: PublicParams
    clients: list[Client]
    learning_rate: float
    aggregation: str = "sum"
    duplicate_rows: str = "sum"

    @classmethod
    def like(cls, federation: Federation, negatives: torch.Tensor) -> PlainFederation:
        """The same start as ``federation``: its parameters, its users' embeddings, its training pairs and negatives."""
        clients = []
        task = federation.task
        for user in range(task.num_users):
            mine = (task.train_user == user).nonzero().squeeze(1)
            positives, drawn = task.train_item[mine], negatives[mine].reshape(-1)
            labels = torch.cat([torch.ones(len(positives)), torch.zeros(len(drawn))])
            clients.append(Client(federation.users[user].clone(), torch.cat([positives, drawn]), labels))
        p = federation.protocol
        start = PublicParams(
            federation.params.items.clone(), {name: value.clone() for name, value in federation.params.dense.items()}
        )
        return cls(federation.model, start, clients, p.learning_rate, p.aggregation, p.duplicate_rows)

    def round(self, cohort: torch.Tensor) -> None:
        """One round with the clients ``cohort``."""
        items = torch.zeros_like(self.params.items)
        dense = {name: torch.zeros_like(value) for name, value in self.params.dense.items()}
        for index in cohort.tolist():
            client = self.clients[index]
            rows, mine = client.upload(self.model, self.params, self.learning_rate)
            if self.duplicate_rows == "last":
                items[client.items] += rows
            else:
                items.index_add_(0, client.items, rows)
            for name, value in mine.items():
                dense[name] += value
        scale = self.learning_rate / (len(cohort) if self.aggregation == "mean" else 1)
        self.params = PublicParams(
            self.params.items - scale * items,
            {name: value - scale * dense[name] for name, value in self.params.dense.items()},
        )


def evaluate_one_by_one(
    model: Recommender,
    params: PublicParams,
    clients: list[Client],
    train: list[torch.Tensor],
    test: list[int],
    target: int,
    generator: torch.Generator,
) -> dict[str, float]:
    """All metrics of a leave-one-out split, user by user with top-k lists and sampled negatives, as the papers do.

    The same names as the evaluator's; the sampled ones are one draw of what it gives in expectation.
    """
    total: dict[str, float] = {}
    eligible = 0

    def add(name: str, value: float) -> None:
        total[name] = total.get(name, 0.0) + value

    for client, seen, held_out in zip(clients, train, test, strict=True):
        scores = model.score_all(params, client.embedding[None])[0]
        unseen = scores.clone()
        unseen[seen] = -torch.inf
        if not bool((seen == target).any()):
            eligible += 1
            for k in (5, 10, 20, 30):
                add(f"er_{k}", float((unseen.topk(k).indices == target).any()))
        pool = torch.ones(len(scores), dtype=torch.bool)
        pool[seen] = False
        pool[held_out] = False
        candidates = pool.nonzero().squeeze(1)
        drawn = candidates[torch.randperm(len(candidates), generator=generator)[:99]]
        for name, among in (("", torch.cat([drawn, torch.tensor([held_out])])), ("_full", None)):
            ranked = unseen if among is None else scores[among]
            wanted = held_out if among is None else len(drawn)
            for k in (5, 10, 20):
                place = (ranked.topk(k).indices == wanted).nonzero()
                add(f"hr{name}_{k}", float(len(place) > 0))
                add(f"ndcg{name}_{k}", 1 / math.log2(2 + int(place[0])) if len(place) else 0.0)
    return {name: value / (eligible if name.startswith("er") else len(clients)) for name, value in total.items()}
