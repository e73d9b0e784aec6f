"""Defenses ranked by what they prevent and what they cost.

All numbers here are percent (points for differences).
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import itemgetter
from typing import Any

from fedbench.entries.cards import DefenseFamily, Goal, Knowledge
from fedbench.leaderboard.clean_twins import clean_losses, mean_loss, quality_loss, unjudged
from fedbench.leaderboard.database import Database
from fedbench.leaderboard.dose_curves import PER_SEED
from fedbench.leaderboard.paired import Difference, aligned, contrast
from fedbench.leaderboard.ranking import (
    Cell,
    Estimate,
    common,
    entry_names,
    grouped,
    lacking_seeds,
    load,
    say,
    unverified,
    within,
)
from fedbench.leaderboard.scenarios import Scenario, scenario_estimate, scenario_mean
from fedbench.leaderboard.separation import Ranking, Separation, separate
from fedbench.leaderboard.tracks import TARGETED, VISUAL, Track


@dataclass(frozen=True)
class DefenseRow:
    """A defense on the leaderboard.

    The numbers are those of the targeted track, ER@K that is prevented and HR@K that is lost, in points. In the untargeted
    track (``goal`` "degrade") all are percent of the baseline's HR@K: ``reduction`` is what the defense recovers, ``loss``
    what it costs, ``er`` the relative loss that is left, ``peak`` None; in the visual track ``loss`` is percent of the
    baseline's NDCG@20;
    all are where training is best on validation items (without any, at the end), but for ``net_end`` and ``er_end``.

    Attributes:
        family, knowledge, assumes: what its card says; empty where the records do not tell.
        rank, last_rank: by net, the first and the last that its runs leave open; None when a scenario of the comparison
            is missing. beats: how many defenses have a significantly lower net. average_rank: over scenarios. Both are None
            without a rank.
        reduction: ER@K of the undefended twin minus its own; at most 0 in a run that is broken. loss: HR@K without any attack
            and defense minus HR@K with the defense alone. loss_attacked: HR@K of the undefended twin minus its own, under
            the attack; None in the untargeted track, whose reduction is just that. paid: the one with the larger mean.
            net: mean reduction minus mean ``paid``. hr: HR@K under attack.
        front: whether no ranked defense, nor to have none at all, reduces as much at as little loss (by the means, and one
            of the two better); None without a rank.
        er: what is left. net_end, er_end: net and what is left at the end of training; None in the targeted track,
            which measures nowhere else. peak: the highest ER@K of its runs, over all their evaluations.
        worst: the attack that keeps the highest mean ER@K, and that ER@K. worst_peak: its ER@K at the highest, mean over
            runs. attacks: how many it faced. worst_fixed, worst_adaptive: the same of those
            that do not know the defense, and of those that do. least: the attack of which it prevents least, and the
            reduction.
        cost: extra milliseconds of training a round, against the undefended twin on the same hardware; median over pairs.
        runs: ids behind the numbers. scenarios: how many of the comparison. diverged, failed: attacked runs that did not
            end well. broken: those that diverged or fell below popularity. clean_broken: likewise clean scenarios and seeds.
            refused: uploads that were refused. warned: runs that carry a warning. unverified: it does not come with
            fedbench and has runs in process, so that it has no rank. unpaired: runs that have no undefended twin that is
            whole. missing: scenarios of the comparison that it lacks, and clean ones. apart: how many scenarios
            it has beyond the comparison. lacking: seeds that it lacks where it ran, of those that at least half of the
            defenses there ran. goal: of the attacks that it faces; "visual" in the visual track.
    """

    defense: str
    family: str
    knowledge: str
    assumes: str
    rank: int | None
    last_rank: int | None
    reduction: Estimate | None
    loss: Estimate | None
    loss_attacked: Estimate | None
    paid: Estimate | None
    net: float | None
    hr: float | None
    front: bool | None
    er: float | None
    peak: float | None
    worst: tuple[str, float] | None
    worst_peak: float | None
    attacks: int
    least: tuple[str, float] | None
    cost: float | None
    runs: list[str]
    scenarios: int
    diverged: int
    failed: int
    broken: int
    clean_broken: int
    refused: int
    warned: int
    unverified: bool
    unpaired: int
    missing: list[str] = field(default_factory=list)
    apart: int = 0
    goal: str = Goal.PROMOTE
    beats: int | None = None
    average_rank: float | None = None
    net_end: float | None = None
    er_end: float | None = None
    lacking: list[str] = field(default_factory=list)
    worst_fixed: tuple[str, float] | None = None
    worst_adaptive: tuple[str, float] | None = None


@dataclass(frozen=True)
class VisualDefenseRow(DefenseRow):
    """A defense of images; ``loss`` is the share of NDCG@20 that it takes without an attack.

    Attributes:
        similarity, least_similarity: cosine of the features of the clean images before and after the defense: the mean over
            them, and the least; means over runs; None of a defense that cleans no image. auc, recall_zero_fp: how well its
            similarity tells attacks' images from clean ones, and the share of them (percent) that can be flagged without a
            clean one. recall, false_alarms: percent of them, and of clean ones, that it flags itself; None where it flags
            nothing.
    """

    similarity: float | None = None
    least_similarity: float | None = None
    auc: float | None = None
    recall_zero_fp: float | None = None
    recall: float | None = None
    false_alarms: float | None = None


@dataclass(frozen=True)
class Facing:
    """Attacked and defended runs of one track, by defense.

    Attributes:
        scenarios: of the track's view, by the defense's name; those runs count that say how much a defense prevents: they
            did not fail, and their undefended twin has a score (in the untargeted track the baseline must have one, too).
        names: of the attacks, by ``attack`` and ``attack_params``.
    """

    scenarios: Mapping[str, Sequence[Scenario]]
    names: Mapping[Cell, str]

    def attack(self, scenario: Scenario) -> str:
        """Name on the leaderboard of the attack, with the bound of the images that it shows."""
        row = scenario.first
        name, bound = self.names[row["attack"], row["attack_params"]], within(row)
        return f"{name}, {bound}" if bound else name


def facing(database: Database, model: str | None = None, track: Track = TARGETED) -> Facing:
    """The records of defenses, under the names that the tables give to them and to the attacks.

    Args:
        database: the records. model: only this one; None: all. track: which attacks they face.
    """
    return database.kept(("facing", model, track), lambda: _facing(database, model, track))


def _facing(database: Database, model: str | None, track: Track) -> Facing:
    of_track = f"where attack_goal = '{track.goal}'"

    def by_scenario() -> list[Scenario]:
        rows = load(database, f"select * from {track.defenses} {of_track} order by run_id")
        names = entry_names(rows, "defense")
        groups = grouped(rows, lambda row: (names[row["defense"], row["defense_params"]], row["facing"]))
        return [Scenario(own, track.prevented) for own in groups]

    everything = database.kept(("scenarios", track), by_scenario)
    scenarios = _of_one_design([each for each in everything if model in (None, each.first["model"])])
    # Undefended runs are named along: an attack is called the same here as in the tables of attacks.
    what = f"select distinct attack, attack_params, dataset, model, protocol from {track.named} {of_track}"
    ran = database.kept(what, lambda: database.rows(what))
    attacks = entry_names([row for row in ran if model in (None, row["model"])])
    names = entry_names([each.first for each in scenarios], "defense")
    found: dict[str, list[Scenario]] = {}
    for each in scenarios:
        found.setdefault(names[each.first["defense"], each.first["defense_params"]], []).append(each)
    return Facing(found, attacks)


def _of_one_design(scenarios: list[Scenario]) -> list[Scenario]:
    """The runs of fixed targets, or of those drawn per seed: of whichever more attacks met defenses, of these if equal.

    What one draw says and what many say is no mean of the same thing; a few attacks at many shares of malicious clients,
    which tell what a defense makes of the price, must not outweigh the comparison with all.
    """
    drawn = [each for each in scenarios if str(each.first["target"]).startswith(PER_SEED)]
    if not drawn:
        return scenarios
    fixed = [each for each in scenarios if not str(each.first["target"]).startswith(PER_SEED)]
    return max((drawn, fixed), key=lambda own: len({each.first["attack"] for each in own}))


def _net_end(scenarios: Sequence[Scenario], track: Track) -> float | None:
    """Mean reduction minus mean loss at the end of training, where the track measures them elsewhere."""
    if track.prevented_end is None or track.loss_end is None:
        return None
    reduction, loss = scenario_mean(scenarios, track.prevented_end), mean_loss(scenarios, track.loss_end)
    return None if reduction is None or loss is None else reduction - loss


def rank_defenses(database: Database, model: str | None = None, track: Track = TARGETED) -> Ranking[DefenseRow]:
    """Defenses by what they prevent minus what they cost, best first; those that miss scenarios come last, without a rank.

    Compared are the scenarios (an attack of the track, in a place) that at least half of the defenses ran, and the same
    places without an attack. A broken attacked run prevents nothing; a run that diverged, attacked or clean, counts as a
    loss of the whole HR@K; and where the undefended twin is broken there is nothing to prevent: the pair does not count.

    What a defense costs is the larger of two means: what the recommender loses by it without an attack, and what it has
    less under attack than its undefended twin. The first alone would not see a defense that only an attack turns against
    the recommender. The second is against the twin, not against the clean run, so that what the attack itself takes is not
    charged to the defense, and having none costs 0. They are not added: what a defense always takes would count twice.

    Args:
        database: the records. model: only this one; None: all. track: which attacks they face.
    """
    found = facing(database, model, track)
    compared = common({name: {each.cell for each in own if each.counted} for name, own in found.scenarios.items()})
    needed = {
        each.clean: f"{each.first['dataset']} {each.first['model']} {each.first['protocol']} without an attack"
        for own in found.scenarios.values()
        for each in own
        if each.cell in compared
    }
    scenarios = {
        name: [each for each in own if each.counted and each.cell in compared] for name, own in found.scenarios.items()
    }
    rows = [
        _row(name, own, scenarios[name], found.attack, compared, needed, track) for name, own in found.scenarios.items()
    ]
    nets = {row.defense: row.net for row in rows if row.net is not None and not row.missing and not row.unverified}
    told = separate_nets(nets, {name: scenarios[name] for name in nets}, track)
    lacking = _lacking(scenarios, needed, track)
    ranked = [row for row in rows if row.defense in nets]
    front = pareto_front([(row.reduction.mean, row.paid.mean) for row in ranked if row.reduction and row.paid])
    best = {row.defense: on for row, on in zip(ranked, front, strict=True)}
    rows = [
        replace(row, **told.standing(row.defense), front=best.get(row.defense), lacking=lacking[row.defense])
        for row in rows
    ]
    return Ranking(sorted(rows, key=lambda row: (row.rank is None, -_order(row), row.defense)), told)


def separate_nets(nets: Mapping[str, float], scenarios: Mapping[str, Sequence[Scenario]], track: Track) -> Separation:
    """Which defenses differ in net.

    The difference of two nets is that of the mean reductions, paired by scenario and seed (the undefended twin is the
    same, so its noise cancels), minus that of what they pay: the mean losses without an attack, paired by place and seed (the
    baseline is the same), or those under attack, whichever is larger for each. A seed's part in all of them is one number.

    Average ranks are over scenarios, of the reduction minus that loss in the same place.

    Args:
        nets: of the defenses that have a rank. scenarios: of each that are compared. track: of the runs.
    """
    where = {name: what_it_costs(own, track)[1] for name, own in scenarios.items()}
    prevented = {name: {each.cell: each.values(track.prevented) for each in own} for name, own in scenarios.items()}
    paid = {name: {each.cell: each.values(where[name]) for each in own} for name, own in scenarios.items()}
    clean = {name: clean_losses(own, track.loss) for name, own in scenarios.items()}
    seeds = {seed for own in prevented.values() for values in own.values() for seed in values}
    reductions, there = aligned(prevented, seeds), aligned(paid, seeds)
    losses = {track.loss: aligned(clean, seeds), track.loss_attacked: there}

    def difference(one: str, other: str) -> Difference:
        mine, theirs = losses[where[one]][one], losses[where[other]][other]
        costs = [theirs - mine] if where[one] == where[other] else [theirs, -mine]
        return contrast([reductions[one] - reductions[other], *costs])

    return separate(nets, difference, {name: reductions[name] - there[name] for name in nets})


def what_it_costs(scenarios: Sequence[Scenario], track: Track) -> tuple[float | None, str]:
    """What a defense costs, see :func:`rank_defenses`, and the column that says so."""
    clean = mean_loss(scenarios, track.loss)
    attacked = scenario_mean(scenarios, track.loss_attacked) if track.loss_attacked else None
    if clean is None or attacked is None or track.loss_attacked is None or attacked <= clean:
        return clean, track.loss
    return attacked, track.loss_attacked


def pareto_front(points: Sequence[tuple[float, float]]) -> list[bool]:
    """For each (reduction, loss): whether no other point, nor (0, 0), reduces as much at as little loss and is better in one.

    Equal points share their verdict.
    """
    everything = [*points, (0.0, 0.0)]
    return [
        not any(other[0] >= point[0] and other[1] <= point[1] and other != point for other in everything)
        for point in points
    ]


def _row(
    name: str,
    everything: Sequence[Scenario],
    scenarios: Sequence[Scenario],
    attack_of: Callable[[Scenario], str],
    compared: set[Cell],
    needed: Mapping[Cell, str],
    track: Track,
) -> DefenseRow:
    family, knowledge, assumes = card_of(everything)
    ran = {each.cell for each in everything if each.counted}
    unpaired = [row for each in everything for row in each.others]
    own = [row for each in everything for row in (each.rows if each.cell in compared else each.others)]
    reduction, loss = scenario_estimate(scenarios, track.prevented), quality_loss(scenarios, track.loss)
    left, prevented, highest, adaptive = {}, {}, {}, set()
    for group in grouped(scenarios, attack_of):
        attack = attack_of(group[0])
        if Knowledge.DEFENSE in group[0].first["knowledge"].split(", "):
            adaptive.add(attack)
        left[attack] = scenario_mean(group, track.left) or 0.0
        prevented[attack] = scenario_mean(group, track.prevented) or 0.0
        highest[attack] = scenario_mean(group, track.peak) if track.peak else None
    worst = _most(left.items())
    loss_attacked = scenario_estimate(scenarios, track.loss_attacked) if track.loss_attacked else None
    paid = loss if what_it_costs(scenarios, track)[1] == track.loss else loss_attacked
    costs = [cost for each in scenarios for cost in each.values("cost_ms", 1).values()]
    clean = {each.clean for each in scenarios if each.values(track.loss)}
    lacks = {
        f"{needed[place]}, {100 * share:g} % assumed"
        for place, share in unjudged(scenarios, track)
        if share is not None and place in clean
    }
    lacks |= {f"{cell[0]} on {say(cell[2:])}" for cell in compared - ran}
    make, seen = (VisualDefenseRow, _seen(scenarios, family)) if track == VISUAL else (DefenseRow, {})
    return make(
        defense=name,
        family=family,
        knowledge=knowledge,
        assumes=assumes,
        rank=None,
        last_rank=None,
        reduction=reduction,
        loss=loss,
        loss_attacked=loss_attacked,
        paid=paid,
        net=None if reduction is None or paid is None else reduction.mean - paid.mean,
        hr=scenario_mean(scenarios, "hr_attacked"),
        front=None,
        er=scenario_mean(scenarios, track.left),
        peak=scenario_mean(scenarios, track.peak) if track.peak else None,
        worst=worst,
        worst_peak=highest[worst[0]] if worst else None,
        attacks=len(left),
        worst_fixed=_most(item for item in left.items() if item[0] not in adaptive),
        worst_adaptive=_most(item for item in left.items() if item[0] in adaptive),
        least=min(prevented.items(), key=lambda item: item[1], default=None),
        cost=statistics.median(costs) if costs else None,
        runs=[row["run_id"] for row in own],
        scenarios=len(ran & compared),
        diverged=sum(row["status"] == "diverged" for row in own),
        failed=sum(row["status"] == "failed" for row in own),
        broken=sum(row["broken"] for row in own),
        clean_broken=len(
            {(each.clean, row["seed"]) for each in scenarios for row in each.counted if row["clean_broken"]}
        ),
        refused=sum(row["refused_uploads"] or 0 for row in own),
        warned=sum(bool(row["warnings"]) for row in own),
        unverified=unverified([row for each in everything for row in each.rows], "defense"),
        unpaired=sum(row["status"] != "failed" for row in unpaired),
        missing=sorted(lacks | {text for place, text in needed.items() if place not in clean}),
        apart=len(ran - compared),
        goal=track.panel,
        net_end=_net_end(scenarios, track),
        er_end=scenario_mean(scenarios, track.left_end) if track.left_end else None,
        **seen,
    )


def _most(left: Iterable[tuple[str, float]]) -> tuple[str, float] | None:
    return max(left, key=itemgetter(1), default=None)


def _seen(scenarios: Sequence[Scenario], family: str) -> dict[str, Any]:
    """What the runs of a defense say of the images, the further fields of :class:`VisualDefenseRow`."""
    cleans = DefenseFamily.PURIFICATION in family.split("+")
    return {
        "similarity": scenario_mean(scenarios, "clean_similarity_mean", 1) if cleans else None,
        "least_similarity": scenario_mean(scenarios, "clean_similarity_min", 1) if cleans else None,
        "auc": scenario_mean(scenarios, "detection_auc", 1),
        "recall_zero_fp": scenario_mean(scenarios, "detection_recall_zero_fp"),
        "recall": scenario_mean(scenarios, "detection_recall"),
        "false_alarms": scenario_mean(scenarios, "detection_false_positive_rate"),
    }


def _lacking(
    scenarios: Mapping[str, Sequence[Scenario]], needed: Mapping[Cell, str], track: Track
) -> dict[str, list[str]]:
    """The seeds that each defense lacks, with an attack and without one; see :func:`~.ranking.lacking_seeds`."""
    ran: dict[str, dict[Cell, set[int]]] = {}
    for name, own in scenarios.items():
        ran[name] = {each.cell: set(each.values(track.prevented)) for each in own}
        ran[name] |= {place: set(losses) for place, losses in clean_losses(own, track.loss).items()}
    return lacking_seeds(ran, lambda cell: needed[cell] if cell in needed else f"{cell[0]} on {say(cell[2:])}")


def card_of(scenarios: Sequence[Scenario]) -> tuple[str, str, str]:
    """Family, knowledge and assumption of the defense of ``scenarios``.

    Records of schema version 1 do not have them; then they are those of the installed defense of that name, if there is
    one.
    """
    for each in scenarios:
        for row in each.rows:
            if row["defense_family"] is not None:
                return row["defense_family"], row["defense_knowledge"] or "", row["defense_assumes"] or ""
    from fedbench.defenses import DEFENSES  # it imports torch, which nothing else here needs

    name = scenarios[0].first["defense"]
    if name not in DEFENSES.names():
        return "", "", ""
    card = DEFENSES.get(name).card
    return str(card.family), ", ".join(sorted(map(str, card.knowledge))), card.assumes


def _order(row: DefenseRow) -> float:
    if row.net is not None:
        return row.net
    return row.reduction.mean if row.reduction is not None else float("-inf")
