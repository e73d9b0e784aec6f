"""The training rows of the clients of a round, as models and losses read them."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Batch:
    """The training rows of a cohort of n clients, client by client.

    Attributes:
        clients: int64 [n], rows of the table of users.
        starts: int64 [n + 1], where each client's rows begin.
        client: int64 [R], index into ``clients``. item: int64 [R].
        weight: float32 [R], occurrences of the item among the client's samples.
        positive: float32 [R], those of them that are positive.
        size: float32 [n], |D_u|, the client's number of samples, repeats included.
        pair_positive, pair_negative: int64 [Q], rows of each (positive, negative) pair, client by client; only for pairwise
            losses.
        sequence: int64 [Q], rows of what models of sequences read at each pair; None: of ``pair_positive``.
    """

    clients: torch.Tensor
    starts: torch.Tensor
    client: torch.Tensor
    item: torch.Tensor
    weight: torch.Tensor
    positive: torch.Tensor
    size: torch.Tensor
    pair_positive: torch.Tensor | None = None
    pair_negative: torch.Tensor | None = None
    sequence: torch.Tensor | None = None
