from __future__ import annotations

import pytest

from fedbench.texts import hidden, visible

UNSEEN = {
    "escape": "\x1b",
    "right to left": "\u202e",
    "zero width": "\u200b",
    "line separator": "\u2028",
    "filler that Python takes for a letter": "\u3164",
    "filler of one jamo": "\u115f",
    "variation selector": "\ufe0f",
    "supplementary variation selector": "\U000e0100",
    "blank braille": "\u2800",
    "joiner of graphemes": "\u034f",
    "space that is not one": "\u00a0",
}


@pytest.mark.parametrize("character", UNSEEN.values(), ids=UNSEEN)
def test_what_cannot_be_seen_is_found_and_spelt_out(character: str) -> None:
    assert hidden(f"a{character}b") == f"U+{ord(character):04X}"
    assert hidden(f"a{character}b", allowed=character) == ""
    assert visible(f"a{character}b") == f"a{character.encode('unicode_escape').decode()}b"
    assert visible(f"a{character}b", kept=character) == f"a{character}b"


def test_what_can_be_seen_stays() -> None:
    text = "Zhang et al. (ICDE'24) é 中 한 λ ½ “x” ✓"
    assert (hidden(text), visible(text)) == ("", text)
    assert visible("abcdefgh", 7) == "abc ..."
