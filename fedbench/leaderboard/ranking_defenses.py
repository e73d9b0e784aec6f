"""Defenses ranked by what they prevent and what they cost.

All numbers here are percent (points for differences).
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import itemgetter
from typing import Any

from fedbench.entries.cards import DefenseFamily, Goal, Knowledge
from fedbench.leaderboard.clean_twins import clean_losses, mean_loss, quality_loss, unjudged
from fedbench.leaderboard.database import Database, Row
from fedbench.leaderboard.dose_curves import PER_SEED
from fedbench.leaderboard.paired import Difference, aligned, contrast
from fedbench.leaderboard.ranking import (
    Cell,
    Estimate,
    clustered,
    common,
    entry_names,
    grouped,
    hit_ratio,
    lacking_seeds,
    load,
    mean_of,
    say,
    unverified,
    within,
)
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
        worst: the attack that keeps the highest mean ER@K, and that ER@K. worst_fixed, worst_adaptive: the same of those
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
        rows: of the track's view, by the defense's name. names: of the attacks, by ``attack`` and ``attack_params``.
    """

    rows: Mapping[str, Sequence[Row]]
    names: Mapping[Cell, str]

    def attack(self, row: Row) -> str:
        """Name on the leaderboard of the attack of a run, with the bound of the images that it shows."""
        name, bound = self.names[row["attack"], row["attack_params"]], "eps" in row and within(row)
        return f"{name}, {bound}" if bound else name


def facing(database: Database, model: str | None = None, track: Track = TARGETED) -> Facing:
    """The records of defenses, under the names that the tables give to them and to the attacks.

    Args:
        database: the records. model: only this one; None: all. track: which attacks they face.
    """
    return database.kept(("facing", model, track), lambda: _facing(database, model, track))


def _facing(database: Database, model: str | None, track: Track) -> Facing:
    of_track = f"where attack_goal = '{track.goal}'"
    everything = load(database, f"select * from {track.defenses} {of_track} order by run_id")
    rows = _of_one_design([row for row in everything if model is None or row["model"] == model])
    # Undefended runs are named along: an attack is called the same here as in the tables of attacks.
    what = f"select distinct attack, attack_params, dataset, model, protocol from {track.named}"
    ran = database.rows(f"{what} {of_track}")
    attacks = entry_names([row for row in ran if model is None or row["model"] == model])
    names = entry_names(rows, "defense")
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(names[row["defense"], row["defense_params"]], []).append(row)
    return Facing(found, attacks)


def _of_one_design(rows: list[Row]) -> list[Row]:
    """The runs of fixed targets, or of those drawn per seed: of whichever more attacks met defenses, of these if equal.

    What one draw says and what many say is no mean of the same thing; a few attacks at many shares of malicious clients,
    which tell what a defense makes of the price, must not outweigh the comparison with all.
    """
    drawn = [row for row in rows if str(row["target"]).startswith(PER_SEED)]
    if not drawn:
        return rows
    fixed = [row for row in rows if not str(row["target"]).startswith(PER_SEED)]
    return max((drawn, fixed), key=lambda own: len({row["attack"] for row in own}))


def paired(row: Row, track: Track) -> bool:
    """Whether a run says how much a defense prevents: it did not fail, and its undefended twin has a score.

    In the untargeted track the baseline must have one, too.
    """
    return row[track.prevented] is not None


def scenario_mean(rows: Sequence[Row], column: str) -> float | None:
    """Mean in percent over scenarios of the mean over seeds."""
    return plain_mean(rows, column, 100)


def scenario_estimate(rows: Sequence[Row], column: str) -> Estimate | None:
    """As :func:`scenario_mean`, with an interval."""
    values = {(row["facing"], row["seed"]): 100 * row[column] for row in rows if row[column] is not None}
    return clustered(values) if values else None


def plain_mean(rows: Sequence[Row], column: str, unit: float = 1.0) -> float | None:
    """As :func:`scenario_mean`, in units of the column's own times ``unit``."""
    by_scenario: dict[Cell, list[float]] = defaultdict(list)
    for row in rows:
        if row[column] is not None:
            by_scenario[row["facing"]].append(unit * row[column])
    return mean_of(map(mean_of, by_scenario.values()))


