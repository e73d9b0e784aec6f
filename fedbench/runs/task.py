"""What a run trains on: the split of its data, the targets, and the number of malicious clients."""

from __future__ import annotations

import math

import torch

from fedbench.data import Split, load_split
from fedbench.errors import UserError
from fedbench.federation.population import Task, UserItem
from fedbench.randomness import derive_seed, generator
from fedbench.scenarios.scenario import Scenario


def split_of(scenario: Scenario, seed: int) -> Split:
    """The data of a run, divided into training and test interactions."""
    protocol = scenario.resolved.protocol
    return load_split(
        scenario.dataset, protocol.split, duplicates=protocol.duplicates, seed=derive_seed(seed, "split") % 2**31
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


def count_malicious(num_users: int, ratio: float) -> int:
    """floor(N * ratio), at least 1 when the ratio is above 0."""
    return max(1, math.floor(num_users * ratio + 1e-9)) if ratio > 0 else 0


def _published_sample(split: Split, fraction: float, device: torch.device) -> UserItem | None:
    pairs = split.public.get(f"{fraction:g}")
    if pairs is None:
        return None
    return torch.from_numpy(pairs.user).to(device), torch.from_numpy(pairs.item).to(device)


def _held_out(split: Split, device: torch.device) -> UserItem:
    """User and item of all test and validation interactions."""
    parts = [split.test] if split.valid is None else [split.valid, split.test]
    return (
        torch.cat([torch.from_numpy(pairs.user) for pairs in parts]).to(device),
        torch.cat([torch.from_numpy(pairs.item) for pairs in parts]).to(device),
    )
