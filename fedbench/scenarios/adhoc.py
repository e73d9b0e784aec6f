"""Scenarios without a suite file: the options of ``fedbench run`` as the content of one.

Where no protocol is named, it is that of the suite in which the published records compare entries of the kind
(:data:`WHY`), and targets are drawn for every seed, of the items that the attack is meant for.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedbench.attacks import ATTACKS
from fedbench.data import resolve
from fedbench.entries.cards import Goal
from fedbench.errors import UserError, unknown
from fedbench.models import MODELS
from fedbench.plugins import is_file
from fedbench.scenarios import protocols
from fedbench.scenarios.files import with_files
from fedbench.scenarios.given import entry_name
from fedbench.scenarios.settings import Kind, Settings, values_in
from fedbench.scenarios.suite import parse_seeds
from fedbench.scenarios.suite_file import SUITE_NAME

NAME = "ad-hoc"
RATIO = 0.05
WHY = {
    "icde24": "as in suite core",
    "aaai23": "as in suites core-untargeted and sasrec-targeted",
    "tois": "as in suite core-visual",
    "ijcai23": "the one that the model was published with",
}
"""Why a protocol is chosen."""


@dataclass(frozen=True)
class Options:
    """What was asked for, each a text with commas between several.

    Attributes:
        dataset, model, attack, defense: names of entries, or files. ratio: shares of malicious clients. protocol: names.
        seeds: as ``--seeds`` takes them. settings: as ``--set`` takes them.
    """

    dataset: str | None = None
    model: str | None = None
    attack: str | None = None
    defense: str | None = None
    ratio: str | None = None
    protocol: str | None = None
    seeds: str | None = None
    settings: Sequence[str] = ()


def suite_data(options: Options, file: Path | None = None) -> dict[str, Any]:
    """The content of a suite file that says the same; files of entries as they were given.

    Args:
        options: what was asked for. file: gives the suite its name; None: :data:`NAME`.

    Raises:
        UserError: something is missing, does not exist, or is no key of ``--set``.
    """
    if options.dataset is None or options.model is None:
        raise UserError(
            "name a suite (`fedbench list suites`), or say of what scenarios are made: --dataset and --model, then --attack,"
            " --defense, --ratio, --protocol and --set."
        )
    attacks = _listed(options.attack or "none", "attack")
    attacks = [each for each in attacks if each != "none"] or ["none"]  # clean runs come along as twins
    models, defenses = _listed(options.model, "model"), _listed(options.defense or "none", "defense")
    names: dict[Kind, dict[str, list[str]]] = {
        "attack": {each: [entry_name(each, "attack")] for each in attacks},
        "defense": {each: entry_name(each, "defense").split("+") for each in defenses},
        "model": {each: [entry_name(each, "model")] for each in models},
    }
    parts = {kind: [part for each in found.values() for part in each] for kind, found in names.items()}
    settings = Settings(options.settings, parts)
    chosen = None if options.protocol is None else _listed(options.protocol, "protocol")
    for each in chosen or ():
        if each not in protocols.names():
            raise unknown("protocol", each, protocols.names(), "See `fedbench list protocols`.")
    matrix: dict[str, list[Any]] = {
        "dataset": [each if is_file(each) else resolve(each).name for each in _listed(options.dataset, "dataset")],
        "malicious_ratio": _ratios(options.ratio),
        "protocol": chosen or [protocols.USUAL],
        "target": ["per-seed"],
        **{key: list(values) for key, values in settings.fields.items()},
        "protocol_params": list(settings.protocols()) if settings.protocol else [],
    }
    for kind, found in names.items():
        matrix[kind] = [
            _cell(kind, text, params, _of_attack(own[0], settings, chosen is None) if kind == "attack" else {})
            for text, own in found.items()
            for params in settings.parameters(kind, own)
        ]
    data: dict[str, Any] = {"name": _name(file), "version": 1, "title": "Scenarios of one command"}
    if options.seeds is not None:
        seeds = parse_seeds(options.seeds)
        data["seeds"] = len(seeds) if seeds == tuple(range(len(seeds))) else list(seeds)
    single = {key: values[0] for key, values in matrix.items() if len(values) == 1 and not _several(key, values[0])}
    data["defaults"] = single
    data["matrix"] = {key: values for key, values in matrix.items() if values and key not in single}
    # Above what attacks ask for, wherever a file has its keys.
    usual = {text: protocols.usual(MODELS.get(own[0])) for text, own in names["model"].items()}
    other = {text: name for text, name in usual.items() if name != protocols.USUAL} if chosen is None else {}
    data["override"] = [{"when": {"model": text}, "set": {"protocol": name}} for text, name in other.items()]
    return {key: value for key, value in data.items() if value not in ({}, [])}


def _several(key: str, value: Any) -> bool:
    """Whether a value sets several fields together, which only a matrix does."""
    return isinstance(value, Mapping) and not key.endswith("_params")


def _cell(kind: Kind, text: str, params: Mapping[str, Any], also: Mapping[str, Any]) -> Any:
    own = {f"{kind}_params": dict(params)} if params else {}
    return {kind: text, **also, **own} if also or own else text


def _of_attack(name: str, settings: Settings, protocol: bool) -> dict[str, Any]:
    """What an attack is measured on, where nothing is said: no target, a popular one, one that has an image."""
    card, found = ATTACKS.get(name).card, {}
    if protocol and card.goal == Goal.DEGRADE:
        found["protocol"] = "aaai23"
    if "target" in settings.fields:
        return found
    if card.goal == Goal.DEGRADE:
        found["target"] = "none"
    elif card.goal == Goal.DEMOTE:
        found["target"] = "per-seed-popular"
    elif card.channel.shows_images:
        found["target"] = "per-seed-with-image"
    return found


def _listed(text: str, option: str) -> list[str]:
    found = [part.strip() for part in text.split(",") if part.strip()]
    if not found:
        raise UserError(f"--{option} {text!r} names nothing.")
    return list(dict.fromkeys(found))


def _ratios(text: str | None) -> list[float]:
    if text is None:
        return [RATIO]
    found = values_in(text)
    if not found or not all(isinstance(each, int | float) and 0 <= each < 1 for each in found):
        raise UserError(f"--ratio {text!r} must be shares of malicious clients, such as 0.01,0.05 (1 % and 5 %).")
    return list(dict.fromkeys(map(float, found)))


def _name(file: Path | None) -> str:
    name = NAME if file is None else re.sub(r"[^a-z0-9._-]+", "-", file.stem.lower())
    return name if re.fullmatch(SUITE_NAME, name) else NAME


def save_suite(data: Mapping[str, Any], file: Path) -> str:
    """The text of a suite file; paths of entries as seen from its folder."""
    import tomli_w  # of this alone

    def moved(path: str, kind: str) -> str:
        seen = os.path.relpath(os.path.expanduser(path), file.parent)
        return Path(seen).as_posix() if seen.startswith("..") else f"./{Path(seen).as_posix()}"

    return tomli_w.dumps(with_files(data, moved))
