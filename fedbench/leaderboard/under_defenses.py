"""What defenses leave of each attack: under the best of all, under the best of each family, under every one.

All numbers here are percent (points for differences).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from fedbench.entries.cards import DefenseFamily
from fedbench.leaderboard.clean_twins import unjudged
from fedbench.leaderboard.database import Database, Row
from fedbench.leaderboard.ranking import Cell, Estimate, common, grouped
from fedbench.leaderboard.ranking_defenses import card_of, facing, what_it_costs
from fedbench.leaderboard.scenarios import Scenario, scenario_estimate, scenario_mean
from fedbench.leaderboard.tracks import TARGETED, Track


@dataclass(frozen=True)
class Left:
    """What one defense leaves of one attack; in the untargeted track, ``er`` is the relative loss and ``loss`` the cost.

    Attributes:
        defense: its name on the leaderboard. er: ER@K that is left. hr: HR@K under the attack. loss: HR@K that the defense
            costs here, see :func:`~fedbench.leaderboard.ranking_defenses.rank_defenses`, None when its run without an attack
            is missing. net: mean reduction minus loss.
    """

    defense: str
    families: list[str]
    er: Estimate
    hr: float | None
    loss: float | None
    net: float | None
    runs: list[str]


@dataclass(frozen=True)
class UnderRow:
    """An attack under defenses; every number is over the same scenarios. ``er`` as for :class:`Left`.

    Attributes:
        er, hr: ER@K and HR@K without a defense, over the scenarios and seeds that some defense ran, too.
        best: the defense with the highest net here, None when no compared defense has one. families: likewise among the
            defenses of each family. under: every compared defense. scenarios: how many are compared.
        apart: defenses that lack one of them.
    """

    attack: str
    er: Estimate
    hr: float | None
    best: Left | None
    families: dict[str, Left]
    under: dict[str, Left]
    scenarios: int
    apart: list[str] = field(default_factory=list)


def attacks_under_defenses(database: Database, model: str | None = None, track: Track = TARGETED) -> list[UnderRow]:
    """What defenses leave of each attack, the most under the best defense first, those without any last.

    An attack's scenarios are those that at least half of the defenses that faced it ran, with their undefended twins;
    compared are the defenses that ran all of them. The best defense of an attack is the one with the highest net: its
    ER@K reduction on these scenarios minus its cost there. (The one that leaves the
    least exposure would often be one that ruins the recommender.) It is chosen for each attack, and after the fact: a
    server that does not know which attack it faces will do worse. A chain counts for the families of all its parts. Broken
    runs count as in :func:`~fedbench.leaderboard.ranking_defenses.rank_defenses`.

    Args:
        database: the records. model: only this one; None: all. track: which attacks.
    """
    found = facing(database, model, track)
    families = {name: _parts(card_of(own)[0]) for name, own in found.scenarios.items()}
    faced: dict[str, dict[str, list[Scenario]]] = {}
    for name, own in found.scenarios.items():
        for group in grouped([each for each in own if each.counted], found.attack):
            faced.setdefault(found.attack(group[0]), {})[name] = group
    rows = [_row(attack, by_defense, families, track) for attack, by_defense in faced.items()]
    return sorted(rows, key=_order)


def _order(row: UnderRow) -> tuple[bool, float, float, str]:
    return row.best is None, -row.best.er.mean if row.best else 0.0, -row.er.mean, row.attack


def family_order(families: Iterable[str]) -> list[str]:
    """Families as the tables show them: fedbench's own in their order, then those of outside packages."""
    known = [str(family) for family in DefenseFamily]
    return sorted(set(families), key=lambda name: (known.index(name) if name in known else len(known), name))


def _row(
    attack: str, by_defense: Mapping[str, list[Scenario]], families: Mapping[str, list[str]], track: Track
) -> UnderRow:
    cells = {name: {each.cell for each in own} for name, own in by_defense.items()}
    compared = common(cells)
    kept = {
        name: [each for each in own if each.cell in compared]
        for name, own in by_defense.items()
        if cells[name] >= compared
    }
    # Each undefended run counts once, however many defenses are compared with it.
    twins: dict[Cell, dict[int, Row]] = {}
    for own in by_defense.values():
        for each in own:
            if each.cell in compared:
                twins.setdefault(each.cell, {}).update((row["seed"], row) for row in each.counted)
    without = [Scenario(list(by_seed.values())) for by_seed in twins.values()]
    undefended = scenario_estimate(without, track.undefended)
    assert undefended is not None
    under = {name: _left(name, own, families[name], track) for name, own in kept.items()}
    there = family_order(family for left in under.values() for family in left.families)
    best = {family: _best(left for left in under.values() if family in left.families) for family in there}
    return UnderRow(
        attack=attack,
        er=undefended,
        hr=scenario_mean(without, "hr_undefended"),
        best=_best(under.values()),
        families={family: left for family, left in best.items() if left is not None},
        under=under,
        scenarios=len(compared),
        apart=sorted(set(by_defense) - set(kept)),
    )


def _left(name: str, scenarios: Sequence[Scenario], families: list[str], track: Track) -> Left:
    er, reduction, loss = scenario_estimate(scenarios, track.left), scenario_mean(scenarios, track.prevented), None
    assert er is not None
    assert reduction is not None
    if not unjudged(scenarios, track):
        loss, _ = what_it_costs(scenarios, track)
    return Left(
        defense=name,
        families=families,
        er=er,
        hr=scenario_mean(scenarios, "hr_attacked"),
        loss=loss,
        net=None if loss is None else reduction - loss,
        runs=[row["run_id"] for each in scenarios for row in each.counted],
    )


def _best(candidates: Iterable[Left]) -> Left | None:
    """The highest net; of equals, the one that leaves less, then the first by name."""
    judged = [(-left.net, left.er.mean, left.defense, left) for left in candidates if left.net is not None]
    return min(judged, key=lambda each: each[:3])[3] if judged else None


def _parts(family: str) -> list[str]:
    """The families of a defense or of a chain's parts."""
    return list(dict.fromkeys(part for part in family.split("+") if part))
