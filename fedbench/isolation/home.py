"""Processes of one entry, and calls to them."""

from __future__ import annotations

import contextlib
import math
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch

from fedbench.errors import FedbenchError, ThreatModelViolation, UserError
from fedbench.isolation.limits import Limits
from fedbench.isolation.nursery import nursery
from fedbench.isolation.wire import LATE, Broken, Line
from fedbench.texts import visible

_FINDINGS = 1_000
"""Most that a process may find."""


class Drawing(Protocol):
    """What an entry is shown: whatever it is, it has a random stream for it."""

    @property
    def generator(self) -> torch.Generator:
        """The stream."""


class EntryFailed(FedbenchError):
    """Raised when an entry in a process of its own raised an error, ended, took too long or answered nonsense."""


@dataclass(frozen=True)
class Home:
    """A file, and how processes that import it are made.

    Attributes:
        path: of the file, for messages. source: its bytes, or the name of an entry of a package. kind: what its class is.
        limits: of each process. free: whether it may read and write as this process may, as a dataset must.
        checks: ``module:function`` of the kind of an entry and its class, for :meth:`Process.findings`; it is looked up
            before the entry is imported.
        began: when, in seconds of ``time.monotonic``; from then on the time for everything runs.
    """

    path: Path
    source: bytes | str
    kind: str | None
    limits: Limits = field(default_factory=Limits)
    free: bool = False
    checks: str = ""
    began: float = field(default_factory=time.monotonic)

    @property
    def ends(self) -> float:
        """When the time for everything is up."""
        return math.inf if self.limits.total is None else self.began + self.limits.total

    @property
    def optimizers(self) -> bool:
        """Whether it may be expected to use optimizers of torch, as its text names them or is not at hand."""
        return isinstance(self.source, str) or b"optim" in self.source

    def start(self) -> Process:
        """A fresh process that has imported the file.

        Raises:
            UserError: it cannot be imported, in the time and with the memory that it may have.
        """
        process = Process(self)
        try:
            content: dict[str, Any] = {"source": self.source, "kind": self.kind, "checks": self.checks}
            if isinstance(self.source, bytes):
                content["source"] = torch.frombuffer(bytearray(self.source), dtype=torch.uint8)
            process.described = process.call("load", content, seconds=self.limits.start)
        except EntryFailed as error:
            process.close()
            raise UserError(f"{self.path}: {error}") from None
        return process


