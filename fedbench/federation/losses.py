"""Losses: functions of a client's logits, given to every model alike."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from fedbench.federation.batch import Batch
from fedbench.federation.rows import occurrences


@dataclass(frozen=True)
class Loss:
    """A client's loss and its derivative by the logits.

    * ``bce``: ``L_u = -(1/|D_u|) sum_j [y_j log sigma(s_uj) + (1 - y_j) log(1 - sigma(s_uj))]`` (ICDE'24, eq. 2).
    * ``bpr``: ``L_u = -(1/pairs) sum_(p,n) log sigma(s_up - s_un)`` (ICDE'24 Table XI).

    ``reduction="sum"`` leaves the factor in front out (ICDE'22 code). ``regularization`` adds
    ``(lambda/2)(|u_u|^2 + sum over the client's distinct items of |v_j|^2)`` to honest clients' losses.

    Attributes:
        kind: ``"bce"`` or ``"bpr"``. reduction: ``"mean"`` or ``"sum"``. regularization: lambda.
        duplicate_rows: ``"sum"``: an uploaded row sums the repeats of its item; ``"last"``: it holds one of them, as
            ``acc[items] += rows`` in the published code does, while the user's own gradient still sums all. Pairs are
            always summed, as the published code does with BPR.
    """

    kind: str = "bce"
    reduction: str = "mean"
    regularization: float = 0.0
    duplicate_rows: str = "sum"

    def derivative(self, logits: torch.Tensor, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """dL/ds of every row, as the client applies it to itself and as it uploads it: two float32 [R].

        Args:
            logits: float32 [R]. batch: the rows they belong to.
        """
        if self.kind == "bce":
            share = self._share(batch.size).index_select(0, batch.client)
            probability = torch.sigmoid(logits)
            own = (batch.weight * probability - batch.positive) * share
            if self.duplicate_rows == "sum":
                return own, own
            return own, (probability - batch.positive / batch.weight) * share
        assert batch.pair_positive is not None
        assert batch.pair_negative is not None
        margin = logits.index_select(0, batch.pair_positive) - logits.index_select(0, batch.pair_negative)
        client = batch.client.index_select(0, batch.pair_positive)
        slope = self.slope(margin, client, len(batch.clients))
        own = torch.zeros_like(logits).index_add_(0, batch.pair_positive, -slope)
        own.index_add_(0, batch.pair_negative, slope)
        return own, own

    def slope(self, margin: torch.Tensor, client: torch.Tensor, num_clients: int) -> torch.Tensor:
        """-dL/dm of every (positive, negative) pair for ``bpr``: float32 [Q].

        Args:
            margin: float32 [Q], the logit of the positive minus that of the negative. client: int64 [Q], whose pair it is.
            num_clients: n.
        """
        pairs = occurrences(client, num_clients).to(margin.dtype)
        return torch.sigmoid(-margin) * self._share(pairs).index_select(0, client)

    def value(self, logits: torch.Tensor, batch: Batch) -> torch.Tensor:
        """float32 [n]: every client's loss, without the regularisation. For oracles, tests and reports."""
        zero = torch.zeros(len(batch.clients), dtype=logits.dtype, device=logits.device)
        if self.kind == "bce":
            plus, minus = torch.nn.functional.softplus(-logits), torch.nn.functional.softplus(logits)
            terms = batch.positive * plus + (batch.weight - batch.positive) * minus
            return zero.index_add(0, batch.client, terms) * self._share(batch.size)
        assert batch.pair_positive is not None
        assert batch.pair_negative is not None
        margin = logits[batch.pair_positive] - logits[batch.pair_negative]
        client = batch.client[batch.pair_positive]
        pairs = occurrences(client, len(batch.clients)).to(logits.dtype)
        return zero.index_add(0, client, torch.nn.functional.softplus(-margin)) * self._share(pairs)

    def _share(self, count: torch.Tensor) -> torch.Tensor:
        return count.clamp(min=1).reciprocal() if self.reduction == "mean" else torch.ones_like(count)
