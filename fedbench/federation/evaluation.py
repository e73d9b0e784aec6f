"""Evaluation of all users in chunks: exposure of the targets, and quality on the held-out items.

No score is masked. An item's rank is counted over all items, and the user's seen items that score as high are
subtracted again: comparing is cheaper than writing into the matrix. The measured score is read from the same block as
its competitors', never computed apart, so that a tie is a tie.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from fedbench import metrics
from fedbench.errors import Diverged, UserError
from fedbench.federation.clients import ragged
from fedbench.models.base import PublicParams, Recommender

KEPT_PAIRS = 5_000_000
"""Up to so many seen pairs, their places in the score blocks are kept between evaluations (16 bytes each)."""


@dataclass(frozen=True)
class EvaluationSettings:
    """How exposure is counted (protocol fields of the same name, METHODS 2.5).

    Attributes:
        er_mask: items that do not compete with the target: the user's ``"train"`` or ``"train+test"`` items.
        er_eligible: users are not counted who have the target in ``"train"``, or in ``"train+test"``.
        er_denominator: ``"eligible"`` users, or ``"all"`` (WSDM'22: a share of all users).
        num_negatives: sampled negatives of HR@K and NDCG@K.
    """

    er_mask: str = "train"
    er_eligible: str = "train"
    er_denominator: str = "eligible"
    num_negatives: int = 99


class Evaluator:
    """Metrics of a model on one split.

    With at most one held-out item a user: HR@K and NDCG@K against sampled negatives, as exact expectations
    (``hr_K``, ``ndcg_K``), and by full ranking (``hr_full_K``, ``ndcg_full_K``). With several: ``recall_K``,
    ``precision_K``, ``ndcg_full_K`` of the top-K lists, with ``hr_full_K = recall_K``. Always: ``er_K``, the exposure
    ratio ``|{u in U_t : t in the top K of u's unseen items}| / |U_t|``, mean over the targets t (ICDE'24, eq. 3).

    Args:
        num_users: N. num_items: M.
        train_user, train_item: int64 [P]; repeats count once. test_user, test_item: int64 [Q].
        targets: int64 [T]. evaluated_users: int64, the honest users; nobody else is counted.
        settings: how exposure is counted. device: where the scores are made.

    Raises:
        UserError: when nobody could be shown a target, because every user has it already.
    """

    def __init__(
        self,
        *,
        num_users: int,
        num_items: int,
        train_user: torch.Tensor,
        train_item: torch.Tensor,
        test_user: torch.Tensor,
        test_item: torch.Tensor,
        targets: torch.Tensor,
        evaluated_users: torch.Tensor,
        settings: EvaluationSettings,
        device: torch.device,
    ) -> None:
        self.users = evaluated_users.to(device).sort().values
        self.num_items = num_items
        self.settings = settings
        self.targets = targets.to(device)
        honest = torch.zeros(num_users, dtype=torch.bool, device=device).index_fill_(0, self.users, True)
        place = honest.cumsum(0) - 1

        def pairs(user: torch.Tensor, item: torch.Tensor) -> torch.Tensor:
            user, item = user.to(device), item.to(device)
            kept = honest[user]
            return torch.unique(place[user[kept]] * num_items + item[kept])

        train, test = pairs(train_user, train_item), pairs(test_user, test_item)
        self._train = _Csr.of(train, len(self.users), num_items)
        self._test = _Csr.of(test, len(self.users), num_items)
        both = torch.unique(torch.cat([train, test]))
        self._mask = self._train if settings.er_mask == "train" else _Csr.of(both, len(self.users), num_items)
        excluded = train if settings.er_eligible == "train" else both
        row = torch.arange(len(self.users), device=device)
        keys = row[:, None] * num_items + self.targets
        self._eligible = ~torch.isin(keys, excluded)
        if not bool(self._eligible.any(0).all()):
            none = self.targets[~self._eligible.any(0)][0].item()
            raise UserError(
                f"target item {none}: every user has interacted with it, so its exposure cannot be measured."
            )
        self._single = bool((self._test.length <= 1).all())
        self._tested = (self._test.length > 0).nonzero().squeeze(1)
        leaked = torch.isin(test, train)
        if self._single:
            self._held_out = torch.zeros(len(self.users), dtype=torch.int64, device=device)
            self._held_out[test // num_items] = test % num_items
            leak = torch.zeros(len(self.users), dtype=torch.int64, device=device)
            leak[(test // num_items)[leaked]] = 1
            # Competitors of the held-out item: everything but the user's train items and itself.
            self._pool = num_items - self._train.length - 1 + leak
            self._leak = leak
        on_gpu = device.type == "cuda"
        self._chunk = max(1, (2**26 if on_gpu else 2**18) // num_items)
        self._blocks = [slice(start, start + self._chunk) for start in range(0, len(self.users), self._chunk)]
        if len(both) <= KEPT_PAIRS:
            for csr in (self._train, self._mask):
                csr.keep(self._blocks)

    def __call__(self, model: Recommender, params: PublicParams, users: torch.Tensor) -> dict[str, float]:
        """The metrics of ``model`` with ``params`` and the embeddings ``users``, float32 [N, d].

        Raises:
            Diverged: when a score is not finite: NaN compares as false and would look like a perfect result.
        """
        embeddings = users.index_select(0, self.users)
        n, count = len(self.users), len(self.targets)
        target_rank = torch.empty(n, count, device=users.device)
        test_rank = torch.empty(n, device=users.device)
        lists: list[torch.Tensor] = []
        finite = torch.ones((), dtype=torch.bool, device=users.device)
        buffer = torch.empty(0, device=users.device)
        for block in self._blocks:
            scores = model.score_all(params, embeddings[block])
            if buffer.shape != scores.shape:
                buffer = torch.empty_like(scores)
            finite &= torch.isfinite(scores.sum(1)).all()
            train, owner = self._train.block(block)
            mask, mask_owner = (train, owner) if self._mask is self._train else self._mask.block(block)
            flat = scores.view(-1)
            seen_train = flat.index_select(0, train)
            seen_mask = seen_train if mask is train else flat.index_select(0, mask)
            for t in range(count):
                level = scores.gather(1, self.targets[t].expand(len(scores), 1))
                as_high = torch.ge(scores, level, out=buffer).sum(1)
                target_rank[block, t] = as_high - 1 - _seen_as_high(seen_mask, level, mask_owner)
            if self._single:
                level = scores.gather(1, self._held_out[block, None])
                as_high = torch.ge(scores, level, out=buffer).sum(1)
                test_rank[block] = as_high - 1 - _seen_as_high(seen_train, level, owner)
            else:
                flat.index_fill_(0, train, -torch.inf)
                lists.append(self._list_hits(scores, block))
        if not bool(finite):
            raise Diverged("scores are not finite")
        result = self._exposure(target_rank)
        return result | (self._single_item(test_rank) if self._single else self._several_items(torch.cat(lists)))

    def _exposure(self, rank: torch.Tensor) -> dict[str, float]:
        denominator = self._eligible.sum(0) if self.settings.er_denominator == "eligible" else len(self.users)
        out = {}
        for k in metrics.EXPOSURE_CUTOFFS:
            exposed = (metrics.hits(rank, k) * self._eligible).sum(0)
            out[f"er_{k}"] = float((exposed / denominator).mean())
        return out

    def _single_item(self, rank: torch.Tensor) -> dict[str, float]:
        # A leaked held-out item is among the train items, so it was subtracted once too often.
        rank = (rank + self._leak)[self._tested].long()
        spread = metrics.sampled_rank_distribution(
            rank, self._pool[self._tested], self.settings.num_negatives, max(metrics.CUTOFFS)
        )
        out = {}
        for k in metrics.CUTOFFS:
            out[f"hr_{k}"] = float(metrics.expected_hits(spread, k).mean())
            out[f"ndcg_{k}"] = float(metrics.expected_gain(spread, k).mean())
            out[f"hr_full_{k}"] = float(metrics.hits(rank, k).mean())
            out[f"ndcg_full_{k}"] = float(metrics.discounted_gain(rank, k).mean())
        return out

    def _list_hits(self, scores: torch.Tensor, block: slice) -> torch.Tensor:
        """Which entries of each user's top-K list are held-out items: bool [b, K].

        Ties are broken against held-out items by lowering their scores by the least amount that floats allow.
        """
        test, _ = self._test.block(block)
        flat = scores.view(-1)
        lowered = torch.nextafter(flat.index_select(0, test), flat.new_full((), -torch.inf))
        flat.index_copy_(0, test, lowered)
        places = min(max(metrics.CUTOFFS), self.num_items)
        top = scores.topk(places, dim=1).indices
        relevant = torch.zeros(scores.shape, dtype=torch.bool, device=scores.device)
        relevant.view(-1).index_fill_(0, test, True)
        return relevant.gather(1, top)

    def _several_items(self, hit: torch.Tensor) -> dict[str, float]:
        hit, relevant = hit[self._tested].double(), self._test.length[self._tested]
        gain = torch.log2(2.0 + torch.arange(hit.shape[1], dtype=torch.float64, device=hit.device)).reciprocal()
        out = {}
        for k in metrics.CUTOFFS:
            found = hit[:, :k].sum(1)
            out[f"recall_{k}"] = out[f"hr_full_{k}"] = float((found / relevant).mean())
            out[f"precision_{k}"] = float(found.mean() / k)
            ideal = metrics.ideal_gain(relevant, k)
            out[f"ndcg_full_{k}"] = float((hit[:, :k] @ gain[:k] / ideal).mean())
        return out


@dataclass(frozen=True)
class _Csr:
    """Distinct (user, item) pairs by user; ``block`` gives a chunk's as flat positions in its score block."""

    starts: torch.Tensor
    host_starts: torch.Tensor
    item: torch.Tensor
    length: torch.Tensor
    num_items: int
    kept: dict[int, tuple[torch.Tensor, torch.Tensor]] = field(default_factory=dict)

    @classmethod
    def of(cls, keys: torch.Tensor, num_users: int, num_items: int) -> _Csr:
        starts = torch.searchsorted(keys // num_items, torch.arange(num_users + 1, device=keys.device))
        return cls(starts, starts.cpu(), keys % num_items, starts[1:] - starts[:-1], num_items)

    def block(self, block: slice) -> tuple[torch.Tensor, torch.Tensor]:
        """Flat positions int64 [p] in the chunk's [b, M] scores, and the chunk's row of each."""
        if block.start in self.kept:
            return self.kept[block.start]
        which = torch.arange(block.start, min(block.stop, len(self.length)))
        index, _, owner = ragged(self.starts, self.host_starts, which)
        return owner * self.num_items + self.item.index_select(0, index), owner

    def keep(self, blocks: list[slice]) -> None:
        """Remember the positions of these chunks."""
        self.kept.update({block.start: self.block(block) for block in blocks})


def _seen_as_high(seen: torch.Tensor, level: torch.Tensor, owner: torch.Tensor) -> torch.Tensor:
    """float32 [b]: how many of a user's seen items score at least ``level`` [b, 1]."""
    high = (seen >= level.squeeze(1).index_select(0, owner)).float()
    return torch.zeros(len(level), device=level.device).index_add_(0, owner, high)
