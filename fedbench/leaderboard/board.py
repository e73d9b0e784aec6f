"""What a leaderboard holds: its tables, how to read them, what is lacking, and everything as plain data."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fedbench.entries.cards import Goal
from fedbench.leaderboard.database import Database
from fedbench.leaderboard.dose_board import dose_data, dose_sheets, dose_warnings
from fedbench.leaderboard.doubts import doubtful, pooled, superseded, without_popularity, without_score
from fedbench.leaderboard.findings import Finding, findings
from fedbench.leaderboard.loss_doses import loss_panels
from fedbench.leaderboard.notes import demotion_notes, dose_notes, targeted_notes, untargeted_notes, visual_notes
from fedbench.leaderboard.ranking_attacks import AttackRow, S, Standing, attack_cells, rank_attacks
from fedbench.leaderboard.ranking_defenses import DefenseRow, rank_defenses
from fedbench.leaderboard.ranking_demotion import demotion_cells, rank_demotion
from fedbench.leaderboard.ranking_untargeted import rank_untargeted, untargeted_cells
from fedbench.leaderboard.ranking_visual import rank_visual, visual_bounds, visual_cells
from fedbench.leaderboard.separation import Ranking, Separation
from fedbench.leaderboard.sheets import Sheet, beside, change, hit_cut, share
from fedbench.leaderboard.sheets_attacks import (
    attack_sheet,
    cell_sheets,
    demotion_sheet,
    untargeted_sheet,
    visual_sheet,
)
from fedbench.leaderboard.sheets_defenses import defense_sheet, matrix_sheet, under_sheet
from fedbench.leaderboard.sheets_doses import loss_dose_sheet
from fedbench.leaderboard.tracks import DEMOTION, TARGETED, UNTARGETED, VISUAL, Track
from fedbench.leaderboard.under_defenses import attacks_under_defenses

WITHIN = "Visual: attacks within eps "
"""Begins the title of a table of attacks with images in one bound."""


@dataclass(frozen=True)
class Board:
    """A whole leaderboard, ready to be shown: notes say how it was made, warnings what is lacking.

    ``tracks`` are those that it has attacks of; ``defenses`` are ranked in each of them; ``findings`` say it in
    sentences.
    """

    k: int
    count: int
    datasets: str
    sheets: list[Sheet]
    notes: list[str]
    warnings: list[str]
    data: dict[str, Any]
    defenses: list[DefenseRow]
    tracks: list[Track]
    findings: list[Finding]


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Without the collector of garbage: what a board is made of stays until it is made, and is much to look through."""
    on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if on:
            gc.enable()


@_uncollected()
def make_board(database: Database, by_model: bool = True) -> Board:
    """Rank what the database holds; ``by_model``: on each model, too, where there are several."""
    (head,) = database.rows("select count(*) n, string_agg(distinct dataset, ', ' order by dataset) d from runs")
    data: dict[str, Any] = {"k": database.k, "records": head["n"]}
    targeted = _targeted(database, data, by_model)
    others = [
        _untargeted(database, data, by_model),
        _visual(database, data, by_model),
        _demotion(database, data, by_model),
    ]
    # Without any attack it is a board of the targeted track, as it always was.
    parts = [part for part in (targeted, *others) if part.sheets] or [targeted]
    notes = list(dict.fromkeys(note for part in parts for note in part.notes)) + without_popularity(database)
    warnings = [
        *(text for part in parts for text in _lacking(part)),
        *dose_warnings(database),
        *_superseded(database, data),
        *without_score(database),
        *doubtful(database),
        *pooled(database),
    ]
    data["warnings"] = warnings
    sheets = [sheet for part in parts for sheet in part.sheets]
    defenses = [row for part in parts for row in part.defenses]
    tracks = [part.track for part in parts]
    found = findings(database)
    data["findings"] = _plain(found)
    return Board(database.k, head["n"], head["d"], sheets, notes, warnings, data, defenses, tracks, found)


