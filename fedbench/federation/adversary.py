"""The attacker's side of a federation: the attack, what it sees, its clients' data, and the checks of what it returns."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch

from fedbench.entries.cards import Channel, Knowledge
from fedbench.errors import ThreatModelViolation
from fedbench.federation.attack import Attack
from fedbench.federation.images import ItemImages, ReplacedImages
from fedbench.federation.local_training import LocalTraining
from fedbench.federation.model import PublicParams
from fedbench.federation.own_work import OwnData, OwnWork
from fedbench.federation.population import Population
from fedbench.federation.updates import Updates, no_updates
from fedbench.federation.view import AttackerView, Profiles, PublicInteractions, RoundState, Surroundings

Purify = Callable[["torch.Tensor", "torch.Generator"], "torch.Tensor"]

Versions = list[tuple["torch.Tensor", int]]
"""Tensors with how often each had been written to."""


class Adversary:
    """An attack at work in a federation. Making one starts the attack, and draws the training rows of fake users.

    Args:
        attack: a fresh one. population: the clients, none of them malicious where it only shows images.
        training: their devices.

    Attributes:
        view: what the attack sees before the first round. fakes: the profiles that it made up; None: none.
    """

    def __init__(self, attack: Attack, population: Population, training: LocalTraining) -> None:
        self.attack = attack
        self._population, self._training = population, training
        self._draws = population.stream("attack", on_device=True)
        self._collusion = population.stream("collusion")
        self._eps = Attack.eps.fget(attack) if attack.card.channel.shows_images else 0.0  # type: ignore[attr-defined]
        self.fakes: OwnData | None = None
        self.view = self._make_view(None)
        attack.start(self.view)
        if population.injected or attack.card.channel == Channel.PROFILE:
            profiles = attack.profiles(self.view)
            if profiles is not None:
                self.view = self._make_view(profiles)
                self.fakes = self._faked(profiles)

    def updates(self, index: torch.Tensor, honest: Updates, epoch: int, number: int) -> Updates:
        """Uploads of the malicious clients ``index``: honest or silent before the attack starts, then crafted.

        Args:
            index: int64 [m]. honest: what the honest clients of the round upload. epoch, number: of the round.

        Raises:
            ThreatModelViolation: the attack reached for what its card does not declare, or broke another rule.
        """
        population, training = self._population, self._training
        clients = population.malicious[index].to(population.device)
        if epoch < population.protocol.attack_start:
            if population.injected:
                return no_updates(clients, training.params.dense, training.model.embedding_size)
            return self._own_work(self._genuine(), index).step().updates
        if self.attack.card.channel == Channel.PROFILE:
            if self.fakes is None:
                raise ThreatModelViolation(f"attack {self.attack.card.name!r} has channel 'profile' and no profiles.")
            return self._own_work(self.fakes, index).step().updates
        own = self.fakes if population.injected else self._genuine()
        work = None if own is None else self._own_work(own, index)
        shown = honest.disclosed() if Knowledge.HONEST_UPDATES in self.attack.card.knowledge else None
        state = RoundState(training.params, index.to(population.device), epoch, number, work, shown)
        versions = _versions(training.params, training.pull)
        crafted = self.attack.craft(self.view.in_round(state))
        self._check_untouched(versions)
        if len(crafted.clients) != len(index):
            raise ThreatModelViolation(
                f"attack {self.attack.card.name!r} returned uploads of {len(crafted.clients)} clients; {len(index)} of"
                " its were sampled."
            )
        if training.moves_late and work is not None:
            work.settle()  # a compromised user's own embedding follows its data, whatever is uploaded
        return Updates(clients, crafted.rows, crafted.dense, crafted.weights, crafted.common)

    def replaced_images(
        self, images: ItemImages, params: PublicParams, epoch: int, number: int, purify: Purify
    ) -> ReplacedImages | None:
        """The images that the attacker shows from this epoch on; None: those that are shown already.

        Args:
            images: the original ones. params: the public parameters at the beginning of the epoch.
            epoch: about to begin. number: of its first round. purify: the server's; the attack may know it.

        Raises:
            ThreatModelViolation: as in :meth:`updates`, or the images are not 8-bit ones, of the right size, of targets that
                have one, and within the attack's ``eps`` of the original.
        """
        if not self.attack.card.channel.shows_images or epoch < self._population.protocol.attack_start:
            return None
        nobody = self._population.task.targets[:0]
        versions = _versions(params, images.pixels) + _versions(params, images.there)
        network = getattr(getattr(images.extract, "extractor", None), "network", None)
        if isinstance(network, torch.nn.Module):
            versions += [(value, value._version) for value in (*network.parameters(), *network.buffers())]
        own = functools.partial(_purified, purify, self._draws)
        state = RoundState(params, nobody, epoch, number, purify=own)
        replaced = self.attack.perturb(images, self.view.in_round(state))
        self._check_untouched(versions)
        if replaced is None:
            return None
        name, size = self.attack.card.name, (len(replaced.items), *images.pixels.shape[1:])
        if replaced.pixels.dtype != torch.uint8 or replaced.pixels.shape != size:
            raise ThreatModelViolation(
                f"attack {name!r} returned images of {replaced.pixels.dtype} {tuple(replaced.pixels.shape)}; they must be"
                f" torch.uint8 {size}."
            )
        if len(torch.unique(replaced.items)) < len(replaced.items):
            raise ThreatModelViolation(f"attack {name!r} returned two images of one item.")
        if not bool(torch.isin(replaced.items, self._population.task.targets).all()):
            raise ThreatModelViolation(f"attack {name!r} replaced images of items that are no targets.")
        items = replaced.items.to(images.pixels.device)
        if images.there is not None and not bool(images.there[items].all()):
            raise ThreatModelViolation(f"attack {name!r} replaced the image of an item that has none.")
        change = (replaced.pixels.to(items.device).short() - images.pixels[items].short()).abs()
        if len(items) and int(change.max()) > self._eps:
            raise ThreatModelViolation(
                f"attack {name!r} changed a pixel by {int(change.max())}, more than its eps = {self._eps:g}."
            )
        return ReplacedImages(replaced.items.clone(), replaced.pixels.clone())

    def _own_work(self, data: OwnData, index: torch.Tensor) -> OwnWork:
        return OwnWork(self._training, data, self._population.malicious, index, self._collusion)

    def _genuine(self) -> OwnData:
        """The data of the users that the malicious clients are."""
        population, training, t = self._population, self._training, self._population.task
        return OwnData(
            population.rows,
            population.malicious,
            t.train_user,
            t.train_item,
            t.num_users,
            training.loss,
            training.l2,
        )

    def _faked(self, profiles: Profiles) -> OwnData:
        """Profiles that the attack made up, with training rows."""
        t = self._population.task
        order = torch.argsort(profiles.client * t.num_items + profiles.item)
        user, item = profiles.client[order], profiles.item[order]
        rows = self._population.rows_of_fakes(user, item)
        everybody = torch.arange(t.num_malicious)
        return OwnData(rows, everybody, user, item, t.num_malicious, self._training.fake_loss, 0.0)

    def _check_untouched(self, versions: Versions) -> None:
        if any(value._version != version for value, version in versions):
            raise ThreatModelViolation(
                f"attack {self.attack.card.name!r} changed in place what it was shown, such as the public parameters;"
                " it may only read them."
            )

    def _make_view(self, fakes: Profiles | None) -> AttackerView:
        """The view with whatever the card's knowledge needs, and nothing that it does not."""
        population, knows = self._population, self.attack.card.knowledge
        t, p = population.task, population.protocol
        surroundings = Surroundings(
            self._training.model,
            t.num_items,
            t.num_malicious,
            p.learning_rate,
            p.aggregation,
            t.targets,
            population.device,
            self._draws,
        )
        own, popularity, public = fakes, None, None
        if knows:
            pairs = torch.unique(t.train_user * t.num_items + t.train_item)
            user, item = pairs // t.num_items, pairs % t.num_items
            if Knowledge.ITEM_POPULARITY in knows:
                popularity = torch.bincount(item, minlength=t.num_items)
            if Knowledge.PUBLIC_INTERACTIONS in knows:
                public = self._public(user, item)
            if own is None and not population.injected:
                own = Profiles(*population.interactions_of_malicious(user, item))
        return AttackerView(
            self.attack.card,
            surroundings,
            own_data=own,
            item_popularity=popularity,
            public_interactions=public,
            cohort_size=population.cohort_size,
            malicious_per_round=population.cohort_size * len(population.malicious) / population.num_clients,
        )

    def _public(self, user: torch.Tensor, item: torch.Tensor) -> PublicInteractions:
        """ceil(xi |D_u+|) interactions of every user (ICDE'22 code), or the published sample of that size.

        Args:
            user, item: int64 [P], the distinct training pairs, sorted by user.
        """
        t, device, share = self._population.task, self._population.device, self.attack.public_fraction
        if share > 0 and t.public is not None:
            return PublicInteractions(*t.public, t.num_users)
        order = torch.argsort(torch.rand(len(user), generator=self._population.stream("public")).to(device))
        order = order[torch.argsort(user[order], stable=True)]
        count = torch.bincount(user, minlength=t.num_users)
        rank = torch.arange(len(user), device=device) - (count.cumsum(0) - count)[user]
        chosen = order[rank < torch.ceil(count * share - 1e-9)[user]]
        return PublicInteractions(user[chosen], item[chosen], t.num_users)


def _purified(purify: Purify, draws: torch.Generator, pixels: torch.Tensor) -> torch.Tensor:
    return purify(pixels, draws)


def _versions(params: PublicParams, other: torch.Tensor | None) -> Versions:
    """Of what an attack is shown, or its own clients upload, and what it must not write to."""
    watched = (params.items, *params.dense.values(), params.features, other)
    return [(value, value._version) for value in watched if value is not None]
