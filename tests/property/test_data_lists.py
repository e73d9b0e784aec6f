"""The fast reader of list files against the obvious one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedbench.data.lists import read_lists
from fedbench.errors import DataError

tokens = st.one_of(st.integers(0, 2**31 + 5).map(str), st.sampled_from(["007", "x", "-1", "1.0", "9" * 12]))
lines = st.lists(st.tuples(st.lists(tokens, max_size=4), st.sampled_from([" ", "\t", "  "])), max_size=8)


def obvious(text: str) -> tuple[list[tuple[int, int]], list[int]]:
    """Rows, and numbers of the malformed lines."""
    found, bad = [], []
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.split()
        if all(word.isdigit() and int(word) <= 2**31 - 2 for word in words):
            found += [(int(words[0]), int(word)) for word in words[1:]]
        else:
            bad.append(number)
    return found, bad


@given(lines, st.sampled_from(["\n", "\r\n"]), st.booleans())
def test_reader_agrees_with_the_obvious_one(content: list[tuple[list[str], str]], end: str, last: bool) -> None:
    text = end.join(space.join(words) for words, space in content) + (end if last else "")
    expected, bad = obvious(text)
    rows, skipped = read_lists(text.encode(), "f", skip_malformed=True)
    assert list(zip(rows.user.tolist(), rows.item.tolist(), strict=True)) == expected
    assert skipped == len(bad)
    if bad:
        with pytest.raises(DataError, match=f"^f:{bad[0]}: "):
            read_lists(text.encode(), "f")
