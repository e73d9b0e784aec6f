"""A suite beside the tables of its paper."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fedbench.leaderboard.database import Database, Row
from fedbench.reproduction.curves import Curve, curve_of
from fedbench.reproduction.published import Cell, cell_of
from fedbench.scenarios.suite import Expected, Planned, matches

DEFAULT_K = 10
"""Of the curves of a suite whose published values are about lists of several lengths, or that has none."""


@dataclass(frozen=True)
class Report:
    """Everything that the comparison of a suite says. ``k``: length of the lists of its curves."""

    title: str
    paper: str
    cells: list[Cell]
    curves: list[Curve]
    k: int = DEFAULT_K

    @property
    def agree(self) -> int:
        """Published values with which our runs agree."""
        return sum(cell.verdict.startswith("agrees") for cell in self.cells)

    @property
    def open(self) -> int:
        """Published values that our runs, varying as they do, cannot be told apart from, though they are not near."""
        return sum(cell.verdict == "not told apart" for cell in self.cells)

    @property
    def missing(self) -> int:
        """Published values without a run of ours."""
        return sum(cell.verdict == "not run" for cell in self.cells)

    @property
    def count(self) -> int:
        """Published values that can be run here."""
        return sum(not cell.expected.absent for cell in self.cells)

    def tally(self) -> str:
        """How many values agree, in words."""
        ran = self.count - self.missing
        text = f"{self.agree} of {ran} published values agree"
        if self.missing:
            text = f"{self.agree} of the {ran} published values that were run agree"
        if self.open:
            text += f", {self.open} more {'is' if self.open == 1 else 'are'} not told apart from ours"
        if self.missing:
            text += f"; {self.missing} of {self.count} are not run yet"
        absent = len(self.cells) - self.count
        return f"{text}; {absent} more cannot be run here" if absent else text


def compare(
    title: str, paper: str, planned: Sequence[Planned], expected: Iterable[Expected], database: Database
) -> Report:
    """Compare the records in ``database`` with the published values of a suite.

    Args:
        title, paper: of the suite. planned: its scenarios (after ``--only``). expected: its published values.
        database: the records.
    """
    expected = list(expected)
    lengths = {part for value in expected for part in value.metric.split("_") if part.isdigit()}
    k = int(lengths.pop()) if len(lengths) == 1 else DEFAULT_K
    if k != database.k:
        database = database.kept(("lists of", k), functools.partial(database.at, k))
    runs: dict[str, list[Row]] = {}
    ids = list({own.id for p in planned for own in (p.scenario, p.scenario.undefended, p.scenario.clean.undefended)})
    query = (
        "select h.*, r.curve from headline h join runs r using (run_id) where list_contains(?, h.scenario_id)"
        " order by h.seed"
    )
    for row in database.rows(query, [ids]):
        runs.setdefault(row["scenario_id"], []).append(row)
    cells = []
    for value in expected:
        # Twins come along for comparison; a published value is of one only where it says which attack, such as none.
        candidates = [each for each in planned if "attack" in value.where or not each.twin]
        own = [] if value.absent else [each for each in candidates if matches(value.where, each.labels)]
        if own or value.absent:
            wanted = {(each.scenario.id, seed) for each in own for seed in each.seeds}
            rows = [
                row
                for each in own
                for row in runs.get(each.scenario.id, [])
                if (row["scenario_id"], row["seed"]) in wanted
            ]
            cells.append(cell_of(value, rows, runs))
    groups: dict[tuple[str, str, str, str, float, str], list[Planned]] = {}
    for each in planned:
        s = each.scenario
        if not each.twin:
            key = ("+".join(each.variants), s.dataset, s.model, s.attack, s.malicious_ratio, s.defense)
            groups.setdefault(key, []).append(each)
    curves = [curve_of(key, each, runs, k) for key, each in groups.items()]
    return Report(title, paper, cells, curves, k)
