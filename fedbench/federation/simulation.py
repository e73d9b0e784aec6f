"""A federation in training: the round loop, from top to bottom.

    cohort  = sample(clients)
    updates = local steps of the honest clients + what the attack makes of the malicious ones
    kept    = defense.filter(updates)
    grad    = defense.aggregate(kept), or the server's own sum or mean
    params  = optimizer.step(params, grad)

A cohort is one batch: no loop over clients, items or samples. Before an epoch, an attacker may show other images of items.
"""

from __future__ import annotations

import functools
import time
from dataclasses import dataclass, replace
from typing import Protocol as Interface

import torch

from fedbench.entries.cards import AttackCard, Channel, declared
from fedbench.errors import Diverged, UserError
from fedbench.federation import server
from fedbench.federation.adversary import Adversary
from fedbench.federation.attack import Attack
from fedbench.federation.defense import Defense, Notes, ServerView, card_of
from fedbench.federation.gallery import Gallery
from fedbench.federation.local_training import LocalTraining
from fedbench.federation.model import PublicParams, Recommender
from fedbench.federation.optimizers import optimizer
from fedbench.federation.population import Population, Task
from fedbench.federation.protocol import Protocol
from fedbench.federation.simulated_server import SimulatedServer
from fedbench.federation.updates import Updates, concat


@dataclass
class Seconds:
    """Wall time by phase; on a GPU the time to launch the work, except in the total of a run."""

    train: float = 0.0
    attack: float = 0.0
    evaluate: float = 0.0


class Observer(Interface):
    """Looks at rounds without a part in them."""

    def wants(self, number: int) -> bool:
        """Whether it looks at the round of this number."""

    def look(self, received: Updates, kept: Updates, server: ServerView) -> float:
        """What arrived, rows clipped, and what filters left of it; returns the seconds that looking took."""


