"""What an attacker sees: exactly what its card declares, and an error for anything else.

The view holds copies of granted things only: whatever is written to them, the federation's own stay as they are. Asking for
an attribute that the card does not grant raises :class:`ThreatModelViolation`; the run ends as ``failed`` even if the attack
goes on as if nothing had happened. Code that runs in the same process can look beyond any view, through stack frames or
the garbage collector: only an attack in a process of its own cannot.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NoReturn, Protocol

import torch

from fedbench.entries.cards import AttackCard, Knowledge
from fedbench.errors import ThreatModelViolation
from fedbench.federation.batch import Batch
from fedbench.federation.model import PublicParams, Recommender
from fedbench.federation.updates import Updates

NO_DATA = "but its clients are injected users, for whom profiles() has made no data"
"""Why an attack may know its clients' data, and there are none."""


@dataclass(frozen=True)
class Profiles:
    """Interactions of malicious clients.

    Attributes:
        client: int64 [n], index among the malicious clients, 0 to m_tot - 1.
        item: int64 [n]; no (client, item) occurs twice.
    """

    client: torch.Tensor
    item: torch.Tensor


@dataclass(frozen=True)
class HonestStep:
    """What the sampled malicious clients would have uploaded honestly (knowledge ``own_data``).

    Attributes:
        updates: their honest uploads, clients in the order of ``view.clients``.
        users: float32 [m, d], their own embeddings before the step.
    """

    updates: Updates
    users: torch.Tensor


@dataclass(frozen=True)
class PublicInteractions:
    """The public share of the training interactions (knowledge ``public_interactions``).

    Attributes:
        user: int64 [n]. item: int64 [n]. num_users: number of genuine users N.
    """

    user: torch.Tensor
    item: torch.Tensor
    num_users: int


@dataclass(frozen=True)
class Surroundings:
    """What every attacker knows before training: the system's public description and its own plan.

    Attributes:
        model: the recommender's structure.
        num_items: M. num_malicious: m_tot. learning_rate: the clients' and the server's.
        aggregation: ``"sum"``, ``"mean"`` or ``"weighted"``. targets: int64 [T]. device: where tensors live.
        generator: the attack's own random stream, on ``device``.
        refused: told of everything that the attack asks for in vain.
    """

    model: Recommender
    num_items: int
    num_malicious: int
    learning_rate: float
    aggregation: str
    targets: torch.Tensor
    device: torch.device
    generator: torch.Generator
    refused: Callable[[str], None] = lambda reason: None


class OwnSteps(Protocol):
    """Honest work on the attacker's own data in one round."""

    def step(self) -> HonestStep:
        """The honest step of the sampled clients; made once a round."""

    def batch(self) -> Batch:
        """Their training rows."""

    def users(self) -> torch.Tensor:
        """float32 [m, d]: what scores items for them (:meth:`Recommender.represent`)."""

    def trained(self, batch: Batch, move: bool = False) -> Updates:
        """What they would upload honestly had they these rows instead; with ``move`` it moves their own embeddings."""

    def colluding(self, count: int) -> Updates:
        """The honest uploads, at the current parameters, of ``count`` of all malicious clients, drawn anew."""


@dataclass(frozen=True)
class RoundState:
    """What an attacker sees of the round under way.

    Attributes:
        params: a copy of the public parameters as received; it must not be changed.
        clients: int64 [m], which malicious clients were sampled, 0 to m_tot - 1.
        epoch: from 1. round: from 0, over the whole run.
        own: what those clients' own data give, made when asked for; None without interactions of their own.
        honest_updates: a copy of what the honest clients of the round upload; None unless the card declares that
            knowledge.
        purify: what the server makes of images, uint8 [k, 3, H, W]; None unless the card declares that knowledge.
        simulation: of the server's rule; None unless the card declares that knowledge, and to an attack in a process of its
            own.
    """

    params: PublicParams
    clients: torch.Tensor
    epoch: int
    round: int
    own: OwnSteps | None = None
    honest_updates: Updates | None = None
    purify: Callable[[torch.Tensor], torch.Tensor] | None = None
    simulation: Simulation | None = None


class Simulation(Protocol):
    """A round of a server of the attacker's own that has the rule of the real one (knowledge ``defense``).

    Rules with a memory remember the simulated rounds alone that they were told to remember.
    """

    def honest(self) -> Updates:
        """What the sampled clients would upload honestly where the defense has hooks on the clients' side, too."""

    def begin(self, honest: int) -> None:
        """Draw the honest clients of the simulated cohort, for whom the attacker's own stand."""

    def gradient(self, crafted: Updates | None, *, ruled: bool = True, remembered: bool = False) -> PublicParams:
        """What the server makes of the uploads of the honest clients and ``crafted`` ones.

        Args:
            crafted: of some of the sampled clients, in order from the first; None: of nobody.
            ruled: whether there is a defense; else the server's own sum or mean. remembered: by a rule with a memory.
        """


