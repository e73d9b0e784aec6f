"""The attacker's side of a federation: the attack, what it sees, its clients' data, and the checks of what it returns."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch

from fedbench.entries.cards import AttackCard, Channel, Knowledge, declared, plain_card
from fedbench.errors import ThreatModelViolation, UserError
from fedbench.federation import boundary
from fedbench.federation.attack import Attack
from fedbench.federation.blocks import Room
from fedbench.federation.images import ItemImages, ReplacedImages
from fedbench.federation.local_training import LocalTraining
from fedbench.federation.model import PublicParams
from fedbench.federation.modes import Modes
from fedbench.federation.own_work import LentWork, OwnData, OwnWork
from fedbench.federation.population import Population
from fedbench.federation.simulated_server import SimulatedRound, SimulatedServer
from fedbench.federation.updates import Updates, no_updates
from fedbench.federation.view import AttackerView, Profiles, PublicInteractions, RoundState, Surroundings

Purify = Callable[["torch.Tensor", "torch.Generator"], "torch.Tensor"]

Versions = list[tuple["torch.Tensor", int]]
"""Tensors with how often each had been written to."""


class Adversary:
    """An attack at work in a federation. Making one starts the attack, and draws the training rows of fake users.

    What the attack may know is what the card of its class declared when it was first read; card, ``public_fraction`` and
    ``eps`` are read once, here. It is handed copies, and what it returns comes in through :mod:`fedbench.federation.boundary`
    as arrays. A refusal by the view ends the run even where the attack has swallowed it.

    In this process nothing stops an attack that goes around all this by Python's own means: stack frames, the garbage
    collector, reading data files, replacing functions of fedbench and torch and putting them back, threads, code that runs
    when the process ends. A process of its own does.

    Args:
        attack: a fresh one. population: the clients, none of them malicious where it only shows images.
        training: their devices. simulated: a server of its own, for an attack that knows the real one's rule; None: there is
            none.

    Attributes:
        card: of the attack. eps: how far its images may be from the original ones.
        view: what the attack sees before the first round. fakes: the profiles that it made up; None: none.
        refused: how many uploads the server has refused so far since they were not finite.
    """

    def __init__(
        self,
        attack: Attack,
        population: Population,
        training: LocalTraining,
        simulated: Callable[[], SimulatedServer] | None = None,
    ) -> None:
        self.attack, self.card = attack, declared(type(attack), AttackCard)
        self._source = f"attack {self.card.name!r}"
        if plain_card(type(attack).card, AttackCard, "attack") != self.card:
            raise ThreatModelViolation(f"{self._source} changed its card after it was read.")
        self._refusals: list[str] = []
        self.refused = 0
        self._population, self._training = population, training
        self._draws = population.stream("attack", on_device=True)
        self._collusion = population.stream("collusion")
        self.eps = float(Attack.eps.fget(attack)) if self.card.channel.shows_images else 0.0  # type: ignore[attr-defined]
        self._public_fraction = _fraction(attack)
        self._model = copy.deepcopy(training.model)
        simulates = Knowledge.DEFENSE in self.card.knowledge and self.card.channel.sends_gradients
        self._simulated = simulated() if simulated is not None and simulates else None
        self._features: tuple[torch.Tensor, torch.Tensor] | None = None
        self._images: tuple[ItemImages, ItemImages] | None = None
        self.fakes: OwnData | None = None
        self.view = self._make_view(None)
        with self._calling():
            attack.start(self.view)
        if population.injected or self.card.channel == Channel.PROFILE:
            with self._calling():
                made = attack.profiles(self.view)
            if made is not None:
                t = population.task
                profiles = boundary.profiles(made, self._source, t.num_malicious, t.num_items, population.device)
                self.view = self._make_view(Profiles(profiles.client.clone(), profiles.item.clone()))
                self.fakes = self._faked(profiles)

    def updates(self, index: torch.Tensor, honest: Updates, epoch: int, number: int) -> Updates:
        """Uploads of the malicious clients ``index``: honest or silent before the attack starts, then crafted.

        Uploads that are not finite are left out, and counted.

        Args:
            index: int64 [m]. honest: what the honest clients of the round upload. epoch, number: of the round.

        Raises:
            ThreatModelViolation: the attack reached for what its card does not declare, or broke another rule.
        """
        population, training = self._population, self._training
        clients = population.malicious[index].to(population.device, non_blocking=True)
        if epoch < population.protocol.attack_start:
            if population.injected:
                return no_updates(clients, training.params.dense, training.model.embedding_size)
            return self._own_work(self._genuine(), index).step().updates
        if self.card.channel == Channel.PROFILE:
            if self.fakes is None:
                raise ThreatModelViolation(f"{self._source} has channel 'profile' and no profiles.")
            return self._own_work(self.fakes, index).step().updates
        own = self.fakes if population.injected else self._genuine()
        work = None if own is None else self._own_work(own, index)
        t = population.task
        lent = None if work is None else LentWork(work, self._source, t.num_items)
        shown = honest.disclosed() if Knowledge.HONEST_UPDATES in self.card.knowledge else None
        params = self._copied(training.params)
        simulated = self._simulated
        simulation = None
        if simulated is not None:
            known = (work, lent) if Knowledge.OWN_DATA in self.card.knowledge else (None, None)
            simulation = SimulatedRound(simulated, *known, index, epoch, number)
        sampled = index.to(population.device, non_blocking=True, copy=True)
        state = RoundState(params, sampled, epoch, number, lent, shown, simulation=simulation)
        versions = _versions(params)
        with self._calling():
            crafted = self.attack.craft(self.view.in_round(state))
            given = [] if lent is None else lent.given
            made = boundary.plain_upload(crafted, self._source, given, frozenset(type(block) for block in honest.rows))
        self._check_untouched(versions)
        room = Room(
            self._source,
            clients,
            t.num_items,
            training.model.embedding_size,
            training.params.dense,
            population.most_samples,
            population.device,
            training.pull,
            [] if lent is None else lent.kept,
            None if work is None else work.drawn,
        )
        updates, finite = boundary.upload(made, room)
        if training.moves_late and work is not None:
            work.settle()  # a compromised user's own embedding follows its data, whatever is uploaded
        if finite is not None and not bool(finite.all()):
            self.refused += int((~finite).sum())
            updates = updates.keep(finite)
        return updates

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
        if not self.card.channel.shows_images or epoch < self._population.protocol.attack_start:
            return None
        nobody = self._population.task.targets[:0].clone()
        seen, shown = self._copied(params), self._copied_images(images)
        versions = _versions(seen, shown.pixels) + _versions(None, shown.there)
        network = getattr(getattr(shown.extract, "extractor", None), "network", None)
        if isinstance(network, torch.nn.Module):
            versions += [(value, value._version) for value in (*network.parameters(), *network.buffers())]
        own = functools.partial(_purified, purify, self._draws)
        state = RoundState(seen, nobody, epoch, number, purify=own)
        with self._calling():
            replaced = self.attack.perturb(shown, self.view.in_round(state))
        self._check_untouched(versions)
        if replaced is None:
            return None
        return boundary.images(replaced, images, self._population.task.targets, self.eps, self._source)

    @contextmanager
    def _calling(self) -> Iterator[None]:
        """A call of the attack's: what the view refused, and what it left otherwise in torch, ends the run."""
        before = Modes.now()
        try:
            yield
        except SystemExit:
            raise ThreatModelViolation(f"{self._source} tried to end the process.") from None
        finally:
            changed = before.restore()
        if self._refusals:
            raise ThreatModelViolation(self._refusals[0])
        if changed:
            raise ThreatModelViolation(f"{self._source} changed how torch computes for everybody: {changed}.")

    def _copied(self, params: PublicParams) -> PublicParams:
        """The parameters as they are shown; features, which are large and seldom change, are copied once."""
        features = None
        if params.features is not None:
            if self._features is None or self._features[0] is not params.features:
                self._features = params.features, params.features.clone()
            features = self._features[1]
        return PublicParams(
            params.items.clone(), {name: value.clone() for name, value in params.dense.items()}, features
        )

    def _copied_images(self, images: ItemImages) -> ItemImages:
        """The images as they are shown, and a network of their own that looks at them; copied once."""
        if self._images is None or self._images[0] is not images:
            there = None if images.there is None else images.there.clone()
            mine = replace(images, pixels=images.pixels.clone(), there=there, extract=copy.deepcopy(images.extract))
            self._images = images, mine
        return self._images[1]

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
                f"{self._source} changed in place what it was shown, such as the public parameters;"
                " it may only read them."
            )

    def _make_view(self, fakes: Profiles | None) -> AttackerView:
        """The view with whatever the card's knowledge needs, and nothing that it does not."""
        population, knows = self._population, self.card.knowledge
        t, p = population.task, population.protocol
        surroundings = Surroundings(
            self._model,
            t.num_items,
            t.num_malicious,
            p.learning_rate,
            p.aggregation,
            t.targets.clone(),
            population.device,
            self._draws,
            self._refusals.append,
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
            self.card,
            surroundings,
            own_data=own,
            item_popularity=popularity,
            subgroup_items=None if t.subgroup is None else t.subgroup.items.clone(),
            public_interactions=public,
            cohort_size=population.cohort_size,
            malicious_per_round=population.cohort_size * len(population.malicious) / population.num_clients,
        )

    def _public(self, user: torch.Tensor, item: torch.Tensor) -> PublicInteractions:
        """ceil(xi |D_u+|) interactions of every user (ICDE'22 code), or the published sample of that size.

        Args:
            user, item: int64 [P], the distinct training pairs, sorted by user.
        """
        t, device, share = self._population.task, self._population.device, self._public_fraction
        if share > 0 and t.public is not None:
            return PublicInteractions(t.public[0].clone(), t.public[1].clone(), t.num_users)
        order = torch.argsort(torch.rand(len(user), generator=self._population.stream("public")).to(device))
        order = order[torch.argsort(user[order], stable=True)]
        count = torch.bincount(user, minlength=t.num_users)
        rank = torch.arange(len(user), device=device) - (count.cumsum(0) - count)[user]
        chosen = order[rank < torch.ceil(count * share - 1e-9)[user]]
        return PublicInteractions(user[chosen], item[chosen], t.num_users)


def _purified(purify: Purify, draws: torch.Generator, pixels: torch.Tensor) -> torch.Tensor:
    return purify(pixels, draws)


def _fraction(attack: Attack) -> float:
    """The attack's ``public_fraction``, as a plain number."""
    found = attack.public_fraction
    if isinstance(found, bool) or not isinstance(found, int | float) or not 0 <= found <= 1:
        raise UserError(f"attack class {type(attack).__name__}: public_fraction must be a number from 0 to 1.")
    return float(found)


def _versions(params: PublicParams | None, other: torch.Tensor | None = None) -> Versions:
    """Of the copies that an attack is shown. Writing to them changes nothing but what it sees: a mistake that is told."""
    own = () if params is None else (params.items, *params.dense.values(), params.features)
    return [(value, value._version) for value in (*own, other) if value is not None]