def _net_end(rows: Sequence[Row], track: Track) -> float | None:
    """Mean reduction minus mean loss at the end of training, where the track measures them elsewhere."""
    if track.prevented_end is None or track.loss_end is None:
        return None
    reduction, loss = scenario_mean(rows, track.prevented_end), mean_loss(rows, track.loss_end)
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
    ran = {name: {row["facing"] for row in own if paired(row, track)} for name, own in found.rows.items()}
    compared = common(ran)
    needed = {
        row["clean"]: f"{row['dataset']} {row['model']} {row['protocol']} without an attack"
        for own in found.rows.values()
        for row in own
        if row["facing"] in compared
    }
    rows = [_row(name, own, found.attack, compared, needed, track) for name, own in found.rows.items()]
    nets = {row.defense: row.net for row in rows if row.net is not None and not row.missing and not row.unverified}
    told = separate_nets(
        nets,
        {name: [row for row in found.rows[name] if row["facing"] in compared] for name in nets},
        track,
    )
    lacking = _lacking(found.rows, compared, needed, track)
    ranked = [row for row in rows if row.defense in nets]
    front = pareto_front([(row.reduction.mean, row.paid.mean) for row in ranked if row.reduction and row.paid])
    best = {row.defense: on for row, on in zip(ranked, front, strict=True)}
    rows = [
        replace(row, **told.standing(row.defense), front=best.get(row.defense), lacking=lacking[row.defense])
        for row in rows
    ]
    return Ranking(sorted(rows, key=lambda row: (row.rank is None, -_order(row), row.defense)), told)


def separate_nets(nets: Mapping[str, float], rows: Mapping[str, Sequence[Row]], track: Track) -> Separation:
    """Which defenses differ in net.

    The difference of two nets is that of the mean reductions, paired by scenario and seed (the undefended twin is the
    same, so its noise cancels), minus that of what they pay: the mean losses without an attack, paired by place and seed (the
    baseline is the same), or those under attack, whichever is larger for each. A seed's part in all of them is one number.

    Average ranks are over scenarios, of the reduction minus that loss in the same place.

    Args:
        nets: of the defenses that have a rank. rows: runs of each that are compared. track: of the runs.
    """
    prevented, clean, attacked, both, where = {}, {}, {}, {}, {}
    for name, own in rows.items():
        pairs = [row for row in own if paired(row, track)]
        where[name] = what_it_costs(pairs, track)[1]
        clean[name] = clean_losses(pairs, track.loss)
        prevented[name] = {(row["facing"], row["seed"]): 100 * row[track.prevented] for row in pairs}
        attacked[name] = {
            (row["facing"], row["seed"]): 100 * row[where[name]] for row in pairs if row[where[name]] is not None
        }
        both[name] = {
            (row["facing"], row["seed"]): 100 * (row[track.prevented] - row[where[name]])
            for row in pairs
            if row[where[name]] is not None
        }
    seeds = {seed for parts in (prevented, clean) for own in parts.values() for _, seed in own}
    reductions, losses = aligned(prevented, seeds), {
        track.loss: aligned(clean, seeds), track.loss_attacked: aligned(attacked, seeds)
    }  # fmt: skip

    def difference(one: str, other: str) -> Difference:
        mine, theirs = losses[where[one]][one], losses[where[other]][other]
        paid = [theirs - mine] if where[one] == where[other] else [theirs, -mine]
        return contrast([reductions[one] - reductions[other], *paid])

    return separate(nets, difference, aligned(both))


