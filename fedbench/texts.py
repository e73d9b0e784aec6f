"""Texts of strangers: looked at for what cannot be seen, and spelt out where they are shown."""

from __future__ import annotations

import unicodedata


def visible(text: str, most: int | None = None) -> str:
    """The text with every character to be seen: what steers a terminal, or reorders text, is spelt out.

    Args:
        text: any. most: characters that are shown at most.
    """
    spelt = "".join(each if each.isprintable() else each.encode("unicode_escape").decode("ascii") for each in text)
    return spelt if most is None or len(spelt) <= most else f"{spelt[: most - 4]} ..."


def hidden(text: str, allowed: str = "") -> str:
    """The first character that is not what it seems, as ``U+202E``, or nothing.

    Control characters, invisible and directional ones (which can make a name or a line of code read as another), lone
    surrogates, and separators that break lines.
    """
    for each in text:
        if unicodedata.category(each) in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp") and each not in allowed:
            return f"U+{ord(each):04X}"
    return ""
