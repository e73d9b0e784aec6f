"""The records of results folders as DuckDB views."""

from __future__ import annotations

import fnmatch
import functools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from fedbench.errors import UserError, unknown
from fedbench.leaderboard.displaced import with_displacement
from fedbench.leaderboard.popularity import POPULARITY, popularity_beside
from fedbench.runs.record import SUBGROUP_COLUMNS, schema
from fedbench.runs.results import Found, no_results, scan
from fedbench.texts import count

Row = dict[str, Any]
_QUERIES = (duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN)
T = TypeVar("T")
VIEWS = (
    "runs", "headline", "curves", "attacks", "defenses", "quality", "untargeted_attacks", "untargeted_defenses",
    "visual_attacks", "visual_defenses", "demotion_attacks", "demotion_defenses",
)  # fmt: skip
MEMORY = "4GB"
"""What a query may take."""
MOST_BYTES = 1 << 31
"""Of an answer."""
LENGTHS = (5, 10, 20, 30)
"""The list lengths K at which exposure is measured."""


class Database:
    """All whole records as the views ``runs``, ``headline``, ``curves``, ``attacks``, ``defenses``, ``quality``,
    ``untargeted_attacks``, ``untargeted_defenses``, ``visual_attacks``, ``visual_defenses``, ``demotion_attacks`` and
    ``demotion_defenses``.

    Everything is read into memory first; after that the connection can neither read nor write a file. A run that several
    files hold counts once: the newest record that did not fail.

    Args:
        folders: results folders. k: list length K of the headline columns. only: ``key=glob`` filters on runs; the
            twins of selected runs stay, since the others are compared with them. suite: only its scenarios.
        curves: which metrics of the evaluations during training, most of a record, to keep: all, or these; False: none,
            and the view ``curves`` is empty.
        mixed: keep runs on other data than the newest of their dataset, too; they are no pairs, and nothing is to be ranked.

    Raises:
        ResultsError: when there is no whole record. UserError: for a filter that makes no sense.
    """

    def __init__(
        self,
        folders: Sequence[Path],
        k: int = 10,
        only: Sequence[str] = (),
        suite: str | None = None,
        curves: bool | Sequence[str] = True,
        mixed: bool = False,
    ) -> None:
        if k not in LENGTHS:
            raise UserError(f"K = {k} is not measured; use 5, 10, 20 or 30.")
        self.k = k
        found = scan(folders, curves)
        if not found.files:
            raise no_results(folders, found)
        table, self.left_out = (found.table, []) if mixed else of_one_data(found.table)
        self.found: Found = replace(found, table=schema().empty_table())
        self.connection = _connect()
        self._kept: dict[object, Any] = {}
        self._load(table)
        self._select(only, suite)
        self._mark()
        self._view()

    def _load(self, read: pa.Table) -> None:
        """The view ``records`` of what was read."""
        self.connection.register("read", with_displacement(read, LENGTHS))
        types = self.connection.execute("select column_name, column_type from (describe read)").fetchall()
        columns = {name: _column(name, kind) for name, kind in types}
        source = "read"
        popularity = popularity_beside(self.found.files)
        if len(popularity):
            self.connection.register("known", popularity)
            columns |= {name: f"coalesce({columns[name]}, known.{name})" for name in POPULARITY}
            source += " left join known on known.run = baseline_id || '-s' || seed"
        listed = ", ".join(f'{column} as "{name}"' for name, column in columns.items())
        self.connection.execute(f"create temp view records as select {listed} from {source}")

    def _mark(self) -> None:
        """The table ``marked`` of ``records``, which are let go."""
        self.connection.execute(_sql("marked.sql"))
        self.connection.execute("drop view if exists temp.records; drop table if exists kept")
        for name in ("records", "read", "known"):
            self.connection.unregister(name)

    def _view(self) -> None:
        """Make the views, and lock everything."""
        self.connection.execute(_sql("views.sql").replace("$K", str(self.k)).replace("$H", str(min(self.k, 20))))
        self.connection.execute("set lock_configuration = true")

    def rows(self, query: str, parameters: Sequence[Any] = ()) -> list[Row]:
        """The rows of a query as dictionaries.

        Raises:
            UserError: when DuckDB refuses the query; its message on one line.
        """
        columns = self.columns(query, parameters)
        names = list(columns)
        return [dict(zip(names, row, strict=True)) for row in zip(*columns.values(), strict=True)]

    def columns(self, query: str, parameters: Sequence[Any] = ()) -> dict[str, list[Any]]:
        """The result of a query column by column; errors as in :meth:`rows`."""
        table = self.table(query, parameters)
        return {name: _values(table[name]) for name in table.column_names}

    def kept(self, key: object, make: Callable[[], T]) -> T:
        """What ``make`` returns, which is called once for each key; it is shared and not to be changed."""
        if key not in self._kept:
            self._kept[key] = make()
        made: T = self._kept[key]
        return made

    def table(self, query: str, parameters: Sequence[Any] = ()) -> pa.Table:
        """The result of a query as an Arrow table; errors as in :meth:`rows`."""
        try:
            kinds = [statement.type for statement in self.connection.extract_statements(query)]
            if len(kinds) != 1 or kinds[0] not in _QUERIES:
                what = ", ".join(kind.name for kind in kinds) or "nothing"
                raise UserError(f"SQL: only one query that reads can be asked (SELECT, DESCRIBE, EXPLAIN), not {what}.")
            return _bounded(self.connection.sql(query, params=list(parameters)))
        except duckdb.Error as error:
            text = " ".join(str(error).split())
            if "Table with name" in text:  # DuckDB would suggest a table of its own
                text = f"{text.partition(' Did you mean')[0]} The views are {', '.join(VIEWS)}."
            raise UserError(f"SQL: {text}") from None

    def at(self, k: int) -> Database:
        """The same runs with lists of length ``k``; no file is read again."""
        made = self._sibling(k)
        made.connection.register("marked", self.table("select * from marked"))
        made._view()
        return made

    def without_seed(self, seed: int) -> Database:
        """The runs of all other seeds; no file is read again."""
        made = self._sibling(self.k)
        made.connection.register("records", self.table("select * from runs where seed <> ?", [seed]))
        made._mark()
        made._view()
        return made

    def part(self, only: Mapping[str, object]) -> Database:
        """What a database of the same files holds whose runs have the values of ``only``; no file is read again.

        It has ``runs`` and ``headline``, without curves, and the views of attacks and defenses. In these every run stands
        beside its twins already, so they need no more than to be filtered. What a newer version supersedes anywhere is
        superseded here, too.

        Args:
            only: column and value; empty for everything.
        """
        made = self._sibling(self.k)
        for name, table in self._ranked.items():
            chosen = table
            for column, value in only.items():
                chosen = chosen.filter(pc.field(column) == value)
            if name == "headline":
                chosen = _with_twins(table, chosen)
                made.connection.register("runs", chosen)
            made.connection.register(name, chosen)
        made.connection.execute("set lock_configuration = true")
        return made

    def _sibling(self, k: int) -> Database:
        """A database of the same files, for lists of length ``k``, with nothing in it yet."""
        made = object.__new__(Database)
        made.k, made.found, made.connection, made._kept = k, self.found, _connect(), {}
        made.left_out = self.left_out
        return made

    @functools.cached_property
    def _ranked(self) -> dict[str, pa.Table]:
        """What rankings read."""
        views = [
            f"{track}{kind}"
            for track in ("", "untargeted_", "visual_", "demotion_")
            for kind in ("attacks", "defenses")
        ]
        tables = {name: self.table(f"select * from {name} order by run_id") for name in views}
        return tables | {"headline": self.table("select * from headline order by run_id")}

    def _select(self, only: Sequence[str], suite: str | None) -> None:
        wanted = _globs(only)
        ids = self._scenarios(suite) if suite else None
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
        places = {key: self._place(key, columns) for key in wanted}
        keys = list(dict.fromkeys(["scenario_id", *(column for column, _ in places.values())]))
        listed = ", ".join(f'"{key}"' for key in keys)
        values = self.rows(f"select distinct {listed} from records")
        chosen = [
            row
            for row in values
            if (ids is None or row["scenario_id"] in ids)
            and all(any(_is_like(_at(row, places[key]), glob) for glob in globs) for key, globs in wanted.items())
        ]
        if not chosen:
            asked = [f"suite={suite}"] * (ids is not None) + [f"{key}={','.join(wanted[key])}" for key in wanted]
            raise UserError(f"no run has {', '.join(asked)}.")
        self.connection.register("chosen_values", pa.Table.from_pylist(chosen))
        same = " and ".join(f'r."{key}" is not distinct from v."{key}"' for key in keys)
        self.connection.execute(
            f"create table kept as select r.* from records r where exists (select 1 from chosen_values v where {same})"
        )
        self.connection.execute(
            "insert into kept select r.* from records r where r.run_id not in (select run_id from kept) and exists ("
            " select 1 from kept k where r.seed = k.seed"
            " and r.scenario_id in (k.clean_id, k.undefended_id, k.baseline_id))"
        )
        self.connection.unregister("chosen_values")
        self.connection.execute("create or replace temp view records as select * from kept")

    def _place(self, key: str, columns: Sequence[str]) -> tuple[str, str | None]:
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
            for row in self.rows(f'select distinct "{column}" as params from records'):
                fields |= set(json.loads(row["params"] or "{}"))
        if field in fields:
            return column, field
        if dot and column in columns:
            raise unknown(f"parameter in --only, of the {kind}s that were run:", field, fields)
        raise unknown("column in --only:", key, [*columns, *fields])

    def _scenarios(self, suite: str) -> set[str]:
        """Ids of the scenarios of a suite, whichever suite they were run for, since suites share scenarios.

        With those that have another entry in the place of the suite's own, as `fedbench run SUITE --attack FILE` makes
        them: run for this suite, or of an entry that does not come with fedbench. Of a suite that is not at hand, those
        that were run for it.
        """
        from fedbench.scenarios.suite import load_suite  # it imports torch, which nothing else here needs

        try:
            loaded = load_suite(suite)
        except UserError:
            ran = {row["scenario_id"] for row in self.rows("select scenario_id from records where suite = ?", [suite])}
            if not ran:
                raise
            return ran
        planned = [each.scenario for each in loaded.plan((), None)]
        found = {scenario.id for scenario in planned}
        cells = [json.loads(scenario.key) for scenario in planned]
        return found | self._in_their_place(loaded.name, cells, found)

    def _in_their_place(self, suite: str, cells: Sequence[Row], known: set[str]) -> set[str]:
        """Ids of the scenarios that are one of ``cells`` but for entries that none of these has."""
        from fedbench.plugins import KINDS, taken_by

        own = {kind: {cell[kind] for cell in cells} for kind in KINDS}
        rest: dict[tuple[str, ...], set[str]] = {}
        found = set()
        for row in self.rows("select distinct scenario_id, scenario_json, suite from records"):
            if row["scenario_id"] in known:
                continue
            cell = json.loads(row["scenario_json"])
            others = tuple(kind for kind in KINDS if cell[kind] not in own[kind])
            if not others or (
                row["suite"] != suite and all(taken_by(k, part) for k in others for part in cell[k].split("+"))
            ):
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


