"""What malicious clients do with data of their own: their honest step, and what else attacks may ask of it.

Attacks reach it through their view alone (:class:`fedbench.federation.view.OwnSteps`), which asks their cards first, and
have copies of what it makes (:class:`LentWork`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from fedbench.errors import ThreatModelViolation
from fedbench.federation import boundary
from fedbench.federation.batch import Batch
from fedbench.federation.clients import TrainingRows, ragged
from fedbench.federation.defense import Defense, ServerView
from fedbench.federation.local_training import LocalTraining
from fedbench.federation.losses import Loss
from fedbench.federation.model import Histories
from fedbench.federation.rows import copied
from fedbench.federation.updates import Common, DenseGradients, Tensors, Updates, concat
from fedbench.federation.view import HonestStep


@dataclass(frozen=True)
class OwnData:
    """What the malicious clients train on honestly: the interactions of the users that they are, or fake profiles.

    Attributes:
        rows: a table of training rows. owner: int64 [m_tot], on the CPU, which of its clients each malicious client is.
        user, item: int64 [P], the interactions behind the table, sorted by user. num_owners: how many clients it has.
        loss: of this training. l2: lambda of an L2 term over all parameters, 0 without one.
    """

    rows: TrainingRows
    owner: torch.Tensor
    user: torch.Tensor
    item: torch.Tensor
    num_owners: int
    loss: Loss
    l2: float


class OwnWork:
    """Honest work on the data of malicious clients in one round, as the engine has it.

    Args:
        training: the clients' devices in that round. data: what the malicious clients have.
        malicious: int64 [m_tot], on the CPU, their ids. index: int64 [m], which of them were sampled.
        collusion: draws those who collude.

    Attributes:
        drawn: the training rows of those who were sampled; None: nobody has asked for them.
    """

    def __init__(
        self,
        training: LocalTraining,
        data: OwnData,
        malicious: torch.Tensor,
        index: torch.Tensor,
        collusion: torch.Generator,
    ) -> None:
        self._training, self._data, self._malicious = training, data, malicious
        self._index, self._collusion = index, collusion
        self._made: HonestStep | None = None
        self._moved = False
        self.drawn: Batch | None = None

    def step(self) -> HonestStep:
        if self._made is None:
            clients = self._clients(self._index)
            updates, gradient, users = self._work(clients, self.batch())
            if not self._moved:
                self._move(clients, users, gradient)
            self._made = HonestStep(updates, users)
        return self._made

    def settle(self) -> None:
        """Move the clients' own embeddings by their data, unless they have moved in this round."""
        if not self._moved:
            self.step()

    def batch(self) -> Batch:
        if self.drawn is None:
            self.drawn = self._rows_of(self._index)
        return self.drawn

    def users(self) -> torch.Tensor:
        d, training = self._data, self._training
        every = Histories.of(d.user, d.item, d.num_owners)
        index, starts, _ = ragged(every.starts, every.starts.cpu(), d.owner[self._index])
        users = training.users.index_select(0, self._clients(self._index))
        return training.model.represent(training.params, users, Histories(starts, d.item[index]))

    def trained(self, batch: Batch, move: bool = False) -> Updates:
        clients = self._clients(self._index)
        updates, gradient, users = self._work(clients, batch)
        if move:
            if self._moved:
                raise ThreatModelViolation(
                    "the clients' own embeddings move once a round: ask for this before honest()."
                )
            self._move(clients, users, gradient)
        return updates

    def colluding(self, count: int) -> Updates:
        some = torch.randperm(len(self._malicious), generator=self._collusion)[:count]
        return self._work(self._clients(some), self._rows_of(some))[0]

    def defended(self, defense: Defense, server: ServerView) -> Updates:
        """The honest uploads of the sampled clients where ``defense`` has its hooks on the clients' side."""
        return self._work(self._clients(self._index), self.batch(), (defense, server))[0]

    def stand_ins(
        self,
        count: int,
        defense: Defense,
        server: ServerView,
        rows: Callable[[OwnData, int], TrainingRows],
        draws: torch.Generator,
    ) -> Updates:
        """What ``count`` honest clients would upload, on whose devices ``defense`` is: all malicious ones, over and over.

        Each time with other negatives. The k-th of the malicious clients has the id k, then ``m_tot + k`` and so on.

        Args:
            count: how many. defense, server: for its hooks on the client's side. draws: who comes first.
            rows: training rows of the n-th time, from 1.
        """
        everybody, parts = len(self._malicious), []
        for number in range(-(-count // everybody)):
            some = torch.randperm(everybody, generator=draws)[: count - number * everybody]
            batch = self._rows_of(some)
            if number:
                batch = self._training.batch(rows(self._data, number), some, "malicious")
            upload = self._work(self._clients(some), batch, (defense, server))[0]
            parts.append(replace(upload, clients=(some + number * everybody).to(upload.clients.device)))
        return concat(parts)

    def _move(self, clients: torch.Tensor, users: torch.Tensor, gradient: torch.Tensor) -> None:
        self._moved = True
        self._training.move(clients, users, gradient)

    def _clients(self, index: torch.Tensor) -> torch.Tensor:
        return self._malicious[index].to(self._training.users.device, non_blocking=True)

    def _rows_of(self, index: torch.Tensor) -> Batch:
        return self._training.batch(self._data.rows, self._data.owner[index], "malicious")

    def _work(
        self, clients: torch.Tensor, batch: Batch, defended: tuple[Defense, ServerView] | None = None
    ) -> tuple[Updates, torch.Tensor, torch.Tensor]:
        """Honest uploads on ``batch``, with a defense on the clients' side or none, their embeddings' gradient, and these."""
        users = self._training.users.index_select(0, clients)
        local = self._training.gradients(clients, users, batch, self._data.loss, "malicious")
        if defended is not None:
            local = self._training.defended(local, users, batch, *defended)
        updates, gradient = self._training.uploaded(local, users, batch, self._data.l2)
        return replace(updates, clients=clients), gradient, users


class LentWork:
    """The same in an attack's hands: copies of what its clients make, of rows that were checked where they are its own.

    Args:
        work: the engine's. source: whose hands, as messages say it. num_items: M.

    Attributes:
        given: dense gradients as the attack has them, and ``kept``, the engine's own uploads that they are copies of.
        pull: the attack's copy of what the round's clients have in common; None: it has none.
    """

    def __init__(self, work: OwnWork, source: str, num_items: int) -> None:
        self._work, self._source, self._num_items = work, source, num_items
        self._step: HonestStep | None = None
        self._batch: Batch | None = None
        self.given: list[DenseGradients] = []
        self.kept: list[Updates] = []
        self.pull: torch.Tensor | None = None

    def step(self) -> HonestStep:
        if self._step is None:
            made = self._work.step()
            self._step = HonestStep(self.lent(made.updates), made.users.clone())
        return self._step

    def batch(self) -> Batch:
        if self._batch is None:
            self._batch = copied(self._work.batch())
        return self._batch

    def users(self) -> torch.Tensor:
        return self._work.users().clone()

    def trained(self, batch: Batch, move: bool = False) -> Updates:
        rows = boundary.batch(batch, self._work.batch(), self._source, self._num_items)
        return self.lent(self._work.trained(rows, move is True))

    def colluding(self, count: int) -> Updates:
        return self.lent(self._work.colluding(count))

    def lent(self, updates: Updates) -> Updates:
        """A copy of what the attacker's clients made."""
        dense, common = updates.dense, updates.common

        def copies(tensors: Tensors) -> Tensors:
            return {name: value.clone() for name, value in tensors.items()}

        weighted = dense.weighted
        given = DenseGradients(
            lambda: copies(dense.total()),
            lambda: copies(dense.stacked()),
            None if weighted is None else lambda factor: copies(weighted(factor)),
        )
        self.given.append(given)
        self.kept.append(updates)
        if common is not None:
            if self.pull is None:
                self.pull = common.gradient.clone()
            common = Common(self.pull, common.share.clone())
        rows = tuple(copied(block) for block in updates.rows)
        return Updates(updates.clients.clone(), rows, given, updates.weights.clone(), common)
