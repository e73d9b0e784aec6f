"""What a run trains on: the split of its data, the targets, and the number of malicious clients."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import torch

from fedbench.data import Split, load_split
from fedbench.data.images import Pictures, load_pictures
from fedbench.data.library import imported_mark
from fedbench.errors import UserError
from fedbench.federation.images import ItemImages
from fedbench.federation.population import Subgroup, Task, UserItem
from fedbench.federation.protocol import Protocol
from fedbench.models.visual import VisualParams
from fedbench.randomness import derive_seed, generator
from fedbench.scenarios.scenario import PER_SEED, WITH_IMAGE, Scenario
from fedbench.vision.features import feature_reader

POPULAR_SHARE = 0.1
"""Of the items, those that ``random-popular`` draws from."""


def split_of(scenario: Scenario, seed: int) -> Split:
    """The data of a run, divided into training and test interactions."""
    protocol = scenario.resolved.protocol
    return load_split(
        scenario.dataset, protocol.split, duplicates=protocol.duplicates, seed=derive_seed(seed, "split") % 2**31
    )


def task_of(
    scenario: Scenario,
    split: Split,
    device: torch.device,
    progress: Callable[[int, int], None] | None = None,
    seed: int = 0,
) -> Task:
    """What the federation of ``scenario`` trains on, as tensors on ``device``.

    Args:
        scenario, seed: of the run. split: its data. device: where tensors live.
        progress: told how many images have their features, and of how many, while these are computed.
    """
    targets = choose_targets(scenario, split, seed)
    return Task(
        split.num_users,
        split.num_items,
        torch.from_numpy(split.train.user).to(device),
        torch.from_numpy(split.train.item).to(device),
        targets.to(device),
        count_malicious(split.num_users, scenario.malicious_ratio),
        _published_sample(split, scenario.resolved.attack().public_fraction, device),
        _held_out(split, device),
        _images(scenario, split, targets, device, progress),
        choose_subgroup(scenario.resolved.protocol, split, device),
    )


def pictures_of(split: Split) -> Pictures:
    """The images of the items of a split; raises :class:`DataError` where there are none."""
    return _pictures(split.dataset, split.split, imported_mark(split.dataset))


@functools.lru_cache(maxsize=1)
def _pictures(dataset: str, split: str, mark: tuple[tuple[str, int, int], ...]) -> Pictures:
    """``mark``: of what was imported, so that another import under the same name is not taken for the first."""
    return load_pictures(dataset, split)


def _images(
    scenario: Scenario,
    split: Split,
    targets: torch.Tensor,
    device: torch.device,
    progress: Callable[[int, int], None] | None,
) -> ItemImages | None:
    """The images of a model that reads them, and its extractor."""
    model = scenario.resolved.model
    if not model.reads_features:
        return None
    params = model.params
    if not isinstance(params, VisualParams):
        raise UserError(f"model {scenario.model!r} reads features, so its Params must derive from VisualParams.")
    pictures = pictures_of(split)
    reader = feature_reader(params.extractor, params.feature_norm, params.feature_scale, device)
    reader.progress = progress
    pixels, there = torch.tensor(pictures.pixels, device=device), torch.tensor(pictures.there, device=device)
    shows = scenario.resolved.attack_class.card.channel.shows_images
    without = targets[~there.cpu()[targets]]
    if shows and len(without):
        raise UserError(
            f"attack {scenario.attack!r} replaces images of its targets, and item {int(without[0])} has none; use target ="
            " 'least-popular-with-image', or items that have one."
        )
    return ItemImages(pixels, reader, there, params.missing)


def choose_targets(scenario: Scenario, split: Split, seed: int = 0) -> torch.Tensor:
    """The target items, int64 [T], by the scenario's policy; the same for every seed but by ``per-seed``.

    ``random:K``: the K-th fixed draw among the items that occur in the data, uniform, without repetition.
    ``least-popular``, ``most-popular``: fewest, or most, interactions in train and test together, then the smallest id.
    ``random-popular:K``: a draw among the most popular tenth of the items, rounded up. ``per-seed``, ``per-seed-popular``:
    the draw that has the number of the run's seed, so that all attacks of a seed have the same targets, and seeds their own.
    Any of them with ``-with-image``: among items that have an image. ``fixed``: as given. ``none``: no item, for attacks
    that have none.
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
    policy, _, draw = scenario.target.partition(":")
    pictured = policy.endswith(WITH_IMAGE)
    policy = policy.removesuffix(WITH_IMAGE)
    if policy.startswith(PER_SEED):
        policy, draw = policy.replace(PER_SEED, "random"), str(seed)
    if pictured:
        count *= torch.tensor(pictures_of(split).there)
    there = count.nonzero().squeeze(1)
    if policy == "random-popular":
        ranked = there[torch.argsort(count[there], descending=True, stable=True)]
        there = ranked[: math.ceil(POPULAR_SHARE * len(there))]
    if scenario.num_targets > len(there):
        raise UserError(f"num_targets = {scenario.num_targets}: {scenario.dataset} has only {len(there)} such items.")
    if policy in ("least-popular", "most-popular"):
        order = torch.argsort(count[there], descending=policy == "most-popular", stable=True)
        return there[order[: scenario.num_targets]]
    order = torch.randperm(len(there), generator=generator(int(draw), "targets", scenario.dataset))
    return there[order[: scenario.num_targets]]


def choose_subgroup(protocol: Protocol, split: Split, device: torch.device) -> Subgroup | None:
    """The users who have all of some items in training, drawn among the frequent ones; the same for every seed.

    Raises:
        UserError: there are not so many frequent items, or nobody has all that were drawn.
    """
    if not protocol.subgroup:
        return None
    pairs = torch.unique(torch.from_numpy(split.train.user) * split.num_items + torch.from_numpy(split.train.item))
    user, item = pairs // split.num_items, pairs % split.num_items
    often = torch.bincount(item, minlength=split.num_items) > protocol.subgroup_frequency * split.num_users
    frequent = often.nonzero().squeeze(1)
    where = f"{split.dataset}: subgroup = {protocol.subgroup}, subgroup_draw = {protocol.subgroup_draw}"
    if protocol.subgroup > len(frequent):
        raise UserError(
            f"{where}: only {len(frequent)} items have more than {protocol.subgroup_frequency:g} of the users."
        )
    order = torch.randperm(len(frequent), generator=generator(protocol.subgroup_draw, "subgroup", split.dataset))
    items = frequent[order[: protocol.subgroup]].sort().values
    have = torch.bincount(user[torch.isin(item, items)], minlength=split.num_users)
    users = (have == len(items)).nonzero().squeeze(1)
    if not len(users):
        raise UserError(f"{where}: nobody has all of the items; ask for fewer, or for another draw.")
    return Subgroup(items.to(device), users.to(device))


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
