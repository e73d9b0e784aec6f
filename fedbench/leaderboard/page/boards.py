"""The boards that the page's filters choose from: one for each list length and each choice of dataset and model.

The page only looks them up. Numbers are those of :func:`~fedbench.leaderboard.board.make_board`, rounded to three decimals.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fedbench.leaderboard.board import WITHIN, Board, make_board
from fedbench.leaderboard.database import Database
from fedbench.leaderboard.paired import ALPHA
from fedbench.leaderboard.ranking_defenses import pareto_front
from fedbench.leaderboard.sheets import rank_text
from fedbench.leaderboard.tracks import TARGETED, TRACKS, VISUAL, Track

FILTERS = ("dataset", "model")
"""Columns whose values can be chosen; the first choice of each is everything."""
MOST_RUNS = 200_000
"""Runs of all boards together: what a page of 100,000 records can rank in seconds. Choices beyond are not offered."""


class Pool:
    """Values that many places name, kept once: ``add`` gives the place of a value in ``values``."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self._places: dict[Hashable, int] = {}

    def add(self, value: Any) -> int:
        key = tuple(value) if isinstance(value, list) else value
        if key not in self._places:
            self._places[key] = len(self.values)
            self.values.append(value)
        return self._places[key]


@dataclass
class Shared:
    """What the boards have in common.

    Attributes:
        runs: place of every run id in the table of runs. lists: lists of such places. texts: lists of sentences.
    """

    runs: Mapping[str, int]
    lists: Pool = field(default_factory=Pool)
    texts: Pool = field(default_factory=Pool)


def choices(database: Database) -> list[dict[str, Any]]:
    """Every choice of the filters that leaves attacked runs.

    Returns:
        ``only``: column and value of the choice. ``same``: place of the first choice that leaves the same runs (a dataset
        that was run on one model, with and without that model), whose boards serve for this one. ``runs``: how many.
    """
    listed = ", ".join(FILTERS)
    query = f"select {listed}, count(*) as n from runs where attack <> 'none' group by all order by all"
    there = {tuple(row.values())[:-1]: row["n"] for row in database.rows(query)}
    values = [[None, *sorted({place[n] for place in there})] for n in range(len(FILTERS))]
    first: dict[frozenset[tuple[Any, ...]], int] = {}
    out: list[dict[str, Any]] = []
    for choice in itertools.product(*values):
        left = frozenset(
            place for place in there if all(want in (None, has) for want, has in zip(choice, place, strict=True))
        )
        if left:
            only = {name: value for name, value in zip(FILTERS, choice, strict=True) if value is not None}
            runs = sum(there[place] for place in left)
            out.append({"only": only, "same": first.setdefault(left, len(out)), "runs": runs})
    return out


def offered(found: Sequence[Mapping[str, Any]], start: int, lengths: Sequence[int]) -> dict[int, set[int]]:
    """For each list length the places of the choices whose boards are made.

    First everything for the length ``start``, which there always is, then the other choices for it, then everything for the
    other lengths, then the rest: each only when all of it keeps the runs of all boards within :data:`MOST_RUNS`.
    """
    own = [place for place, choice in enumerate(found) if choice["same"] == place]
    made: dict[int, set[int]] = {k: set() for k in lengths}
    left = MOST_RUNS
    others = [k for k in lengths if k != start]
    for group, places in (([start], own[:1]), ([start], own[1:]), (others, own[:1]), (others, own[1:])):
        runs = len(group) * sum(found[place]["runs"] for place in places)
        if runs <= left or not made[start]:
            left -= runs
            for k in group:
                made[k].update(places)
    return made


def chosen_boards(
    database: Database, found: Sequence[Mapping[str, Any]], made: set[int], shared: Shared, whole: Board | None
) -> list[Any]:
    """The board of each choice in ``made``, None for the others; ``whole``: that of everything, where it is there."""
    return [
        plain_board(
            whole if whole and not choice["only"] else make_board(database.part(choice["only"]), by_model=False), shared
        )
        if place in made
        else None
        for place, choice in enumerate(found)
    ]


def plain_board(board: Board, shared: Shared) -> dict[str, Any]:
    """A board's data as the page has it.

    Means with intervals become ``[mean, low, high, n]``, run ids and sentences places in the shared lists, and of attacks
    under defenses only what the heat map shows is kept. Added are, to every row of a ranking, ``place`` (its ranks as text),
    ``number`` (its place in the order) and ``above`` (whom it is significantly better than); and for every ranking its
    ``captions``, and of defenses the ``front``: the line through the Pareto front, ``[[loss, reduction], ...]`` by rising
    loss, of the ranked ones and of having none.
    """
    data = board.data
    out: dict[str, Any] = {"captions": _captions(board), "warnings": shared.texts.add(list(data["warnings"]))}
    for track in TRACKS:
        if f"{track.key}attacks" not in data:
            continue
        for table in ("attacks", "defenses"):
            key = track.key + table
            rows = where_values_put_them(data[key], track, table)
            out[key] = _plain(_ranked(rows, table[:-1], data["pairs"].get(key, [])), shared)
        out[f"{track.key}cells"] = _plain(data[f"{track.key}cells"], shared)
        under = data.get(f"{track.key}attacks_under_defenses", [])
        out[f"{track.key}attacks_under_defenses"] = [_under(row, track, shared) for row in under]
        prevented = "reduction" if track.exposes else "recovered"
        ranked = [row for row in data[f"{track.key}defenses"] if row["rank"] is not None]
        points = [(row[prevented]["mean"], row["paid"]["mean"]) for row in ranked] + [(0.0, 0.0)]
        front = {point for point, best in zip(points, pareto_front(points), strict=True) if best}
        out[f"{track.key}front"] = _plain(sorted((cost, gain) for gain, cost in front), shared)
    if (within := data.get("visual_attacks_within")) is not None:
        out["visual_attacks_within"] = {
            eps: _plain(_ranked(where_values_put_them(rows, VISUAL, "attacks"), "attack", ()), shared)
            for eps, rows in within.items()
        }
    return out


