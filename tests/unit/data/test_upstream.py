from __future__ import annotations

import json

import numpy as np
import pytest

from fedbench.data.records import Table
from fedbench.data.upstream import amazon_table, core, gowalla_table, inter_table
from fedbench.errors import DataError


def pairs(table: Table) -> list[tuple[int, int]]:
    rows = table.parts["all"]
    return list(zip(rows.user.tolist(), rows.item.tolist(), strict=True))


def review(user: object, item: object, time: object) -> str:
    return json.dumps({"overall": 5.0, "reviewerID": user, "asin": item, "unixReviewTime": time, "reviewText": "a\tb"})


def test_amazon_reviews_are_ordered_by_time() -> None:
    text = "\n".join([review("U", "I1", 20), review("V", "I1", 5), review("U", "I2", 10), ""])
    table = amazon_table(text.encode(), "f.json")
    assert pairs(table) == [(0, 1), (0, 0), (1, 0)]
    assert table.ordered


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("{", "not a JSON review"),
        ("[1]", "not a JSON review"),
        ('{"reviewerID": "U", "asin": "I"}', "the review has no 'unixReviewTime'"),
        (review("", "I", 1), "not a JSON review"),
        (review("U", 3, 1), "not a JSON review"),
        (review("U", "I", "soon"), "not a JSON review"),
    ],
)
def test_malformed_review_is_refused_or_counted(line: str, what: str) -> None:
    data = f"{review('U', 'I', 1)}\n{line}\n".encode()
    with pytest.raises(DataError, match=r"^f\.json:2: ") as caught:
        amazon_table(data, "f.json")
    assert what in str(caught.value)
    assert "\n" not in str(caught.value)
    table = amazon_table(data, "f.json", skip_malformed=True)
    assert (len(table.parts["all"]), table.malformed) == (1, 1)


def checkins(users: range, places: range, day: int = 1) -> list[str]:
    """Every user at every place, latest first, as in the original file."""
    return [f"{u}\t2010-10-{day:02d}T00:{p:02d}:00Z\t1.5\t-2.5\t{p}" for u in users for p in reversed(places)]


def test_gowalla_keeps_first_visits_of_the_10_core() -> None:
    # 10 users x 10 places are a 10-core. User 77 visits 10 places, of which one has no other visitor: it is removed,
    # and with it that place. Repeated check-ins of a later day change nothing.
    lines = checkins(range(10), range(10), day=2) + checkins(range(10), range(10))
    lines += [*checkins(range(77, 78), range(9)), "77\t2010-10-01T00:00:00Z\t0\t0\tlonely"]
    table = gowalla_table("\r\n".join(lines).encode(), "checkins.txt")
    assert (table.num_users, table.num_items) == (10, 10)
    rows = table.parts["all"]
    assert rows.user.tolist() == [u for u in range(10) for _ in range(10)]
    # Indices are by first appearance in the file, which lists places 9 to 0; the order of time is 0 to 9.
    assert rows.item[:10].tolist() == list(reversed(range(10)))
    assert table.ordered
    assert table.notes == ("210 check-ins, 110 different (user, location) pairs, 100 of them in the 10-core",)


def test_gowalla_refuses_a_time_it_cannot_read() -> None:
    lines = [*checkins(range(1), range(2)), "0\t2010-13-01T00:00:00Z\t0\t0\t5"]
    with pytest.raises(DataError, match=r"^c\.txt:3: time '2010-13-01T00:00:00Z' is not of the form"):
        gowalla_table("\n".join(lines).encode(), "c.txt")


def test_core_cascades_and_may_be_empty() -> None:
    # A chain: removing user 0 (one row) leaves item 0 with one row, which leaves user 1 with one row, and so on.
    user, item = np.array([0, 1, 1, 2, 2]), np.array([0, 0, 1, 1, 2])
    assert not core(user, item, 2).any()
    square = core(np.append(user, [5, 5, 6, 6]), np.append(item, [7, 8, 7, 8]), 2)
    assert square.tolist() == [False] * 5 + [True] * 4


def test_inter_takes_columns_by_name() -> None:
    data = b"item_id:token\tuser_id:token\ttimestamp:float\textra:token_seq\nX\tA\t20.5\tp q\nY\tA\t10\t\n"
    with pytest.raises(DataError, match=r"^f\.inter:3: 2 fields"):
        inter_table(data.replace(b"Y\tA\t10\t\n", b"Y\tA\n"), "f.inter")
    table = inter_table(data, "f.inter")
    assert pairs(table) == [(0, 1), (0, 0)]
    assert table.ordered


def test_inter_without_timestamp_has_no_order() -> None:
    table = inter_table(b"user_id:token\titem_id:token\r\nA\tX\r\nB\tX\r\n", "f.inter")
    assert pairs(table) == [(0, 0), (1, 0)]
    assert not table.ordered


def test_inter_needs_user_and_item() -> None:
    with pytest.raises(DataError, match=r"^f\.inter:1: the header has no column 'item_id:token'"):
        inter_table(b"user_id:token\tmovie_id:token\nA\tX\n", "f.inter")