def _with_twins(runs: pa.Table, chosen: pa.Table) -> pa.Table:
    """The chosen ones of ``runs``, and those that they are compared with."""
    kept = set(chosen["run_id"].to_pylist())
    for twin in ("clean_id", "undefended_id", "baseline_id"):
        pairs = zip(chosen[twin].to_pylist(), chosen["seed"].to_pylist(), strict=True)
        kept |= {f"{scenario}-s{seed}" for scenario, seed in pairs}
    return runs.filter(pc.field("run_id").isin(list(kept)))


def _bounded(answer: duckdb.DuckDBPyRelation) -> pa.Table:
    """An answer as a table; raises :class:`UserError` when it is larger than memory should hold."""
    reader = answer.to_arrow_reader()
    batches, size = [], 0
    for batch in reader:
        batches.append(batch)
        size += batch.nbytes
        if size > MOST_BYTES:
            raise UserError(
                f"SQL: the answer is larger than {MOST_BYTES >> 30} GiB; add a limit, or ask for fewer columns."
            )
    return pa.Table.from_batches(batches, reader.schema)


def _connect() -> duckdb.DuckDBPyConnection:
    """A connection that sees neither files nor the network nor Python's variables, in this and no local time zone.

    Without a folder to spill to, what takes more memory than it may have is refused.
    """
    made = duckdb.connect(config={"memory_limit": MEMORY, "temp_directory": "", "python_enable_replacements": False})
    made.execute(
        "set autoinstall_known_extensions = false; set autoload_known_extensions = false;"
        " set TimeZone = 'UTC'; set enable_external_access = false"
    )
    return made