class Process:
    """One process of an entry; it ends with this object.

    Attributes:
        level: how it is confined. described: what it says of its class, as JSON.
        noted: what it says that the entry did in the last call.
    """

    def __init__(self, home: Home) -> None:
        self._home, self._nursery = home, nursery(home.free)
        self._pid, connected = self._nursery.fork(home.limits, home.optimizers)
        self._line = Line(connected, home.limits.message)
        self.described: Any = None
        self.noted: Any = {}
        try:
            level = self._line.receive(min(time.monotonic() + home.limits.start, home.ends))
        except Broken as error:
            raise self._failed(error, home.limits.start) from None
        self.level = str(level)

    def call(
        self,
        method: str,
        content: Any,
        answer: Callable[[str, tuple[Any, ...]], Any] | None = None,
        view: Drawing | None = None,
        seconds: float | None = None,
    ) -> Any:
        """What a method of the entry returns.

        Args:
            method: its name. content: what it is given. answer: to what it asks meanwhile.
            view: whose random stream it draws from, and which is told what it was refused. seconds: that it may take.

        Raises:
            ThreatModelViolation: it asked for what its card does not declare. EntryFailed, UserError: anything else.
        """
        seconds = seconds or self._home.limits.seconds
        deadline = min(time.monotonic() + seconds, self._home.ends)
        self._line.forget_lent()
        try:
            self._line.send([method, content], deadline)
            while True:
                said = self._line.receive(deadline)
                if not isinstance(said, dict):
                    raise Broken("it sent something that is no answer")
                if "ask" in said:
                    begin = time.monotonic()
                    self._line.send(self._answered(said, answer, view), deadline)
                    deadline = min(deadline + time.monotonic() - begin, self._home.ends)
                elif "error" in said:
                    raise self._told(said["error"], method)
                else:
                    return self._done(said, view)
        except Broken as error:
            raise self._failed(error, seconds) from None

    def findings(self) -> Iterator[tuple[str, ...]]:
        """What the process finds when it checks its own entry: tuples of texts, as they come.

        It is believed to be at the end only when it repeats a number that is drawn here, once the entry has been
        imported. Whoever looks for that number, or changes the checks, in the process that it shares with them, succeeds:
        this holds against exits, not against forgery.

        Raises:
            EntryFailed: it did not come to an end.
        """
        seal, found = secrets.token_hex(), 0
        try:
            self._line.send(["check", {"seal": seal}], self._home.ends)
            while True:
                said = self._line.receive(self._home.ends)
                match said:
                    case {"finding": tuple(texts)} if all(type(each) is str for each in texts) and found < _FINDINGS:
                        found += 1
                        yield tuple(map(self._in_its_file, texts))
                    case {"peak": bool(reset)}:
                        self._line.send(self.peak(reset), self._home.ends)
                    case {"done": str(repeated)} if repeated == seal:
                        return
                    case {"error": error}:
                        raise self._told(error, "check")
                    case _:
                        raise Broken("it sent something that is no answer")
        except Broken as error:
            raise self._failed(error, self._home.limits.seconds) from None

    def peak(self, reset: bool) -> int | None:
        """Bytes of memory that it had at most so far; with ``reset`` from what it has now on, where the system allows it."""
        found = self._nursery.asked("memory", pid=self._pid, reset=reset)["bytes"]
        return None if found is None else int(found)

    def close(self) -> int | None:
        """End it; returns its exit code, negative for a signal."""
        self._line.close()
        if not self._nursery.there:
            return None
        code: int | None = self._nursery.asked("end", pid=self._pid)["code"]
        return code

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            self.close()

    def _answered(self, said: dict[str, Any], answer: Any, view: Drawing | None) -> dict[str, Any]:
        if answer is None or view is None or not isinstance(said.get("values"), tuple):
            raise Broken("it asked out of turn")
        _move(view.generator, said.get("draws"))
        name, values = said["ask"], said["values"]
        try:
            found = self._line.lent(*values) if name == "lent" and len(values) == 3 else answer(name, values)
        except ThreatModelViolation as error:
            return {"refused": str(error), "draws": view.generator.get_state()}
        return {"answer": found, "draws": view.generator.get_state()}

    def _done(self, said: dict[str, Any], view: Drawing | None) -> Any:
        if set(said) != {"done", "draws", "refused", "noted"}:
            raise Broken("it sent something that is no answer")
        if isinstance(said["refused"], tuple) and said["refused"]:
            raise ThreatModelViolation(visible(str(said["refused"][0]), 500))
        if view is not None:
            _move(view.generator, said["draws"])
        self.noted = said["noted"]
        return said["done"]

    def _in_its_file(self, text: str) -> str:
        """What the process says of a line of its entry, which has another name there."""
        return text.replace("(entry.py:", f"({self._home.path.name}:")

    def _told(self, error: Any, method: str) -> FedbenchError:
        """The error that the entry raised, in this process's words."""
        if not isinstance(error, dict):
            return EntryFailed("it sent something that is no answer")
        text = visible(" ".join(str(error.get("text", "")).split()), 1000)
        text = self._in_its_file(text.replace("/entry.py", str(self._home.path)))
        kinds: dict[object, type[FedbenchError]] = {
            "UserError": UserError,
            "ThreatModelViolation": ThreatModelViolation,
        }
        if error.get("kind") in kinds:
            during = error["kind"] == "UserError" and method not in ("load", "make")
            return EntryFailed(text) if during else kinds[error["kind"]](text)
        name, line = visible(str(error.get("name", "")), 100), error.get("line")
        place = f" ({self._home.path.name}:{line})" if type(line) is int and line > 0 else ""
        return EntryFailed(f"{name}: {text}{place}" if name else f"{text}{place}")

    def _failed(self, error: Broken, seconds: float) -> EntryFailed:
        text = str(error)
        code = self.close()
        if text == LATE and time.monotonic() >= self._home.ends:
            return EntryFailed(f"its {self._home.limits.total:g} s are over, and it was ended")
        if text == LATE:
            return EntryFailed(f"it did not answer within {seconds:g} s, and was ended")
        if text == "its process ended" and code is not None:
            return EntryFailed(
                f"its process ended by itself ({f'signal {-code}' if code < 0 else f'exit code {code}'})"
            )
        return EntryFailed(text)


def _move(generator: torch.Generator, draws: object) -> None:
    """Let a random stream go on where the other process left it."""
    if not isinstance(draws, torch.Tensor):
        raise Broken("it did not say where its random stream is")
    try:
        generator.set_state(draws)
    except (RuntimeError, TypeError):
        raise Broken("it sent a random stream that is none") from None
