"""What attacks share whose clients have data of their own: honest uploads with a poisoned target row among them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from pydantic import Field

from fedbench.attacks.batches import described
from fedbench.attacks.sampling import distinct, others
from fedbench.entries.cards import LATER, Parameters
from fedbench.errors import UserError
from fedbench.federation.batch import Batch
from fedbench.federation.rows import FullRows
from fedbench.federation.updates import DenseGradients, Tensors, Updates
from fedbench.federation.view import AttackerView, HonestStep, Profiles


class DataPoisoning(Parameters):
    """Parameters of attacks whose clients train honestly on poisoned data."""

    profile_size: int = Field(30, ge=1, description="items of an injected client's random profile [ours, as p2: 30]")
    own_embedding: Literal["clean", "poisoned"] = Field(
        "clean",
        description="which data the client's own embedding follows [poisoned: AAAI'23 code's first release; ours: clean]",
        json_schema_extra=LATER,
    )


def trained_on(view: AttackerView, batch: Batch, params: DataPoisoning) -> Updates:
    """The upload of clients that train honestly on ``batch``; their own embeddings follow it, or their clean data."""
    upload = view.trained(batch, move=params.own_embedding == "poisoned")
    if params.own_embedding == "clean":
        view.honest()  # after the upload: under gradient descent it moves the clients' own embeddings
    return upload


def random_profiles(view: AttackerView, size: int) -> Profiles:
    """Own data for injected clients: ``size`` items each, uniform without replacement, no target among them.

    Raises:
        UserError: when the dataset has fewer items than that.
    """
    pool = others(view.num_items, view.targets)
    if size > len(pool):
        raise UserError(f"profile_size = {size} is more than the {len(pool)} items that are no targets.")
    item = pool[distinct(view.num_malicious, size, len(pool), view.generator)]
    client = torch.arange(view.num_malicious, device=view.device).repeat_interleave(size)
    return Profiles(client, item.flatten())


def split_targets(view: AttackerView, honest: HonestStep) -> tuple[FullRows, torch.Tensor]:
    """The honest rows of the items that are no targets, and those of the targets, float32 [m, T, d] (0 if untouched)."""
    rows = honest.updates.all_rows()
    m, count = len(view.clients), len(view.targets)
    match = rows.item[:, None] == view.targets
    place = match.int().argmax(1)
    of_target = match.any(1)
    own = torch.zeros(m * count, view.embedding_size, device=view.device)
    at = of_target.nonzero().squeeze(1)
    own.index_add_(0, (rows.client * count + place).index_select(0, at), rows.values.index_select(0, at))
    return rows.take((~of_target).nonzero().squeeze(1)), own.view(m, count, -1)


def with_target_rows(
    view: AttackerView, honest: HonestStep, rest: FullRows, targets: torch.Tensor, dense: Tensors
) -> Updates:
    """An upload of the rows ``rest`` and one row for each target.

    Args:
        view: the round. honest: for the number of samples. rest: rows of other items.
        targets: float32 [m, T, d]. dense: name -> float32 [m, *shape].
    """
    m, count, d = targets.shape
    index = torch.arange(m, device=targets.device).repeat_interleave(count)
    poisoned = FullRows(index, view.targets.repeat(m), targets.reshape(m * count, d))
    return Updates(view.clients, (rest, poisoned), DenseGradients.of(dense), honest.updates.weights)


def target_loss(
    view: AttackerView,
    users: torch.Tensor,
    targets: torch.Tensor,
    dense: Mapping[str, torch.Tensor],
    sign: float = 1.0,
) -> torch.Tensor:
    """``-(1/T) sum_t log sigma(sign s(u_c, v_ct))`` of each client c at parameters of its own: float32 [m].

    Args:
        view: the round, for the model. users: float32 [m, d]. targets: float32 [m, T, d].
        dense: name -> float32 [m, *shape]. sign: 1 where users like the targets, -1 where they dislike them.
    """
    items = described(view.params, targets, view.targets)
    logits = view.model.logits(dense, users[:, None].expand_as(targets), items)
    return -torch.nn.functional.logsigmoid(sign * logits).mean(1)
