"""Attacks ranked by how many malicious clients they need, and defenses by how much they raise that price."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from fedbench.leaderboard.clean_twins import largest_mean_loss, mean_loss
from fedbench.leaderboard.database import Database
from fedbench.leaderboard.dose_curves import STATISTICS, Curve, dose_curves, panel_names
from fedbench.leaderboard.doses import Dose, DoseEstimate, logarithms, mean_bound, median_dose
from fedbench.leaderboard.paired import ALPHA, ByScenario, aligned, paired_difference
from fedbench.leaderboard.ranking import Estimate, clustered, grouped, load, mean_of
from fedbench.leaderboard.scenarios import scenarios
from fedbench.leaderboard.separation import Ranking, Separation, separate

APART = 3.0
"""Doses that differ by this factor are expected to be told apart."""


@dataclass(frozen=True)
class DoseRow:
    """An attack on one panel (a dataset and a model), or on all.

    Attributes:
        attack, knowledge: its name, and what it knows. rank, last_rank, beats: by the half-exposure dose; None when it lacks
            a panel of the comparison, or more than half of the usual seeds, or is unverified. average_rank: over panels.
        half: median over seeds; None on several panels. mean_dose: geometric mean over panels and seeds of the doses, a bound
            counting as the dose that it names. bound: whether it is more or less than that (:func:`~.doses.mean_bound`).
            reached: in which share of its panels and seeds the response reaches half of the users.
        area: mean ER@K over the doses of the ladder, by the tail. end, peak: likewise at the end, and at the highest.
        curve: None on several panels. runs: ids. panels: how many. missing: panels of the comparison that it lacks,
            or on one panel whether it lacks more than half of the usual seeds.
            lacking: seeds that at least half of the attacks of its panel have and it has not: it is compared with each on the
            seeds that both have.
    """

    attack: str
    knowledge: str
    half: DoseEstimate | None
    mean_dose: float
    bound: str
    reached: float
    area: Estimate
    end: float
    peak: float
    hr: float
    runs: list[str]
    panels: int
    curve: Curve | None
    unverified: bool
    missing: int
    lacking: Sequence[int] = ()
    rank: int | None = None
    last_rank: int | None = None
    beats: int | None = None
    average_rank: float | None = None


@dataclass(frozen=True)
class Panel:
    """The attacks on one dataset and model, without a defense.

    Attributes:
        name: ``ml-100k mf``. dataset, model, users: of it. ladder: (share of malicious clients as asked for, clients).
        ranking: of the attacks. told, far: how many pairs of attacks whose doses differ by at least :data:`APART` are told
            apart, and how many such pairs there are; pairs: of all that have a rank; apart: told apart of these.
    """

    name: str
    dataset: str
    model: str
    users: int
    ladder: Sequence[tuple[float, int]]
    ranking: Ranking[DoseRow]
    told: int
    far: int
    apart: int
    pairs: int


def dose_panels(database: Database) -> list[Panel]:
    """Every dataset and model that attacks were run on at several doses."""

    def make() -> list[Panel]:
        plain = [curve for curve in dose_curves(database) if curve.defense == "none"]
        panels = grouped(plain, lambda curve: curve.panel)
        names = panel_names([own[0].panel for own in panels])
        return sorted(
            (_panel(name, own) for name, own in zip(names, panels, strict=True)), key=lambda panel: panel.name
        )

    found: list[Panel] = database.kept("dose panels", make)
    return found


def _panel(name: str, curves: Sequence[Curve]) -> Panel:
    usual = _usual_seeds(curves)
    rows = [_row(curve, usual) for curve in curves if curve.seeds]
    by_name = {curve.attack: curve for curve in curves}
    ranking = _placed(rows, {row.attack: {name: logarithms(by_name[row.attack].doses)} for row in rows})
    first = curves[0]
    asked = {point.clients: point.ratio for curve in curves for point in curve.points}
    told, far, apart = _told_apart(ranking.separation, {row.attack: row for row in ranking})
    return Panel(
        name, str(first.panel[0]), str(first.panel[1]), first.users,
        [(asked[clients], clients) for clients in first.ladder], ranking, told, far, apart, len(ranking.separation.pairs),
    )  # fmt: skip


def _usual_seeds(curves: Sequence[Curve]) -> set[int]:
    """The seeds that at least half of the attacks have."""
    there = [seed for curve in curves for seed in curve.seeds]
    return {seed for seed in there if 2 * there.count(seed) >= len(curves)}


def _row(curve: Curve, usual: set[int]) -> DoseRow:
    areas = {statistic: curve.areas(statistic) for statistic in STATISTICS}
    hr = [value for point in curve.points for value in point.hr.values()]
    return DoseRow(
        attack=curve.attack,
        knowledge=curve.knowledge,
        half=median_dose(list(curve.doses.values())),
        mean_dose=_mean_dose(curve.doses),
        bound=mean_bound(curve.doses.values()),
        reached=statistics.fmean(dose.bound != ">" for dose in curve.doses.values()),
        area=clustered({curve.attack: areas["tail"]}),
        end=statistics.fmean(areas["end"].values()),
        peak=statistics.fmean(areas["peak"].values()),
        hr=mean_of(hr) or 0.0,
        runs=curve.runs,
        panels=1,
        curve=curve,
        unverified=curve.unverified,
        missing=int(2 * len(usual & set(curve.seeds)) < len(usual)),
        lacking=sorted(usual - set(curve.seeds)),
    )


def _mean_dose(doses: Mapping[int, Dose]) -> float:
    return 10 ** statistics.fmean(logarithms(doses).values())


def _placed(rows: Sequence[DoseRow], values: Mapping[str, ByScenario]) -> Ranking[DoseRow]:
    """Rows in the order of their doses, the smallest first, and of equal ones by exposure; with ranks where nothing lacks.

    Args:
        rows: attacks. values: log10 of the dose of each, by panel and seed.
    """
    ranked = [row for row in rows if not row.missing and not row.unverified]
    arrays = {name: -array for name, array in aligned({row.attack: values[row.attack] for row in ranked}).items()}
    by_name = {row.attack: row for row in rows}
    scores = {row.attack: _score(row) for row in ranked}
    told = separate(scores, lambda one, other: paired_difference(arrays[one], arrays[other]), arrays)
    order = sorted(by_name.values(), key=lambda row: (-_score(row), row.attack))
    return Ranking([replace(row, **told.standing(row.attack)) for row in order], told)


def _score(row: DoseRow) -> float:
    return -math.log10(row.mean_dose) + 1e-6 * row.area.mean


def _told_apart(told: Separation, rows: Mapping[str, DoseRow]) -> tuple[int, int, int]:
    """Of the pairs whose doses differ by :data:`APART`, how many are told apart, and how many there are; and of all pairs."""
    far = found = apart = 0
    for (one, other), (difference, p) in told.pairs.items():
        significant = p <= ALPHA and bool(difference.estimate)
        ratio = rows[one].mean_dose / rows[other].mean_dose
        apart += significant
        if max(ratio, 1 / ratio) >= APART:
            far, found = far + 1, found + significant
    return found, far, apart


def rank_doses(database: Database, model: str | None = None) -> Ranking[DoseRow]:
    """Attacks over all panels that at least half of them have, by the geometric mean of their half-exposure doses.

    Args:
        database: the records. model: only panels of this one; None: all.
    """
    panels = [panel for panel in dose_panels(database) if model in (None, panel.model)]
    by_attack: dict[str, dict[str, DoseRow]] = {}
    for panel in panels:
        for row in panel.ranking:
            by_attack.setdefault(row.attack, {})[panel.name] = row
    compared = [
        panel.name for panel in panels if 2 * sum(panel.name in own for own in by_attack.values()) >= len(by_attack)
    ]
    rows, values = [], {}
    for attack, own in by_attack.items():
        there = {name: row for name, row in own.items() if name in compared}
        if not there:
            continue
        curves = {name: row.curve for name, row in there.items() if row.curve}
        values[attack] = {name: logarithms(curve.doses) for name, curve in curves.items()}
        first = next(iter(there.values()))
        rows.append(
            replace(
                first,
                half=first.half if len(there) == 1 else None,
                curve=first.curve if len(there) == 1 else None,
                mean_dose=10 ** statistics.fmean(statistics.fmean(own.values()) for own in values[attack].values()),
                bound=mean_bound(doses := [dose for curve in curves.values() for dose in curve.doses.values()]),
                reached=statistics.fmean(dose.bound != ">" for dose in doses),
                area=clustered({name: curve.areas() for name, curve in curves.items()}),
                end=statistics.fmean(row.end for row in there.values()),
                peak=statistics.fmean(row.peak for row in there.values()),
                hr=statistics.fmean(row.hr for row in there.values()),
                runs=[run for row in there.values() for run in row.runs],
                panels=len(there),
                unverified=any(row.unverified for row in there.values()),
                missing=sum(row.missing for row in there.values()) + len(compared) - len(there),
                lacking=(),
                rank=None,
                last_rank=None,
                beats=None,
                average_rank=None,
            )
        )
    return _placed(rows, values)


def order_changes(rows: Sequence[DoseRow], statistic: str) -> tuple[int, int]:
    """How many pairs of attacks stand the other way round by another mean exposure than the tail's, and of how many.

    Args:
        rows: with ranks. statistic: ``"end"`` or ``"peak"``.
    """
    pairs = list(combinations([(row.area.mean, getattr(row, statistic)) for row in rows], 2))
    return sum((a[0] - b[0]) * (a[1] - b[1]) < 0 for a, b in pairs), len(pairs)


@dataclass(frozen=True)
class Factor:
    """By how much a defense raises the dose that an attack needs: dose under the defense / dose without.

    Attributes:
        value: the factor. bound: ``">="``, ``"<="`` or empty, from the bounds of the two doses.
    """

    value: float
    bound: str = ""

    @property
    def order(self) -> tuple[float, bool]:
        """From low to high."""
        return self.value, self.bound == ">="

    def __str__(self) -> str:
        value = f"{self.value:.0f}" if self.value >= 10 else f"{self.value:.1f}"
        return f"{self.bound}{value}"


def price_factor(under: Dose, without: Dose) -> Factor | None:
    """The factor of one seed; None where the attack does not reach half of the users without the defense either.

    A smallest dose that suffices already (``<=``) without the defense makes the factor a least one, as does a dose that is
    not reached (``>``) under it; one that suffices under it, a most one; where both say something else, nothing is known but
    that the defense changed nothing that was seen: a factor of 1.
    """
    if without.bound == ">":
        return None
    value = under.share / without.share
    if under.bound == ">":
        return Factor(value, ">=")
    if under.bound == "<=":
        return Factor(value, "" if without.bound == "<=" else "<=")
    return Factor(value, ">=" if without.bound == "<=" else "")


@dataclass(frozen=True)
class PriceRow:
    """What a defense makes of the price of an attack on one panel.

    Attributes:
        panel: its name. dataset, model: of it. defense: its name. factors: of each attack that it was run against, the
            median over seeds. worst: the attack whose price it raises least, and that factor, of those that do not know the
            defense; worst_adaptive: of those that do. hr_loss: points of HR@K that it costs without an attack; None where it
            was not run so; hr_loss_most: the most that this becomes when any one seed is left out. seeds: how many. runs: ids
            of the defended runs.
    """

    panel: str
    dataset: str
    model: str
    defense: str
    factors: Mapping[str, Factor]
    worst: tuple[str, Factor]
    worst_adaptive: tuple[str, Factor] | None
    hr_loss: float | None
    hr_loss_most: float | None
    seeds: int
    runs: list[str]


def rank_prices(database: Database) -> list[PriceRow]:
    """Defenses by panel, those that raise the price most first: by the least factor over the attacks that they met."""

    def make() -> list[PriceRow]:
        curves = dose_curves(database)
        names = {row.curve.panel: panel.name for panel in dose_panels(database) for row in panel.ranking if row.curve}
        plain = {(curve.panel, curve.attack): curve for curve in curves if curve.defense == "none"}
        defended = load(database, "select * from defenses where attack_goal = 'promote' order by run_id")
        by_run = {row["run_id"]: row for row in defended}
        out = []
        for own in grouped([c for c in curves if c.defense != "none" and c.seeds], lambda c: (c.panel, c.defense)):
            factors = {}
            for curve in own:
                found = _median_factor(curve, plain.get((curve.panel, curve.attack)))
                if found is not None:
                    factors[curve.attack] = found
            if not factors:
                continue
            fixed = {name: value for name, value in factors.items() if not name.startswith("adaptive")}
            told = {name: value for name, value in factors.items() if name.startswith("adaptive")}
            first = own[0]
            paired = scenarios(by_run[run] for curve in own for run in curve.runs if run in by_run)
            out.append(
                PriceRow(
                    panel=names[first.panel],
                    dataset=str(first.panel[0]),
                    model=str(first.panel[1]),
                    defense=first.defense,
                    factors=factors,
                    worst=_least(fixed or told),
                    worst_adaptive=_least(told) if told else None,
                    hr_loss=mean_loss(paired, "hr_loss"),
                    hr_loss_most=largest_mean_loss(paired, "hr_loss"),
                    seeds=len({seed for curve in own for seed in curve.seeds}),
                    runs=[run for curve in own for run in curve.runs],
                )
            )
        return sorted(out, key=lambda row: (row.panel, *(-value for value in row.worst[1].order), row.defense))

    found: list[PriceRow] = database.kept("prices", make)
    return found


def _least(factors: Mapping[str, Factor]) -> tuple[str, Factor]:
    return min(factors.items(), key=lambda item: (item[1].order, item[0]))


def _median_factor(under: Curve, without: Curve | None) -> Factor | None:
    """The median over the seeds of both curves in which the attack needs a dose at all; of an even number, the lower one."""
    if without is None:
        return None
    both = [price_factor(dose, without.doses[seed]) for seed, dose in under.doses.items() if seed in without.doses]
    known = sorted((factor for factor in both if factor is not None), key=lambda factor: factor.order)
    return known[(len(known) - 1) // 2] if known else None