class AttackerView:
    """The eyes of an attack. Always granted: ``model``, ``num_items``, ``num_malicious``, ``learning_rate``,
    ``aggregation``, ``targets``, ``device``, ``generator``, ``embedding_size``; in a round also ``params``,
    ``clients``, ``epoch``, ``round``. Only with the knowledge of the same name on the card: ``item_popularity``,
    ``subgroup_items``, ``public_interactions``, ``cohort_size`` with ``malicious_per_round``, ``honest_updates``, ``purify``
    and ``simulation`` (knowledge ``defense``), and ``own_data`` with ``honest``, ``own_batch``, ``own_users``, ``trained``
    and ``colluding``.
    """

    def __init__(
        self,
        card: AttackCard,
        surroundings: Surroundings,
        *,
        own_data: Profiles | None = None,
        item_popularity: torch.Tensor | None = None,
        subgroup_items: torch.Tensor | None = None,
        public_interactions: PublicInteractions | None = None,
        cohort_size: int | None = None,
        malicious_per_round: float | None = None,
        state: RoundState | None = None,
    ) -> None:
        self._card = card
        self._surroundings = surroundings
        self._state = state
        knows = card.knowledge
        self._own_data = own_data if Knowledge.OWN_DATA in knows else None
        self._item_popularity = item_popularity if Knowledge.ITEM_POPULARITY in knows else None
        self._subgroup_items = subgroup_items if Knowledge.SUBGROUP_ITEMS in knows else None
        self._public_interactions = public_interactions if Knowledge.PUBLIC_INTERACTIONS in knows else None
        self._cohort_size = cohort_size if Knowledge.COHORT_SIZE in knows else None
        self._malicious_per_round = malicious_per_round if Knowledge.COHORT_SIZE in knows else None
        if state is not None:
            self._state = replace(
                state,
                own=state.own if Knowledge.OWN_DATA in knows else None,
                honest_updates=state.honest_updates if Knowledge.HONEST_UPDATES in knows else None,
                purify=state.purify if Knowledge.DEFENSE in knows else None,
                simulation=state.simulation if Knowledge.DEFENSE in knows else None,
            )

    def in_round(self, state: RoundState) -> AttackerView:
        """The same view in the round ``state``."""
        return self._of(self._card, state)

    def narrowed(self, card: AttackCard) -> AttackerView:
        """What another attack sees of it, by its ``card``, which may declare no more than this one's does."""
        for knowledge in card.knowledge:
            self._needs(knowledge, f"the knowledge of attack {card.name!r}")
        return self._of(card, self._state)

    def _of(self, card: AttackCard, state: RoundState | None) -> AttackerView:
        return AttackerView(
            card,
            self._surroundings,
            own_data=self._own_data,
            item_popularity=self._item_popularity,
            subgroup_items=self._subgroup_items,
            public_interactions=self._public_interactions,
            cohort_size=self._cohort_size,
            malicious_per_round=self._malicious_per_round,
            state=state,
        )

    # Always granted.

    @property
    def model(self) -> Recommender:
        return self._surroundings.model

    @property
    def embedding_size(self) -> int:
        return self._surroundings.model.embedding_size

    @property
    def num_items(self) -> int:
        return self._surroundings.num_items

    @property
    def num_malicious(self) -> int:
        return self._surroundings.num_malicious

    @property
    def learning_rate(self) -> float:
        return self._surroundings.learning_rate

    @property
    def aggregation(self) -> str:
        return self._surroundings.aggregation

    @property
    def targets(self) -> torch.Tensor:
        return self._surroundings.targets

    @property
    def device(self) -> torch.device:
        return self._surroundings.device

    @property
    def generator(self) -> torch.Generator:
        return self._surroundings.generator

    # In a round.

    @property
    def params(self) -> PublicParams:
        return self._round("params").params

    @property
    def clients(self) -> torch.Tensor:
        return self._round("clients").clients

    @property
    def epoch(self) -> int:
        return self._round("epoch").epoch

    @property
    def round(self) -> int:
        return self._round("round").round

    # Only with the knowledge declared.

    @property
    def own_data(self) -> Profiles:
        """Interactions of the attacker's own clients."""
        self._needs(Knowledge.OWN_DATA, "own_data")
        if self._own_data is None:
            self._refuse(f"asked for own_data, {NO_DATA}")
        return self._own_data

    def honest(self) -> HonestStep:
        """What the sampled clients would have uploaded honestly."""
        return self._own("honest").step()

    @property
    def own_batch(self) -> Batch:
        """The training rows of the sampled clients."""
        return self._own("own_batch").batch()

    @property
    def own_users(self) -> torch.Tensor:
        """float32 [m, d]: what scores items for the sampled clients: ``model.score_all(params, own_users)``."""
        return self._own("own_users").users()

    def trained(self, batch: Batch, move: bool = False) -> Updates:
        """What the sampled clients would upload honestly, had they the training rows ``batch``.

        The rows must lie as in ``own_batch``. With ``move`` the clients' own embeddings follow these rows in this round,
        and not those that they have; without, they do not move.

        Raises:
            ThreatModelViolation: with ``move``, when they have moved in this round already (after ``honest``).
        """
        return self._own("trained").trained(batch, move)

    def colluding(self, count: int) -> Updates:
        """The honest uploads, at the current parameters, of ``count`` (or all) of the attacker's clients.

        They are drawn anew at each call from all malicious clients, sampled in this round or not: they collude.
        """
        return self._own("colluding").colluding(count)

    @property
    def honest_updates(self) -> Updates:
        """What the honest clients of this round upload."""
        self._needs(Knowledge.HONEST_UPDATES, "honest_updates")
        updates = self._round("honest_updates").honest_updates
        if updates is None:
            self._refuse("asked for honest_updates where nobody uploads")
        return updates

    def purify(self, pixels: torch.Tensor) -> torch.Tensor:
        """What the server would make of images, uint8 [k, 3, H, W], with draws of the attacker's own."""
        self._needs(Knowledge.DEFENSE, "purify")
        purify = self._round("purify").purify
        if purify is None:
            self._refuse("asked for purify where no images are shown")
        return purify(pixels)

    @property
    def simulation(self) -> Simulation:
        """A round of a server of the attacker's own that has the rule of the real one."""
        self._needs(Knowledge.DEFENSE, "simulation")
        simulation = self._round("simulation").simulation
        if simulation is None:
            self._refuse("asked for a simulation of the server's rule, which is not given to it here")
        return simulation

    @property
    def item_popularity(self) -> torch.Tensor:
        """int64 [M]: training interactions of every item."""
        self._needs(Knowledge.ITEM_POPULARITY, "item_popularity")
        assert self._item_popularity is not None
        return self._item_popularity

    @property
    def subgroup_items(self) -> torch.Tensor:
        """int64 [n]: the items that all users of the subgroup have."""
        self._needs(Knowledge.SUBGROUP_ITEMS, "subgroup_items")
        if self._subgroup_items is None:
            self._refuse("asked for the items of a subgroup, and this protocol has none")
        return self._subgroup_items

    @property
    def public_interactions(self) -> PublicInteractions:
        self._needs(Knowledge.PUBLIC_INTERACTIONS, "public_interactions")
        assert self._public_interactions is not None
        return self._public_interactions

    @property
    def cohort_size(self) -> int:
        """Clients in a full round."""
        self._needs(Knowledge.COHORT_SIZE, "cohort_size")
        assert self._cohort_size is not None
        return self._cohort_size

    @property
    def malicious_per_round(self) -> float:
        """Malicious clients expected in a full round."""
        self._needs(Knowledge.COHORT_SIZE, "malicious_per_round")
        assert self._malicious_per_round is not None
        return self._malicious_per_round

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        self._refuse(f"reached for {name!r}, which no attacker is given")

    def _needs(self, knowledge: Knowledge, name: str) -> None:
        if knowledge not in self._card.knowledge:
            declared = ", ".join(sorted(self._card.knowledge)) or "nothing"
            self._refuse(f"reached for {name!r} (knowledge {knowledge.value!r}); its card declares {declared}")

    def _own(self, name: str) -> OwnSteps:
        self._needs(Knowledge.OWN_DATA, name)
        own = self._round(name).own
        if own is None:
            self._refuse(f"asked for {name}, {NO_DATA}")
        return own

    def _round(self, name: str) -> RoundState:
        if self._state is None:
            self._refuse(f"reached for {name!r} outside a round")
        return self._state

    def _refuse(self, what: str) -> NoReturn:
        reason = f"attack {self._card.name!r} {what}."
        self._surroundings.refused(reason)
        raise ThreatModelViolation(reason)
