"""A federation in training: the round loop, from top to bottom.

    cohort  = sample(clients)
    updates = local steps of the honest clients + what the attack makes of the malicious ones
    kept    = defense.filter(updates)
    grad    = defense.aggregate(kept)
    params  = params - learning_rate * grad

A cohort is one batch: no loop over clients, items or samples, and no copy from the device inside a round.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol as Interface

import torch

from fedbench.attacks.base import Attack
from fedbench.cards import Channel, Knowledge
from fedbench.defenses.base import Defense, Notes, ServerView
from fedbench.errors import Diverged, ThreatModelViolation, UserError
from fedbench.federation import server
from fedbench.federation.clients import Batch, TrainingRows, draw_negatives, sample_rows
from fedbench.federation.losses import Loss
from fedbench.federation.own_work import OwnWork
from fedbench.federation.rows import FullRows, coalesced
from fedbench.federation.updates import Common, DenseGradients, Tensors, Updates, concat, no_updates
from fedbench.federation.view import AttackerView, Profiles, PublicInteractions, RoundState, Surroundings
from fedbench.models.base import Histories, LocalStep, PublicParams, Recommender
from fedbench.protocols import Protocol
from fedbench.randomness import generator


@dataclass(frozen=True)
class Task:
    """What a federation trains on, as tensors on one device.

    Attributes:
        num_users: N. num_items: M. train_user, train_item: int64 [P], sorted by user; may hold repeats. Models of
            sequences take a user's rows for the order of time.
        targets: int64 [T]. num_malicious: m_tot.
        held_out: user and item of all held-out interactions, which some protocols keep out of the negatives.
        public: the published attacker-visible sample (user, item), when there is one for the fraction asked for.
    """

    num_users: int
    num_items: int
    train_user: torch.Tensor
    train_item: torch.Tensor
    targets: torch.Tensor
    num_malicious: int
    public: tuple[torch.Tensor, torch.Tensor] | None = None
    held_out: tuple[torch.Tensor, torch.Tensor] | None = None


@dataclass
class Seconds:
    """Wall time by phase; on a GPU the time to launch the work, except in the total of a run."""

    train: float = 0.0
    attack: float = 0.0
    evaluate: float = 0.0


@dataclass(frozen=True)
class Cohort:
    """The clients of one round, on the CPU: honest users' ids, and indices of malicious clients (0 to m_tot - 1)."""

    honest: torch.Tensor
    malicious: torch.Tensor


class Observer(Interface):
    """Looks at rounds without a part in them."""

    def wants(self, number: int) -> bool:
        """Whether it looks at the round of this number."""

    def look(self, received: Updates, kept: Updates, server: ServerView) -> float:
        """What arrived and what filters left of it; returns the seconds that looking took."""


