"""Everything that the page shows, as plain data."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import fedbench
from fedbench.leaderboard.board import Board, make_board
from fedbench.leaderboard.database import LENGTHS, Database
from fedbench.leaderboard.doubts import superseded
from fedbench.leaderboard.notes import demotion_notes, targeted_notes, untargeted_notes, visual_notes
from fedbench.leaderboard.page.boards import FILTERS, Shared, choices, chosen_boards, offered, rounded
from fedbench.leaderboard.page.cards import cards
from fedbench.leaderboard.page.runs import METRICS, curves, records, run_metrics
from fedbench.leaderboard.references import cited_by
from fedbench.leaderboard.sheets import hit_cut


def page_data(
    database: Database, command: str = "fedbench leaderboard --html=DIR", board: Board | None = None
) -> dict[str, Any]:
    """What the page of these records holds; equal records give equal data.

    Args:
        database: the records. command: how to make the page again. board: of the records, where it is made already.
    """
    found = choices(database)
    board = board or make_board(database)
    made = offered(found, database.k, LENGTHS)
    table = records(database)
    runs = table["runs"]
    ids = [
        f"{table['scenarios'][place]['id']}-s{seed}" for place, seed in zip(runs["scenario"], runs["seed"], strict=True)
    ]
    shared = Shared({run: place for place, run in enumerate(ids)})
    boards: dict[str, list[Any]] = {}
    metrics: dict[str, list[list[float | int | None]]] = {}
    for k in LENGTHS:
        at = database if k == database.k else database.at(k)
        boards[str(k)] = chosen_boards(at, found, made[k], shared, board if k == database.k else None)
        metrics[str(k)] = run_metrics(at)
    data = {
        "options": {
            "k": list(LENGTHS),
            "h": {str(k): hit_cut(k) for k in LENGTHS},
            **{name: sorted({choice["only"][name] for choice in found if name in choice["only"]}) for name in FILTERS},
        },
        "start": {"k": database.k},
        "findings": _with_places(board.data.get("findings", []), shared),
        "doses": _with_places(board.data.get("doses"), shared),
        "prices": _with_places(board.data.get("prices", []), shared),
        "choices": found,
        "boards": boards,
        "lists": shared.lists.values,
        "texts": shared.texts.values,
        "notes": {str(k): _notes(database, k) for k in LENGTHS},
        **table,
        "metrics": metrics,
        "metric_names": METRICS,
        **curves(database, table["scenarios"], database.k),
        **_cards(database),
        "superseded": superseded(database),
    }
    return {"about": _about(database, command, data)} | data


def _cards(database: Database) -> dict[str, Any]:
    """The cards of the methods, with the keys of the papers that they name, and these papers as BibTeX."""
    known, references = cards(database), dict[str, str]()
    for own in known.values():
        for name, card in own.items():
            cited = cited_by(name, card.get("title", name), card.get("paper", ""))
            card["cited"] = [each.key for each in cited]
            references |= {each.key: each.bibtex() for each in cited}
    return {"cards": known, "references": references}


def _with_places(value: Any, shared: Shared) -> Any:
    """Plain data with numbers rounded and run ids as a place in the lists of the page."""
    if isinstance(value, Mapping):
        return {
            key: shared.lists.add([shared.runs[run] for run in each if run in shared.runs])
            if key == "runs"
            else _with_places(each, shared)
            for key, each in value.items()
        }
    if isinstance(value, list | tuple):
        return [_with_places(each, shared) for each in value]
    return rounded(value, 5) if isinstance(value, float) else value


def _notes(database: Database, k: int) -> dict[str, list[str]]:
    """How to read the tables of each track."""
    notes = {"targeted": targeted_notes(k, True), "untargeted": untargeted_notes(hit_cut(k), True)}
    for track, of in (("visual", visual_notes), ("demotion", demotion_notes)):
        if database.rows(f"select 1 from {track}_attacks limit 1"):
            notes[track] = of(k, True)
    return notes


def _about(database: Database, command: str, data: dict[str, Any]) -> dict[str, Any]:
    (head,) = database.rows(
        "select count(*) as runs, count(distinct scenario_id) as scenarios, count(distinct dataset) as datasets,"
        " count(distinct model) as models, count(distinct attack) filter (attack <> 'none') as attacks,"
        " count(distinct defense) filter (defense <> 'none') as defenses,"
        " count(*) filter (status = 'diverged') as diverged, count(*) filter (status = 'failed') as failed,"
        " list(distinct fedbench_version order by fedbench_version) as versions,"
        " list(distinct schema_version order by schema_version) as schemas,"
        " list(distinct suite order by suite) filter (suite is not null) as suites from runs"
    )
    # It names the numbers, so that two readers can tell whether they look at the same page.
    digest = hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:12]
    return {"version": fedbench.__version__, "command": command, "digest": digest, **head}
