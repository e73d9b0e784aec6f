"""What colluding clients learn from each other's honest uploads, and the upload that has a row for every item.

The attacker controls several clients and pools their data: the mean and the spread of S honest uploads stand for what
the server expects (Baruch et al., NeurIPS 2019; Fang et al., USENIX Security 2020, partial knowledge).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from fedbench.federation.rows import FullRows
from fedbench.federation.updates import DenseGradients, Updates
from fedbench.federation.view import AttackerView


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation over S clients, by coordinate.

    Attributes:
        mean, std: float32, of the shape of one client's part; std with divisor S - 1, and 0 for a single client.
    """

    mean: torch.Tensor
    std: torch.Tensor


@dataclass(frozen=True)
class CleanStatistics:
    """The spread of S honest uploads.

    Attributes:
        items: over [M, d]; a client that has no row of an item counts with what is common to all uploads (``lambda v_j``
            under an L2 term on all parameters), or with 0.
        dense: name -> over the tensor's shape.
    """

    items: Spread
    dense: Mapping[str, Spread]


def clean_statistics(updates: Updates, num_items: int) -> CleanStatistics:
    """The spread of the uploads of S clients, without their [S, M, d].

    With rows r_ij relative to what is common, c_j (zero where client i has none): ``mu_j = c_j + (1/S) sum_i r_ij`` and
    ``sigma_j^2 = (sum_i r_ij^2 - (sum_i r_ij)^2 / S) / (S - 1)``; c cancels in sigma. Sums are float64, which leaves the
    difference enough digits; what rounding makes negative is 0.

    Args:
        updates: honest uploads of S clients, as ``view.colluding(S)`` gives them. num_items: M.
    """
    updates = updates.relative()
    count = len(updates.clients)
    rows = updates.all_rows()
    values = rows.values.double()
    total = values.new_zeros(num_items, values.shape[1]).index_add_(0, rows.item, values)
    square = torch.zeros_like(total).index_add_(0, rows.item, values.square())
    mean = total / count
    variance = square.sub_(total.mul_(mean)).clamp_(min=0).div_(max(count - 1, 1))
    # One client: the difference is rounding alone.
    std = variance.sqrt_() if count > 1 else torch.zeros_like(variance)
    if updates.common is not None:
        mean += updates.common.gradient
    dense = {name: spread(value) for name, value in updates.dense.stacked().items()}
    return CleanStatistics(Spread(mean.float(), std.float()), dense)


def spread(values: torch.Tensor) -> Spread:
    """Mean and standard deviation over the first dimension of ``values``, float32 [S, *shape], summed in float64."""
    wide = values.double()
    std = wide.std(0) if len(wide) > 1 else torch.zeros_like(wide[0])
    return Spread(wide.mean(0).float(), std.float())


def item_norms(updates: Updates) -> torch.Tensor:
    """float32 [S]: the norm of every client's gradient by all item embeddings, with what is common."""
    items_only = Updates(
        updates.clients, updates.rows, DenseGradients.of({}), updates.weights, updates.common, updates.rejected
    )
    return items_only.square_norms().sqrt()


def upload_of_all_items(
    view: AttackerView, items: torch.Tensor, dense: Mapping[str, torch.Tensor], weights: torch.Tensor
) -> Updates:
    """An upload with a row for every item, as it is: nothing that is common comes to it.

    Args:
        view: the round.
        items: float32 [m, M, d], or [M, d] for all m clients alike.
        dense: name -> float32 [m, *shape], or [*shape].
        weights: float32 [m], the numbers of samples that the clients report.
    """
    m, (num_items, d) = len(view.clients), view.params.items.shape
    index = torch.arange(m, device=view.device)
    rows = FullRows(
        index.repeat_interleave(num_items),
        torch.arange(num_items, device=view.device).repeat(m),
        items.expand(m, num_items, d).reshape(m * num_items, d),
    )
    stacked = {name: dense[name].expand(m, *value.shape) for name, value in view.params.dense.items()}
    return Updates(view.clients, (rows,), DenseGradients.of(stacked), weights)
