"""Fake profiles (shilling): injected users who like the targets and some filler items, and train honestly on that."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from pydantic import Field

from fedbench.attacks.sampling import distinct, others, outside
from fedbench.entries.cards import AttackCard, Channel, Goal, Knowledge, Parameters
from fedbench.errors import UserError
from fedbench.federation.attack import Attack
from fedbench.federation.view import AttackerView, Profiles


class Shilling(Attack, ABC):
    """What the three have in common: a profile is the targets and ``profile_size - |T|`` fillers, drawn once."""

    class Params(Parameters):
        """Size of a profile."""

        profile_size: int = Field(
            30,
            ge=1,
            description="positives of a fake profile, targets included [IJCAI'22 code: 30; ICDE'22 code: 30, half of"
            " its limit of 60 rows; WSDM'22: not stated, its suite takes the mean user's]",
        )

    params: Params

    @abstractmethod
    def fillers(self, view: AttackerView, count: int) -> torch.Tensor:
        """int64 [m_tot, count]: each fake user's filler items, distinct, none of them a target."""

    def profiles(self, view: AttackerView) -> Profiles:
        """The fake users' positives; their negatives are drawn by the engine, outside their own positives.

        Raises:
            UserError: when the profile is shorter than the list of targets, or longer than the catalogue.
        """
        m, size, count = view.num_malicious, self.params.profile_size, len(view.targets)
        if not count <= size <= view.num_items:
            raise UserError(
                f"attack {self.card.name!r}: profile_size = {size} must be at least the {count} target(s) and at most"
                f" the {view.num_items} items of the dataset."
            )
        item = torch.cat([view.targets.expand(m, count), self.fillers(view, size - count)], dim=1)
        client = torch.arange(m, device=item.device).repeat_interleave(size)
        return Profiles(client, item.reshape(-1))


class RandomProfiles(Shilling):
    """RA: the targets and items drawn uniformly without replacement from the rest, for each fake user anew.

    Baseline of Rong et al. (IJCAI 2022, section 5.1) and Zhang et al. (WSDM 2022). The profile is drawn once; the fake
    user then follows the protocol like anyone else (own embedding, own negatives, same loss, no regularisation).
    """

    card = AttackCard(
        name="random",
        title="Random profiles (RA)",
        paper="shilling baseline in Rong et al., IJCAI 2022",
        goal=Goal.PROMOTE,
        channel=Channel.PROFILE,
        notes="Expected effect at ratios up to 5 %: none (IJCAI'22 Fig. 1).",
    )

    def fillers(self, view: AttackerView, count: int) -> torch.Tensor:
        pool = others(view.num_items, view.targets)
        return pool[distinct(view.num_malicious, count, len(pool), view.generator)]


class PopularProfiles(Shilling):
    """PA: one profile for every fake user: the targets and the most popular items (equal counts: lowest id first).

    Zhang et al. (WSDM 2022); code of Rong et al. (ICDE 2022), which counts popularity on train + test. Here it is
    counted on the training interactions, which is all that the knowledge ``item_popularity`` gives.
    """

    card = AttackCard(
        name="popular",
        title="Popular profiles (PA)",
        paper="shilling baseline in Zhang et al., WSDM 2022",
        goal=Goal.PROMOTE,
        channel=Channel.PROFILE,
        knowledge=frozenset({Knowledge.ITEM_POPULARITY}),
        notes="Popularity is counted on train; the ICDE'22 code counts train + test.",
    )

    def fillers(self, view: AttackerView, count: int) -> torch.Tensor:
        ranked = by_popularity(view.item_popularity)
        ranked = ranked[~torch.isin(ranked, view.targets)]
        return ranked[:count].expand(view.num_malicious, count)


class BandwagonProfiles(Shilling):
    """BW: the targets, a few items drawn from the most popular ones, and a uniform rest, for each fake user anew.

    Code of Rong et al. (ICDE 2022): ``int(0.1 x 30) = 3`` items from the top 10 % of all items, from which the targets
    are then removed; the rest up to 30 uniform over everything not yet in the profile. Should fewer popular items exist
    than are to be drawn, all of them are taken. Popularity as in :class:`PopularProfiles`.
    """

    card = AttackCard(
        name="bandwagon",
        title="Bandwagon profiles (BW)",
        paper="shilling baseline in Rong et al., ICDE 2022",
        goal=Goal.PROMOTE,
        channel=Channel.PROFILE,
        knowledge=frozenset({Knowledge.ITEM_POPULARITY}),
        notes="Popularity is counted on train; the ICDE'22 code counts train + test.",
    )

    class Params(Shilling.Params):
        """Size of a profile, and how much of it is popular."""

        popular_fraction: float = Field(
            0.1,
            ge=0,
            le=1,
            description="share of the profile drawn from popular items, rounded down [ICDE'22 code: 0.1]",
        )
        head: float = Field(
            0.1, gt=0, le=1, description="share of all items that count as popular, rounded down [ICDE'22 code: 0.1]"
        )

    params: BandwagonProfiles.Params

    def fillers(self, view: AttackerView, count: int) -> torch.Tensor:
        pool = others(view.num_items, view.targets)
        head = by_popularity(view.item_popularity)[: int(self.params.head * view.num_items + 1e-9)]
        head = head[~torch.isin(head, view.targets)]
        few = min(int(self.params.popular_fraction * self.params.profile_size + 1e-9), len(head), count)
        m = view.num_malicious
        place = torch.searchsorted(pool, head)[distinct(m, few, len(head), view.generator)]
        rest = outside(place, distinct(m, count - few, len(pool) - few, view.generator))
        return pool[torch.cat([place, rest], dim=1)]


def by_popularity(popularity: torch.Tensor) -> torch.Tensor:
    """int64 [M]: items from the most to the least popular; equal counts by id.

    Args:
        popularity: int64 [M], interactions of every item.
    """
    return torch.argsort(popularity, descending=True, stable=True)
