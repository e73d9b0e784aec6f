"""What the card of each kind of entry must be, for entries that were written elsewhere."""

from __future__ import annotations

import re
from typing import Any, Literal, get_args

from fedbench.data import DatasetCard
from fedbench.entries.cards import AttackCard, Channel, DefenseCard, Goal, Knowledge, ModelCard, Parameters
from fedbench.errors import UserError
from fedbench.models import MODELS

Kind = Literal["attack", "defense", "model", "dataset"]
KINDS: tuple[Kind, ...] = get_args(Kind)

LONGEST_NAME = 64
"""Characters of a name."""
NAMES = f"lower-case words joined by '-', of at most {LONGEST_NAME} characters"
"""What a name must be."""

_NAME = re.compile(r"[a-z0-9]+([._-][a-z0-9]+)*")


def is_name(text: str) -> bool:
    """Whether an entry can be called so: on its card, by ``fedbench new`` and in a bundle."""
    return len(text) <= LONGEST_NAME and bool(_NAME.fullmatch(text))


def check_card(kind: Kind, cls: type[Any], where: str) -> str:
    """The name on the card of ``cls``; raises :class:`UserError` when it has none, or one that is malformed."""
    place = f"{where}: class {cls.__name__}"
    cards: dict[Kind, type[Any]] = {
        "attack": AttackCard,
        "defense": DefenseCard,
        "model": ModelCard,
        "dataset": DatasetCard,
    }
    expected = cards[kind]
    own = [base for base in cls.__mro__ if base.__module__ == cls.__module__]
    card = next((vars(base)["card"] for base in own if "card" in vars(base)), None)
    if card is None:
        raise UserError(f"{place} has no card; give it `card = {expected.__name__}(name=..., title=..., ...)`.")
    if not isinstance(card, expected):
        raise UserError(
            f"{place}: card is {type(card).__name__}; {with_article(kind)} has a card of type {expected.__name__}."
        )
    for key, right, what in _CARD_FIELDS[kind]:
        if not right(getattr(card, key)):
            raise UserError(f"{place}: card: {key} = {getattr(card, key)!r} must be {what}.")
    missing = sorted(getattr(cls, "__abstractmethods__", ()))
    if missing:
        raise UserError(f"{place} lacks the method {missing[0]}(); every {kind} has {', '.join(missing)}.")
    if kind != "dataset" and not (isinstance(cls.Params, type) and issubclass(cls.Params, Parameters)):
        raise UserError(f"{place}: Params must be a subclass of fedbench.Parameters.")
    return str(card.name)


def with_article(kind: Kind) -> str:
    """``an attack``, ``a defense``."""
    return f"an {kind}" if kind == "attack" else f"a {kind}"


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _all_in(allowed: type[Any]) -> Any:
    """Whether a value is a frozenset of members of an enumeration."""
    return lambda value: isinstance(value, frozenset) and all(isinstance(each, allowed) for each in value)


def _models(value: object) -> bool:
    if value is None:
        return True
    known = set(MODELS.names())
    return isinstance(value, frozenset) and bool(value) and value <= known


_NAMED: list[tuple[str, Any, str]] = [
    (
        "name",
        lambda value: isinstance(value, str) and is_name(value),
        f"{NAMES}, such as 'my-method'",
    ),
    ("title", _is_text, "text"),
]
_METHOD: list[tuple[str, Any, str]] = [
    *_NAMED,
    ("paper", _is_text, "text"),
    ("notes", _is_text, "text"),
    ("version", lambda value: type(value) is int and value >= 1, "a whole number of at least 1"),
]
_MODELS: tuple[str, Any, str] = ("models", _models, "None (any model) or a frozenset of names of models")
_CARD_FIELDS: dict[Kind, list[tuple[str, Any, str]]] = {
    "attack": [
        *_METHOD,
        ("goal", lambda value: isinstance(value, Goal), "a Goal"),
        ("channel", lambda value: isinstance(value, Channel), "a Channel"),
        ("knowledge", _all_in(Knowledge), "a frozenset of Knowledge"),
        (
            "clients",
            lambda value: isinstance(value, frozenset) and bool(value) and value <= {"injected", "compromised"},
            "a frozenset of 'injected' and 'compromised'",
        ),
        _MODELS,
    ],
    "defense": [
        *_METHOD,
        ("family", _is_text, "a DefenseFamily"),
        (
            "knowledge",
            lambda value: isinstance(value, frozenset) and value <= {"malicious_ratio"},
            "frozenset() or frozenset({'malicious_ratio'})",
        ),
        ("assumes", _is_text, "text"),
        _MODELS,
    ],
    "model": _METHOD,
    "dataset": [*_NAMED, ("source", _is_text, "text"), ("licence", _is_text, "text"), ("citation", _is_text, "text")],
}
