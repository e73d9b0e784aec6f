from __future__ import annotations

import dataclasses
from typing import Any

import pyarrow as pa
import pytest
from records import record, scenario, untargeted, visual

from fedbench.runs.checksum import checksums
from fedbench.runs.record import checksum, schema

ROWS = [
    record(scenario("a-ra"), 3, er=[0.25, 0.5]).row(),
    untargeted("a-ra", hr=[0.04, 0.03], val=[0.1, 0.3]).row(),
    dataclasses.replace(record(scenario()), warnings=("one", "two"), git_dirty=True).row(),
    visual("psmu-v", images={"image_psnr": 30.0}, uploads=[{"epoch": 1, "item": 7, "psnr": 30.0}]).row(),
    record(scenario(), status="failed", error="x").row(),
]


def test_many_records_at_once_have_the_checksums_that_each_has_alone() -> None:
    table = pa.Table.from_pylist(ROWS, schema=schema())
    parts = pa.concat_tables([table.slice(0, 2), table.slice(2)])
    assert checksums(parts.drop_columns("checksum")) == [row["checksum"] for row in ROWS]
    assert len({row["checksum"] for row in ROWS}) == len(ROWS)
    assert [checksum(row) for row in table.to_pylist()] == [row["checksum"] for row in ROWS], "as they are read back"
    assert checksums(table.slice(0, 0)) == []


def test_what_a_later_schema_adds_does_not_change_the_checksum_of_an_earlier_record() -> None:
    table = pa.Table.from_pylist(ROWS, schema=schema()).drop_columns("checksum")
    later = [pa.field("new", pa.float64()), *reversed(list(table.schema))]
    place = next(n for n, field in enumerate(later) if field.name == "curve")
    points = pa.struct([*reversed(list(later[place].type.value_type)), pa.field("new", pa.float64())])
    later[place] = pa.field("curve", pa.list_(points))
    rows = pa.Table.from_pylist(table.to_pylist(), schema=pa.schema(later))
    assert checksums(rows) == [row["checksum"] for row in ROWS]


@pytest.mark.parametrize("column", schema().names[:-1])
def test_every_value_counts(column: str) -> None:
    kind = schema().field(column).type
    for row in ROWS[:4]:
        for value in _others(kind, row.get(column)):
            assert checksum(row | {column: value}) != row["checksum"], value


def _others(kind: pa.DataType, value: Any) -> list[Any]:
    """Values near ``value`` that are not it."""
    if _points(kind):
        first = dict.fromkeys(kind.value_type.names) | (dict(value[0]) if value else {"epoch": 1})
        rest = list(value or [])[1:]
        fewer = [list(value)[:-1]] if value else []
        raised = [[first | {name: (old or 0) + 1}, *rest] for name, old in first.items()]
        return [*raised, *fewer, [*(value or []), {"epoch": 99}]]
    if pa.types.is_list(kind):
        longer = [*(value or []), (kind.value_type.id == pa.int64().id and 1) or "x"]
        return [longer] if value is None else [longer, None]
    if pa.types.is_boolean(kind):
        return [each for each in (True, False, None) if each is not value]
    if pa.types.is_string(kind):
        return [f"{value} ", None] if value is not None else ["", "x"]
    if pa.types.is_timestamp(kind):
        return [value.replace(microsecond=value.microsecond ^ 1)]
    return [None, value + 1] if value is not None else [0, 1]


def _points(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) and pa.types.is_struct(kind.value_type)
