"""Cards: what an attack, a defense or a model says of itself, and the parameters that it takes."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Self, TypeVar
from weakref import WeakKeyDictionary

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from fedbench.errors import UserError, unknown
from fedbench.texts import visible

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails


class Parameters(BaseModel):
    """Base of every set of parameters: frozen, no unknown keys, a description (with its source) under each field."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False, allow_inf_nan=False)

    @model_validator(mode="after")
    def _within_what_tensors_hold(self) -> Self:
        """Whole numbers below 2^31, others at most 1e30 (float32 ends at 3.4e38), texts and lists of at most 1,000."""
        for name in type(self).model_fields:
            value = getattr(self, name)
            for each in value if isinstance(value, list | tuple) else (value,):
                limit = 2**31 - 1 if isinstance(each, int) else 1e30
                if isinstance(each, int | float) and abs(each) > limit:
                    raise PydanticCustomError("too_large", f"parameter {name}: at most {limit:g} in size")
            if isinstance(value, str | list | tuple) and len(value) > 1_000:
                raise PydanticCustomError("too_long", f"parameter {name}: longer than 1,000")
        return self


LATER: dict[str, Any] = {"id": "unless default"}
"""``json_schema_extra`` of a parameter that a method got after runs had been published: see :func:`identifying`."""


def identifying(params: Parameters) -> dict[str, Any]:
    """The parameters that tell experiments apart, as plain data.

    All of them, but for those marked :data:`LATER` while they have their default: a method that gains a parameter
    computes what it computed before, so its scenarios keep their ids.
    """
    values = params.model_dump(mode="json")
    fresh = [name for name, info in type(params).model_fields.items() if info.json_schema_extra == LATER]
    defaults = {name: type(params).model_fields[name].default for name in fresh}
    return {name: value for name, value in values.items() if name not in defaults or value != defaults[name]}


class NoParameters(Parameters):
    """For entries that take none."""


class Goal(enum.StrEnum):
    """What an attack wants."""

    NONE = "none"
    PROMOTE = "promote"
    DEMOTE = "demote"
    DEGRADE = "degrade"


class Channel(enum.StrEnum):
    """Through what the malicious clients act."""

    NONE = "none"
    GRADIENT = "gradient"
    PROFILE = "profile"
    IMAGE = "image"
    """Images that are shown of the targets by whoever provides them; it has no clients."""
    IMAGE_AND_GRADIENT = "image+gradient"
    """Both at once."""

    @property
    def shows_images(self) -> bool:
        """Whether images are replaced."""
        return self in (Channel.IMAGE, Channel.IMAGE_AND_GRADIENT)

    @property
    def sends_gradients(self) -> bool:
        """Whether its clients' uploads are made by the attack."""
        return self in (Channel.GRADIENT, Channel.IMAGE_AND_GRADIENT)


class Knowledge(enum.StrEnum):
    """What an attacker may know beyond the public parameters of the rounds in which its clients were sampled."""

    OWN_DATA = "own_data"
    """Its clients' own interactions and the honest updates computed from them."""
    ITEM_POPULARITY = "item_popularity"
    """Number of interactions of every item."""
    PUBLIC_INTERACTIONS = "public_interactions"
    """A public share of every user's training interactions, and the number of users."""
    COHORT_SIZE = "cohort_size"
    """How many clients a round samples and how many of them are expected to be malicious."""
    HONEST_UPDATES = "honest_updates"
    """What the honest clients of the round upload, before it is made: an omniscient attacker."""
    SUBGROUP_ITEMS = "subgroup_items"
    """The items by which the protocol's subgroup of users is known: all of them have all of these."""
    DEFENSE = "defense"
    """The server's defense and its parameters: another one like it, with no memory of the real rounds and other random draws,
    can be run on the attacker's own images and on uploads of its own clients."""


class DefenseFamily(enum.StrEnum):
    """By what means a defense works."""

    NONE = "none"
    AGGREGATION = "aggregation"
    """The server replaces the sum or mean by a robust rule."""
    CLIPPING = "clipping"
    """The server bounds how much an upload, or an item's update, can move."""
    CLIENT_SIDE = "client-side"
    """Honest clients change what they train or send."""
    FILTER = "filter"
    """The server drops whole clients."""
    PURIFICATION = "purification"
    """The server cleans every image before it becomes features."""


@dataclass(frozen=True)
class AttackCard:
    """The identity and the threat model of an attack."""

    name: str
    title: str
    paper: str
    goal: Goal
    channel: Channel
    knowledge: frozenset[Knowledge] = frozenset()
    clients: frozenset[str] = frozenset({"injected", "compromised"})
    models: frozenset[str] | None = None
    """Names of the models it applies to; None: any."""
    invents_users: bool = False
    """Whether it works with users' embeddings of its own making; models that know users by their histories have none."""
    version: int = 1
    """Raised whenever a change of code moves its numbers."""
    notes: str = ""


