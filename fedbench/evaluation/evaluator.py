"""Evaluation of all users in chunks: exposure of the targets, and quality on the held-out items.

No score is masked for it. An item's rank is counted over all items, and the user's seen items that score as high are
subtracted again: comparing is cheaper than writing into the matrix. The measured score is read from the same block as
its competitors', never computed apart, so that a tie is a tie; only in catalogues of :data:`~inner_products.LARGE` items and
more, where most are never scored, it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch

from fedbench.errors import Diverged, UserError
from fedbench.evaluation import inner_products, metrics
from fedbench.evaluation.displacement import places_text
from fedbench.evaluation.held_out import SAMPLED_CUTOFF, Found, HeldOut
from fedbench.evaluation.pairs import Pairs, Seen, distinct, is_in
from fedbench.federation.model import PublicParams, Recommender, scores_by_inner_products
from fedbench.federation.own_tables import OwnTables

KEPT_PAIRS = 5_000_000
"""Up to so many seen pairs, their places in the score blocks are kept between evaluations (16 bytes each)."""

BLOCK_SCORES = {"cpu": 2**19, "cuda": 2**26}
"""Scores made at a time: on a CPU 2 MiB of them, which stay in its cache."""

MOST_PLACES = 2**22
"""Places of targets in users' lists that a record keeps, one byte each."""

FEWEST_USERS = 32
"""Users scored at a time, however many items there are: reading all items for one user alone is slow."""


@dataclass
class _Ranks:
    """Ranks of the targets, float32 [n, T], and of single held-out items, float32 [n], filled chunk by chunk.

    Of several held-out items, by chunk, what :meth:`Evaluator._compare_lists` says of them.
    """

    target: torch.Tensor
    test: torch.Tensor
    lists: tuple[list[torch.Tensor], list[torch.Tensor]] = field(default_factory=lambda: ([], []))

    @classmethod
    def empty(cls, evaluator: Evaluator, device: torch.device) -> _Ranks:
        n, num_targets = len(evaluator.users), len(evaluator.targets)
        return cls(torch.empty(n, num_targets, device=device), torch.empty(n, device=device))


@dataclass(frozen=True)
class EvaluationSettings:
    """How exposure is counted (protocol fields of the same name).

    Attributes:
        er_mask: items that do not compete with the target: the user's ``"train"`` or ``"train+test"`` items.
        er_eligible: users are not counted who have the target in ``"train"``, or in ``"train+test"``.
        er_denominator: ``"eligible"`` users, or ``"all"`` (WSDM'22: a share of all users).
        num_negatives: sampled negatives of HR@K and NDCG@K.
        ties: whether all competitors of equal score are ahead of a single held-out item (``"against"``), or half of them.
        seen_held_out: whether a single held-out item that is a train item, too, is ``"ranked"``, or always ``"missed"``.
    """

    er_mask: Literal["train", "train+test"] = "train"
    er_eligible: Literal["train", "train+test"] = "train"
    er_denominator: Literal["eligible", "all"] = "eligible"
    num_negatives: int = 99
    ties: Literal["against", "half"] = "against"
    seen_held_out: Literal["ranked", "missed"] = "ranked"


