"""The runs of an entry by the scenarios that it ran, and means over scenarios.

All numbers here are percent (points for differences), but for those in another unit.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import itemgetter

from fedbench.leaderboard.database import Row
from fedbench.leaderboard.ranking import Cell, Estimate, clustered, grouped, mean_of


class Scenario:
    """The runs of one entry in one scenario: an attack in a place.

    Tables of all models and of one share it, and what its runs say is read from them once.

    Attributes:
        rows: all its runs, as :func:`~.ranking.load` has them. counted: those that count in means. others: those that do not.
        first: one of them all, for what they have in common. cell: the scenario, see :data:`~.ranking.FACING`. clean: the
            place without the attack, see :data:`~.ranking.CLEAN_PLACE`. clean_params: of the defense in the clean twins, None
            without any.
    """

    def __init__(self, rows: Sequence[Row], counts: str | None = None) -> None:
        """``counts``: the column that is not None in runs that count; None: all do."""
        self.rows = rows
        self.counted = [row for row in rows if counts is None or row[counts] is not None]
        self.others = [row for row in rows if counts is not None and row[counts] is None]
        self.first = rows[0]
        self.cell: Cell = self.first["facing"]
        self.clean: Cell = self.first["clean"]
        params = (row.get("clean_params") for row in self.counted)
        self.clean_params: str | None = next((text for text in params if text is not None), None)
        self._values: dict[tuple[str, float], dict[int, float]] = {}
        self._means: dict[tuple[str, float], float | None] = {}

    def values(self, column: str, unit: float = 100.0) -> dict[int, float]:
        """What a column says in the runs that count, by seed, times ``unit``; without those where it is None."""
        if (column, unit) not in self._values:
            self._values[column, unit] = {
                row["seed"]: unit * row[column] for row in self.counted if row[column] is not None
            }
        return self._values[column, unit]

    def mean(self, column: str, unit: float = 100.0) -> float | None:
        """Mean of :meth:`values`; None without any."""
        if (column, unit) not in self._means:
            self._means[column, unit] = mean_of(self.values(column, unit).values())
        return self._means[column, unit]


def scenarios(rows: Iterable[Row]) -> list[Scenario]:
    """Runs of one entry, which all count, by scenario."""
    return [Scenario(own) for own in grouped(rows, itemgetter("facing"))]


def scenario_mean(scenarios: Iterable[Scenario], column: str, unit: float = 100.0) -> float | None:
    """Mean over scenarios of the mean over seeds, in units of the column's own times ``unit``."""
    return mean_of(each.mean(column, unit) for each in scenarios)


def scenario_estimate(scenarios: Iterable[Scenario], column: str) -> Estimate | None:
    """As :func:`scenario_mean`, with an interval."""
    values = {each.cell: own for each in scenarios if (own := each.values(column))}
    return clustered(values) if values else None
