"""What several attacks share: the upload that holds rows of the targets only, and the gradient that boosts a target."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from fedbench.federation.updates import DenseGradients, FullRows, Updates
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


def boost_gradient(
    view: AttackerView,
    pseudo_users: torch.Tensor,
    weights: torch.Tensor | None = None,
    dense: bool = True,
    targets: torch.Tensor | None = None,
) -> tuple[torch.Tensor, dict[str, torch.Tensor], torch.Tensor]:
    """Gradients of the loss that makes pseudo-users like the targets.

    For each sampled malicious client c, with pseudo-users p_1..p_k of its own:
    ``L_c = -(1/T) sum_t sum_i w_it log sigma(s(p_i, v_t))``. EB, A-ra, A-hum and PIECK-UEA differ in p and w only.

    Args:
        view: the round.
        pseudo_users: float32 [m, k, d].
        weights: float32 [k, T], or [k] for all targets alike; None: 1/k each.
        dense: whether gradients of the dense parameters are wanted too; otherwise they are zeros.
        targets: int64 [T]; None: the view's.

    Returns:
        rows float32 [m, T, d], dense name -> float32 [m, *shape], pseudo-users' gradients float32 [m, k, d].
    """
    m, k, d = pseudo_users.shape
    targets = view.targets if targets is None else targets
    count = len(targets)
    with torch.enable_grad():
        pseudo = pseudo_users.detach().clone().requires_grad_()
        target = view.params.items[targets].expand(m, count, d).clone().requires_grad_()
        own = {
            name: value.expand(m, *value.shape).clone().requires_grad_(dense)
            for name, value in view.params.dense.items()
        }
        users = pseudo[:, :, None].expand(m, k, count, d).reshape(m, k * count, d)
        items = target[:, None].expand(m, k, count, d).reshape(m, k * count, d)
        logits = view.model.logits(own, users, items).view(m, k, count)
        share = logits.new_full((k, 1), 1.0 / k) if weights is None else weights.view(k, -1)
        loss = -(torch.nn.functional.logsigmoid(logits) * share).sum() / count
        wanted = [pseudo, target, *(own.values() if dense else ())]
        grads = torch.autograd.grad(loss, wanted)
    by_name = (
        dict(zip(own, grads[2:], strict=True))
        if dense
        else {name: torch.zeros_like(value) for name, value in own.items()}
    )
    return grads[1], by_name, grads[0]
