"""Who takes part in a federation: users, malicious clients among or beside them, their training rows, and the cohorts.

A population can be made and looked at without training. All its draws come from named streams of one
seed; only the pool of users that may be compromised is the same in every run.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from fedbench.errors import UserError
from fedbench.federation.clients import TrainingRows, draw_negatives
from fedbench.federation.images import ItemImages
from fedbench.federation.protocol import Protocol
from fedbench.randomness import generator

UserItem = tuple["torch.Tensor", "torch.Tensor"]


@dataclass(frozen=True)
class Subgroup:
    """Users whom an attack may want to reach alone: int64 [k], those who have all of the items int64 [n]."""

    items: torch.Tensor
    users: torch.Tensor


@dataclass(frozen=True)
class Task:
    """What a federation trains on, as tensors on one device.

    Attributes:
        num_users: N. num_items: M. train_user, train_item: int64 [P], sorted by user; may hold repeats. Models of
            sequences take a user's rows for the order of time.
        targets: int64 [T]. num_malicious: m_tot.
        public: the published attacker-visible sample (user, item), when there is one for the fraction asked for.
        held_out: user and item of all held-out interactions, which some protocols keep out of the negatives.
        images: of the items, where there are any. subgroup: of the users, where the protocol names one.
    """

    num_users: int
    num_items: int
    train_user: torch.Tensor
    train_item: torch.Tensor
    targets: torch.Tensor
    num_malicious: int
    public: UserItem | None = None
    held_out: UserItem | None = None
    images: ItemImages | None = None
    subgroup: Subgroup | None = None


@dataclass(frozen=True)
class Cohort:
    """The clients of one round, on the CPU: honest users' ids, and indices of malicious clients (0 to m_tot - 1)."""

    honest: torch.Tensor
    malicious: torch.Tensor