def what_it_costs(pairs: Sequence[Row], track: Track) -> tuple[float | None, str]:
    """What a defense costs, see :func:`rank_defenses`, and the column that says so."""
    clean = mean_loss(pairs, track.loss)
    attacked = scenario_mean(pairs, track.loss_attacked) if track.loss_attacked else None
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
    everything: Sequence[Row],
    attack_of: Callable[[Row], str],
    compared: set[Cell],
    needed: Mapping[Cell, str],
    track: Track,
) -> DefenseRow:
    family, knowledge, assumes = card_of(everything)
    ran = {row["facing"] for row in everything if paired(row, track)}
    own = [row for row in everything if row["facing"] in compared or not paired(row, track)]
    pairs = [row for row in own if row["facing"] in compared and paired(row, track)]
    reduction, loss = scenario_estimate(pairs, track.prevented), quality_loss(pairs, track.loss)
    left, prevented, adaptive = {}, {}, set()
    for group in grouped(pairs, attack_of):
        attack = attack_of(group[0])
        if Knowledge.DEFENSE in group[0]["knowledge"].split(", "):
            adaptive.add(attack)
        left[attack] = scenario_mean(group, track.left) or 0.0
        prevented[attack] = scenario_mean(group, track.prevented) or 0.0
    loss_attacked = scenario_estimate(pairs, track.loss_attacked) if track.loss_attacked else None
    paid = loss if what_it_costs(pairs, track)[1] == track.loss else loss_attacked
    costs = [row["cost_ms"] for row in pairs if row["cost_ms"] is not None]
    clean = {row["clean"] for row in pairs if row[track.loss] is not None}
    lacks = {
        f"{needed[place]}, {100 * share:g} % assumed"
        for place, share in unjudged(pairs, track)
        if share is not None and place in clean
    }
    lacks |= {f"{cell[0]} on {say(cell[2:])}" for cell in compared - ran}
    make, seen = (VisualDefenseRow, _seen(pairs, family)) if track == VISUAL else (DefenseRow, {})
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
        hr=hit_ratio(pairs, "hr_attacked"),
        front=None,
        er=scenario_mean(pairs, track.left),
        peak=scenario_mean(pairs, track.peak) if track.peak else None,
        worst=_most(left.items()),
        worst_fixed=_most(item for item in left.items() if item[0] not in adaptive),
        worst_adaptive=_most(item for item in left.items() if item[0] in adaptive),
        least=min(prevented.items(), key=lambda item: item[1], default=None),
        cost=statistics.median(costs) if costs else None,
        runs=[row["run_id"] for row in own],
        scenarios=len(ran & compared),
        diverged=sum(row["status"] == "diverged" for row in own),
        failed=sum(row["status"] == "failed" for row in own),
        broken=sum(row["broken"] for row in own),
        clean_broken=len({(row["clean"], row["seed"]) for row in pairs if row["clean_broken"]}),
        refused=sum(row["refused_uploads"] or 0 for row in own),
        warned=sum(bool(row["warnings"]) for row in own),
        unverified=unverified(everything, "defense"),
        unpaired=sum(row["status"] != "failed" and not paired(row, track) for row in own),
        missing=sorted(lacks | {text for place, text in needed.items() if place not in clean}),
        apart=len(ran - compared),
        goal=track.panel,
        net_end=_net_end(pairs, track),
        er_end=scenario_mean(pairs, track.left_end) if track.left_end else None,
        **seen,
    )


def _most(left: Iterable[tuple[str, float]]) -> tuple[str, float] | None:
    return max(left, key=itemgetter(1), default=None)


def _seen(pairs: Sequence[Row], family: str) -> dict[str, Any]:
    """What the runs of a defense say of the images, the further fields of :class:`VisualDefenseRow`."""
    cleans = DefenseFamily.PURIFICATION in family.split("+")
    return {
        "similarity": plain_mean(pairs, "clean_similarity_mean") if cleans else None,
        "least_similarity": plain_mean(pairs, "clean_similarity_min") if cleans else None,
        "auc": plain_mean(pairs, "detection_auc"),
        "recall_zero_fp": plain_mean(pairs, "detection_recall_zero_fp", 100),
        "recall": plain_mean(pairs, "detection_recall", 100),
        "false_alarms": plain_mean(pairs, "detection_false_positive_rate", 100),
    }


def _lacking(
    rows: Mapping[str, Sequence[Row]], compared: set[Cell], needed: Mapping[Cell, str], track: Track
) -> dict[str, list[str]]:
    """The seeds that each defense lacks, with an attack and without one; see :func:`~.ranking.lacking_seeds`."""
    ran = {}
    for name, own in rows.items():
        pairs = [row for row in own if row["facing"] in compared and paired(row, track)]
        ran[name] = {(row["facing"], row["seed"]) for row in pairs}
        ran[name] |= {(row["clean"], row["seed"]) for row in pairs if row[track.loss] is not None}
    return lacking_seeds(ran, lambda cell: needed[cell] if cell in needed else f"{cell[0]} on {say(cell[2:])}")


def card_of(rows: Sequence[Row]) -> tuple[str, str, str]:
    """Family, knowledge and assumption of the defense of ``rows``.

    Records of schema version 1 do not have them; then they are those of the installed defense of that name, if there is
    one.
    """
    for row in rows:
        if row["defense_family"] is not None:
            return row["defense_family"], row["defense_knowledge"] or "", row["defense_assumes"] or ""
    from fedbench.defenses import DEFENSES  # it imports torch, which nothing else here needs

    name = rows[0]["defense"]
    if name not in DEFENSES.names():
        return "", "", ""
    card = DEFENSES.get(name).card
    return str(card.family), ", ".join(sorted(map(str, card.knowledge))), card.assumes


def _order(row: DefenseRow) -> float:
    if row.net is not None:
        return row.net
    return row.reduction.mean if row.reduction is not None else float("-inf")
