"""What image attacks do at once to a model in training: many targets and bounds at one moment, without a run for each."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from fedbench.attacks import ATTACKS
from fedbench.data import Split
from fedbench.defenses.chain import Chain
from fedbench.entries.cards import parse_parameters
from fedbench.errors import UserError
from fedbench.evaluation.metrics import hits
from fedbench.federation.adversary import Adversary
from fedbench.federation.attack import Attack
from fedbench.federation.defense import Defense
from fedbench.federation.gallery import Upload
from fedbench.federation.model import Histories, PublicParams
from fedbench.federation.simulation import Federation
from fedbench.runs.run import keep_freed_memory
from fedbench.runs.task import choose_targets, pictures_of, split_of, task_of
from fedbench.runs.uploads import measures_of
from fedbench.scenarios.scenario import Scenario
from fedbench.vision.measures import auc, recall_at_zero_false_positives

Rows = list[dict[str, Any]]

CUTOFF = 5
"""K of the exposure that is measured."""

Target = tuple[str, int, int]
"""Group, item and popularity."""


@dataclass(frozen=True)
class Try:
    """An image attack with its parameters, tried on every target by itself."""

    attack: str
    params: Mapping[str, Any]

    def made(self) -> Attack:
        """A fresh one."""
        cls = ATTACKS.get(self.attack)
        if not cls.card.channel.shows_images:
            raise UserError(f"attack {self.attack!r} replaces no images.")
        return cls(parse_parameters(cls.Params, self.params, f"attack {self.attack!r}"))


def snapshots(
    scenario: Scenario,
    seed: int,
    epochs: Sequence[int],
    tries: Sequence[Try],
    targets: int = 10,
    malicious_ratio: float = 0.001,
    device: str = "cpu",
    progress: Callable[[str], None] = lambda text: None,
    known: Callable[[int, Try, int], Mapping[str, Any] | None] = lambda epoch, one, item: None,
) -> Iterator[Rows]:
    """Train without an attack, and stop now and then to try image attacks on the model of that moment.

    Each attack shows its image of one target; the defense makes of it what it makes; ER@5 is measured with that image in
    force and all others as they were, before any training on it. The model is trained under the same defense.

    Args:
        scenario: without an attack, of a model that reads features. seed: of the run.
        epochs: after which to stop, ascending. tries: attacks. targets: as many of the least popular items with an image,
            and of the most popular ones.
        malicious_ratio: of the attacker's synthetic users. device: where tensors live. progress: told what is being done.
        known: epoch, attack and item -> the row that is there of them, which is not made again; None: there is none.

    Yields:
        After each stop at which something was missing, the rows of the attacks that lacked some, known ones too: one for
        every target, with ``er_5``, its value without the attack ``er_5_before``, the target's ``popularity`` and ``group``
        (``cold`` or ``popular``), the measures of the upload, and how well the uploads of all targets are told from clean
        images (``detection_auc``, ``detection_recall_zero_fp``).
    """
    keep_freed_memory()
    check(scenario)
    for each in tries:
        each.made()
    where, split = torch.device(device), split_of(scenario, seed)
    r = scenario.resolved
    groups = _targets(scenario, split, targets)
    lacking = {
        epoch: [one for one in tries if any(known(epoch, one, item) is None for _, item, _ in groups)]
        for epoch in epochs
    }
    stops = [epoch for epoch, found in lacking.items() if found]
    if not stops:
        return
    task = task_of(replace(scenario, target="none"), split, where)
    federation = Federation(task, r.model, r.attack(), r.defense(), 0.0, r.protocol, seed, where)
    for epoch in range(1, max(stops) + 1):
        federation.train_epoch()
        progress(f"epoch {epoch}")
        if epoch in stops:
            federation.check_finite()
            there = functools.partial(known, epoch)
            yield list(_at_this_moment(federation, lacking[epoch], groups, malicious_ratio, progress, there))


def check(scenario: Scenario) -> None:
    """Refuse what has no images to attack or to clean.

    Raises:
        UserError: the model reads none, or the defense is there and cleans none.
    """
    r = scenario.resolved
    if not r.model.reads_features:
        raise UserError(f"model {scenario.model!r} does not look at images; those that do: vncf, lightvgcn.")
    defense = r.defense()
    parts = defense.parts if isinstance(defense, Chain) else [defense]
    if scenario.defense != "none" and all(type(part).purify is Defense.purify for part in parts):
        raise UserError(
            f"defense {scenario.defense!r} cleans no images; `fedbench list defenses` names the family of each."
        )


def _targets(scenario: Scenario, split: Split, count: int) -> list[Target]:
    """Each item once, of few items with the cold ones."""
    cold = choose_targets(replace(scenario, target="least-popular-with-image", num_targets=count), split)
    popularity = torch.bincount(torch.from_numpy(split.train.item), minlength=split.num_items)
    shown = popularity * torch.tensor(pictures_of(split).there)
    best = torch.argsort(shown, descending=True, stable=True)[:count]
    group = dict.fromkeys(cold.tolist(), "cold")
    for item in best.tolist():
        group.setdefault(item, "popular")
    return [(name, item, int(popularity[item])) for item, name in group.items()]


def _at_this_moment(
    federation: Federation,
    tries: Sequence[Try],
    groups: Sequence[Target],
    ratio: float,
    progress: Callable[[str], None],
    known: Callable[[Try, int], Mapping[str, Any] | None],
) -> Iterator[dict[str, Any]]:
    gallery = federation.gallery
    assert gallery is not None
    standing = Standing.of(federation)
    clean = gallery.similarity.cpu()
    facts = {
        "epoch": federation.epoch,
        "clean_similarity_mean": float(clean.mean()),
        "clean_similarity_min": float(clean.min()),
    }
    for each in tries:
        rows: Rows = []
        for number, (group, item, popularity) in enumerate(groups):
            if (there := known(each, item)) is not None:
                rows.append(dict(there))
                continue
            progress(f"epoch {federation.epoch}, {each.attack}, target {number + 1} of {len(groups)}")
            upload, features = _shown(federation, each, item, ratio)
            (measured,) = measures_of(gallery, upload)
            rows.append(
                {
                    **facts,
                    "attack": each.attack,
                    "attack_params": dict(each.params),
                    "group": group,
                    "item": item,
                    "popularity": popularity,
                    "er_5_before": standing.exposure(federation, federation.params, item),
                    "er_5": standing.exposure(federation, replace(federation.params, features=features), item),
                    **{name: value for name, value in measured.items() if name not in ("epoch", "item")},
                }
            )
        found = torch.tensor([row["similarity"] for row in rows])
        told = {
            "detection_auc": auc(gallery.held_out.cpu(), found),
            "detection_recall_zero_fp": recall_at_zero_false_positives(gallery.held_out.cpu(), found),
        }
        yield from ({**row, **told} for row in rows)


def _shown(federation: Federation, each: Try, item: int, ratio: float) -> tuple[Upload, torch.Tensor]:
    """The upload for one target, and the features with it in force."""
    gallery = federation.gallery
    assert gallery is not None
    population = copy.copy(federation.population)
    count = max(1, int(federation.task.num_users * ratio + 1e-9))
    targets = torch.tensor([item], device=federation.device)
    population.task = replace(federation.task, targets=targets, num_malicious=count)
    population.protocol = federation.protocol.model_copy(update={"attack_start": 1})
    adversary = Adversary(each.made(), population, federation.training)
    replaced = adversary.replaced_images(
        gallery.images, federation.params, federation.epoch + 1, federation.round, federation.defense.purify
    )
    if replaced is None:
        raise UserError(f"attack {each.attack!r} showed no image.")
    mirror = copy.copy(gallery)
    mirror.uploads = []
    mirror.receive(replaced, federation.epoch + 1, population.stream("images", federation.epoch + 1, item))
    return mirror.uploads[0], mirror.features


@dataclass(frozen=True)
class Standing:
    """How high a target must score to be among a user's first five unseen items.

    Attributes:
        users: float32 [n, d], what scores items for each. seen: bool [n, M], which items they have.
        best: float32 [n, 6], the scores of their best unseen items, falling. items: int64 [n, 6], which these are.
    """

    users: torch.Tensor
    best: torch.Tensor
    items: torch.Tensor
    seen: torch.Tensor

    @classmethod
    def of(cls, federation: Federation) -> Standing:
        """At this moment, with the images that are in force."""
        f, task = federation, federation.task
        who = f.population.evaluated_users.to(f.device)
        histories = Histories.of(task.train_user, task.train_item, task.num_users)
        users = f.model.represent(f.params, f.users[: task.num_users], histories)[who]
        seen = torch.zeros(task.num_users, task.num_items, dtype=torch.bool, device=f.device)
        seen[task.train_user, task.train_item] = True
        seen = seen[who]
        best, items = [], []
        for start in range(0, len(users), 256):
            block = slice(start, start + 256)
            scores = f.model.score_all(f.params, users[block]).masked_fill(seen[block], -torch.inf)
            top = scores.topk(CUTOFF + 1, dim=1)
            best.append(top.values)
            items.append(top.indices)
        return cls(users, torch.cat(best), torch.cat(items), seen)

    def exposure(self, federation: Federation, params: PublicParams, item: int) -> float:
        """ER@5 of ``item`` with the parameters ``params``, which differ from the present ones in its features only.

        Users who have it are not counted; of equal scores the others come first.
        """
        counted = ~self.seen[:, item]
        users = self.users[counted]
        described = params.described(torch.tensor([item], device=users.device))
        score = federation.model.logits(params.dense, users[:, None], described[None])
        others = self.best[counted].masked_fill(self.items[counted] == item, -torch.inf)
        rank = (others >= score).sum(1)
        return float(hits(rank, CUTOFF).mean())
