"""DV-FSR: a sequence changed where that helps the target most, and the target drawn towards what its owner likes."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import torch
from pydantic import Field

from fedbench.attacks.own_data import random_profiles
from fedbench.attacks.sampling import outside
from fedbench.entries.cards import AttackCard, Channel, Goal, Knowledge, Parameters
from fedbench.federation.attack import Attack
from fedbench.federation.batch import Batch
from fedbench.federation.losses import Loss
from fedbench.federation.model import Histories, LocalStep, PublicParams, Recommender
from fedbench.federation.rows import FullRows, coalesced, occurrences
from fedbench.federation.updates import DenseGradients, Updates
from fedbench.federation.view import AttackerView, Profiles


class DualView(Attack):
    """``L_c = -log sigma(F(x'_c) . v_t) + lambda InfoNCE_c(t)``, the mean over the targets (Qin et al. 2024).

    F(x) is the model's output at the last event of a sequence x, and x_c that of the client's own training items.

    1. Explicit view: x' is x with ``substitutions`` of its events replaced. With g the gradient of
       ``-log softmax_t(F(x) . V)`` by the embedded events e (item and position), those with the largest |g| are, one after
       the other, given to the one of ``tries`` items with which the chance of t is largest (ties: the last). The items tried
       are those with the largest ``cos(e - sign(g), v_j)`` among the similar ones, ``cos(e, v_j) >= similarity``.
    2. Implicit view: ``InfoNCE_c(t) = -log (exp cos(v_t, p_c) / (exp cos(v_t, p_c) + sum over n of exp cos(v_t, v_n)))``, p_c
       the mean embedding of the client's items and n over ``negatives`` items drawn anew in every round, uniformly and with
       repetition, that it does not have.
    3. Upload: the gradient by all item embeddings and all dense parameters. It counts as the client's number of samples.

    Readings:

    * ``repeats``: the code takes the mean of L over 10 runs of step 1, which differ by the model's dropout in g alone: F,
      what is tried and L itself are without. Here softmax in g is without dropout, too.
    * ``unfit``: in the code an item that is not similar has its cosine set to 0, and is so tried before similar ones of
      negative cosine; the paper allows none. With ``never``, an event without a similar item stays.
    * ``substitutions``: README of the code 1, its own default 2.
    * The paper's variants: without the explicit view ``substitutions = 0``, without the implicit one ``contrast = 0``.
    * In the code malicious clients are injected and hold copies of real users' sequences. Compromised clients are the
      nearest; injected ones have random profiles here, in the order of item ids.

    On ML-100K (suite ``sasrec-targeted``, 5 % of the users, one seed) ER@10 is 99.9 % after 100 rounds of protocol aaai23 and
    falls to 46 % by round 600: the embedding of a cold item is soon turned round, and the model goes on learning.

    Published for servers that add gradients up, a learning rate of 0.001 that halves every five epochs, 256 clients a
    round, 0.1 % malicious ones, the least popular item, cross-entropy, and models whose scores are not of a last layer norm;
    exposure there is among 1,000 sampled items.
    """

    card = AttackCard(
        name="dv-fsr",
        title="Dual-view attack on sequential recommenders (DV-FSR, DARTS)",
        paper="Qin et al., arXiv 2409.07500 (2024)",
        goal=Goal.PROMOTE,
        channel=Channel.GRADIENT,
        knowledge=frozenset({Knowledge.OWN_DATA}),
        models=frozenset({"sasrec"}),
        notes="Its own parts are also known as S-FSR (contrast = 0) and C-FSR (substitutions = 0).",
    )

    class Params(Parameters):
        """Parameters."""

        substitutions: int = Field(1, ge=0, le=100, description="events replaced [code: README 1, default 2]")
        tries: int = Field(10, ge=1, le=1_000, description="items tried for each of them [code: 10]")
        similarity: float = Field(0.5, ge=-1, le=1, description="least cosine of an item with the event [code: 0.5]")
        unfit: Literal["as 0", "never"] = Field(
            "as 0", description="items that are less similar: tried as if of cosine 0 [code], or never [paper]"
        )
        repeats: int = Field(10, ge=1, le=1_000, description="times that events are replaced, under dropout [code: 10]")
        contrast: float = Field(1.0, ge=0, description="lambda [code: 1]")
        negatives: int = Field(100, ge=1, le=100_000, description="items that the target is drawn from [code: 100]")
        profile_size: int = Field(30, ge=1, description="items of an injected client's profile [ours; as RA: 30]")

    params: DualView.Params

    def profiles(self, view: AttackerView) -> Profiles:
        return random_profiles(view, self.params.profile_size)

    def craft(self, view: AttackerView) -> Updates:
        p, model, params, batch = self.params, view.model, view.params, view.own_batch
        m, targets = len(view.clients), len(view.targets)
        repeats = p.repeats if p.substitutions else 1
        # Client c works for target t in group T c + t.
        group = torch.arange(m * targets, device=view.device).repeat_interleave(repeats)
        changed = repeated(sequences(batch), targets * repeats)
        if p.substitutions:
            changed = substituted(model, params, changed, view.targets[group % targets], p, view.generator)
        changed, group, _, count = distinct(changed, group)
        client, target, share = group // targets, view.targets[group % targets], count / (targets * repeats)
        step = ended(model, params, changed, params.items[target], Loss("bpr", "sum"))
        of = torch.cat([owners(changed), torch.arange(len(target), device=view.device)])
        made = step.rows[0].grad() * share[of][:, None]
        rows = [FullRows(client[of], torch.cat([changed.item, target]), made)]
        if p.contrast:
            rows.append(contrasted(view, batch, p))
        full = FullRows(*(torch.cat([getattr(each, name) for each in rows]) for name in ("client", "item", "values")))
        dense = {
            name: value.new_zeros(m, *value.shape[1:]).index_add_(
                0, client, value * share.view(-1, *[1] * (value.dim() - 1))
            )
            for name, value in step.dense.stacked().items()
        }
        upload = coalesced(full, view.num_items)
        return Updates(view.clients, (upload,), DenseGradients.of(dense), model.samples(batch))


@dataclass(frozen=True)
class Towards(Loss):
    """``-F . v`` of the pair's positive v: the derivative by F is -v."""

    def slope(self, margin: torch.Tensor, client: torch.Tensor, num_clients: int) -> torch.Tensor:
        return torch.ones_like(margin)


def sequences(batch: Batch) -> Histories:
    """What models of sequences read of the clients of a batch of pairs."""
    read = batch.pair_positive if batch.sequence is None else batch.sequence
    assert read is not None
    return Histories.of(batch.client[read], batch.item[read], len(batch.clients))


def owners(histories: Histories) -> torch.Tensor:
    """int64 [P]: whose each event is."""
    return torch.repeat_interleave(histories.starts.diff())


def repeated(histories: Histories, times: int) -> Histories:
    """Every sequence so many times, one after the other."""
    length = histories.starts.diff().repeat_interleave(times)
    starts = torch.cat([length.new_zeros(1), length.cumsum(0)])
    first = histories.starts[:-1].repeat_interleave(times) - starts[:-1]
    place = torch.arange(int(starts[-1]), device=length.device)
    return Histories(starts, histories.item[place + first.repeat_interleave(length)])


def distinct(
    histories: Histories, group: torch.Tensor | None = None
) -> tuple[Histories, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Sequences without repeats: repeats cost as much as others to go through the model.

    Args:
        histories: n sequences. group: int64 [n], those of different groups are kept apart; None: one group.

    Returns:
        k sequences, their groups int64 [k], which of them each of the n is, int64 [n], and how often they occur, int64 [k].
    """
    length, owner = histories.starts.diff(), owners(histories)
    table = owner.new_full((len(length), 1 + int(length.max())), -1)
    table[:, 0] = 0 if group is None else group
    table[owner, 1 + torch.arange(len(owner), device=owner.device) - histories.starts[owner]] = histories.item
    table, place, count = torch.unique(table, dim=0, return_inverse=True, return_counts=True)
    there = table[:, 1:] >= 0
    starts = torch.cat([count.new_zeros(1), there.sum(1).cumsum(0)])
    return Histories(starts, table[:, 1:][there]), table[:, 0], place, count


def log_chances(model: Recommender, params: PublicParams, histories: Histories) -> torch.Tensor:
    """float32 [n, M]: ``log softmax(F V)`` after each of n sequences, without dropout."""
    some, _, place, count = distinct(histories)
    made = model.represent(params, params.items.new_zeros(len(count), 0), some)
    return torch.log_softmax(model.score_all(params, made), 1)[place]


def ended(
    model: Recommender,
    params: PublicParams,
    histories: Histories,
    liked: torch.Tensor,
    loss: Loss,
    generator: torch.Generator | None = None,
) -> LocalStep:
    """The model's local step on sequences after whose last event, and there alone, an item is liked.

    The pair at all other events is of two zeros, which have no gradient; at the last one it is of the liked item and zeros.
    Rows of the batch do not lie client by client, since models of sequences read pairs.

    Args:
        histories: n sequences, P events in all. liked: float32 [n, d], an embedding for each. loss: of pairs, summed.
        generator: of dropout; None: none.

    Returns:
        rows of the events in their order, then of the liked items; dense gradients of each sequence.
    """
    item, n = histories.item, len(liked)
    num_items, events = len(params.items), len(item)
    owner, index = owners(histories), torch.arange(n, device=item.device)
    first = events + n
    # Rows of the table: the items, the liked ones, and zeros. Rows of the batch: the events, the liked ones, and zeros.
    table = torch.cat([params.items, liked, liked.new_zeros(1, liked.shape[1])])
    client = torch.cat([owner, index, index])
    rows = torch.cat([item, num_items + index, torch.full_like(index, num_items + n)])
    length = histories.starts.diff()
    weight = torch.cat([liked.new_zeros(events), liked.new_ones(n), length.to(liked.dtype)])
    # A sequence's pairs: one for each event, read at the pair before, and the last.
    pair = torch.repeat_interleave(length + 1)
    last = histories.starts[1:] + index
    place = torch.arange(first, device=item.device) - pair
    read = place.clamp(max=max(events - 1, 0)).index_copy(0, last, events + index)
    positive = (first + pair).index_copy(0, last, events + index)
    batch = Batch(
        index,
        torch.cat([length.new_zeros(1), (length + 2).cumsum(0)]),
        client,
        rows,
        weight,
        weight,
        (length + 1).to(liked.dtype),
        positive,
        first + pair,
        read,
    )
    users = liked.new_zeros(n, 0)
    step = model.local_step(PublicParams(table, params.dense, params.features), users, batch, loss, generator)
    whole = torch.cat([block.grad() for block in step.rows])[:first]
    return replace(step, rows=(FullRows(client[:first], rows[:first], whole),))


def substituted(
    model: Recommender,
    params: PublicParams,
    histories: Histories,
    target: torch.Tensor,
    p: DualView.Params,
    generator: torch.Generator,
) -> Histories:
    """The sequences with their most telling events replaced (step 1).

    Args:
        histories: n sequences. target: int64 [n], which each is to promote. p: how. generator: of the model's dropout.
    """
    n, num_items, d = len(target), len(params.items), params.items.shape[1]
    missing = params.items[target] - log_chances(model, params, histories).exp() @ params.items
    step = ended(model, params, histories, missing, Towards("bpr", "sum"), generator)
    gradient = step.rows[0].grad()[: len(histories.item)] / math.sqrt(d)
    length, owner = histories.starts.diff(), owners(histories)
    place = torch.arange(len(owner), device=owner.device) - histories.starts[owner]
    importance = gradient.new_full((n, int(length.max())), -1)
    importance[owner, place] = gradient.norm(dim=1)
    found = importance.topk(min(p.substitutions, importance.shape[1]), dim=1)
    positions = params.dense["P"]
    tries, index = min(p.tries, num_items), torch.arange(n, device=owner.device)
    item = histories.item
    for at, worth in zip(found.indices.T, found.values.T, strict=True):
        event = (histories.starts[:-1] + at).clamp(max=len(item) - 1)
        e = math.sqrt(d) * params.items[histories.item[event]]
        e = e + positions[(len(positions) - length + at).clamp(0, len(positions) - 1)]
        similar = cosines(e, params.items) >= p.similarity
        order = cosines(e - gradient[event].sign(), params.items)
        order = order.where(similar, 0.0 if p.unfit == "as 0" else -math.inf)
        best = order.sort(dim=1, descending=True, stable=True)
        candidate = best.indices[:, :tries]
        trial = repeated(Histories(histories.starts, item), tries)
        spot = (trial.starts[:-1] + at.repeat_interleave(tries)).clamp(max=max(len(trial.item) - 1, 0))
        alive = (worth >= 0)[:, None] & (best.values[:, :tries] > -math.inf)
        swapped = trial.item.clone()
        swapped[spot[alive.flatten()]] = candidate[alive]
        trial = Histories(trial.starts, swapped)
        chance = log_chances(model, params, trial).gather(1, target.repeat_interleave(tries)[:, None])
        chance = chance.view(n, tries).where(alive, -math.inf)
        chosen = candidate[index, tries - 1 - chance.flip(1).argmax(1)]
        some = alive.any(1)
        item = item.clone()
        item[event[some]] = chosen[some]
    return Histories(histories.starts, item)


def cosines(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """float32 [n, M]: cosine similarities of ``a`` [n, d] and ``b`` [M, d]; 0 with a vector of zeros."""
    return torch.nn.functional.normalize(a, dim=1) @ torch.nn.functional.normalize(b, dim=1).T


def contrasted(view: AttackerView, batch: Batch, p: DualView.Params) -> FullRows:
    """The gradient of lambda InfoNCE, the mean over the targets (step 2): rows of each client, items more than once."""
    m, device, items = len(view.clients), view.device, view.params.items
    own = (batch.positive > 0).nonzero().squeeze(1)
    owner, item = batch.client[own], batch.item[own]
    count = occurrences(owner, m)
    # Padded with numbers that no item has, so that each client's own items are left out.
    taken = view.num_items + torch.arange(max(int(count.max()), 1), device=device).repeat(m, 1)
    taken[owner, torch.arange(len(owner), device=device) - (count.cumsum(0) - count)[owner]] = item
    uniform = torch.rand(m, p.negatives, generator=view.generator, device=device, dtype=torch.float64)
    negative = outside(taken, (uniform * (view.num_items - count)[:, None]).long()).clamp(max=view.num_items - 1)
    with torch.enable_grad():
        mine, target, others = (items[each].requires_grad_() for each in (item, view.targets.repeat(m, 1), negative))
        middle = torch.zeros(m, items.shape[1], device=device).index_add(0, owner, mine) / count.clamp(min=1)[:, None]
        every = torch.cat([middle[:, None], others], dim=1)
        # [m, T, 1 + negatives]: what the target is to be like comes first.
        similarity = torch.nn.functional.cosine_similarity(target[:, :, None], every[:, None], dim=3)
        loss = (torch.logsumexp(similarity, 2) - similarity[:, :, 0]).mean(1).sum() * p.contrast
        found = torch.autograd.grad(loss, [mine, target, others])
    index = torch.arange(m, device=device)
    client = torch.cat([owner, *(index.repeat_interleave(each.shape[1]) for each in (target, others))])
    touched = torch.cat([item, view.targets.repeat(m), negative.flatten()])
    return FullRows(client, touched, torch.cat([each.flatten(0, -2) for each in found]))
