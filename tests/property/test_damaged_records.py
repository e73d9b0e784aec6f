"""Bytes of records that change on a disk or on a way: each record is read as it was written, or its file is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from bounds import Bounded
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from records import record, scenario, untargeted, visual, write

from fedbench.runs.results import pack, scan

OLD = Path(__file__).parents[1] / "historic_results" / "v6.parquet"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What one record, and three packed ones, are written as."""
    one = record(scenario("a-ra"), 3, er=[0.25, 0.5], warnings=("one",))
    folder = write(tmp_path_factory.mktemp("one"), one)
    made = {"one": next(folder.iterdir()).read_bytes()}
    write(folder, untargeted("a-ra", hr=[0.04, 0.03], val=[0.1, 0.3]), visual("psmu-v", images={"image_psnr": 30.0}))
    pack([folder], folder / "all.parquet")
    return made | {"packed": (folder / "all.parquet").read_bytes()}


def rows_of(path: Path) -> dict[str, dict[str, Any]]:
    return {row["run_id"]: row for row in scan([path]).table.to_pylist()}


def read(path: Path, content: bytes) -> tuple[dict[str, dict[str, Any]], bool]:
    """The records of a file with this content, and whether it is named as damaged, on one short line."""
    path.write_bytes(content)
    with Bounded():
        found = scan([path])
    assert set(found.damaged) <= {str(path)}
    assert all(why.isprintable() and len(why) < 300 for why in found.damaged.values())
    return {row["run_id"]: row for row in found.table.to_pylist()}, bool(found.damaged)


def check_bits(files: dict[str, bytes], folder: Path, most: int) -> None:
    written = {}
    for name, content in files.items():
        (folder / f"{name}.parquet").write_bytes(content)
        written[name] = rows_of(folder / f"{name}.parquet")
    assert [len(rows) for rows in written.values()] == [1, 3]

    @settings(max_examples=most, deadline=None, suppress_health_check=list(HealthCheck), derandomize=most < 500)
    @given(st.sampled_from(sorted(files)), st.data())
    def check(name: str, data: st.DataObject) -> None:
        content = bytearray(files[name])
        bit = data.draw(st.integers(0, 8 * len(content) - 1))
        content[bit // 8] ^= 1 << bit % 8
        rows, damaged = read(folder / f"{name}.parquet", bytes(content))
        assert rows.items() <= written[name].items(), "no value is another"
        assert damaged or len(rows) == len(written[name]), "what is missing is named"

    check()


def check_bytes(files: dict[str, bytes], path: Path, most: int) -> None:
    contents = files | {"old": OLD.read_bytes()}
    edit = st.tuples(st.floats(0, 1), st.integers(0, 40), st.binary(max_size=40))

    @settings(max_examples=most, deadline=None, suppress_health_check=list(HealthCheck), derandomize=most < 500)
    @given(st.sampled_from(sorted(contents)), st.lists(edit, max_size=4), st.booleans())
    def check(name: str, edits: list[tuple[float, int, bytes]], in_footer: bool) -> None:
        content = contents[name]
        for place, length, data in edits:
            first = max(0, len(content) - 20_000) if in_footer else 0
            at = first + int(place * (len(content) - first))
            content = content[:at] + data + content[at + length :]
        read(path, content)

    check()


def test_a_bit_that_flips(files: dict[str, bytes], tmp_path: Path) -> None:
    check_bits(files, tmp_path, 80)


@pytest.mark.slow
def test_many_bits_that_flip(files: dict[str, bytes], tmp_path: Path) -> None:
    check_bits(files, tmp_path, 10_000)


def test_any_bytes(files: dict[str, bytes], tmp_path: Path) -> None:
    check_bytes(files, tmp_path / "x.parquet", 60)


@pytest.mark.slow
def test_much_of_any_bytes(files: dict[str, bytes], tmp_path: Path) -> None:
    check_bytes(files, tmp_path / "x.parquet", 5_000)