def _captions(board: Board) -> dict[str, str]:
    """What the runs of each ranking can tell apart, by the ranking's key, of one within a bound with that bound.

    That of ``doses`` is of all boards together where there are several.
    """
    out: dict[str, str] = {}
    for sheet in board.sheets:
        if any("dose" in heading for heading in sheet.headings):
            out.setdefault("doses", sheet.caption)
        elif sheet.caption:
            track = next((track for track in TRACKS if track.prefix and sheet.title.startswith(track.prefix)), TARGETED)
            bound = sheet.title.removeprefix(WITHIN) if sheet.title.startswith(WITHIN) else ""
            # The first is that of all models together.
            out.setdefault(f"{track.key}{sheet.headings[1]}s{f'_within {bound}' if bound else ''}", sheet.caption)
    return out


def where_values_put_them(rows: Sequence[Mapping[str, Any]], track: Track, table: str) -> list[Mapping[str, Any]]:
    """The ranked rows in their order, and each of the others before the first of these whose value is below its own."""
    out = [(_value(row, track, table), row) for row in rows if row["rank"] is not None]
    others = [(_value(row, track, table), row) for row in rows if row["rank"] is None]
    for own, row in sorted(others, key=lambda pair: pair[0]):
        out.insert(next((n for n, (value, _) in enumerate(out) if value < own), len(out)), (own, row))
    return [row for _, row in out]


def _value(row: Mapping[str, Any], track: Track, table: str) -> float:
    """What rows of a ranking are ordered by; the least there is without a value."""
    if table == "defenses":
        found = row["net"]
    else:
        estimate = row[{"": "er", "visual_": "er", "demotion_": "dr"}.get(track.key, "loss")]
        found = estimate and estimate["mean"]
    return -math.inf if found is None else found


def _ranked(rows: Sequence[Mapping[str, Any]], kind: str, pairs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    above: dict[str, list[str]] = {row[kind]: [] for row in rows}
    for pair in pairs:
        if pair["p"] <= ALPHA and pair["difference"]:
            better, worse = ("one", "other") if pair["difference"] > 0 else ("other", "one")
            above[pair[better]].append(pair[worse])
    return [
        {key: value for key, value in row.items() if key not in ("assumes", "goal")}
        | {"place": rank_text(row["rank"], row["last_rank"]), "number": number, "above": above[row[kind]]}
        for number, row in enumerate(rows, 1)
    ]


def _under(row: Mapping[str, Any], track: Track, shared: Shared) -> dict[str, Any]:
    """An attack's row of the heat map; ``under``: by defense, what is left, its cost, its net, its runs, and HR@K."""
    left, cost = ("er", "loss") if track.exposes else ("left", "cost")
    return {
        "attack": row["attack"],
        "left": _plain(row[left], shared),
        "hr": _plain(row["hr"], shared),
        "scenarios": row["scenarios"],
        "under": {
            name: [
                *(_plain(each[key], shared) for key in (left, cost, "net")),
                _plain(each["runs"], shared, "runs"),
                _plain(each["hr"], shared),
            ]
            for name, each in row["under"].items()
        },
    }


def _plain(value: Any, shared: Shared, key: str = "") -> Any:
    if isinstance(value, float):
        return rounded(value)
    if isinstance(value, Mapping):
        if set(value) == {"mean", "low", "high", "n"}:
            return [rounded(value["mean"]), rounded(value["low"]), rounded(value["high"]), value["n"]]
        return {name: _plain(each, shared, name) for name, each in value.items()}
    if isinstance(value, list | tuple):
        if key == "runs":
            return shared.lists.add([shared.runs[run] for run in value])
        if key in ("missing", "apart", "above"):
            return shared.texts.add(list(value))
        return [_plain(each, shared) for each in value]
    return value


def rounded(value: float | None, digits: int = 3) -> float | int | None:
    """``value`` to so many decimals, without a fraction or a sign where there is none: 0 and not -0.0.

    None stays, and becomes of what is no number: JSON has none, and the page shows it as missing.
    """
    if value is None or not math.isfinite(value):
        return None
    near = round(value, digits)
    return int(near) if near == int(near) else near