class Population:
    """The clients of a federation. Ids below N are genuine users; injected malicious clients follow them.

    Args:
        task: the data. protocol: how the federation is set up. seed: root of all streams. device: where training rows live.
        num_malicious: clients of the attacker; None: as many as the task says. None of them are there for an attacker that
            only provides images.

    Attributes:
        injected: whether malicious clients are fake extra users; else they are genuine ones, compromised.
        malicious: int64 [m_tot], on the CPU, ids of the malicious clients, ascending.
        num_clients: all of them. cohort_size: clients in a full round.
        honest_users: how many genuine users nobody may have compromised. evaluated_users: int64, on the CPU, ids of those
            whose recommendations are measured: all of these, or a sample.
        rows: the training rows of the genuine users, with the negatives of the epoch under way.
        most_samples: how many samples a client can have: those of the most active user, or of one with every item.

    Raises:
        UserError: more malicious clients than the pool that they are drawn from has users.
    """

    def __init__(
        self, task: Task, protocol: Protocol, seed: int, device: torch.device, num_malicious: int | None = None
    ) -> None:
        self.task, self.protocol, self.seed, self.device = task, protocol, seed, device
        self.injected = protocol.malicious_clients == "injected"
        self._count = task.num_malicious if num_malicious is None else num_malicious
        honest = torch.ones(task.num_users, dtype=torch.bool)
        if protocol.malicious_pool is not None:
            honest[self._pool()] = False
        if self.injected and self._count:
            self.malicious = torch.arange(task.num_users, task.num_users + self._count)
        else:
            self.malicious = self._compromised()
        if not self.injected:
            honest[self.malicious] = False
        self.honest_users = int(honest.sum())
        self.evaluated_users = self._measured(honest)
        self.num_clients = task.num_users + (self._count if self.injected else 0)
        size = protocol.clients_per_round
        self.cohort_size = min(self.num_clients, max(1, round(size * self.num_clients)) if size < 1 else int(size))
        self._malicious_index = torch.full((self.num_clients,), -1).index_copy_(
            0, self.malicious, torch.arange(self._count)
        )
        self.rows = self._genuine_rows(epoch=0)
        largest = int(self.rows.size.max()) if len(self.rows.size) else 0
        self.most_samples = max(largest, task.num_items * (1 + protocol.negatives_per_positive))

    def stream(self, *identity: str | int, on_device: bool = False) -> torch.Generator:
        """A fresh generator for the purpose ``identity``, on the CPU (equal everywhere) or on the device."""
        return generator(self.seed, *identity, device=self.device if on_device else "cpu")

    def cohorts(self, epoch: int) -> Iterator[Cohort]:
        """The cohorts of an epoch (from 1): as many as it takes to visit every client once, or as the protocol says.

        Every client has a random key, honest and malicious ones from streams of their own, and cohorts follow the
        order of the keys: whatever the malicious clients are, the honest ones keep their order among themselves (but for
        injected ones under the schedule ``independent``, after the first round of an epoch).
        """
        honest_keys, malicious_keys = self.stream("cohort", epoch), self.stream("cohort", "malicious", epoch)
        rounds = self.protocol.rounds_per_epoch or -(-self.num_clients // self.cohort_size)
        shuffled = self.protocol.schedule == "shuffled"
        for r in range(rounds):
            if r == 0 or not shuffled:
                keys = torch.rand(self.num_clients, generator=honest_keys, dtype=torch.float64)[: self.task.num_users]
                if self.injected:
                    extra = torch.rand(self._count, generator=malicious_keys, dtype=torch.float64)
                    keys = torch.cat([keys, extra])
                # Of an independent cohort the smallest keys are enough: 0.01 ms for 50 of 6,040, all of them 0.25.
                order = torch.argsort(keys) if shuffled else keys.topk(self.cohort_size, largest=False).indices
            chosen = order[r * self.cohort_size : (r + 1) * self.cohort_size] if shuffled else order[: self.cohort_size]
            index = self._malicious_index[chosen]
            yield Cohort(chosen[index < 0], index[index >= 0])

    def begin_epoch(self, epoch: int) -> None:
        """Draw the negatives of the epoch anew, where the protocol does so."""
        if self.protocol.negatives == "epoch" and epoch > 1:
            self.rows = self._genuine_rows(epoch)

    def rows_of_fakes(self, user: torch.Tensor, item: torch.Tensor) -> TrainingRows:
        """Training rows of malicious clients with profiles that an attack made up.

        Args:
            user: int64 [P], index among the malicious clients, ascending. item: int64 [P].
        """
        return self._draw(user, item, self.task.num_malicious, "negatives of fakes", 0, None)

    def rows_of_stand_ins(self, user: torch.Tensor, item: torch.Tensor, number: int) -> TrainingRows:
        """Training rows with negatives of their own of who stands for honest clients in an attacker's simulation.

        Args:
            user: int64 [P], index among the malicious clients, ascending. item: int64 [P]. number: of the draw.
        """
        return self._draw(user, item, self.task.num_malicious, "negatives of stand-ins", number, None)

    def interactions_of_malicious(self, user: torch.Tensor, item: torch.Tensor) -> UserItem:
        """Of pairs of genuine users and items those of compromised users: index among the malicious clients, and item."""
        place = self._malicious_index.to(self.device)[user]
        return place[place >= 0], item[place >= 0]

    def _genuine_rows(self, epoch: int) -> TrainingRows:
        t = self.task
        held_out = t.held_out if self.protocol.negatives_exclude == "all" else None
        return self._draw(t.train_user, t.train_item, t.num_users, "negatives", epoch, held_out)

    def _draw(
        self,
        user: torch.Tensor,
        item: torch.Tensor,
        num_clients: int,
        stream: str,
        epoch: int,
        held_out: UserItem | None,
    ) -> TrainingRows:
        p, m = self.protocol, self.task.num_items
        draws = self.stream(stream, epoch)
        drawn = draw_negatives(user, item, num_clients, m, p.negatives_per_positive, draws, held_out)
        return TrainingRows.build(user, item, drawn, num_clients, m, pairwise=p.loss == "bpr")

    def _measured(self, honest: torch.Tensor) -> torch.Tensor:
        """All of the ``honest``, bool [N], or as many as the protocol says, those with the smallest random numbers.

        So a run and its twin, in which others may be compromised, measure the same users as far as they can.
        """
        users, count = honest.nonzero().squeeze(1), self.protocol.evaluate_users
        if count is None or count >= len(users):
            return users
        keys = torch.rand(len(honest), generator=self.stream("evaluated users"), dtype=torch.float64)
        return users[torch.argsort(keys[users])[:count]].sort().values

    def _compromised(self) -> torch.Tensor:
        pool, count = self._pool(), self._count
        if count > len(pool):
            raise UserError(
                f"{count} malicious clients are more than the {len(pool)} users of malicious_pool ="
                f" {self.protocol.malicious_pool:g}."
            )
        return pool[torch.randperm(len(pool), generator=self.stream("malicious"))[:count]].sort().values

    def _pool(self) -> torch.Tensor:
        """Users among whom the compromised are drawn: int64, all, or a share that is the same in every run."""
        n, share = self.task.num_users, self.protocol.malicious_pool
        if share is None:
            return torch.arange(n)
        return torch.randperm(n, generator=generator(0, "malicious pool"))[: int(n * share + 1e-9)]
