from __future__ import annotations

import dataclasses
import hashlib
import json
from datetime import UTC, datetime
from random import Random
from typing import Any

import numpy as np
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


@pytest.mark.parametrize("seed", range(8))
def test_records_of_any_shape_have_the_checksums_of_a_plain_loop(seed: int) -> None:
    random = Random(seed)
    # Lists of equal and of different lengths; nulls nowhere, anywhere, everywhere.
    lengths, nulls = random.choice([[2], [0, 1, 3]]), random.choice([0.0, 0.3, 1.0])
    kinds = schema().remove(schema().get_field_index("checksum"))
    rows = [{each.name: _any(random, each.type, lengths, nulls) for each in kinds} for _ in range(7)]
    table = pa.Table.from_pylist(rows, schema=kinds)
    assert checksums(table) == [_plain(row, kinds) for row in rows]
    assert checksums(table.slice(2, 3)) == [_plain(row, kinds) for row in rows[2:5]]


def _any(random: Random, kind: pa.DataType, lengths: list[int], nulls: float) -> Any:
    if random.random() < nulls:
        return None
    if pa.types.is_struct(kind):
        return {field.name: _any(random, field.type, lengths, nulls) for field in kind}
    if _points(kind):
        return [_any(random, kind.value_type, lengths, 0.0) for _ in range(random.choice(lengths))]
    if pa.types.is_list(kind):
        return [_any(random, kind.value_type, lengths, nulls) for _ in range(random.choice(lengths))]
    if pa.types.is_string(kind):
        return random.choice(["", "null", '"é\u2028', "a\0b, c"])
    if pa.types.is_timestamp(kind):
        return datetime.fromtimestamp(random.randrange(2**31), UTC)
    if pa.types.is_floating(kind):
        return random.choice([0.0, -0.0, 0.1, 1e300, float("inf")])
    return random.choice([True, False] if pa.types.is_boolean(kind) else [0, 1, -1, 2**31 - 1])


def _plain(row: dict[str, Any], kinds: pa.Schema) -> str:
    """The checksum as its docstring defines it, value by value."""
    text = b""
    for name in sorted(kinds.names):
        kind, value = kinds.field(name).type, row[name]
        if value is None:
            continue
        if _points(kind):
            text += _numbers(name, [len(value)], pa.int32())
            for field in sorted(kind.value_type, key=lambda each: each.name):
                text += _numbers(f"{name}.{field.name}", [point[field.name] for point in value], field.type)
        elif pa.types.is_primitive(kind):
            text += _numbers(name, [value], kind)
        else:
            text += b"%b=%d:%b" % (name.encode(), len(json.dumps(value)), json.dumps(value).encode())
    return hashlib.sha256(text).hexdigest()


def _numbers(name: str, values: list[Any], kind: pa.DataType) -> bytes:
    if all(value is None for value in values):
        return b""
    if pa.types.is_timestamp(kind):
        kind, values = pa.int64(), [None if value is None else 10**6 * int(value.timestamp()) for value in values]
    data = np.array([0 if value is None else value for value in values], kind.to_pandas_dtype()).tobytes()
    return f"{name}={len(data) + len(values)}:".encode() + data + bytes(value is not None for value in values)


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
