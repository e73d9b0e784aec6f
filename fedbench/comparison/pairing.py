"""Pairs of runs of the same scenario and seed, and the differences within them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fedbench.comparison.report import OVERALL, Comparison, Contrast, Exact
from fedbench.entries.cards import Goal
from fedbench.errors import UserError, unknown
from fedbench.leaderboard.database import Database, Row
from fedbench.leaderboard.paired import ByScenario, Values, aligned, compared, holm, paired_difference, resolution
from fedbench.leaderboard.ranking import CLEAN_PLACE, PLACE, cell_of, entry_names
from fedbench.leaderboard.sheets import hit_cut
from fedbench.runs.record import EXPOSURE, METRICS, SELECTED

KINDS = ("attack", "defense")
Key = tuple[Any, ...]
_PROMOTE, _DEMOTE = frozenset({str(Goal.PROMOTE)}), frozenset({str(Goal.DEMOTE)})

# What a run is measured by, beside its clean twin and the baseline (no attack, no defense) of the same seed. As in the
# rankings, a run that diverged has no hit ratio left, one that failed has no number, and a broken one is no triumph of an
# attack (er_earned, dr_earned) and no success of a defense (er_left, dr_left).
_RUNS = """
select r.run_id, r.scenario_id, r.dataset_fingerprint, r.seed, r.status, r.dataset, r.model, r.protocol, r.malicious_ratio,
       r.target, r.num_targets,
       r.split, r.protocol_params, r.model_params, r.attack, r.attack_params, r.attack_goal, r.defense, r.defense_params,
       case r.status when 'ok' then r.er when 'diverged' then 0 end as er,
       case when r.broken then 0 when r.status = 'ok' then r.er end as er_earned,
       case when r.broken then greatest(u.er, r.er) when r.status = 'ok' then r.er end as er_left,
       case when r.broken then 0 when r.status = 'ok' then r.dr end as dr_earned,
       case when r.broken then greatest(u.dr, r.dr) when r.status = 'ok' then r.dr end as dr_left,
       case r.status when 'ok' then r.dr when 'diverged' then 0 end as dr,
       r.hr, c.hr as clean_hr, r.broken, r.warnings,
       cast(r.status = 'ok' as int) * (1 - r.hr_chosen / nullif(c.hr_chosen, 0)) as loss,
       1 - r.hr_chosen / nullif(b.hr_chosen, 0) as baseline_loss
