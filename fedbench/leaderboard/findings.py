"""What the tables say in sentences: each made from the records, with its test, its runs and its counter-example.

They change by themselves when the records do. A finding's ``claim`` is what it says without its numbers, by which two sets
of records are compared: ``leaderboard/stability.py`` leaves out one seed after the other.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

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
        *_never(panels),
        *_turned(panels),
        *_cheapest(prices, hit_cut(database.k)),
        *_knowing(panels),
        *_untargeted(database),
        *_resolved(panels),
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
    """How few clients it takes on each recommender; first the recommender on which that is the smallest share.

    Of each panel it names the attack with the smallest mean dose, by which they are ranked, and the median of its seeds.
    """
    firsts = [(panel, row, row.half) for panel in panels if (row := _first(panel)) and row.half]
    firsts = [each for each in firsts if each[2].median.bound != ">"]
    firsts.sort(key=lambda each: (each[2].median.share, each[1].mean_dose))
    for model in dict.fromkeys(panel.model for panel, *_ in firsts):
        clauses, details, claims = list[str](), [], []
        runs, against = list[str](), list[str]()
        own = [each for each in firsts if each[0].model == model]
        for panel, first, half in own:
            clients = max(1, round(half.median.share * panel.users))
            most = "at most " * (half.median.bound == "<=" and clients > 1)
            beside = f"{clients:,} beside {panel.users:,}"
            if not clauses:
                beside = f"{count(clients, 'malicious client')} beside {panel.users:,} users"
            clauses.append(f"{most}{beside} on {panel.dataset} ({first.attack})")
            details.append(f"on {panel.dataset} {half}, mean {mean_dose(first)}")
            claims.append(f"{panel.name}: {first.attack} is first")
            runs += first.runs
            against += _against(panel, first)
            against += [poor[panel.name]] if panel.name in poor else []
        against += [
            f"on {panel.dataset} the first, {row.attack}, does not hold half of the users in the median of its seeds"
            for panel in panels
            if panel.model == model and (row := _first(panel)) and row.half and row.half.median.bound == ">"
        ]
        least = not any(_beats(panel, row.attack, first.attack) for panel, first, _ in own for row in panel.ranking)
        yield Finding(
            f"Without a defense, {_listed(clauses)} show an item to half of the users of {model}"
            + ("; no ranked attack needs significantly fewer." if least else "."),
            "; ".join(claims),
            f"median over seeds, ranks by the mean; {_basis([panel for panel, *_ in own])}",
            runs,
            f"{'; '.join(details)}.",
            "; ".join(against) or None,
        )


def _first(panel: Panel) -> DoseRow | None:
    return next((row for row in panel.ranking if row.rank is not None), None)


def _against(panel: Panel, first: DoseRow) -> Iterator[str]:
    """What speaks against the first of a panel."""
    others = [row.attack for row in panel.ranking if row.rank is not None and row is not first]
    near = [name for name in others if not _apart(panel, first.attack, name)]
    if near:
        named = f" ({_listed(near)})" if len(near) <= 4 else ""
        noun = "is" if len(near) == 1 else "are"
        yield f"{len(near)} of {count(len(others), 'other')}{named} on {panel.dataset} {noun} not told apart from it"
    unranked = [row for row in panel.ranking if row.rank is None and row.mean_dose < first.mean_dose]
    if unranked:
        named = _listed([f"{row.attack} ({mean_dose(row)} in the mean)" for row in unranked])
        yield f"{named} on {panel.dataset} without a rank for want of seeds"
    if first.reached < 1 and first.curve is not None:
        seeds = len(first.curve.seeds)
        lost = f"{round((1 - first.reached) * seeds)} of {count(seeds, 'seed')}"
        yield f"on {lost} of {panel.dataset} {first.attack} does not hold half of the users"


def _turned(panels: Sequence[Panel]) -> Iterator[Finding]:
    """Two attacks that stand significantly one way on one model and the other way on another, same data: the widest turn."""
    best: tuple[float, Panel, Panel, str, str] | None = None
    turned = compared = 0
    for a, b in combinations(sorted(panels, key=lambda panel: panel.name), 2):
        if a.dataset != b.dataset or a.model == b.model:
            continue
        both = {frozenset(pair) for pair in b.ranking.separation.pairs}
        for one, other in a.ranking.separation.pairs:
            compared += frozenset((one, other)) in both
            for x, y in ((one, other), (other, one)):
                if _beats(a, x, y) and _beats(b, y, x):
                    turned += 1
                    wide = _ratio(a, y, x) * _ratio(b, x, y)
                    if best is None or wide > best[0]:
                        best = (wide, a, b, x, y)
    if best is None:
        return
    _, a, b, x, y = best
    rows = {panel.name: {row.attack: row for row in panel.ranking} for panel in (a, b)}
    yield Finding(
        f"Which of two attacks needs fewer clients can depend on the recommender: on {a.dataset}, {x} needs significantly"
        f" fewer than {y} with {a.model} and significantly more with {b.model}.",
        f"the order of attacks turns round between {a.model} and {b.model}",
        f"both by paired t tests over seeds with Holm's correction ({a.name}, {b.name})",
        [run for panel in (a, b) for name in (x, y) for run in rows[panel.name][name].runs],
        f"{rows[a.name][x].half} against {rows[a.name][y].half} with {a.model}, {rows[b.name][x].half} against"
        f" {rows[b.name][y].half} with {b.model}.",
        f"of {compared} pairs of attacks that are ranked with two recommenders on the same data {turned}"
        f" {'is' if turned == 1 else 'are'} turned round like this",
    )


def _never(panels: Sequence[Panel]) -> Iterator[Finding]:
    """Of how many ranked attacks the rising response stays below half of the users, in the median of their seeds."""
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
    lasts = {panel.ladder[-1][0] for panel in panels if ranked[panel.name]}
    last = f"{percent(min(lasts))} % malicious clients" if len(lasts) == 1 else "the largest dose of each board"
    counts = [f"{len(never[name])} of {len(rows)} on {name}" for name, rows in ranked.items() if rows]
    cases: list[str] = []
    for model, own in _by_model(panels).items():
        few, ran = (sum(len(rows[panel.name]) for panel in own) for rows in (never, ranked))
        cases += [f"{few} of {ran}{' attacks' * (not cases)} on {model}"] * (ran > 0)
    against = [
        f"{row.attack} on {name} is above half at {percent(dose)} % and falls back"
        for name, own in never.items()
        for row in own
        if (dose := _half_at(row)) is not None
    ]
    at, swing = max(
        ((name, row) for name, own in never.items() for row in own), key=lambda each: each[1].peak - each[1].area.mean
    )
    if swing.peak - swing.area.mean > 20:
        against.append(
            f"{swing.attack} on {at} reaches more for a while: {number(swing.peak)} % at its highest in the mean over doses,"
            f" {number(swing.area.mean)} % over the last quarter of training"
        )
    names = sorted(row.attack for row in never[most.name])
    yield Finding(
        f"Up to {last}, the rising response to {_listed(cases)}, counted once for each dataset, stays below half of the"
        " users.",
        f"{most.name}: {_listed(names)} never reach half",
        f"median over {_seeds(panels)}, last quarter of training, attacks with a rank; no test",
        [run for own in never.values() for row in own for run in row.runs],
        f"{_listed(counts)} ({_listed(names)} on {most.name}).",
        "; ".join(against) or None,
    )


def _half_at(row: DoseRow) -> float | None:
    """The first dose at which the median of the seeds is above half; None where there is none."""
    if row.curve is None:
        return None
    by_seed = row.curve.filled().values()
    tails = ((point.ratio, [own[point.clients] for own in by_seed]) for point in row.curve.points)
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
        told.append((panel, blind, knowing))
    if not told:
        return
    better = sorted(panel.name for panel, blind, knowing in told if _beats(panel, knowing.attack, blind.attack))
    worse = sum(_beats(panel, blind.attack, knowing.attack) for panel, blind, knowing in told)
    words = [
        f"{knowing.attack} ({knowing.knowledge}) {knowing.half} against {blind.attack} {blind.half} on {panel.name}"
        for panel, blind, knowing in told
    ]
    lacking = sorted(
        f"{row.attack} ({row.half}) on {panel.name}"
        for panel, *_ in told
        for row in panel.ranking
        if not row.rank and row.knowledge != "none"
    )
    yield Finding(
        "The best ranked attack that knows more than its own clients see needs significantly fewer clients than the best of"
        f" the others on {len(better)} of {count(len(told), 'board')}, and significantly more on {worse}.",
        f"prior knowledge is told to help on {_listed(better) if better else 'no board'}",
        "paired t tests over seeds with Holm's correction, on each board where one that knows more reaches half of the users"
        " on some seed",
        [run for _, blind, knowing in told for row in (blind, knowing) for run in row.runs],
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
        clients = "" if clauses else " the clients"
        clauses.append(f"{best.defense} makes {best.worst[0]} need {best.worst[1]} times{clients} on {name}")
        details.append(
            f"{name}: {count(len(cheap), 'defense')} at that cost, {count(len(best.factors), 'attack')},"
            f" {count(best.seeds, 'seed')}"
        )
        claims.append(f"{name}: {best.defense}")
        runs += best.runs
        if best.worst_adaptive is None:
            counters.append(f"no attack that knows {best.defense} was run at several doses on {name}")
        elif best.worst_adaptive[1].order < best.worst[1].order:
            counters.append(
                f"an attack that knows {best.defense} needs {best.worst_adaptive[1]} times as many on {name}"
            )
        if dear.worst[1].order > best.worst[1].order:
            counters.append(
                f"{dear.defense} makes it {dear.worst[1]} times on {name}, and costs {number(dear.hr_loss)} points"
            )
    if clauses:
        yield Finding(
            f"At less than {CHEAP:g} point of HR@{h}, {_listed(clauses)}.",
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
    none = [f"{panel.name} ({panel.pairs})" for panel in panels if panel.pairs and not panel.apart]
    yield Finding(
        f"Counted on each board, {apart} of {pairs} pairs of attacks are told apart by the clients that they need; of those"
        f" whose doses differ {APART:g} times or more, {told} of {far}.",
        "",
        "paired t tests of log doses over seeds, Holm's correction on each board, 5 %",
        [run for panel in panels for row in panel.ranking for run in row.runs],
        f"{APART:g} times or more: {_listed(each)}." if each else None,
        f"no pair is on {_listed(none)}" if none else None,
    )


def _untargeted(database: Database) -> Iterator[Finding]:
    """The strongest untargeted attack."""
    ranking = rank_untargeted(database)
    ranked = [row for row in ranking if row.rank is not None]
    first = ranked[0] if len(ranked) > 1 else None
    if first is None or first.loss is None:
        return
    h, near = hit_cut(database.k), len(ranked) - 1 - (first.beats or 0)
    yield Finding(
        f"Of {len(ranked)} untargeted attacks, {first.attack} takes the most of HR@{h}: {number(first.loss.mean)} % of it.",
        f"untargeted: {first.attack} is first",
        "mean over scenarios; paired t tests over seeds, Holm's correction",
        first.runs,
        None,
        f"{near} of the {len(ranked) - 1} others {'is' if near == 1 else 'are'} not told apart from it"
        if near
        else None,
    )


def _by_model(panels: Sequence[Panel]) -> dict[str, list[Panel]]:
    found: dict[str, list[Panel]] = {}
    for panel in panels:
        found.setdefault(panel.model, []).append(panel)
    return found


def _basis(panels: Sequence[Panel]) -> str:
    over = _seeds(panels)
    return f"paired t tests of log doses over {over}, Holm's correction on each board, 5 %"


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
