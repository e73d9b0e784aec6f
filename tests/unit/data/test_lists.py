from __future__ import annotations

import pytest

from fedbench.data.lists import read_lists
from fedbench.errors import DataError


def read(data: bytes, **options: bool) -> tuple[list[tuple[int, int]], int]:
    rows, skipped = read_lists(data, "train.txt", **options)
    return list(zip(rows.user.tolist(), rows.item.tolist(), strict=True)), skipped


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("last", [True, False])
def test_lists_and_pairs_give_rows_in_file_order(end: bytes, last: bool) -> None:
    data = end.join([b"0 5 3 5", b"2 1", b"", b"1\t7  8", b"2 0"]) + (end if last else b"")
    assert read(data) == ([(0, 5), (0, 3), (0, 5), (2, 1), (1, 7), (1, 8), (2, 0)], 0)


def test_user_without_items_has_no_row() -> None:
    assert read(b"0 1\n1\n2 3\n") == ([(0, 1), (2, 3)], 0)


def test_empty_file_has_no_rows() -> None:
    assert read(b"") == ([], 0)
    assert read(b"\r\n \n") == ([], 0)


@pytest.mark.parametrize(
    ("line", "what"),
    [
        (b"3 x", "'x' is not an index"),
        (b"3 -1", "'-1' is not an index"),
        (b"3 1.5", "'1.5' is not an index"),
        (b"3 99999999999", "index 99999999999 is above"),
        (b"3 2147483647", "index 2147483647 is above"),
        ("3 \uff15".encode(), "is not an index"),
        (b"3 \xff", "is not an index"),
    ],
)
def test_malformed_line_is_refused_with_file_and_line(line: bytes, what: str) -> None:
    with pytest.raises(DataError, match=r"^train\.txt:2: ") as caught:
        read(b"0 1\n" + line + b"\n1 2\n")
    assert what in str(caught.value)


def test_malformed_lines_can_be_skipped_and_counted() -> None:
    assert read(b"0 1\n1 x\n?\n2 3 4\n", skip_malformed=True) == ([(0, 1), (2, 3), (2, 4)], 2)


def test_largest_index_is_taken() -> None:
    assert read(b"0 2147483646\n") == ([(0, 2147483646)], 0)