class Federation:
    """Clients, a server, perhaps an attacker; ``train_epoch`` moves all of them on by one epoch.

    Args:
        task: the data. model, attack, defense: fresh ones. malicious_ratio: what a defense that must know it is told.
        protocol: how the federation is set up. seed: root of all random streams. device: where tensors live.

    Attributes:
        params: the public parameters. epoch, round: how many have been. seconds: what they took.
        population: who takes part. training: the clients' devices. adversary: the attacker; None without one.
        gallery: the images in force; None, for models that read none. observer: looks at rounds; None: nobody.

    Raises:
        UserError: a population that cannot be, or a model that reads images of a task that has none.
    """

    def __init__(
        self,
        task: Task,
        model: Recommender,
        attack: Attack,
        defense: Defense,
        malicious_ratio: float,
        protocol: Protocol,
        seed: int,
        device: torch.device | None = None,
    ) -> None:
        self.task, self.model, self.attack, self.defense = task, model, attack, defense
        self.malicious_ratio, self.protocol = malicious_ratio, protocol
        self.device = device or torch.device("cpu")
        self.seconds, self.epoch, self.round = Seconds(), 0, 0
        self.observer: Observer | None = None
        no_clients = 0 if declared(type(attack), AttackCard).channel == Channel.IMAGE else None
        self._told_ratio = malicious_ratio if "malicious_ratio" in card_of(defense).knowledge else None
        self.population = Population(task, protocol, seed, self.device, no_clients)
        self.optimizer = optimizer(protocol.server_optimizer, protocol.learning_rate)
        self._in_place = not (defense.keeps_params or model.personal)
        self._defense_draws = self.population.stream("defense", on_device=True)
        self.gallery = self._open_gallery()
        self.params = self._initial_params()
        self.training = LocalTraining(model, self.population)
        self.training.begin_round(self.params, self.round)  # a federation can be looked at before its first round
        self.adversary = None
        if task.num_malicious:
            simulated = functools.partial(SimulatedServer, defense, self._told_ratio, self.population, self.training)
            self.adversary = Adversary(attack, self.population, self.training, simulated)

    @property
    def users(self) -> torch.Tensor:
        """float32 [num_clients, d]: the private embeddings of all clients, injected ones last."""
        return self.training.users

    @property
    def refused(self) -> int:
        """Uploads that the server has refused so far because they were not finite."""
        return self.adversary.refused if self.adversary is not None else 0

    def train_epoch(self) -> None:
        """As many rounds as it takes to visit every client once, or as the protocol says.

        Raises:
            ThreatModelViolation: when the attack reaches for what its card does not declare.
        """
        self.epoch += 1
        self.population.begin_epoch(self.epoch)
        self._receive_images()
        for cohort in self.population.cohorts(self.epoch):
            begin = time.perf_counter()
            view = self.server_view()
            self.training.begin_round(self.params, self.round)
            updates = [self.training.honest_updates(self.population.rows, cohort.honest, self.defense, view)]
            between = time.perf_counter()
            if self.adversary is not None and len(cohort.malicious):
                updates.append(self.adversary.updates(cohort.malicious, updates[0], self.epoch, self.round))
            after = time.perf_counter()
            received = concat(updates)
            if self.protocol.row_clip is not None:
                received = server.clip_rows(received, self.protocol.row_clip)
            kept = self.defense.filter(received, view)
            gradient = self.defense.aggregate(kept, view)
            if self.observer is not None and view.notes is not None:
                begin += self.observer.look(received, kept, view)  # no part of the seconds of training
            if gradient is not None:
                self.params = self.optimizer.step(self.params, gradient)
            else:
                self.params = server.step(
                    kept.settled(), self.params, self.protocol.aggregation, self.optimizer, self._in_place
                )
            self.training.end_round()
            self.round += 1
            self.seconds.attack += after - between
            self.seconds.train += time.perf_counter() - after + between - begin

    def check_finite(self) -> None:
        """Raises :class:`Diverged` when a parameter is NaN or infinite (which a naive evaluation takes for success)."""
        if not (self.params.finite() and bool(torch.isfinite(self.users).all())):
            raise Diverged(f"parameters are not finite after epoch {self.epoch}")

    def server_view(self) -> ServerView:
        """What the defense may use in the round under way."""
        return ServerView(
            self.params,
            self.protocol.learning_rate,
            self.protocol.aggregation,
            self._told_ratio,
            self.epoch,
            self.round,
            self._defense_draws,
            self.optimizer,
            Notes() if self.observer is not None and self.observer.wants(self.round) else None,
            self.model,
        )

    def _initial_params(self) -> PublicParams:
        """Fresh public parameters; of a model that reads features, with those of the images."""
        drawn = self.model.init_params(self.task.num_items, self.population.stream("init", "params"))
        dense, features = dict(drawn.dense), None
        if self.gallery is not None:
            features = self.gallery.features
            dense |= self.model.init_feature_params(features.shape[1], self.population.stream("init", "features"))
        dense = {name: value.to(self.device) for name, value in dense.items()}
        return PublicParams(drawn.items.to(self.device), dense, features)

    def _receive_images(self) -> None:
        """What the attacker shows from this epoch on becomes features like any other image: after the defense."""
        if self.adversary is None or self.gallery is None:
            return
        begin = time.perf_counter()
        replaced = self.adversary.replaced_images(
            self.gallery.images, self.params, self.epoch, self.round, self.defense.purify
        )
        self.seconds.attack += time.perf_counter() - begin
        if replaced is not None:
            draws = self.population.stream("images", self.epoch, on_device=True)
            self.gallery.receive(replaced, self.epoch, draws)
            self.params = replace(self.params, features=self.gallery.features)

    def _open_gallery(self) -> Gallery | None:
        """The images, of a model that reads their features."""
        if not self.model.reads_features:
            return None
        if self.task.images is None:
            raise UserError(f"model {self.model.card.name!r} reads images of items, and these data have none.")
        return Gallery(self.task.images, self.defense, self.device)
