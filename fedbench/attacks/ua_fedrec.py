"""UA-FedRec: pushes each item away from its nearest and towards its farthest, with a large upload of many samples."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field

from fedbench.attacks.clean_statistics import item_norms, spread, upload_of_all_items
from fedbench.attacks.own_data import random_profiles
from fedbench.entries.cards import AttackCard, Channel, Goal, Knowledge, Parameters
from fedbench.federation.attack import Attack
from fedbench.federation.updates import Updates
from fedbench.federation.view import AttackerView, Profiles

SCORES_AT_ONCE = 2**22
"""Entries of the similarity matrix that are held at a time."""


class UAFedRec(Attack):
    """Three poisoned parts of one upload, the same for every client of a round (Yi et al., KDD 2023).

    With n(j) and q(j) the items of largest and smallest inner product with item j (not j itself, lowest id of equal ones),
    found again every ``refresh`` rounds, and mu, sigma over the honest uploads of S of the attacker's clients:

    1. Items: ``G = dL/dV``, ``L = (1/B) sum_j [(1/d)|v_j - v_q(j)|^2 - (1/d)|v_j - v_n(j)|^2]`` by all three roles, rescaled
       to the norm ``mu + f sigma`` of the honest gradients by all items, ``G (mu + f sigma) / (|G| + 1e-6)``.
    2. Dense parameters: ``mu - f sign(mu) sigma`` by coordinate, ``sign(0) = 0``. (The paper's user model; mf has none.)
    3. Reported samples: ``floor(mu + f sigma)`` of the honest numbers; acts only where the server weighs by them.

    Readings: the paper means the similar to come apart. Its code uploads the change of parameters where the server
    expects a gradient, which does the opposite under a server that descends (``sign=-1``). The code sums the means over
    batches of B = 128 items; with ``norm="none"`` B sets the strength, else it cancels but for the 1e-6. The paper is
    about news recommendation, where V comes from texts; here it is the table of item embeddings.
    """

    card = AttackCard(
        name="ua-fedrec",
        title="UA-FedRec",
        paper="Yi et al., KDD 2023 (arXiv 2202.06701)",
        goal=Goal.DEGRADE,
        channel=Channel.GRADIENT,
        knowledge=frozenset({Knowledge.OWN_DATA}),
        notes="Adapted from news recommendation. Part of its strength is a false number of samples, which acts only under"
        " aggregation by weights.",
    )

    class Params(Parameters):
        """Parameters, each part's factor f among them."""

        norm_factor: float = Field(3.0, ge=0, description="f of the items' norm [code: 3]")
        dense_factor: float = Field(3.0, ge=0, description="f of the dense parameters [code: 3]")
        quantity_factor: float = Field(3.0, ge=0, description="f of the reported samples; 0: honest mean [code: 3]")
        norm: Literal["rescale", "none"] = Field(
            "rescale", description="of the items' gradient: as above, or as it is [code: both]"
        )
        sign: Literal[1, -1] = Field(
            1, description="of the items' gradient: 1 as the paper means it, -1 as its code does"
        )
        refresh: int = Field(
            100, ge=1, description="rounds after which nearest and farthest are found again [code: 100]"
        )
        batch_size: int = Field(128, ge=1, description="B above [code: 128]")
        colluders: int = Field(
            50, ge=1, description="S, clients whose honest uploads are seen, all if fewer [code: 50]"
        )
        profile_size: int = Field(
            30, ge=1, description="items of an injected client's random profile [ours, as p2: 30]"
        )

    params: UAFedRec.Params

    def start(self, view: AttackerView) -> None:
        self._extremes: tuple[torch.Tensor, torch.Tensor] | None = None
        self._found = 0

    def profiles(self, view: AttackerView) -> Profiles:
        return random_profiles(view, self.params.profile_size)

    def craft(self, view: AttackerView) -> Updates:
        p = self.params
        # Statistics first: the honest step moves the clients' own embeddings under gradient descent.
        clean = view.colluding(p.colluders)
        view.honest()
        if self._extremes is None or view.round - self._found >= p.refresh:
            self._extremes, self._found = extremes(view.params.items), view.round
        gradient = p.sign * similarity_gradient(view.params.items, *self._extremes, p.batch_size)
        if p.norm == "rescale":
            norms = spread(item_norms(clean))
            gradient *= (norms.mean + p.norm_factor * norms.std) / (gradient.norm() + 1e-6)
        dense = {}
        for name, value in clean.dense.stacked().items():
            seen = spread(value)
            dense[name] = seen.mean - p.dense_factor * seen.mean.sign() * seen.std
        samples = spread(clean.weights)
        reported = torch.floor(samples.mean + p.quantity_factor * samples.std)
        return upload_of_all_items(view, gradient, dense, reported.repeat(len(view.clients)))


def extremes(items: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """For every item the other one of largest, and of smallest, inner product with it: two int64 [M].

    Equal ones: the lowest id. A single item has only itself. O(M^2 d) time, made for some items at a time.

    Args:
        items: float32 [M, d].
    """
    nearest, farthest = [], []
    step = max(1, SCORES_AT_ONCE // len(items))
    for start in range(0, len(items), step):
        scores = items[start : start + step] @ items.T
        own = scores.diagonal(start)
        own.fill_(-torch.inf)
        nearest.append(scores.argmax(1))
        own.fill_(torch.inf)
        farthest.append(scores.argmin(1))
    return torch.cat(nearest), torch.cat(farthest)


def similarity_gradient(
    items: torch.Tensor, nearest: torch.Tensor, farthest: torch.Tensor, batch_size: int
) -> torch.Tensor:
    """float32 [M, d]: the gradient of L above by the item embeddings.

    Args:
        items: float32 [M, d]. nearest, farthest: int64 [M], n and q. batch_size: B.
    """
    to_farthest = items - items.index_select(0, farthest)
    to_nearest = items - items.index_select(0, nearest)
    gradient = to_farthest - to_nearest
    gradient.index_add_(0, farthest, to_farthest, alpha=-1)
    gradient.index_add_(0, nearest, to_nearest)
    return gradient.mul_(2 / (batch_size * items.shape[1]))
