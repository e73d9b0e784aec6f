"""A server of the attacker's own: the rule of the real one, made anew, on what the attacker's own clients upload."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch

from fedbench.errors import ThreatModelViolation
from fedbench.federation import server
from fedbench.federation.clients import TrainingRows
from fedbench.federation.defense import Defense, ServerView
from fedbench.federation.local_training import LocalTraining
from fedbench.federation.model import PublicParams
from fedbench.federation.optimizers import optimizer
from fedbench.federation.own_work import LentWork, OwnData, OwnWork
from fedbench.federation.population import Population
from fedbench.federation.updates import DenseGradients, Updates, concat


class SimulatedServer:
    """The real server's rule in the hands of an attacker who knows it (knowledge ``defense``).

    Defense and optimizer are new ones with the parameters of the real ones: they have no memory but of the rounds that the
    attacker has had them remember, and draw from a stream of their own. Nothing of the real ones' state is in them.

    Args:
        defense: the real one, of which another is made. malicious_ratio: what the real one is told of it; None: nothing.
        population, training: of the federation.

    Raises:
        UserError: of this defense there can be no other.
    """

    def __init__(
        self, defense: Defense, malicious_ratio: float | None, population: Population, training: LocalTraining
    ) -> None:
        p = population.protocol
        self.defense, self.optimizer = defense.fresh(), optimizer(p.server_optimizer, p.learning_rate)
        self.draws = population.stream("simulated server", on_device=True)
        self.order = population.stream("stand-ins")
        self.population, self.training, self.malicious_ratio = population, training, malicious_ratio
        self._rows: dict[int, TrainingRows] = {}

    def rows(self, data: OwnData, number: int) -> TrainingRows:
        """Training rows of the attacker's clients with other negatives, drawn once for every ``number`` from 1."""
        if number not in self._rows:
            place = torch.full((data.num_owners,), -1, device=data.user.device)
            place[data.owner.to(place.device)] = torch.arange(len(data.owner), device=place.device)
            user = place[data.user]
            own = user >= 0
            self._rows[number] = self.population.rows_of_stand_ins(user[own], data.item[own], number)
        return self._rows[number]


class SimulatedRound:
    """A round of the simulated server (:class:`fedbench.federation.view.Simulation`).

    Args:
        simulated: the server. work: of the attacker's clients, and ``lent``, the same in the attack's hands; None: they have
            no data. index: int64 [m], on the CPU, which of them were sampled. epoch, number: of the round.
    """

    def __init__(
        self,
        simulated: SimulatedServer,
        work: OwnWork | None,
        lent: LentWork | None,
        index: torch.Tensor,
        epoch: int,
        number: int,
    ) -> None:
        self._server, self._work, self._lent, self._index = simulated, work, lent, index
        self._epoch, self._number = epoch, number
        self._honest: Updates | None = None

    def honest(self) -> Updates:
        work, here = self._data(), self._server
        assert self._lent is not None
        return self._lent.lent(work.defended(here.defense, self._view(here.draws)))

    def begin(self, honest: int) -> None:
        work, here = self._data(), self._server
        made = work.stand_ins(honest, here.defense, self._view(here.draws), here.rows, here.order)
        # Written out once, for all that is tried.
        self._honest = replace(made, rows=(made.all_rows(),), dense=DenseGradients.of(made.dense.stacked()))

    def gradient(self, crafted: Updates | None, *, ruled: bool = True, remembered: bool = False) -> PublicParams:
        if self._honest is None:
            raise ThreatModelViolation("no simulated round has begun.")
        here, received, params = self._server, self._honest, self._server.training.params
        if crafted is not None:
            # Behind every stand-in, each with an id of its own: rules that remember clients know them again.
            last = int(received.clients.max()) // len(here.population.malicious) + 1
            ids = self._index[: len(crafted.clients)].to(received.clients.device)
            own = replace(crafted, clients=last * len(here.population.malicious) + ids)
            received = concat([received, own])
        p = here.population.protocol
        if p.row_clip is not None:
            received = server.clip_rows(received, p.row_clip)
        if not ruled:
            return server.aggregate(received, params, p.aggregation)
        defense = here.defense if remembered else copy.deepcopy(here.defense)
        view = self._view(here.draws if remembered else here.draws.clone_state())
        kept = defense.filter(received, view)
        gradient = defense.aggregate(kept, view)
        if gradient is None:
            gradient = server.aggregate(kept.settled(), params, p.aggregation)
        if remembered:
            here.optimizer.step(params, gradient)  # for its state; its parameters are the real ones in every round
        return gradient

    def _data(self) -> OwnWork:
        if self._work is None:
            raise ThreatModelViolation("nobody can stand for honest clients: the attacker's clients have no data.")
        return self._work

    def _view(self, draws: torch.Generator) -> ServerView:
        here = self._server
        p = here.population.protocol
        return ServerView(
            here.training.params,
            p.learning_rate,
            p.aggregation,
            here.malicious_ratio,
            self._epoch,
            self._number,
            draws,
            here.optimizer,
            None,
            here.training.model,
        )
