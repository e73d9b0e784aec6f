"""What runs measure while they train, for tools that watch: CSV files, TensorBoard, Weights & Biases.

The records hold the same in their column ``curve``; nothing that is ranked is read from here.
"""

from __future__ import annotations

import csv
import importlib.util
import json
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import IO, Any, Protocol

from fedbench.errors import ResultsError, missing_extra, unknown
from fedbench.runs.plan import Run
from fedbench.runs.reporting import Outcome, Reporter
from fedbench.runs.worker import Step

FOLDER = "_logs"
"""Beside the records; who reads all of a folder as parquet leaves out what begins like this."""
FORMS = ("csv", "tensorboard", "wandb")
PROJECT = "fedbench"


class Log(Protocol):
    """Of one run."""

    def step(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """What was measured after an epoch."""

    def end(self, outcome: Outcome) -> None:
        """The run has ended."""


class CsvLog:
    """``_logs/<run id>.csv``: a line for each evaluation, as soon as it is there."""

    def __init__(self, run: Run, folder: Path, suite: str) -> None:
        self._path = folder / f"{run.id}.csv"
        self._names: list[str] | None = None
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file: IO[str] = self._path.open("w", newline="", encoding="utf-8", buffering=1)
        except OSError as error:
            raise ResultsError(f"cannot write {self._path}: {error.strerror or error}.") from None

    def step(self, epoch: int, metrics: Mapping[str, float]) -> None:
        writer = csv.writer(self._file, lineterminator="\n")
        if self._names is None:
            self._names = list(metrics)
            writer.writerow(["epoch", *self._names])
        writer.writerow([epoch, *(metrics.get(name) for name in self._names)])

    def end(self, outcome: Outcome) -> None:
        self._file.close()


class TensorBoardLog:
    """``_logs/tensorboard/<name of the run>``: a curve for each metric."""

    def __init__(self, run: Run, folder: Path, suite: str) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer: Any = SummaryWriter(str(folder / "tensorboard" / _name(run)))
        self._writer.add_text("run", f"`{run.id}` {run}")

    def step(self, epoch: int, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, epoch)
        self._writer.flush()

    def end(self, outcome: Outcome) -> None:
        self._writer.close()


class WandbLog:
    """A run of the project :data:`PROJECT`, grouped by suite; where it goes is what ``wandb`` and its variables say."""

    def __init__(self, run: Run, folder: Path, suite: str) -> None:
        import wandb

        folder.mkdir(parents=True, exist_ok=True)
        s = run.scenario
        config = {**json.loads(s.key), "seed": run.seed, "scenario_id": s.id}
        self._run: Any = wandb.init(
            project=PROJECT, group=suite, name=_name(run), config=config, dir=str(folder), reinit="create_new"
        )

    def step(self, epoch: int, metrics: Mapping[str, float]) -> None:
        self._run.log(dict(metrics), step=epoch)

    def end(self, outcome: Outcome) -> None:
        self._run.summary["status"] = outcome.status
        self._run.finish(exit_code=0 if outcome.status == "ok" else 1)


_LOGS: dict[str, Callable[[Run, Path, str], Log]] = {"csv": CsvLog, "tensorboard": TensorBoardLog, "wandb": WandbLog}


class Logging:
    """A reporter that logs, beside another one that it tells the same.

    A tool that fails is told once, and left out from then on: runs do not depend on it.

    Args:
        forms: of :data:`FORMS`. reporter: the other one. results: folder of the records. suite: its name. tell: takes the
            line about a tool that fails.
    """

    def __init__(
        self, forms: Iterable[str], reporter: Reporter, results: Path, suite: str, tell: Callable[[str], None]
    ) -> None:
        self._forms = list(dict.fromkeys(forms))
        self._reporter, self._folder, self._suite, self._tell = reporter, results / FOLDER, suite, tell
        self._logs: dict[Run, dict[str, Log]] = {}

    def started(self, run: Run) -> None:
        self._reporter.started(run)
        made = self._logs[run] = {}
        self._each(self._forms, lambda form: made.update({form: _LOGS[form](run, self._folder, self._suite)}))

    def evaluated(self, run: Run, step: Step) -> None:
        self._reporter.evaluated(run, step)
        if not step.stage:
            logs = self._logs.get(run, {})
            self._each(logs, lambda form: logs[form].step(step.epoch, step.metrics))

    def finished(self, run: Run, outcome: Outcome) -> None:
        self._end(self._logs.pop(run, {}), outcome)
        self._reporter.finished(run, outcome)

    def close(self) -> None:
        """End the logs of runs that were interrupted."""
        for logs in self._logs.values():
            self._end(logs, Outcome("interrupted", None, 0.0, {}))
        self._logs.clear()

    def _end(self, logs: Mapping[str, Log], outcome: Outcome) -> None:
        self._each(logs, lambda form: logs[form].end(outcome))

    def _each(self, forms: Iterable[str], work: Callable[[str], None]) -> None:
        for form in list(forms):
            if form in self._forms:
                try:
                    work(form)
                except Exception as error:  # of a tool that is not ours, over what nothing depends on
                    self._forms.remove(form)
                    what = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
                    self._tell(f"--log {form} is left out from now on: {what}")


def check_forms(forms: Iterable[str]) -> None:
    """Raise :class:`UserError` for what is no form, or lacks its packages."""
    for form in forms:
        if form not in FORMS:
            raise unknown("log", form, FORMS)
        if form != "csv" and importlib.util.find_spec(form) is None:
            raise missing_extra(form, f"--log {form}")


def _name(run: Run) -> str:
    """A run as these tools list it."""
    s = run.scenario
    name = f"{s.dataset} {s.model} {s.attack} {s.defense} {100 * s.malicious_ratio:g}% s{run.seed} {s.id[:8]}"
    return re.sub(r"[^\w.%+-]+", "_", name)
