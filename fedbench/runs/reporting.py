"""What an executor tells while it works, and what it returns at the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from fedbench.runs.plan import Run
from fedbench.runs.worker import Step


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        status: ``ok``, ``diverged``, ``failed``; ``refused``: it could not begin, by a mistake of the user's, and has no
            record; ``elsewhere``: another process has run it in the meantime.
        error: why, unless ok. seconds: wall time. metrics: at the end, as in the record.
        warnings: what may mislead in its numbers.
    """

    status: str
    error: str | None
    seconds: float
    metrics: Mapping[str, float]
    warnings: Sequence[str] = ()


BY_OTHERS = Outcome("elsewhere", None, 0.0, {})


class Reporter(Protocol):
    """Is told what happens, from the one process that runs the suite."""

    def started(self, run: Run) -> None:
        """A worker begins with a run; it never does with one that others run."""

    def evaluated(self, run: Run, step: Step) -> None:
        """A run reached an evaluation."""

    def finished(self, run: Run, outcome: Outcome) -> None:
        """A run ended; its record is on the disk unless it was refused."""


class Silent:
    """A reporter that says nothing."""

    def started(self, run: Run) -> None:
        """Nothing."""

    def evaluated(self, run: Run, step: Step) -> None:
        """Nothing."""

    def finished(self, run: Run, outcome: Outcome) -> None:
        """Nothing."""


@dataclass
class Summary:
    """The end of a suite.

    Attributes:
        total: runs that were to be run. kept: runs whose results were there before. outcomes: of the runs that ended.
        interrupted: the signal that stopped it before its end; 0: none did.
    """

    total: int
    kept: int = 0
    outcomes: dict[Run, Outcome] = field(default_factory=dict)
    interrupted: int = 0

    def enter(self, run: Run, outcome: Outcome) -> None:
        """Note how a run ended."""
        self.outcomes[run] = outcome

    def joined(self, later: Summary) -> Summary:
        """One summary of these runs and of what was run after them."""
        return Summary(self.total + later.total, self.kept, {**self.outcomes, **later.outcomes}, later.interrupted)

    def count(self, status: str) -> int:
        """How many runs ended like this."""
        return sum(outcome.status == status for outcome in self.outcomes.values())

    @property
    def left(self) -> int:
        """Runs that did not end."""
        return self.total - len(self.outcomes)

    @property
    def exit_code(self) -> int:
        """128 and the signal (SIGTERM: 143), 2 something that only the user can mend, 1 a run failed, else 0."""
        if self.interrupted:
            return 128 + self.interrupted
        if self.count("refused"):
            return 2
        return 1 if self.count("failed") else 0
