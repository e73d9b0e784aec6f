"""One run: a scenario and a seed go in, a record comes out."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import inspect
import json
import math
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import torch

from fedbench.cards import identifying
from fedbench.data import Split, load_split
from fedbench.data.records import Pairs
from fedbench.data.splits import LEAVE_ONE_OUT_VALIDATION
from fedbench.errors import Diverged, UserError
from fedbench.federation.evaluation import EvaluationSettings, Evaluator
from fedbench.federation.simulation import Federation, Task
from fedbench.models.base import Histories
from fedbench.plugins import module_source
from fedbench.randomness import derive_seed, generator
from fedbench.results import RunRecord, environment, summarize_curve
from fedbench.scenario import Scenario

Ints = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class Progress:
    """Where a run stands, told after every evaluation."""

    epoch: int
    epochs: int
    metrics: Mapping[str, float]


def execute(
    scenario: Scenario,
    seed: int,
    *,
    device: str = "cpu",
    suite: str | None = None,
    on_evaluation: Callable[[Progress], None] | None = None,
    on_start: Callable[[Federation], None] | None = None,
) -> RunRecord:
    """Run ``scenario`` once with ``seed``.

    A run that diverges or fails still gives a record, with its status, its error and the curve up to there.

    Args:
        scenario: what to run. seed: root of all its random streams.
        device: ``"cpu"`` or ``"cuda"``. suite: the name to note in the record.
        on_evaluation: called after every evaluation. on_start: called before the first round.

    Raises:
        UserError: for what no run can mend: unknown names, impossible combinations, missing data.
    """
    keep_freed_memory()
    started, begin = datetime.now(UTC), time.perf_counter()
    where = torch.device(device)
    if where.type == "cuda":
        if not torch.cuda.is_available():
            raise UserError("device 'cuda': torch sees no GPU here; use --device cpu.")
        torch.cuda.reset_peak_memory_stats(where)
    resolved = scenario.resolved
    protocol = resolved.protocol
    split = split_of(scenario, seed)
    attack = resolved.attack()
    task = task_of(scenario, split, where)
    curve: list[dict[str, float]] = []
    status, error = "ok", None
    federation: Federation | None = None
    setup = time.perf_counter() - begin
    try:
        federation = Federation(
            task, resolved.model, attack, resolved.defense(), scenario.malicious_ratio, protocol, seed, where
        )
        evaluate = Evaluation(federation, split)
        if on_start is not None:
            on_start(federation)
        setup = time.perf_counter() - begin
        for epoch in range(1, protocol.epochs + 1):
            federation.train_epoch()
            if epoch % protocol.evaluate_every == 0 or epoch == protocol.epochs:
                before = time.perf_counter()
                federation.check_finite()
                metrics = evaluate()
                federation.seconds.evaluate += time.perf_counter() - before
                curve.append({"epoch": epoch, **metrics})
                if on_evaluation is not None:
                    on_evaluation(Progress(epoch, protocol.epochs, metrics))
    except Diverged as stop:
        status, error = "diverged", str(stop)
    except UserError:
        raise
    except Exception as failure:  # whatever an attack or a defense raises ends its run, not the suite
        status, error = "failed", f"{type(failure).__name__}: {failure}\n{traceback.format_exc(limit=-4)}"
    return RunRecord(
        **identity(scenario, seed, suite),
        **_data_columns(split),
        num_malicious=task.num_malicious,
        target_items=task.targets.tolist(),
        status=status,
        error=error,
        epochs_planned=protocol.epochs,
        epochs_done=federation.epoch if federation else 0,
        rounds=federation.round if federation else 0,
        ranking=protocol.ranking,
        **summarize_curve(curve, protocol.epochs),
        seconds_total=time.perf_counter() - begin,
        seconds_setup=setup,
        seconds_train=federation.seconds.train if federation else 0.0,
        seconds_attack=federation.seconds.attack if federation else 0.0,
        seconds_evaluate=federation.seconds.evaluate if federation else 0.0,
        peak_gpu_bytes=torch.cuda.max_memory_allocated(where) if where.type == "cuda" else None,
        started_at=started,
        **environment(device),
    )


def task_of(scenario: Scenario, split: Split, device: torch.device) -> Task:
    """What the federation of ``scenario`` trains on, as tensors on ``device``."""
    return Task(
        split.num_users,
        split.num_items,
        torch.from_numpy(split.train.user).to(device),
        torch.from_numpy(split.train.item).to(device),
        choose_targets(scenario, split).to(device),
        count_malicious(split.num_users, scenario.malicious_ratio),
        _published_sample(split, scenario.resolved.attack().public_fraction, device),
        _held_out(split, device),
    )


class Evaluation:
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

        def evaluator(known: Ints, held_out: Pairs, targets: torch.Tensor) -> Evaluator:
            return Evaluator(
                num_users=task.num_users,
                num_items=task.num_items,
                train_user=known[0],
                train_item=known[1],
                test_user=torch.from_numpy(held_out.user).to(device),
                test_item=torch.from_numpy(held_out.item).to(device),
                targets=targets,
                evaluated_users=federation.evaluated_users.to(device),
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
        self._add("", evaluator(known, split.test, task.targets), known)

    def _add(self, prefix: str, evaluator: Evaluator, known: Ints) -> None:
        histories = self._federation.histories(*known, self._federation.task.num_users)
        self._parts.append((prefix, evaluator, histories))

    def __call__(self) -> dict[str, float]:
        """The metrics now. Raises :class:`Diverged`."""
        f = self._federation
        out = {}
        for prefix, evaluator, histories in self._parts:
            users = f.model.represent(f.params, f.users[: f.task.num_users], histories)
            found = evaluator(f.model, f.params, users)
            out.update({f"{prefix}{name}": value for name, value in found.items() if not prefix or "full" in name})
        return out


@functools.cache
def keep_freed_memory() -> None:
    """Ask the C library to keep freed memory for the next round instead of handing it back to the system.

    Rounds allocate the same megabytes over and over; taking them from the system each time costs as much as the
    arithmetic (on Linux, NCF trains 1.4 times faster with this). Elsewhere nothing happens.
    """
    if not sys.platform.startswith("linux"):
        return
    with contextlib.suppress(AttributeError, OSError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD
        mallopt(-3, 2**25)  # M_MMAP_THRESHOLD, at its upper limit


def count_malicious(num_users: int, ratio: float) -> int:
    """floor(N * ratio), at least 1 when the ratio is above 0."""
    return max(1, math.floor(num_users * ratio + 1e-9)) if ratio > 0 else 0


def choose_targets(scenario: Scenario, split: Split) -> torch.Tensor:
    """The target items, int64 [T], by the scenario's policy; the same for every seed.

    ``random:K``: the K-th fixed draw among the items that occur in the data, uniform, without repetition.
    ``least-popular``: fewest interactions in train and test together, then the smallest id. ``fixed``: as given. ``none``: no
    item, for attacks that promote none.
    """
    if scenario.target == "none":
        return torch.zeros(0, dtype=torch.int64)
    count = torch.bincount(torch.from_numpy(split.train.item), minlength=split.num_items)
    count += torch.bincount(torch.from_numpy(split.test.item), minlength=split.num_items)
    if scenario.target.startswith("fixed:"):
        chosen = [int(item) for item in scenario.target.removeprefix("fixed:").split(",")]
        if max(chosen) >= split.num_items or len(set(chosen)) < len(chosen):
            raise UserError(
                f"target {scenario.target!r}: item ids must differ and lie below {split.num_items}"
                f" ({scenario.dataset}, split {split.split})."
            )
        return torch.tensor(chosen)
    there = count.nonzero().squeeze(1)
    if scenario.num_targets > len(there):
        raise UserError(f"num_targets = {scenario.num_targets}: {scenario.dataset} has only {len(there)} items.")
    if scenario.target == "least-popular":
        return there[torch.argsort(count[there], stable=True)[: scenario.num_targets]]
    draw = int(scenario.target.removeprefix("random:"))
    order = torch.randperm(len(there), generator=generator(draw, "targets", scenario.dataset))
    return there[order[: scenario.num_targets]]


def identity(scenario: Scenario, seed: int, suite: str | None) -> dict[str, Any]:
    """The columns of a record that are known before it runs."""
    r = scenario.resolved
    card = r.attack_class.card
    defense = r.defense().card
    return {
        "scenario_id": scenario.id,
        "clean_id": scenario.clean.id,
        "undefended_id": scenario.undefended.id,
        "baseline_id": scenario.clean.undefended.id,
        "scenario_json": scenario.key,
        "suite": suite,
        "model": scenario.model,
        "model_version": r.model.card.version,
        "model_params": _json(identifying(r.model.params)),
        "model_source_hash": source_hash(type(r.model)),
        "attack": scenario.attack,
        "attack_version": card.version,
        "attack_goal": str(card.goal),
        "attack_channel": str(card.channel),
        "attack_knowledge": sorted(card.knowledge),
        "attack_params": _json(identifying(r.attack_params)),
        "attack_source_hash": source_hash(r.attack_class),
        "defense": scenario.defense,
        # A chain's rises with that of any of its parts.
        "defense_version": 1 + sum(cls.card.version - 1 for cls, _ in r.defenses),
        "defense_family": str(defense.family),
        "defense_knowledge": sorted(map(str, defense.knowledge)),
        "defense_assumes": defense.assumes,
        "defense_params": _json({cls.card.name: identifying(params) for cls, params in r.defenses}),
        "defense_source_hash": source_hash(*(cls for cls, _ in r.defenses)),
        "malicious_ratio": scenario.malicious_ratio,
        "protocol": scenario.protocol,
        "protocol_params": _json(identifying(r.protocol)),
        "target": scenario.target,
        "seed": seed,
    }


def split_of(scenario: Scenario, seed: int) -> Split:
    """The data of a run, divided into training and test interactions."""
    protocol = scenario.resolved.protocol
    return load_split(
        scenario.dataset, protocol.split, duplicates=protocol.duplicates, seed=derive_seed(seed, "split") % 2**31
    )


def source_hash(*classes: type) -> str:
    """SHA-256 of the files in which the classes, and those that they derive from, are written."""
    modules = {inspect.getmodule(base) for cls in classes for base in cls.__mro__ if base is not object}
    sources = sorted((module.__name__, module_source(module)) for module in modules if module is not None)
    return hashlib.sha256(json.dumps(sources).encode()).hexdigest()


def _data_columns(split: Split) -> dict[str, Any]:
    report = split.report
    dropped = report.duplicates == "drop"
    return {
        "dataset": split.dataset,
        "split": split.split,
        "dataset_fingerprint": split.fingerprint,
        "num_users": split.num_users,
        "num_items": split.num_items,
        "num_interactions": len(split.train),
        "duplicates_removed": (report.train_duplicates + report.heldout_duplicates) if dropped else 0,
        "leaked_removed": report.leaked if dropped else 0,
    }


def _published_sample(split: Split, fraction: float, device: torch.device) -> tuple[torch.Tensor, torch.Tensor] | None:
    pairs = split.public.get(f"{fraction:g}")
    if pairs is None:
        return None
    return torch.from_numpy(pairs.user).to(device), torch.from_numpy(pairs.item).to(device)


def _held_out(split: Split, device: torch.device) -> Ints:
    """User and item of all test and validation interactions."""
    parts = [split.test] if split.valid is None else [split.valid, split.test]
    return (
        torch.cat([torch.from_numpy(pairs.user) for pairs in parts]).to(device),
        torch.cat([torch.from_numpy(pairs.item) for pairs in parts]).to(device),
    )


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True)
