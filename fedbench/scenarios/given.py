"""A scenario as a person writes it in Python: entries may be files or classes of one's own."""

from __future__ import annotations

import os
from collections.abc import Mapping
from os import PathLike
from typing import Any

from fedbench.errors import UserError
from fedbench.plugins import Kind, is_file, load_file, named, register_class
from fedbench.scenarios import scenario

EntryLike = str | PathLike[str] | type[Any]
"""``"pieck-uea"``, ``"./my_attack.py"`` or ``MyAttack``; of defenses also names and files joined by ``+``."""

NOTHING: Mapping[str, Any] = {}


class Scenario(scenario.Scenario):
    """One experiment, complete but for its seed. Parameters hold only what differs from the defaults.

    It is a :class:`fedbench.scenarios.scenario.Scenario`, whose fields are names alone: what is read from records and bundles
    is one of those, and loads no file. A suite file that is named by its path may name files, which are loaded.

    Args:
        dataset, model, attack, defense: each the name of an entry, a file that defines one, or its class.
        malicious_ratio: malicious clients / genuine users of the dataset, from 0 to below 1.
        protocol: how the federation is set up (`fedbench list protocols`).
        target: which items are promoted or demoted: ``random:K``, ``random-popular:K``, ``per-seed``, ``per-seed-popular``,
            ``least-popular``, ``most-popular``, ``fixed:ITEM[,ITEM...]``, or ``none``.
        num_targets: how many targets a policy chooses.
        model_params, attack_params, defense_params, protocol_params: what differs from the defaults; for a chain of
            defenses one mapping for each part, by its name.

    Raises:
        UserError: a value that no scenario has, or a file or class that is no such entry.
    """

    def __init__(
        self,
        dataset: EntryLike,
        model: EntryLike,
        attack: EntryLike = "none",
        defense: EntryLike = "none",
        malicious_ratio: float = 0.0,
        protocol: str = "icde24",
        target: str = "random:0",
        num_targets: int = 1,
        model_params: Mapping[str, Any] = NOTHING,
        attack_params: Mapping[str, Any] = NOTHING,
        defense_params: Mapping[str, Any] = NOTHING,
        protocol_params: Mapping[str, Any] = NOTHING,
    ) -> None:
        super().__init__(
            entry_name(dataset, "dataset"),
            entry_name(model, "model"),
            entry_name(attack, "attack"),
            entry_name(defense, "defense"),
            malicious_ratio,
            protocol,
            target,
            num_targets,
            model_params,
            attack_params,
            defense_params,
            protocol_params,
        )
        if any(isinstance(each, type) for each in (model, attack, defense)):
            _ = self.resolved  # holds on to the classes, should others of their names be given later


def entry_name(given: object, kind: Kind) -> str:
    """The name of an entry: a file is loaded, a class is registered.

    Raises:
        UserError: what is given is neither, and no name; a file or class that is no such entry; or a name that does not
            exist (those of datasets are looked up when they are loaded).
    """
    if isinstance(given, type):
        return register_class(given, kind)
    if not isinstance(given, str | PathLike):
        raise UserError(f"scenario: {kind} = {given!r} must be a string, a file or a class.")
    text = os.path.expanduser(os.fsdecode(given))
    if isinstance(given, PathLike) or (is_file(text) and os.path.isfile(text)):
        return load_file(text, kind).name
    if kind == "dataset" and not is_file(text):
        return text
    return "+".join(named(part, kind) for part in (text.split("+") if kind == "defense" else [text]))
