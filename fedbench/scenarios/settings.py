"""``--set KEY=VALUE``: values of protocols and of parameters, in the place of those that scenarios have."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import re
import tomllib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

from fedbench.errors import UserError, unknown
from fedbench.federation.protocol import Protocol
from fedbench.plugins import registry_of
from fedbench.scenarios.limits import check_size, check_values
from fedbench.scenarios.suite import Suite

Kind = Literal["model", "attack", "defense"]
KINDS: tuple[Kind, ...] = ("model", "attack", "defense")
FIELDS = ("target", "num_targets")
"""Fields of a scenario that can be set beside parameters."""


class Settings:
    """What ``--set`` says: fields of scenarios, of protocols, and parameters of entries, each with one value or several.

    Args:
        texts: ``KEY=VALUE`` or ``KEY=VALUE,VALUE`` each; a key is a field of the protocol, ``target``, ``num_targets``, or
            ``model.X``, ``attack.X``, ``defense.X``. Values are read as TOML has them, words also without quotes.
        names: the entries that there are, by kind; a chain by its parts.

    Raises:
        UserError: a text is not of that form, or a key is none that these entries have.
    """

    def __init__(self, texts: Iterable[str], names: Mapping[Kind, Collection[str]]) -> None:
        self.fields: dict[str, list[Any]] = {}
        self.protocol: dict[str, list[Any]] = {}
        self.of: dict[Kind, dict[str, list[Any]]] = {kind: {} for kind in KINDS}
        known = {kind: {key for name in names.get(kind, ()) for key in fields_of(kind, name)} for kind in KINDS}
        everything = [*FIELDS, *Protocol.model_fields, *(f"{kind}.{key}" for kind in KINDS for key in known[kind])]
        for text in texts:
            key, equals, value = (part.strip() for part in text.partition("="))
            if not (key and equals and value):
                raise UserError(
                    f"--set {text!r} must be KEY=VALUE, such as learning_rate=0.5 or model.embedding_size=64."
                )
            key = key.removeprefix("protocol.")
            kind, _, own = key.partition(".")
            values = values_in(value)
            check_values({f"--set {key}"[:100]: values})
            if key in FIELDS:
                self.fields[key] = values
            elif key in Protocol.model_fields:
                self.protocol[key] = values
            elif kind in KINDS and own in known[kind]:
                self.of[kind][own] = values
            elif kind in KINDS:
                hint = [f"`fedbench show {name}` lists them." for name in names.get(kind, ())]
                raise unknown(f"{kind} parameter of --set", own, known[kind], hint[0] if len(hint) == 1 else "")
            else:
                raise unknown("key of --set", key, everything)

    def parameters(self, kind: Kind, names: Sequence[str]) -> Iterator[dict[str, Any]]:
        """The parameters of an entry, or of the parts of a chain, by their names: of each combination of the values."""
        own = {
            (name, key): values
            for name in names
            for key, values in self.of[kind].items()
            if key in fields_of(kind, name)
        }
        for chosen in itertools.product(*own.values()):
            found: dict[str, Any] = {}
            for (name, key), value in zip(own, chosen, strict=True):
                (found.setdefault(name, {}) if len(names) > 1 else found)[key] = value
            yield found

    def protocols(self) -> Iterator[dict[str, Any]]:
        """The fields of the protocol, of each combination of the values."""
        yield from combinations(self.protocol)


def with_settings(suite: Suite, texts: Sequence[str]) -> Suite:
    """The suite with these values in the place of those that its scenarios have; what an entry does not take it is spared.

    Raises:
        UserError: as :class:`Settings`; or a value that does not fit.
    """
    planned = suite.scenarios
    names: dict[Kind, set[str]] = {
        kind: {part for each in planned for part in getattr(each.scenario, kind).split("+")} for kind in KINDS
    }
    settings = Settings(texts, names)
    found = []
    for each in planned:
        scenario = each.scenario
        ways: list[list[dict[str, Any]]] = [
            list(combinations(settings.fields)),
            [{"protocol_params": {**scenario.protocol_params, **values}} for values in settings.protocols()],
        ]
        for kind in KINDS:
            before = getattr(scenario, f"{kind}_params")
            parts = getattr(scenario, kind).split("+")
            ways.append([{f"{kind}_params": _over(before, own)} for own in settings.parameters(kind, parts)])
        for chosen in itertools.product(*ways):
            changed = dataclasses.replace(scenario, **{key: value for way in chosen for key, value in way.items()})
            _ = changed.id  # resolves every value
            found.append(dataclasses.replace(each, scenario=changed))
        check_size(len(found), suite.file)
    return suite.with_scenarios(found)


def combinations(values: Mapping[str, Sequence[Any]]) -> Iterator[dict[str, Any]]:
    """Every choice of one value for each key."""
    for chosen in itertools.product(*values.values()):
        yield dict(zip(values, chosen, strict=True))


def fields_of(kind: Kind, name: str) -> Collection[str]:
    """The parameters that an entry takes."""
    fields: Collection[str] = registry_of(kind).get(name).Params.model_fields
    return fields


def values_in(text: str) -> list[Any]:
    """``.1,.5`` -> [0.1, 0.5]; ``xavier`` -> ["xavier"]; ``[64, 32]`` -> [[64, 32]]."""
    plain = re.sub(r"(?<![\w.])\.(?=[0-9])", "0.", text)
    with contextlib.suppress(tomllib.TOMLDecodeError, RecursionError):
        return list(tomllib.loads(f"x = [{plain}]")["x"])
    found: list[Any] = []
    for part in plain.split(","):
        try:
            found.append(tomllib.loads(f"x = {part}")["x"])
        except (tomllib.TOMLDecodeError, RecursionError):
            found.append(part.strip())
    return found


def _over(before: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """``own`` above ``before``; of chains part by part."""
    merged = {**before, **own}
    for key, value in own.items():
        below = before.get(key)
        if isinstance(value, Mapping) and isinstance(below, Mapping):
            merged[key] = {**below, **value}
    return merged
