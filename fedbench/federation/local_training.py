"""What clients do on their devices: the honest local step, what they upload, and how their private embeddings move.

Honest clients train here, and malicious ones wherever they behave honestly on data of their own.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch

from fedbench.errors import UserError
from fedbench.federation.batch import Batch
from fedbench.federation.clients import TrainingRows, sample_rows
from fedbench.federation.defense import Defense, ServerView
from fedbench.federation.losses import Loss
from fedbench.federation.model import LocalStep, PublicParams, Recommender
from fedbench.federation.optimizers import Adam
from fedbench.federation.own_tables import OwnTables
from fedbench.federation.population import Population
from fedbench.federation.rows import FullRows, coalesced
from fedbench.federation.updates import Common, DenseGradients, Tensors, Updates

Who = Literal["honest", "malicious"]
"""Whose draws: what the malicious clients do leaves the dropout and the mini-batches of the honest ones as they were."""


class LocalTraining:
    """The devices of all clients.

    Args:
        model: the recommender. population: the clients.

    Attributes:
        users: float32 [num_clients, d], everybody's private embedding.
        params: the public parameters that the clients of the round under way have received.
        loss: an honest client's. fake_loss: of profiles that an attack made up, without regularisation.
        l2: lambda of the term ``(lambda/2) sum of all squared parameters``, touched or not; 0: there is none.
        pull: float32 [M, d], the gradient of that term by all items in this round; None until a client uploads it.
        tables: the item tables that clients keep, of personal models; None: all rank by the server's.
        moves_late: whether private embeddings move at the end of the round (Adam), or with each step.
    """

    params: PublicParams

    def __init__(self, model: Recommender, population: Population) -> None:
        p = population.protocol
        self.model, self.protocol, self._population = model, p, population
        self.l2 = p.regularization if p.regularized == "all" else 0.0
        self.loss = Loss(p.loss, p.reduction, 0.0 if self.l2 else p.regularization, p.duplicate_rows)
        self.fake_loss = Loss(p.loss, p.reduction, 0.0, p.duplicate_rows)
        self.pull: torch.Tensor | None = None
        genuine = population.task.num_users
        users = model.init_users(genuine, population.stream("init", "users"))
        if population.num_clients > genuine:
            extra = population.num_clients - genuine
            users = torch.cat([users, model.init_users(extra, population.stream("init", "malicious"))])
        self.users = users.to(population.device)
        self.moves_late = p.user_optimizer != "sgd"
        self.tables = OwnTables(len(self.users), p.learning_rate) if model.personal else None
        if model.personal and self.moves_late:
            raise UserError(
                f"model {model.card.name!r} moves a client's own embedding before its items; set user_optimizer = 'sgd'."
            )
        self._rate = self._client_rates()
        self._adam = Adam(self._rate if isinstance(self._rate, float) else p.learning_rate, fused=True)
        self._moves: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._batch_draws: dict[Who, torch.Generator] = {
            "honest": population.stream("local batch", "honest"),
            "malicious": population.stream("local batch", "malicious"),
        }
        self._dropout: dict[Who, torch.Generator] = {}

    def _client_rates(self) -> float | torch.Tensor:
        """The rate at which private embeddings move: one for all, or float32 [num_clients, 1]."""
        rate = self.protocol.client_learning_rate
        if not isinstance(rate, tuple):
            return self.protocol.learning_rate if rate is None else rate
        drawn = torch.rand(len(self.users), 1, generator=self._population.stream("client learning rate"))
        return (rate[0] + (rate[1] - rate[0]) * drawn).to(self._population.device)

    def begin_round(self, params: PublicParams, number: int) -> None:
        """Hand the public parameters out to the clients of a round.

        Dropout has streams of the round's own: what an attack changes in one round does not move the draws of the next.
        """
        self.params, self.pull, self._number = params, None, number
        draws = self._population.stream
        self._dropout = {
            "honest": draws("dropout", "honest", number, on_device=True),
            "malicious": draws("dropout", "malicious", number, on_device=True),
        }

    def batch(self, rows: TrainingRows, clients: torch.Tensor, who: Who) -> Batch:
        """What clients train on: all their rows, or a mini-batch of them.

        Args:
            rows: a table. clients: int64 [n], on the CPU, whose of it.
        """
        batch = rows.select(clients)
        if self.protocol.local_batch is not None:
            count = self.protocol.local_batch
            batch = sample_rows(batch, count, self._batch_draws[who], rows.at_most(clients, count))
        return batch

    def honest_updates(
        self, rows: TrainingRows, clients: torch.Tensor, defense: Defense, server: ServerView
    ) -> Updates:
        """One local step of honest clients: their private embeddings move, their uploads are returned."""
        batch = self.batch(rows, clients, "honest")
        users = self.users.index_select(0, batch.clients)
        local = self.gradients(batch.clients, users, batch, self.loss, "honest")
        local = self.defended(local, users, batch, defense, server)
        if self.tables is not None:
            self.tables.keep(self._number, self.params.items, batch.clients, clients, local.rows)
        upload, gradient = self.uploaded(local, users, batch, self.l2)
        self.move(batch.clients, users, gradient)
        return upload

    def gradients(self, clients: torch.Tensor, users: torch.Tensor, batch: Batch, loss: Loss, who: Who) -> LocalStep:
        """The gradients of every client's own loss at the received parameters, with this round's dropout.

        Of personal models those by items are taken after the step of ``users``, the embeddings of ``clients``.
        """
        local = self.model.local_step(self.params, users, batch, loss, self._dropout[who])
        if self.tables is None:
            return local
        after = self._moved(clients, users, local.users)
        return replace(local, rows=self.model.local_step(self.params, after, batch, loss, self._dropout[who]).rows)

    def uploaded(self, local: LocalStep, users: torch.Tensor, batch: Batch, l2: float) -> tuple[Updates, torch.Tensor]:
        """What clients upload, and the gradient by their own embeddings, with ``l2 / 2`` times all squared parameters.

        Biases, dense parameters whose name begins with b, are no part of that term.
        """
        samples = self.model.samples(batch)
        if not l2:
            return Updates(batch.clients, local.rows, local.dense, samples), local.users
        pulls = {name: l2 * value for name, value in self.params.dense.items() if not name.startswith("b")}

        def added(values: Tensors, times: float | torch.Tensor) -> Tensors:
            return {name: value + times * pulls[name] if name in pulls else value for name, value in values.items()}

        own, n = local.dense, len(batch.clients)
        dense = DenseGradients(
            lambda: added(own.total(), n),
            lambda: added(own.stacked(), 1),
            lambda factor: added(own.scaled(factor).total(), factor.sum()),
        )
        if self.pull is None:
            self.pull = l2 * self.params.items
        common = Common(self.pull, torch.ones_like(samples))
        return Updates(batch.clients, local.rows, dense, samples, common), local.users + l2 * users

    def move(self, clients: torch.Tensor, users: torch.Tensor, gradient: torch.Tensor) -> None:
        """The step of the private embeddings ``users`` of ``clients``; those that move late wait for the others."""
        if self.moves_late:
            self._moves.append((clients, gradient))
        else:
            self.users.index_copy_(0, clients, self._moved(clients, users, gradient))

    def _moved(self, clients: torch.Tensor, users: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        """The private embeddings ``users`` of ``clients`` after a step of plain descent."""
        rate = self._rate if isinstance(self._rate, float) else self._rate.index_select(0, clients)
        return users - rate * gradient

    def end_round(self) -> None:
        """The step of the embeddings that move late."""
        moves, self._moves = self._moves, []
        if not self.moves_late or not self.users.shape[1]:
            return
        clients = torch.cat([clients for clients, _ in moves])
        gradient = torch.cat([gradient for _, gradient in moves])
        if self.protocol.user_optimizer == "adam":
            full = torch.zeros_like(self.users).index_copy_(0, clients, gradient)
            self.users = self._adam.move("users", self.users, full)
        else:
            self.users = self._adam.move_rows("users", self.users, clients, gradient)

    def defended(
        self, local: LocalStep, users: torch.Tensor, batch: Batch, defense: Defense, server: ServerView
    ) -> LocalStep:
        """What becomes of local gradients where a defense has hooks on the client's side."""
        local = self._regularized(local, users, batch, defense, server)
        return defense.client_update(local, self.params, users, batch, server)

    def _regularized(
        self, local: LocalStep, users: torch.Tensor, batch: Batch, defense: Defense, server: ServerView
    ) -> LocalStep:
        extra = defense.regularize(self.params, users, batch, server)
        if extra is None:
            return local
        rows = local.rows
        if extra.rows is not None:
            made = torch.cat([block.grad() for block in rows])
            rows = (FullRows(batch.client, batch.item, made + extra.rows),)
        if extra.extra is not None:
            full = Updates(batch.clients, (*rows, extra.extra), local.dense, batch.size).all_rows()
            rows = (coalesced(full, len(self.params.items)),)
        return LocalStep(rows, local.dense, local.users if extra.users is None else local.users + extra.users)
