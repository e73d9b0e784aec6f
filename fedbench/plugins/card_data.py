"""The card and the parameters of an attack or a defense as plain data, in a form that is checked strictly."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, create_model
from pydantic.fields import FieldInfo

from fedbench.entries.cards import LATER, AttackCard, Channel, DefenseCard, Goal, Knowledge, Parameters, parameter_docs
from fedbench.errors import UserError
from fedbench.plugins.card_rules import NAMES, is_name
from fedbench.texts import hidden


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


C = TypeVar("C", AttackCard, DefenseCard)


class Strict(BaseModel):
    """Nothing unknown, nothing converted."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class ParameterData(Strict):
    """A parameter of an entry."""

    name: Identifier
    type: Line
    default: Any
    description: Text
    later: bool
    """Whether it counts for a scenario's id only when it differs from the default."""


class _CardData(Strict):
    name: Name
    title: Annotated[Line, Field(min_length=1)]
    paper: Line
    models: list[Name] | None
    version: int = Field(ge=1, le=10_000)
    notes: Text
    class_name: Identifier
    parameters: list[ParameterData] = Field(max_length=64)

    def _of(self, cls: type[C]) -> C:
        """The card of the fields of these names, with sets for lists."""
        values: dict[str, Any] = {each.name: getattr(self, each.name) for each in dataclasses.fields(cls)}
        values |= {name: frozenset(value) for name, value in values.items() if isinstance(value, list)}
        return cls(**values)


class AttackData(_CardData):
    """An :class:`AttackCard` and its parameters as data."""

    goal: Goal
    channel: Channel
    knowledge: list[Knowledge]
    clients: list[Literal["injected", "compromised"]]
    invents_users: bool

    def card(self) -> AttackCard:
        """The card."""
        return self._of(AttackCard)


class DefenseData(_CardData):
    """A :class:`DefenseCard` and its parameters as data."""

    family: Annotated[str, Field(pattern=r"\A[a-z]+(-[a-z]+)*\z", max_length=64)]
    knowledge: list[Annotated[str, Field(pattern=r"\A[a-z]+(_[a-z]+)*\z", max_length=64)]]
    assumes: Line
    needs_users: bool

    def card(self) -> DefenseCard:
        """The card."""
        return self._of(DefenseCard)


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


class _Declared(Parameters):
    model_config = ConfigDict(protected_namespaces=())


_TYPES: dict[str, Any] = {
    "float": float,
    "int": int,
    "bool": bool,
    "str": str,
    "float | None": float | None,
    "int | None": int | None,
    "str | None": str | None,
    "int | float": int | float,
}
"""Types as ``parameter_docs`` names them; whole numbers for floats become floats, the rest stay."""


def declared_parameters(data: CardData) -> type[Parameters]:
    """A class with the parameters of ``data``, without their bounds.

    Raises:
        UserError: a name that occurs twice, or is one of pydantic's.
    """
    fields: dict[str, Any] = {}
    for each in data.parameters:
        if each.name in fields or hasattr(BaseModel, each.name):
            raise UserError(f"parameter {each.name!r} occurs twice or is a name of pydantic's.")
        extra = LATER if each.later else None
        info = FieldInfo(default=each.default, description=each.description, json_schema_extra=extra)
        fields[each.name] = (_TYPES.get(each.type, Any), info)
    return create_model("Params", __base__=_Declared, **fields)
