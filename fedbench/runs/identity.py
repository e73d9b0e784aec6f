"""What is known of a run before it runs: its scenario and twins, its methods, their versions and sources."""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import json
import sys
from types import CodeType, FunctionType
from typing import Any

from fedbench.entries.cards import AttackCard, declared, identifying
from fedbench.federation.defense import card_of
from fedbench.isolation.entries import REMOTE
from fedbench.plugins import module_source
from fedbench.scenarios.scenario import Scenario


def identity(scenario: Scenario, seed: int, suite: str | None) -> dict[str, Any]:
    """The columns of a record that are known before it runs."""
    r = scenario.resolved
    card = declared(r.attack_class, AttackCard)
    defense = card_of(r.defense())
    return {
        "scenario_id": scenario.id,
        "clean_id": scenario.clean.id,
        "undefended_id": scenario.undefended.id,
        "baseline_id": scenario.clean.undefended.id,
        "scenario_json": scenario.key,
        "suite": suite,
        "model": scenario.model,
        "model_version": r.model.card.version,
        "model_params": _json(identifying(r.model.params)),
        "model_source_hash": source_hash(type(r.model)),
        "attack": scenario.attack,
        "attack_version": card.version,
        "attack_goal": str(card.goal),
        "attack_channel": str(card.channel),
        "attack_knowledge": sorted(card.knowledge),
        "attack_params": _json(identifying(r.attack_params)),
        "attack_source_hash": source_hash(*filter(None, (r.attack_class, r.attack_class.tunes))),
        "defense": scenario.defense,
        # A chain's rises with that of any of its parts.
        "defense_version": 1 + sum(cls.card.version - 1 for cls, _ in r.defenses),
        "defense_family": str(defense.family),
        "defense_knowledge": sorted(map(str, defense.knowledge)),
        "defense_assumes": defense.assumes,
        "defense_params": _json({cls.card.name: identifying(params) for cls, params in r.defenses}),
        "defense_source_hash": source_hash(*(cls for cls, _ in r.defenses)),
        "malicious_ratio": scenario.malicious_ratio,
        "protocol": scenario.protocol,
        "protocol_params": _json(identifying(r.protocol)),
        "target": scenario.target,
        "seed": seed,
    }


def source_hash(*classes: type) -> str:
    """SHA-256 of the files in which the classes, and those that they derive from, are written.

    Of a class that is in no file, as in a notebook, the text of its methods; at a prompt that keeps none, their code.
    """
    bases = {base for cls in classes if not issubclass(cls, REMOTE) for base in cls.__mro__ if base is not object}
    texts = {pair for cls in classes if issubclass(cls, REMOTE) for pair in cls.sources}
    sources = sorted(texts | {(base.__module__, _source(base)) for base in bases})
    return hashlib.sha256(json.dumps(sources).encode()).hexdigest()


def _source(cls: type) -> str:
    module = sys.modules.get(cls.__module__)
    if module is not None:
        with contextlib.suppress(OSError, TypeError):
            return module_source(module)
    return "\n".join([cls.__qualname__, *(_text(each) for each in vars(cls).values() if inspect.isfunction(each))])


def _text(function: FunctionType) -> str:
    try:
        return inspect.getsource(function)
    except (OSError, TypeError):
        return f"{function.__name__} {_code(function.__code__)}"


def _code(code: CodeType) -> str:
    """Instructions, names and constants; code within the code likewise, and not where it lies in memory."""
    constants = [_code(each) if isinstance(each, CodeType) else repr(each) for each in code.co_consts]
    return f"{code.co_code.hex()} {code.co_names} {constants}"


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True)
