"""The manifest and the card of a bundle: what is claimed, in a form that is checked strictly."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from fedbench.entries.cards import LATER, AttackCard, Channel, DefenseCard, Goal, Knowledge, Parameters, parameter_docs
from fedbench.plugins.card_rules import NAMES, is_name
from fedbench.submission.container import MANIFEST
from fedbench.submission.report import Check, brief
from fedbench.texts import hidden

FORMAT = 1
"""Version of the bundle's form."""

Kind = Literal["attack", "defense"]


def _plain(text: str) -> str:
    found = hidden(text)
    if found:
        raise ValueError(f"holds the character {found}, which cannot be seen")
    return text


def _named(text: str) -> str:
    parts = text.split("/")  # an entry of a package is package/name
    if len(parts) > 2 or not all(map(is_name, parts)):
        raise ValueError(f"must be {NAMES}")
    return text


Name = Annotated[str, AfterValidator(_named)]
Digest = Annotated[str, Field(pattern=r"\A[0-9a-f]{64}\z")]
Line = Annotated[str, Field(max_length=300), AfterValidator(_plain)]
Text = Annotated[str, Field(max_length=4000), AfterValidator(_plain)]
Identifier = Annotated[str, Field(pattern=r"\A[A-Za-z][A-Za-z0-9_]*\z", max_length=64)]
ModuleName = Annotated[str, Field(pattern=r"\A[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*\z", max_length=200)]


class _Strict(BaseModel):
    """Nothing unknown, nothing converted."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Member(_Strict):
    """A file of the bundle."""

    sha256: Digest
    size: int = Field(ge=0)


class Manifest(_Strict):
    """What a bundle holds and claims."""

    format: Literal[1]
    kind: Kind
    name: Name
    suite: Name
    suite_version: int = Field(ge=1)
    only: list[Line] = Field(max_length=32)
    """Filters as ``--only`` takes them: the slice of the suite."""
    seeds: int | None = Field(ge=1, le=10_000)
    """So many seeds from 0 instead of the suite's own; a list would let one choose the lucky ones."""
    module: ModuleName
    """Under which name the runs imported the source."""
    modules: list[ModuleName] = Field(min_length=1, max_length=8)
    """Modules that the source hash of the records is made of: that one, and those of fedbench that it derives from."""
    fedbench_version: Line
    files: dict[str, Member]


class ParameterData(_Strict):
    """A parameter of an entry."""

    name: Identifier
    type: Line
    default: Any
    description: Text
    later: bool
    """Whether it counts for a scenario's id only when it differs from the default."""


class _CardData(_Strict):
    name: Name
    title: Annotated[Line, Field(min_length=1)]
    paper: Line
    models: list[Name] | None
    version: int = Field(ge=1, le=10_000)
    notes: Text
    class_name: Identifier
    parameters: list[ParameterData] = Field(max_length=64)


class AttackData(_CardData):
    """An :class:`AttackCard` and its parameters as data."""

    goal: Goal
    channel: Channel
    knowledge: list[Knowledge]
    clients: list[Literal["injected", "compromised"]]
    invents_users: bool

    def card(self) -> AttackCard:
        """The card."""
        return AttackCard(
            name=self.name,
            title=self.title,
            paper=self.paper,
            goal=self.goal,
            channel=self.channel,
            knowledge=frozenset(self.knowledge),
            clients=frozenset(self.clients),
            models=None if self.models is None else frozenset(self.models),
            invents_users=self.invents_users,
            version=self.version,
            notes=self.notes,
        )


class DefenseData(_CardData):
    """A :class:`DefenseCard` and its parameters as data."""

    family: Annotated[str, Field(pattern=r"\A[a-z]+(-[a-z]+)*\z", max_length=64)]
    knowledge: list[Annotated[str, Field(pattern=r"\A[a-z]+(_[a-z]+)*\z", max_length=64)]]
    assumes: Line
    needs_users: bool

    def card(self) -> DefenseCard:
        """The card."""
        return DefenseCard(
            name=self.name,
            title=self.title,
            paper=self.paper,
            family=self.family,
            knowledge=frozenset(self.knowledge),
            assumes=self.assumes,
            needs_users=self.needs_users,
            models=None if self.models is None else frozenset(self.models),
            version=self.version,
            notes=self.notes,
        )