class Evaluator:
    """Metrics of a model on one split, ties broken against the measured item (unless the settings say otherwise).

    Always: ``er_K``, the exposure ratio ``|{u in U_t : t in the top K of u's unseen items}| / |U_t|``, mean over the
    targets t (ICDE'24, eq. 3); other targets compete. When users have at most one held-out item: HR@K and NDCG@K
    against sampled negatives, as exact expectations (``hr_K``, ``ndcg_K``), and by full ranking (``hr_full_K``,
    ``ndcg_full_K``). When they have several: ``recall_K``, ``precision_K`` and ``ndcg_full_K`` of the top-K lists
    without train items, with ``hr_full_K = recall_K``. Users without a held-out item do not count for these; when
    nobody has one, only exposure is measured. Without targets, it is not.

    A held-out item that is also in the user's train items (kept duplicates) is ranked like any other when it is the
    only one, as in the code of ICDE'24, and can never be found when there are several, as in that of IJCAI'22.

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
        self.num_users = num_users
        self.users = evaluated_users.to(device).sort().values
        self.num_items = num_items
        self.settings = settings
        self.targets = targets.to(device)
        n = len(self.users)
        honest = torch.zeros(num_users, dtype=torch.bool, device=device).index_fill_(0, self.users, True)
        place = honest.cumsum(0) - 1

        def pairs(user: torch.Tensor, item: torch.Tensor) -> torch.Tensor:
            user, item = user.to(device), item.to(device)
            kept = honest[user]
            return distinct(place[user[kept]] * num_items + item[kept])

        train, test = pairs(train_user, train_item), pairs(test_user, test_item)
        self._popularity = torch.bincount(train_item.to(device), minlength=num_items)
        both = (
            torch.unique(torch.cat([train, test]))
            if "train+test" in (settings.er_mask, settings.er_eligible)
            else train
        )
        masked = train if settings.er_mask == "train" else both
        self._train, self._test = Pairs.of(train, n, num_items), Pairs.of(test, n, num_items)
        self.held_out = HeldOut(
            self._train, self._test, num_negatives=settings.num_negatives, seen_held_out=settings.seen_held_out
        )
        self._mask = self._train if masked is train else Pairs.of(masked, n, num_items)

        shown = torch.arange(n, device=device)[:, None] * num_items + self.targets
        self._eligible = ~is_in(shown, train if settings.er_eligible == "train" else both)
        if not bool(self._eligible.any(0).all()):
            item = self.targets[~self._eligible.any(0)][0].item()
            raise UserError(f"target item {item}: every user has it already, so its exposure cannot be measured.")
        self._target_masked = is_in(shown, masked)
        self._target_rank = torch.empty(0, len(self.targets), device=device)
        self._found = Found({}, {})

        chunk = max(FEWEST_USERS, BLOCK_SCORES["cuda" if device.type == "cuda" else "cpu"] // num_items)
        self._blocks = [slice(start, min(start + chunk, n)) for start in range(0, n, chunk)]
        for some in {id(some): some for some in (self._train, self._mask, self._test)}.values():
            if len(some.item) <= KEPT_PAIRS:
                some.keep(self._blocks)

    def __call__(
        self, model: Recommender, params: PublicParams, users: torch.Tensor, tables: OwnTables | None = None
    ) -> dict[str, float]:
        """The metrics of ``model`` with the embeddings ``users``, float32 [N, d], and ``params`` or own tables.

        Raises:
            Diverged: when a score is not finite: NaN compares as false and would look like a perfect result.
        """
        return measure([self], model, params, users, tables)[0]

    def _count(self, scores: torch.Tensor, buffer: torch.Tensor, block: slice, ranks: _Ranks) -> None:
        """Adds the ranks of a chunk of users, by all their ``scores``, float32 [b, M], to ``ranks``.

        Scores are overwritten where users have several held-out items, and ``buffer``, of the same shape, always.
        """
        seen = Seen.of(scores, self._mask, block)
        for t in range(len(self.targets)):
            level = scores.gather(1, self.targets[t].expand(len(scores), 1))
            ranks.target[block, t] = _as_high(scores, level, buffer) - seen.as_high(level)
        if not self.held_out.single:
            for found, of_chunk in zip(ranks.lists, self._compare_lists(scores, block), strict=True):
                found.append(of_chunk)
            return
        if self._mask is not self._train:
            seen = Seen.of(scores, self._train, block)
        level = scores.gather(1, self.held_out.item[block, None])
        ranks.test[block] = _as_high(scores, level, buffer) - seen.as_high(level)
        if self.settings.ties == "half":
            # An item in train and held out is not higher than itself.
            higher = torch.gt(scores, level, out=buffer).sum(1) - seen.as_high(level, strictly=True)
            higher -= self.held_out.leaked[block]
            ranks.test[block] = (ranks.test[block] + higher) / 2

    def _by_scores(self, ranks: _Ranks) -> dict[str, float]:
        """The metrics, when all users were counted."""
        # A masked item that is itself measured was subtracted from its own rank.
        target_rank = ranks.target + self._target_masked
        if self.held_out.single:
            return self._metrics(target_rank, self.held_out.by_ranks, ranks.test + self.held_out.leaked)
        return self._metrics(target_rank, self.held_out.by_lists, *map(torch.cat, ranks.lists))

    def _metrics(
        self, target_rank: torch.Tensor, quality: Callable[..., Found], *ranks: torch.Tensor
    ) -> dict[str, float]:
        """Exposure by the targets' ranks, [n, T], and the ``quality`` of held-out items by what is known of theirs."""
        self._target_rank = target_rank
        result = self._exposure(target_rank) if len(self.targets) else {}
        if self.num_tested:
            self._found = quality(*ranks)
            result |= self._found.metrics
        return _plain(result)

    def _large(self, items: torch.Tensor, embeddings: torch.Tensor) -> bool:
        """Whether to look for what need not be scored, where ranks are counts of finite scores."""
        if len(items) < inner_products.LARGE or not self.held_out.single or self.settings.ties != "against":
            return False
        return bool(torch.isfinite(items.norm(dim=1).amax() * embeddings.norm(dim=1).amax()))

    def _by_bounds(self, items: torch.Tensor, embeddings: torch.Tensor) -> dict[str, float]:
        """The same metrics as :meth:`_by_scores`, of ranks that are equal where they matter, and larger where not."""
        n, device = len(self.users), embeddings.device
        target_rank = torch.zeros(n, len(self.targets), dtype=torch.float64, device=device)
        beyond = torch.full((n,), max(metrics.EXPOSURE_CUTOFFS), device=device)
        for t, target in enumerate(self.targets):
            mask = self._mask
            found = inner_products.ranks(embeddings, items, target.expand(n), mask.starts, mask.item, beyond)
            target_rank[:, t] = found
        test_rank = torch.zeros(n, dtype=torch.float64, device=device)
        if self.num_tested:
            # From three quarters of the pool on, the chance of a place among the best is below 1e-20.
            beyond = (self.held_out.pool * 3 // 4).clamp(min=max(metrics.CUTOFFS))
            train = self._train
            test_rank += inner_products.ranks(embeddings, items, self.held_out.item, train.starts, train.item, beyond)
        return self._metrics(target_rank, self.held_out.by_ranks, test_rank)

    def target_places(self) -> list[str] | None:
        """Of every target, who was shown it at the last call (see :mod:`~fedbench.evaluation.displacement`).

        None before the first call, without targets, and where users and targets make more than :data:`MOST_PLACES`.
        """
        if not self._target_rank.numel() or self.num_users * len(self.targets) > MOST_PLACES:
            return None
        users, rank, eligible = (
            self.users.cpu().numpy(),
            self._target_rank.long().cpu().numpy(),
            self._eligible.cpu().numpy(),
        )
        out = []
        for t in range(len(self.targets)):
            place, counted = np.zeros(self.num_users, np.int64), np.zeros(self.num_users, bool)
            place[users], counted[users] = rank[:, t], eligible[:, t]
            out.append(places_text(place, counted))
        return out

    def standard_errors(self, num_all: int) -> dict[str, float]:
        """Of ER@10 and HR@10 at the last call, as means over ``num_all`` users of whom these are a sample.

        ``s sqrt((1 - n / N) / n)``, with s the standard deviation over the n measured users (Cochran, Sampling Techniques,
        1977, theorem 2.2); of ER@K, a mean of ratios, s of what each user adds to its deviation (the same, section 6.4). A
        metric of which fewer than two users count has none.
        """
        out = {}
        if self._target_rank.numel():
            counted = self._eligible.double()
            hits = metrics.hits(self._target_rank, SAMPLED_CUTOFF) * counted
            if self.settings.er_denominator == "eligible":
                share = counted.mean(0)
                hits = (hits - counted * (hits.sum(0) / counted.sum(0))) / share
            out[f"er_{SAMPLED_CUTOFF}"] = hits.mean(1)
        out |= self._found.each_user
        errors = {
            name: values.std() * ((1 - len(self.users) / num_all) / len(values)) ** 0.5
            for name, values in out.items()
            if len(values) > 1
        }
        return _plain(errors)

    @property
    def num_tested(self) -> int:
        """How many of the users have a held-out item."""
        return len(self.held_out.tested)

    def by_popularity(self) -> dict[str, float]:
        """The metrics of the held-out items when everybody is recommended the items with most training interactions."""
        return _plain(self.held_out.by_popularity(self._popularity).metrics) if self.num_tested else {}

    def decided(self) -> dict[str, float]:
        """Metric -> share of what it counts where it cannot but find everything: no more than K items are ranked."""
        out: dict[str, float] = {}
        if len(self.targets):
            ranked = self.num_items - self._mask.length[:, None] + self._target_masked.long()
            ranked = ranked[self._eligible]
            out |= {f"er_{k}": float((ranked <= k).double().mean()) for k in metrics.EXPOSURE_CUTOFFS}
        return out | self.held_out.decided()

    def _exposure(self, rank: torch.Tensor) -> dict[str, torch.Tensor]:
        users = self._eligible.sum(0) if self.settings.er_denominator == "eligible" else len(self.users)
        return {f"er_{k}": metrics.exposure_ratio(rank, self._eligible, users, k) for k in metrics.EXPOSURE_CUTOFFS}

    def _compare_lists(self, scores: torch.Tensor, block: slice) -> tuple[torch.Tensor, torch.Tensor]:
        """For each held-out item of a chunk: how many of the best other unseen items score as high; its own score.

        Counts stop at the longest list that is measured. ``scores`` are overwritten.
        """
        train, _ = self._train.block(block)
        test, owner = self._test.block(block)
        flat = scores.view(-1)
        flat.index_fill_(0, train, -torch.inf)
        level = flat.index_select(0, test)
        flat.index_fill_(0, test, -torch.inf)
        longest = max(metrics.CUTOFFS)
        best = scores.topk(min(longest, self.num_items), dim=1, sorted=False).values
        counts = (best.index_select(0, owner) >= level[:, None]).sum(1)
        return torch.where(level == -torch.inf, longest, counts), level


def measure(
    evaluators: Sequence[Evaluator],
    model: Recommender,
    params: PublicParams,
    users: torch.Tensor,
    tables: OwnTables | None = None,
) -> list[dict[str, float]]:
    """The metrics by each of ``evaluators``, as when they are called in turn; scores are made once for all of them.

    Args:
        evaluators: of the same users and items; more than one only where no user has several held-out items.
        model, params, users, tables: as for the call of one.

    Raises:
        Diverged: when a score is not finite.
    """
    first = evaluators[0]
    embeddings = users.index_select(0, first.users)
    if (
        tables is None
        and scores_by_inner_products(model)
        and all(each._large(params.items, embeddings) for each in evaluators)
    ):
        return [each._by_bounds(params.items, embeddings) for each in evaluators]
    device = embeddings.device
    ranks = [_Ranks.empty(each, device) for each in evaluators]
    finite = torch.ones((), dtype=torch.bool, device=device)
    buffer = torch.empty(0, device=device)
    for block in first._blocks:
        if tables is None:
            scores = model.score_all(params, embeddings[block]).contiguous()
        else:
            scores = tables.scores(model, params, first.users[block], embeddings[block])
        finite &= torch.isfinite(scores.amax()) & torch.isfinite(scores.amin())
        if buffer.shape != scores.shape:
            # Comparisons are written and summed as floats, four times faster than bools (exact below 2^24 items).
            buffer = torch.empty(scores.shape, device=device)
        for each, its in zip(evaluators, ranks, strict=True):
            each._count(scores, buffer, block, its)
    if not bool(finite):
        raise Diverged("scores are not finite")
    return [each._by_scores(its) for each, its in zip(evaluators, ranks, strict=True)]


def _plain(metrics: dict[str, torch.Tensor]) -> dict[str, float]:
    """Numbers of scalars, read from the device at once."""
    return dict(zip(metrics, torch.stack(list(metrics.values())).tolist(), strict=True)) if metrics else {}


def _as_high(scores: torch.Tensor, level: torch.Tensor, buffer: torch.Tensor) -> torch.Tensor:
    """float32 [b]: how many other items score at least ``level`` [b, 1], which is one of the row's own scores."""
    return torch.ge(scores, level, out=buffer).sum(1) - 1
