from __future__ import annotations

import json

import pytest

from fedbench.data.records import Table
from fedbench.data.tables import read_table
from fedbench.data.upstream import json_table
from fedbench.errors import DataError


def pairs(table: Table) -> list[tuple[int, int]]:
    rows = table.parts["all"]
    return list(zip(rows.user.tolist(), rows.item.tolist(), strict=True))


def review(user: object, item: object, time: object) -> str:
    return json.dumps({"overall": 5.0, "reviewerID": user, "asin": item, "unixReviewTime": time, "reviewText": "a\tb"})


def test_amazon_reviews_are_ordered_by_time() -> None:
    text = "\n".join([review("U", "I1", 20), review("V", "I1", 5), review("U", "I2", 10), ""])
    table = json_table(text.encode(), "f.json")
    assert pairs(table) == [(0, 1), (0, 0), (1, 0)]
    assert table.ordered


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("{", "not a JSON review"),
        ("[1]", "not a JSON review"),
        ('{"reviewerID": "U", "asin": "I"}', "the review has no 'unixReviewTime'"),
        (review("", "I", 1), "not a JSON review"),
        (review("U", 3.5, 1), "not a JSON review"),
        (review("U", True, 1), "not a JSON review"),
        (review("U", "I", "nan"), "not a JSON review"),
        ("[" * 100_000, "not a JSON review"),
        ("{'reviewerID': " * 5_000, "not a JSON review"),
        (review("U", "I", "soon"), "not a JSON review"),
    ],
)
def test_malformed_review_is_refused_or_counted(line: str, what: str) -> None:
    data = f"{review('U', 'I', 1)}\n{line}\n".encode()
    with pytest.raises(DataError, match=r"^f\.json:2: ") as caught:
        json_table(data, "f.json")
    assert what in str(caught.value)
    assert "\n" not in str(caught.value)
    table = json_table(data, "f.json", skip_malformed=True)
    assert (len(table.parts["all"]), table.malformed) == (1, 1)


def test_inter_takes_columns_by_name() -> None:
    data = b"item_id:token\tuser_id:token\ttimestamp:float\textra:token_seq\nX\tA\t20.5\tp q\nY\tA\t10\t\n"
    with pytest.raises(DataError, match=r"^f\.inter:3: 2 fields"):
        read_table(data.replace(b"Y\tA\t10\t\n", b"Y\tA\n"), "f.inter")
    table = read_table(data, "f.inter")
    assert pairs(table) == [(0, 1), (0, 0)]
    assert table.ordered


def test_inter_without_timestamp_has_no_order() -> None:
    table = read_table(b"user_id:token\titem_id:token\r\nA\tX\r\nB\tX\r\n", "f.inter")
    assert pairs(table) == [(0, 0), (1, 0)]
    assert not table.ordered


def test_inter_needs_user_and_item() -> None:
    with pytest.raises(DataError, match=r"^f\.inter:1: the header names no column of items; it has: user_id:token, x"):
        read_table(b"user_id:token\tx:float\nA\t1\n", "f.inter")
