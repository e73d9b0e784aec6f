"""Small federations to try things in: a handful of users and items, drawn from a seed."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch

from fedbench.attacks import Attack
from fedbench.attacks.none import NoAttack
from fedbench.defenses import Defense
from fedbench.defenses.none import NoDefense
from fedbench.entries.cards import NoParameters
from fedbench.federation.images import ItemImages
from fedbench.federation.population import Subgroup, Task
from fedbench.federation.protocol import Protocol
from fedbench.federation.simulation import Federation
from fedbench.models import MODELS, Recommender
from fedbench.models.autograd import AutogradRecommender


def small_task(
    num_users: int = 30, num_items: int = 40, num_malicious: int = 0, targets: tuple[int, ...] = (7,)
) -> Task:
    """Every user has between 3 and 12 interactions, none of them with a target; those with item 0 are a subgroup."""
    g = torch.Generator().manual_seed(3)
    wanted = torch.rand(num_users, num_items, generator=g)
    wanted[:, list(targets)] = 2
    length = torch.randint(3, 13, (num_users,), generator=g)
    chosen = wanted.argsort(dim=1).argsort(dim=1) < length[:, None]
    user, item = chosen.nonzero(as_tuple=True)
    subgroup = Subgroup(torch.tensor([0]), user[item == 0])
    wanted_items = torch.tensor(targets, dtype=torch.int64)
    return Task(num_users, num_items, user, item, wanted_items, num_malicious, subgroup=subgroup)


def small_images(num_items: int, features: int = 6) -> ItemImages:
    """Images of 8 x 8 pixels, one for each item, those of neighbours alike, and a random layer that looks at them."""
    g = torch.Generator().manual_seed(4)
    size = 3 * 8 * 8
    angle = 2 * math.pi * torch.arange(num_items) / num_items
    patterns = torch.randn(2, size, generator=g)
    drawn = torch.stack([angle.cos(), angle.sin()], dim=1) @ patterns + torch.randn(num_items, size, generator=g) / 2
    weight = torch.randn(size, features, generator=g) / math.sqrt(size)

    def extract(images: torch.Tensor) -> torch.Tensor:
        return torch.tanh((images.float() / 127.5 - 1).flatten(1) @ weight)

    pixels = (127.5 + 40 * drawn).round().clamp(0, 255).to(torch.uint8)
    return ItemImages(pixels.view(num_items, 3, 8, 8), extract)


def tried_models(declared: Iterable[str] | None) -> list[str]:
    """Names of the models that an entry is tried on, mf before all others: what is tried on one alone is tried on the first.

    Args:
        declared: those of its card; None: all, but for models of logits alone, which hand over what others of their kind do.
    """
    if declared is None:
        declared = [name for name in MODELS.names() if not issubclass(MODELS.get(name), AutogradRecommender)]
    return sorted(declared, key=lambda name: (name != "mf", name))


def small_federation(
    model: str | Recommender = "mf",
    attack: Attack | None = None,
    defense: Defense | None = None,
    num_malicious: int = 0,
    seed: int = 0,
    task: Task | None = None,
    model_params: dict[str, Any] | None = None,
    **protocol: Any,
) -> Federation:
    """A federation with cohorts of 8 over :func:`small_task`; embeddings start large enough that gradients matter.

    Models that read images get :func:`small_images`, unless the task has some.

    Args:
        model: a name, or a model at hand. attack, defense: none by default. num_malicious: of the default ``task``.
        seed: of the run. model_params: of a model that is named. protocol: fields of the protocol.
    """
    task = task or small_task(num_malicious=num_malicious)
    made = small_model(model, **(model_params or {})) if isinstance(model, str) else model
    if made.reads_features and task.images is None:
        task = replace(task, images=small_images(task.num_items))
    settings: dict[str, Any] = {"clients_per_round": 8, "learning_rate": 0.5} | protocol
    return Federation(
        task,
        made,
        attack or NoAttack(NoParameters()),
        defense or NoDefense(NoParameters()),
        task.num_malicious / task.num_users,
        Protocol(**settings),
        seed,
    )


def small_model(name: str, **params: Any) -> Recommender:
    """The model called ``name``; embeddings start with standard deviation 0.3 where it has that parameter."""
    cls = MODELS.get(name)
    large = {"init_std": 0.3} if "init_std" in cls.Params.model_fields else {}
    return cls(cls.Params(**(large | params)))
