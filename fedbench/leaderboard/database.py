"""The records of results folders as DuckDB views."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from fedbench.errors import UserError
from fedbench.leaderboard.displaced import with_displacement
from fedbench.leaderboard.one_data import of_one_data
from fedbench.leaderboard.popularity import POPULARITY, popularity_beside
from fedbench.leaderboard.selection import select
from fedbench.runs.record import schema
from fedbench.runs.results import Found, no_results, scan

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
        select(self.rows, self.connection, only, suite)
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
