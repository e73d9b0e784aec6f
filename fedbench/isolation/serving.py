"""What runs in the process of an entry: it imports the file, makes instances, and answers the calls of the run."""

from __future__ import annotations

import functools
import hashlib
import importlib
import json
import socket
import traceback
from pathlib import Path
from typing import Any

import torch

from fedbench.entries.cards import AttackCard, Parameters, declared, parse_parameters
from fedbench.errors import FedbenchError, ThreatModelViolation, UserError
from fedbench.federation.attack import Attack
from fedbench.federation.batch import Batch
from fedbench.federation.defense import Defense, ServerView
from fedbench.federation.defense import Notes as RoundNotes
from fedbench.federation.images import ItemImages
from fedbench.federation.model import PublicParams
from fedbench.federation.optimizers import ServerOptimizer
from fedbench.federation.updates import Updates
from fedbench.federation.view import AttackerView, HonestStep, RoundState, Surroundings
from fedbench.isolation import structure
from fedbench.isolation.asking import Asking
from fedbench.isolation.defense import HOOKS
from fedbench.isolation.limits import Limits
from fedbench.isolation.watching import Notes, Untouched, WatchedView, global_state, moved
from fedbench.isolation.wire import Broken, Line
from fedbench.plugins import registry_of
from fedbench.plugins.card_data import card_data
from fedbench.plugins.files import class_in

FILE = Path("/entry.py")
"""What every entry's file is called here, whatever its name is there."""


def serve(connected: socket.socket, limits: Limits, level: str) -> None:
    """Answer until nobody asks any more."""
    host = _Host(connected, limits)
    host.line.send(level)
    while True:
        host.line.forget_lent()
        try:
            what, content = host.line.receive()
        except Broken:
            return
        try:
            done = host.serve(what, content)
            host.line.send({"done": done, "draws": host.draws(), "refused": host.refused[:1], "noted": host.noted})
        except Broken:
            return
        except Exception as error:  # whatever the entry raises is told
            host.line.send({"error": _described(error)})


