"""Source of small contributed entries, for tests."""

from __future__ import annotations

ATTACK = '''"""A fixed random direction for every target."""

from __future__ import annotations

import torch
from pydantic import Field

from fedbench.federation.attack import Attack
from fedbench.attacks.uploads import target_updates
from fedbench.entries.cards import AttackCard, Channel, Goal, Parameters
from fedbench.federation.updates import Updates
from fedbench.federation.view import AttackerView


class RandomDirection(Attack):
    """``-strength * r`` for each target, r ~ N(0, I) drawn once."""

    card = AttackCard(
        name="random-direction", title="Random direction", paper="none", goal=Goal.PROMOTE, channel=Channel.GRADIENT
    )

    class Params(Parameters):
        """Parameters."""

        strength: float = Field(0.1, gt=0, description="length of the step [ours]")

    params: RandomDirection.Params

    def start(self, view: AttackerView) -> None:
        self.direction = torch.randn(view.embedding_size, generator=view.generator)

    def craft(self, view: AttackerView) -> Updates:
        row = -self.params.strength * self.direction
        return target_updates(view, row.expand(len(view.clients), len(view.targets), -1).contiguous())
'''

DATASET = '''"""Every user takes the items that follow its own number."""

import numpy as np

from fedbench.data import Dataset, DatasetCard
from fedbench.data.records import Interactions, Table


class Ring(Dataset):
    """Users and items on a ring."""

    card = DatasetCard(name="ring", title="A ring", timestamps="yes", source="generated", licence="MIT", citation="none",
                 users=40, items=50, interactions=320)

    def table(self) -> Table:
        user = np.repeat(np.arange(40), 8)
        item = (user + np.tile(np.arange(8), 40)) % 50
        return Table({"all": Interactions(user, item)}, 40, 50, True, "as generated")
'''

MODEL = '''"""Matrix factorisation under another name."""

from fedbench.entries.cards import ModelCard
from fedbench.models.mf import MatrixFactorization


class Twin(MatrixFactorization):
    """The same model."""

    card = ModelCard(name="twin", title="Twin", paper="none")
'''
