from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

import fedbench.data.columns as columns_module
from fedbench.data.columns import ML_1M, ML_1M_PARTIAL, ML_100K, TRIPLES, Columns, Layout, read_columns
from fedbench.data.dates import Dates
from fedbench.data.interactions import ml_1m_partial_table, table_of_columns
from fedbench.data.records import Table
from fedbench.errors import DataError


def pairs(table: Table) -> list[tuple[int, int]]:
    rows = table.parts["all"]
    return list(zip(rows.user.tolist(), rows.item.tolist(), strict=True))


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_ml_100k_orders_by_time_and_numbers_by_first_appearance(end: bytes) -> None:
    data = end.join([b"196\t242\t3\t30", b"22\t242\t1\t10", b"196\t51\t2\t20", b"22\t9\t5\t10"]) + end
    table = table_of_columns(read_columns(data, ML_100K, "u.data"))
    assert pairs(table) == [(0, 1), (0, 0), (1, 0), (1, 2)]
    assert (table.num_users, table.num_items, table.ordered) == (2, 3, True)


def test_ml_1m_has_double_colons() -> None:
    table = table_of_columns(read_columns(b"1::10::5::9\n1::11::4::8\n", ML_1M, "ratings.dat"))
    assert pairs(table) == [(0, 1), (0, 0)]


def test_ml_1m_does_not_take_tabs_for_colons() -> None:
    with pytest.raises(DataError, match=r"^f:1: 1 fields separated by '::', expected 4"):
        read_columns(b"1\t10\t5\t9\n", ML_1M, "f")
    with pytest.raises(DataError, match=r"^f:1: the item id '1\\t0' holds a tab"):
        read_columns(b"1::1\t0::5::9\n", ML_1M, "f")


def test_file_without_time_keeps_its_order() -> None:
    layout = Layout(",", 2, 0, 1, None)
    table = table_of_columns(read_columns(b"b,x\na,y\nb,y\n", layout, "f"))
    assert pairs(table) == [(0, 0), (0, 1), (1, 1)]
    assert not table.ordered


@pytest.mark.parametrize(
    ("line", "what"),
    [
        (b"1\t2\t3", "3 fields separated by '\\t', expected 4"),
        (b"1\t2\t3\t4\t5", "5 fields"),
        (b"\t2\t3\t4", "the user id is empty"),
        (b"1\t\t3\t4", "the item id is empty"),
        (b"1\t2\tgood\t4", "rating 'good' is not a number"),
        (b"1\t2\t3\t", "timestamp '' is not a number"),
        (b"1\t2\t3\tnan", "timestamp 'nan' is not a number"),
        (b"1\t2\t3\t1_0", "timestamp '1_0' is not a number"),
        (b"1\t2\t3\t\xff", "not UTF-8"),
    ],
)
def test_malformed_line_is_refused_with_file_and_line(line: bytes, what: str) -> None:
    data = b"7\t8\t3\t1\n" + line + b"\n7\t9\t3\t2\n"
    with pytest.raises(DataError, match=r"^u\.data:2: ") as caught:
        read_columns(data, ML_100K, "u.data")
    assert what in str(caught.value)
    columns = read_columns(data, ML_100K, "u.data", skip_malformed=True)
    assert (len(columns), columns.malformed) == (2, 1)


def test_header_counts_as_the_first_line() -> None:
    with pytest.raises(DataError, match=r"^x\.csv:3: 4 fields"):
        read_columns(b"user,movie,rating,timestamp,chron_pos\n1,2,3,4,5\n1,2,3,4\n", ML_1M_PARTIAL, "x.csv")


@pytest.mark.parametrize("block", [1, 9, 40, 1 << 20])
def test_malformed_lines_are_counted_and_named_across_blocks(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedbench.data.columns._BLOCK", block)
    lines = ["user,movie,rating,timestamp,chron_pos", *(f"{n},{n},3,{n},0" for n in range(20))]
    broken = [*lines[:13], "7,7", *lines[13:15], "", "8,,3,1,0", *lines[15:]]
    data = "\r\n".join(broken).encode()
    with pytest.raises(DataError, match=r"^x\.csv:14: 2 fields"):
        read_columns(data, ML_1M_PARTIAL, "x.csv")
    with pytest.raises(DataError, match=r"^x\.csv:18: the item id is empty"):
        read_columns(data.replace(b"7,7\r\n", b"7,7,3,7,0\r\n"), ML_1M_PARTIAL, "x.csv")
    columns = read_columns(data, ML_1M_PARTIAL, "x.csv", skip_malformed=True)
    assert columns.malformed == 2
    assert columns.user.to_pylist() == [str(n) for n in range(20)]
    assert columns.time is not None
    assert columns.time.tolist() == list(range(20))


def test_lines_are_not_read_one_by_one_where_they_are_sound(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at: list[bytes] = []
    plain = columns_module._problem

    def spy(line: bytes, layout: Layout) -> str:
        looked_at.append(line)
        return plain(line, layout)

    monkeypatch.setattr(columns_module, "_problem", spy)
    monkeypatch.setattr(columns_module, "_BLOCK", 1_000)
    data = b"1\t2\t3\n" * 5_000 + b"broken\n" + b"1\t2\t3\n" * 5_000
    assert len(read_columns(data, TRIPLES, "f", skip_malformed=True)) == 10_000
    assert b"broken" in looked_at
    assert len(looked_at) < 200


@pytest.mark.parametrize("data", [b"", b"\n", b" \r\n\n"])
@pytest.mark.parametrize("iso_time", [False, True])
def test_empty_file_has_no_rows(data: bytes, iso_time: bool) -> None:
    columns = read_columns(data, replace(TRIPLES, numbers=(), dates=Dates()) if iso_time else TRIPLES, "f")
    assert len(columns) == 0
    assert columns.time is not None
    assert columns.time.dtype == np.float64


def columns_of(text: str) -> Columns:
    return read_columns(("user,movie,rating,timestamp,chron_pos\n" + text).encode(), ML_1M_PARTIAL, "f")


def test_blank_numbers_are_read_as_nan() -> None:
    columns = columns_of("1,10,,,0\n1,11,4,50,\n")
    assert math.isnan(columns.numbers["timestamp"][0])
    assert math.isnan(columns.numbers["chron_pos"][1])
    assert columns.numbers["timestamp"][1] == 50


def test_partial_ml_1m_places_rows_without_time_by_their_position() -> None:
    # Item 10 has no time but position 1: after item 11 (time 50), before item 12 (time 70). Item 13 has only a time
    # (60) and item 14 neither: 14 comes first. Same time: by position, so 15 (position 3) follows 12 (position 2).
    text = "1,10,,,1\n1,11,4,50,0\n1,15,4,70,3\n1,12,4,70,2\n1,13,2,60,\n1,14,,,\n"
    table = ml_1m_partial_table(columns_of(text))
    movies = [10, 11, 15, 12, 13, 14]  # by index
    assert [movies[item] for _, item in pairs(table)] == [14, 11, 10, 13, 12, 15]
    assert table.ordered


def test_partial_ml_1m_does_not_carry_times_from_user_to_user() -> None:
    table = ml_1m_partial_table(columns_of("1,10,4,1000,0\n2,10,,,0\n2,11,4,5,\n2,12,4,9,1\n"))
    assert pairs(table) == [(0, 0), (1, 0), (1, 1), (1, 2)]