def of_one_data(records: pa.Table) -> tuple[pa.Table, list[str]]:
    """The records but for those made on other data than the newest of their dataset and split, and what was left out.

    Data that are imported again under their name give other numbers: such runs are no pairs. Where a split is drawn by the
    seed, every seed has data of its own; it is not where two seeds have the same.
    """
    key = ["dataset", "split", "protocol_params", "seed", "dataset_fingerprint"]
    table = records.select([*key, "started_at"]).append_column("number", pa.array(range(len(records)), pa.int64()))
    counts = (pc.field("dataset_fingerprint") != "") & (pc.field("status") != "failed")
    measured = table.append_column("status", records["status"]).filter(counts)
    grouped = measured.group_by(key).aggregate([("started_at", "max"), ("number", "min"), ("number", "count")])
    places: dict[tuple[str, str, str], list[Row]] = {}
    for row in grouped.sort_by("number_min").to_pylist():
        duplicates = str(json.loads(row["protocol_params"]).get("duplicates"))
        places.setdefault((row["dataset"], row["split"], duplicates), []).append(row)
    out, told = [], []
    for (dataset, split, _), found in sorted(places.items(), key=lambda item: item[0]):
        seeds: dict[str, set[int]] = {}
        for row in found:
            seeds.setdefault(row["dataset_fingerprint"], set()).add(row["seed"])
        by_seed = all(len(own) == 1 for own in seeds.values())
        groups: dict[object, list[Row]] = {}
        for row in found:
            groups.setdefault(row["seed"] if by_seed else None, []).append(row)
        for group in groups.values():
            latest: dict[str, datetime] = {}
            for row in group:
                data = row["dataset_fingerprint"]
                latest[data] = max(latest.get(data, row["started_at_max"]), row["started_at_max"])
            newest = max(latest, key=lambda data: latest[data])
            others = [row for row in group if row["dataset_fingerprint"] != newest]
            if others:
                out += others
                told.append(
                    f"{count(sum(row['number_count'] for row in others), 'run')} on {dataset} ({split}) left out: made on"
                    f" other data ({', '.join(sorted({row['dataset_fingerprint'][:8] for row in others}))}) than the newest"
                    f" ({newest[:8]}); `fedbench run` runs such again."
                )
    if out:
        left_out = {tuple(row[name] for name in key) for row in out}
        rows = zip(*(measured[name].to_pylist() for name in (*key, "number")), strict=True)
        numbers = [number for *own, number in rows if tuple(own) in left_out]
        records = records.filter(pc.invert(pc.is_in(table["number"], pa.array(numbers))))
    return records, told


def _sql(name: str) -> str:
    return resources.files("fedbench.leaderboard").joinpath(name).read_text(encoding="utf-8")


def _column(name: str, kind: str) -> str:
    """A column of ``records``; a metric that is not finite, which no run writes, is missing instead of the highest."""
    return f'case when isfinite(read."{name}") then read."{name}" end' if kind == "DOUBLE" else f'read."{name}"'


def _values(column: pa.ChunkedArray) -> list[Any]:
    """A column as Python values; equal texts are one object, which is made and hashed once."""
    array = column.combine_chunks()
    if pa.types.is_string(array.type):
        coded = array.dictionary_encode()
        texts = [*coded.dictionary.to_pylist(), None]
        return [texts[code] for code in coded.indices.fill_null(-1).to_numpy().tolist()]
    if not pa.types.is_integer(array.type) and not pa.types.is_floating(array.type):
        return list(array.to_pylist())
    values: list[Any] = array.fill_null(0).to_numpy().tolist()
    for place in pc.indices_nonzero(array.is_null()).to_pylist():
        values[place] = None
    return values


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
