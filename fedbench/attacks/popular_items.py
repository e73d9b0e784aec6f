"""PIECK's popular item mining: which items are popular shows in how far their embeddings move.

Zhang et al. (ICDE 2024), Algorithm 1. The attack's two variants and PIECK's own defense share it.
"""

from __future__ import annotations

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
    return (new - old).norm(dim=-1)


@dataclass(frozen=True)
class _History:
    """What clients that took part in the same rounds know: the last embeddings seen, and the sums of differences."""

    participations: int = 0
    last: torch.Tensor | None = None
    score: torch.Tensor | None = None
    found: torch.Tensor | None = None


class PopularItemMiner:
    """What each of many clients finds popular, from the public embeddings of the rounds in which it took part.

    At its r-th participation a client receives V^(r). It ranks the items by ``sum over r = 2 .. R + 1 of
    |V_j^(r) - V_j^(r-1)|_2`` and keeps the top N for ever. Clients with the same history of rounds find the same, so
    the work is done, and an old V kept, once for each distinct history that a client still is at.

    Args:
        num_clients: how many clients. count: N. differences: R. exclude: int64 [T], items that are never mined.
        least: rank by the smallest instead; excluded items then come first (a slip of the published NCF code).
        device: where the embeddings live.
    """

    def __init__(
        self, num_clients: int, count: int, differences: int, exclude: torch.Tensor, least: bool, device: torch.device
    ) -> None:
        self.count, self.differences, self.exclude, self.least = count, differences, exclude, least
        self._at = torch.zeros(num_clients, dtype=torch.int64, device=device)
        self._histories = {0: _History()}
        self._next = 1

    def observe(self, clients: torch.Tensor, items: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Let ``clients``, int64 [m], take part in a round with the embeddings ``items``, float32 [M, d].

        ``items`` is kept as it is, so it must not be changed in place afterwards.

        Returns:
            found int64 [G, N], the distinct lists of popular items among these clients, most popular first, and
            group int64 [m], which of them is each client's; -1 while a client is still mining.
        """
        before, inverse = torch.unique(self._at[clients], return_inverse=True)
        after = [self._advance(number, items) for number in before.tolist()]
        self._at[clients] = torch.tensor(after, device=items.device)[inverse]
        used = set(torch.unique(self._at).tolist())
        self._histories = {number: kept for number, kept in self._histories.items() if number in used}
        done = [place for place, number in enumerate(after) if self._histories[number].found is not None]
        lists = [found for number in after if (found := self._histories[number].found) is not None]
        group = torch.full((len(after),), -1, device=items.device)
        group[done] = torch.arange(len(done), device=items.device)
        return torch.stack(lists) if lists else group.new_zeros(0, self.count), group[inverse]

    def _advance(self, number: int, items: torch.Tensor) -> int:
        history = self._histories[number]
        if history.found is not None:
            return number
        score, found = history.score, None
        if history.last is not None:
            moved = delta_norm(history.last, items)
            score = moved if score is None else score + moved
        last: torch.Tensor | None = items
        if history.participations == self.differences and score is not None:
            last, found = None, self._top(score)
        self._histories[self._next] = _History(history.participations + 1, last, score, found)
        self._next += 1
        return self._next - 1

    def _top(self, score: torch.Tensor) -> torch.Tensor:
        score = score.index_fill(0, self.exclude, -torch.inf)
        order = torch.argsort(-score if self.least else score, descending=True, stable=True)  # ties: lowest id first
        return order[: self.count]


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


class Pieck(Attack):
    """What IPE and UEA have in common: mine, then craft one upload for each distinct list of popular items."""

    params: MiningParameters

    def list_length(self, view: AttackerView) -> int:
        """N."""
        raise NotImplementedError

    def gradients(
        self, view: AttackerView, popular: torch.Tensor, targets: torch.Tensor
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor] | None]:
        """The gradients of the variant's loss.

        Args:
            view: the round. popular: int64 [G, N]. targets: int64 [T].

        Returns:
            rows float32 [G, T, d], and dense name -> float32 [G, *shape], or None where nothing dense is poisoned.
        """
        raise NotImplementedError

    def start(self, view: AttackerView) -> None:
        self.count = min(self.list_length(view), view.num_items - len(view.targets))
        self.miner = PopularItemMiner(
            view.num_malicious,
            self.count,
            self.params.mining_differences,
            view.targets,
            self.params.mining_order == "least",
            view.device,
        )

    def craft(self, view: AttackerView) -> Updates:
        popular, group = self.miner.observe(view.clients, view.params.items)
        if self.params.before_mining == "arbitrary":
            first = torch.arange(self.count + len(view.targets), device=view.device)
            first = first[~torch.isin(first, view.targets)][: self.count]
            group = torch.where(group < 0, len(popular), group)
            popular = torch.cat([popular, first[None]])
        targets = view.targets[:1] if self.params.multi_target == "copy" else view.targets
        if not len(popular):
            nothing = torch.zeros(len(group), len(view.targets), view.embedding_size, device=view.device)
            return target_updates(view, nothing)
        rows, dense = self.gradients(view, popular, targets)
        mining = group < 0
        own = rows[group].masked_fill(mining[:, None, None], 0).expand(-1, len(view.targets), -1)
        if dense is not None:
            dense = {
                name: value[group].masked_fill(mining.view(-1, *[1] * (value.dim() - 1)), 0)
                for name, value in dense.items()
            }
        return target_updates(view, own, dense)
