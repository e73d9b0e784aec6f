"""What several attacks share: the upload that holds rows of the targets only."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from fedbench.federation.rows import FullRows
from fedbench.federation.updates import DenseGradients, Updates
from fedbench.federation.view import AttackerView


def target_updates(
    view: AttackerView,
    rows: torch.Tensor,
    dense: Mapping[str, torch.Tensor] | None = None,
    items: torch.Tensor | None = None,
) -> Updates:
    """An upload of one row for each sampled malicious client and each item.

    Args:
        view: the round.
        rows: float32 [m, T, d].
        dense: name -> float32 [m, *shape]; None: zeros (a client that poisons items only still counts as a client).
        items: int64 [T]; None: the targets.
    """
    m, count, d = rows.shape
    items = view.targets if items is None else items
    index = torch.arange(m, device=rows.device)
    if dense is None:
        dense = {name: value.new_zeros(m, *value.shape) for name, value in view.params.dense.items()}
    full = FullRows(index.repeat_interleave(count), items.repeat(m), rows.reshape(m * count, d))
    return Updates(view.clients, (full,), DenseGradients.of(dense), rows.new_full((m,), float(count)))