@dataclass
class Federation:
    """Clients, a server, perhaps an attacker; ``train_epoch`` moves all of them on by one epoch.

    Users with ids below N are genuine; injected malicious clients follow them. Compromised ones are among them.
    """

    task: Task
    model: Recommender
    attack: Attack
    defense: Defense
    malicious_ratio: float
    protocol: Protocol
    seed: int
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    observer: Observer | None = None

    def __post_init__(self) -> None:
        t, p = self.task, self.protocol
        self.seconds = Seconds()
        self._pull: torch.Tensor | None = None
        self.epoch = 0
        self.round = 0
        self.injected = p.malicious_clients == "injected"
        self.l2 = p.regularization if p.regularized == "all" else 0.0
        self.loss = Loss(p.loss, p.reduction, 0.0 if self.l2 else p.regularization, p.duplicate_rows)
        self.fake_loss = Loss(p.loss, p.reduction, 0.0, p.duplicate_rows)

        params = self.model.init_params(t.num_items, self._stream("init", "params"))
        self.params = PublicParams(
            params.items.to(self.device), {name: value.to(self.device) for name, value in params.dense.items()}
        )
        users = self.model.init_users(t.num_users, self._stream("init", "users"))
        if t.num_malicious and self.injected:
            users = torch.cat([users, self.model.init_users(t.num_malicious, self._stream("init", "malicious"))])
            self.malicious = torch.arange(t.num_users, t.num_users + t.num_malicious)
        else:
            pool = self._malicious_pool()
            if t.num_malicious > len(pool):
                raise UserError(
                    f"malicious_ratio = {self.malicious_ratio:g}: {t.num_malicious} malicious clients are more than the"
                    f" {len(pool)} users of malicious_pool = {p.malicious_pool:g}."
                )
            drawn = torch.randperm(len(pool), generator=self._stream("malicious"))[: t.num_malicious]
            self.malicious = pool[drawn].sort().values
        self.users = users.to(self.device)
        self.optimizer = server.optimizer(p.server_optimizer, p.learning_rate)
        self._user_adam = None if p.user_optimizer == "sgd" else server.Adam(p.learning_rate, fused=True)
        self._user_gradients: list[tuple[torch.Tensor, torch.Tensor]] = []
        self.num_clients = len(users)
        size = p.clients_per_round
        self.cohort_size = min(self.num_clients, max(1, round(size * self.num_clients)) if size < 1 else int(size))
        honest = torch.ones(t.num_users, dtype=torch.bool)
        if not self.injected:
            honest[self.malicious] = False
        if p.malicious_pool is not None:
            honest[self._malicious_pool()] = False
        self.evaluated_users = honest.nonzero().squeeze(1)
        self._malicious_index = torch.full((self.num_clients,), -1).index_copy_(
            0, self.malicious, torch.arange(t.num_malicious)
        )

        self.rows = self._draw_rows(t.train_user, t.train_item, t.num_users, "negatives")
        self._attack_stream = self._stream("attack", on_device=True)
        self._defense_stream = self._stream("defense", on_device=True)
        self._batch_streams = {name: self._stream("local batch", name) for name in ("honest", "malicious")}
        self._begin_dropout()
        self._collusion = self._stream("collusion")
        self.fake_rows: TrainingRows | None = None
        self.fake_pairs: tuple[torch.Tensor, torch.Tensor] | None = None
        if t.num_malicious:
            self._start_attack()

    # ------------------------------------------------------------------------------------------------- the loop

    def train_epoch(self) -> None:
        """As many rounds as it takes to visit every client once, or as the protocol says.

        Raises:
            ThreatModelViolation: when the attack reaches for what its card does not declare.
        """
        self.epoch += 1
        if self.protocol.negatives == "epoch" and self.epoch > 1:
            self.rows = self._draw_rows(self.task.train_user, self.task.train_item, self.task.num_users, "negatives")
        for cohort in self.cohorts():
            begin = time.perf_counter()
            self._begin_dropout()
            view = self._server_view()
            updates = [self._honest_updates(cohort.honest, view)]
            between = time.perf_counter()
            if len(cohort.malicious):
                updates.append(self._malicious_updates(cohort.malicious, updates[0]))
            after = time.perf_counter()
            received = concat(updates)
            if self.protocol.row_clip is not None:
                received = server.clip_rows(received, self.protocol.row_clip)
            kept = self.defense.filter(received, view)
            gradient = self.defense.aggregate(kept, view)
            if self.observer is not None and view.notes is not None:
                begin += self.observer.look(received, kept, view)  # no part of the seconds of training
            if gradient is None:
                gradient = server.aggregate(kept.settled(), self.params, self.protocol.aggregation)
            self.params = self.optimizer.step(self.params, gradient)
            self._settle_users()
            self.round += 1
            self.seconds.attack += after - between
            self.seconds.train += time.perf_counter() - after + between - begin

    def cohorts(self) -> Iterator[Cohort]:
        """The cohorts of this epoch.

        Every client has a random key, honest and malicious ones from streams of their own, and cohorts follow the
        order of the keys: whatever the malicious clients are, the honest ones keep their order among themselves.
        """
        honest_keys = self._stream("cohort", self.epoch)
        malicious_keys = self._stream("cohort", "malicious", self.epoch)
        rounds = self.protocol.rounds_per_epoch or -(-self.num_clients // self.cohort_size)
        shuffled = self.protocol.schedule == "shuffled"
        for r in range(rounds):
            if r == 0 or not shuffled:
                keys = torch.rand(self.num_clients, generator=honest_keys, dtype=torch.float64)[: self.task.num_users]
                if self.injected:
                    extra = torch.rand(self.task.num_malicious, generator=malicious_keys, dtype=torch.float64)
                    keys = torch.cat([keys, extra])
                # Of an independent cohort the smallest keys are enough: 0.01 ms for 50 of 6,040, all of them 0.25.
                order = torch.argsort(keys) if shuffled else keys.topk(self.cohort_size, largest=False).indices
            chosen = order[r * self.cohort_size : (r + 1) * self.cohort_size] if shuffled else order[: self.cohort_size]
            index = self._malicious_index[chosen]
            yield Cohort(chosen[index < 0], index[index >= 0])

    def check_finite(self) -> None:
        """Raises :class:`Diverged` when a parameter is NaN or infinite (which a naive evaluation takes for success)."""
        if not (self.params.finite() and bool(torch.isfinite(self.users).all())):
            raise Diverged(f"parameters are not finite after epoch {self.epoch}")

    # ---------------------------------------------------------------------------------------------- the clients

    def _honest_updates(self, clients: torch.Tensor, view: ServerView) -> Updates:
        """One local step of honest clients: their private embeddings move, their uploads are returned."""
        batch = self._batch(self.rows, clients, "honest")
        users = self.users.index_select(0, batch.clients)
        local = self.model.local_step(self.params, users, batch, self.loss, self._dropout["honest"])
        local = self._regularized(local, users, batch, view)
        local = self.defense.client_update(local, self.params, users, batch, view)
        upload, gradient = self._uploaded(local, users, batch, self.l2)
        self._move_users(batch.clients, users, gradient)
        return upload

    def _uploaded(self, local: LocalStep, users: torch.Tensor, batch: Batch, l2: float) -> tuple[Updates, torch.Tensor]:
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
        if self._pull is None:
            self._pull = l2 * self.params.items
        common = Common(self._pull, torch.ones_like(samples))
        return Updates(batch.clients, local.rows, dense, samples, common), local.users + l2 * users

    def _regularized(self, local: LocalStep, users: torch.Tensor, batch: Batch, view: ServerView) -> LocalStep:
        extra = self.defense.regularize(self.params, users, batch, view)
        if extra is None:
            return local
        rows = local.rows
        if extra.rows is not None:
            made = torch.cat([block.grad() for block in rows])
            rows = (FullRows(batch.client, batch.item, made + extra.rows),)
        if extra.extra is not None:
            full = Updates(batch.clients, (*rows, extra.extra), local.dense, batch.size).all_rows()
            rows = (coalesced(full, self.task.num_items),)
        return LocalStep(rows, local.dense, local.users if extra.users is None else local.users + extra.users)

    def _malicious_updates(self, index: torch.Tensor, honest: Updates) -> Updates:
        """Uploads of the malicious clients ``index``: honest or silent before the attack starts, then crafted.

        Args:
            index: int64 [m]. honest: what the honest clients of the round upload.
        """
        clients = self.malicious[index].to(self.device)
        profile = self.attack.card.channel == Channel.PROFILE
        if self.epoch < self.protocol.attack_start:
            if self.injected:
                return no_updates(clients, self.params.dense, self.model.embedding_size)
            return OwnWork(self, index, genuine=True).step().updates
        if profile:
            return OwnWork(self, index, genuine=False).step().updates
        own = (
            OwnWork(self, index, genuine=not self.injected) if self.fake_rows is not None or not self.injected else None
        )
        shown = honest.disclosed() if Knowledge.HONEST_UPDATES in self.attack.card.knowledge else None
        state = RoundState(self.params, index.to(self.device), self.epoch, self.round, own, shown)
        watched = [self.params.items, *self.params.dense.values()]
        if self._pull is not None:
            watched.append(self._pull)  # part of the honest uploads, and of those that the attack's own data give
        versions = [value._version for value in watched]
        crafted = self.attack.craft(self._view.in_round(state))
        name = self.attack.card.name
        if versions != [value._version for value in watched]:
            raise ThreatModelViolation(
                f"attack {name!r} changed the public parameters in place; it may only read them."
            )
        if len(crafted.clients) != len(index):
            raise ThreatModelViolation(
                f"attack {name!r} returned uploads of {len(crafted.clients)} clients; {len(index)} of its were sampled."
            )
        if self._user_adam is not None and own is not None:
            own.settle()  # a compromised user's own embedding follows its data, whatever is uploaded
        return Updates(clients, crafted.rows, crafted.dense, crafted.weights, crafted.common)

    def _move_users(self, clients: torch.Tensor, users: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        """The embeddings of ``clients`` after their step; under Adam they move at the end of the round."""
        if self._user_adam is not None:
            self._user_gradients.append((clients, gradient))
            return users
        moved = users - self.protocol.learning_rate * gradient
        self.users.index_copy_(0, clients, moved)
        return moved

    def _settle_users(self) -> None:
        """Adam's step of the table of users, and the end of what was only good for this round."""
        self._pull = None
        moves, self._user_gradients = self._user_gradients, []
        if self._user_adam is None or not self.users.shape[1]:
            return
        clients = torch.cat([clients for clients, _ in moves])
        gradient = torch.cat([gradient for _, gradient in moves])
        if self.protocol.user_optimizer == "adam":
            full = torch.zeros_like(self.users).index_copy_(0, clients, gradient)
            self.users = self._user_adam.move("users", self.users, full)
        else:
            self.users = self._user_adam.move_rows("users", self.users, clients, gradient)

    def histories(self, user: torch.Tensor, item: torch.Tensor, count: int) -> Histories:
        """Interactions by user, as models of sequences read them: rows sorted by user, for users 0 to ``count`` - 1."""
        return Histories(torch.searchsorted(user, torch.arange(count + 1, device=user.device)), item)

    def _batch(self, table: TrainingRows, clients: torch.Tensor, stream: str) -> Batch:
        batch = table.select(clients)
        if self.protocol.local_batch is not None:
            batch = sample_rows(batch, self.protocol.local_batch, self._batch_streams[stream])
        return batch

    # ------------------------------------------------------------------------------------------------ the set-up

    def _start_attack(self) -> None:
        """Give the attack its eyes and, when it fakes users, draw their training rows."""
        t = self.task
        self._view = self._make_view(None)
        self.attack.start(self._view)
        profile = self.attack.card.channel == Channel.PROFILE
        fakes = self.attack.profiles(self._view) if self.injected or profile else None
        if fakes is None:
            return
        self._view = self._make_view(fakes)
        order = torch.argsort(fakes.client * t.num_items + fakes.item)
        self.fake_pairs = fakes.client[order], fakes.item[order]
        self.fake_rows = self._draw_rows(fakes.client[order], fakes.item[order], t.num_malicious, "negatives of fakes")

    def _draw_rows(self, user: torch.Tensor, item: torch.Tensor, num_clients: int, stream: str) -> TrainingRows:
        p, m = self.protocol, self.task.num_items
        held_out = self.task.held_out if p.negatives_exclude == "all" and num_clients == self.task.num_users else None
        drawn = draw_negatives(
            user, item, num_clients, m, p.negatives_per_positive, self._stream(stream, self.epoch), held_out
        )
        return TrainingRows.build(user, item, drawn, num_clients, m, pairwise=p.loss == "bpr")

    def _make_view(self, fakes: Profiles | None) -> AttackerView:
        """The view with whatever the card's knowledge needs, and nothing that it does not."""
        t, knows = self.task, self.attack.card.knowledge
        surroundings = Surroundings(
            self.model,
            t.num_items,
            t.num_malicious,
            self.protocol.learning_rate,
            self.protocol.aggregation,
            t.targets,
            self.device,
            self._attack_stream,
        )
        own, popularity, public = fakes, None, None
        if knows:
            pairs = torch.unique(t.train_user * t.num_items + t.train_item)
            user, item = pairs // t.num_items, pairs % t.num_items
            if Knowledge.ITEM_POPULARITY in knows:
                popularity = torch.bincount(item, minlength=t.num_items)
            if Knowledge.PUBLIC_INTERACTIONS in knows:
                public = self._public(user, item)
            if own is None and not self.injected:
                place = self._malicious_index.to(self.device)[user]
                own = Profiles(place[place >= 0], item[place >= 0])
        return AttackerView(
            self.attack.card,
            surroundings,
            own_data=own,
            item_popularity=popularity,
            public_interactions=public,
            cohort_size=self.cohort_size,
            malicious_per_round=self.cohort_size * t.num_malicious / self.num_clients,
        )

    def _public(self, user: torch.Tensor, item: torch.Tensor) -> PublicInteractions:
        """ceil(xi |D_u+|) interactions of every user (ICDE'22 code), or the published sample of that size.

        Args:
            user, item: int64 [P], the distinct training pairs, sorted by user.
        """
        t, share = self.task, self.attack.public_fraction
        if share > 0 and t.public is not None:
            return PublicInteractions(*t.public, t.num_users)
        order = torch.argsort(torch.rand(len(user), generator=self._stream("public")).to(self.device))
        order = order[torch.argsort(user[order], stable=True)]
        count = torch.bincount(user, minlength=t.num_users)
        rank = torch.arange(len(user), device=self.device) - (count.cumsum(0) - count)[user]
        chosen = order[rank < torch.ceil(count * share - 1e-9)[user]]
        return PublicInteractions(user[chosen], item[chosen], t.num_users)

    def _begin_dropout(self) -> None:
        """Streams of the round's own: what an attack changes in one round does not move the draws of the next."""
        names = ("honest", "malicious")
        self._dropout = {name: self._stream("dropout", name, self.round, on_device=True) for name in names}

    def _server_view(self) -> ServerView:
        return ServerView(
            self.params,
            self.protocol.learning_rate,
            self.protocol.aggregation,
            self.malicious_ratio if "malicious_ratio" in self.defense.card.knowledge else None,
            self.epoch,
            self.round,
            self._defense_stream,
            self.optimizer,
            Notes() if self.observer is not None and self.observer.wants(self.round) else None,
        )

    def _malicious_pool(self) -> torch.Tensor:
        """Users among whom the compromised are drawn: int64, all, or a share that is the same in every run."""
        n, share = self.task.num_users, self.protocol.malicious_pool
        if share is None:
            return torch.arange(n)
        return torch.randperm(n, generator=generator(0, "malicious pool"))[: int(n * share + 1e-9)]

    def _stream(self, *identity: str | int, on_device: bool = False) -> torch.Generator:
        return generator(self.seed, *identity, device=self.device if on_device else "cpu")