@dataclass(frozen=True)
class _Part:
    """One track of a board."""

    track: Track
    attacks: Sequence[Standing]
    defenses: Sequence[DefenseRow]
    sheets: list[Sheet]
    notes: list[str]


def _targeted(database: Database, data: dict[str, Any], by_model: bool) -> _Part:
    k, h, models = database.k, hit_cut(database.k), _models(database, Goal.PROMOTE) if by_model else []
    title = f"Attacks by ER@{k}, without a defense"
    attacks, sheets = _attack_sheets(
        TARGETED,
        models,
        data,
        lambda model: rank_attacks(database, model=model),
        title,
        lambda name, rows: attack_sheet(name, rows, k),
    )
    cells = attack_cells(database)
    data["cells"] = _plain(cells)
    sheets += cell_sheets(cells, lambda cell: beside(share(cell.er), cell.hr), f"ER@{k}")
    defenses, more = _defense_sheets(
        database, TARGETED, attacks, models, data, f"Defenses by ER@{k} reduction minus HR@{h} loss", f"ER@{k}"
    )
    doses = dose_sheets(database)
    data |= dose_data(database)
    notes = [*(dose_notes(k) if doses else []), *targeted_notes(k, bool(defenses))]
    return _Part(TARGETED, attacks, defenses, doses + sheets + more, notes)


def _untargeted(database: Database, data: dict[str, Any], by_model: bool) -> _Part:
    k, h, models = database.k, hit_cut(database.k), _models(database, Goal.DEGRADE) if by_model else []
    title = f"Untargeted: attacks by loss of HR@{h}, without a defense"
    attacks, sheets = _attack_sheets(
        UNTARGETED, models, data, lambda model: rank_untargeted(database, model), title,
        lambda name, rows: untargeted_sheet(name, rows, k),
    )  # fmt: skip
    cells = untargeted_cells(database)
    data["untargeted_cells"] = _plain(cells)
    panels = loss_panels(database)
    data |= {"untargeted_doses": _plain(panels)} if panels else {}
    sheets += [loss_dose_sheet(panel, h) for panel in panels]
    sheets += cell_sheets(cells, lambda cell: beside(change(cell.loss), cell.hr), f"Untargeted: HR@{h} loss %")
    defenses, more = _defense_sheets(
        database,
        UNTARGETED,
        attacks,
        models,
        data,
        f"Untargeted: defenses by HR@{h} recovered minus cost",
        f"HR@{h} loss % left",
    )
    return _Part(UNTARGETED, attacks, defenses, sheets + more, untargeted_notes(h, bool(defenses)))


def _visual(database: Database, data: dict[str, Any], by_model: bool) -> _Part:
    """The track of models that read images; without runs of it the plain data are as they were before there was one."""
    k = database.k
    models = [row["model"] for row in database.rows("select distinct model from visual_attacks order by model")]
    if not models:
        return _Part(VISUAL, [], [], [], [])
    attacks, sheets = _attack_sheets(
        VISUAL,
        models if by_model else [],
        data,
        lambda model: rank_visual(database, model),
        f"Visual: attacks by ER@{k} at equal eps, without a defense",
        lambda name, rows: visual_sheet(name, rows, k),
    )
    within = {f"{eps:g}": rank_visual(database, None, eps) for eps in visual_bounds(database)}
    data["visual_attacks_within"] = {eps: _plain(rows) for eps, rows in within.items()}
    sheets += [visual_sheet(f"{WITHIN}{eps}", rows, k) for eps, rows in within.items()]
    cells = visual_cells(database)
    data["visual_cells"] = _plain(cells)
    sheets += cell_sheets(
        cells,
        lambda cell: beside(share(cell.er), cell.hr),
        f"Visual: ER@{k}",
        lambda cell: (cell.malicious_ratio, cell.eps or 0.0),
        "malicious ratio and eps",
    )
    defenses, more = _defense_sheets(
        database,
        VISUAL,
        attacks,
        models if by_model else [],
        data,
        f"Visual: defenses by ER@{k} reduction minus NDCG@20 loss %",
        f"ER@{k}",
    )
    return _Part(VISUAL, attacks, defenses, sheets + more, visual_notes(k, bool(defenses)))