@dataclass(frozen=True)
class DefenseCard:
    """The identity of a defense, and what it assumes."""

    name: str
    title: str
    paper: str
    family: str = DefenseFamily.NONE
    """One of :class:`DefenseFamily`; for a chain, those of its parts joined by ``+``."""
    knowledge: frozenset[str] = frozenset()
    """What the server must know, for example ``malicious_ratio``; what is not declared here is withheld."""
    assumes: str = "nothing"
    """What the defense takes for the number of attackers, and from where: given, estimated, or a stated share."""
    models: frozenset[str] | None = None
    needs_users: bool = False
    """Whether it works on users' embeddings; models that know users by their histories have none."""
    version: int = 1
    notes: str = ""


@dataclass(frozen=True)
class NetworkCard:
    """The identity of something that computes and has no threat model."""

    name: str
    title: str
    paper: str
    version: int = 1
    notes: str = ""


class ModelCard(NetworkCard):
    """The identity of a recommender."""


class ExtractorCard(NetworkCard):
    """The identity of a frozen network that turns images into features."""


class DenoiserCard(NetworkCard):
    """The identity of a network, or a formula, that predicts the noise in an image."""


Card = TypeVar("Card", AttackCard, DefenseCard)
_DECLARED: WeakKeyDictionary[type, Any] = WeakKeyDictionary()


def declared(cls: type[Any], kind: type[Card]) -> Card:
    """The card of a class as it was when it was first asked for: what is enforced, recorded and shown.

    A copy of plain values. Whatever becomes of the class's card, of an instance's, or of the objects on it changes nothing.

    Raises:
        UserError: the card is not exactly a ``kind``, or something on it is neither text, a number, nor one of the
            enumerations of this module, or a frozenset of these.
    """
    if cls not in _DECLARED:
        _DECLARED[cls] = plain_card(cls.card, kind, f"class {cls.__name__}")
    found: Card = _DECLARED[cls]
    return found


def plain_card(card: object, kind: type[Card], where: str) -> Card:
    """A copy of ``card`` in plain values; raises :class:`UserError` as :func:`declared` does."""
    if type(card) is not kind:
        raise UserError(f"{where}: card must be a plain {kind.__name__}, and of no class derived from it.")
    return kind(**{each.name: _plain(getattr(card, each.name), f"{where}: card: {each.name}") for each in fields(kind)})


def _plain(value: object, where: str) -> Any:
    kind = type(value)
    if value is None or kind in (bool, str, int, Goal, Channel, Knowledge, DefenseFamily):
        return value
    if kind is frozenset:
        return frozenset(_plain(each, where) for each in value)  # type: ignore[attr-defined]
    raise UserError(f"{where} must be plain text, a number, one of the enumerations of cards, or a frozenset of these.")


P = TypeVar("P", bound=Parameters)


def parse_parameters(cls: type[P], values: Mapping[str, Any], where: str) -> P:
    """``cls(**values)`` with a one-line :class:`UserError` that names the key when a value does not fit.

    Args:
        cls: the parameters' class.
        values: what the user gave.
        where: what the message calls it: ``"attack 'pieck-uea'"``.
    """
    try:
        return cls(**values)
    except ValidationError as error:
        errors = error.errors()
        first = errors[0]
        if not first["loc"]:  # a check of several parameters, which names them
            raise UserError(f"{where}: {_said(first)}.") from None
        key = str(first["loc"][0])
        if first["type"] == "extra_forbidden":
            raise unknown(f"parameter of {where}:", key, cls.model_fields) from None
        # A value that may be of several kinds has a message for each.
        texts = dict.fromkeys(_said(each) for each in errors if each["loc"][:1] == first["loc"][:1])
        given = f" = {visible(repr(values[key]), 80)}" if key in values else ""
        raise UserError(f"{where}: parameter {key}{given}: {'; '.join(texts)}.") from None


def _said(error: ErrorDetails) -> str:
    return error["msg"].removeprefix("Value error, ")


@dataclass(frozen=True)
class ParameterDoc:
    """One parameter as ``fedbench show`` prints it."""

    name: str
    type: str
    default: Any
    description: str = field(default="")


def parameter_docs(cls: type[Parameters]) -> list[ParameterDoc]:
    """Name, type, default and description of every field of ``cls``, in order."""
    docs = []
    for name, info in cls.model_fields.items():
        annotation = info.annotation
        kind = annotation.__name__ if isinstance(annotation, type) else str(annotation).replace("typing.", "")
        docs.append(ParameterDoc(name, kind, info.get_default(call_default_factory=True), info.description or ""))
    return docs