class _Host:
    def __init__(self, connected: socket.socket, limits: Limits) -> None:
        self.line = Line(connected, limits.message, self.ask)
        self.cls: type[Any] | None = None
        self.entry: Any = None
        self.refused: list[str] = []
        self.noted: dict[str, Any] = {}
        self._generator = torch.Generator()
        self._view: AttackerView | None = None
        self._images: Any = None
        self._card: Any = None
        self._kind: Any = None
        self._checks: Any = None

    def serve(self, what: str, content: Any) -> Any:
        self.refused.clear()
        self.noted = {}
        if what == "load":
            return self._load(content)
        if what == "check":
            return self._check(content["seal"])
        if what == "make":
            return self._make(content)
        if isinstance(self.entry, Defense):
            return self._defend(what, content)
        assert isinstance(self.entry, Attack)
        self._see(content["static"], content["draws"])
        assert self._view is not None
        view = self._view if content["round"] is None else self._view.in_round(self._state(content["round"]))
        notes, untouched, before = Notes(), Untouched(), global_state()
        watched = WatchedView.of(view, notes, untouched)
        if "images" in content:
            self._images = ItemImages(extract=Asking(self.ask), **content["images"])
        if what == "perturb":
            untouched.add("images", self._images)
            made = self.entry.perturb(self._images, watched)
        else:
            made = getattr(self.entry, what)(watched)
        self.noted = {
            "used": sorted(each.value for each in notes.used),
            "changed": untouched.changed(),
            "moved": moved(before),
        }
        return None if what == "start" else made

    def draws(self) -> torch.Tensor:
        return self._generator.get_state()

    def ask(self, name: str, *values: Any) -> Any:
        """A question to the run, while it waits for the answer of a call."""
        self.line.send({"ask": name, "values": list(values), "draws": self.draws()})
        answer = self.line.receive()
        self._generator.set_state(answer["draws"])
        if "refused" in answer:
            self.refused.append(answer["refused"])
            raise ThreatModelViolation(answer["refused"])
        return answer["answer"]

    def _load(self, content: Any) -> str:
        kind, source = content["kind"], content["source"]
        if content["checks"]:
            module, _, function = content["checks"].partition(":")
            self._checks = getattr(importlib.import_module(module), function)
            importlib.import_module("fedbench.testing.finding").peak = self._peak  # type: ignore[attr-defined]
        if isinstance(source, str):
            cls = registry_of(kind).get(source)
        else:
            source = source.numpy().tobytes()
            kind, cls = class_in(FILE, source, hashlib.sha256(source).hexdigest(), kind)
        self.cls, self._kind = cls, kind
        self._card = declared(cls, AttackCard) if kind == "attack" else cls.card  # as it is now, whatever becomes of it
        if kind not in ("attack", "defense"):
            return json.dumps({"kind": kind, "card": {"name": cls.card.name}})
        bases = [base.__module__ for base in cls.__mro__ if base is not object]
        own = (cls.__doc__ or "").strip() if cls.__doc__ != cls.__mro__[1].__doc__ else ""
        required = [name for name, info in cls.Params.model_fields.items() if info.is_required()]
        hooks = [name for name in _HOOKS if getattr(cls, name, None) is not getattr(cls.__mro__[-2], name, None)]
        found = {"card": card_data(cls), "doc": own[:1000], "modules": bases, "required": required, "hooks": hooks}
        return json.dumps(found | {"kind": kind})

    def _check(self, seal: str) -> str:
        """Check the entry in this process, send what is found, and say that this is all."""
        for each in self._checks(self._kind, self.cls):
            self.line.send({"finding": [each.name, each.status, each.what, each.todo]})
        return seal

    def _peak(self, reset: bool) -> int | None:
        """Of the memory of this process, which can read no file that tells it."""
        self.line.send({"peak": reset})
        found: int | None = self.line.receive()
        return found

    def _make(self, content: Any) -> dict[str, Any]:
        assert self.cls is not None
        torch.set_num_threads(content.get("threads", 1))
        params: Parameters = parse_parameters(self.cls.Params, json.loads(content["params"]), content["where"])
        self.entry = self.cls(params)
        if isinstance(self.entry, Defense):
            return {"on_flag": str(self.entry.on_flag)}
        return {"public_fraction": float(getattr(self.entry, "public_fraction", 0.0))}

    def _defend(self, hook: str, content: Any) -> Any:
        """What a hook of a defense returns; of rounds, what it notes is noted."""
        values = list(content["values"])
        if "draws" in content:
            self._generator.set_state(content["draws"])
        if "server" not in content:
            made = getattr(self.entry, hook)(*values, *([self._generator] if hook == "purify" else []))
            return list(map(str, made)) if hook == "warnings" else made
        seen = dict(content["server"])
        notes = RoundNotes() if seen.pop("notes") else None
        optimizer = _Optimizer(self.ask) if seen.pop("optimizer") else None
        described = seen.pop("model")
        model = None if described is None else structure.made(*described)
        server = ServerView(generator=self._generator, optimizer=optimizer, notes=notes, model=model, **seen)
        if hook in ("regularize", "client_update"):  # they are shown the parameters before the users
            values.insert(len(values) - 2, server.params)
        made = getattr(self.entry, hook)(*values, server)
        if notes is not None:
            self.noted = {"left_out": [list(each) for each in notes.left_out], "uniformity": notes.uniformity}
        return made

    def _see(self, static: Any, draws: torch.Tensor) -> None:
        self._generator.set_state(draws)
        if static is None:
            return
        surroundings = Surroundings(
            structure.made(*static["model"]),
            static["num_items"],
            static["num_malicious"],
            static["learning_rate"],
            static["aggregation"],
            static["targets"],
            torch.device("cpu"),
            self._generator,
            self.refused.append,
        )
        more = {name: static[name] for name in STATIC}
        self._view = AttackerView(self._card, surroundings, **more)

    def _state(self, seen: Any) -> RoundState:
        own = _OwnSteps(self.ask) if seen["own"] else None
        purify = functools.partial(self.ask, "purify") if seen["purify"] else None
        return RoundState(
            seen["params"], seen["clients"], seen["epoch"], seen["round"], own, seen["honest_updates"], purify
        )


STATIC = (
    "own_data", "item_popularity", "subgroup_items", "public_interactions", "cohort_size", "malicious_per_round",
)  # fmt: skip
"""What of a view stays the same from round to round."""
_HOOKS = ("start", "profiles", "craft", "perturb", *HOOKS)


class _Optimizer(ServerOptimizer):
    """How the server steps, which the run knows."""

    def __init__(self, ask: Any) -> None:
        self._ask = ask

    def step(self, params: PublicParams, gradient: PublicParams) -> PublicParams:
        raise ThreatModelViolation("a defense may ask how the server would step; it does not step.")

    def peek(self, params: PublicParams, ids: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self._ask("peek", ids, gradient)
        return found


class _OwnSteps:
    """Honest work on the attacker's own data, which the run does (:class:`fedbench.federation.view.OwnSteps`)."""

    def __init__(self, ask: Any) -> None:
        self._ask = ask

    @functools.cache  # noqa: B019 - it lives for a round
    def step(self) -> HonestStep:
        return self._ask("honest")

    @functools.cache  # noqa: B019
    def batch(self) -> Batch:
        return self._ask("own_batch")

    def users(self) -> torch.Tensor:
        return self._ask("own_users")

    def trained(self, batch: Batch, move: bool = False) -> Updates:
        return self._ask("trained", batch, move)

    def colluding(self, count: int) -> Updates:
        return self._ask("colluding", count)


def _described(error: Exception) -> dict[str, Any]:
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(FILE)]
    kind = next((each.__name__ for each in (UserError, ThreatModelViolation) if isinstance(error, each)), "")
    name = type(error).__name__ if not isinstance(error, FedbenchError) else ""
    return {"kind": kind, "name": name, "text": str(error)[:4000], "line": lines[-1] if lines else 0}
