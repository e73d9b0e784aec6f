"""Spattack: few clients stop an item from learning, because few others have anything to say about it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Literal

import torch
from pydantic import Field

from fedbench.attacks.cluster_attack import shared_rows
from fedbench.attacks.own_data import random_profiles
from fedbench.entries.cards import AttackCard, Channel, Goal, Knowledge, Parameters
from fedbench.federation.attack import Attack
from fedbench.federation.updates import DenseGradients, Updates
from fedbench.federation.view import AttackerView, Profiles

CHUNK = 2**22
"""Entries of the [clients, M] table of random numbers that is drawn at once."""


class Spattack(Attack, ABC):
    """What the two variants have in common (Zhang et al., AAAI 2025): which items a malicious client sends a row for.

    ``dense``: all of them. ``sampled``: as many as the largest honest upload has, drawn for each client once, without
    replacement and with probability proportional to popularity (training interactions; the code counts test ones too); items
    that nobody has interacted with are never drawn, and those that no sampled client has drawn are not attacked.

    The published protocol averages each item's rows over the clients that sent one, and its clients have no data. Here an
    upload counts as its client's own number of samples, which injected clients have from a random profile.
    """

    class Params(Parameters):
        """Parameters."""

        items: Literal["dense", "sampled"] = Field(
            "dense", description="rows of all items, or of items drawn by popularity [code: both]"
        )
        items_per_client: int | None = Field(
            None,
            ge=1,
            description="items a client sends in mode sampled; None: those of the largest honest upload [code],"
            " as far as the attacker sees one",
        )
        poison_dense: bool = Field(
            False, description="poison dense gradients alike, instead of zeros [ours; published for mf only]"
        )
        profile_size: int = Field(30, ge=1, description="positives of an injected client's profile [ours; as RA: 30]")

    params: Params

    def start(self, view: AttackerView) -> None:
        self._chosen: torch.Tensor | None = None

    def profiles(self, view: AttackerView) -> Profiles:
        return random_profiles(view, self.params.profile_size)

    def craft(self, view: AttackerView) -> Updates:
        mask, weights = self._sent(view), view.model.samples(view.own_batch)
        coef, table, dense = self.poison(view, mask, weights)
        m = len(view.clients)
        if self.params.poison_dense:
            stacked = {name: value.expand(m, *value.shape) for name, value in dense.items()}
        else:
            stacked = {name: value.new_zeros(m, *value.shape) for name, value in view.params.dense.items()}
        return Updates(view.clients, (shared_rows(mask, coef, table),), DenseGradients.of(stacked), weights)

    @abstractmethod
    def poison(
        self, view: AttackerView, mask: torch.Tensor, weights: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, Mapping[str, torch.Tensor]]:
        """What the sampled clients send: rows ``coef[i, j] table[j]`` where ``mask``, and dense gradients, the same for all.

        Args:
            mask: bool [m, M]. weights: float32 [m], what their uploads count as.

        Returns:
            coef float32 [m, M], table float32 [M, d], and name -> float32 [*shape] (read with ``poison_dense`` only).
        """

    @abstractmethod
    def largest_upload(self, view: AttackerView) -> int:
        """Number of items of the largest honest upload, as far as the attacker knows. Asked for once."""

    def _sent(self, view: AttackerView) -> torch.Tensor:
        """Bool [m, M]: the items that each sampled client sends."""
        if self.params.items == "dense":
            return torch.ones(len(view.clients), view.num_items, dtype=torch.bool, device=view.device)
        if self._chosen is None:
            count = self.params.items_per_client or self.largest_upload(view)
            self._chosen = draw_by_popularity(view.item_popularity, view.num_malicious, count, view.generator)
        return self._chosen.index_select(0, view.clients)


class OmniscientSpattack(Spattack):
    """Spattack-O: the malicious rows of an item cancel the sum of the honest ones, so that it never learns.

    With honest uploads x_i of the round and the factors w_i with which the server adds uploads up (1, or numbers of samples
    where it takes weighted means), the malicious clients that send item j all send ``-B_j / sum of their w``,
    ``B_j = sum over honest i of w_i x_ij``. In mode ``dense`` the aggregated gradient of all items is then 0.

    Published for item-wise means, where it reads ``-B_j / m``. B is what honest clients upload before the server clips or
    filters; a server that clips the malicious rows keeps them from cancelling all of it.
    """

    card = AttackCard(
        name="spattack-o",
        title="Spattack, omniscient",
        paper="Zhang et al., AAAI 2025",
        goal=Goal.DEGRADE,
        channel=Channel.GRADIENT,
        knowledge=frozenset({Knowledge.OWN_DATA, Knowledge.HONEST_UPDATES, Knowledge.ITEM_POPULARITY}),
        notes="Sees what the honest clients of a round upload: an upper bound, not an attack that can be mounted. Of its own"
        " data it uses the number of samples alone, and popularity only when items are sampled.",
    )

    def poison(
        self, view: AttackerView, mask: torch.Tensor, weights: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, Mapping[str, torch.Tensor]]:
        honest = view.honest_updates
        if view.aggregation == "weighted":
            honest = honest.scaled(honest.weights)
        else:
            weights = torch.ones_like(weights)
        # Sums of counts: 1 at the least, unless they are of clients without data, who count as nothing whatever they send.
        behind = (mask * weights[:, None]).sum(0).clamp(min=1)
        total = honest.sum_rows(view.num_items, view.embedding_size)
        dense: dict[str, torch.Tensor] = {}
        if self.params.poison_dense and view.params.dense:
            every = weights.sum().clamp(min=1)
            dense = {name: -value / every for name, value in honest.dense.total().items()}
        return (-1 / behind).expand(mask.shape), total, dense

    def largest_upload(self, view: AttackerView) -> int:
        """That of the round at hand: in the published protocol all clients take part in each."""
        client = torch.cat([view.clients.new_zeros(0), *(block.client for block in view.honest_updates.rows)])
        return int(torch.bincount(client, minlength=1).max())


class IgnorantSpattack(Spattack):
    """Spattack-L: every malicious client sends the same random rows in every round, a drift without end.

    Row j is ``scale`` times a draw from N(0, 1)^d, made once. Cold items, about which few honest clients have anything to
    say, drift fastest.
    """

    card = AttackCard(
        name="spattack-l",
        title="Spattack, without knowledge",
        paper="Zhang et al., AAAI 2025",
        goal=Goal.DEGRADE,
        channel=Channel.GRADIENT,
        knowledge=frozenset({Knowledge.OWN_DATA, Knowledge.ITEM_POPULARITY}),
        notes="Of its own data it uses the number of samples alone, and popularity only when items are sampled.",
    )

    class Params(Spattack.Params):
        """Parameters."""

        scale: float = Field(1.0, gt=0, description="standard deviation of the rows [code: 1]")

    params: IgnorantSpattack.Params

    def start(self, view: AttackerView) -> None:
        super().start(view)
        drawn = torch.randn(view.num_items, view.embedding_size, generator=view.generator, device=view.device)
        self.drift = self.params.scale * drawn
        self._dense: dict[str, torch.Tensor] | None = None

    def poison(
        self, view: AttackerView, mask: torch.Tensor, weights: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, Mapping[str, torch.Tensor]]:
        if self._dense is None:  # no parameters are known before the first round
            self._dense = {
                name: self.params.scale * torch.randn(value.shape, generator=view.generator, device=view.device)
                for name, value in (view.params.dense.items() if self.params.poison_dense else ())
            }
        return torch.ones_like(mask, dtype=torch.float32), self.drift, self._dense

    def largest_upload(self, view: AttackerView) -> int:
        """From its own clients: twice as many items as the most active of them has, one negative for each positive."""
        return 2 * int(torch.bincount(view.own_data.client, minlength=1).max())


def draw_by_popularity(popularity: torch.Tensor, rows: int, count: int, generator: torch.Generator) -> torch.Tensor:
    """Subsets of the items, one for each row, drawn item by item with probability proportional to popularity.

    Args:
        popularity: int64 [M]. rows: how many subsets. count: size of each; all items of popularity above 0 when fewer.
        generator: on the device of ``popularity``.

    Returns:
        bool [rows, M].
    """
    num_items = len(popularity)
    chosen = torch.zeros(rows, num_items, dtype=torch.bool, device=popularity.device)
    count = min(count, int((popularity > 0).sum()))
    if not count:
        return chosen
    step = max(1, CHUNK // num_items)
    for k in range(0, rows, step):
        part = chosen[k : k + step]
        drawn = torch.multinomial(popularity.float().expand(len(part), -1), count, generator=generator)
        part.scatter_(1, drawn, value=True)
    return chosen
