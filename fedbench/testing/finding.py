"""What a check of an entry finds, and the checks that all kinds of entries share."""

from __future__ import annotations

import contextlib
import ctypes
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from fedbench.entries.cards import Goal, Parameters, parameter_docs
from fedbench.errors import UserError
from fedbench.isolation.home import EntryFailed
from fedbench.isolation.watching import global_state as global_state
from fedbench.isolation.watching import moved
from fedbench.plugins import Kind, check_card

if TYPE_CHECKING:
    import torch

Status = Literal["ok", "warning", "failed", "skipped"]


@dataclass(frozen=True)
class Finding:
    """The outcome of one check.

    Attributes:
        name: of the check. status: ``skipped`` where another failure came first, or the check does not apply.
        what: what happened. todo: what to do about it; empty when it is ok.
    """

    name: str
    status: Status
    what: str = ""
    todo: str = ""

    @property
    def ok(self) -> bool:
        """Whether nothing has to be done."""
        return self.status != "failed"


@dataclass(frozen=True)
class Budget:
    """What an entry may take in a round of a few hundred clients.

    Attributes:
        times: so many times an honest round. seconds: a round this short is never too long.
        bytes: of memory, on top of what the federation has.
    """

    times: float = 50.0
    seconds: float = 1.0
    bytes: int = 1 << 30


ROUNDING = 1e-3
"""Share of the largest number by which sums in another order may differ after a few rounds."""

ITSELF = ""
"""The check that is made by the trial as a whole."""


class Stop(Exception):
    """Raised out of a trial by a check that failed in it: the name of the check, and what happened."""

    def __init__(self, check: str, what: str) -> None:
        super().__init__(what)
        self.check, self.what = check, what


@dataclass
class Trial:
    """One run of an entry under observation.

    Attributes:
        name: what was tried. error: what it raised by itself; empty: nothing. stop: the check that ended it.
    """

    name: str
    error: str = ""
    stop: Stop | None = None


@dataclass
class Trials:
    """All runs of an entry, and what they say about each check."""

    file: str
    """The source file of the entry, for the line at which an error happened."""
    made: list[Trial] = field(default_factory=list)

    @contextlib.contextmanager
    def trial(self, name: str) -> Iterator[Trial]:
        """Notes what ends the body; global random states are the same at every beginning, and afterwards as before."""
        made = Trial(name)
        self.made.append(made)
        with fixed_global_state():
            try:
                yield made
            except Stop as stop:
                made.stop = stop
            except Exception as error:  # whatever the entry raises is what the check is about
                made.error = self.described(error)

    def described(self, error: BaseException) -> str:
        """The error, and the last line of the entry's own file that it came through."""
        if isinstance(error, EntryFailed):
            return str(error)  # in the other process it has been described already
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == self.file]
        place = f" ({Path(self.file).name}:{lines[-1]})" if lines else ""
        return f"{type(error).__name__}: {' '.join(str(error).split())}{place}"

    def ran(self, trial: Trial, todo: str) -> Finding:
        """Whether a trial went through."""
        error = trial.stop.what if trial.stop is not None and trial.stop.check == ITSELF else trial.error
        if error:
            return Finding(trial.name, "failed", error, todo)
        if trial.stop is not None:
            return Finding(trial.name, "skipped", f"stopped by the check {trial.stop.check!r}")
        return Finding(trial.name, "ok")

    def kept(self, check: str, what: str, todo: str) -> Finding:
        """Whether no trial was stopped by ``check``; ``what`` says what held."""
        for trial in self.made:
            if trial.stop is not None and trial.stop.check == check:
                return Finding(check, "failed", f"{trial.stop.what} [{trial.name}]", todo)
        if all(trial.error or trial.stop for trial in self.made):
            return Finding(check, "skipped", "no run came to an end")
        return Finding(check, "ok", what)

    def generators_kept(self) -> Finding:
        """Whether no trial moved a random generator that everybody shares."""
        return self.kept(
            "global random state",
            "no shared generator moved",
            "Draw from the generator that is handed in: torch.rand(..., generator=...); NumPy's own"
            " numpy.random.default_rng(seed) where it must be NumPy.",
        )

    @property
    def broken(self) -> bool:
        """Whether any trial did not go through."""
        return any(trial.error or trial.stop for trial in self.made)


def check_identity(kind: Kind, cls: type[Any]) -> Iterator[Finding]:
    """That the card is complete, and every parameter has a default and a description."""
    try:
        check_card(kind, cls, "card")
    except UserError as error:
        yield Finding("card", "failed", str(error), "Correct the card.")
        return
    card = cls.card
    wanted = {"dataset": ("title", "source", "licence", "citation")}.get(kind, ("title", "paper"))
    empty = [key for key in wanted if not getattr(card, key).strip()]
    if getattr(card, "goal", None) == Goal.NONE or card.name == "none":
        empty = [key for key in empty if key != "paper"]  # no method, and nobody's
    if not (cls.__doc__ or "").strip() or cls.__doc__ == cls.__mro__[1].__doc__:
        empty.append("docstring")
    if empty:
        yield Finding(
            "card",
            "failed",
            f"empty: {', '.join(empty)}",
            "Fill it in: the leaderboard shows title and paper, and the docstring says what is computed.",
        )
    else:
        yield Finding("card", "ok", f"{card.name}, {card.title}")
    if kind != "dataset":
        yield _check_parameters(cls.Params)


