"""A defense that lives in a process of its own, as the run sees it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, ClassVar

import torch

from fedbench.entries.cards import DefenseCard, declared
from fedbench.errors import FedbenchError, UserError
from fedbench.federation import outcome
from fedbench.federation.batch import Batch
from fedbench.federation.defense import ClientRegularization, Defense, Notes, OnFlag, ServerView
from fedbench.federation.model import LocalStep, PublicParams
from fedbench.federation.updates import Updates
from fedbench.isolation import structure
from fedbench.isolation.home import Home, Process
from fedbench.isolation.wire import Broken
from fedbench.texts import visible

_ON_FLAG = ("use-purified", "keep-original", "drop")


class RemoteDefense(Defense):
    """Stands for a class that this process has not imported: its card and parameters are its own, its work is done there.

    A class of its own for each file has those of the hooks of :data:`HOOKS` that the file's class overrides. What they
    return passes the boundary: arrays of the shapes and types that they must have, of clients and items that there are.
    """

    home: ClassVar[Home]
    sources: ClassVar[list[tuple[str, str]]]
    """The modules that the class and those that it derives from are written in, with their texts."""

    def __init__(self, params: Any) -> None:
        super().__init__(params)
        self._source = f"defense {declared(type(self), DefenseCard).name!r}"
        self._process: Process = self.home.start()
        self.isolation = self._process.level
        values = json.dumps(params.model_dump(mode="json"))
        made = self._process.call("make", {"params": values, "where": self._source})
        on_flag = made.get("on_flag") if isinstance(made, dict) else None
        if on_flag not in _ON_FLAG:
            raise UserError(f"{self._source}: on_flag must be one of {', '.join(_ON_FLAG)}.")
        self.on_flag: OnFlag = on_flag

    def fresh(self) -> Defense:
        raise UserError(
            f"{self._source} lives in a process of its own, so that no attack can simulate it; run it without --isolated."
        )

    def _call(self, hook: str, *values: Any) -> Any:
        return self._process.call(hook, {"values": list(values)})

    def _serve(self, hook: str, server: ServerView, *values: Any) -> Any:
        """The same for a hook that is shown the server, which draws from its stream and may ask how the next step goes."""
        shown = {
            "params": server.params,
            "learning_rate": server.learning_rate,
            "aggregation": server.aggregation,
            "malicious_ratio": server.malicious_ratio,
            "epoch": server.epoch,
            "round": server.round,
            "optimizer": server.optimizer is not None,
            "notes": server.notes is not None,
            "model": structure.told(server.model),
        }
        content = {"values": list(values), "server": shown, "draws": server.generator.get_state()}
        made = self._process.call(hook, content, lambda name, asked: _asked(server, name, asked), server)
        if server.notes is not None:
            _note(server.notes, self._process.noted)
        return made


def _regularize(
    self: RemoteDefense, params: PublicParams, users: torch.Tensor, batch: Batch, server: ServerView
) -> ClientRegularization | None:
    made = self._serve("regularize", server, users, batch)
    return None if made is None else outcome.regularization(made, batch, users, params, self._source)


def _client_update(
    self: RemoteDefense, local: LocalStep, params: PublicParams, users: torch.Tensor, batch: Batch, server: ServerView
) -> LocalStep:
    return outcome.local_step(
        self._serve("client_update", server, local, users, batch), local, batch, params, self._source
    )


def _filter(self: RemoteDefense, updates: Updates, server: ServerView) -> Updates:
    return outcome.filtered(self._serve("filter", server, updates), updates, server.params, self._source)


def _aggregate(self: RemoteDefense, updates: Updates, server: ServerView) -> PublicParams | None:
    made = self._serve("aggregate", server, updates)
    return None if made is None else outcome.aggregate(made, server.params, self._source)


def _purify(self: RemoteDefense, pixels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    made = self._process.call("purify", {"values": [pixels], "draws": generator.get_state()})
    return outcome.array(made, "purify(): images", torch.uint8, pixels, self._source)


def _see_images(self: RemoteDefense, pixels: torch.Tensor) -> None:
    self._call("see_images", pixels)


def _flags(self: RemoteDefense, similarity: torch.Tensor, known_clean: bool) -> torch.Tensor | None:
    made = self._call("flags", similarity, known_clean)
    return None if made is None else outcome.array(made, "flags()", torch.bool, similarity, self._source)


def _warnings(self: RemoteDefense) -> Sequence[str]:
    try:
        made = self._call("warnings")
    except FedbenchError:  # after a run that it has failed
        return []
    return [visible(str(each), 300) for each in made[:20]] if isinstance(made, tuple) else []


HOOKS: dict[str, Any] = {
    "regularize": _regularize,
    "client_update": _client_update,
    "filter": _filter,
    "aggregate": _aggregate,
    "purify": _purify,
    "see_images": _see_images,
    "flags": _flags,
    "warnings": _warnings,
}


def _asked(server: ServerView, name: str, values: tuple[Any, ...]) -> Any:
    """How the server would step."""
    match name, values:
        case "peek", (torch.Tensor() as ids, torch.Tensor() as gradient) if server.optimizer is not None:
            try:
                return server.optimizer.peek(server.params, ids, gradient)
            except (RuntimeError, IndexError, TypeError, ValueError) as error:
                raise Broken(f"it asked for a step that cannot be ({type(error).__name__})") from None
    raise Broken("it asked for what there is not")


def _note(notes: Notes, noted: Any) -> None:
    """What the process says that the defense did in this round."""
    match noted:
        case {"left_out": tuple(left_out), "uniformity": uniformity}:
            for each in left_out:
                match each:
                    case (str(name), torch.Tensor() as clients) if clients.dtype == torch.int64 and clients.dim() == 1:
                        notes.left_out.append((visible(name, 100), clients))
            match uniformity:
                case (torch.Tensor() as clients, torch.Tensor() as value) if len(clients) == len(value):
                    notes.uniformity = clients, value