def _demotion(database: Database, data: dict[str, Any], by_model: bool) -> _Part:
    """The track of attacks that demote; without runs of it the plain data are as they were before there was one."""
    k, h, models = database.k, hit_cut(database.k), _models(database, Goal.DEMOTE)
    if not models:
        return _Part(DEMOTION, [], [], [], [])
    attacks, sheets = _attack_sheets(
        DEMOTION,
        models if by_model else [],
        data,
        lambda model: rank_demotion(database, model),
        f"Demotion: attacks by DR@{k}, without a defense",
        lambda name, rows: demotion_sheet(name, rows, k),
    )
    cells = demotion_cells(database)
    data["demotion_cells"] = _plain(cells)
    sheets += cell_sheets(cells, lambda cell: beside(share(cell.dr), cell.hr), f"Demotion: DR@{k}")
    title = f"Demotion: defenses by DR@{k} reduction minus HR@{h} loss"
    defenses, more = _defense_sheets(database, DEMOTION, attacks, models if by_model else [], data, title, f"DR@{k}")
    return _Part(DEMOTION, attacks, defenses, sheets + more, demotion_notes(k, bool(defenses)))


def _models(database: Database, goal: Goal) -> list[str]:
    """Models that were attacked with that aim."""
    query = "select distinct model from attacks where attack_goal = ? order by model"
    return [row["model"] for row in database.rows(query, [str(goal)])]


def _attack_sheets(
    track: Track,
    models: Sequence[str],
    data: dict[str, Any],
    rank: Callable[[str | None], Ranking[S]],
    title: str,
    sheet: Callable[[str, Ranking[S]], Sheet],
) -> tuple[Ranking[S], list[Sheet]]:
    """Attacks on all models together and, where there are several, on each."""
    overall = rank(None)
    sheets = [sheet(title, overall)] if overall else []
    by_model = {model: rank(model) for model in models} if len(models) > 1 else {}
    sheets += [sheet(track.title(f"attacks on {model}"), rows) for model, rows in by_model.items() if rows]
    data[f"{track.key}attacks"] = _plain(overall)
    data[f"{track.key}attacks_by_model"] = {model: _plain(rows) for model, rows in by_model.items()}
    _note_separation(data, f"{track.key}attacks", overall, by_model)
    return overall, sheets


def _defense_sheets(
    database: Database,
    track: Track,
    attacks: Sequence[Standing],
    models: Sequence[str],
    data: dict[str, Any],
    title: str,
    measure: str,
) -> tuple[Sequence[DefenseRow], list[Sheet]]:
    """Defenses and attacks under them, of all models together and of each, and for each model attack x defense."""
    k, names = database.k, _UNTARGETED_NAMES if track == UNTARGETED else {}
    overall = rank_defenses(database, None, track)
    data[f"{track.key}defenses"] = _plain(overall, names)
    if not overall:
        return [], []
    under = attacks_under_defenses(database, None, track)
    tried = {row.attack for row in under}
    untried = [row.attack for row in attacks if row.attack not in tried]
    defended = [defense_sheet(title, overall, k, (), track, untried)]
    attacked = [under_sheet(track.title("attacks under defenses"), under, k, track)]
    defenses_by_model: dict[str, Ranking[DefenseRow]] = {}
    under_by_model: dict[str, Any] = {}
    matrices = []
    listed = [run for row in overall for run in row.runs]
    for model in models:
        own, below = (overall, under) if len(models) == 1 else (rank_defenses(database, model, track), None)
        if below is None:
            below = attacks_under_defenses(database, model, track)
            if own:
                defended.append(defense_sheet(track.title(f"defenses on {model}"), own, k, listed, track))
                attacked.append(under_sheet(track.title(f"attacks under defenses, {model}"), below, k, track))
            defenses_by_model[model] = own
            under_by_model[model] = _plain(below, names)
        if own:
            name = track.title(f"{measure} on {model}, attack by defense")
            matrices.append(matrix_sheet(name, below, [row.defense for row in own]))
    data[f"{track.key}attacks_under_defenses"] = _plain(under, names)
    data[f"{track.key}defenses_by_model"] = {model: _plain(rows, names) for model, rows in defenses_by_model.items()}
    _note_separation(data, f"{track.key}defenses", overall, defenses_by_model)
    data[f"{track.key}attacks_under_defenses_by_model"] = under_by_model
    return overall, [*defended, *(attacked if track.exposes else []), *matrices]


