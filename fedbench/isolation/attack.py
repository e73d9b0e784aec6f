"""An attack that lives in a process of its own, as the run sees it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from fedbench.entries.cards import Knowledge
from fedbench.errors import UserError
from fedbench.federation.attack import Attack
from fedbench.federation.images import ItemImages, ReplacedImages
from fedbench.federation.updates import Updates
from fedbench.federation.view import AttackerView, Profiles
from fedbench.isolation import structure
from fedbench.isolation.home import Home, Process
from fedbench.isolation.looking import Looking
from fedbench.isolation.wire import Broken
from fedbench.texts import visible


@dataclass(frozen=True)
class Told:
    """What the process of an attack says that it did in the last call. Whoever hides some of it has gained nothing by it.

    Attributes:
        used: knowledge that it asked for and has. changed: what it changed of what it was shown.
        moved: random generators that everybody shares, which it drew from.
    """

    used: frozenset[Knowledge] = frozenset()
    changed: str = ""
    moved: tuple[str, ...] = ()

    @classmethod
    def read(cls, noted: Any) -> Told:
        """Out of an answer."""
        match noted:
            case {"used": tuple(used), "changed": str(changed), "moved": tuple(moved)}:
                names = tuple(visible(str(each), 40) for each in moved)
                return cls(frozenset(each for each in Knowledge if each in used), visible(changed, 200), names)
        return cls()


class RemoteAttack(Attack):
    """Stands for a class that this process has not imported: its card and parameters are its own, its work is done there.

    What the other process may ask for it asks of the view, which grants what the card declares; what it returns passes
    the same boundary as an attack's of this process.
    """

    home: ClassVar[Home]
    sources: ClassVar[list[tuple[str, str]]]
    """The modules that the class and those that it derives from are written in, with their texts."""
    threads: ClassVar[int] = 1
    """So many its process computes with."""

    def __init__(self, params: Any) -> None:
        super().__init__(params)
        self._process: Process = self.home.start()
        self.isolation = self._process.level
        values = json.dumps(params.model_dump(mode="json"))
        wanted = {"params": values, "where": f"attack {self.card.name!r}", "threads": self.threads}
        made = self._process.call("make", wanted)
        if not isinstance(made, dict) or type(made.get("public_fraction")) is not float:
            raise UserError(f"attack {self.card.name!r}: public_fraction must be a number.")
        self.public_fraction = made["public_fraction"]
        if self.public_fraction != getattr(params, "public_fraction", 0.0):
            raise UserError(
                f"attack {self.card.name!r}: public_fraction = {self.public_fraction:g} must be the value of a parameter of"
                " that name, so that records say how much it knows."
            )
        self._known: tuple[object, object] = (None, None)
        self._images: ItemImages | None = None
        self.told = Told()

    def start(self, view: AttackerView) -> None:
        self._call("start", view)

    def profiles(self, view: AttackerView) -> Profiles | None:
        made: Profiles | None = self._call("profiles", view)
        return made

    def craft(self, view: AttackerView) -> Updates:
        made: Updates = self._call("craft", view)
        return made

    def perturb(self, images: ItemImages, view: AttackerView) -> ReplacedImages | None:
        made: ReplacedImages | None = self._call("perturb", view, images)
        return made

    def _call(self, method: str, view: AttackerView, images: ItemImages | None = None) -> Any:
        content: dict[str, Any] = {"draws": view.generator.get_state(), "round": _round(view), "static": None}
        seen: tuple[object, object] = (view._surroundings, view._own_data)
        if any(now is not then for now, then in zip(seen, self._known, strict=True)):
            content["static"], self._known = _static(view), seen
        if images is not None and images is not self._images:
            content["images"] = {"pixels": images.pixels, "there": images.there, "missing": images.missing}
            self._images = images
        looking = None if images is None else Looking(images)
        made = self._process.call(method, content, lambda name, values: _asked(view, looking, name, values), view)
        self.told = Told.read(self._process.noted)
        return made

    def peak(self, reset: bool) -> int | None:
        """Bytes of memory that its process had at most; see :meth:`Process.peak`."""
        return self._process.peak(reset)


def _static(view: AttackerView) -> dict[str, Any]:
    """What of the view stays the same from round to round, as far as the card grants it."""
    model = view.model
    described = structure.told(model)
    if described is None:
        raise UserError(f"model {model.card.name!r} is not one of fedbench's; isolated entries run with these alone.")
    return {
        "model": described,
        "num_items": view.num_items,
        "num_malicious": view.num_malicious,
        "learning_rate": view.learning_rate,
        "aggregation": view.aggregation,
        "targets": view.targets,
        "own_data": view._own_data,
        "item_popularity": view._item_popularity,
        "subgroup_items": view._subgroup_items,
        "public_interactions": view._public_interactions,
        "cohort_size": view._cohort_size,
        "malicious_per_round": view._malicious_per_round,
    }


def _round(view: AttackerView) -> dict[str, Any] | None:
    state = view._state
    if state is None:
        return None
    return {
        "params": state.params,
        "clients": state.clients,
        "epoch": state.epoch,
        "round": state.round,
        "own": state.own is not None,
        "honest_updates": state.honest_updates,
        "purify": state.purify is not None,
    }


def _asked(view: AttackerView, looking: Looking | None, name: str, values: tuple[Any, ...]) -> Any:
    """What the view answers to a question; it refuses what the card does not declare."""
    match name, values:
        case "honest", ():
            return view.honest()
        case "own_batch", ():
            return view.own_batch
        case "own_users", ():
            return view.own_users
        case "trained", (batch, bool(move)):
            return view.trained(batch, move)
        case "colluding", (int(count),) if type(count) is int and 0 <= count < 1 << 31:
            return view.colluding(count)
        case "purify", (torch.Tensor() as pixels,):
            return view.purify(looking.checked(pixels, torch.uint8) if looking else pixels)
        case "features", (torch.Tensor() as pixels, bool(more)) if looking:
            return looking.features(pixels, more)
        case "pull", (torch.Tensor() as pixels, torch.Tensor() as gradient) if looking:
            return looking.pull(pixels, gradient)
    raise Broken("it asked for what there is not")
