"""Which items score highest and lowest with users at large: at first by how scores change, later by the scores."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import torch

from fedbench.federation.model import PublicParams, Recommender

FIRST = 3
"""Looks whose guess is taken as it is [code]."""


class ScoreTrend:
    """The guesses of one observer, who looks at the item embeddings now and then: velocity (Hao et al., CCS 2024).

    A look ranks all items by what users at large give them now less what they would give them with the embeddings of the
    last look (at the first: by what they give them), which tells popular items from others while a model is young; and later
    by what they give them, which does so when it is trained. When to turn:

    * ``switch="patience"`` [code]. The first three guesses are taken. From then on a guess is taken, the highest and the
      lowest each by themselves, when it shares more items with the guess before it than ever; after ``patience`` looks in a
      row without that, of both, the ranking is by scores for good. The look that notices it takes no guess, and neither do
      those that follow until ``later`` of them in a row share no more with the guess in force than earlier ones; then it
      begins again, with ``later`` as patience, and again after each time that patience is at its end.
    * ``switch="majority"`` [README]. Every guess is taken; the ranking is by scores as soon as the items that two guesses in
      a row share have become more in less than half of the last ``memory`` looks.

    Args:
        count: items at either end. switch, patience, later, memory: above. by_score: whether it begins with scores.

    Attributes:
        by_score: whether the ranking is by scores.
    """

    def __init__(
        self,
        count: int,
        switch: Literal["patience", "majority"] = "patience",
        patience: int = 6,
        later: int = 3,
        memory: int = 6,
        by_score: bool = False,
    ) -> None:
        self.count, self.by_score = count, by_score
        self._switch, self._patience, self._later, self._memory = switch, patience, later, memory
        self._table: torch.Tensor | None = None
        self._looks = self._phase = 0
        self._most, self._stale = [0, 0], [0, 0]
        self._rises: list[bool] = []
        self._last = self._chosen = torch.empty(0)

    def look(self, table: torch.Tensor, scores: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        """The guess in force after this look: bool [2, M], the highest and the lowest items.

        Args:
            table: float32 [M, d], the item embeddings; kept until the next look.
            scores: gives float32 [M], what users at large give the items had they the embeddings [M, d].
        """
        value = scores(table)
        if self.by_score:
            self._table = None
        else:
            value, self._table = value if self._table is None else value - scores(self._table), table
        order = value.argsort(descending=True, stable=True)
        found = torch.zeros(2, len(order), dtype=torch.bool, device=order.device)
        found[0, order[: self.count]] = True
        found[1, order[len(order) - self.count :]] = True
        (self._patient if self._switch == "patience" else self._by_majority)(found)
        self._looks += 1
        return self._chosen

    def _patient(self, found: torch.Tensor) -> None:
        if self._looks < FIRST:
            self._chosen = self._last = found
            return
        if min(self._stale) >= self._patience:
            self._phase, self._patience, self.by_score = self._phase + 1, self._later, True
            self._most, self._stale = [0, 0], [0, 0]
            return
        rests = self._phase == 1
        taken = [False, False]
        for end, shared in enumerate((found & (self._chosen if rests else self._last)).sum(1).tolist()):
            if self._stale[end] >= self._patience:
                continue
            if shared > self._most[end]:
                self._most[end], self._stale[end], taken[end] = shared, 0, not rests
            else:
                self._stale[end] += 1
        if any(taken):
            self._chosen = torch.stack([(found if taken[end] else self._chosen)[end] for end in (0, 1)])
        self._last = found

    def _by_majority(self, found: torch.Tensor) -> None:
        if self._looks:
            shared = int((found & self._last).sum())
            if self._looks > 1:
                self._rises.append(shared > self._most[0])
            self._most[0] = shared
            recent = self._rises[-self._memory :]
            if len(recent) == self._memory and 2 * sum(recent) < self._memory:
                self.by_score = True
        self._chosen = self._last = found


def liking(model: Recommender, params: PublicParams, users: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
    """[M]: ``sum over users of sigma(s(p, v_j))``, had the items the embeddings ``items``, [M, d]."""
    return model.score_all(replace(params, items=items), users).sigmoid().sum(0)
