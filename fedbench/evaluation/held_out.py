"""Quality of recommendation on the held-out items, from where they rank for their users."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from fedbench.evaluation import metrics
from fedbench.evaluation.pairs import Pairs, is_in
from fedbench.federation.rows import occurrences

SAMPLED_CUTOFF = 10
"""K of the metrics whose standard errors are told where a sample of the users is measured."""

TESTED = 2**17
"""Users whose expectations over sampled negatives are taken at a time."""


@dataclass(frozen=True)
class Found:
    """What held-out items tell.

    Attributes:
        metrics: name -> mean over the users who have a held-out item, as scalars.
        each_user: of some metrics at :data:`SAMPLED_CUTOFF`, their terms: float [users with a held-out item].
    """

    metrics: dict[str, torch.Tensor]
    each_user: dict[str, torch.Tensor]


class HeldOut:
    """Held-out items of n users: at most one of each, or several (see :class:`~.evaluator.Evaluator`).

    Args:
        train, test: their pairs of the two parts. num_negatives, seen_held_out: as in
            :class:`~.evaluator.EvaluationSettings`.

    Attributes:
        tested: int64, the users who have a held-out item.
        single: whether nobody has more than one. Only then are there the next three, int64 [n].
        item: the held-out item. leaked: 1 where it is among the user's train items, too, and 0 elsewhere.
        pool: its competitors: everything but the user's train items and itself.
    """

    def __init__(
        self, train: Pairs, test: Pairs, *, num_negatives: int, seen_held_out: Literal["ranked", "missed"]
    ) -> None:
        self._train, self._test = train, test
        self._num_negatives, self._seen_held_out = num_negatives, seen_held_out
        self._num_items = test.num_items
        self.tested = (test.length > 0).nonzero().squeeze(1)
        self.single = bool((test.length <= 1).all())
        if self.single:
            owner = test.keys // test.num_items
            self.item = torch.zeros_like(test.length)
            self.item[owner] = test.item
            self.leaked = torch.zeros_like(test.length)
            self.leaked[owner] = is_in(test.keys, train.keys).long()
            self.pool = test.num_items - train.length - 1 + self.leaked

    def by_ranks(self, rank: torch.Tensor) -> Found:
        """Of single items, by the ranks of all users, float [n]; those without a held-out item are left out."""
        if self._seen_held_out == "missed":
            rank = torch.where(self.leaked > 0, float(self._num_items + max(metrics.CUTOFFS)), rank)
        ranks, pools = rank[self.tested].split(TESTED), self.pool[self.tested].split(TESTED)
        parts = [self._gains(*part) for part in zip(ranks, pools, strict=True)]
        if len(parts) == 1:
            return parts[0]
        share = torch.tensor([len(part) for part in ranks], device=rank.device).double() / len(self.tested)
        return Found(
            {name: (torch.stack([part.metrics[name] for part in parts]) * share).sum() for name in parts[0].metrics},
            {name: torch.cat([part.each_user[name] for part in parts]) for name in parts[0].each_user},
        )

    def _gains(self, rank: torch.Tensor, pool: torch.Tensor) -> Found:
        """Of users with ranks float [m] and ``pool``, int64 [m], competitors."""
        chances = metrics.sampled_rank_distribution(
            rank.ceil().long().minimum(pool), pool, self._num_negatives, max(metrics.CUTOFFS)
        )
        each_user = {
            f"hr_{SAMPLED_CUTOFF}": metrics.expected_hits(chances, SAMPLED_CUTOFF),
            f"hr_full_{SAMPLED_CUTOFF}": metrics.hits(rank, SAMPLED_CUTOFF),
        }
        out = {}
        for k in metrics.CUTOFFS:
            out[f"hr_{k}"] = metrics.expected_hits(chances, k).mean()
            out[f"ndcg_{k}"] = metrics.expected_gain(chances, k).mean()
            out[f"hr_full_{k}"] = metrics.hits(rank, k).mean()
            out[f"ndcg_full_{k}"] = metrics.discounted_gain(rank, k).mean()
        return Found(out, each_user)

    def by_lists(self, ahead: torch.Tensor, score: torch.Tensor) -> Found:
        """Of several items: how many other unseen items are ahead of each, int64 [Q], and its own score, [Q]."""
        owner = torch.repeat_interleave(self._test.length)
        rank = metrics.list_ranks(ahead, score, self._test.starts[:-1], owner)
        out, each_user = {}, {}
        for k in metrics.CUTOFFS:
            recall, precision, gain = (
                each[self.tested] for each in metrics.list_metrics(rank, owner, self._test.length, k)
            )
            out[f"recall_{k}"] = out[f"hr_full_{k}"] = recall.mean()
            out[f"precision_{k}"], out[f"ndcg_full_{k}"] = precision.mean(), gain.mean()
            if k == SAMPLED_CUTOFF:
                each_user = {f"hr_full_{k}": recall}
        return Found(out, each_user)

    def by_popularity(self, popularity: torch.Tensor) -> Found:
        """When everybody is recommended the unseen items of highest ``popularity``, int64 [M].

        Of equally popular items the lower id comes first. Takes a sort of the training pairs, no scores.
        """
        order = torch.argsort(popularity, descending=True, stable=True)
        place = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))
        if self.single:
            level = place[self.item]
            owner = torch.repeat_interleave(self._train.length)
            before = occurrences(owner[place[self._train.item] < level[owner]], len(level))
            return self.by_ranks((level - before).float())
        keys = torch.unique(torch.cat([self._train.keys, self._test.keys]))
        user, item = keys // self._num_items, keys % self._num_items
        seen = torch.sort(user * self._num_items + place[item]).values
        owner, level = self._test.keys // self._num_items, place[self._test.item]
        first = owner * self._num_items
        before = torch.searchsorted(seen, first + level) - torch.searchsorted(seen, first)
        known = is_in(self._test.keys, self._train.keys)
        ahead = torch.where(known, max(metrics.CUTOFFS), level - before)
        return self.by_lists(ahead, (-level.double()).masked_fill(known, -torch.inf))

    def decided(self) -> dict[str, float]:
        """Metric -> share of the users for whom it cannot but find everything: no more than K items are ranked."""
        if not len(self.tested):
            return {}
        ranked = (self.pool + 1 if self.single else self._num_items - self._train.length)[self.tested]
        sampled = ranked.clamp(max=self._num_negatives + 1)
        out = {}
        for k in metrics.CUTOFFS:
            out[f"hr_full_{k}"] = full = float((ranked <= k).double().mean())
            if self.single:
                out[f"hr_{k}"] = float((sampled <= k).double().mean())
            else:
                out[f"recall_{k}"] = full
        return out
