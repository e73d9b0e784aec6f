"""Texts of strangers: looked at for what cannot be seen, and spelt out where they are shown; data as JSON has them."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Mapping
from typing import Any

# Letters, marks and symbols without a picture; Python takes the fillers of Hangul for letters of a name.
_BLANK = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0").union(
    map(chr, (*range(0x180B, 0x1810), *range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0)))
)


def visible(text: str, most: int | None = None, kept: str = "") -> str:
    """The text with every character to be seen: what steers a terminal, or reorders text, is spelt out.

    Args:
        text: any. most: characters that are shown at most. kept: characters that are left as they are.
    """
    plain = text.isascii() and text.isprintable()
    spelt = text if plain else "".join(each if _is_seen(each) or each in kept else _escaped(each) for each in text)
    return spelt if most is None or len(spelt) <= most else f"{spelt[: most - 4]} ..."


def hidden(text: str, allowed: str = "") -> str:
    """The first character that is not what it seems, as ``U+202E``, or nothing.

    Control characters, invisible and directional ones (which can make a name or a line of code read as another), lone
    surrogates, separators that break lines, and spaces other than the usual one.
    """
    for each in text:
        unseen = each in _BLANK or unicodedata.category(each) in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp", "Zs")
        if unseen and each != " " and each not in allowed:
            return f"U+{ord(each):04X}"
    return ""


def finite(value: Any) -> Any:
    """Plain data as JSON has them: null in place of a number that is none, which strict readers refuse."""
    if isinstance(value, Mapping):
        return {str(key): finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def count(number: int, noun: str) -> str:
    """``1 run``, ``3,000 runs``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _is_seen(character: str) -> bool:
    return character.isprintable() and character not in _BLANK


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
