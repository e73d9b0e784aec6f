"""FedAttack: honest training on the samples that are hardest for the client's own user."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field

from fedbench.attacks.own_data import DataPoisoning, random_profiles, trained_on
from fedbench.entries.cards import AttackCard, Channel, Goal, Knowledge
from fedbench.federation.attack import Attack
from fedbench.federation.batch import Batch
from fedbench.federation.rows import occurrences
from fedbench.federation.updates import Updates
from fedbench.federation.view import AttackerView, Profiles


class FedAttack(Attack):
    """Each client's negatives are drawn from the items that score highest for it, its positives from the lowest.

    Wu et al. (KDD 2022). With the items in descending order of the client's scores, every negative sample becomes one of
    the first ``pool`` items and every positive one of the last ``pool``, uniformly and independently; the client then
    trains honestly on them and uploads that. It has as many samples as before. Scores are those of the current model and
    the client's current representation, equal ones in the order of item ids.

    Readings:

    * ``pool``: the authors' code takes the first and the last item, the same for all of a client's pairs (``pool=1``);
      the paper draws among the hardest candidates so that uploads stay varied, without a size. Default (ours): as many
      as the client has positives, so that it touches about as many items as before. At most half of the items, so that
      both ends stay apart.
    * A negative that would be its own pair's positive is replaced by the item after the pool, as in the code; other
      items of the client are not avoided. Pointwise losses keep no pairs, and nothing is avoided.
    * ``own_embedding``: an attacker has no reason to spoil what it ranks by, so the client's own embedding follows its
      clean data; in the first release of AAAI'23's code it follows the poisoned data, and so does the next ranking.
    * The code ranks by users' initial embeddings, which it never updates, and by items one client old: slips, not ported.
    """

    card = AttackCard(
        name="fed-attack",
        title="FedAttack (hard sampling)",
        paper="Wu et al., KDD 2022",
        goal=Goal.DEGRADE,
        channel=Channel.GRADIENT,
        knowledge=frozenset({Knowledge.OWN_DATA}),
        notes="Data poisoning: what is uploaded is honest training on samples chosen by the attacker.",
    )

    class Params(DataPoisoning):
        """Parameters."""

        pool: int | None = Field(
            None,
            ge=1,
            description="hardest items among which a sample is drawn; None: as many as the client has positives"
            " [code: 1; paper: not stated]",
        )
        draw: Literal["uniform", "each-once"] = Field(
            "uniform",
            description="each sample is drawn from the pool; or every pair has the last item of all as positive, and the"
            " pool's items in turn as negatives [AAAI'23 code]",
        )

    params: FedAttack.Params

    def profiles(self, view: AttackerView) -> Profiles:
        return random_profiles(view, self.params.profile_size)

    def craft(self, view: AttackerView) -> Updates:
        order = view.model.score_all(view.params, view.own_users).argsort(dim=1, descending=True, stable=True)
        batch = hardest(view.own_batch, order, self.params, view.generator, view.model.reads_sequences)
        return trained_on(view, batch, self.params)


def hardest(
    batch: Batch,
    order: torch.Tensor,
    params: FedAttack.Params,
    generator: torch.Generator,
    keep_sequences: bool = False,
) -> Batch:
    """The batch with every sample replaced by a hard one; pairs keep their order.

    Args:
        batch: of m clients. order: int64 [m, M], the items in descending order of each client's scores.
        params: how many items at either end, and how they are drawn. generator: on the device of the result.
        keep_sequences: whether what models of sequences read stays as it was.
    """
    m, num_items = order.shape
    paired = batch.pair_positive is not None
    if batch.pair_positive is not None:
        plus = minus = batch.client.index_select(0, batch.pair_positive)
    else:
        plus = batch.client.repeat_interleave(batch.positive.long())
        minus = batch.client.repeat_interleave((batch.weight - batch.positive).long())
    if params.pool is None:
        size = torch.zeros_like(batch.size).index_add_(0, batch.client, batch.positive).long()
    else:
        size = batch.starts.new_full((m,), params.pool)
    size = size.clamp(min=1, max=max(1, num_items // 2))
    if params.draw == "each-once":
        positive = order[plus, -1]
        negative = order[minus, _turns(minus, m) % size.index_select(0, minus)]
    else:
        positive = order[plus, num_items - 1 - _ranks(size.index_select(0, plus), generator)]
        negative = order[minus, _ranks(size.index_select(0, minus), generator)]
        if batch.pair_positive is not None:
            own = batch.item.index_select(0, batch.pair_positive)
            following = order[minus, size.index_select(0, minus).clamp(max=num_items - 1)]
            negative = torch.where(negative == own, following, negative)

    keys = [plus * num_items + positive, minus * num_items + negative]
    if keep_sequences and batch.pair_positive is not None:
        read = batch.pair_positive if batch.sequence is None else batch.sequence
        keys.append(plus * num_items + batch.item.index_select(0, read))
    key, place = torch.unique(torch.cat(keys), return_inverse=True)
    client = key // num_items
    is_positive, is_negative = place[: len(plus)], place[len(plus) : len(plus) + len(minus)]
    labels = batch.positive.new_zeros(len(key)).index_add_(0, is_positive, batch.positive.new_ones(len(plus)))
    weight = labels.index_add(0, is_negative, labels.new_ones(len(minus)))
    return Batch(
        batch.clients,
        torch.searchsorted(client, torch.arange(m + 1, device=client.device)),
        client,
        key % num_items,
        weight,
        labels,
        batch.size,
        is_positive if paired else None,
        is_negative if paired else None,
        place[len(plus) + len(minus) :] if len(keys) > 2 else None,
    )


def _turns(owner: torch.Tensor, count: int) -> torch.Tensor:
    """0, 1, 2, ... within each owner's entries, which stand together: int64 [n]."""
    length = occurrences(owner, count)
    return torch.arange(len(owner), device=owner.device) - (length.cumsum(0) - length).index_select(0, owner)


def _ranks(size: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Uniform numbers from 0 to ``size`` - 1, one for each entry: int64 [n]."""
    uniform = torch.rand(len(size), generator=generator, device=generator.device, dtype=torch.float64)
    return (uniform * size).long()
