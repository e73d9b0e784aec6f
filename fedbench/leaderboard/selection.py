"""Which runs of the records are looked at: those that filters or a suite name, and the twins they are compared with."""

from __future__ import annotations

import fnmatch
import json
import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import duckdb
import pyarrow as pa

from fedbench.errors import UserError, unknown
from fedbench.runs.record import SUBGROUP_COLUMNS, schema
from fedbench.texts import count

Row = dict[str, Any]
Ask = Callable[..., list[Row]]
"""A query, and its parameters if it has any, to rows."""


def select(ask: Ask, connection: duckdb.DuckDBPyConnection, only: Sequence[str], suite: str | None) -> None:
    """Narrow the view ``records`` down to the chosen runs and their twins, which the others are compared with.

    Args:
        ask: for the rows of a query. connection: to the database of ``records``. only: ``key=glob`` filters; of the globs
            of a key any must fit, and all keys. suite: only its scenarios; None: all.

    Raises:
        UserError: for a column, parameter or suite that there is not, and where nothing is left.
    """
    wanted = _globs(only)
    ids = _scenarios(ask, suite) if suite else None
    if not wanted and ids is None:
        return
    columns = [
        name
        for name in schema().names
        if name
        not in (
            "curve",
            "uploads",
            "target_items",
            "target_places",
            *SUBGROUP_COLUMNS,
            "attack_knowledge",
            "defense_knowledge",
        )
    ]
    places = {key: _place(ask, key, columns) for key in wanted}
    keys = list(dict.fromkeys(["scenario_id", *(column for column, _ in places.values())]))
    listed = ", ".join(f'"{key}"' for key in keys)
    values = ask(f"select distinct {listed} from records")
    chosen = [
        row
        for row in values
        if (ids is None or row["scenario_id"] in ids)
        and all(any(_is_like(_at(row, places[key]), glob) for glob in globs) for key, globs in wanted.items())
    ]
    if not chosen:
        asked = [f"suite={suite}"] * (ids is not None) + [f"{key}={','.join(wanted[key])}" for key in wanted]
        made = 0 if ids is None else ask("select count(*) as runs from records where suite = ?", [suite])[0]["runs"]
        verb = "was" if made == 1 else "were"
        other = f" {count(made, 'run')} there {verb} made by it with other values, as of --set: leave out --suite."
        raise UserError(f"no run has {', '.join(asked)}.{other if made else ''}")
    connection.register("chosen_values", pa.Table.from_pylist(chosen))
    same = " and ".join(f'r."{key}" is not distinct from v."{key}"' for key in keys)
    connection.execute(
        f"create table kept as select r.* from records r where exists (select 1 from chosen_values v where {same})"
    )
    connection.execute(
        "insert into kept select r.* from records r where r.run_id not in (select run_id from kept) and exists ("
        " select 1 from kept k where r.seed = k.seed"
        " and r.scenario_id in (k.clean_id, k.undefended_id, k.baseline_id))"
    )
    connection.unregister("chosen_values")
    connection.execute("create or replace temp view records as select * from kept")


def _place(ask: Ask, key: str, columns: Sequence[str]) -> tuple[str, str | None]:
    """A column, and the field in it of ``protocol.learning_rate`` and its like, or of a protocol's field by itself.

    Raises:
        UserError: for what is neither.
    """
    if key in columns:
        return key, None
    kind, dot, field = key.partition(".")
    kind, field = (kind, field) if dot else ("protocol", key)
    column, fields = f"{kind}_params", set[str]()
    if column in columns:
        for row in ask(f'select distinct "{column}" as params from records'):
            fields |= set(json.loads(row["params"] or "{}"))
    if field in fields:
        return column, field
    if dot and column in columns:
        raise unknown(f"parameter in --only, of the {kind}s that were run:", field, fields)
    raise unknown("column in --only:", key, [*columns, *fields])


def _scenarios(ask: Ask, suite: str) -> set[str]:
    """Ids of the scenarios of a suite, whichever suite they were run for, since suites share scenarios.

    With those that have another entry in the place of the suite's own, as `fedbench run SUITE --attack FILE` makes
    them: run for this suite, or of an entry that does not come with fedbench. Of a suite that is not at hand, those
    that were run for it.
    """
    from fedbench.scenarios.suite import load_suite  # it imports torch, which nothing else here needs

    try:
        loaded = load_suite(suite)
    except UserError:
        ran = {row["scenario_id"] for row in ask("select scenario_id from records where suite = ?", [suite])}
        if not ran:
            raise
        return ran
    planned = [each.scenario for each in loaded.plan((), None)]
    found = {scenario.id for scenario in planned}
    cells = [json.loads(scenario.key) for scenario in planned]
    return found | _in_their_place(ask, loaded.name, cells, found)


def _in_their_place(ask: Ask, suite: str, cells: Sequence[Row], known: set[str]) -> set[str]:
    """Ids of the scenarios that are one of ``cells`` but for entries that none of these has."""
    from fedbench.plugins import KINDS, taken_by

    taken = cache(taken_by)
    own = {kind: {cell[kind] for cell in cells} for kind in KINDS}
    rest: dict[tuple[str, ...], set[str]] = {}
    found = set()
    for row in ask("select distinct scenario_id, scenario_json, suite from records"):
        if row["scenario_id"] in known:
            continue
        cell = json.loads(row["scenario_json"])
        others = tuple(kind for kind in KINDS if cell[kind] not in own[kind])
        if not others or (row["suite"] != suite and all(taken(k, part) for k in others for part in cell[k].split("+"))):
            continue
        if others not in rest:
            rest[others] = {_without(each, others) for each in cells}
        if _without(cell, others) in rest[others]:
            found.add(row["scenario_id"])
    return found


def _without(cell: Row, kinds: Sequence[str]) -> str:
    """A scenario but for these entries and their parameters, as text."""
    left_out = {name for kind in kinds for name in (kind, f"{kind}_params")}
    return json.dumps({key: value for key, value in cell.items() if key not in left_out}, sort_keys=True)


def _globs(only: Sequence[str]) -> dict[str, list[str]]:
    """``["dataset=ml-*,attack=a-ra,a-hum"]`` -> the globs of each column, of which any must fit, as ``run --only`` has it."""
    wanted: dict[str, list[str]] = {}
    for text in only:
        key = ""
        for part in text.split(","):
            name, equals, value = part.partition("=")
            key, glob = (name.strip(), value) if equals else (key, part)
            if not key or not glob.strip():
                raise UserError(f"--only {text!r} must be key=glob, such as dataset=ml-100k,attack=pieck-*.")
            wanted.setdefault(key, []).append(glob.strip())
    return wanted


def _at(row: Row, place: tuple[str, str | None]) -> object:
    """The value of a column, or of a field of one that holds parameters."""
    column, field = place
    return row[column] if field is None else json.loads(row[column] or "{}").get(field)


def _is_like(value: object, glob: str) -> bool:
    """Whether a value is what is asked for: numbers as numbers, ``.01`` being 0.01, all else as text."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return math.isclose(value, float(glob), rel_tol=1e-9)
        except ValueError:
            pass
    return fnmatch.fnmatchcase(_text(value), glob)


def _text(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else "" if value is None else str(value)