CardData = AttackData | DefenseData


def card_data(cls: type[Any]) -> dict[str, Any]:
    """The card of an entry's class and its parameters as plain data."""
    card, params = cls.card, cls.Params
    fields = AttackData if isinstance(card, AttackCard) else DefenseData
    data = {name: _sorted(getattr(card, name)) for name in fields.model_fields if hasattr(card, name)}
    return data | {"class_name": cls.__name__, "parameters": parameters_data(params)}


def parameters_data(params: type[Parameters]) -> list[dict[str, Any]]:
    """Name, type, default, description of every parameter, and whether it came later."""
    fields = params.model_fields
    defaults = params.model_construct().model_dump(mode="json", warnings=False)
    return [
        {
            "name": doc.name,
            "type": doc.type,
            "default": defaults.get(doc.name),
            "description": doc.description,
            "later": fields[doc.name].json_schema_extra == LATER,
        }
        for doc in parameter_docs(params)
    ]


def _sorted(value: Any) -> Any:
    return sorted(map(str, value)) if isinstance(value, frozenset) else value


def canonical(value: Any) -> bytes:
    """The one JSON text of a value."""
    return (json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n").encode()


def digests(members: Mapping[str, bytes]) -> dict[str, dict[str, Any]]:
    """Hash and size of every member but the manifest."""
    return {
        name: {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
        for name, data in members.items()
        if name != MANIFEST
    }


def read_json(data: bytes, what: str, check: Check) -> Any:
    """A member that must be canonical JSON, or None with a reason."""
    try:
        value = json.loads(data.decode("utf-8"))
        if canonical(value) == data:
            return value
        check.refuse(f"{what}: not the JSON that `fedbench submit` writes.")
    except (ValueError, RecursionError) as error:
        check.refuse(f"{what}: not valid JSON: {error}.")
    return None


M = TypeVar("M", bound=BaseModel)


def parsed(model: type[M], data: bytes, what: str, check: Check) -> M | None:
    """A member as a strict model, or None with a reason for each mistake."""
    if read_json(data, what, check) is None:
        return None
    try:
        return model.model_validate_json(data)
    except (ValidationError, RecursionError) as error:
        for each in error.errors()[:6] if isinstance(error, ValidationError) else []:
            key = ".".join(map(str, each["loc"]))
            check.refuse(f"{what}: {key} = {brief(each.get('input'))}: {each['msg']}.")
        if isinstance(error, RecursionError):
            check.refuse(f"{what}: nested too deeply.")
        return None


def read_manifest(members: Mapping[str, bytes], check: Check) -> Manifest | None:
    """The manifest, if it is well formed and the hashes and sizes in it are those of the members."""
    value = read_json(members[MANIFEST], MANIFEST, check)
    if value is None:
        return None
    version = value.get("format") if isinstance(value, dict) else None
    if isinstance(version, int) and version > FORMAT:
        check.refuse(f"{MANIFEST}: format {version} is newer than this fedbench reads ({FORMAT}); update fedbench.")
        return None
    manifest = parsed(Manifest, members[MANIFEST], MANIFEST, check)
    if manifest is None:
        return None
    actual = digests(members)
    if set(manifest.files) != set(actual):
        check.refuse(f"{MANIFEST}: files must name {', '.join(sorted(actual))}.")
        return None
    for name, found in actual.items():
        stated = manifest.files[name]
        if stated.size != found["size"]:
            check.refuse(f"{name}: {found['size']:,} bytes, but the manifest states {stated.size:,}.")
        elif stated.sha256 != found["sha256"]:
            check.refuse(f"{name}: SHA-256 {found['sha256'][:12]}..., but the manifest states {stated.sha256[:12]}...")
    return manifest


def read_card(data: bytes, manifest: Manifest, what: str, check: Check) -> CardData | None:
    """The card, if it is well formed and that of the claimed entry."""
    model: type[AttackData] | type[DefenseData] = AttackData if manifest.kind == "attack" else DefenseData
    card = parsed(model, data, what, check)
    if card is not None and card.name != manifest.name and "/" not in manifest.name:
        check.refuse(f"{what}: the card of {card.name!r}, but the manifest claims {manifest.name!r}.")
    return card