def _note_separation(
    data: dict[str, Any], table: str, overall: Ranking[Any], by_model: Mapping[str, Ranking[Any]]
) -> None:
    """What separates the entries of a table and of those of each model, as plain data by the tables' keys."""
    for key, read in _SEPARATION.items():
        found = data.setdefault(key, {})
        found[table] = read(overall.separation)
        found[f"{table}_by_model"] = {model: read(rows.separation) for model, rows in by_model.items()}


def _lacking(part: _Part) -> list[str]:
    """Scenarios, seeds and clean twins that entries lack, and scenarios that they have beyond the comparison."""
    out = []
    named: list[tuple[str, str, Standing | DefenseRow]] = [("attacks", row.attack, row) for row in part.attacks]
    named += [("defenses", row.defense, row) for row in part.defenses]
    for kind, entry, row in named:
        name = part.track.prefix + entry
        if row.unverified:
            out.append(
                f"{name} does not come with fedbench and has runs in process, where its code could reach the results: shown,"
                " not ranked. `fedbench run --isolated` and `fedbench verify` make runs that are."
            )
        if row.missing:
            out.append(f"{name} lacks {_scenarios(len(row.missing))}: {_first(row.missing)}.")
        if row.lacking:
            out.append(f"{name} lacks seeds that at least half of the {kind} ran there: {_first(row.lacking)}.")
        if isinstance(row, AttackRow) and row.unpaired:
            out.append(f"{name}: the HR change is without {row.unpaired} of its runs, which have no clean twin.")
        if row.apart:
            out.append(
                f"{name} ran {_scenarios(row.apart)} more, which fewer than half of the {kind} ran: not compared."
            )
    return out


def _first(texts: Sequence[str], count: int = 6) -> str:
    more = f"; and {len(texts) - count} more" if len(texts) > count else ""
    return "; ".join(texts[:count]) + more


def _superseded(database: Database, data: dict[str, Any]) -> list[str]:
    """A sentence on each of :func:`superseded`."""
    data["superseded"] = superseded(database)
    return [
        f"superseded: {each['runs']} {'run' if each['runs'] == 1 else 'runs'} of version {each['version']} of the"
        f" {each['kind']} {each['name']}, whose newest is {each['newest']}: not ranked."
        for each in data["superseded"]
    ]


def _scenarios(count: int) -> str:
    return "1 scenario" if count == 1 else f"{count} scenarios"


_SEPARATION: dict[str, Callable[[Separation], Any]] = {
    "resolution": lambda told: told.resolution,
    "pairs": lambda told: [
        {"one": one, "other": other, "difference": each.estimate, "low": each.low, "high": each.high, "p": p}
        for (one, other), (each, p) in told.pairs.items()
    ],
}
"""What goes into the plain data of a table beside its rows; p is Holm's."""

_UNTARGETED_NAMES = {"er": "left", "er_end": "left_end", "reduction": "recovered", "loss": "cost", "cost": "round_ms"}
"""What the fields of defenses' rows are called in the untargeted track."""


def _plain(value: Any, names: Mapping[str, str] | None = None) -> Any:
    """Rows as plain data; ``names`` replaces those of their fields."""
    names = names or {}
    if isinstance(value, Ranking):
        return _plain(value.rows, names)
    if dataclasses.is_dataclass(value):
        return {names.get(f.name, f.name): _plain(getattr(value, f.name), names) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {key: _plain(each, names) for key, each in value.items()}
    if isinstance(value, list) and value and isinstance(value[0], str):
        return list(value)  # the many run ids
    return [_plain(each, names) for each in value] if isinstance(value, list | tuple) else value
