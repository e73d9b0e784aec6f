"""UNION: honest clients keep item embeddings spread out, and the server drops clients whose updates would not."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Literal

import torch
from pydantic import Field

from fedbench.defenses.gap_statistic import two_clusters
from fedbench.defenses.robust import ASSUMES_SHARE, GIVEN
from fedbench.entries.cards import LATER, DefenseCard, DefenseFamily, Parameters
from fedbench.federation.batch import Batch
from fedbench.federation.defense import ClientRegularization, Defense, ServerView
from fedbench.federation.model import PublicParams
from fedbench.federation.optimizers import Descent
from fedbench.federation.rows import FullRows, Rows, occurrences
from fedbench.federation.updates import Updates
from fedbench.models.mf import aligned_products, kept_coordinates


class Union(Defense):
    """Uniformity-based filter with a contrastive task on honest clients (Yu et al., AAAI 2023, section 4).

    Client side: for each of a client's distinct positive items as anchor a [code: of its events, so that what it repeats
    counts more], another one of them p, drawn uniformly, and P items drawn uniformly outside of them,
    ``-log(exp(v_a . v_p) / sum_c exp(v_a . v_c))`` over p and the P others, averaged over anchors [code; the paper's
    equation 4 sums], times alpha, is added to the loss. Drawn anew at every participation. Clients with one positive have no
    such term. The published dropout belongs to that protocol's models. Where a protocol trains on local mini-batches,
    anchors, positives and what is kept out of the draw are those of the mini-batch.

    Server side: for client i the item embeddings after a step with its update alone, ``V - eta g_i``, on T items drawn once
    a round [code, which may draw one twice; the paper draws them for every client]; d_i is their uniformity, the mean
    distance of all pairs (equation 6). The d_i are split into two clusters, and the smaller one (tie: the one with smaller
    d) is dropped if the gap statistic finds more than one cluster, or if it has at most f = ceil(n share) members [code; not
    in the paper; in a cohort of a few clients that is always somebody]. In a chain, what follows sees the clients that are
    left [paper; the code takes both rules' decisions on all clients]. Clients that send what is not a finite number are
    dropped first.

    ``squared`` uniformity has a closed form that touches only the uploaded rows; ``euclidean``, what the code computes,
    measures the distances of every uploaded row to all T items and takes thirty times as long. No published number is on
    these protocols, so the paper's is the default.
    """

    card = DefenseCard(
        name="union",
        title="UNION: contrastive task and uniformity filter",
        paper="Yu et al., AAAI 2023",
        family=DefenseFamily.FILTER,
        knowledge=frozenset({GIVEN}),
        assumes=ASSUMES_SHARE + "; used by the rule for lone outliers only",
        notes="Needs every honest client to cooperate. Made against untargeted attacks that collapse embeddings.",
    )

    class Params(Parameters):
        """Parameters."""

        alpha: float = Field(1.0, ge=0, description="weight of the contrastive task [paper: 1]; 0: the filter alone")
        negatives: int = Field(15, ge=1, description="P [paper: 15]")
        negatives_per: Literal["anchor", "client"] = Field(
            "anchor",
            description="whether every anchor draws its own P items [paper], or all of a client's share theirs: the same on"
            " average in less time, but far noisier, at a high cost in HR@K",
        )
        sampled_items: int = Field(500, ge=2, description="T; all items where there are fewer [paper: 500]")
        sampled_per: Literal["round", "client"] = Field(
            "round",
            description="whether a round's clients are compared by one set of T items [code], or each by its own [paper],"
            " which blinds the filter: such sets differ far more than the clients do",
            json_schema_extra=LATER,
        )
        distance: Literal["squared", "euclidean"] = Field(
            "squared", description="distance in the uniformity, squared [paper, equation 6] or not [code]"
        )
        step: Literal["gradient", "server"] = Field(
            "gradient",
            description="the step before d_i is taken: V - eta g_i [paper], or that of the server's optimizer with its"
            " state as it is [code: Adam]",
            json_schema_extra=LATER,
        )
        reduction: Literal["mean", "sum"] = Field(
            "mean",
            description="of the contrastive task over a client's anchors: mean [code] or sum [paper, equation 4]",
            json_schema_extra=LATER,
        )
        dropout: float = Field(
            0.0,
            ge=0,
            lt=1,
            description="of anchors and candidates in the contrastive task [code: 0.2]",
            json_schema_extra=LATER,
        )
        order: Literal["sequential", "parallel"] = Field(
            "sequential",
            description="a multi-krum that follows sees the clients that are left [paper], or all, and whom either drops is"
            " left out [code]",
            json_schema_extra=LATER,
        )
        references: int = Field(50, ge=2, description="B, reference sets of the gap statistic [paper: 50]")
        lone_rule: bool = Field(True, description="also drop a cluster of at most f clients [code]")
        assumed_ratio: float | None = Field(
            None, ge=0, lt=1, description="share behind f; None: the scenario's true ratio [code]"
        )

    params: Union.Params

    # ------------------------------------------------------------------------------------------------ client side

    def regularize(
        self, params: PublicParams, users: torch.Tensor, batch: Batch, server: ServerView
    ) -> ClientRegularization | None:
        if not self.params.alpha or not len(batch.item):
            return None
        return contrastive(params.items, batch, self.params, server.generator)

    # ------------------------------------------------------------------------------------------------ server side

    def filter(self, updates: Updates, server: ServerView) -> Updates:
        usable = updates.usable()
        if not bool(usable.all()):
            updates = updates.keep(usable)  # one distance that is not a number would blind the filter
        n = len(updates.clients)
        if n < 2:
            return updates
        generator = server.generator
        spread = self._spread(updates, self._sampled(n, len(server.params.items), generator), server)
        if server.notes is not None:
            server.notes.uniformity = updates.clients, spread
        share = self.params.assumed_ratio
        share = share if share is not None else server.malicious_ratio or 0.0
        few = math.ceil(n * share - 1e-9) if self.params.lone_rule else 0
        minor, several = two_clusters(spread, self.params.references, generator)
        dropped = minor & (several | (minor.sum() <= few))
        if self.params.order == "parallel":
            return replace(updates, rejected=dropped)
        return updates.keep(~dropped) if bool(dropped.any()) else updates

    def _sampled(self, clients: int, num_items: int, generator: torch.Generator) -> torch.Tensor:
        """T different items, int64 [T], or for each of n clients its own, [n, T]."""
        count, device = min(self.params.sampled_items, num_items), generator.device
        if self.params.sampled_per == "round":
            return torch.randperm(num_items, generator=generator, device=device)[:count]
        return torch.rand((clients, num_items), generator=generator, device=device).topk(count, sorted=False).indices

    def _spread(self, updates: Updates, sampled: torch.Tensor, server: ServerView) -> torch.Tensor:
        """d_i of every client, float64 [n], by the ``sampled`` items, int64 [T] or [n, T]."""
        items, distance = server.params.items, self.params.distance
        sampled = sampled.to(items.device)
        optimizer = None if self.params.step == "gradient" else server.optimizer
        descends = optimizer is None or isinstance(optimizer, Descent)
        if descends and updates.common is None and sampled.ndim == 1:
            return uniformity(updates, items, sampled, server.learning_rate, distance)
        gradients = sampled_gradients(updates, len(items), sampled)
        if optimizer is None or descends:
            # In float64: a step of gradient descent at Adam's learning rate moves rows by less than float32 can tell apart.
            start = items[sampled].double()
            return spread_of(start - server.learning_rate * gradients.double(), distance)
        return spread_of(optimizer.peek(server.params, sampled, gradients), distance)


def contrastive(
    items: torch.Tensor, batch: Batch, params: Union.Params, generator: torch.Generator
) -> ClientRegularization:
    """The gradient of every client's weighted contrastive loss by item embeddings.

    Anchors and positives are rows of the batch; the other candidates come as extra rows.

    Args:
        items: float32 [M, d]. batch: the training rows of n clients. params: alpha, P, whose the negatives are, mean or sum.
        generator: of the draws.
    """
    n, num_items, device = len(batch.clients), len(items), items.device
    anchors = (batch.positive > 0).nonzero().squeeze(1)
    client, own = batch.client.index_select(0, anchors), batch.item.index_select(0, anchors)
    count = occurrences(client, n)
    start = (count.cumsum(0) - count).index_select(0, client)
    size = count.index_select(0, client)
    # Another position of the same client: uniform over the others.
    place = torch.arange(len(client), device=device) - start
    other = (_uniform((len(client),), generator, device) * (size - 1)).long().minimum((size - 2).clamp(min=0))
    other = start + (other + (other >= place)).minimum(size - 1)

    per_anchor = params.negatives_per == "anchor"
    owners = client if per_anchor else torch.arange(n, device=device)
    drawn = draw_outside(client * num_items + own, owners, num_items, n, params.negatives, generator)
    negatives = drawn if per_anchor else drawn.index_select(0, client)
    candidates = torch.cat([own.index_select(0, other)[:, None], negatives], dim=1)

    scale = (params.alpha / size if params.reduction == "mean" else params.alpha) * (size > 1)
    if params.dropout:
        rows, extra = _with_dropout(items, batch, anchors, other, candidates, scale, params.dropout, generator)
        return ClientRegularization(rows, extra=extra)
    anchor = items.index_select(0, own)
    rows_of = Batch(
        own,
        torch.arange(len(own) + 1, device=device) * candidates.shape[1],
        torch.arange(len(own), device=device).repeat_interleave(candidates.shape[1]),
        candidates.flatten(),
        anchor.new_ones(candidates.numel()),
        anchor.new_zeros(candidates.numel()),
        anchor.new_ones(len(own)),
    )
    residual = torch.softmax(aligned_products(anchor, items, rows_of).view(candidates.shape), dim=1)
    residual[:, 0] -= 1
    residual *= scale[:, None]

    rows = items.new_zeros(len(batch.item), items.shape[1])
    rows[anchors] = _bag(candidates, items, residual)
    rows.index_add_(0, anchors.index_select(0, other), anchor * residual[:, :1])
    if per_anchor:
        key, order = torch.sort((client[:, None] * num_items + negatives).flatten())
        key, lengths = torch.unique_consecutive(key, return_counts=True)
        source = own.repeat_interleave(params.negatives).index_select(0, order)
        weight = residual[:, 1:].flatten().index_select(0, order)
        values = _bag(source, items, weight, lengths.cumsum(0) - lengths)
    else:
        # A client's anchors stand together: one segment sum for each of its P items.
        key = (owners[:, None] * num_items + drawn).flatten()
        columns = residual[:, 1:].T.contiguous()
        values = torch.stack([_bag(own, items, column, count.cumsum(0) - count) for column in columns], 1).flatten(0, 1)
    return ClientRegularization(rows, extra=FullRows(key // num_items, key % num_items, values))


def _with_dropout(
    items: torch.Tensor,
    batch: Batch,
    anchors: torch.Tensor,
    other: torch.Tensor,
    candidates: torch.Tensor,
    scale: torch.Tensor,
    p: float,
    generator: torch.Generator,
) -> tuple[torch.Tensor, FullRows]:
    """The gradient where every looked-up vector loses a share ``p`` of its coordinates, each time others.

    Args:
        items: float32 [M, d]. batch: the training rows. anchors: int64 [A], rows of the batch. other: int64 [A], index into
            ``anchors``, the positives. candidates: int64 [A, 1 + P], items: the positive, then the others.
        scale: float32 [A], factor of every anchor's loss. p: share. generator: of the masks.

    Returns:
        float32 [R, d], aligned with the batch's rows, and extra rows of the other candidates.
    """
    num_items, d = items.shape
    client, own = batch.client.index_select(0, anchors), batch.item.index_select(0, anchors)
    rows = items.new_zeros(len(batch.item), d)
    positives = anchors.index_select(0, other)
    keys = (client[:, None] * num_items + candidates[:, 1:]).flatten()
    touched = torch.zeros(len(batch.clients) * num_items, dtype=torch.bool, device=items.device)
    key = touched.index_fill_(0, keys, True).nonzero().squeeze(1)
    # Rows of touched items alone: 25 MiB that are used again every round, where all would be 45 fresh ones (20 ms).
    extra = items.new_zeros(len(key), d)
    places = (touched.cumsum(0) - 1).index_select(0, keys).view(-1, candidates.shape[1] - 1)
    step = max(1, 2**20 // (candidates.shape[1] * d))  # 4 MiB of candidates at a time stay in the cache
    for k in range(0, len(own), step):
        piece = slice(k, k + step)
        shape = (*candidates[piece].shape, d)
        keep_anchor = kept_coordinates((shape[0], d), p, generator, items.device).mul_(1 / (1 - p))
        keep = kept_coordinates(shape, p, generator, items.device).mul_(1 / (1 - p))
        anchor = items.index_select(0, own[piece]) * keep_anchor
        looked_up = items.index_select(0, candidates[piece].flatten()).view(shape).mul_(keep)
        residual = torch.softmax(torch.linalg.vecdot(looked_up, anchor[:, None]), dim=1)
        residual[:, 0] -= 1
        residual *= scale[piece, None]
        rows.index_add_(0, anchors[piece], torch.bmm(residual[:, None], looked_up).squeeze(1) * keep_anchor)
        gradient = keep.mul_(residual[:, :, None]).mul_(anchor[:, None])
        rows.index_add_(0, positives[piece], gradient[:, 0])
        extra.index_add_(0, places[piece].flatten(), gradient[:, 1:].flatten(0, 1))
    return rows, FullRows(key // num_items, key % num_items, extra)


def sampled_gradients(updates: Updates, num_items: int, sampled: torch.Tensor) -> torch.Tensor:
    """float32 [n, T, d]: what every client sends for the sampled items; 0 where it sends nothing.

    Args:
        updates: what arrived. num_items: M. sampled: int64 [T], different items, or each client's, [n, T].
    """
    n, t = len(updates.clients), sampled.shape[-1]
    numbers = torch.arange(t, device=sampled.device).expand_as(sampled)
    place = torch.full((*sampled.shape[:-1], num_items), -1, device=sampled.device).scatter_(-1, sampled, numbers)
    rows = _within(updates, place)
    size = rows.values.shape[1] if updates.common is None else updates.common.gradient.shape[1]
    full = updates.weights.new_zeros(n * t, size)
    if len(rows.item):
        full.index_add_(0, rows.client * t + place.expand(n, -1)[rows.client, rows.item], rows.values)
    full = full.view(n, t, size)
    if updates.common is not None:
        full += updates.common.share[:, None, None] * updates.common.gradient[sampled]
    return full


def spread_of(vectors: torch.Tensor, distance: str) -> torch.Tensor:
    """Mean distance of all pairs of T vectors, for each of n sets: float64 [n].

    Args:
        vectors: float32 or float64 [n, T, d]. distance: ``"squared"`` or ``"euclidean"``.
    """
    t = vectors.shape[1]
    # From a common origin near the vectors, for the sake of digits: clients differ in the fourth.
    vectors = vectors - vectors.mean((0, 1))
    if distance == "squared":
        mean_square = vectors.square().sum(2, dtype=torch.float64).mean(1)
        return (mean_square - vectors.mean(1, dtype=torch.float64).square().sum(1)) * 2 * t / (t - 1)
    # Each pair once and from differences: 20 ms for 50 sets of 500, and exact, where the matrix product takes 34.
    sums = [torch.pdist(each).sum(dtype=torch.float64) for each in vectors]
    return torch.stack(sums) * 2 / (t * (t - 1))


def _bag(
    index: torch.Tensor, table: torch.Tensor, weights: torch.Tensor, offsets: torch.Tensor | None = None
) -> torch.Tensor:
    """Weighted sums of rows of ``table``: float32 [bags, d]."""
    bags: torch.Tensor = torch.nn.functional.embedding_bag(
        index, table, offsets, mode="sum", per_sample_weights=weights
    )
    return bags


def draw_outside(
    taken: torch.Tensor, owners: torch.Tensor, num_items: int, num_clients: int, count: int, generator: torch.Generator
) -> torch.Tensor:
    """``count`` different items for each entry of ``owners``, uniform over those that its client has not ``taken``.

    Exact: the r-th free item is looked up, and r is drawn without repetition (Floyd's algorithm, ``count`` steps).
    A client with fewer free items gets the first of them again, and one with none the last item. Takes 9 n M bytes.

    Args:
        taken: int64 [P], ``client * M + item``. owners: int64 [A].

    Returns:
        int64 [A, count].
    """
    device = taken.device
    outside = torch.ones(num_clients * num_items, dtype=torch.bool, device=device).index_fill_(0, taken, False)
    outside = outside.view(num_clients, num_items)
    outside[:, -1] |= ~outside.any(1)
    frees = outside.sum(1)
    free = frees.index_select(0, owners)
    drawn = torch.empty(count, len(owners), dtype=torch.int64, device=device)
    for k in range(count):
        top = (free - count + k).clamp(min=0)
        r = (_uniform((len(owners),), generator, device) * (top + 1)).long().minimum(top)
        again = (drawn[:k] == r).any(0)
        drawn[k] = torch.where(again, top, r)
    first = (frees.cumsum(0) - frees).index_select(0, owners)
    place = (first[:, None] + drawn.T).flatten()
    chosen = outside.view(-1).nonzero().squeeze(1).index_select(0, place)
    return chosen.view(-1, count) - owners[:, None] * num_items


def uniformity(
    updates: Updates, items: torch.Tensor, sampled: torch.Tensor, learning_rate: float, distance: str
) -> torch.Tensor:
    """d_i, float64 [n]: mean distance of all pairs of the sampled items after a step with client i's update alone.

    Args:
        updates: what arrived. items: float32 [M, d]. sampled: int64 [T]. learning_rate: eta.
        distance: ``"squared"`` or ``"euclidean"``.
    """
    n, t = len(updates.clients), len(sampled)
    place = torch.full((len(items),), -1, device=items.device)
    place[sampled] = torch.arange(t, device=items.device)
    rows = _within(updates, place)
    start = items.index_select(0, sampled).double()
    at = place.index_select(0, rows.item)
    old = start.index_select(0, at)
    new = old - learning_rate * rows.values.double()
    if distance == "squared":
        # 2 T / (T - 1) (mean |v|^2 - |mean v|^2), from a common origin near the embeddings for the sake of digits.
        origin = start.mean(0)
        old, new, start = old - origin, new - origin, start - origin
        change = new.square().sum(1) - old.square().sum(1)
        squares = start.square().sum() + start.new_zeros(n).index_add_(0, rows.client, change)
        sums = start.sum(0) + start.new_zeros(n, start.shape[1]).index_add_(0, rows.client, new - old)
        return (squares / t - (sums / t).square().sum(1)) * 2 * t / (t - 1)
    before = torch.cdist(start, start)
    step = max(1, 2**21 // t)
    moved = torch.cat(
        [(torch.cdist(new[k : k + step], start) - before[at[k : k + step]]).sum(1) for k in range(0, len(at), step)]
        or [start.new_zeros(0)]
    )
    total = before.sum() / 2 + start.new_zeros(n).index_add_(0, rows.client, moved)
    return (total + _both_moved(rows.client, n, at, old, new)) * 2 / (t * (t - 1))


def _both_moved(client: torch.Tensor, n: int, at: torch.Tensor, old: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
    """What the sum over pairs lacks where both items of a pair moved: float64 [n].

    Counted so far for j and k: ``|new_j - old_k| + |new_k - old_j| - 2 |old_j - old_k|``; wanted is
    ``|new_j - new_k| - |old_j - old_k|``. An item with itself was counted as ``|new_j - old_j|`` and wanted is 0.
    """
    order = torch.argsort(client, stable=True)
    count = occurrences(client, n)
    width = int(count.max()) if len(client) else 0
    if not width:
        return old.new_zeros(n)
    starts = count.cumsum(0) - count
    result = old.new_zeros(n)
    step = max(1, 2**22 // (width * max(width, old.shape[1])))
    columns = torch.arange(width, device=client.device)
    for k in range(0, n, step):
        there = columns < count[k : k + step, None]
        index = order[(starts[k : k + step, None] + columns).clamp(max=len(order) - 1)]
        o, v = old[index], new[index]
        pairs = torch.cdist(v, v) + torch.cdist(o, o) - torch.cdist(v, o) - torch.cdist(o, v)
        result[k : k + step] = (pairs * (there[:, :, None] & there[:, None, :])).sum((1, 2)) / 2
    return result


def _within(updates: Updates, place: torch.Tensor) -> FullRows:
    """The rows of sampled items, written out: only those are ever made. ``place``, [M] or [n, M], is -1 for the others."""
    place = place.expand(len(updates.clients), -1)
    blocks: list[Rows] = [
        block.take((place[block.client, block.item] >= 0).nonzero().squeeze(1)) for block in updates.rows
    ]
    chosen = Updates(updates.clients, tuple(blocks), updates.dense, updates.weights).all_rows()
    return chosen if len(chosen.item) else FullRows(chosen.client, chosen.item, chosen.values.new_zeros(0, 1))


def _uniform(shape: tuple[int, ...], generator: torch.Generator, device: torch.device) -> torch.Tensor:
    return torch.rand(shape, generator=generator, device=generator.device, dtype=torch.float64).to(device)
