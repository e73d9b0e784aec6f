"""PIECK's popular item mining: which items are popular shows in how far their embeddings move.

Zhang et al. (ICDE 2024), Algorithm 1. The attack's two variants and PIECK's own defense share it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch


def delta_norm(old: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
    """``|V_j^new - V_j^old|_2`` of every item: float32 [M], for old and new float32 [M, d] (ICDE'24, Algorithm 1)."""
    norms: torch.Tensor = (new - old).norm(dim=-1)
    return norms


@dataclass
class _History:
    """What clients that took part in the same rounds know: the last embeddings seen, and the sums of differences.

    ``members`` of them have not moved on since.
    """

    members: int
    participations: int = 0
    last: torch.Tensor | None = None
    score: torch.Tensor | None = None


_MINED = -1


class PopularItemMiner:
    """What each of many clients finds popular, from the public embeddings of the rounds in which it took part.

    At its r-th participation a client receives V^(r). It ranks the items by ``sum over r = 2 .. R + 1 of
    |V_j^(r) - V_j^(r-1)|_2`` and keeps the top N for ever. Clients that took part in the same rounds find the same: the
    differences are taken, and an old V kept, once for each distinct history that a client still is at. When all of a
    known number of clients have mined, a round is a look-up in a table and nothing is copied from the device.

    Args:
        num_clients: how many clients there are, with ids from 0; None: not known, the tables grow with the ids, and the
            ids of every round are read on the host, for a new client may always be among them.
        count: N. differences: R. exclude: int64 [T], items that are never mined.
        least: rank by the smallest instead; excluded items then come first (a slip of the published NCF code).
        num_items: M. device: where the embeddings live.
    """

    def __init__(
        self,
        num_clients: int | None,
        count: int,
        differences: int,
        exclude: torch.Tensor,
        least: bool,
        num_items: int,
        device: torch.device,
    ) -> None:
        self.differences, self.exclude, self.least = differences, exclude, least
        self._grows = num_clients is None
        self._mining = num_clients or 0
        self._lowest = self._top(torch.zeros(num_items, device=device), count)
        self._popular = self._lowest.repeat(self._mining, 1)
        self._mined = torch.zeros(self._mining, dtype=torch.bool, device=device)
        # The number of each client's history: 0 before its first participation, later one of ``_histories``.
        self._at = torch.zeros(self._mining, dtype=torch.int64)
        self._histories = {0: _History(self._mining)}
        self._next = 1

    def observe(self, clients: torch.Tensor, items: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Let ``clients``, int64 [m], take part in a round with the embeddings ``items``, float32 [M, d].

        ``items`` is kept as it is, so it must not be changed in place afterwards.

        Returns:
            popular int64 [m, N], each client's popular items, most popular first, and mined bool [m], whether it has
            found them; until then they are the first N items by id.
        """
        if len(clients) and (self._mining or self._grows):
            self._advance(clients.cpu(), items)
        return self._popular[clients], self._mined[clients]

    def _advance(self, clients: torch.Tensor, items: torch.Tensor) -> None:
        """Move the clients that are still mining on by one participation: one step for each distinct history."""
        if self._grows:
            self._make_room(int(clients.max()) + 1)
        at = self._at[clients]
        for number in torch.unique(at[at != _MINED]).tolist():
            members = clients[at == number]
            before = self._histories[number]
            score = before.score
            if before.last is not None:
                moved = delta_norm(before.last, items)
                score = moved if score is None else score + moved
            if before.participations == self.differences and score is not None:
                index = members.to(items.device)
                self._popular[index] = self._top(score, self._popular.shape[1])
                self._mined[index] = True
                self._at[members] = _MINED
                self._mining -= len(members)
            else:
                self._histories[self._next] = _History(len(members), before.participations + 1, items, score)
                self._at[members] = self._next
                self._next += 1
            before.members -= len(members)
            if not before.members and not (self._grows and number == 0):
                del self._histories[number]

    def _make_room(self, clients: int) -> None:
        """Tables for at least as many clients."""
        more = max(clients, 2 * len(self._at)) - len(self._at) if clients > len(self._at) else 0
        if more:
            self._popular = torch.cat([self._popular, self._lowest.repeat(more, 1)])
            self._mined = torch.cat([self._mined, self._mined.new_zeros(more)])
            self._at = torch.cat([self._at, self._at.new_zeros(more)])
            self._histories[0].members += more
            self._mining += more

    def _top(self, score: torch.Tensor, count: int) -> torch.Tensor:
        """int64 [N]: the items with the highest (or lowest) score; ties: lowest id first."""
        score = score.index_fill(0, self.exclude, -torch.inf)
        return torch.argsort(-score if self.least else score, descending=True, stable=True)[:count]
