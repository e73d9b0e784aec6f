"""What malicious clients do with data of their own: their honest step, and what else attacks may ask of it.

Attacks reach it through their view alone (:class:`fedbench.federation.view.OwnSteps`), which asks their cards first.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from fedbench.errors import ThreatModelViolation
from fedbench.federation.clients import Batch, ragged
from fedbench.federation.updates import Updates
from fedbench.federation.view import HonestStep
from fedbench.models.base import Histories

if TYPE_CHECKING:
    from fedbench.federation.simulation import Federation


class OwnWork:
    """Honest work on the data of malicious clients in one round (:class:`fedbench.federation.view.OwnSteps`).

    Args:
        federation: at that round. index: int64 [m], the sampled malicious clients.
        genuine: whether their data are genuine interactions, or a fake profile.
    """

    def __init__(self, federation: Federation, index: torch.Tensor, genuine: bool) -> None:
        self._federation, self._index, self._genuine = federation, index, genuine
        self._made: HonestStep | None = None
        self._moved: torch.Tensor | None = None
        self._drawn: Batch | None = None

    def step(self) -> HonestStep:
        if self._made is None:
            clients = self._clients(self._index)
            batch = self.batch()
            updates, gradient, users = self._work(clients, batch)
            if self._moved is None:
                self._moved = self._federation._move_users(clients, users, gradient)
            self._made = HonestStep(updates, users, self._moved)
        return self._made

    def settle(self) -> None:
        """Move the clients' own embeddings by their data, unless they have moved in this round."""
        if self._moved is None:
            self.step()

    def batch(self) -> Batch:
        if self._drawn is None:
            self._drawn = self._rows_of(self._index)
        return self._drawn

    def users(self) -> torch.Tensor:
        f = self._federation
        clients = self._clients(self._index)
        source = (f.task.train_user, f.task.train_item) if self._genuine else f.fake_pairs
        assert source is not None
        user, item = source
        owners = clients if self._genuine else self._index.to(f.device)
        every = f.histories(user, item, f.task.num_users if self._genuine else f.task.num_malicious)
        index, starts, _ = ragged(every.starts, every.starts.cpu(), owners.cpu())
        return f.model.represent(f.params, f.users.index_select(0, clients), Histories(starts, item[index]))

    def trained(self, batch: Batch, move: bool = False) -> Updates:
        clients = self._clients(self._index)
        updates, gradient, users = self._work(clients, batch)
        if move:
            if self._moved is not None:
                raise ThreatModelViolation(
                    "the clients' own embeddings move once a round: ask for this before honest()."
                )
            self._moved = self._federation._move_users(clients, users, gradient)
        return updates

    def colluding(self, count: int) -> Updates:
        f = self._federation
        some = torch.randperm(f.task.num_malicious, generator=f._collusion)[:count]
        return self._work(self._clients(some), self._rows_of(some))[0]

    def _clients(self, index: torch.Tensor) -> torch.Tensor:
        return self._federation.malicious[index].to(self._federation.device)

    def _rows_of(self, index: torch.Tensor) -> Batch:
        f = self._federation
        table = f.rows if self._genuine else f.fake_rows
        assert table is not None
        return f._batch(table, f.malicious[index] if self._genuine else index, "malicious")

    def _work(self, clients: torch.Tensor, batch: Batch) -> tuple[Updates, torch.Tensor, torch.Tensor]:
        """Honest uploads on ``batch``, the gradient by the clients' embeddings, and these."""
        f = self._federation
        users = f.users.index_select(0, clients)
        loss, l2 = (f.loss, f.l2) if self._genuine else (f.fake_loss, 0.0)
        local = f.model.local_step(f.params, users, batch, loss, f._dropout["malicious"])
        updates, gradient = f._uploaded(local, users, batch, l2)
        return replace(updates, clients=clients), gradient, users
