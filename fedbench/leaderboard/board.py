"""What a leaderboard holds: its tables, how to read them, what is lacking, and everything as plain data."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from fedbench.leaderboard.database import Database
from fedbench.leaderboard.ranking_attacks import AttackRow, attack_cells, rank_attacks
from fedbench.leaderboard.ranking_defenses import DefenseRow, rank_defenses
from fedbench.leaderboard.sheets import (
    Sheet,
    attack_sheet,
    cell_sheets,
    defense_sheet,
    hit_cut,
    matrix_sheet,
    under_sheet,
)
from fedbench.leaderboard.under_defenses import attacks_under_defenses


@dataclass(frozen=True)
class Board:
    """A whole leaderboard, ready to be shown: notes say how it was made, warnings what is lacking."""

    k: int
    count: int
    datasets: str
    sheets: list[Sheet]
    notes: list[str]
    warnings: list[str]
    data: dict[str, Any]
    defenses: list[DefenseRow]


def make_board(database: Database) -> Board:
    """Rank what the database holds."""
    k = database.k
    (head,) = database.rows("select count(*) n, string_agg(distinct dataset, ', ' order by dataset) d from runs")
    models = [row["model"] for row in database.rows("select distinct model from attacks order by model")]
    overall, defenses = rank_attacks(database), rank_defenses(database)
    data: dict[str, Any] = {"k": k, "records": head["n"], "attacks": _plain(overall), "defenses": _plain(defenses)}
    sheets = _attack_sheets(database, overall, models, data)
    if defenses:
        sheets += _defense_sheets(database, defenses, models, data)
    warnings = _warnings(database, overall, defenses)
    data["warnings"] = warnings
    return Board(k, head["n"], head["d"], sheets, _notes(database, defenses), warnings, data, defenses)


def _attack_sheets(
    database: Database, overall: Sequence[AttackRow], models: Sequence[str], data: dict[str, Any]
) -> list[Sheet]:
    k = database.k
    sheets = [attack_sheet(f"Attacks by ER@{k}, without a defense", overall, k)] if overall else []
    data["attacks_by_model"] = {}
    for model in models if len(models) > 1 else []:
        rows = rank_attacks(database, model=model)
        sheets.append(attack_sheet(f"Attacks on {model}", rows, k))
        data["attacks_by_model"][model] = _plain(rows)
    cells = attack_cells(database)
    data["cells"] = _plain(cells)
    return sheets + cell_sheets(cells, k)


def _defense_sheets(
    database: Database, overall: Sequence[DefenseRow], models: Sequence[str], data: dict[str, Any]
) -> list[Sheet]:
    """Defenses and attacks under them, of all models together and of each, and for each model attack x defense."""
    k = database.k
    under = attacks_under_defenses(database)
    title = f"Defenses by ER@{k} reduction minus HR@{hit_cut(k)} loss"
    defended = [defense_sheet(title, overall, k)]
    attacked = [under_sheet("Attacks under defenses", under, k)]
    data["attacks_under_defenses"] = _plain(under)
    data["defenses_by_model"], data["attacks_under_defenses_by_model"] = {}, {}
    matrices = []
    listed = [run for row in overall for run in row.runs]
    for model in models:
        own, below = (overall, under) if len(models) == 1 else (rank_defenses(database, model), None)
        if below is None:
            below = attacks_under_defenses(database, model)
            if own:
                defended.append(defense_sheet(f"Defenses on {model}", own, k, listed))
                attacked.append(under_sheet(f"Attacks under defenses, {model}", below, k))
            data["defenses_by_model"][model] = _plain(own)
            data["attacks_under_defenses_by_model"][model] = _plain(below)
        if own:
            matrices.append(matrix_sheet(f"ER@{k} on {model}, attack by defense", below, [row.defense for row in own]))
    return [*defended, *attacked, *matrices]


def _notes(database: Database, defenses: Sequence[DefenseRow]) -> list[str]:
    k, h = database.k, hit_cut(database.k)
    notes = [
        f"ER@{k}: share of users, who have not interacted with a target, to whom it is shown; mean over scenarios of the mean"
        " over seeds. The interval is that of a bootstrap over scenarios and their seeds, or the t interval over the seeds of"
        " a single scenario.",
        "peak and tail: the highest value of a run, and its mean over the last quarter of training; averaged likewise.",
        f"HR@{h} change: attacked run minus its clean twin of the same seed, in points.",
        "rank: by the mean in which a scenario that only diverged counts as no exposure; the mean shown is over runs with"
        " a score. Compared are the scenarios that at least half of the attacks ran; an attack that lacks one of them has no"
        " rank.",
        "first: (dataset, model) pairs of which it has all scenarios and no other such attack has a higher mean.",
    ]
    if defenses:
        notes += [
            f"Defenses: reduction is ER@{k} of the undefended twin minus the defense's own; loss is HR@{h} without attack and"
            " defense minus HR with the defense alone; net is reduction minus loss; pairs of the same seed. Compared are the"
            " scenarios (attack, dataset, model, ratio ...) that at least half of the defenses ran; a defense that lacks one,"
            " or a run without an attack, has no rank.",
            "An attacked run that diverged under a defense counts as no exposure; a run without an attack that diverged under"
            f" it counts as a loss of the whole HR@{h}. Both are counted in columns of their own.",
            "front: no other ranked defense, nor having none (0 reduction at 0 loss), is at least as good in both and better"
            " in one, by the means.",
            f"ER@{k} left: at the end of training; at peak: the highest ER@{k} during training. A defense that ends near 0"
            " after a high peak was overrun early. worst attack: the one that keeps the most; least prevented: the one whose"
            f" ER@{k} falls least.",
            "ms a round: extra training time of a round against the undefended twin on the same hardware, median over pairs.",
            "Attacks under defenses: all numbers of a row are over the same scenarios, those that at least half of the"
            " defenses that faced the attack ran; defenses that lack one are left out. The best defense is the one with the"
            f" highest net on these scenarios (by the least ER@{k}, one that ruins the recommender could win). It is chosen"
            " for each attack and after the fact, which is optimistic for the server. A chain counts for the families of"
            " all its parts.",
        ]
    return notes


def _warnings(database: Database, attacks: Sequence[AttackRow], defenses: Sequence[DefenseRow]) -> list[str]:
    """What has no score, and why: scenarios that were not run, diverged and failed runs, damaged files."""
    out = []
    for kind, rows in (("attacks", attacks), ("defenses", defenses)):
        for row in rows:
            name = row.attack if isinstance(row, AttackRow) else row.defense
            if row.missing:
                more = f"; and {len(row.missing) - 6} more" if len(row.missing) > 6 else ""
                out.append(f"{name} lacks {_scenarios(len(row.missing))}: {'; '.join(row.missing[:6])}{more}.")
            if row.apart:
                out.append(
                    f"{name} ran {_scenarios(row.apart)} more, which fewer than half of the {kind} ran: not compared."
                )
    bad = database.rows(
        "select status, attack, defense, dataset, model, malicious_ratio, count(*) n, min(error) e from runs"
        " where status <> 'ok' group by all order by all"
    )
    for each in bad:
        first = (each["e"] or "").splitlines()[:1]
        under = "" if each["defense"] == "none" else f" under {each['defense']}"
        out.append(
            f"{each['status']}: {each['n']} of {each['attack']}{under} on {each['dataset']} {each['model']}"
            f" at {100 * each['malicious_ratio']:g} % ({''.join(first)})."
        )
    return out + [f"left out, no whole record: {name} ({reason})." for name, reason in database.found.damaged.items()]


def _scenarios(count: int) -> str:
    return "1 scenario" if count == 1 else f"{count} scenarios"


def _plain(rows: Iterable[Any]) -> list[dict[str, Any]]:
    return [dataclasses.asdict(row) for row in rows]