from quality r
left join quality c on c.scenario_id = r.clean_id and c.seed = r.seed and c.status <> 'failed'
left join quality u on u.scenario_id = r.undefended_id and u.seed = r.seed and u.status = 'ok' and not u.broken
left join quality b on b.scenario_id = r.baseline_id and b.seed = r.seed and b.status = 'ok'
where not r.superseded or ?
order by r.run_id
"""


@dataclass(frozen=True)
class _Measure:
    """A column of the runs of some goals, and what tells two pairs apart: the scenario, and the cell it is shown in."""

    title: str
    column: str
    goals: frozenset[str]
    scenario: Callable[[Row], Key]
    cell: Callable[[Row], Key]


def kind_of(database: Database, names: Sequence[str], kind: str | None = None) -> str:
    """Whether the names are attacks' or defenses', as the leaderboard calls them.

    Raises:
        UserError: one is neither, they are of two kinds, or of both and ``kind`` does not say which.
    """
    if kind is not None and kind not in KINDS:
        raise UserError(f"--kind {kind!r} must be attack or defense.")
    rows = _runs(database)
    known = {each: set(_names(rows, each).values()) for each in KINDS}
    fits = [each for each in KINDS if kind in (None, each) and all(name in known[each] for name in names)]
    if len(fits) == 1:
        return fits[0]
    if fits:
        raise UserError(f"{names[0]!r} and {names[1]!r} are attacks and defenses: say --kind attack or --kind defense.")
    own = known[kind] if kind else known["attack"] | known["defense"]
    for name in names:
        variants = sorted(each for each in own if each.startswith(f"{name} ("))
        if name not in own and variants:
            raise UserError(f"{name!r} was run with several parameters: name {' or '.join(map(repr, variants))}.")
        if name not in own:
            raise unknown(kind or "attack or defense", name, own, "A folder or file of results must exist.")
    raise UserError(f"{names[0]!r} and {names[1]!r} are not both attacks, nor both defenses.")


def compare_entries(database: Database, a: str, b: str, kind: str) -> Comparison:
    """Two attacks under the same defenses, or two defenses against the same attacks.

    Args:
        database: the records. a, b: names on the leaderboard. kind: ``attack`` or ``defense``.

    Raises:
        UserError: they are the same, aim at different things, or have no scenario and seed in common.
    """
    if a == b:
        raise UserError(f"{a!r} cannot be compared with itself.")
    rows = _runs(database)
    names, other = _names(rows, kind), _names(rows, "defense" if kind == "attack" else "attack")
    sides = [[row for row in rows if names[row["run_id"]] == name and row["attack"] != "none"] for name in (a, b)]
    goals = [{row["attack_goal"] for row in side} for side in sides]
    if kind == "attack" and not goals[0] & goals[1]:
        raise UserError(
            f"attacks {a!r} ({', '.join(goals[0])}) and {b!r} ({', '.join(goals[1])}) are not on one track."
        )

    def scenario(row: Row) -> Key:
        return (other[row["run_id"]], *cell_of(row, PLACE))

    def cell(row: Row) -> Key:
        return (row["dataset"], row["model"], row["malicious_ratio"], other[row["run_id"]] if kind == "attack" else "")

    def clean(row: Row) -> Key:
        return cell_of(row, CLEAN_PLACE)  # attacks and targets share their clean twins: each counts once

    def everywhere(row: Row) -> Key:
        return (row["dataset"], row["model"], None, "")

    k, h = database.k, hit_cut(database.k)
    left = "earned" if kind == "attack" else "left"
    measures = [
        _Measure(f"ER@{k}", f"er_{left}", _PROMOTE, scenario, cell),
        _Measure(f"DR@{k}", f"dr_{left}", _DEMOTE, scenario, cell),
        _Measure(f"HR@{h}", "hr", _PROMOTE | _DEMOTE, scenario, cell),
        _Measure(
            f"HR@{h} loss", "loss" if kind == "attack" else "baseline_loss", frozenset({Goal.DEGRADE}), scenario, cell
        ),
    ]
    if kind == "defense":
        goals_of_all = _PROMOTE | _DEMOTE | {str(Goal.DEGRADE)}
        measures.append(_Measure(f"HR@{h} without an attack", "clean_hr", goals_of_all, clean, everywhere))

    def say(row: Row) -> str:
        against = other[row["run_id"]]
        shown = f"under {against}" if kind == "attack" else f"against {against}"
        place = f"{row['dataset']} {row['model']} {row['protocol']} {row['malicious_ratio']:g} {row['target']}"
        return f"{place} {shown} s{row['seed']}"

    return _compared(f"{kind}s", (a, b), database.k, sides, measures, scenario, say)


def compare_results(first: Database, second: Database, a: str, b: str) -> Comparison:
    """Two sets of results: the same scenarios and seeds, run by two versions or on two machines.

    Args:
        first, second: the records, with the same K. a, b: what they are called.

    Raises:
        UserError: they have no scenario and seed in common.
    """
    sides = [_runs(first, True), _runs(second, True)]

    def scenario(row: Row) -> Key:
        return (row["scenario_id"], row["dataset_fingerprint"])  # other data under one name give other numbers

    def cell(row: Row) -> Key:
        return (row["dataset"], row["model"], row["malicious_ratio"], row["defense"])

    k, h = first.k, hit_cut(first.k)
    measures = [
        _Measure(f"ER@{k}", "er", _PROMOTE, scenario, cell),
        _Measure(f"DR@{k}", "dr", _DEMOTE, scenario, cell),
        _Measure(f"HR@{h}", "hr", _PROMOTE | _DEMOTE | {str(Goal.NONE)}, scenario, cell),
        _Measure(f"HR@{h} loss", "loss", frozenset({Goal.DEGRADE}), scenario, cell),
    ]
    about = [f"{side}: {_where(database)}." for side, database in (("A", first), ("B", second))]

    def say(row: Row) -> str:
        return f"{row['run_id']} ({row['dataset']} {row['model']} {row['attack']} {row['defense']})"

    exact = _exact(first, second)
    return _compared("results", (a, b), k, sides, measures, scenario, say, about, exact)


def _compared(
    kind: str,
    names: tuple[str, str],
    k: int,
    sides: Sequence[Sequence[Row]],
    measures: Iterable[_Measure],
    scenario: Callable[[Row], Key],
    say: Callable[[Row], str],
    about: Sequence[str] = (),
    exact: Exact | None = None,
) -> Comparison:
    keyed = [{(scenario(row), row["seed"]): row for row in side} for side in sides]
    only_a, only_b = (
        sorted({say(row) for key, row in one.items() if key not in two}) for one, two in (keyed, keyed[::-1])
    )
    if not keyed[0].keys() & keyed[1].keys():
        raise UserError(f"{names[0]!r} and {names[1]!r} have no scenario and seed in common, so nothing can be paired.")
    contrasts = [contrast for measure in measures for contrast in _contrasts(measure, sides)]
    lost = [*_lost(names, sides), *_lone(contrasts)]
    return Comparison(kind, *names, k, contrasts, only_a, only_b, lost, list(about), exact)


def _contrasts(measure: _Measure, sides: Sequence[Sequence[Row]]) -> list[Contrast]:
    """Over all cells, and (where there are several) in each."""
    values: list[dict[Key, dict[int, float]]] = [{}, {}]
    cells: dict[Key, set[Key]] = {}
    for own, side in zip(values, sides, strict=True):
        for row in side:
            if row["attack_goal"] in measure.goals and row[measure.column] is not None:
                scenario = measure.scenario(row)
                own.setdefault(scenario, {})[row["seed"]] = 100 * row[measure.column]
                cells.setdefault(measure.cell(row), set()).add(scenario)
    ordered = sorted(cells.items(), key=lambda item: (*item[0][:2], item[0][2] or 0.0, item[0][3]))
    found = [(cell, pair) for cell, scenarios in ordered if (pair := _paired(values, scenarios)) is not None]
    if not found:
        return []
    whole = _paired(values, {scenario for scenarios in cells.values() for scenario in scenarios})
    assert whole is not None
    out = [_contrast(measure.title, (OVERALL, OVERALL, None, OVERALL), whole, None, 1)]
    if len(found) > 1:
        differences = [paired_difference(*pair) for _, pair in found]
        adjusted = holm([1.0 if each.p is None else each.p for each in differences])
        out += [
            _contrast(measure.title, cell, pair, p, len(found)) for (cell, pair), p in zip(found, adjusted, strict=True)
        ]
    return out


def _paired(values: Sequence[ByScenario], scenarios: set[Key]) -> tuple[Values, Values] | None:
    """Both sides [scenarios, seeds], of the pairs alone; None when there is no pair."""
    common = {
        scenario: seeds
        for scenario, own in values[0].items()
        if scenario in scenarios and (seeds := [seed for seed in own if seed in values[1].get(scenario, ())])
    }
    if not common:
        return None
    arrays = aligned(
        {
            str(n): {scenario: {seed: side[scenario][seed] for seed in seeds} for scenario, seeds in common.items()}
            for n, side in enumerate(values)
        }
    )
    return arrays["0"], arrays["1"]


def _contrast(title: str, cell: Key, pair: tuple[Values, Values], p: float | None, tests: int) -> Contrast:
    """``p``: adjusted, None: that of the test itself. ``tests``: how many there are, on which the resolution depends."""
    difference = paired_difference(*pair)
    use = compared(pair[0] - pair[1])
    a, b = (float(np.nanmean(np.nanmean(side[use], axis=1))) for side in pair)
    dataset, model, ratio, defense = cell
    p = None if difference.p is None else difference.p if p is None else p
    return Contrast(title, dataset, model, ratio, defense, a, b, difference, p, resolution([difference] * tests))


def _runs(database: Database, superseded: bool = False) -> list[Row]:
    return database.rows(_RUNS, [superseded])


def _names(rows: Sequence[Row], kind: str) -> dict[str, str]:
    """Names on the leaderboard; no attack, and no defense, are ``none``."""
    own = [row for row in rows if kind == "attack" or row["attack"] != "none"]
    named = entry_names(own, kind)
    return {row["run_id"]: named.get((row[kind], row[f"{kind}_params"])) or str(row[kind]) for row in rows}


def _lost(names: Sequence[str], sides: Sequence[Sequence[Row]]) -> list[str]:
    out = []
    for letter, name, side in zip("AB", names, sides, strict=True):
        count = Counter(row["status"] for row in side)
        count["broken"] = sum(row["broken"] for row in side)
        texts = [f"{count[status]} {status}" for status in ("broken", "diverged", "failed") if count[status]]
        if texts:
            out.append(f"{letter}, {name}: {', '.join(texts)} of {len(side)} {'run' if len(side) == 1 else 'runs'}.")
        warned = Counter(text for row in side for text in row["warnings"] or ())
        out += [f"{letter}, {name}: warning of {n} {'run' if n == 1 else 'runs'}: {text}" for text, n in warned.items()]
    return out


def _lone(contrasts: Sequence[Contrast]) -> list[str]:
    """A sentence on each measure of which scenarios do not count, for they have a single seed in common."""
    return [
        f"{each.measure}: {each.difference.lone} {'scenario' if each.difference.lone == 1 else 'scenarios'} with a single"
        " common seed, where others have several, left out."
        for each in contrasts
        if each.dataset == OVERALL and each.difference.lone
    ]


def _where(database: Database) -> str:
    columns = ("fedbench_version", "git_commit", "torch_version", "device", "device_name")
    rows = database.rows(f"select distinct {', '.join(columns)} from runs order by all")
    shown = []
    for column in columns:
        values = sorted({str(row[column])[:12] if column == "git_commit" else str(row[column]) for row in rows})
        title = {"git_commit": "commit", "device_name": "", "device": "on"}.get(column, column.partition("_")[0])
        more = f" and {len(values) - 3} more" if len(values) > 3 else ""
        shown.append(f"{title} {' or '.join(values[:3])}{more}".strip())
    return ", ".join(shown)


def _exact(first: Database, second: Database) -> Exact | None:
    """Every number of the runs in both, bit for bit; the curves, too."""
    ends = [
        *METRICS,
        *(f"{name}_{what}" for name in EXPOSURE for what in ("peak", "tail")),
        *(f"{n}_best" for n in SELECTED),
    ]
    first.connection.register("compared_runs", second.table("select * from runs"))
    same = " and ".join(
        f'a."{name}" is not distinct from b."{name}"' for name in (*ends, "status", "curve", "best_epoch")
    )
    far = ", ".join(f'abs(a."{name}" - b."{name}") as "{name}"' for name in ends)
    rows = first.rows(
        f"select a.run_id, {same} as same, {far} from runs a join compared_runs b on a.run_id = b.run_id"
        " and a.dataset_fingerprint is not distinct from b.dataset_fingerprint order by a.run_id"
    )
    first.connection.unregister("compared_runs")
    if not rows:
        return None
    differences = [(row[name], name, row["run_id"]) for row in rows for name in ends if row[name]]
    largest, metric, run = max(differences, default=(0.0, "", ""), key=lambda each: each[0])
    return Exact(len(rows), [row["run_id"] for row in rows if not row["same"]], 100 * largest, metric, run)
