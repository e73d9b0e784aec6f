"""The records behind the numbers, and their curves, as the page has them.

Metrics are percent, to two decimals, curves to one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from fedbench.leaderboard.database import Database
from fedbench.leaderboard.page.boards import Pool, rounded
from fedbench.leaderboard.sheets import hit_cut

METRICS = ("er", "er_peak", "hr", "hr_chosen", "ndcg_chosen", "hr_loss", "dr")
"""Of a run, for each K, from the views ``headline`` and ``untargeted_attacks``; the three before
the last by full ranking only."""

_CURVES = ("er", "hr")
_SCENARIO = ("dataset", "model", "attack", "defense", "malicious_ratio", "protocol", "target", "split", "attack_goal")
_PARAMS = ("attack_params", "defense_params", "model_params", "protocol_params")
_TWINS = ("clean_id", "undefended_id", "baseline_id")
_ORIGIN = (
    "attack_version", "defense_version", "model_version", "attack_source_hash", "defense_source_hash",
    "model_source_hash", "dataset_fingerprint", "fedbench_version", "torch_version", "numpy_version", "python_version",
    "platform", "device", "device_name", "threads", "git_commit", "git_dirty",
)  # fmt: skip


def records(database: Database) -> dict[str, Any]:
    """All runs with their scenarios.

    Returns:
        ``scenarios``: one object each; its parameters are places in ``params``, JSON texts. ``runs``: columns of equal
        length, a row a run, by run id; ``scenario`` and ``origin`` are places in ``scenarios`` and ``origins``.
    """
    fields = [*_SCENARIO, *_TWINS, "num_targets", "num_malicious"]
    params, origins = Pool(), Pool()
    # Of the first run of a scenario: what they have in common.
    scenarios = [
        {"id": row["scenario_id"]}
        | {name: row[name] for name in fields}
        | {"params": {name: params.add(row[name]) for name in _PARAMS}}
        for row in database.rows(
            f"select scenario_id, {', '.join((*fields, *_PARAMS))} from headline"
            " qualify row_number() over (partition by scenario_id order by run_id) = 1 order by run_id"
        )
    ]
    places = {each["id"]: place for place, each in enumerate(scenarios)}
    kinds = database.rows(f"select {', '.join(_ORIGIN)}, list(run_id) as ids from headline group by all")
    made_by = {run: n for n, row in enumerate(kinds) for run in row["ids"]}
    texts = [json.dumps({name: _short(name, row[name]) for name in _ORIGIN}) for row in kinds]
    columns = database.columns(
        "select run_id, scenario_id as scenario, seed, status, nullif(split_part(error, chr(10), 1), '') as error,"
        " epochs_done as epochs, epochs_planned as planned, suite, strftime(started_at, '%Y-%m-%d') as started, superseded"
        " from headline order by run_id"
    )
    columns["scenario"] = [places[each] for each in columns["scenario"]]
    columns["origin"] = [origins.add(texts[made_by[run]]) for run in columns.pop("run_id")]
    return {
        "scenarios": scenarios,
        "runs": columns,
        "params": params.values,
        "origins": [json.loads(text) for text in origins.values],
    }


def run_metrics(database: Database) -> list[list[float | int | None]]:
    """:data:`METRICS` of every run, by run id, for the list length of the database; those at the end of a row that are null
    are left out.
    """
    query = (
        "select h.er, h.er_peak, h.hr, case when h.ranking = 'full' then h.hr_chosen end as hr_chosen,"
        " case when h.ranking = 'full' then h.ndcg_chosen end as ndcg_chosen, u.hr_loss, h.dr"
        " from headline h left join untargeted_attacks u on u.run_id = h.run_id order by h.run_id"
    )
    found = database.columns(query)
    out = []
    for row in zip(*(_percents(found[name]) for name in METRICS), strict=True):
        values = list(row)
        while values and values[-1] is None:
            values.pop()
        out.append(values)
    return out


def curve_metrics(k: int) -> list[str]:
    """The metrics of evaluations that :func:`curves` reads."""
    h = hit_cut(k)
    return [f"er_{k}", f"hr_{h}", f"hr_full_{h}"]


def curves(database: Database, scenarios: Sequence[Mapping[str, Any]], k: int) -> dict[str, Any]:
    """Mean, lowest and highest value over the seeds of every scenario at each evaluation, of the runs that ended well.

    Returns:
        ``curves``: for each scenario None, or ``epochs``, ``seeds`` (how many runs) and, for ``er`` and ``hr`` if measured,
        ``[mean, low, high]`` in lists of length ``k``, or ``[mean]`` when all seeds agree; all places in ``series``. HR@K
        is against sampled negatives or by full ranking, as the protocol says.
    """
    h = hit_cut(k)
    measured = f"point.er_{k} as er, case when ranking = 'full' then point.hr_full_{h} else point.hr_{h} end as hr"
    sums = ", ".join(
        f"avg({name}) as {name}, min({name}) as {name}_low, max({name}) as {name}_high" for name in _CURVES
    )
    query = (
        f"select scenario_id, epoch, count(*) as seeds, {sums} from (select scenario_id, point.epoch as epoch, {measured}"
        " from (select scenario_id, ranking, unnest(curve) as point from runs where status = 'ok'))"
        " group by scenario_id, epoch order by scenario_id, epoch"
    )
    found = database.columns(query)
    values = {name: found[name] for name in ("epoch", "seeds")}
    values |= {name: _percents(found[name], 1) for name in found if name.startswith(_CURVES)}
    ends = dict[str, tuple[int, int]]()
    for place, scenario in enumerate(found["scenario_id"]):
        ends[scenario] = (ends.get(scenario, (place,))[0], place + 1)
    series = Pool()
    return {
        "curves": [
            _curve({name: values[name][slice(*ends[each["id"]])] for name in values}, series)
            if each["id"] in ends
            else None
            for each in scenarios
        ],
        "series": series.values,
    }


def _curve(points: Mapping[str, list[Any]], series: Pool) -> dict[str, Any]:
    out: dict[str, Any] = {"epochs": series.add(points["epoch"]), "seeds": max(points["seeds"])}
    for name in _CURVES:
        mean, low, high = (points[column] for column in (name, f"{name}_low", f"{name}_high"))
        if any(value is not None for value in mean):
            out[name] = [series.add(line) for line in ([mean] if low == high else [mean, low, high])]
    return out


def _short(name: str, value: Any) -> Any:
    """The first 12 digits of a hash, which tell apart what there is."""
    hashed = name.endswith(("_hash", "_fingerprint", "_commit"))
    return value[:12] if hashed and value else value


def _percents(values: Sequence[float | None], digits: int = 2) -> list[float | int | None]:
    return [None if value is None else rounded(100 * value, digits) for value in values]
