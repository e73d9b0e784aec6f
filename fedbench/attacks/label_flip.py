"""Label flipping: honest training on data whose positives and negatives have changed places."""

from __future__ import annotations

from dataclasses import replace

from fedbench.attacks.own_data import DataPoisoning, random_profiles, trained_on
from fedbench.entries.cards import AttackCard, Channel, Goal, Knowledge
from fedbench.federation.attack import Attack
from fedbench.federation.batch import Batch
from fedbench.federation.updates import Updates
from fedbench.federation.view import AttackerView, Profiles


class LabelFlip(Attack):
    """Each client trains honestly on its own rows with the labels exchanged, and uploads that.

    Tolpegin et al. (ESORICS 2020), for classification; AAAI'23 uses it as a baseline, without detail. Under BPR every pair
    has its positive and its negative swapped, so a pair's gradient is that of ``-log sigma(s_n - s_p)``; under
    cross-entropy a row with weight w, p of it positive, becomes one with ``w - p`` positive. Rows, sizes and an L2 term
    stay. The clients' own embeddings follow their clean data: an attacker has no reason to spoil them. In the first
    release of AAAI'23's code they follow the flipped data (``own_embedding = "poisoned"``).
    """

    card = AttackCard(
        name="label-flip",
        title="Label flipping",
        paper="Tolpegin et al., ESORICS 2020; baseline in Yu et al., AAAI 2023",
        goal=Goal.DEGRADE,
        channel=Channel.GRADIENT,
        knowledge=frozenset({Knowledge.OWN_DATA}),
        notes="Data poisoning: what is uploaded is honest training on flipped labels.",
    )

    class Params(DataPoisoning):
        """Parameters."""

    params: LabelFlip.Params

    def profiles(self, view: AttackerView) -> Profiles:
        return random_profiles(view, self.params.profile_size)

    def craft(self, view: AttackerView) -> Updates:
        return trained_on(view, flipped(view.own_batch), self.params)


def flipped(batch: Batch) -> Batch:
    """The batch with positives and negatives exchanged, in rows and in pairs; sequences are read as they were."""
    return replace(
        batch,
        positive=batch.weight - batch.positive,
        pair_positive=batch.pair_negative,
        pair_negative=batch.pair_positive,
        sequence=batch.pair_positive if batch.sequence is None else batch.sequence,
    )
