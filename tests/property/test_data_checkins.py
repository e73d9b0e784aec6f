"""Check-ins restricted to lists, against a plain loop over the lines."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedbench.data.checkins import listed_checkins

ids = st.sampled_from(["0", "3", "17", "017", "x"])
lists = st.lists(ids, unique=True, min_size=1)
visits = st.tuples(ids, st.integers(0, 59), ids)
broken = st.sampled_from(["", "3\t17", "3\tyesterday\t0\t0\t17", "\t2010-10-01T00:00:00Z\t0\t0\t3"])


@given(st.lists(st.one_of(visits, broken), max_size=30), lists, lists)
def test_listed_check_ins_are_the_plain_loop(
    content: list[tuple[str, int, str] | str], users: list[str], items: list[str]
) -> None:
    lines: list[str] = []
    expected: list[tuple[int, int, int, int]] = []
    malformed = 0
    for entry in content:
        if isinstance(entry, str):
            lines.append(entry)
            malformed += bool(entry)
            continue
        user, second, item = entry
        lines.append(f"{user}\t2010-10-01T00:00:{second:02d}Z\t1.5\t-2.5\t{item}")
        if user in users and item in items:
            expected.append((users.index(user), second, len(lines), items.index(item)))
    data = "\n".join(lines).encode()
    with pytest.MonkeyPatch.context() as patch:
        # Small blocks, so that sound and malformed lines are in different ones.
        patch.setattr("fedbench.data.columns._BLOCK", 60)
        table = listed_checkins(data, "c.txt", pa.array(users), pa.array(items), skip_malformed=True)
    rows = table.parts["all"]
    found = list(zip(rows.user.tolist(), rows.item.tolist(), strict=True))
    assert found == [(user, item) for user, _, _, item in sorted(expected)]
    assert table.malformed == malformed
    assert (table.num_users, table.num_items) == (len(users), len(items))
