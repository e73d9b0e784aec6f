"""What is measured of a federation after an epoch: on the test items, and on validation items where there are any."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from fedbench.data import Split
from fedbench.data.records import Pairs
from fedbench.data.splits import LEAVE_ONE_OUT_VALIDATION
from fedbench.evaluation.evaluator import EvaluationSettings, Evaluator, measure
from fedbench.federation.model import Histories
from fedbench.federation.population import UserItem
from fedbench.federation.simulation import Federation


class Measurement:
    """What is measured of a federation after an epoch.

    The test items, ranked against what their users have neither in training nor in validation (models of sequences may
    read both). Under the split ``leave-one-out-validation`` the same of the validation items, among what is not in training,
    as ``val_hr_full_K`` and ``val_ndcg_full_K``: to choose an epoch by. Validation parts of published splits are left out.

    Args:
        federation: in training. split: its data.
    """

    def __init__(self, federation: Federation, split: Split) -> None:
        self._federation = federation
        p, task, device = federation.protocol, federation.task, federation.device
        settings = EvaluationSettings(
            p.er_mask, p.er_eligible, p.er_denominator, ties=p.ties, seen_held_out=p.seen_held_out
        )

        def evaluator(known: UserItem, held_out: Pairs, targets: torch.Tensor) -> Evaluator:
            return Evaluator(
                num_users=task.num_users,
                num_items=task.num_items,
                train_user=known[0],
                train_item=known[1],
                test_user=torch.from_numpy(held_out.user).to(device),
                test_item=torch.from_numpy(held_out.item).to(device),
                targets=targets,
                evaluated_users=federation.population.evaluated_users.to(device),
                settings=settings,
                device=device,
            )

        train = task.train_user, task.train_item
        self._parts: list[tuple[str, Evaluator, Histories]] = []
        known = train
        if split.valid is not None and split.split == LEAVE_ONE_OUT_VALIDATION:
            self._add("val_", evaluator(train, split.valid, task.targets[:0]), train)
            valid = torch.from_numpy(split.valid.user).to(device), torch.from_numpy(split.valid.item).to(device)
            order = torch.argsort(torch.cat([train[0], valid[0]]), stable=True)
            known = torch.cat([train[0], valid[0]])[order], torch.cat([train[1], valid[1]])[order]
        test = evaluator(known, split.test, task.targets)
        self._add("", test, known)
        self.target_places = test.target_places
        self._test, self._all = test, federation.population.honest_users
        self._decided = test.decided()
        found = test.by_popularity()
        self.popularity: dict[str, float] = {
            k: found[k] for k in ("hr_10", "hr_full_10") if k in found and self._decided.get(k) != 1
        }
        """HR@10 of recommending the most popular unseen items, in the rankings that this split has."""
        self.warnings = _warnings(test, self._decided)
        """One line each: what may mislead in these numbers."""

    def _add(self, prefix: str, evaluator: Evaluator, known: UserItem) -> None:
        histories = Histories.of(*known, self._federation.task.num_users)
        self._parts.append((prefix, evaluator, histories))

    def __call__(self) -> dict[str, float]:
        """The metrics now. Raises :class:`Diverged`."""
        f = self._federation
        own = f.users[: f.task.num_users]
        by_part = [f.model.represent(f.params, own, histories) for *_, histories in self._parts]
        evaluators = [evaluator for _, evaluator, _ in self._parts]
        if all(users is own for users in by_part):  # validation and test, so two at most
            # Histories do not matter to the model: the scores of all parts are the same.
            found = measure(evaluators, f.model, f.params, own, f.training.tables)
        else:
            found = [
                each(f.model, f.params, users, f.training.tables)
                for each, users in zip(evaluators, by_part, strict=True)
            ]
        out = {}
        for (prefix, *_), part in zip(self._parts, found, strict=True):
            out.update({f"{prefix}{name}": value for name, value in part.items() if not prefix or "full" in name})
        return {name: value for name, value in out.items() if self._decided.get(name) != 1}

    @property
    def sampled_users(self) -> int | None:
        """How many users stand for all; None: everybody is measured."""
        return len(self._test.users) if len(self._test.users) < self._all else None

    def sampling_errors(self) -> dict[str, float]:
        """Metric, with ``_se``, -> the standard error of its last value as the mean over all honest users.

        Empty without a sample, or before anything was measured.
        """
        if self.sampled_users is None:
            return {}
        return {f"{name}_se": value for name, value in self._test.standard_errors(self._all).items()}


FEW_USERS = 50
"""Below so many, one user is more than 2 % of a share."""
SAID = 0.05
"""From this share of the users on, what is odd with them is said."""


def _warnings(evaluator: Evaluator, decided: Mapping[str, float]) -> list[str]:
    """What is odd with what is ranked, and for whom."""
    said = []
    users, tested = len(evaluator.users), evaluator.num_tested
    if users < FEW_USERS:
        said.append(f"few users: {users} evaluated, so shares move in steps of {100 / users:.1f} %")
    if tested == 0:
        said.append("no user has a test item: only exposure is measured")
    elif users - tested >= SAID * users:
        said.append(f"users without a test item: {users - tested:,} of {users:,}; HR@K is the mean over the others")
    always = [name for name, share in decided.items() if share == 1]
    often = [name for name, share in decided.items() if SAID <= share < 1]
    if always:
        said.append(
            f"not measured: {', '.join(always)}; no more than K items are ranked, so every list holds all of them"
        )
    if often:
        most = max(decided[name] for name in often)
        said.append(f"{', '.join(often)}: up to {100 * most:.0f} % of the lists hold all items that are ranked")
    return said
