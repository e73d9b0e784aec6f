"""Item tables that clients keep to themselves: the one they have received, after their own step."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from fedbench.federation.model import PublicParams, Recommender
from fedbench.federation.rows import Rows


@dataclass(frozen=True)
class _Round:
    """What the clients of a round have kept.

    Attributes:
        items: float32 [M, d], the table that they received. clients: int64 [n]. rows: what they uploaded, by their place.
    """

    items: torch.Tensor
    clients: torch.Tensor
    rows: tuple[Rows, ...]


class OwnTables:
    """``V_u = V - eta G_u``: V received in the client's latest round, G_u the rows that it then uploaded.

    Whole tables of clients are never made: N M d numbers are 2.7 GiB for ML-1M and d = 32. Kept are the received tables of
    the rounds that were anybody's latest, and the rows of these rounds as the model has them.

    Args:
        num_clients: whose tables there are. learning_rate: eta.
    """

    def __init__(self, num_clients: int, learning_rate: float) -> None:
        self._rate = learning_rate
        self._latest = torch.full((num_clients,), -1)
        self._rounds: dict[int, _Round] = {}

    def keep(
        self, number: int, items: torch.Tensor, clients: torch.Tensor, ids: torch.Tensor, rows: tuple[Rows, ...]
    ) -> None:
        """What ``clients``, int64 [n], have after round ``number``: they received ``items`` and uploaded ``rows``.

        ``ids``: the clients, on the CPU.
        """
        self._latest[ids] = number
        self._rounds[number] = _Round(items, clients, rows)
        needed = set(self._latest.unique().tolist())
        self._rounds = {each: kept for each, kept in self._rounds.items() if each in needed}

    def scores(
        self, model: Recommender, params: PublicParams, clients: torch.Tensor, users: torch.Tensor
    ) -> torch.Tensor:
        """float32 [b, M]: every item's logit by the client's own table; by ``params`` for those that never took part.

        Args:
            params: the server's. clients: int64 [b], distinct. users: float32 [b, d], their private embeddings.
        """
        latest = self._latest[clients.cpu()].to(clients.device)
        out = model.score_all(params, users)
        for number in latest.unique().tolist():
            if number < 0:
                continue
            kept = self._rounds[number]
            mine = (latest == number).nonzero().squeeze(1)
            received = replace(params, items=kept.items)
            out[mine] = model.score_all(received, users[mine])
            place = kept.clients.new_full((len(self._latest),), -1)
            place[clients[mine]] = mine
            place = place[kept.clients]
            for block in kept.rows:
                own = block.take((place[block.client] >= 0).nonzero().squeeze(1))
                row, table = place[own.client], kept.items[own.item] - self._rate * own.grad()
                out[row, own.item] = model.logits(params.dense, users[row], table)
        return out
