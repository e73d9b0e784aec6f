"""What both variants of PIECK (Zhang et al., ICDE 2024) have in common: they mine popular items, then attack with them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal

import torch
from pydantic import Field

from fedbench.attacks.uploads import target_updates
from fedbench.entries.cards import Parameters
from fedbench.federation.attack import Attack
from fedbench.federation.mining import PopularItemMiner, delta_norm
from fedbench.federation.updates import Updates
from fedbench.federation.view import AttackerView

__all__ = ["MiningParameters", "Pieck", "PopularItemMiner", "delta_norm"]


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
