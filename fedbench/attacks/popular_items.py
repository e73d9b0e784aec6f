"""PIECK's popular item mining: which items are popular shows in how far their embeddings move.

Zhang et al. (ICDE 2024), Algorithm 1. The attack's two variants and PIECK's own defense share it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import Field

from fedbench.attacks.base import Attack
from fedbench.attacks.uploads import target_updates
from fedbench.cards import Parameters
from fedbench.federation.updates import Updates
from fedbench.federation.view import AttackerView


def delta_norm(old: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
    """``|V_j^new - V_j^old|_2`` of every item: float32 [M], for old and new float32 [M, d] (ICDE'24, Algorithm 1)."""
    norms: torch.Tensor = (new - old).norm(dim=-1)
    return norms


@dataclass(frozen=True)
class _History:
    """What clients that took part in the same rounds know: the last embeddings seen, and the sums of differences."""

    participations: int = 0
    last: torch.Tensor | None = None
    score: torch.Tensor | None = None


class PopularItemMiner:
    """What each of many clients finds popular, from the public embeddings of the rounds in which it took part.

    At its r-th participation a client receives V^(r). It ranks the items by ``sum over r = 2 .. R + 1 of
    |V_j^(r) - V_j^(r-1)|_2`` and keeps the top N for ever. Clients that took part in the same rounds find the same: the
    differences are taken, and an old V kept, once for each distinct history that a client still is at. When all clients
    have mined, a round is a look-up in a table and nothing is copied from the device.

    Args:
        num_clients: how many clients. count: N. differences: R. exclude: int64 [T], items that are never mined.
        least: rank by the smallest instead; excluded items then come first (a slip of the published NCF code).
        num_items: M. device: where the embeddings live.
    """

    def __init__(
        self,
        num_clients: int,
        count: int,
        differences: int,
        exclude: torch.Tensor,
        least: bool,
        num_items: int,
        device: torch.device,
    ) -> None:
        self.differences, self.exclude, self.least = differences, exclude, least
        lowest = self._top(torch.zeros(num_items, device=device), count)
        self._popular = lowest.repeat(num_clients, 1)
        self._mined = torch.zeros(num_clients, dtype=torch.bool, device=device)
        self._mining = dict.fromkeys(range(num_clients), 0)
        self._histories = {0: _History()}
        self._next = 1

    def observe(self, clients: torch.Tensor, items: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Let ``clients``, int64 [m], take part in a round with the embeddings ``items``, float32 [M, d].

        ``items`` is kept as it is, so it must not be changed in place afterwards.

        Returns:
            popular int64 [m, N], each client's popular items, most popular first, and mined bool [m], whether it has
            found them; until then they are the first N items by id.
        """
        if self._mining:
            self._advance(clients.tolist(), items)
        return self._popular[clients], self._mined[clients]

    def _advance(self, clients: list[int], items: torch.Tensor) -> None:
        """Move the clients that are still mining on by one participation."""
        alike: dict[int, list[int]] = {}
        for client in clients:
            if client in self._mining:
                alike.setdefault(self._mining[client], []).append(client)
        for number, members in alike.items():
            before = self._histories[number]
            score = before.score
            if before.last is not None:
                moved = delta_norm(before.last, items)
                score = moved if score is None else score + moved
            if before.participations == self.differences and score is not None:
                index = torch.tensor(members, device=items.device)
                self._popular[index] = self._top(score, self._popular.shape[1])
                self._mined[index] = True
                for client in members:
                    del self._mining[client]
            else:
                self._histories[self._next] = _History(before.participations + 1, items, score)
                self._mining.update(dict.fromkeys(members, self._next))
                self._next += 1
        used = set(self._mining.values())
        self._histories = {number: kept for number, kept in self._histories.items() if number in used}

    def _top(self, score: torch.Tensor, count: int) -> torch.Tensor:
        """int64 [N]: the items with the highest (or lowest) score; ties: lowest id first."""
        score = score.index_fill(0, self.exclude, -torch.inf)
        return torch.argsort(-score if self.least else score, descending=True, stable=True)[:count]


class MiningParameters(Parameters):
    """How both variants of PIECK mine, and what they do with several targets."""

    mining_differences: int = Field(1, ge=1, description="R, differences added up [paper: 2; both codes: 1]")
    mining_order: Literal["most", "least"] = Field(
        "most", description="items that moved most [paper, mf code], or least, targets first [ncf code of UEA, a slip]"
    )
    before_mining: Literal["zero", "arbitrary"] = Field(
        "zero",
        description="until a client has mined: nothing [paper], or the first N items by id [code: arbitrary ones]",
    )
    multi_target: Literal["together", "copy"] = Field(
        "copy", description="several targets: one loss over all, or the first one's row for each [Table VII: copy]"
    )


class Pieck(Attack, ABC):
    """What IPE and UEA have in common: mine, then craft each client's rows from its own list of popular items."""

    params: MiningParameters

    @abstractmethod
    def list_length(self, view: AttackerView) -> int:
        """N."""

    @abstractmethod
    def gradients(
        self, view: AttackerView, popular: torch.Tensor, targets: torch.Tensor
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor] | None]:
        """The gradients of the variant's loss.

        Args:
            view: the round. popular: int64 [m, N]. targets: int64 [T].

        Returns:
            rows float32 [m, T, d], and dense name -> float32 [m, *shape], or None where nothing dense is poisoned.
        """

    def start(self, view: AttackerView) -> None:
        self.count = min(self.list_length(view), view.num_items - len(view.targets))
        least = self.params.mining_order == "least"
        self.miner = PopularItemMiner(
            view.num_malicious,
            self.count,
            self.params.mining_differences,
            view.targets,
            least,
            view.num_items,
            view.device,
        )

    def craft(self, view: AttackerView) -> Updates:
        popular, mined = self.miner.observe(view.clients, view.params.items)
        targets = view.targets[:1] if self.params.multi_target == "copy" else view.targets
        rows, dense = self.gradients(view, popular, targets)
        if self.params.before_mining == "zero":
            silent = ~mined
            rows = rows.masked_fill(silent[:, None, None], 0)
            if dense is not None:
                dense = {
                    name: value.masked_fill(silent.view(-1, *[1] * (value.dim() - 1)), 0)
                    for name, value in dense.items()
                }
        return target_updates(view, rows.expand(-1, len(view.targets), -1), dense)