def _check_parameters(params: type[Parameters]) -> Finding:
    required = [name for name, info in params.model_fields.items() if info.is_required()]
    silent = [doc.name for doc in parameter_docs(params) if not doc.description.strip()]
    if required:
        todo = "Give it the value with which the method enters the leaderboard: Field(0.1, description=...)."
        return Finding("parameters", "failed", f"without default: {', '.join(required)}", todo)
    if silent:
        todo = 'Say what it is and where the default is from: Field(0.1, description="step [paper: 0.1]").'
        return Finding("parameters", "failed", f"without description: {', '.join(silent)}", todo)
    return Finding("parameters", "ok", ", ".join(params.model_fields) or "none")


def check_repeats(made: Callable[[int], list[torch.Tensor]], ok: str, differs: str, todo: str) -> Iterator[Finding]:
    """Whether two runs with one thread give the same numbers, and one with two threads the same but for rounding.

    Args:
        made: the numbers of a run that computes with so many threads. ok, differs: what two runs with one thread did.
        todo: where they differ.
    """
    one, again = made(1), made(1)
    if len(one) != len(again) or not all(a.equal(b) for a, b in zip(one, again, strict=True)):
        yield Finding("deterministic", "failed", differs, todo)
        return
    yield Finding("deterministic", "ok", ok)
    two = made(2)
    if len(one) != len(two) or not all(map(_close, one, two)):
        yield Finding(
            "threads",
            "warning",
            "the same seed gives other numbers with two threads than with one, and not by rounding alone",
            "Take ties by a fixed rule (sort(stable=True)), sum in a fixed order, and let nothing depend on the number of"
            " threads; until then only runs with one thread (OMP_NUM_THREADS=1) can be repeated.",
        )


def _close(a: torch.Tensor, b: torch.Tensor) -> bool:
    if a.shape != b.shape or not a.numel():
        return a.shape == b.shape
    one, two = a.double(), b.double()
    return float((one - two).abs().max()) <= ROUNDING * max(float(one.abs().max()), 1e-6)


def source_file(cls: type[Any]) -> str:
    """The file in which a class is written."""
    return str(getattr(sys.modules.get(cls.__module__), "__file__", "") or "")


def check_global_state(before: dict[str, Any], where: str) -> None:
    """Raise :class:`Stop` when a shared random generator has moved since ``before``."""
    if names := moved(before):
        raise generators_moved(names, where)


def generators_moved(names: Iterable[str], where: str) -> Stop:
    """That these shared generators have moved."""
    return Stop("global random state", f"{where} moved the global generator of {' and '.join(names)}")


@contextlib.contextmanager
def fixed_global_state() -> Iterator[None]:
    """The shared random generators in one and the same state, and as they were afterwards."""
    import random

    import numpy as np
    import torch

    before = torch.get_rng_state(), np.random.get_state(), random.getstate()  # noqa: NPY002
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002
    random.seed(0)
    try:
        yield
    finally:
        torch.set_rng_state(before[0])
        np.random.set_state(before[1])  # noqa: NPY002
        random.setstate(before[2])


def check_time(own: float, honest: float, budget: Budget, what: str) -> Finding:
    """Whether ``own`` seconds a round are within the budget, given those of an honest round."""
    text = f"{own * 1e3:.1f} ms {what}; an honest round takes {honest * 1e3:.1f} ms"
    if own <= max(budget.seconds, budget.times * honest):
        return Finding("time", "ok", text)
    allowed = max(budget.seconds, budget.times * honest) * 1e3
    todo = "Treat clients and items as one batch of tensors, without a loop over them; keep what stays the same."
    return Finding("time", "failed", f"{text}; at most {allowed:.0f} ms", todo)


def check_memory(extra: int | None, budget: Budget) -> Finding:
    """Whether the memory that came on top is within the budget; None: it cannot be measured here."""
    if extra is None:
        return Finding("memory", "skipped", "the peak cannot be measured on this system")
    text = f"{extra / 2**20:.0f} MiB at the peak, on top of the federation"
    if extra <= budget.bytes:
        return Finding("memory", "ok", text)
    todo = "Make no [clients, items, d] tensor: upload rows of the items that matter, or work in chunks."
    return Finding("memory", "failed", f"{text}; at most {budget.bytes / 2**20:.0f} MiB", todo)


def measured(work: Callable[[], Any], times: int = 1, elsewhere: Peak | None = None) -> tuple[float, int | None]:
    """The fewest seconds that ``work`` takes, and bytes of memory at its peak above those before (Linux; else None).

    ``elsewhere`` is the peak of another process that works for it.
    """
    _hand_back()
    peaks = [peak, elsewhere] if elsewhere else [peak]
    before = [each(True) for each in peaks]
    seconds = []
    for _ in range(times):
        begin = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - begin)
    after = [each(False) for each in peaks]
    extra = [
        max(0, now - then) for then, now in zip(before, after, strict=True) if then is not None and now is not None
    ]
    return min(seconds), sum(extra) if len(extra) == len(peaks) else None


def _hand_back() -> None:
    """Give memory that the C library keeps for later back to the system: what is taken from it would not be seen."""
    if sys.platform.startswith("linux"):
        with contextlib.suppress(AttributeError, OSError):
            ctypes.CDLL(None).malloc_trim(0)


def _own_peak(reset: bool) -> int | None:
    """The most memory that this process has had, or what it has now, from which its peak is counted anew."""
    try:
        if reset:
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), None)


Peak = Callable[[bool], "int | None"]
peak: Peak = _own_peak
"""A process that may not look at itself asks another one."""


def failures(findings: Iterable[Finding]) -> list[str]:
    """The checks that failed, each with what happened and what to do: empty when an entry passes.

    For a test: ``assert failures(check_attack(MyAttack)) == []``.
    """
    return [f"{each.name}: {each.what}. {each.todo}" for each in findings if not each.ok]
