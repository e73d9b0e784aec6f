"""What the tables say in sentences: each made from the records, with its test, its runs and its counter-example.

They change by themselves when the records do. A finding's ``claim`` is what it says without its numbers, by which two sets
of records are compared: ``leaderboard/stability.py`` leaves out one seed after the other.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from fedbench.leaderboard.database import Database
from fedbench.leaderboard.dose_curves import PER_SEED
from fedbench.leaderboard.doses import percent
from fedbench.leaderboard.ranking_doses import APART, DoseRow, Panel, PriceRow, dose_panels, rank_prices
from fedbench.leaderboard.ranking_untargeted import rank_untargeted
from fedbench.leaderboard.sheets import hit_cut, number
from fedbench.leaderboard.sheets_doses import mean_dose
from fedbench.texts import count

CHEAP = 1.0
"""Points of HR@K that a defense may cost to be called cheap, whichever seed is left out."""


@dataclass(frozen=True)
class Finding:
    """A sentence.

    Attributes:
        text: what was found, to be quoted. claim: the same without numbers; empty where it is nothing but a number.
            basis: by which test. runs: ids of those that it rests on. detail: its numbers, board by board.
        counter: what speaks against it; None where nothing does.
    """

    text: str
    claim: str
    basis: str
    runs: Sequence[str]
    detail: str | None = None
    counter: str | None = None


def findings(database: Database) -> list[Finding]:
    """All that the records allow, the most telling first; empty without runs at several doses."""
    panels, prices = dose_panels(database), rank_prices(database)
    return [
        *_strongest(panels, _poor(database, panels)),
        *_turned(panels),
        *_never(panels),
        *_knowing(panels),
        *_cheapest(prices, hit_cut(database.k)),
        *_resolved(panels),
        *_untargeted(database),
    ]


def _poor(database: Database, panels: Sequence[Panel]) -> dict[str, str]:
    """By panel, what is to be said of a recommender that finds less than popularity without any attack; nothing of others."""
    out = {}
    for panel in panels:
        seeds = {seed for row in panel.ranking if row.curve for seed in row.curve.seeds}
        found = database.rows(
            "select 100 * avg(hr_at_10) as hr, 100 * avg(popularity_hr) as popularity from headline where dataset = ? and"
            f" model = ? and attack = 'none' and defense = 'none' and starts_with(target, '{PER_SEED}')"
            " and list_contains(?, seed)",
            [panel.dataset, panel.model, sorted(seeds)],
        )
        hr, popularity = found[0]["hr"], found[0]["popularity"]
        if hr is not None and popularity is not None and hr < popularity:
            out[panel.name] = (
                f"{panel.model} on {panel.dataset} is worse than popularity without any attack (HR@10"
                f" {number(hr)} %, popularity {number(popularity)} %)"
            )
    return out


def _strongest(panels: Sequence[Panel], poor: Mapping[str, str]) -> Iterator[Finding]:
    """Who needs the fewest clients on each recommender; first the recommender on which that is the smallest share."""
    firsts = [(panel, row) for panel in panels if (row := _first(panel)) and row.reached]
    firsts.sort(key=lambda each: each[1].mean_dose)
    for model in dict.fromkeys(panel.model for panel, _ in firsts):
        clauses, details, claims = list[str](), [], []
        runs, against = list[str](), list[str]()
        for panel, first in firsts:
            if panel.model != model:
                continue
            others = [row.attack for row in panel.ranking if row.rank is not None and row is not first]
            near = [name for name in others if not _apart(panel, first.attack, name)]
            clients = f"{max(1, round(first.mean_dose * panel.users))}{' malicious clients' * (not clauses)}"
            least = "at least " * (first.reached < 1)
            clauses.append(f"{least}{clients} of {panel.users:,} on {panel.dataset} ({first.attack})")
            apart = f"told apart from {len(others) - len(near)} of {count(len(others), 'other')}"
            details.append(f"on {panel.dataset} {mean_dose(first)}, {apart}")
            claims.append(f"{panel.name}: {first.attack} is first")
            runs += first.runs
            against += [f"{_listed(near)} on {panel.dataset} not told apart from it"] if 0 < len(near) <= 4 else []
            against += [poor[panel.name]] if panel.name in poor else []
            if first.reached < 1 and first.curve is not None:
                seeds = len(first.curve.seeds)
                lost = f"{round((1 - first.reached) * seeds)} of {count(seeds, 'seed')}"
                against.append(
                    f"the rising response of {first.attack} does not reach half on {lost} of {panel.dataset}"
                )
        yield Finding(
            f"Half of the users of {model} are reached with {_listed(clauses)}, the fewest of all ranked attacks.",
            "; ".join(claims),
            f"geometric mean over seeds; {_basis([panel for panel, _ in firsts if panel.model == model])}",
            runs,
            f"{'; '.join(details)}.",
            "; ".join(against) or None,
        )


def _first(panel: Panel) -> DoseRow | None:
    return next((row for row in panel.ranking if row.rank is not None), None)


def _turned(panels: Sequence[Panel]) -> Iterator[Finding]:
    """Two attacks that stand significantly one way on one model and the other way on another, same data: the widest turn."""
    best: tuple[float, Panel, Panel, str, str] | None = None
    turned = set()
    for a in panels:
        for b in panels:
            if a.name >= b.name or a.dataset != b.dataset or a.model == b.model:
                continue
            for one, other in a.ranking.separation.pairs:
                for x, y in ((one, other), (other, one)):
                    if _beats(a, x, y) and _beats(b, y, x):
                        turned.add(frozenset((x, y)))
                        wide = _ratio(a, y, x) * _ratio(b, x, y)
                        if best is None or wide > best[0]:
                            best = (wide, a, b, x, y)
    if best is None:
        return
    _, a, b, x, y = best
    rows = {panel.name: {row.attack: row for row in panel.ranking} for panel in (a, b)}
    yield Finding(
        f"Which attack is stronger depends on the recommender: on {a.dataset}, {x} needs fewer clients than {y} with"
        f" {a.model} and more with {b.model}.",
        f"the order of attacks turns round between {a.model} and {b.model}",
        f"both told apart, by paired t tests over seeds with Holm's correction ({a.name}, {b.name})",
        [run for panel in (a, b) for name in (x, y) for run in rows[panel.name][name].runs],
        f"{rows[a.name][x].half} against {rows[a.name][y].half} with {a.model}, {rows[b.name][x].half} against"
        f" {rows[b.name][y].half} with {b.model}; {count(len(turned), 'pair')} of attacks are turned round like this.",
    )


def _never(panels: Sequence[Panel]) -> Iterator[Finding]:
    """How many ranked attacks do not reach half of the users at the largest dose."""
    ranked = {panel.name: [row for row in panel.ranking if row.rank is not None] for panel in panels}
    never = {
        name: [row for row in rows if row.half is not None and row.half.median.bound == ">"]
        for name, rows in ranked.items()
    }
    if not any(never.values()):
        return
    most = max(
        (panel for panel in panels if ranked[panel.name]),
        key=lambda p: (len(never[p.name]) / len(ranked[p.name]), p.name),
    )
    last, _ = most.ladder[-1]
    counts = [f"{len(never[name])} of {len(rows)} on {name}" for name, rows in ranked.items() if rows]
    cases: list[str] = []
    for model, own in _by_model(panels).items():
        few, ran = (sum(len(rows[panel.name]) for panel in own) for rows in (never, ranked))
        cases += [f"{few} of {ran}{' ranked attacks' * (not cases)} on {model}"] * (ran > 0)
    against = [
        f"{row.attack} on {name} is above half at {percent(dose)} % and falls back"
        for name, own in never.items()
        for row in own
        if (dose := _half_at(row)) is not None
    ]
    swing = max((row for own in never.values() for row in own), key=lambda row: row.peak - row.area.mean)
    if swing.peak - swing.area.mean > 20:
        against.append(
            f"{swing.attack} reaches more for a while: {number(swing.peak)} % at its highest in the mean over doses,"
            f" {number(swing.area.mean)} % over the last quarter of training"
        )
    names = sorted(row.attack for row in never[most.name])
    yield Finding(
        f"With up to {percent(last)} % malicious clients, {_listed(cases)} do not reach half of the users for good.",
        f"{most.name}: {_listed(names)} never reach half",
        f"median over {_seeds(panels)} of the half-exposure dose, at which the rising response is half; no test",
        [run for own in never.values() for row in own for run in row.runs],
        f"{_listed(counts)} ({_listed(names)} on {most.name}).",
        "; ".join(against) or None,
    )


def _half_at(row: DoseRow) -> float | None:
    """The first dose at which the median of the seeds is above half; None where there is none."""
    if row.curve is None:
        return None
    tails = ((point.ratio, list(point.exposure["tail"].values())) for point in row.curve.points)
    return next((ratio for ratio, own in tails if statistics.median(own) >= 50), None)


def _knowing(panels: Sequence[Panel]) -> Iterator[Finding]:
    """Whether attacks that know more need fewer clients, on boards where one of them reaches half of the users at all."""
    told = []
    for panel in panels:
        ranked = [row for row in panel.ranking if row.rank is not None]
        blind = next((row for row in ranked if row.knowledge == "none"), None)
        knowing = next((row for row in ranked if row.knowledge != "none"), None)
        if blind is None or knowing is None or not knowing.reached:
            continue
        told.append((panel, blind, knowing, _beats(panel, knowing.attack, blind.attack)))
    if not told:
        return
    better = sorted(panel.name for panel, *_, won in told if won)
    words = [
        f"{knowing.attack} ({knowing.knowledge}) {knowing.half} against {blind.attack} {blind.half} on {panel.name}"
        for panel, blind, knowing, _ in told
    ]
    lacking = sorted(
        f"{row.attack} on {panel.name}"
        for panel, *_ in told
        for row in panel.ranking
        if not row.rank and row.knowledge != "none"
    )
    yield Finding(
        "The best attack that knows more than its own clients see needs significantly fewer clients than the best of the"
        f" others on {len(better)} of {count(len(told), 'board')}.",
        f"prior knowledge is told to help on {_listed(better) if better else 'no board'}",
        "paired t tests over seeds with Holm's correction, on each board where one that knows more reaches half of the users",
        [run for _, blind, knowing, _ in told for row in (blind, knowing) for run in row.runs],
        f"{'; '.join(words)}.",
        f"not ranked for want of seeds: {_listed(lacking)}" if lacking else None,
    )


def _cheapest(prices: Sequence[PriceRow], h: int) -> Iterator[Finding]:
    """By how much defenses that cost little raise the price of every attack that they met."""
    clauses, details, claims = list[str](), [], []
    runs, counters = list[str](), []
    for name in dict.fromkeys(row.panel for row in prices):
        own = [row for row in prices if row.panel == name and row.hr_loss is not None]
        cheap = [row for row in own if row.hr_loss_most is not None and row.hr_loss_most < CHEAP]
        if not cheap:
            continue
        best = max(cheap, key=lambda row: (row.worst[1].order, row.defense))
        dear = max(own, key=lambda row: (row.worst[1].order, row.defense))
        needs = "its worst attack needs " * (not clauses)
        clauses.append(f"{best.defense} on {name} ({needs}{best.worst[1]} times{' the clients' * (not clauses)})")
        details.append(
            f"on {name} against {best.worst[0]}, of {count(len(best.factors), 'attack')}, {count(best.seeds, 'seed')},"
            f" {count(len(cheap), 'defense')} at that cost"
        )
        claims.append(f"{name}: {best.defense}")
        runs += best.runs
        if best.worst_adaptive is not None and best.worst_adaptive[1].order < best.worst[1].order:
            counters.append(
                f"an attack that knows {best.defense} needs {best.worst_adaptive[1]} times as many on {name}"
            )
        elif dear.worst[1].order > best.worst[1].order:
            cost = number(dear.hr_loss, signed=True)
            counters.append(f"{dear.defense} raises it {dear.worst[1]} times on {name}, at {cost} points")
    if clauses:
        yield Finding(
            f"At less than {CHEAP:g} point of HR@{h}, the defense that makes attacks dearest is {_listed(clauses)}.",
            f"best cheap defense: {'; '.join(claims)}",
            "median over seeds of dose under the defense / dose without, the cost whichever seed is left out; no test",
            runs,
            f"{'; '.join(details)}.",
            "; ".join(counters) or None,
        )


def _resolved(panels: Sequence[Panel]) -> Iterator[Finding]:
    """How much the tables tell."""
    if not panels:
        return
    told, far = sum(panel.told for panel in panels), sum(panel.far for panel in panels)
    apart, pairs = sum(panel.apart for panel in panels), sum(panel.pairs for panel in panels)
    each = [f"{panel.name} {panel.told} of {panel.far} ({_seeds([panel])})" for panel in panels if panel.far]
    yield Finding(
        f"Of the pairs of attacks whose doses differ {APART:g} times or more, {told} of {far} are told apart; of all pairs"
        f" {apart} of {pairs}.",
        "",
        "paired t tests of the logarithms of doses over seeds, Holm's correction over all pairs of a board, 5 %",
        [run for panel in panels for row in panel.ranking for run in row.runs],
        f"{_listed(each)}." if each else None,
    )


def _untargeted(database: Database) -> Iterator[Finding]:
    """The strongest untargeted attack."""
    ranking = rank_untargeted(database)
    ranked = [row for row in ranking if row.rank is not None]
    first = ranked[0] if len(ranked) > 1 else None
    if first is None or first.loss is None:
        return
    h = hit_cut(database.k)
    yield Finding(
        f"Of {len(ranked)} untargeted attacks, {first.attack} takes the most of HR@{h}: {number(first.loss.mean)} % of it;"
        f" {first.beats} are told apart from it.",
        f"untargeted: {first.attack} is first",
        f"paired t tests over seeds, Holm's correction; {count(len(first.runs), 'run')} of it",
        first.runs,
    )


def _by_model(panels: Sequence[Panel]) -> dict[str, list[Panel]]:
    found: dict[str, list[Panel]] = {}
    for panel in panels:
        found.setdefault(panel.model, []).append(panel)
    return found


def _basis(panels: Sequence[Panel]) -> str:
    over = _seeds(panels)
    return f"paired t tests of the logarithms of doses over {over}, Holm's correction over all pairs of a board, 5 %"


def _seeds(panels: Sequence[Panel]) -> str:
    """How many seeds the ranked attacks have."""
    seeds = sorted({len(row.curve.seeds) for panel in panels for row in panel.ranking if row.curve and row.rank})
    return "seeds" if not seeds else f"{seeds[0]} to {seeds[-1]} seeds" if len(seeds) > 1 else count(seeds[0], "seed")


def _beats(panel: Panel, one: str, other: str) -> bool:
    """Whether ``one`` needs significantly fewer clients than ``other``."""
    return other in panel.ranking.separation.beats.get(one, ())


def _apart(panel: Panel, one: str, other: str) -> bool:
    return _beats(panel, one, other) or _beats(panel, other, one)


def _ratio(panel: Panel, one: str, other: str) -> float:
    rows: dict[str, DoseRow] = {row.attack: row for row in panel.ranking}
    return rows[one].mean_dose / rows[other].mean_dose


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
