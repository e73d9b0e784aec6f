"""Processes of one entry, and calls to them."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from fedbench.errors import FedbenchError, ThreatModelViolation, UserError
from fedbench.federation.view import AttackerView
from fedbench.isolation.limits import Limits
from fedbench.isolation.nursery import nursery
from fedbench.isolation.wire import Broken, Line
from fedbench.texts import visible


class EntryFailed(FedbenchError):
    """Raised when an entry in a process of its own raised an error, ended, took too long or answered nonsense."""


@dataclass(frozen=True)
class Home:
    """A file, and how processes that import it are made.

    Attributes:
        path: of the file, for messages. source: its bytes. kind: what its class is. limits: of each process.
    """

    path: Path
    source: bytes
    kind: str | None
    limits: Limits = field(default_factory=Limits)

    def start(self) -> Process:
        """A fresh process that has imported the file.

        Raises:
            UserError: it cannot be imported, in the time and with the memory that it may have.
        """
        process = Process(self)
        try:
            process.described = process.call(
                "load",
                {"source": torch.frombuffer(bytearray(self.source), dtype=torch.uint8), "kind": self.kind},
                seconds=self.limits.start,
            )
        except EntryFailed as error:
            process.close()
            raise UserError(f"{self.path}: {error}") from None
        return process


class Process:
    """One process of an entry; it ends with this object.

    Attributes:
        level: how it is confined. described: what it says of its class, as JSON.
    """

    def __init__(self, home: Home) -> None:
        self._home, self._nursery = home, nursery()
        self._pid, connected = self._nursery.fork(home.limits)
        self._line = Line(connected, home.limits.message)
        self.described: Any = None
        try:
            level = self._line.receive(time.monotonic() + home.limits.start)
        except Broken as error:
            raise self._failed(error, home.limits.start) from None
        self.level = str(level)

    def call(
        self,
        method: str,
        content: Any,
        answer: Callable[[str, tuple[Any, ...]], Any] | None = None,
        view: AttackerView | None = None,
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
        deadline = time.monotonic() + seconds
        self._line.forget_lent()
        try:
            self._line.send([method, content])
            while True:
                said = self._line.receive(deadline)
                if not isinstance(said, dict):
                    raise Broken("it sent something that is no answer")
                if "ask" in said:
                    begin = time.monotonic()
                    self._line.send(self._answered(said, answer, view))
                    deadline += time.monotonic() - begin
                elif "error" in said:
                    raise self._told(said["error"], method)
                else:
                    return self._done(said, view)
        except Broken as error:
            raise self._failed(error, seconds) from None

    def memory(self, key: str, reset: bool = False) -> int | None:
        """Bytes of memory that it has (``VmRSS``), or had at its peak since that was reset (``VmHWM``)."""
        found = self._nursery.asked("memory", pid=self._pid, key=key, reset=reset)["bytes"]
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

    def _answered(self, said: dict[str, Any], answer: Any, view: AttackerView | None) -> dict[str, Any]:
        if answer is None or view is None or not isinstance(said.get("values"), tuple):
            raise Broken("it asked out of turn")
        _move(view.generator, said.get("draws"))
        name, values = said["ask"], said["values"]
        try:
            found = self._line.lent(*values) if name == "lent" and len(values) == 3 else answer(name, values)
        except ThreatModelViolation as error:
            return {"refused": str(error), "draws": view.generator.get_state()}
        return {"answer": found, "draws": view.generator.get_state()}

    def _done(self, said: dict[str, Any], view: AttackerView | None) -> Any:
        if set(said) != {"done", "draws", "refused"}:
            raise Broken("it sent something that is no answer")
        if isinstance(said["refused"], tuple) and said["refused"]:
            raise ThreatModelViolation(visible(str(said["refused"][0]), 500))
        if view is not None:
            _move(view.generator, said["draws"])
        return said["done"]

    def _told(self, error: Any, method: str) -> FedbenchError:
        """The error that the entry raised, in this process's words."""
        if not isinstance(error, dict):
            return EntryFailed("it sent something that is no answer")
        text = visible(" ".join(str(error.get("text", "")).split()), 1000).replace("/entry.py", str(self._home.path))
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
        if text == "it did not answer in time":
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
