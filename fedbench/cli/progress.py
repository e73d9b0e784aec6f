"""Progress of a suite on stderr: live on a terminal, one line for each run elsewhere."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from fedbench.cli.output import console, duration, percent
from fedbench.runs.execution import Outcome, Plan, Reporter, Run, Step

if TYPE_CHECKING:
    from rich.console import RenderableType


@contextlib.contextmanager
def progress(title: str, plan: Plan, jobs: int) -> Iterator[Reporter]:
    """A reporter for the runs of ``plan``, shown while the block lasts."""
    out = console(err=True)
    if not out.is_terminal:
        yield _Lines(out, plan, jobs)
        return
    shown = _Live(title, plan, jobs)
    with Live(get_renderable=shown.render, console=out, refresh_per_second=4, transient=True):
        yield shown


class TimeLeft:
    """Estimates the rest of a plan from past timing and from the runs that ended since."""

    def __init__(self, plan: Plan, jobs: int) -> None:
        self._expected = dict(plan.seconds)
        self._waiting = set(plan.todo)
        self._jobs = jobs
        self._spent: dict[Run, float] = {}

    def finished(self, run: Run, outcome: Outcome) -> None:
        """A run ended; one that failed says nothing of the others."""
        self._waiting.discard(run)
        if outcome.status == "ok":
            self._spent[run] = outcome.seconds

    def __str__(self) -> str:
        known = [seconds for run in self._waiting if (seconds := self._expected.get(run)) is not None]
        unknown = len(self._waiting) - len(known)
        if unknown and not self._spent:
            return "time left unknown"
        mean = sum(self._spent.values()) / len(self._spent) if self._spent else 0.0
        return f"about {duration((self._slower() * sum(known) + unknown * mean) / self._jobs)} left"

    def _slower(self) -> float:
        """How many times as long as expected the runs took that ended: another machine, or other parameters."""
        pairs = [(seconds, known) for run, seconds in self._spent.items() if (known := self._expected.get(run))]
        return sum(took for took, _ in pairs) / sum(known for _, known in pairs) if pairs else 1.0


class _Lines:
    """One line when a run ends."""

    def __init__(self, out: Console, plan: Plan, jobs: int) -> None:
        self._out = out
        self._total = len(plan.todo)
        self._done = 0
        self._left = TimeLeft(plan, jobs)

    def started(self, run: Run) -> None:
        """Nothing: only ends are told."""

    def evaluated(self, run: Run, step: Step) -> None:
        """Nothing: only ends are told."""

    def finished(self, run: Run, outcome: Outcome) -> None:
        self._done += 1
        self._left.finished(run, outcome)
        if outcome.status == "refused":
            return  # told once for all its like, at the end
        what = outcome.status
        if outcome.status == "ok":
            what += f"  {headline(run, outcome.metrics)}"
        elif outcome.status == "elsewhere":
            what = "another process has run it"
        elif outcome.error:
            what += f": {outcome.error.splitlines()[0]}"
        rest = f", {self._left}" if self._done < self._total else ""
        self._out.print(
            f"[{self._done}/{self._total}] {run}  {what}  ({duration(outcome.seconds)}{rest})", soft_wrap=True
        )


class _Live:
    """A bar for the suite, and a line for each running scenario."""

    def __init__(self, title: str, plan: Plan, jobs: int) -> None:
        self._left = TimeLeft(plan, jobs)
        self._running: dict[Run, Step | None] = {}
        self._began: dict[Run, float] = {}
        self._bad = 0
        self._bar = Progress(
            TextColumn("{task.description}"), BarColumn(40), MofNCompleteColumn(), TextColumn("{task.fields[left]}")
        )
        self._task = self._bar.add_task(title, total=len(plan.todo), left=str(self._left))

    def started(self, run: Run) -> None:
        self._running[run] = None
        self._began[run] = time.monotonic()

    def evaluated(self, run: Run, step: Step) -> None:
        self._running[run] = step

    def finished(self, run: Run, outcome: Outcome) -> None:
        self._running.pop(run, None)
        self._left.finished(run, outcome)
        self._bad += outcome.status not in ("ok", "elsewhere")
        bad = f", {self._bad} not ok" if self._bad else ""
        self._bar.update(self._task, advance=1, left=f"{self._left}{bad}")

    def render(self) -> RenderableType:
        rows = Table.grid(padding=(0, 2))
        for _ in range(4):
            rows.add_column(no_wrap=True)
        for run, step in list(self._running.items()):
            spent = duration(time.monotonic() - self._began[run])
            if step is None:
                rows.add_row(f"  {brief(run)}", "starting", "", spent)
            elif step.stage:
                rows.add_row(f"  {brief(run)}", step.stage, "", spent)
            else:
                rows.add_row(f"  {brief(run)}", f"epoch {step.epoch}/{step.epochs}", headline(run, step.metrics), spent)
        return Group(self._bar, rows)


def brief(run: Run) -> str:
    """What distinguishes a run from its neighbours, without the parameters."""
    s = run.scenario
    return f"{s.dataset} {s.model} {s.attack} {s.defense} {100 * s.malicious_ratio:g}% {s.target} s{run.seed}"


def headline(run: Run, metrics: Mapping[str, float]) -> str:
    """ER@10 and the protocol's HR@10; HR@5 and NDCG@5 by full ranking where no target is promoted."""
    if run.scenario.target == "none":
        return f"HR@5 {percent(metrics.get('hr_full_5'), 2)}  NDCG@5 {percent(metrics.get('ndcg_full_5'), 2)}"
    hr = "hr_full_10" if run.scenario.resolved.protocol.ranking == "full" else "hr_10"
    return f"ER@10 {percent(metrics.get('er_10'))}  HR@10 {percent(metrics.get(hr))}"
